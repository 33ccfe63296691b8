use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::*;
use crate::config::{Access, Home};
use crate::identity::Pattern;
use crate::policy::{Decision, Evidence, Permit, decide};
use crate::privsep::link::{Link, pair};
use crate::privsep::message::{Channel, Claim, Program, Silence, Wish};

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
        netblock: crate::config::Netblock::default(),
        kube: Arc::default(),
        rbac: None,
        cycle: None,
        clusters: vec![],
        ssh_port: 22,
    }
}

/// A court with its peers' ends.
struct Yard {
    court: Court<Gavel, Patron>,
    gavel: Gavel,
    patron: Patron,
    letters: mpsc::Receiver<Post>,
    gate: Link<GateToWarden, WardenToGate>,
    porter: Link<Silence, WardenToPorter>,
    jailer: Link<JailerToWarden, WardenToJailer>,
    keeper: Link<KeeperToWarden, WardenToKeeper>,
    term: Term,
}

/// Notes whether each session was last said to want credentials for clusters.
#[derive(Clone, Default)]
struct Patron(Arc<Mutex<HashMap<SessionId, bool>>>);

impl Sponsor for Patron {
    fn begin(&self, _: SessionId, _: &Principal) {}
    fn clusters(&self, session: SessionId, _: &Principal, wanted: bool) {
        self.0.lock().unwrap().insert(session, wanted);
    }
    fn end(&self, _: SessionId) {}
    fn resend_all(&self) {}
}

impl Yard {
    fn new() -> Self {
        let (post, letters) = mpsc::channel(64);
        let gavel = Gavel { turns: Arc::new(Semaphore::new(0)), review: Arc::new(Mutex::new(Review::Unknown)) };
        let patron = Patron::default();
        let [jailer, keeper, gate, porter] = [(); 4].map(|()| pair().unwrap());
        let to_jailer = Link::<_, JailerToWarden>::new(jailer.0).unwrap();
        let mut court = Court::new(gavel.clone(), patron.clone(), terms(), Outbox::to(Arc::new(to_jailer)), post);
        court.met_keeper(Outbox::to(Arc::new(Link::<_, KeeperToWarden>::new(keeper.0).unwrap())));
        let term = court.met_gate(Outbox::to(Arc::new(Link::<_, GateToWarden>::new(gate.0).unwrap())));
        court.met_porter(Outbox::to(Arc::new(Link::<_, Silence>::new(porter.0).unwrap())));
        let (gate, porter) = (Link::new(gate.1).unwrap(), Link::new(porter.1).unwrap());
        let (jailer, keeper) = (Link::new(jailer.1).unwrap(), Link::new(keeper.1).unwrap());
        Self { court, gavel, patron, letters, gate, porter, jailer, keeper, term }
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
        let letter = timeout(PATIENCE, self.letters.recv()).await.expect("a letter").unwrap();
        self.read(letter);
    }

    fn read(&mut self, letter: Post) {
        match letter {
            Post::Judged(judged) => self.court.judged(*judged),
            Post::LoginReviewed(term, connection, review) => self.court.login_reviewed(term, connection, review),
            Post::Reviewed { session, review } => self.court.judged_again(session, review),
            Post::LaptopReviewed(id, review) => self.court.laptop_reviewed(id, review),
            Post::TokenReviewed(asked, review) => self.court.token_reviewed(*asked, review),
            Post::Due(due) => self.court.due(due),
            other => panic!("{other:?}"),
        }
    }

    async fn heard(&self) -> WardenToGate {
        timeout(PATIENCE, self.gate.recv()).await.expect("a word to the gate").unwrap().0
    }

    /// Logs in over connection 7.
    async fn login(&mut self) {
        self.gavel.turns.add_permits(1);
        self.prove();
        self.letter().await;
        assert!(matches!(self.heard().await, WardenToGate::Login { accepted: true, .. }));
    }

    fn open(&mut self, channel: Channel) {
        self.court.hear_gate(self.term, GateToWarden::Open { connection: 7, channel });
    }

    fn run(&mut self, channel: Channel, command: &str) {
        let wish = Wish { program: Program::Exec(command.into()), terminal: None, environment: Vec::new() };
        self.court.hear_gate(self.term, GateToWarden::Run { connection: 7, channel, wish });
    }

