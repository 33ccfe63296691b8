//! Verbs over SSH: answered here, with no jail, no shell and no home.
//!
//! A jail is begun when a channel opens, a round trip before it is known what the channel is for: that hides its making
//! from whoever logs in. For a verb it would be made in vain, so whose last wish was a verb waits that round trip.

use std::collections::BTreeSet;

use serde_json::json;

use super::login::{Judge, Login, Phase};
use super::{Court, UNAVAILABLE, UNRECORDED};
use crate::audit::Event;
use crate::identity::{Principal, Secret};
use crate::privsep::message::{Channel, Connection, Program, WardenToGate, Wish};
use crate::session::exit;
use crate::session::kubeconfig::{self, Laptop};
use crate::session::verb::{MISUSED, NotAVerb, Verb, table};
use crate::warden::post::Term;
use crate::warden::sessions::{Sponsor, Stage};

/// Exit statuses of sysexits.h: not there, or not for this user.
pub(super) const NOT_THERE: u32 = exit::NOT_THERE as u32;

/// The longest part of an answer: a packet has room for twice that.
const LONGEST_PART: usize = 64 * 1024;

/// The longest piece of what was no verb that the audit is told.
const LONGEST_QUOTE: usize = 200;

/// Users and keys that are remembered for their verbs.
const MOST_VERBAL: usize = 16 * 1024;

/// Verbs that wait for EKS's first answer.
const MOST_UNLOOKED: usize = 1024;

/// Channels of one connection that wait to be known.
const MOST_PUT_OFF: usize = 1024;

/// An SSH command that is ours to answer.
#[derive(Debug)]
pub(super) struct Asked {
    verb: Result<Verb, NotAVerb>,
    command: String,
}

/// Who asks, and where the answer goes.
#[derive(Clone, Debug)]
pub struct Asker {
    pub(super) user: Principal,
    pub(super) groups: BTreeSet<String>,
    pub(super) key: String,
    pub(super) from: String,
    /// A later gate numbers other connections alike.
    pub(super) term: Term,
    pub(super) connection: Connection,
    channel: Channel,
}

/// What is answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) output: Secret,
    pub(super) errors: String,
    pub(super) code: u32,
}

impl Reply {
    pub(super) fn text(output: String) -> Self {
        Self { output: Secret::new(output), errors: String::new(), code: 0 }
    }

    pub(super) fn sorry(errors: impl Into<String>, code: u32) -> Self {
        Self { output: Secret::new(String::new()), errors: errors.into(), code }
    }
}

pub(super) fn verb_of(wish: &Wish) -> Option<Asked> {
    let Program::Exec(command) = &wish.program else { return None };
    let quote = command.get(..command.floor_char_boundary(LONGEST_QUOTE)).unwrap_or_default();
    Verb::of(command).map(|verb| Asked { verb, command: quote.to_owned() })
}

impl<J: Judge, S: Sponsor> Court<J, S> {
    // ---- when a jail is begun ----------------------------------------------------------------------------------

    /// Whose next channel may be a verb's: it is not refused either for want of a jail.
    pub(super) fn may_be_verbal(&self, connection: Connection) -> bool {
        let Some(Phase::In(login)) = self.connections.get(&connection) else { return false };
        self.verbal.contains(&asks(login)) || self.has_enough(connection)
    }

    pub(super) fn put_off_jail(&mut self, connection: Connection, channel: Channel) {
        let Some(Phase::In(login)) = self.connections.get_mut(&connection) else { return };
        if !login.put_off.insert(channel) || login.put_off.len() > MOST_PUT_OFF {
            self.breach_by_gate("a channel opened twice, or too many");
        }
    }

    /// It was no verb after all; false where the client has been told that there is no jail.
    pub(super) fn seat_late(&mut self, connection: Connection, channel: Channel) -> bool {
        let Some(Phase::In(login)) = self.connections.get_mut(&connection) else { return true };
        let (known, waited, asks) = (login.session, login.put_off.remove(&channel), asks(login));
        self.verbal.remove(&asks);
        if !waited {
            return true;
        }
        let alive = known.filter(|id| self.sessions.get(id).is_some_and(|s| s.ending.is_none()));
        self.seat(connection, channel, alive);
        let Some(Phase::In(login)) = self.connections.get(&connection) else { return false };
        let session = login.session.and_then(|id| self.sessions.get(&id));
        session.is_some_and(|session| session.number_of(channel).is_some())
    }

