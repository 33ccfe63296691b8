//! Where the warden decides: logins, sessions and their channels.
//!
//! Nothing here waits: what takes time (a look-up of keys) runs beside and comes back as a letter.

mod channel;
mod clusters;
mod cycle;
mod keeper;
mod kubeconfig;
mod laptop;
mod lock;
mod login;
mod review;
mod verb;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

pub use self::login::{Claimant, Judge, Judged, Judgement};
pub use self::review::Review;
pub use self::verb::Asker;

use self::laptop::Laptop;
use self::login::Phase;
use self::review::AGAIN;
use self::verb::Asked;
use super::clusters::Book;
use super::later;
use super::outbox::Outbox;
use super::post::{Due, Post, Term};
use super::refusals::Refusals;
use super::sessions::{Note, Place, Session, Sponsor, Stage, Terms};
use crate::audit::Event;
use crate::identity::Principal;
use crate::policy::lock::Locks;
use crate::privsep::Role;
use crate::privsep::link::LinkError;
use crate::privsep::message::{
    Connection, GateToWarden, JailerToWarden, KeeperToWarden, Number, WardenToGate, WardenToJailer, WardenToKeeper,
    WardenToPorter,
};
use crate::session::{SessionId, exit};

/// The exit status of a session that cannot be recorded; ssh itself uses 255.
const UNRECORDED: u32 = exit::UNRECORDED as u32;
/// The exit status of a session that cannot be had for another reason.
const UNAVAILABLE: u32 = exit::UNAVAILABLE as u32;

/// The warden's whole state.
pub struct Court<J, S> {
    judge: J,
    sponsor: S,
    terms: Terms,
    post: mpsc::Sender<Post>,
    jailer: Outbox<WardenToJailer>,
    gate: Option<Outbox<WardenToGate>>,
    keeper: Option<Outbox<WardenToKeeper>>,
    /// Which keeper it is: the end of a former one's link may be heard of late.
    reign: u64,
    /// What it is to be told as soon as there is one, and it has room.
    untold: VecDeque<WardenToKeeper>,
    /// Of which events fell out.
    lost: u64,
    /// A letter comes when there is room.
    catching_up: bool,
    porter: Option<Outbox<WardenToPorter>>,
    term: Term,
    /// The connections there were when this gate began to speak with us.
    alive: Option<HashSet<Connection>>,
    connections: HashMap<Connection, Phase>,
    /// Which rules: a judgement by former ones may be heard late.
    edition: u64,
    sessions: HashMap<SessionId, Session>,
    book: Book,
    /// Who was refused a jail of late for having enough.
    full: HashMap<Principal, Instant>,
    /// Who is asked about again when their time comes.
    followed: HashSet<Principal>,
    refusals: Refusals,
    /// They are to be counted soon.
    counting: bool,
    locks: Locks,
    /// Why nobody can say what is locked now.
    unread: Option<String>,
    laptops: Vec<Laptop>,
    /// Users and keys whose last wish was a verb: no jail is begun for their next one before it is known.
    verbal: HashSet<(Principal, String)>,
    /// Verbs that wait for EKS's first answer.
    unlooked: Vec<(Asker, Asked)>,
}

impl<J: Judge, S: Sponsor> Court<J, S> {
    pub fn new(judge: J, sponsor: S, terms: Terms, jailer: Outbox<WardenToJailer>, post: mpsc::Sender<Post>) -> Self {
        let mut court = Self {
            judge,
            sponsor,
            terms,
            post,
            jailer,
            gate: None,
            keeper: None,
            reign: 0,
            untold: VecDeque::new(),
            lost: 0,
            catching_up: false,
            porter: None,
            term: 0,
            alive: None,
            connections: HashMap::new(),
            edition: 0,
            sessions: HashMap::new(),
            book: Book::default(),
            full: HashMap::new(),
            followed: HashSet::new(),
            refusals: Refusals::default(),
            counting: false,
            locks: Locks::new(),
            unread: None,
            laptops: Vec::new(),
            verbal: HashSet::new(),
            unlooked: Vec::new(),
        };
        court.state_clusters();
        court
    }

