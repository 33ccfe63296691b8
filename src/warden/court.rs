//! Where the warden decides: logins, sessions and their channels.
//!
//! Nothing here waits: what takes time (a look-up of keys) runs beside and comes back as a letter.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::mpsc;

use super::outbox::Outbox;
use super::post::{Due, Post, Term};
use super::sessions::{Note, Place, Session, Sponsor, Stage, Terms, Wish};
use super::{egress, later};
use crate::audit::Event;
use crate::config::Home;
use crate::identity::Principal;
use crate::policy::Permit;
use crate::privsep::Role;
use crate::privsep::link::LinkError;
use crate::privsep::message::{
    Channel, Claim, Connection, GateToWarden, JailerToWarden, KeeperToWarden, Number, WardenToGate, WardenToJailer,
    WardenToKeeper, WardenToPorter,
};
use crate::recording::Header;
use crate::session::SessionId;

/// What a program is given between its hang-up and its death, when its client has closed its channel.
const HANGUP: Duration = Duration::from_secs(2);

/// After this what the porter could not take is said again.
const AGAIN: Duration = Duration::from_secs(1);

/// What a captured gate can make us remember.
const MOST_CONNECTIONS: usize = 16 * 1024;

/// The exit status of a session that cannot be recorded; ssh itself uses 255.
const UNRECORDED: u32 = 254;
/// The exit status of a session that cannot be had for another reason.
const UNAVAILABLE: u32 = 253;

/// Who claims to be whom, from where.
#[derive(Clone, Debug)]
pub struct Claimant {
    pub claim: Claim,
    /// A signature proved the key.
    pub proved: bool,
}

/// The decision about a claim.
#[derive(Clone, Debug)]
pub enum Judgement {
    Admitted(Permit),
    /// Only the audit learns why.
    Denied {
        key: String,
        why: String,
    },
}

/// The decision about somebody who is in.
#[derive(Clone, Debug)]
pub enum Review {
    Stays(Box<Permit>),
    Leaves(String),
    /// Nobody can say at the moment: what was decided before stands.
    Unknown,
}

/// Looks keys and groups up and applies the policy.
pub trait Judge: Clone + Send + Sync + 'static {
    fn judge(&self, claimant: &Claimant) -> impl Future<Output = Judgement> + Send;
    /// Whether a user with a living session may keep it.
    fn may_stay(&self, user: &Principal, key: &str) -> impl Future<Output = Review> + Send;
}

/// A judgement on its way back.
#[derive(Debug)]
pub struct Judged {
    term: Term,
    connection: Connection,
    claimant: Claimant,
    judgement: Judgement,
}

/// How far a connection is.
#[derive(Debug)]
enum Phase {
    /// Asked about, one question at a time; may ask again.
    Claiming {
        answered: bool,
    },
    In(Box<Login>),
}

#[derive(Debug)]
struct Login {
    permit: Permit,
    claim: Claim,
    session: Option<SessionId>,
}

/// The warden's whole state.
pub struct Court<J, S> {
    judge: J,
    sponsor: S,
    terms: Terms,
    post: mpsc::Sender<Post>,
    jailer: Outbox<WardenToJailer>,
    gate: Option<Outbox<WardenToGate>>,
    keeper: Option<Outbox<WardenToKeeper>>,
    porter: Option<Outbox<WardenToPorter>>,
    term: Term,
    /// The connections there were when this gate began to speak with us.
    alive: Option<HashSet<Connection>>,
    connections: HashMap<Connection, Phase>,
    sessions: HashMap<SessionId, Session>,
}

impl<J: Judge, S: Sponsor> Court<J, S> {
    pub fn new(judge: J, sponsor: S, terms: Terms, jailer: Outbox<WardenToJailer>, post: mpsc::Sender<Post>) -> Self {
        Self {
            judge,
            sponsor,
            terms,
            post,
            jailer,
            gate: None,
            keeper: None,
            porter: None,
            term: 0,
            alive: None,
            connections: HashMap::new(),
            sessions: HashMap::new(),
        }
    }

    /// New terms are for new sessions; who may no longer be here leaves.
    pub fn adopt(&mut self, terms: Terms) {
        self.terms = terms;
        for (id, session) in &self.sessions {
            // By the groups as they were known: a rule that is gone must not wait for IAM.
            self.push_egress(*id);
            self.review(*id, session);
        }
    }