    /// Gives the channel's place back. False where it had none.
    fn leave_seat(&mut self, connection: Connection, channel: Channel) -> bool {
        let Some(Phase::In(login)) = self.connections.get_mut(&connection) else { return false };
        if login.put_off.remove(&channel) {
            return true;
        }
        let Some((id, session)) = login.session.and_then(|id| Some((id, self.sessions.get_mut(&id)?))) else {
            return false;
        };
        let Some(number) = session.number_of(channel) else { return false };
        let idle = session.channels.get(&number).is_some_and(|place| place.stage == Stage::Idle);
        if !idle {
            self.breach_by_gate("two programs in one channel");
            return false;
        }
        session.channels.remove(&number);
        self.end_if_empty(id, "a verb was answered without it");
        true
    }

    // ---- answers -----------------------------------------------------------------------------------------------

    pub(super) fn answer_verb(&mut self, connection: Connection, channel: Channel, asked: Asked) {
        let login = match self.connections.get(&connection) {
            Some(Phase::In(login)) => login,
            Some(Phase::Claiming { .. }) => return self.breach_by_gate("a verb before its login"),
            None => {
                return self.refuse(connection, channel, "this login is no longer known; log in again", UNAVAILABLE);
            }
        };
        let asker = Asker {
            user: login.permit.principal().clone(),
            groups: login.permit.groups().clone(),
            key: login.permit.fingerprint().to_owned(),
            from: login.claim.from.clone(),
            term: self.term,
            connection,
            channel,
        };
        if !self.leave_seat(connection, channel) {
            return self.refuse(connection, channel, "this channel has ended", UNAVAILABLE);
        }
        if self.verbal.len() >= MOST_VERBAL {
            self.verbal.clear();
        }
        self.verbal.insert((asker.user.clone(), asker.key.clone()));
        if self.keeper.is_none() {
            return self.refuse(connection, channel, "nothing can be recorded at the moment", UNRECORDED);
        }
        self.answer(asker, asked);
    }

    fn answer(&mut self, asker: Asker, asked: Asked) {
        if self.answers_later(&asker, &asked) {
            return self.unlooked.push((asker, asked));
        }
        let reply = match &asked.verb {
            Err(wrong) => Reply::sorry(format!("stockade: {wrong}"), MISUSED),
            Ok(Verb::Whoami { json }) => self.whoami(&asker, *json),
            Ok(Verb::Clusters { json }) => self.clusters(&asker, *json),
            Ok(Verb::Kubeconfig { destination }) => self.kubeconfig(&asker, destination.as_deref()),
            Ok(Verb::Token { cluster }) => return self.token(asker, cluster.clone()),
        };
        let verb = match &asked.verb {
            Ok(verb) => verb.name(),
            Err(_) => &asked.command,
        };
        self.reply(&asker, verb, None, reply);
    }

    /// A warden that begins has not heard of EKS's clusters yet: a kubectl that asks for its next token waits for that, and
    /// is not told that there is no such cluster.
    fn answers_later(&self, asker: &Asker, asked: &Asked) -> bool {
        let lacks = match &asked.verb {
            Ok(Verb::Token { cluster }) => !self.pass_of(&asker.groups).clusters.contains(cluster),
            Ok(Verb::Clusters { .. } | Verb::Kubeconfig { .. }) => true,
            _ => false,
        };
        let looks = !self.terms.kube.discover.is_empty() && !self.book.looked();
        lacks && looks && self.unlooked.len() < MOST_UNLOOKED
    }

    /// EKS was asked. Whoever was put out or left meanwhile is told nothing.
    pub(super) fn answer_the_waiting(&mut self) {
        for (mut asker, asked) in std::mem::take(&mut self.unlooked) {
            let Some(Phase::In(login)) = self.connections.get(&asker.connection) else { continue };
            if asker.term == self.term && *login.permit.principal() == asker.user {
                asker.groups.clone_from(login.permit.groups());
                self.answer(asker, asked);
            }
        }
    }

