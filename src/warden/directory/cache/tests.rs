use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::super::{Keys, Origin};
use super::*;
use crate::privsep::message::Refusal;

/// Knows whoever's name does not begin with `x`; can be down; takes a second.
#[derive(Clone, Default)]
struct Town(Arc<(AtomicBool, AtomicUsize)>);

impl Town {
    fn down(&self, down: bool) {
        self.0.0.store(down, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

impl People for Town {
    async fn find(&self, principal: &Principal) -> Result<Record, Refusal> {
        self.0.1.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(1)).await;
        if self.0.0.load(Ordering::SeqCst) {
            return Err(Refusal { code: "ServiceUnavailable".into(), message: "down".into(), transient: true });
        }
        let key = Keys { origin: Origin::Iam("APKA".into()), text: format!("ssh-rsa {principal}") };
        let keys = if principal.as_str().starts_with('x') { vec![] } else { vec![key] };
        Ok(Record { keys, ..Record::default() })
    }
}

fn town() -> (Town, Cache<Town>) {
    let town = Town::default();
    (town.clone(), Cache::new(town, Lives::default()))
}

fn named(name: &str) -> Principal {
    name.parse().unwrap()
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_for_five_minutes_and_nobody_for_thirty_seconds() {
    let (town, cache) = town();
    for (name, short, long) in [("alice", 280, 30), ("xavier", 20, 15)] {
        let before = town.asked();
        for wait in [0, short] {
            pass(wait).await;
            assert!(!cache.look_up(&named(name), Need::Login).await.unwrap().1);
        }
        assert_eq!(town.asked(), before + 1, "{name}");
        pass(long).await;
        cache.look_up(&named(name), Need::Login).await.unwrap();
        assert_eq!(town.asked(), before + 2, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn to_stay_an_answer_must_be_young_and_serves_logins_too() {
    let (town, cache) = town();
    cache.look_up(&named("alice"), Need::Login).await.unwrap();
    pass(30).await;
    cache.look_up(&named("alice"), Need::Stay).await.unwrap();
    assert_eq!(town.asked(), 1);
    pass(8).await;
    for need in [Need::Stay, Need::Stay, Need::Login] {
        cache.look_up(&named("alice"), need).await.unwrap();
    }
    assert_eq!(town.asked(), 2);
    pass(280).await;
    cache.look_up(&named("alice"), Need::Login).await.unwrap();
    assert_eq!(town.asked(), 2);
    // An outage takes nobody's groups away.
    town.down(true);
    assert!(cache.look_up(&named("alice"), Need::Stay).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_remembered_everybody_is_asked_about_each_time() {
    let town = Town::default();
    let cache = Cache::new(town.clone(), Lives { fresh: Duration::ZERO, ..Lives::default() });
    for asked in 1..4 {
        assert!(!cache.look_up(&named("alice"), Need::Login).await.unwrap().1);
        assert_eq!(town.asked(), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn while_iam_fails_the_old_answer_stands_for_a_day_and_iam_is_left_alone() {
    let (town, cache) = town();
    let fresh = cache.look_up(&named("alice"), Need::Login).await.unwrap().0;
    town.down(true);
    pass(600).await;
    for _ in 0..10 {
        let (record, stale) = cache.look_up(&named("alice"), Need::Login).await.unwrap();
        assert!(stale && record == fresh);
    }
    assert_eq!(town.asked(), 2, "one failure is enough for half a minute");
    pass(23 * 3600).await;
    assert!(cache.look_up(&named("alice"), Need::Login).await.unwrap().1);
    pass(3600).await;
    assert_eq!(cache.look_up(&named("alice"), Need::Login).await.unwrap_err(), Unknown::Iam(named("alice")));
    town.down(false);
    pass(31).await;
    assert!(!cache.look_up(&named("alice"), Need::Login).await.unwrap().1);
}

#[tokio::test(start_paused = true)]
async fn after_a_reload_iam_is_asked_again_and_while_it_fails_the_old_answer_stands() {
    let (town, cache) = town();
    let before = cache.look_up(&named("alice"), Need::Login).await.unwrap().0;
    cache.doubt(Lives::default());
    assert!(!cache.look_up(&named("alice"), Need::Login).await.unwrap().1);
    assert_eq!(town.asked(), 2);
    town.down(true);
    cache.doubt(Lives::default());
    let (record, stale) = cache.look_up(&named("alice"), Need::Login).await.unwrap();
    assert!(stale && record == before);
    // An outage that was noticed before the reload may be over.
    town.down(false);
    cache.doubt(Lives { stale: Duration::ZERO, ..Lives::default() });
    assert!(!cache.look_up(&named("alice"), Need::Login).await.unwrap().1);
    town.down(true);
    cache.doubt(Lives { stale: Duration::ZERO, ..Lives::default() });
    assert_eq!(cache.look_up(&named("alice"), Need::Login).await.unwrap_err(), Unknown::Iam(named("alice")));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_let_in_by_an_outage() {
    let (town, cache) = town();
    town.down(true);
    assert_eq!(cache.look_up(&named("alice"), Need::Login).await.unwrap_err(), Unknown::Iam(named("alice")));
    assert_eq!(cache.look_up(&named("alice"), Need::Login).await.unwrap_err(), Unknown::Iam(named("alice")));
    assert_eq!(town.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_at_one_time_are_one_request() {
    let (town, cache) = town();
    let cache = Arc::new(cache);
    let all: Vec<_> = (0..50)
        .map(|_| {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move { cache.look_up(&named("alice"), Need::Login).await.unwrap() })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.unwrap().0.keys.len(), 1);
    }
    assert_eq!(town.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_is_given_up_leaves_the_turn_to_the_next() {
    let (town, cache) = town();
    let given_up = tokio::time::timeout(Duration::from_millis(10), cache.look_up(&named("alice"), Need::Login)).await;
    assert!(given_up.is_err());
    assert_eq!(cache.look_up(&named("alice"), Need::Login).await.unwrap().0.keys.len(), 1);
    assert_eq!(town.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_guesser_of_names_neither_fills_the_cache_nor_makes_it_forget_people() {
    let (town, cache) = town();
    cache.look_up(&named("alice"), Need::Login).await.unwrap();
    for number in 0..USERS + 10 {
        // Straight into the slots: the town would take an hour.
        let guess = named(&format!("x{number}"));
        cache.turn(&guess);
        cache.keep(&guess, Arc::default());
    }
    assert_eq!(lock(&cache.slots).len(), USERS);
    town.down(true);
    pass(600).await;
    assert!(cache.look_up(&named("alice"), Need::Login).await.unwrap().1, "alice is still remembered");
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_guesses_is_turned_away_and_not_queued_without_end() {
    let (_town, cache) = town();
    let cache = Arc::new(cache);
    let all: Vec<_> = (0..WAITING + 20)
        .map(|number| {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move { cache.look_up(&named(&format!("x{number}")), Need::Login).await })
        })
        .collect();
    let mut turned_away = 0;
    for one in all {
        turned_away += usize::from(one.await.unwrap().err() == Some(Unknown::Crowd));
    }
    assert_eq!(turned_away, 20);
}
