//! The doors: what answers inside the jails' network namespaces, and nothing else does.
//!
//! Knows live sessions' short-lived credentials and who each listener belongs to: the listener IS the identity, there
//! is no look-up by address and no peer credential is asked for. Reads hostile HTTP from the jails. Never knows the
//! bastion's own AWS identity, who may do what, a PTY byte or a recording; never opens a file or executes. It connects
//! only through the egress door, by rules that the warden pushed, and has no network where there are none. The jailer
//! hands listeners over, the warden pushes credentials and rules, the keeper is told of refusals and connections.
//!
//! `answer` is the law of the doors that answer, a pure function; `door` is hyper around it; `metadata`, `container` and
//! `control` are the three kinds. `egress` is the door that lets through.

mod answer;
mod container;
mod control;
mod document;
mod door;
mod egress;
mod jail;
mod metadata;
mod notice;
mod token;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::identity::{Principal, Secret};
use crate::privsep::link::{Link, LinkError};
use crate::privsep::message::{FromJailer, JailerToPorter, Message, Silence, ToKeeper, WardenToPorter};
use crate::privsep::table::DOORS;
use crate::privsep::{Accusation, Role};
use crate::session::SessionId;

use egress::Names;
use jail::{Allowance, Jail, Pushed};
use notice::Notices;

pub use egress::Sources;

/// How long a push waits for the doors it belongs to. STS is asked while the jail is being built, so it often wins.
const EARLY: Duration = Duration::from_secs(600);

/// The most pushes that wait.
const MOST_EARLY: usize = 4096;

/// What the configuration says to the doors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Answer without a session token, as IMDSv1 did.
    pub imds_v1: bool,
    /// The region told while there are no credentials that name one.
    pub region: Option<String>,
}

/// What the porter begins with, after lock-down.
pub struct Start {
    pub control: Link<Silence, FromJailer<JailerToPorter>>,
    pub settings: Settings,
    pub sources: Sources,
    /// Reads what comes with a new configuration.
    pub reload: Box<dyn Fn(Vec<OwnedFd>) -> Option<Sources> + Send>,
}