    /// What a verb was answered: output, errors, exit status.
    async fn answer(&self) -> (String, String, u32) {
        let mut all = String::new();
        loop {
            match self.heard().await {
                WardenToGate::Answer { output, errors, code, .. } => {
                    all += output.expose();
                    if let Some(code) = code {
                        return (all, errors, code);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    async fn asked_of_jailer(&self) -> WardenToJailer {
        timeout(PATIENCE, self.jailer.recv()).await.expect("a word to the jailer").unwrap().0
    }

    /// The next word to the keeper that fits.
    async fn told_keeper<T>(&self, fits: impl Fn(WardenToKeeper) -> Option<T>) -> T {
        loop {
            let told = timeout(PATIENCE, self.keeper.recv()).await.expect("a word to the keeper").unwrap().0;
            if let Some(found) = fits(told) {
                return found;
            }
        }
    }

    /// A session whose channel 1 runs a program.
    async fn running(&mut self) -> SessionId {
        self.login().await;
        self.open(1);
        self.run(1, "top");
        let WardenToJailer::Build { session, .. } = self.asked_of_jailer().await else { panic!() };
        self.court.hear_keeper(self.court.reign, KeeperToWarden::Opened { session });
        self.court.hear_jailer(JailerToWarden::Built { session });
        assert!(matches!(self.asked_of_jailer().await, WardenToJailer::Start { number: 1, .. }));
        self.court.hear_jailer(JailerToWarden::Started { session, number: 1 });
        assert!(matches!(self.heard().await, WardenToGate::Running { channel: 1, .. }));
        session
    }

    fn groups(&self) -> Option<BTreeSet<String>> {
        match self.court.connections.get(&7)? {
            Phase::In(login) => Some(login.permit.groups().clone()),
            Phase::Claiming { .. } => None,
        }
    }
}

mod clusters;
mod cycle;
mod locks;
mod verbs;

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

fn numbered(number: u32) -> Event {
    Event::LimitHit { session: None, what: number.to_string() }
}

/// A keeper whose disk is slow, or full: it hears all of it later, in its order, and meanwhile nobody gets in.
#[tokio::test]
async fn what_a_busy_keeper_is_told_waits_for_it() {
    const EVENTS: u32 = 4000;
    let mut yard = Yard::new();
    yard.gavel.turns.add_permits(2);
    yard.prove_over(1);
    yard.letter().await;
    assert!(matches!(yard.heard().await, WardenToGate::Login { accepted: true, .. }));
    yard.court.hear_gate(yard.term, GateToWarden::Open { connection: 1, channel: 1 });
    let session = *yard.court.sessions.keys().next().unwrap();
    for number in 0..EVENTS {
        yard.court.event(numbered(number));
        // The outbox's own task has its turn.
        tokio::task::yield_now().await;
    }
    yard.court.hear_jailer(JailerToWarden::Gone { session });
    yard.prove_over(2);
    yard.letter().await;
    assert!(matches!(yard.heard().await, WardenToGate::Refused { .. }), "the channel of the session that ended");
    assert!(matches!(yard.heard().await, WardenToGate::Login { accepted: false, .. }));

    let (mut next, mut closed) = (0, false);
    loop {
        tokio::select! {
            told = yard.keeper.recv() => match told.unwrap().0 {
                WardenToKeeper::Event(Event::LimitHit { what, .. }) => {
                    assert_eq!(what, next.to_string());
                    next += 1;
                }
                WardenToKeeper::Close { session: ended, .. } => closed = ended == session,
                WardenToKeeper::Event(Event::SessionClosed { .. }) => break assert!(closed, "not before its recording"),
                _ => {}
            },
            Some(Post::Due(due)) = yard.letters.recv() => yard.court.due(due),
            () = tokio::time::sleep(PATIENCE) => panic!("it hears nothing after {next}"),
        }
    }
    assert_eq!(next, EVENTS);
    yard.gavel.turns.add_permits(1);
    yard.prove_over(3);
    yard.letter().await;
    assert!(matches!(yard.heard().await, WardenToGate::Login { accepted: true, .. }));
}

#[tokio::test]
async fn events_wait_for_the_next_keeper_and_have_an_end() {
    let mut yard = Yard::new();
    yard.court.lost_keeper(yard.court.reign, &LinkError::Closed);
    for number in 0..5000 {
        yard.court.event(numbered(number));
    }
    yard.court.tell_keeper(WardenToKeeper::Close { session: SessionId::mint(), reason: "of a former keeper".into() });
    let (ours, theirs) = pair().unwrap();
    let next = Link::<KeeperToWarden, WardenToKeeper>::new(theirs).unwrap();
    yard.court.met_keeper(Outbox::to(Arc::new(Link::<_, KeeperToWarden>::new(ours).unwrap())));
    let mut told = Vec::new();
    while !told.last().is_some_and(|what: &String| what.contains("lost")) {
        tokio::select! {
            message = next.recv() => match message.unwrap().0 {
                WardenToKeeper::Event(Event::LimitHit { what, .. }) => told.push(what),
                other => panic!("{other:?}"),
            },
            Some(Post::Due(due)) = yard.letters.recv() => yard.court.due(due),
            () = tokio::time::sleep(PATIENCE) => panic!("{} and no more", told.len()),
        }
    }
    let last = told.pop().unwrap();
    assert!(last.starts_with("904 events"), "{last}");
    assert_eq!(told, (904..5000).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// The gate dies with more sessions than may wait for the jailer.
#[tokio::test]
async fn every_session_of_a_dead_gate_is_ended() {
    const SESSIONS: usize = 3000;
    let mut yard = Yard::new();
    for connection in 0..SESSIONS as u64 {
        let session = Session::new("alice".parse().unwrap(), "SHA256:abc".into(), (yard.term, connection));
        yard.court.sessions.insert(SessionId::mint(), session);
    }
    yard.court.lost_gate(yard.term, &LinkError::Closed);
    while yard.court.sessions.values().any(|session| session.ending.is_none()) {
        yard.letter().await;
    }
    let mut ended = HashSet::new();
    while ended.len() < SESSIONS {
        tokio::select! {
            told = yard.jailer.recv() => match told.unwrap().0 {
                WardenToJailer::End { session } => assert!(ended.insert(session), "twice"),
                other => panic!("{other:?}"),
            },
            Some(Post::Due(due)) = yard.letters.recv() => yard.court.due(due),
            () = tokio::time::sleep(PATIENCE) => panic!("{} of {SESSIONS}", ended.len()),
        }
    }
}
