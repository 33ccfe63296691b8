use tokio::time::Instant;

use super::clusters::{kube, with};
use super::*;

const CYCLE: Duration = Duration::from_secs(300);

impl Yard {
    /// Reads until a cycle is over for somebody, and then what was asked of them; how long that took.
    async fn cycle(&mut self, asked: usize) -> Duration {
        let begun = Instant::now();
        loop {
            let letter = self.letters.recv().await.unwrap();
            let over = matches!(letter, Post::Due(Due::Cycle(_)));
            self.read(letter);
            if over {
                break;
            }
        }
        let took = begun.elapsed();
        for _ in 0..asked {
            let letter = self.letters.recv().await.unwrap();
            assert!(matches!(letter, Post::Reviewed { .. } | Post::LoginReviewed(..) | Post::LaptopReviewed(..)));
            self.read(letter);
        }
        took
    }

    /// The next event that is the right one.
    async fn told(&self, right: impl Fn(&Event) -> bool) -> Event {
        loop {
            if let WardenToKeeper::Event(event) = self.keeper.recv().await.unwrap().0
                && right(&event)
            {
                return event;
            }
        }
    }

    fn in_groups(&self, groups: &[&str]) {
        *self.gavel.review.lock().unwrap() = Review::Stays(Box::new(permit(groups)));
    }
}

/// "a user removed from all groups of a cluster loses its context in running sessions within a cycle"
#[tokio::test(start_paused = true)]
async fn a_running_session_follows_its_users_groups() {
    let mut yard = Yard::new();
    yard.court.adopt(Terms { cycle: Some(CYCLE), ..with(kube("ops", false), &["hyades"]) });
    let id = yard.session().await;
    assert_eq!(yard.pass(id).await.1.clusters, [""; 0], "a login in no group");

    yard.in_groups(&["ops"]);
    let first = yard.cycle(2).await;
    assert!(first <= CYCLE / 8, "a login goes by what may be old: {first:?}");
    assert_eq!(yard.pass(id).await.1.clusters, ["hyades"]);
    assert_eq!(yard.groups(), Some(["ops".to_owned()].into()), "the connection's next session has them too");

    *yard.gavel.review.lock().unwrap() = Review::Unknown;
    let pause = yard.cycle(2).await;
    assert!(pause <= CYCLE / 8 * 7, "{pause:?}");
    assert_eq!(yard.pass(id).await.1.clusters, ["hyades"], "IAM is away: what was decided stands");

    yard.in_groups(&["dev"]);
    yard.cycle(2).await;
    let told = yard.told(|event| matches!(event, Event::GroupsChanged { left, .. } if *left == ["ops"])).await;
    assert!(matches!(told, Event::GroupsChanged { session, joined, .. } if session == id && joined == ["dev"]));
    let (_, pass) = yard.pass(id).await;
    assert_eq!((pass.clusters.len(), pass.groups.join(" ")), (0, "dev".into()));

    *yard.gavel.review.lock().unwrap() = Review::Leaves("allow_groups".into());
    yard.cycle(2).await;
    assert!(yard.court.sessions.values().all(|session| session.ending.is_some()));
    assert!(yard.court.connections.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_user_is_asked_about_once_however_many_sessions_they_have_and_not_when_they_are_gone() {
    let mut yard = Yard::new();
    yard.court.adopt(Terms { cycle: Some(CYCLE), jails_per_user: 9, ..terms() });
    yard.gavel.turns.add_permits(3);
    for connection in 1..4 {
        yard.prove_over(connection);
        yard.letter().await;
        yard.court.hear_gate(yard.term, GateToWarden::Open { connection, channel: 1 });
    }
    assert_eq!((yard.court.sessions.len(), yard.court.followed.len()), (3, 1));
    yard.cycle(6).await;
    let begun = Instant::now();
    yard.cycle(6).await;
    let pause = begun.elapsed();
    assert!(pause >= CYCLE / 4 * 3 && pause <= CYCLE / 8 * 7, "{pause:?}");
    for connection in 1..4 {
        yard.court.hear_gate(yard.term, GateToWarden::Gone { connection });
    }
    for id in yard.court.sessions.keys().copied().collect::<Vec<_>>() {
        yard.court.hear_jailer(JailerToWarden::Gone { session: id });
    }
    yard.cycle(0).await;
    assert!(yard.court.followed.is_empty() && yard.letters.try_recv().is_err());
}

/// A reload brings IAM, or another pace.
#[tokio::test(start_paused = true)]
async fn whoever_was_in_before_there_was_a_cycle_is_in_it() {
    let mut yard = Yard::new();
    let id = yard.session().await;
    assert!(yard.court.followed.is_empty());
    yard.court.adopt(Terms { cycle: Some(CYCLE), ..with(kube("ops", false), &["hyades"]) });
    yard.in_groups(&["ops"]);
    yard.cycle(2).await;
    while yard.pass(id).await.1.clusters != ["hyades"] {}
    yard.court.adopt(terms());
    yard.cycle(0).await;
    assert!(yard.court.followed.is_empty(), "nobody is asked about where there is no IAM");
}