    // ---- peers -------------------------------------------------------------------------------------------------

    pub fn met_gate(&mut self, gate: Outbox<WardenToGate>) -> Term {
        self.gate = Some(gate);
        self.alive = None;
        self.term += 1;
        self.connections.clear();
        self.term
    }

    pub fn met_keeper(&mut self, keeper: Outbox<WardenToKeeper>) -> u64 {
        self.lost_keeper(self.reign, &LinkError::Closed);
        self.keeper = Some(keeper);
        self.reign += 1;
        self.catch_up();
        self.reign
    }

    pub fn met_porter(&mut self, porter: Outbox<WardenToPorter>) {
        self.porter = Some(porter);
        self.sponsor.resend_all();
        // One by one through the queue: there may be more sessions than may wait for a peer.
        self.tell_clusters();
        for id in self.sessions.keys() {
            later(&self.post, Duration::ZERO, Due::Rights(*id));
        }
        self.laptops.iter().for_each(|laptop| later(&self.post, Duration::ZERO, Due::Laptop(laptop.session)));
    }

    /// Nobody can come back to these sessions yet, so they end; but not at once, for what they are doing may matter.
    pub fn lost_gate(&mut self, term: Term, error: &LinkError) {
        if term != self.term {
            return;
        }
        self.gate = None;
        self.connections.clear();
        if let LinkError::Breach(what) = error {
            self.dismiss(Role::Gate, what);
        }
        for session in self.sessions.keys() {
            later(&self.post, self.terms.linger, Due::Linger(*session));
        }
    }

    /// The jailer ends it, and writes the event.
    pub fn dismiss(&self, role: Role, what: &str) {
        tracing::error!(%role, what, "a role broke the protocol");
        self.jailer.say(WardenToJailer::Dismiss(role));
    }

    /// The jailer ends every jail when the keeper dies, and tells us of each.
    pub fn lost_keeper(&mut self, reign: u64, error: &LinkError) {
        if reign != self.reign {
            return;
        }
        if let LinkError::Breach(what) = error {
            self.dismiss(Role::Keeper, what);
        }
        let Some(keeper) = self.keeper.take() else { return };
        self.untold.retain(keeper::is_event);
        let post = self.post.clone();
        tokio::spawn(async move {
            for message in keeper.unsaid().await {
                if let WardenToKeeper::Event(event) = message {
                    let _ = post.send(Post::Event(event)).await;
                }
            }
        });
        for session in self.sessions.values_mut() {
            session.ending.get_or_insert_with(|| "the recorder died".into());
        }
        self.end_laptops("the recorder died");
    }

    /// The jailer stops: what the keeper has not heard yet is the end of sessions.
    pub async fn farewell(self) {
        if let Some(keeper) = self.keeper {
            keeper.flush(self.untold).await;
        }
    }

    fn breach_by_gate(&mut self, what: &'static str) {
        self.lost_gate(self.term, &LinkError::Breach(what));
    }

    fn say_gate(&self, message: WardenToGate) {
        if let Some(gate) = &self.gate {
            gate.say(message);
        }
    }

    pub fn grant(&self, grant: WardenToPorter) {
        if let Some(porter) = &self.porter {
            porter.say(grant);
        }
    }

    // ---- what the gate claims ----------------------------------------------------------------------------------

    pub fn hear_gate(&mut self, term: Term, message: GateToWarden) {
        if term != self.term || self.gate.is_none() {
            return;
        }
        match message {
            GateToWarden::Offered { connection, claim } => self.ask(connection, claim, false),
            GateToWarden::Proved { connection, claim } => self.ask(connection, claim, true),
            GateToWarden::Open { connection, channel } => self.open(connection, channel),
            GateToWarden::Run { connection, channel, wish } => self.run(connection, channel, wish),
            GateToWarden::Closed { connection, channel } => self.closed(connection, channel),
            GateToWarden::Gone { connection } => self.gone(connection),
            GateToWarden::Alive(connections) => self.alive(&connections),
        }
    }

