//! The doors: what answers inside the jails' network namespaces, and nothing else does.
//!
//! Knows live sessions' short-lived credentials and who each listener belongs to: the listener IS the identity, there
//! is no look-up by address and no peer credential is asked for. Reads hostile HTTP from the jails. Never knows the
//! bastion's own AWS identity, who may do what, a PTY byte or a recording; never opens a file or executes. It connects
//! only through the egress door, by rules that the warden pushed, and to the clusters that the warden named, and has no
//! network where there are neither. The jailer hands listeners over, the warden pushes credentials, rules and clusters,
//! the keeper is told of refusals, connections and requests, and is given what must be recorded.
//!
//! `answer` is the law of the doors that answer, a pure function; `door` is hyper around it; `metadata`, `container` and
//! `control` are the three kinds. `egress` and `kube` are the doors that let through.

mod answer;
mod container;
mod control;
mod document;
mod door;
mod egress;
mod jail;
mod kube;
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

use crate::audit::Event;
use crate::identity::{Principal, Secret};
use crate::privsep::link::{Link, LinkError};
use crate::privsep::message::{
    FromJailer, JailerToPorter, Message, PortalToPorter, PorterToPortal, Silence, WardenToPorter,
};
use crate::privsep::table::{DOORS, Door};
use crate::privsep::{Accusation, Role};
use crate::session::SessionId;

use egress::Names;
use jail::{Allowance, Jail, Pushed};
use kube::{Asker, Clusters, Grants, Known, Surroundings};
use notice::{KeeperLink, Notices};

pub use egress::Sources;
pub use kube::Rules;

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

/// What every new configuration brings anew.
#[derive(Clone, Debug, Default)]
pub struct Fresh {
    pub sources: Sources,
    pub kube: Rules,
}

