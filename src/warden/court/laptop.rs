//! Laptops: what somebody who is logged in fetches to use clusters from outside. A grant is a session of its own without
//! a jail, one for each key, with its own recording; its token lives for a while and is answered again until it is old.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::login::Judge;
use super::review::{AGAIN, changed};
use super::verb::{Asker, NOT_THERE, Reply};
use super::{Court, Review, UNRECORDED};
use crate::audit::Event;
use crate::identity::{Principal, Secret};
use crate::privsep::message::{Connection, KeeperToWarden, WardenToKeeper, WardenToPorter};
use crate::recording::Header;
use crate::session::SessionId;
use crate::warden::later;
use crate::warden::post::{Due, Post, Term};
use crate::warden::sessions::Sponsor;

pub(super) const NO_DOOR: &str = "this bastion has no public kube door for laptops; log in and use kubectl there";

/// So that scanners of repositories and logs know one when they see it.
const PREFIX: &str = "stockade_";

/// Who may wait for one recording to begin.
const MOST_WAITING: usize = 64;

/// A grant.
#[derive(Debug)]
pub(super) struct Laptop {
    pub(super) session: SessionId,
    pub(super) user: Principal,
    key: String,
    groups: BTreeSet<String>,
    token: Token,
    /// The connections that its tokens were fetched over.
    fetched: BTreeSet<(Term, Connection)>,
    /// The recording is begun.
    opened: bool,
    /// Who asked before that, for which cluster.
    waiting: Vec<(Asker, String)>,
}

#[derive(Debug)]
struct Token {
    text: Secret,
    /// Seconds since the epoch.
    expires: i64,
    /// The same by a clock that nobody sets.
    lapse: Instant,
    life: Duration,
}

