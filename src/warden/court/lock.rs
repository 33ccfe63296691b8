//! Locks: who is locked is out within a second, and does not come in.

use std::collections::BTreeSet;

use super::Court;
use super::login::{Judge, Judgement, Phase};
use crate::audit::Event;
use crate::identity::Principal;
use crate::policy::lock::{Lock, Target};
use crate::privsep::message::{Connection, WardenToGate};
use crate::session::SessionId;
use crate::warden::locks::Change;
use crate::warden::sessions::Sponsor;

impl<J: Judge, S: Sponsor> Court<J, S> {
    /// The locks as they are now. Where nobody can say, the former ones stand, and nobody comes in.
    pub fn heed(&mut self, change: Change) {
        for (target, why) in change.gone {
            self.event(Event::LockReleased { target: target.to_string(), reason: why.reason, by: why.by });
        }
        let locks = match change.locks {
            Ok(locks) => locks,
            Err(why) => {
                tracing::error!("nobody is let in, for the locks cannot be read: {why}");
                return self.unread = Some(why);
            }
        };
        self.unread = None;
        let former = std::mem::replace(&mut self.locks, locks.clone());
        for (target, lock) in locks {
            if former.get(&target) == Some(&lock) {
                continue;
            }
            self.event(Event::LockAdded {
                target: target.to_string(),
                reason: lock.reason.clone(),
                by: lock.by.clone(),
                until: lock.until,
            });
            self.enforce(&target, &sentence(&lock));
        }
    }

    /// All of a target ends: what runs, what was lent, and the connections that both came over, for a connection that
    /// stays would have the next one at once.
    fn enforce(&mut self, target: &Target, why: &str) {
        let locked = |id: &SessionId, user: &Principal| match target {
            Target::User(locked) => locked == user,
            Target::Session(locked) => locked == id,
        };
        let sessions: Vec<SessionId> =
            self.sessions.iter().filter(|(id, session)| locked(id, &session.user)).map(|(id, _)| *id).collect();
        let laptops: Vec<SessionId> =
            self.laptops.iter().filter(|l| locked(&l.session, &l.user)).map(|l| l.session).collect();
        let mut connections: BTreeSet<Connection> = laptops.iter().flat_map(|id| self.fetchers(*id)).collect();
        connections.extend(self.connections.iter().filter_map(|(connection, phase)| match (phase, target) {
            (Phase::In(login), Target::User(user)) => (login.permit.principal() == user).then_some(*connection),
            (Phase::In(login), Target::Session(id)) => (login.session == Some(*id)).then_some(*connection),
            (Phase::Claiming { .. }, _) => None,
        }));
        for id in sessions {
            // Its credentials first: a jail takes a moment to die.
            self.sponsor.end(id);
            self.end(id, why);
        }
        laptops.into_iter().for_each(|id| self.end_laptop(id, why));
        for connection in connections {
            // Forgotten first: a gate that does not let go of it opens nothing more with it.
            self.connections.remove(&connection);
            self.end_of(connection, why);
            self.say_gate(WardenToGate::Drop { connection, sentence: why.to_owned() });
        }
    }

    /// Why a user stays out, if a lock says so.
    pub(super) fn locked_out(&self, user: &Principal) -> Option<String> {
        match &self.unread {
            Some(why) => Some(format!("the locks cannot be read: {why}")),
            None => self.locks.get(&Target::User(user.clone())).map(sentence),
        }
    }

    /// It looks like any refusal.
    pub(super) fn unless_locked(&self, judgement: Judgement) -> Judgement {
        let Judgement::Admitted(permit) = &judgement else { return judgement };
        match self.locked_out(permit.principal()) {
            Some(why) => Judgement::Denied { key: permit.fingerprint().to_owned(), why },
            None => judgement,
        }
    }

    /// A session that stood before us may have been locked meanwhile.
    pub(super) fn end_if_locked(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let targets = [Target::Session(id), Target::User(session.user.clone())];
        let why = targets.iter().find_map(|target| self.locks.get(target)).map(sentence);
        if let Some(why) = why {
            self.sponsor.end(id);
            self.end(id, &why);
        }
    }
}

fn sentence(lock: &Lock) -> String {
    let plain: String = lock.reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("locked: {plain}")
}