    fn gone(&mut self, connection: Connection) {
        self.connections.remove(&connection);
        self.end_of(connection, "the connection closed");
    }

    fn end_of(&mut self, connection: Connection, reason: &str) {
        // By its owner, not by the login: a warden that was started again knows sessions and no logins.
        let owner = (self.term, connection);
        let owned = self.sessions.iter().filter(|(_, session)| session.owner == owner).map(|(id, _)| *id);
        for id in owned.collect::<Vec<_>>() {
            self.end(id, reason);
        }
    }

    /// A gate's first word. Sessions of connections that it does not have are nobody's any more.
    fn alive(&mut self, connections: &[Connection]) {
        self.alive = Some(connections.iter().copied().collect());
        let known: Vec<SessionId> = self.sessions.keys().copied().collect();
        known.into_iter().for_each(|id| self.find_owner(id));
    }

    /// Whose a session is that was there before the gate, or before us; the two tell us in any order.
    fn find_owner(&mut self, id: SessionId) {
        let (Some(alive), Some(session)) = (&self.alive, self.sessions.get_mut(&id)) else { return };
        if alive.contains(&session.owner.1) {
            session.owner.0 = self.term;
        } else if session.owner.0 != self.term {
            later(&self.post, self.terms.linger, Due::Linger(id));
        }
    }

    // ---- what the jailer tells ---------------------------------------------------------------------------------

    pub fn hear_jailer(&mut self, told: JailerToWarden) {
        match told {
            JailerToWarden::Built { session } => {
                if let Some(known) = self.sessions.get_mut(&session) {
                    known.built = true;
                }
                self.start_waiting(session);
            }
            JailerToWarden::Failed { session, reason } => {
                tracing::error!(session.id = %session, reason, "a jail could not be made");
                let reason = format!("no jail: {reason}");
                // Before its channels are refused: a session without any ends for no reason of its own.
                if let Some(known) = self.sessions.get_mut(&session) {
                    known.ending.get_or_insert_with(|| reason.clone());
                }
                let sentence =
                    format!("no jail could be made for this session ({session}); your administrators can see why");
                self.refuse_all(session, &sentence, UNAVAILABLE);
                self.over(session, &reason);
            }
            JailerToWarden::Started { session, number } => self.started(session, number),
            JailerToWarden::NotStarted { session, number, reason } => {
                tracing::error!(session.id = %session, number, reason, "a program could not be started");
                let sentence = format!("the program could not be started in this session ({session})");
                self.refuse_channel(session, number, &sentence, UNAVAILABLE);
                self.exited(session, number, libc::SIGKILL);
            }
            JailerToWarden::Exited { session, number, status } => self.exited(session, number, status),
            JailerToWarden::Gone { session } => self.over(session, "the jail ended"),
            JailerToWarden::Running { session, user, note, numbers } => self.found(session, user, &note, &numbers),
        }
    }

    /// After our own restart: a jail that stands. It may stay if its user still may.
    fn found(&mut self, id: SessionId, user: Principal, note: &[u8], numbers: &[Number]) {
        let Ok(Note { key, connection }) = minicbor::decode::<Note>(note) else {
            self.jailer.say(WardenToJailer::End { session: id });
            return;
        };
        self.sponsor.begin(id, &user);
        let mut session = Session::new(user, key, (0, connection));
        (session.built, session.opened, session.inherited) = (true, true, true);
        session.next = numbers.iter().max().copied().unwrap_or(0);
        let running = || Place { channel: None, wish: None, stage: Stage::Running, attended: true };
        let place = |number: &Number| (*number, running());
        session.channels = numbers.iter().map(place).collect();
        self.review(id, &session);
        self.follow(&session.user);
        self.sessions.insert(id, session);
        self.find_owner(id);
        self.end_if_locked(id);
    }