    /// The answer and its event. Of a gate that is gone nobody waits for it.
    pub(super) fn reply(&mut self, asker: &Asker, verb: &str, cluster: Option<String>, reply: Reply) {
        if asker.term != self.term {
            return;
        }
        self.event(Event::VerbAnswered {
            user: asker.user.to_string(),
            from: asker.from.clone(),
            verb: verb.to_owned(),
            cluster,
            status: reply.code,
        });
        let (connection, channel) = (asker.connection, asker.channel);
        let mut rest = reply.output.expose();
        while rest.len() > LONGEST_PART {
            let (part, more) = rest.split_at(rest.floor_char_boundary(LONGEST_PART));
            let (output, errors) = (Secret::new(part.to_owned()), String::new());
            self.say_gate(WardenToGate::Answer { connection, channel, output, errors, code: None });
            rest = more;
        }
        let (output, code) = (Secret::new(rest.to_owned()), Some(reply.code));
        self.say_gate(WardenToGate::Answer { connection, channel, output, errors: reply.errors, code });
    }

    fn whoami(&self, asker: &Asker, json: bool) -> Reply {
        let role = self.terms.role.as_ref().map(|role| role.replace("{user}", asker.user.as_str()));
        let clusters = self.pass_of(&asker.groups).clusters;
        if json {
            return lines(&json!({
                "user": asker.user.as_str(),
                "groups": asker.groups,
                "key": asker.key,
                "from": asker.from,
                "role_arn": role,
                "clusters": clusters,
            }));
        }
        let all = |names: Vec<String>| (!names.is_empty()).then(|| names.join(" "));
        Reply::text(table([
            ("user", Some(asker.user.to_string())),
            ("groups", all(asker.groups.iter().cloned().collect())),
            ("key", Some(asker.key.clone())),
            ("from", Some(asker.from.clone())),
            ("role", role),
            ("clusters", all(clusters)),
        ]))
    }

    fn clusters(&self, asker: &Asker, json: bool) -> Reply {
        let clusters = self.pass_of(&asker.groups).clusters;
        if json {
            let clusters: Vec<_> = clusters.iter().map(|name| json!({ "name": name })).collect();
            return lines(&json!({ "clusters": clusters }));
        }
        let none = if clusters.is_empty() { "there is no cluster that you may use" } else { "" };
        let text = clusters.iter().map(|name| format!("{name}\n")).collect();
        Reply { errors: none.to_owned(), ..Reply::text(text) }
    }

    fn kubeconfig(&self, asker: &Asker, destination: Option<&str>) -> Reply {
        let Some(door) = &self.terms.kube.public else { return Reply::sorry(super::laptop::NO_DOOR, NOT_THERE) };
        let ssh = match destination {
            Some(name) => vec![name.to_owned()],
            None => self.ssh_words(&asker.user, &door.url),
        };
        let clusters = self.pass_of(&asker.groups).clusters;
        let laptop = Laptop { url: &door.url, authority: door.authority.as_deref(), clusters: &clusters, ssh: &ssh };
        match kubeconfig::of_laptop(laptop) {
            Ok(text) => Reply::text(text),
            Err(error) => Reply::sorry(format!("stockade: no kubeconfig can be made: {error}"), NOT_THERE),
        }
    }

    /// How a laptop's ssh finds this bastion: where its public door is, by the port that ssh listens on here.
    fn ssh_words(&self, user: &Principal, url: &str) -> Vec<String> {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let server = rest.split('/').next().unwrap_or_default();
        let host = match server.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
            Some((v6, _)) => v6,
            None => server.split(':').next().unwrap_or_default(),
        };
        let port = (self.terms.ssh_port != 22).then(|| ["-p".to_owned(), self.terms.ssh_port.to_string()]);
        port.into_iter().flatten().chain([format!("{user}@{host}")]).collect()
    }
}

fn asks(login: &Login) -> (Principal, String) {
    (login.permit.principal().clone(), login.permit.fingerprint().to_owned())
}

fn lines(value: &serde_json::Value) -> Reply {
    Reply::text(format!("{value:#}\n"))
}
