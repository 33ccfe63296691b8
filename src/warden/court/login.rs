//! Who gets in: claims, the judgements on them, and the session that a login begins.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Court, Review};
use crate::audit::Event;
use crate::config::Home;
use crate::identity::Principal;
use crate::policy::{Permit, Source};
use crate::privsep::message::{Channel, Claim, Connection, WardenToGate, WardenToJailer, WardenToKeeper};
use crate::recording::Header;
use crate::session::SessionId;
use crate::warden::later;
use crate::warden::post::{Due, Post, Term};
use crate::warden::sessions::{Note, Session, Sponsor};

/// What a captured gate can make us remember.
const MOST_CONNECTIONS: usize = 16 * 1024;

/// How long refused logins are counted before the count is told.
const COUNTED: Duration = Duration::from_secs(10);

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
    edition: u64,
    claimant: Claimant,
    judgement: Judgement,
}

/// How far a connection is.
#[derive(Debug)]
pub(super) enum Phase {
    /// Asked about, one question at a time; may ask again.
    Claiming {
        answered: bool,
    },
    In(Box<Login>),
}

#[derive(Debug)]
pub(super) struct Login {
    pub(super) permit: Permit,
    pub(super) claim: Claim,
    pub(super) session: Option<SessionId>,
    /// Channels that have no jail before it is known what they are for.
    pub(super) put_off: BTreeSet<Channel>,
}

impl Login {
    fn new(permit: Permit, claim: Claim) -> Self {
        Self { permit, claim, session: None, put_off: BTreeSet::new() }
    }
}

impl<J: Judge, S: Sponsor> Court<J, S> {
    pub(super) fn ask(&mut self, connection: Connection, claim: Claim, proved: bool) {
        match self.connections.insert(connection, Phase::Claiming { answered: false }) {
            Some(Phase::In(_)) => return self.breach_by_gate("a login over a login"),
            Some(Phase::Claiming { answered: false }) => return self.breach_by_gate("two questions at once"),
            Some(Phase::Claiming { answered: true }) | None => {}
        }
        if self.connections.len() > MOST_CONNECTIONS {
            return self.breach_by_gate("more connections than it may have");
        }
        let (judge, post, term) = (self.judge.clone(), self.post.clone(), self.term);
        let edition = self.edition;
        tokio::spawn(async move {
            let claimant = Claimant { claim, proved };
            let judgement = judge.judge(&claimant).await;
            let judged = Judged { term, connection, edition, claimant, judgement };
            let _ = post.send(Post::Judged(Box::new(judged))).await;
        });
    }

    pub fn judged(&mut self, judged: Judged) {
        let Judged { term, connection, edition, claimant, judgement } = judged;
        // The connection may have gone, or its gate, while we looked.
        if term != self.term || !self.connections.contains_key(&connection) {
            return;
        }
        self.connections.insert(connection, Phase::Claiming { answered: true });
        let judgement = self.unless_crowded(self.unless_locked(judgement));
        // Without a recorder nobody gets in, and it is said as any other refusal.
        let accepted = matches!(judgement, Judgement::Admitted(_)) && self.is_recorded();
        let Claimant { claim, proved } = claimant;
        match judgement {
            Judgement::Denied { key, why } => self.refused(claim, key, why),
            Judgement::Admitted(permit) if proved && accepted => self.admit(connection, Login::new(permit, claim)),
            Judgement::Admitted(_) => {}
        }
        self.say_gate(if proved {
            WardenToGate::Login { connection, accepted }
        } else {
            WardenToGate::Offer { connection, acceptable: accepted }
        });
        if edition != self.edition {
            self.review_login(connection);
        }
    }

    /// Told, or one more that is counted: an exempt source has no penalty, and a thousand sources have a thousand shares.
    fn refused(&mut self, Claim { user, from, .. }: Claim, key: String, why: String) {
        let source = from.parse::<SocketAddr>().ok().map(|from| Source::of(from.ip(), self.terms.netblock));
        if self.refusals.passes(source, Instant::now()) {
            self.event(Event::LoginRefused { user, from, key, why });
        } else if !std::mem::replace(&mut self.counting, true) {
            later(&self.post, COUNTED, Due::Refusals);
        }
    }