impl Token {
    fn mint(life: Duration) -> Result<Self, rustix::io::Errno> {
        let mut bytes = Zeroizing::new([0; 32]);
        rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
        let seconds = i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
        Ok(Self {
            text: Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes[..]))),
            expires: now().saturating_add(seconds),
            lapse: Instant::now() + life,
            life,
        })
    }

    fn left(&self) -> Duration {
        let seconds = u64::try_from(self.expires.saturating_sub(now())).unwrap_or(0);
        self.lapse.saturating_duration_since(Instant::now()).min(Duration::from_secs(seconds))
    }

    /// What kubectl asks its exec plugin for.
    fn credential(&self) -> String {
        let expires = jiff::Timestamp::from_second(self.expires).unwrap_or_default();
        let credential = json!({
            "apiVersion": "client.authentication.k8s.io/v1",
            "kind": "ExecCredential",
            "spec": {},
            "status": { "expirationTimestamp": expires.to_string(), "token": self.text.expose() },
        });
        format!("{credential}\n")
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

impl<J: Judge, S: Sponsor> Court<J, S> {
    /// `stockade token CLUSTER`. A login may be old, and whoever keeps one open must not keep rights with it: keys and groups
    /// are looked up again.
    pub(super) fn token(&mut self, asker: Asker, cluster: String) {
        if self.terms.kube.public.is_none() {
            return self.reply(&asker, "token", Some(cluster), Reply::sorry(NO_DOOR, NOT_THERE));
        }
        let (judge, post) = (self.judge.clone(), self.post.clone());
        tokio::spawn(async move {
            let review = judge.may_stay(&asker.user, &asker.key).await;
            let _ = post.send(Post::TokenReviewed(Box::new((asker, cluster)), review)).await;
        });
    }

    pub fn token_reviewed(&mut self, (mut asker, cluster): (Asker, String), review: Review) {
        // Put out meanwhile: a grant that nobody is told of is none.
        if asker.term != self.term || !self.connections.contains_key(&asker.connection) {
            return;
        }
        let sorry = match (review, self.locked_out(&asker.user)) {
            (Review::Stays(permit), None) => {
                asker.groups.clone_from(permit.groups());
                return self.lend(asker, cluster);
            }
            (Review::Unknown, None) => "nobody can say at the moment whether you may; try again",
            (Review::Leaves(_), _) | (_, Some(_)) => {
                let own = |laptop: &&Laptop| laptop.user == asker.user && laptop.key == asker.key;
                let lent: Vec<SessionId> = self.laptops.iter().filter(own).map(|laptop| laptop.session).collect();
                lent.into_iter().for_each(|id| self.end_laptop(id, "the user's rights are gone"));
                "you may not log in any more"
            }
        };
        self.reply(&asker, "token", Some(cluster), Reply::sorry(sorry, NOT_THERE));
    }

    /// Denied and missing look alike.
    fn lend(&mut self, asker: Asker, cluster: String) {
        let Some(life) = self.terms.kube.public.as_ref().map(|door| door.life) else {
            return self.reply(&asker, "token", Some(cluster), Reply::sorry(NO_DOOR, NOT_THERE));
        };
        if !self.pass_of(&asker.groups).clusters.contains(&cluster) {
            let sorry = format!("there is no cluster '{cluster}' that you may use; `stockade clusters` lists them");
            return self.reply(&asker, "token", Some(cluster), Reply::sorry(sorry, NOT_THERE));
        }
        match self.grant_laptop(&asker, life) {
            Err(sorry) => self.reply(&asker, "token", Some(cluster), sorry),
            Ok(at) => {
                let Some(laptop) = self.laptops.get_mut(at) else { return };
                laptop
                    .fetched
                    .retain(|(term, connection)| *term == self.term && self.connections.contains_key(connection));
                laptop.fetched.insert((asker.term, asker.connection));
                if laptop.opened {
                    let reply = Reply::text(laptop.token.credential());
                    return self.reply(&asker, "token", Some(cluster), reply);
                }
                if laptop.waiting.len() < MOST_WAITING {
                    return laptop.waiting.push((asker, cluster));
                }
                self.reply(&asker, "token", Some(cluster), Reply::sorry("too many ask at once; try again", NOT_THERE));
            }
        }
    }

    /// The place of this key's grant, with a token that is good for a while.
    fn grant_laptop(&mut self, asker: &Asker, life: Duration) -> Result<usize, Reply> {
        let known = self.laptops.iter().position(|l| l.user == asker.user && l.key == asker.key);
        if let Some(laptop) = known.and_then(|at| self.laptops.get_mut(at)) {
            let changed = laptop.groups != asker.groups;
            laptop.groups.clone_from(&asker.groups);
            // A life that was shortened is for tokens that exist, too.
            let old = laptop.token.left() * 4 < laptop.token.life || laptop.token.life > life;
            let session = laptop.session;
            if old {
                laptop.token = Token::mint(life).map_err(no_randomness)?;
                self.granted(asker, session);
            }
            if old || changed {
                self.push_laptop(session);
            }
            return Ok(known.unwrap_or_default());
        }
        self.begin_laptop(asker, Token::mint(life).map_err(no_randomness)?)
    }

    fn begin_laptop(&mut self, asker: &Asker, token: Token) -> Result<usize, Reply> {
        if !self.is_recorded() {
            return Err(Reply::sorry("nothing can be recorded at the moment", UNRECORDED));
        }
        let session = SessionId::mint();
        let header = Header {
            user: asker.user.to_string(),
            from: asker.from.clone(),
            key: asker.key.clone(),
            client: "laptop".into(),
            groups: asker.groups.iter().cloned().collect(),
            image: String::new(),
            role: self.terms.role.as_ref().map(|role| role.replace("{user}", asker.user.as_str())),
        };
        self.tell_keeper(WardenToKeeper::Open { session, header: Box::new(header) });
        self.follow(&asker.user);
        self.laptops.push(Laptop {
            session,
            user: asker.user.clone(),
            key: asker.key.clone(),
            groups: asker.groups.clone(),
            token,
            fetched: BTreeSet::new(),
            opened: false,
            waiting: Vec::new(),
        });
        self.granted(asker, session);
        self.push_laptop(session);
        Ok(self.laptops.len() - 1)
    }

    fn granted(&mut self, asker: &Asker, session: SessionId) {
        let Some(laptop) = self.laptops.iter().find(|laptop| laptop.session == session) else { return };
        later(&self.post, laptop.token.left() + Duration::from_secs(1), Due::Lapse(session));
        let expires = laptop.token.expires;
        let (user, from, key) = (asker.user.to_string(), asker.from.clone(), asker.key.clone());
        self.event(Event::LaptopGranted { session, user, from, key, expires });
    }

    /// What the porter is to know of it now.
    pub(super) fn push_laptop(&self, session: SessionId) {
        let known = self.laptops.iter().find(|laptop| laptop.session == session);
        let pass = known.map(|laptop| (laptop, Box::new(self.pass_of(&laptop.groups))));
        if let Some((laptop, pass)) = &pass {
            // What clusters know, and no keys of AWS.
            self.sponsor.clusters(session, &laptop.user, self.book.wants_tokens(pass));
        }
        let Some(porter) = &self.porter else { return };
        let said = match pass {
            None => porter.say(WardenToPorter::LaptopGone { session }),
            Some((laptop, pass)) => {
                let digest = Sha256::digest(laptop.token.text.expose()).into();
                let (user, expires) = (laptop.user.clone(), laptop.token.expires);
                porter.say(WardenToPorter::Pass { session, pass })
                    && porter.say(WardenToPorter::Laptop { session, user, digest, expires })
            }
        };
        if !said {
            // What was taken away must not stay open because the porter was busy.
            later(&self.post, AGAIN, Due::Laptop(session));
        }
    }

    /// What the keeper says of a grant's recording; everything else comes back.
    pub(super) fn hear_of_laptop(&mut self, message: KeeperToWarden) -> Option<KeeperToWarden> {
        let (KeeperToWarden::Opened { session: id }
        | KeeperToWarden::Refused { session: id, .. }
        | KeeperToWarden::MustEnd { session: id, .. }) = &message
        else {
            return Some(message);
        };
        let Some(laptop) = self.laptops.iter_mut().find(|laptop| laptop.session == *id) else { return Some(message) };
        match message {
            KeeperToWarden::Opened { .. } => {
                laptop.opened = true;
                let credential = laptop.token.credential();
                for (asker, cluster) in std::mem::take(&mut laptop.waiting) {
                    self.reply(&asker, "token", Some(cluster), Reply::text(credential.clone()));
                }
            }
            KeeperToWarden::Refused { session, sentence: why } | KeeperToWarden::MustEnd { session, reason: why } => {
                self.end_laptop(session, &why);
            }
            KeeperToWarden::Signal { .. } | KeeperToWarden::Breach(_) => {}
        }
        None
    }

    pub(super) fn lapse(&mut self, id: SessionId) {
        let over = |laptop: &&Laptop| laptop.session == id && laptop.token.left().is_zero();
        if self.laptops.iter().any(|laptop| over(&laptop)) {
            self.end_laptop(id, "its token's time is over");
        }
    }

    /// The connections that are still there of those a grant's tokens were fetched over.
    pub(super) fn fetchers(&self, id: SessionId) -> Vec<Connection> {
        let fetched = self.laptops.iter().filter(|laptop| laptop.session == id).flat_map(|laptop| &laptop.fetched);
        let alive =
            |(term, connection): &&(Term, Connection)| *term == self.term && self.connections.contains_key(connection);
        fetched.filter(alive).map(|(_, connection)| *connection).collect()
    }

    /// Its streams end at once, and its token opens nothing.
    pub(super) fn end_laptop(&mut self, id: SessionId, why: &str) {
        let Some(at) = self.laptops.iter().position(|laptop| laptop.session == id) else { return };
        let laptop = self.laptops.swap_remove(at);
        self.sponsor.end(id);
        self.push_laptop(id);
        self.tell_keeper(WardenToKeeper::Close { session: id, reason: why.to_owned() });
        self.event(Event::LaptopEnded { session: id, user: laptop.user.to_string(), reason: why.to_owned() });
        for (asker, cluster) in laptop.waiting {
            self.reply(&asker, "token", Some(cluster), Reply::sorry(why, UNRECORDED));
        }
    }

    pub(super) fn end_laptops(&mut self, why: &str) {
        let all: Vec<SessionId> = self.laptops.iter().map(|laptop| laptop.session).collect();
        all.into_iter().for_each(|id| self.end_laptop(id, why));
    }

    /// By the terms in force, and whether their users still may.
    pub(super) fn review_laptops(&mut self) {
        if self.terms.kube.public.is_none() {
            return self.end_laptops("there is no public kube door any more");
        }
        for laptop in &self.laptops {
            self.push_laptop(laptop.session);
            self.review_laptop(laptop);
        }
    }

    pub(super) fn review_laptop(&self, laptop: &Laptop) {
        let (judge, post, id) = (self.judge.clone(), self.post.clone(), laptop.session);
        let (user, key) = (laptop.user.clone(), laptop.key.clone());
        tokio::spawn(async move {
            let review = judge.may_stay(&user, &key).await;
            let _ = post.send(Post::LaptopReviewed(id, review)).await;
        });
    }

    pub fn laptop_reviewed(&mut self, id: SessionId, review: Review) {
        match review {
            Review::Leaves(why) => self.end_laptop(id, &format!("the user's rights are gone: {why}")),
            Review::Stays(permit) => {
                if let Some(laptop) = self.laptops.iter_mut().find(|laptop| laptop.session == id) {
                    let changed = changed(id, &laptop.user, Some(&laptop.groups), permit.groups());
                    laptop.groups.clone_from(permit.groups());
                    changed.into_iter().for_each(|event| self.event(event));
                    self.push_laptop(id);
                }
            }
            Review::Unknown => {}
        }
    }
}

fn no_randomness(errno: rustix::io::Errno) -> Reply {
    tracing::error!("the kernel gives no random bytes: {errno}");
    Reply::sorry("no token can be made at the moment", NOT_THERE)
}