    fn end_if_empty(&mut self, id: SessionId, reason: &str) {
        if self.sessions.get(&id).is_some_and(|session| session.attended() == 0) {
            self.end(id, reason);
        }
    }

    /// Has the jail ended; the recording is closed when the jailer says that it is gone.
    fn end(&mut self, id: SessionId, reason: &str) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.ending.is_none() {
            session.ending = Some(reason.to_owned());
            self.have_ended(id);
        }
    }

    /// A gate that dies may end thousands at one time, more than may wait for the jailer: none of them may be forgotten.
    fn have_ended(&self, id: SessionId) {
        if self.sessions.contains_key(&id) && !self.jailer.say(WardenToJailer::End { session: id }) {
            later(&self.post, AGAIN, Due::End(id));
        }
    }

    fn over(&mut self, id: SessionId, reason: &str) {
        self.refuse_all(id, "this session has ended", UNAVAILABLE);
        self.sponsor.end(id);
        let Some(session) = self.sessions.remove(&id) else { return };
        let reason = session.ending.unwrap_or_else(|| reason.to_owned());
        self.tell_keeper(WardenToKeeper::Close { session: id, reason: reason.clone() });
        self.event(Event::SessionClosed { session: id, user: session.user.to_string(), reason });
        if let Some(Phase::In(login)) = self.connections.get_mut(&session.owner.1)
            && login.session == Some(id)
        {
            login.session = None;
        }
    }

    // ---- what the keeper tells ---------------------------------------------------------------------------------

    pub fn hear_keeper(&mut self, reign: u64, message: KeeperToWarden) {
        if reign != self.reign {
            return;
        }
        let message = match self.hear_of_laptop(message) {
            Some(message) => message,
            None => return,
        };
        match message {
            KeeperToWarden::Opened { session } => {
                if let Some(known) = self.sessions.get_mut(&session) {
                    known.opened = true;
                }
                self.start_waiting(session);
            }
            KeeperToWarden::Refused { session, sentence } => {
                self.refuse_all(session, &sentence, UNRECORDED);
                self.end(session, "it could not be recorded");
            }
            KeeperToWarden::MustEnd { session, reason } => {
                self.end(session, &reason);
                // Its terminal is closed by now, so its program or its client may have been heard first; this is why.
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.ending = Some(reason);
                }
            }
            KeeperToWarden::Signal { session, number, signal } if self.sessions.contains_key(&session) => {
                self.jailer.say(WardenToJailer::Signal { session, number, signal });
            }
            KeeperToWarden::Signal { .. } => {}
            KeeperToWarden::Breach(role) => self.dismiss(role, "towards the keeper"),
        }
    }

    pub fn due(&mut self, due: Due) {
        match due {
            Due::Rights(id) => {
                self.push_egress(id);
                self.push_pass(id);
            }
            Due::Clusters => self.tell_clusters(),
            Due::End(id) => self.have_ended(id),
            Due::Laptop(id) => self.push_laptop(id),
            Due::Lapse(id) => self.lapse(id),
            Due::Review(id) => self.review_due(id),
            Due::Cycle(user) => self.cycle_due(&user),
            Due::Refusals => self.count_refusals(),
            Due::Keeper => self.keeper_due(),
            Due::Linger(id) => {
                let stays = self.sessions.get(&id).is_some_and(|s| s.owner.0 == self.term && self.gate.is_some());
                if !stays {
                    self.end(id, "the connection was lost");
                }
            }
            Due::Kill(id, number) => {
                if self.sessions.get(&id).is_some_and(|session| session.channels.contains_key(&number)) {
                    let signal = libc::SIGKILL;
                    if !self.jailer.say(WardenToJailer::Signal { session: id, number, signal }) {
                        later(&self.post, AGAIN, Due::Kill(id, number));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