/// What the porter begins with, after lock-down.
pub struct Start {
    pub control: Link<Silence, FromJailer<JailerToPorter>>,
    pub settings: Settings,
    pub fresh: Fresh,
    /// Reads what comes with a new configuration.
    pub reload: Box<dyn Fn(Vec<OwnedFd>) -> Option<Fresh> + Send>,
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
        names: watch::Sender::new(Arc::new(Names::new(start.fresh.sources))),
        rules: watch::Sender::new(Arc::new(start.fresh.kube)),
        clusters: watch::Sender::default(),
        reload: start.reload,
        jails: HashMap::new(),
        laptops: Arc::default(),
        visits: JoinSet::new(),
        early: HashMap::new(),
        notices: Notices::begin(),
        warden: None,
        keeper: None,
        portal: None,
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
            came = visitor(porter.portal.as_deref()) => porter.came(came)?,
            Some(_) = porter.visits.join_next() => {}
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

/// The next laptop's connection; without a portal, never.
async fn visitor(portal: Option<&PortalLink>) -> Result<(PortalToPorter, Vec<OwnedFd>), LinkError> {
    match portal {
        Some(link) => link.recv().await,
        None => std::future::pending().await,
    }
}

/// The end of a keeper, which has nothing to say.
async fn silence(keeper: Option<&KeeperLink>) -> LinkError {
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
    rules: watch::Sender<Arc<Rules>>,
    clusters: watch::Sender<Arc<Clusters>>,
    reload: Box<dyn Fn(Vec<OwnedFd>) -> Option<Fresh> + Send>,
    jails: HashMap<SessionId, Doors>,
    laptops: Arc<Grants>,
    /// Laptops' connections; they end with this.
    visits: JoinSet<()>,
    /// Pushes whose doors have not come yet.
    early: HashMap<SessionId, (Instant, Pushed)>,
    notices: Notices,
    warden: Option<Link<Silence, WardenToPorter>>,
    keeper: Option<Arc<KeeperLink>>,
    portal: Option<Arc<PortalLink>>,
}

type PortalLink = Link<PorterToPortal, PortalToPorter>;

/// One jail's doors; dropping them closes listeners and connections.
struct Doors {
    pushed: watch::Sender<Pushed>,
    _open: JoinSet<()>,
}

impl Porter {
    fn told(&mut self, message: FromJailer<JailerToPorter>, mut descriptors: Vec<OwnedFd>) -> Result<(), PorterError> {
        match message {
            FromJailer::Begin => return Err(PorterError::OutOfPhase),
            // The settings are fixed for a porter's life.
            FromJailer::Reload => {
                if let Some(fresh) = (self.reload)(descriptors) {
                    self.names.send_replace(Arc::new(Names::new(fresh.sources)));
                    self.rules.send_replace(Arc::new(fresh.kube));
                }
            }
            FromJailer::Peer(Role::Warden) => {
                self.warden = Some(peer(descriptors.pop())?);
                // A new one knows nothing of a former one's grants, and can neither end them nor tell of their end.
                for (session, user) in self.laptops.end_all() {
                    let (user, reason) = (user.to_string(), "the warden that lent its token ended".into());
                    self.notices.tell_in_the_end(Event::LaptopEnded { session, user, reason });
                }
            }
            FromJailer::Peer(Role::Portal) => self.portal = Some(Arc::new(peer(descriptors.pop())?)),
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
        let jail = Arc::new(Jail::new(session, user.clone(), token, self.settings.clone(), self.notices.clone()));
        let asker = Arc::new(Asker::new(session, user, receiver.clone(), self.surroundings()));
        let mut open = JoinSet::new();
        for (door, listener) in DOORS.into_iter().zip(listeners) {
            match door::Listener::new(door, listener) {
                Ok(listener) => {
                    let (jail, pushed) = (Arc::clone(&jail), receiver.clone());
                    match door::kind(door) {
                        Some(kind) => open.spawn(door::keep(listener, (door, kind), jail, pushed)),
                        None if door == Door::Kube => open.spawn(kube::keep(listener, jail, Arc::clone(&asker))),
                        None => open.spawn(egress::keep(listener, jail, pushed, self.names.subscribe())),
                    };
                }
                Err(error) => tracing::error!(%session, door = door::name(door), %error, "a door does not open"),
            }
        }
        self.jails.insert(session, Doors { pushed: sender, _open: open });
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings {
            clusters: self.clusters.subscribe(),
            names: self.names.subscribe(),
            rules: self.rules.subscribe(),
            notices: self.notices.clone(),
        }
    }

    /// The keeper is gone: the jailer brings the next one.
    fn left(&mut self, error: LinkError) -> Result<(), PorterError> {
        self.keeper = None;
        self.notices.to_nobody();
        trusted(Role::Keeper, &error)
    }

    /// A laptop, or the portal's end: the jailer brings the next one.
    fn came(&mut self, came: Result<(PortalToPorter, Vec<OwnedFd>), LinkError>) -> Result<(), PorterError> {
        let (PortalToPorter::Connection { number, from, http2 }, mut descriptors) = match came {
            Ok(came) => came,
            Err(error) => {
                self.portal = None;
                return trusted(Role::Portal, &error);
            }
        };
        if let Some((socket, portal)) = descriptors.pop().zip(self.portal.clone()) {
            let proved = async move {
                let _ = portal.send(&PorterToPortal::Proved { number }).await;
            };
            let (grants, around) = (Arc::clone(&self.laptops), self.surroundings());
            self.visits.spawn(kube::visit((socket, http2, from), grants, around, proved));
        }
        Ok(())
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
            Ok(WardenToPorter::Cluster(cluster)) => self.clusters.send_modify(|all| {
                let name = cluster.name.clone();
                let known = Known::new(*cluster, all.get(&name).map(Arc::as_ref));
                Arc::make_mut(all).insert(name, Arc::new(known));
            }),
            Ok(WardenToPorter::NoCluster { name }) => self.clusters.send_modify(|all| {
                Arc::make_mut(all).remove(&name);
            }),
            Ok(WardenToPorter::Pass { session, pass }) => {
                self.keep(session, |known| known.kube.pass = Some(Arc::from(pass)));
            }
            Ok(WardenToPorter::ClusterCredentials { session, credentials }) => {
                self.keep(session, |known| known.kube.issued(credentials));
            }
            Ok(WardenToPorter::NoClusterCredentials { session, refusal }) => {
                self.keep(session, |known| known.kube.refusal = Some(Arc::new(refusal)));
            }
            Ok(WardenToPorter::Laptop { session, user, digest, expires }) => {
                let early = self.early.remove(&session).map(|(_, pushed)| pushed);
                self.laptops.grant(session, (user, digest, expires), early);
            }
            Ok(WardenToPorter::LaptopGone { session }) => {
                self.early.remove(&session);
                self.laptops.end(session);
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
        let doors = self.jails.get(&session).map(|doors| doors.pushed.clone());
        if let Some(pushed) = doors.or_else(|| self.laptops.pushed(session)) {
            pushed.send_modify(change);
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
