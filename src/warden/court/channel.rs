//! The channels of sessions: what runs in them, from the client's wish to its end.

use std::time::{Duration, Instant};

use super::login::{Judge, Phase};
use super::verb::verb_of;
use super::{Court, UNAVAILABLE, UNRECORDED, kubeconfig};
use crate::audit::Event;
use crate::privsep::message::{
    Channel, Connection, JailerToWarden, Number, Program, WardenToGate, WardenToJailer, WardenToKeeper, Wish,
};
use crate::session::SessionId;
use crate::warden::post::Due;
use crate::warden::sessions::{Place, Sponsor, Stage};
use crate::warden::{egress, later};

/// What a program is given between its hang-up and its death, when its client has closed its channel.
const HANGUP: Duration = Duration::from_secs(2);

/// How long a user who tries beyond their share of jails is not told of again.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

impl<J: Judge, S: Sponsor> Court<J, S> {
    /// A session channel: the first one gets a jail, the next ones share it while it stands.
    pub(super) fn open(&mut self, connection: Connection, channel: Channel) {
        let known = match self.connections.get(&connection) {
            Some(Phase::In(login)) => login.session,
            Some(Phase::Claiming { .. }) => return self.breach_by_gate("a session before its login"),
            // A login that an earlier warden accepted.
            None => {
                return self.refuse(connection, channel, "this login is no longer known; log in again", UNAVAILABLE);
            }
        };
        let alive = known.filter(|id| self.sessions.get(id).is_some_and(|s| s.ending.is_none()));
        if alive.is_none() && self.may_be_verbal(connection) {
            return self.put_off_jail(connection, channel);
        }
        self.seat(connection, channel, alive);
    }

    /// A place in a jail; without one the client is told why.
    pub(super) fn seat(&mut self, connection: Connection, channel: Channel, alive: Option<SessionId>) {
        if alive.is_none() && self.has_enough(connection) {
            self.limit_hit(connection);
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
        session.channels.insert(session.next, Place::of(channel));
    }

    /// An event, but not one for each attempt of a client that goes on trying.
    fn limit_hit(&mut self, connection: Connection) {
        let Some(Phase::In(login)) = self.connections.get(&connection) else { return };
        let (user, now) = (login.permit.principal().clone(), Instant::now());
        self.full.retain(|_, told| now.duration_since(*told) < TOLD_AGAIN);
        if self.full.contains_key(&user) {
            return;
        }
        let what = format!("{user} has {} jails, as many as one user may; more are refused", self.terms.jails_per_user);
        self.full.insert(user, now);
        self.event(Event::LimitHit { session: None, what });
    }

    pub(super) fn run(&mut self, connection: Connection, channel: Channel, wish: Wish) {
        if let Some(verb) = verb_of(&wish) {
            return self.answer_verb(connection, channel, verb);
        }
        if !self.seat_late(connection, channel) {
            return;
        }
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

    pub(super) fn start_waiting(&mut self, id: SessionId) {
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
        let clusters = kubeconfig::told(session, &self.terms.kube);
        let Some(place) = session.channels.get_mut(&number) else { return };
        let Some(mut wish) = place.wish.take() else { return };
        place.stage = Stage::Starting;
        let command = match &wish.program {
            Program::Shell => None,
            Program::Exec(command) => Some(command.clone()),
        };
        self.event(Event::ChannelOpened { session: id, number, command, terminal: wish.terminal.is_some() });
        self.tell_keeper(WardenToKeeper::Channel { session: id, number, wish: wish.clone() });
        wish.environment.extend(proxies);
        if !self.jailer.say(WardenToJailer::Start { session: id, number, wish, clusters }) {
            let reason = "the jailer has too much to do".to_owned();
            self.hear_jailer(JailerToWarden::NotStarted { session: id, number, reason });
        }
    }

    pub(super) fn started(&mut self, id: SessionId, number: Number) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (term, connection) = session.owner;
        let Some(place) = session.channels.get_mut(&number) else { return };
        place.stage = Stage::Running;
        if !place.attended {
            return self.say_gate(WardenToGate::Unattended { session: id, number });
        }
        if let Some(channel) = place.channel.filter(|_| term == self.term) {
            self.say_gate(WardenToGate::Running { connection, channel, session: id, number });
        }
    }

    pub(super) fn exited(&mut self, id: SessionId, number: Number, status: i32) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.channels.remove(&number).is_some() {
            // As a shell says it: the exit status, or 128 and the signal.
            let code = if status & 0x7f == 0 { (status >> 8) & 0xff } else { 128 + (status & 0x7f) };
            self.event(Event::ChannelClosed { session: id, number, status: code.unsigned_abs() });
        }
        self.end_if_empty(id, "its last program ended");
    }

    pub(super) fn closed(&mut self, connection: Connection, channel: Channel) {
        let Some(Phase::In(login)) = self.connections.get_mut(&connection) else { return };
        login.put_off.remove(&channel);
        let Some(id) = login.session else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(number) = session.number_of(channel) else { return };
        let running =
            session.channels.get(&number).is_some_and(|p| matches!(p.stage, Stage::Starting | Stage::Running));
        if !running || session.attended() == 1 {
            session.channels.remove(&number);
            return self.end_if_empty(id, "the client closed its last channel");
        }
        self.jailer.say(WardenToJailer::Signal { session: id, number, signal: libc::SIGHUP });
        later(&self.post, HANGUP, Due::Kill(id, number));
    }

    pub(super) fn refuse_all(&mut self, id: SessionId, sentence: &str, code: u32) {
        let Some(session) = self.sessions.get(&id) else { return };
        for number in session.channels.keys().copied().collect::<Vec<_>>() {
            self.refuse_channel(id, number, sentence, code);
        }
    }

    /// Only a channel that waits: one that runs hears its end from the keeper.
    pub(super) fn refuse_channel(&mut self, id: SessionId, number: Number, sentence: &str, code: u32) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (term, connection) = session.owner;
        let waits = session.channels.get(&number).filter(|place| place.stage != Stage::Running);
        if let Some(channel) = waits.and_then(|place| place.channel).filter(|_| term == self.term) {
            self.refuse(connection, channel, sentence, code);
        }
    }

    pub(super) fn refuse(&self, connection: Connection, channel: Channel, sentence: &str, code: u32) {
        self.say_gate(WardenToGate::Refused { connection, channel, sentence: sentence.to_owned(), code });
    }
}