    pub(super) fn count_refusals(&mut self) {
        self.counting = false;
        for what in self.refusals.left_out(Instant::now()) {
            self.event(Event::LimitHit { session: None, what });
        }
    }

    /// A connection may hold input for programs that it never starts: twice as many as jails is enough for one user.
    fn unless_crowded(&self, judgement: Judgement) -> Judgement {
        let Judgement::Admitted(permit) = &judgement else { return judgement };
        let of_user =
            |phase: &&Phase| matches!(phase, Phase::In(login) if login.permit.principal() == permit.principal());
        let most = 2 * self.terms.jails_per_user;
        if self.connections.values().filter(of_user).count() < most {
            return judgement;
        }
        let why = format!("{most} connections are open, as many as one user may have");
        Judgement::Denied { key: permit.fingerprint().to_owned(), why }
    }

    /// A connection outlives its sessions and may begin others: it leaves with its user's rights, or goes on with those
    /// of today.
    pub(super) fn review_logins(&mut self) {
        self.edition += 1;
        self.connections.keys().for_each(|connection| self.review_login(*connection));
    }

    pub(super) fn review_login(&self, connection: Connection) {
        let Some(Phase::In(login)) = self.connections.get(&connection) else { return };
        let (user, key) = (login.permit.principal().clone(), login.permit.fingerprint().to_owned());
        let (judge, post, term) = (self.judge.clone(), self.post.clone(), self.term);
        tokio::spawn(async move {
            let review = judge.may_stay(&user, &key).await;
            let _ = post.send(Post::LoginReviewed(term, connection, review)).await;
        });
    }

    pub fn login_reviewed(&mut self, term: Term, connection: Connection, review: Review) {
        let Some(Phase::In(login)) = self.connections.get_mut(&connection).filter(|_| term == self.term) else {
            return;
        };
        match review {
            Review::Stays(permit) => login.permit = *permit,
            Review::Unknown => {}
            Review::Leaves(why) => {
                let why = format!("the user's rights are gone: {why}");
                let (user, from) = (login.permit.principal().to_string(), login.claim.from.clone());
                let key = login.permit.fingerprint().to_owned();
                // Forgotten first: a gate that does not let go of it opens nothing more with it.
                self.connections.remove(&connection);
                self.event(Event::LoginRefused { user, from, key, why: why.clone() });
                self.end_of(connection, &why);
                let sentence = "you may no longer be here; log in again".to_owned();
                self.say_gate(WardenToGate::Drop { connection, sentence });
            }
        }
    }

    fn admit(&mut self, connection: Connection, login: Login) {
        self.event(Event::LoginAccepted {
            user: login.permit.principal().to_string(),
            from: login.claim.from.clone(),
            key: login.permit.fingerprint().to_owned(),
            groups: login.permit.groups().iter().cloned().collect(),
            client: login.claim.client.clone(),
        });
        self.follow(login.permit.principal());
        self.connections.insert(connection, Phase::In(Box::new(login)));
    }

    pub(super) fn has_enough(&self, connection: Connection) -> bool {
        let Some(Phase::In(login)) = self.connections.get(&connection) else { return false };
        let user = login.permit.principal();
        self.sessions.values().filter(|session| session.user == *user).count() >= self.terms.jails_per_user
    }

    /// Recording and jail begin at the same time; what runs waits for both.
    pub(super) fn begin_session(&mut self, connection: Connection) -> Option<SessionId> {
        if !self.is_recorded() || !self.jailer.has_room() {
            return None;
        }
        let Some(Phase::In(login)) = self.connections.get_mut(&connection) else { return None };
        let Login { permit, claim, session, .. } = &mut **login;
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
        *session = Some(id);
        self.tell_keeper(WardenToKeeper::Open { session: id, header: Box::new(header) });
        let note = minicbor::to_vec(Note { key: key.clone(), connection }).unwrap_or_default();
        let region = self.terms.region.clone();
        self.jailer.say(WardenToJailer::Build { session: id, user: user.clone(), persistent_home, region, note });
        self.sponsor.begin(id, &user);
        self.event(Event::SessionOpened { session: id, user: user.to_string(), from });
        let session = Session { groups: Some(groups), ..Session::new(user, key, (self.term, connection)) };
        self.sessions.insert(id, session);
        self.push_egress(id);
        self.push_pass(id);
        Some(id)
    }
}
