//! Second issue, item 4: never another's credentials. The race that look-ups by address had: a jail's address went to the
//! next one faster than the table of addresses learned of it.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::aws::Bed;
use crate::doors::{ROLE, TOKEN, yard};
use crate::yard::Yard;

/// In full with `tests/run --soak crosstalk`.
fn many(all: usize) -> usize {
    if std::env::var_os("STOCKADE_SOAK").is_some() { all } else { all / 5 }
}

/// What one jail was told: whose role, and which key.
fn told(yard: &Yard, user: &str) -> (String, String) {
    let ask =
        format!("{TOKEN} md {ROLE}/; md {ROLE}/{user} | sed -n 's/.*\"AccessKeyId\" *: *\"\\([A-Z0-9]*\\)\".*/\\1/p'");
    let said = yard.ssh(user).run(&ask).ok();
    let (role, key) = said.split_once('\n').unwrap_or((&said, ""));
    (role.to_owned(), key.trim().to_owned())
}

/// A thousand jails, recycled as fast as the machine can: four at once out of eight slots.
#[test]
fn recycled_jails_have_their_own_credentials() {
    let bed = Bed::start();
    let yard = yard(&bed).config("ssh.max_startups_per_source = 16").start();
    let jails = many(1000);
    let (next, keys) = (AtomicUsize::new(0), Mutex::new(HashSet::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= jails {
                        return;
                    }
                    let user = ["alice", "bob"][number / 3 % 2];
                    let (role, key) = told(&yard, user);
                    assert_eq!(role, user, "jail {number}");
                    assert!(key.starts_with("ASIA"), "jail {number}: {key}");
                    keys.lock().unwrap().insert((user, key));
                }
            });
        }
    });
    let keys = keys.into_inner().unwrap();
    assert_eq!(keys.len(), jails, "each session has a key of its own");
    let issued: HashSet<(String, String)> = yard
        .audit()
        .of("SK4001I")
        .iter()
        .map(|event| (event["user"]["name"].as_str().unwrap(), event["unmapped"]["access_key_id"].as_str().unwrap()))
        .map(|(user, key)| (user.to_owned(), key.to_owned()))
        .collect();
    let strange: Vec<_> = keys.iter().filter(|(user, key)| !issued.contains(&((*user).into(), key.clone()))).collect();
    assert!(strange.is_empty(), "STS issued these to another, or never: {strange:?}");
}

/// Two users ask at once, thousands of times.
#[test]
fn two_users_who_ask_at_once_get_their_own() {
    let bed = Bed::start();
    let yard = yard(&bed).start();
    let asks = many(10_000);
    let loop_of = |user: &str| {
        format!(
            "{TOKEN} md {ROLE}/{user} >/dev/null; yes 'url = http://169.254.169.254/latest/{ROLE}/{user}' | head -{asks} | \
             curl -sS -H \"X-aws-ec2-metadata-token: $T\" -K - | sed -n 's/.*\"AccessKeyId\" *: *\"\\([A-Z0-9]*\\)\".*/\\1/p' | \
             sort | uniq -c"
        )
    };
    let running = ["alice", "bob"].map(|user| (user, yard.ssh(user).begin(&loop_of(user))));
    for (user, running) in running {
        let said = running.wait_at_most(std::time::Duration::from_secs(300)).ok();
        let [count, key] = said.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{user}: {said}") };
        assert_eq!(count, asks.to_string(), "{user}");
        yard.audit()
            .wait_for("SK4001I", |event| event["user"]["name"] == user && event["unmapped"]["access_key_id"] == key);
    }
}