/// Why the porter ends.
#[derive(Debug, thiserror::Error)]
pub enum PorterError {
    #[error("the jailer's link to the porter failed")]
    Control(#[source] LinkError),
    #[error("the jailer gave the porter a link that it does not have: {0}")]
    Stranger(Role),
    #[error("the jailer began with the porter twice")]
    OutOfPhase,
    #[error("a link given by the jailer cannot be used")]
    Peer(#[source] io::Error),
    #[error("a peer cannot be trusted")]
    Untrusted(#[from] Accusation),
}

/// Answers the doors until the jailer is gone.
pub async fn serve(start: Start) -> Result<(), PorterError> {
    let mut porter = Porter {
        settings: start.settings,
        names: watch::Sender::new(Arc::new(Names::new(start.sources))),
        reload: start.reload,
        jails: HashMap::new(),
        early: HashMap::new(),
        notices: Notices::begin(),
        warden: None,
        keeper: None,
    };
    let mut sweep = tokio::time::interval(Duration::from_secs(60));
    loop {
        tokio::select! {
            told = start.control.recv() => match told {
                Ok((message, descriptors)) => porter.told(message, descriptors)?,
                Err(LinkError::Closed) => return Ok(()),
                Err(e) => return Err(PorterError::Control(e)),
            },
            pushed = heard(porter.warden.as_ref()) => porter.pushed(pushed)?,
            told = silence(porter.keeper.as_deref()) => porter.left(told)?,
            _ = sweep.tick() => porter.early.retain(|_, (since, _)| since.elapsed() < EARLY),
        }
    }
}

/// The warden's next word; without a warden, never.
async fn heard(warden: Option<&Link<Silence, WardenToPorter>>) -> Result<WardenToPorter, LinkError> {
    match warden {
        Some(link) => link.recv().await.map(|(message, _)| message),
        None => std::future::pending().await,
    }
}

/// The end of a keeper, which has nothing to say.
async fn silence(keeper: Option<&Link<ToKeeper, Silence>>) -> LinkError {
    match keeper {
        Some(link) => match link.recv().await {
            Ok((never, _)) => match never {},
            Err(error) => error,
        },
        None => std::future::pending().await,
    }
}

struct Porter {
    settings: Settings,
    names: watch::Sender<Arc<Names>>,
    reload: Box<dyn Fn(Vec<OwnedFd>) -> Option<Sources> + Send>,
    jails: HashMap<SessionId, Doors>,
    /// Pushes whose doors have not come yet.
    early: HashMap<SessionId, (Instant, Pushed)>,
    notices: Notices,
    warden: Option<Link<Silence, WardenToPorter>>,
    keeper: Option<Arc<Link<ToKeeper, Silence>>>,
}

/// One jail's doors; dropping them closes listeners and connections.
struct Doors {
    pushed: watch::Sender<Pushed>,
    _open: JoinSet<()>,
}

impl Porter {
    fn told(&mut self, message: FromJailer<JailerToPorter>, mut descriptors: Vec<OwnedFd>) -> Result<(), PorterError> {
        match message {
            FromJailer::Begin => return Err(PorterError::OutOfPhase),
            // Names may have moved; the other settings are fixed for a porter's life.
            FromJailer::Reload => {
                if let Some(sources) = (self.reload)(descriptors) {
                    self.names.send_replace(Arc::new(Names::new(sources)));
                }
            }
            FromJailer::Peer(Role::Warden) => self.warden = Some(peer(descriptors.pop())?),
            FromJailer::Peer(Role::Keeper) => {
                let link = Arc::new(peer(descriptors.pop())?);
                self.notices.to(Arc::clone(&link));
                self.keeper = Some(link);
            }
            FromJailer::Peer(other) => return Err(PorterError::Stranger(other)),
            FromJailer::Told(JailerToPorter::Doors { session, user, token }) => {
                self.open(session, user, token, descriptors);
            }
            FromJailer::Told(JailerToPorter::Gone { session }) => {
                self.jails.remove(&session);
                self.early.remove(&session);
            }
        }
        Ok(())
    }

    fn open(&mut self, session: SessionId, user: Principal, token: Secret, listeners: Vec<OwnedFd>) {
        let early = self.early.remove(&session).map(|(_, pushed)| pushed);
        let known = self.jails.remove(&session).map(|doors| doors.pushed.borrow().clone());
        let first = known.or(early).unwrap_or_default();
        let (sender, receiver) = watch::channel(first);
        let jail = Arc::new(Jail::new(session, user, token, self.settings.clone(), self.notices.clone()));
        let mut open = JoinSet::new();
        for (door, listener) in DOORS.into_iter().zip(listeners) {
            match door::Listener::new(door, listener) {
                Ok(listener) => {
                    let (jail, pushed) = (Arc::clone(&jail), receiver.clone());
                    match door::kind(door) {
                        Some(kind) => open.spawn(door::keep(listener, (door, kind), jail, pushed)),
                        None => open.spawn(egress::keep(listener, jail, pushed, self.names.subscribe())),
                    };
                }
                Err(error) => tracing::error!(%session, door = door::name(door), %error, "a door does not open"),
            }
        }
        self.jails.insert(session, Doors { pushed: sender, _open: open });
    }

    /// The keeper is gone: the jailer brings the next one.
    fn left(&mut self, error: LinkError) -> Result<(), PorterError> {
        self.keeper = None;
        trusted(Role::Keeper, &error)
    }

    fn pushed(&mut self, pushed: Result<WardenToPorter, LinkError>) -> Result<(), PorterError> {
        match pushed {
            Ok(WardenToPorter::Issued { session, grant }) => {
                self.keep(session, |known| known.issued(grant, door::now()));
            }
            Ok(WardenToPorter::Refused { session, refusal }) => self.keep(session, |known| known.refused(refusal)),
            Ok(WardenToPorter::Egress { session, rules, limits }) => {
                self.keep(session, |known| known.egress = Some(Arc::new(Allowance { rules, limits })));
            }
            Err(error) => {
                // What was issued stays good; the jailer brings the next warden's link.
                self.warden = None;
                trusted(Role::Warden, &error)?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, session: SessionId, change: impl FnOnce(&mut Pushed)) {
        if let Some(doors) = self.jails.get(&session) {
            doors.pushed.send_modify(change);
            return;
        }
        if self.early.len() >= MOST_EARLY && !self.early.contains_key(&session) {
            tracing::warn!(%session, "what the warden says of a jail without doors is dropped: too much waits");
            return;
        }
        let (_, known) = self.early.entry(session).or_insert_with(|| (Instant::now(), Pushed::default()));
        change(known);
    }
}

/// A link that ended is no breach.
fn trusted(role: Role, error: &LinkError) -> Result<(), PorterError> {
    match error {
        LinkError::Breach(what) => Err(Accusation { role, what }.into()),
        LinkError::Closed | LinkError::Socket(_) => Ok(()),
    }
}

fn peer<S: Message, R: Message>(descriptor: Option<OwnedFd>) -> Result<Link<S, R>, PorterError> {
    let descriptor = descriptor.ok_or(PorterError::OutOfPhase)?;
    Link::new(descriptor).map_err(PorterError::Peer)
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;

#[cfg(test)]
mod tests;