    /// Decides again on somebody who is in.
    fn review(&self, id: SessionId, session: &Session) {
        let (judge, post) = (self.judge.clone(), self.post.clone());
        let (user, key) = (session.user.clone(), session.key.clone());
        tokio::spawn(async move {
            let review = judge.may_stay(&user, &key).await;
            let _ = post.send(Post::Reviewed { session: id, review }).await;
        });
    }

    pub fn judged_again(&mut self, id: SessionId, review: Review) {
        match review {
            Review::Leaves(why) => return self.end(id, &format!("the user's rights are gone: {why}")),
            Review::Stays(permit) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.groups = Some(permit.groups().clone());
                }
            }
            Review::Unknown => {}
        }
        self.push_egress(id);
    }

    /// Tells the porter what a session may reach, by the groups and the terms in force.
    fn push_egress(&self, id: SessionId) {
        let message = self.sessions.get(&id).and_then(|session| egress::push(id, session, &self.terms.egress));
        if let (Some(message), Some(porter)) = (message, &self.porter)
            && !porter.say(message)
        {
            // A right that was taken away must not stay open because the porter was busy.
            later(&self.post, AGAIN, Due::Egress(id));
        }
    }

    // ---- peers -------------------------------------------------------------------------------------------------

    pub fn met_gate(&mut self, gate: Outbox<WardenToGate>) -> Term {
        self.gate = Some(gate);
        self.alive = None;
        self.term += 1;
        self.connections.clear();
        self.term
    }

    pub fn met_keeper(&mut self, keeper: Outbox<WardenToKeeper>) {
        self.keeper = Some(keeper);
    }

    pub fn met_porter(&mut self, porter: Outbox<WardenToPorter>) {
        self.porter = Some(porter);
        self.sponsor.resend_all();
        // One by one through the queue: there may be more sessions than may wait for a peer.
        self.sessions.keys().for_each(|id| later(&self.post, Duration::ZERO, Due::Egress(*id)));
    }

    /// Nobody can come back to these sessions yet, so they end; but not at once, for what they are doing may matter.
    pub fn lost_gate(&mut self, term: Term, error: &LinkError) {
        if term != self.term {
            return;
        }
        self.gate = None;
        self.connections.clear();
        if let LinkError::Breach(what) = error {
            self.event(Event::RoleBreach { role: Role::Gate, what: (*what).to_owned() });
            self.jailer.say(WardenToJailer::Dismiss(Role::Gate));
        }
        for session in self.sessions.keys() {
            later(&self.post, self.terms.linger, Due::Linger(*session));
        }
    }

    pub fn lost_keeper(&mut self) {
        self.keeper = None;
        for session in self.sessions.values_mut() {
            session.ending.get_or_insert_with(|| "the recorder died".into());
        }
    }

    /// The jailer stops: what the keeper has not heard yet is the end of sessions.
    pub async fn farewell(self) {
        if let Some(keeper) = self.keeper {
            keeper.flush().await;
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

    fn say_keeper(&self, message: WardenToKeeper) -> bool {
        self.keeper.as_ref().is_some_and(|keeper| keeper.say(message))
    }

    pub fn event(&self, event: Event) {
        self.say_keeper(WardenToKeeper::Event(event));
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
            GateToWarden::Run { connection, channel, program, terminal, environment } => {
                self.run(connection, channel, Wish { program, terminal, environment });
            }
            GateToWarden::Closed { connection, channel } => self.closed(connection, channel),
            GateToWarden::Gone { connection } => self.gone(connection),
            GateToWarden::Alive(connections) => self.alive(&connections),
        }
    }

    fn ask(&mut self, connection: Connection, claim: Claim, proved: bool) {
        match self.connections.insert(connection, Phase::Claiming { answered: false }) {
            Some(Phase::In(_)) => return self.breach_by_gate("a login over a login"),
            Some(Phase::Claiming { answered: false }) => return self.breach_by_gate("two questions at once"),
            Some(Phase::Claiming { answered: true }) | None => {}
        }
        if self.connections.len() > MOST_CONNECTIONS {
            return self.breach_by_gate("more connections than it may have");
        }
        let (judge, post, term) = (self.judge.clone(), self.post.clone(), self.term);
        tokio::spawn(async move {
            let claimant = Claimant { claim, proved };
            let judgement = judge.judge(&claimant).await;
            let judged = Judged { term, connection, claimant, judgement };
            let _ = post.send(Post::Judged(Box::new(judged))).await;
        });
    }

    pub fn judged(&mut self, judged: Judged) {
        let Judged { term, connection, claimant, judgement } = judged;
        // The connection may have gone, or its gate, while we looked.
        if term != self.term || !self.connections.contains_key(&connection) {
            return;
        }
        self.connections.insert(connection, Phase::Claiming { answered: true });
        let accepted = matches!(judgement, Judgement::Admitted(_));
        let Claimant { claim, proved } = claimant;
        match judgement {
            Judgement::Denied { key, why } => {
                self.event(Event::LoginRefused { user: claim.user, from: claim.from, key, why });
            }
            Judgement::Admitted(permit) if proved => self.admit(connection, Login { permit, claim, session: None }),
            Judgement::Admitted(_) => {}
        }
        // Without a recorder nobody gets in, and it is said as any other refusal.
        let accepted = accepted && self.keeper.is_some();
        self.say_gate(if proved {
            WardenToGate::Login { connection, accepted }
        } else {
            WardenToGate::Offer { connection, acceptable: accepted }
        });
    }

    fn admit(&mut self, connection: Connection, login: Login) {
        if self.keeper.is_none() {
            return;
        }
        self.event(Event::LoginAccepted {
            user: login.permit.principal().to_string(),
            from: login.claim.from.clone(),
            key: login.permit.fingerprint().to_owned(),
            groups: login.permit.groups().iter().cloned().collect(),
            client: login.claim.client.clone(),
        });
        self.connections.insert(connection, Phase::In(Box::new(login)));
    }

    /// A session channel: the first one gets a jail, the next ones share it while it stands.
    fn open(&mut self, connection: Connection, channel: Channel) {
        let known = match self.connections.get(&connection) {
            Some(Phase::In(login)) => login.session,
            Some(Phase::Claiming { .. }) => return self.breach_by_gate("a session before its login"),
            // A login that an earlier warden accepted.
            None => {
                return self.refuse(connection, channel, "this login is no longer known; log in again", UNAVAILABLE);
            }
        };
        let alive = known.filter(|id| self.sessions.get(id).is_some_and(|s| s.ending.is_none()));
        if alive.is_none() && self.has_enough(connection) {
            let sentence = "you have as many sessions as one user may; end one and try again";
            return self.refuse(connection, channel, sentence, UNAVAILABLE);
        }
        let Some(id) = alive.or_else(|| self.begin_session(connection)) else {
            return self.refuse(connection, channel, "sessions cannot be recorded at the moment", UNRECORDED);
        };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.number_of(channel).is_some() {
            return self.breach_by_gate("a channel opened twice");
        }
        session.next += 1;
        session.channels.insert(session.next, Place { channel: Some(channel), wish: None, stage: Stage::Idle });
    }

    fn has_enough(&self, connection: Connection) -> bool {
        let Some(Phase::In(login)) = self.connections.get(&connection) else { return false };
        let user = login.permit.principal();
        self.sessions.values().filter(|session| session.user == *user).count() >= self.terms.jails_per_user
    }

    /// Recording and jail begin at the same time; what runs waits for both.
    fn begin_session(&mut self, connection: Connection) -> Option<SessionId> {
        let Some(Phase::In(login)) = self.connections.get_mut(&connection) else { return None };
        let Login { permit, claim, session } = &mut **login;
        let (id, user, key) = (SessionId::mint(), permit.principal().clone(), permit.fingerprint().to_owned());
        let header = Header {
            user: user.to_string(),
            from: claim.from.clone(),
            key: key.clone(),
            client: claim.client.clone(),
            groups: permit.groups().iter().cloned().collect(),
            image: self.terms.image.clone(),
            role: self.terms.role.as_ref().map(|role| role.replace("{user}", user.as_str())),
        };
        let groups = permit.groups().clone();
        let (persistent_home, from) = (permit.home() == Home::Persistent, claim.from.clone());
        let keeper = self.keeper.as_ref()?;
        if !keeper.say(WardenToKeeper::Open { session: id, header: Box::new(header) }) {
            return None;
        }
        *session = Some(id);
        let note = minicbor::to_vec(Note { key: key.clone(), connection }).unwrap_or_default();
        let region = self.terms.region.clone();
        self.jailer.say(WardenToJailer::Build { session: id, user: user.clone(), persistent_home, region, note });
        self.sponsor.begin(id, &user);
        self.event(Event::SessionOpened { session: id, user: user.to_string(), from });
        let session = Session { groups: Some(groups), ..Session::new(user, key, (self.term, connection)) };
        self.sessions.insert(id, session);
        self.push_egress(id);
        Some(id)
    }

    fn run(&mut self, connection: Connection, channel: Channel, wish: Wish) {
        let session = match self.connections.get(&connection) {
            Some(Phase::In(login)) if wish.terminal.is_some() && !login.permit.terminal() => {
                return self.refuse(connection, channel, "your key does not allow a terminal", UNAVAILABLE);
            }
            Some(Phase::In(login)) => login.session,
            Some(Phase::Claiming { .. }) => return self.breach_by_gate("a program before its login"),
            None => None,
        };
        let found = session.and_then(|id| Some((id, self.sessions.get_mut(&id)?)));
        let Some((id, session)) = found.filter(|(_, s)| s.ending.is_none()) else {
            return self.refuse(connection, channel, "this session has ended", UNAVAILABLE);
        };
        let Some((number, place)) = session.channels.iter_mut().find(|(_, place)| place.channel == Some(channel))
        else {
            return self.refuse(connection, channel, "this channel has ended", UNAVAILABLE);
        };
        if place.stage != Stage::Idle {
            return self.breach_by_gate("two programs in one channel");
        }
        place.wish = Some(wish);
        place.stage = Stage::Waiting;
        let number = *number;
        if session.is_ready() {
            self.start(id, number);
        }
    }

    fn start_waiting(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id).filter(|session| session.is_ready()) else { return };
        let waiting: Vec<Number> =
            session.channels.iter().filter(|(_, p)| p.stage == Stage::Waiting).map(|(number, _)| *number).collect();
        for number in waiting {
            self.start(id, number);
        }
    }

    fn start(&mut self, id: SessionId, number: Number) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let proxies = egress::environment(session, &self.terms.egress);
        let Some(place) = session.channels.get_mut(&number) else { return };
        let Some(Wish { program, terminal, mut environment }) = place.wish.take() else { return };
        place.stage = Stage::Starting;
        let command = match &program {
            crate::privsep::message::Program::Shell => None,
            crate::privsep::message::Program::Exec(command) => Some(command.clone()),
        };
        self.event(Event::ChannelOpened { session: id, number, command, terminal: terminal.is_some() });
        self.say_keeper(WardenToKeeper::Channel {
            session: id,
            number,
            program: program.clone(),
            terminal: terminal.clone(),
            environment: environment.clone(),
        });
        environment.extend(proxies);
        self.jailer.say(WardenToJailer::Start { session: id, number, program, terminal, environment });
    }

    fn closed(&mut self, connection: Connection, channel: Channel) {
        let Some(Phase::In(login)) = self.connections.get(&connection) else { return };
        let Some(id) = login.session else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(number) = session.number_of(channel) else { return };
        let running =
            session.channels.get(&number).is_some_and(|p| matches!(p.stage, Stage::Starting | Stage::Running));
        if !running || session.channels.len() == 1 {
            session.channels.remove(&number);
            return self.end_if_empty(id, "the client closed its last channel");
        }
        self.jailer.say(WardenToJailer::Signal { session: id, number, signal: libc::SIGHUP });
        later(&self.post, HANGUP, Due::Kill(id, number));
    }

    fn gone(&mut self, connection: Connection) {
        self.connections.remove(&connection);
        // By its owner, not by the login: a warden that was started again knows sessions and no logins.
        let owner = (self.term, connection);
        let owned = self.sessions.iter().filter(|(_, session)| session.owner == owner).map(|(id, _)| *id);
        for id in owned.collect::<Vec<_>>() {
            self.end(id, "the connection closed");
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

    fn refuse(&self, connection: Connection, channel: Channel, sentence: &str, code: u32) {
        self.say_gate(WardenToGate::Refused { connection, channel, sentence: sentence.to_owned(), code });
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
                let sentence =
                    format!("no jail could be made for this session ({session}); your administrators can see why");
                self.refuse_all(session, &sentence, UNAVAILABLE);
                self.over(session, &format!("no jail: {reason}"));
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

    fn started(&mut self, id: SessionId, number: Number) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (term, connection) = session.owner;
        let Some(place) = session.channels.get_mut(&number) else { return };
        place.stage = Stage::Running;
        if let Some(channel) = place.channel.filter(|_| term == self.term) {
            self.say_gate(WardenToGate::Running { connection, channel, session: id, number });
        }
    }

    fn exited(&mut self, id: SessionId, number: Number, status: i32) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.channels.remove(&number).is_some() {
            // As a shell says it: the exit status, or 128 and the signal.
            let code = if status & 0x7f == 0 { (status >> 8) & 0xff } else { 128 + (status & 0x7f) };
            self.event(Event::ChannelClosed { session: id, number, status: code.unsigned_abs() });
        }
        self.end_if_empty(id, "its last program ended");
    }

    /// After our own restart: a jail that stands. It may stay if its user still may.
    fn found(&mut self, id: SessionId, user: Principal, note: &[u8], numbers: &[Number]) {
        let Ok(Note { key, connection }) = minicbor::decode::<Note>(note) else {
            self.jailer.say(WardenToJailer::End { session: id });
            return;
        };
        self.sponsor.begin(id, &user);
        let mut session = Session::new(user, key, (0, connection));
        (session.built, session.opened) = (true, true);
        session.next = numbers.iter().max().copied().unwrap_or(0);
        let place = |number: &Number| (*number, Place { channel: None, wish: None, stage: Stage::Running });
        session.channels = numbers.iter().map(place).collect();
        self.review(id, &session);
        self.sessions.insert(id, session);
        self.find_owner(id);
    }

    fn end_if_empty(&mut self, id: SessionId, reason: &str) {
        if self.sessions.get(&id).is_some_and(|session| session.channels.is_empty()) {
            self.end(id, reason);
        }
    }

    /// Has the jail ended; the recording is closed when the jailer says that it is gone.
    fn end(&mut self, id: SessionId, reason: &str) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.ending.is_none() {
            session.ending = Some(reason.to_owned());
            self.jailer.say(WardenToJailer::End { session: id });
        }
    }

    fn over(&mut self, id: SessionId, reason: &str) {
        self.refuse_all(id, "this session has ended", UNAVAILABLE);
        self.sponsor.end(id);
        let Some(session) = self.sessions.remove(&id) else { return };
        let reason = session.ending.unwrap_or_else(|| reason.to_owned());
        self.say_keeper(WardenToKeeper::Close { session: id, reason: reason.clone() });
        self.event(Event::SessionClosed { session: id, user: session.user.to_string(), reason });
        if let Some(Phase::In(login)) = self.connections.get_mut(&session.owner.1)
            && login.session == Some(id)
        {
            login.session = None;
        }
    }

    fn refuse_all(&mut self, id: SessionId, sentence: &str, code: u32) {
        let Some(session) = self.sessions.get(&id) else { return };
        for number in session.channels.keys().copied().collect::<Vec<_>>() {
            self.refuse_channel(id, number, sentence, code);
        }
    }

    /// Only a channel that waits: one that runs hears its end from the keeper.
    fn refuse_channel(&mut self, id: SessionId, number: Number, sentence: &str, code: u32) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (term, connection) = session.owner;
        let waits = session.channels.get(&number).filter(|place| place.stage != Stage::Running);
        if let Some(channel) = waits.and_then(|place| place.channel).filter(|_| term == self.term) {
            self.refuse(connection, channel, sentence, code);
        }
    }

    // ---- what the keeper tells ---------------------------------------------------------------------------------

    pub fn hear_keeper(&mut self, message: KeeperToWarden) {
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
            KeeperToWarden::Signal { .. } | KeeperToWarden::Drained { .. } => {}
            KeeperToWarden::Breach(role) => drop(self.jailer.say(WardenToJailer::Dismiss(role))),
        }
    }

    pub fn due(&mut self, due: Due) {
        match due {
            Due::Egress(id) => self.push_egress(id),
            Due::Linger(id) => {
                let stays = self.sessions.get(&id).is_some_and(|s| s.owner.0 == self.term && self.gate.is_some());
                if !stays {
                    self.end(id, "the connection was lost");
                }
            }
            Due::Kill(id, number) => {
                if self.sessions.get(&id).is_some_and(|session| session.channels.contains_key(&number)) {
                    let signal = libc::SIGKILL;
                    self.jailer.say(WardenToJailer::Signal { session: id, number, signal });
                }
            }
        }
    }
}
