use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::*;
use crate::config::{Access, Home};
use crate::identity::Pattern;
use crate::policy::{Decision, Evidence, Permit, decide};
use crate::privsep::link::{Link, pair};
use crate::privsep::message::Claim;

const PATIENCE: Duration = Duration::from_secs(30);

/// Admits everybody, when it is let; who may stay is said by the test.
#[derive(Clone)]
struct Gavel {
    turns: Arc<Semaphore>,
    review: Arc<Mutex<Review>>,
}

impl Judge for Gavel {
    async fn judge(&self, _: &Claimant) -> Judgement {
        self.turns.acquire().await.unwrap().forget();
        Judgement::Admitted(permit(&[]))
    }

    async fn may_stay(&self, _: &Principal, _: &str) -> Review {
        self.review.lock().unwrap().clone()
    }
}

fn permit(groups: &[&str]) -> Permit {
    let access = Access { allow_groups: vec![Pattern::new("*")], deny_groups: vec![], deny_users: vec![] };
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    let key = Evidence::Key { fingerprint: "SHA256:abc".into(), terminal: true };
    match decide(&access, Home::Persistent, &"alice".parse().unwrap(), groups, &key) {
        Decision::Permit(permit) => permit,
        Decision::Denial(denial) => panic!("{denial:?}"),
    }
}

fn terms() -> Terms {
    Terms {
        region: None,
        linger: Duration::ZERO,
        jails_per_user: 1,
        image: "base".into(),
        role: None,
        egress: Arc::default(),
    }
}

/// A court with its peers' ends.
struct Yard {
    court: Court<Gavel, ()>,
    gavel: Gavel,
    letters: mpsc::Receiver<Post>,
    gate: Link<GateToWarden, WardenToGate>,
    term: Term,
    _ends: [OwnedFd; 2],
}

impl Yard {
    fn new() -> Self {
        let (post, letters) = mpsc::channel(64);
        let gavel = Gavel { turns: Arc::new(Semaphore::new(0)), review: Arc::new(Mutex::new(Review::Unknown)) };
        let (jailer, keeper, gate) = (pair().unwrap(), pair().unwrap(), pair().unwrap());
        let to_jailer = Link::<_, JailerToWarden>::new(jailer.0).unwrap();
        let mut court = Court::new(gavel.clone(), (), terms(), Outbox::to(Arc::new(to_jailer)), post);
        court.met_keeper(Outbox::to(Arc::new(Link::<_, KeeperToWarden>::new(keeper.0).unwrap())));
        let term = court.met_gate(Outbox::to(Arc::new(Link::<_, GateToWarden>::new(gate.0).unwrap())));
        Self { court, gavel, letters, gate: Link::new(gate.1).unwrap(), term, _ends: [jailer.1, keeper.1] }
    }

    fn prove(&mut self) {
        self.prove_over(7);
    }

    fn prove_over(&mut self, connection: Connection) {
        let claim =
            Claim { user: "alice".into(), key: vec![1], from: "192.0.2.1:5".into(), client: "SSH-2.0-x".into() };
        self.court.hear_gate(self.term, GateToWarden::Proved { connection, claim });
    }

    /// The next letter, as the warden's loop hands it on.
    async fn letter(&mut self) {
        match timeout(PATIENCE, self.letters.recv()).await.expect("a letter").unwrap() {
            Post::Judged(judged) => self.court.judged(*judged),
            Post::LoginReviewed(term, connection, review) => self.court.login_reviewed(term, connection, review),
            other => panic!("{other:?}"),
        }
    }

    async fn heard(&self) -> WardenToGate {
        timeout(PATIENCE, self.gate.recv()).await.expect("a word to the gate").unwrap().0
    }

    fn groups(&self) -> Option<BTreeSet<String>> {
        match self.court.connections.get(&7)? {
            Phase::In(login) => Some(login.permit.groups().clone()),
            Phase::Claiming { .. } => None,
        }
    }
}

#[tokio::test]
async fn a_connection_goes_on_with_the_rights_of_today_or_goes() {
    let mut yard = Yard::new();
    yard.gavel.turns.add_permits(1);
    yard.prove();
    yard.letter().await;
    assert!(matches!(yard.heard().await, WardenToGate::Login { accepted: true, .. }));
    for (review, groups) in [(Review::Unknown, &[][..]), (Review::Stays(Box::new(permit(&["ops"]))), &["ops"])] {
        *yard.gavel.review.lock().unwrap() = review;
        yard.court.adopt(terms());
        yard.letter().await;
        assert_eq!(yard.groups(), Some(groups.iter().map(|group| (*group).to_owned()).collect()));
    }
    *yard.gavel.review.lock().unwrap() = Review::Leaves("deny_users".into());
    yard.court.adopt(terms());
    yard.letter().await;
    assert!(matches!(yard.heard().await, WardenToGate::Drop { connection: 7, .. }));
    // A gate that does not let go of it opens nothing with it.
    yard.court.hear_gate(yard.term, GateToWarden::Open { connection: 7, channel: 1 });
    assert!(matches!(yard.heard().await, WardenToGate::Refused { connection: 7, .. }));
    assert!(yard.court.sessions.is_empty());
}

#[tokio::test]
async fn a_login_that_was_judged_by_former_rules_is_judged_by_the_new_ones_too() {
    let mut yard = Yard::new();
    *yard.gavel.review.lock().unwrap() = Review::Leaves("deny_users".into());
    yard.prove();
    yard.court.adopt(terms());
    yard.gavel.turns.add_permits(1);
    yard.letter().await;
    assert!(matches!(yard.heard().await, WardenToGate::Login { accepted: true, .. }));
    yard.letter().await;
    assert!(matches!(yard.heard().await, WardenToGate::Drop { connection: 7, .. }));
    assert_eq!(yard.groups(), None);
}

#[tokio::test]
async fn one_user_has_twice_as_many_connections_as_jails() {
    let mut yard = Yard::new();
    yard.gavel.turns.add_permits(4);
    for (connection, expected) in [(1, true), (2, true), (3, false)] {
        yard.prove_over(connection);
        yard.letter().await;
        assert!(
            matches!(yard.heard().await, WardenToGate::Login { accepted, .. } if accepted == expected),
            "{connection}"
        );
    }
    yard.court.hear_gate(yard.term, GateToWarden::Gone { connection: 1 });
    yard.prove_over(4);
    yard.letter().await;
    assert!(matches!(yard.heard().await, WardenToGate::Login { accepted: true, .. }));
}
