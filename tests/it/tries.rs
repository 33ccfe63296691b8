//! Issue item "Admission": what strangers do without end.

use std::io::Write;

use serde_json::Value;

use crate::admission::{loopback, penalised, reach, rest};
use crate::yard::{Yard, keygen, until};

/// A source that goes on trying, here one that no penalty stops, is counted in the audit and not listed.
#[test]
fn a_flood_of_refused_logins_is_counted_and_not_listed() {
    let yard = Yard::new().user("alice").config("ssh.max_startups = '100:30:100'").start();
    let keys: Vec<_> = (0..6).map(|number| yard.path(&format!("k{number}"))).collect();
    keys.iter().for_each(|key| keygen(key));
    let ssh = || {
        let ssh = yard.ssh("alice").key(keys[0].clone());
        keys.iter().skip(1).fold(ssh, |ssh, key| ssh.arg("-i").arg(key.to_str().unwrap())).begin("true")
    };
    let clients: Vec<_> = (0..25).map(|_| ssh()).collect();
    for client in clients {
        assert_eq!(client.wait().code, Some(255));
    }
    let listed = || yard.audit().of("SK1004W").len();
    let counted = |event: &Value| -> Option<usize> {
        let (count, rest) = event["unmapped"]["what"].as_str()?.split_once(' ')?;
        rest.contains("lines about refused logins of 127.0.0.1").then(|| count.parse().unwrap())
    };
    let left_out = || yard.audit().of("SK6001W").iter().filter_map(counted).sum::<usize>();
    until("each of them is told or counted", || (listed() + left_out() == 150).then_some(()));
    assert!((100..125).contains(&listed()), "{} lines", listed());
    assert_eq!(yard.ssh("alice").run("echo in").ok(), "in");
    assert_eq!(yard.audit().of("SK1003I").len(), 1);
}

/// "PerSourcePenalties as research section 7 lists them": noauth and grace-exceeded; the other two are in `admission`.
#[test]
fn who_only_connects_or_only_waits_is_fined_too() {
    let yard = Yard::new().user("alice").config("ssh.login_grace = '1s'").start();
    let (hasty, silent) = (loopback(2), loopback(3));
    // Its share of places, twice; each wait is worth ten seconds.
    for _ in 0..2 {
        let held: Vec<_> = (0..4).map(|_| reach(&yard, silent)).collect();
        held.into_iter().for_each(|stream| drop(rest(stream)));
    }
    let fined = until("a fine for waiting", || penalised(&yard, silent));
    assert_eq!(fined["unmapped"]["why"], "it did not log in in time");
    for number in 0.. {
        assert!(number < 100, "a hundred connections are worth a second each");
        // Several at a time: a second is forgiven in a second, and a busy machine is slow.
        let mut streams: Vec<_> = (0..4).map(|_| reach(&yard, hasty)).collect();
        streams.iter_mut().for_each(|stream| drop(stream.write_all(b"SSH-2.0-hasty\r\n")));
        drop(streams);
        if penalised(&yard, hasty).is_some() {
            break;
        }
    }
    assert_eq!(penalised(&yard, hasty).unwrap()["unmapped"]["why"], "it connected and offered no key");
    for source in [hasty, silent] {
        assert_eq!(rest(reach(&yard, source)), "Not allowed at this time\r\n");
    }
    assert_eq!(yard.ssh("alice").from("127.0.0.4").run("echo in").ok(), "in");
}
