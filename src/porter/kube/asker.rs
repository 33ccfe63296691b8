//! Who asks: a session, what the warden has said of it, and its own connections to clusters.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::{Method, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use super::super::door::now;
use super::super::egress::Names;
use super::super::jail::Pushed;
use super::super::notice::{Meter, Notices};
use super::cluster::{Clusters, Known};
use super::status::Refusal;
use super::upstream::Upstream;
use super::{MOST_REQUESTS, Rules};
use crate::audit::{Event, KubeRecord};
use crate::identity::{Credentials, Principal};
use crate::privsep::message::{Cluster, FIRST_STREAM, Number, Pass, Refusal as NoCredentials, Way};
use crate::session::SessionId;

/// How long a request waits for the warden's first word: STS may be asked for it, and kubectl is patient.
pub const PATIENCE: Duration = Duration::from_secs(9);

/// Credentials that end sooner are as good as none: a token outlives the request it is made for.
const LEAST: i64 = 10;

/// What the warden has said of who a session is on clusters.
#[derive(Clone, Debug, Default)]
pub struct Said {
    pub pass: Option<Arc<Pass>>,
    /// The newest; good until they expire, whatever was said after them.
    pub credentials: Option<Arc<Credentials>>,
    /// The newest attempt to get some, where it failed.
    pub refusal: Option<Arc<NoCredentials>>,
}

impl Said {
    pub fn issued(&mut self, credentials: Credentials) {
        self.credentials = Some(Arc::new(credentials));
        self.refusal = None;
    }

    fn good(&self, now: i64) -> Option<&Arc<Credentials>> {
        self.credentials.as_ref().filter(|credentials| credentials.expires.saturating_sub(now) >= LEAST)
    }
}

/// What all askers see alike.
#[derive(Clone, Debug)]
pub struct Surroundings {
    pub clusters: watch::Receiver<Arc<Clusters>>,
    pub names: watch::Receiver<Arc<Names>>,
    pub rules: watch::Receiver<Arc<Rules>>,
    pub notices: Notices,
}

#[derive(Debug)]
pub struct Asker {
    pub session: SessionId,
    pub user: Principal,
    /// Where from; a jail is nowhere else.
    pub source: Option<String>,
    pushed: watch::Receiver<Pushed>,
    pub around: Surroundings,
    /// By the cluster's name.
    ways: Mutex<HashMap<String, Open>>,
    pub connections: Arc<Semaphore>,
    /// Of requests at a time.
    pub places: Arc<Semaphore>,
    /// True when the session is over.
    pub end: watch::Sender<bool>,
    /// Of those that are told; of all its connections.
    pub refusals: Arc<Meter>,
    streams: AtomicU32,
}

/// Connections to a cluster.
#[derive(Debug)]
struct Open {
    upstream: Arc<Upstream>,
    /// What could be said over them of who asks: the newest, which has all that was in those before it.
    pass: Arc<Pass>,
}

/// A stream goes on as whom it began, for an API server looks at nothing again: what was said of them must still hold.
fn loses_nothing(cluster: &Cluster, was: &Pass, is: &Pass) -> bool {
    let named = matches!(cluster.way, Way::Impersonate(_));
    let mut others = was.may_be.iter().filter(|rule| rule.clusters.iter().any(|name| name.matches(&cluster.name)));
    (!named || was.groups.iter().all(|group| is.groups.contains(group))) && others.all(|rule| is.may_be.contains(rule))
}

/// Ends all that an asker began, also what is held elsewhere.
pub struct Guard(pub Arc<Asker>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.end.send_replace(true);
        let mut ways = self.0.ways.lock().unwrap_or_else(PoisonError::into_inner);
        ways.drain().for_each(|(_, way)| way.upstream.end());
    }
}

/// A request may go to this cluster, this way.
pub struct Admission {
    pub known: Arc<Known>,
    pub upstream: Arc<Upstream>,
    pub pass: Arc<Pass>,
    pub credentials: Option<Arc<Credentials>>,
    pub place: OwnedSemaphorePermit,
}

impl Admission {
    /// The cluster's 401.
    pub fn unknown(&self) -> Refusal {
        let name = &self.known.cluster.name;
        let why = match self.known.cluster.way {
            Way::Eks { .. } => "your role has no access entry there, or your session's credentials were revoked",
            Way::Impersonate(_) | Way::Shared(_) => "the credential that the bastion has for it is not good any more",
        };
        Refusal::new(StatusCode::UNAUTHORIZED, format!("cluster {name} does not know you: {why}"))
    }
}

impl Asker {
    pub fn new(session: SessionId, user: Principal, pushed: watch::Receiver<Pushed>, around: Surroundings) -> Self {
        Self {
            session,
            user,
            source: None,
            pushed,
            around,
            ways: Mutex::default(),
            connections: Arc::new(Semaphore::new(MOST_REQUESTS)),
            places: Arc::new(Semaphore::new(MOST_REQUESTS)),
            end: watch::Sender::new(false),
            refusals: Arc::new(refusals()),
            streams: AtomicU32::new(FIRST_STREAM),
        }
    }

    /// A number for a stream that the keeper holds.
    pub fn number(&self) -> Number {
        self.streams.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits for what the warden has not said yet, but not for ever.
    pub async fn admit(&self, name: &str) -> Result<Admission, Refusal> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place =
            place.map_err(|_| Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many requests of yours at once"))?;
        let until = Instant::now() + PATIENCE;
        let mut pushed = self.pushed.clone();
        let pass = timeout_at(until, pushed.wait_for(|known| known.kube.pass.is_some())).await;
        let pass = pass.ok().and_then(Result::ok).and_then(|known| known.kube.pass.clone());
        let pass = pass.ok_or_else(|| Refusal::unavailable("your clusters are not known yet, try again"))?;
        // Clusters that are not there and those of others get one answer, at once.
        if !pass.clusters.iter().any(|own| own == name) {
            return Err(nowhere(name));
        }
        let mut clusters = self.around.clusters.clone();
        let known = timeout_at(until, clusters.wait_for(|all| all.contains_key(name))).await;
        let known = known.ok().and_then(Result::ok).and_then(|all| all.get(name).cloned());
        let known =
            known.ok_or_else(|| Refusal::unavailable(format!("cluster {name} cannot be found now, try again")))?;
        let credentials = match &known.cluster.way {
            Way::Eks { .. } => Some(self.credentials(until).await?),
            Way::Impersonate(_) | Way::Shared(_) => None,
        };
        let (upstream, pass) = self.upstream(name, &known)?;
        Ok(Admission { known, upstream, pass, credentials, place })
    }

    async fn credentials(&self, until: Instant) -> Result<Arc<Credentials>, Refusal> {
        let mut pushed = self.pushed.clone();
        let said = pushed.wait_for(|known| known.kube.good(now()).is_some() || known.kube.refusal.is_some());
        let said = timeout_at(until, said).await.ok().and_then(Result::ok).map(|known| known.kube.clone());
        let Some(said) = said else {
            return Err(Refusal::unavailable("your credentials for clusters are not there yet, try again"));
        };
        match (said.good(now()), &said.refusal) {
            (Some(credentials), _) => Ok(Arc::clone(credentials)),
            (None, Some(no)) => Err(Refusal::unavailable(format!(
                "AWS gives you no credentials for clusters: {}: {}",
                no.code, no.message
            ))),
            (None, None) => Err(Refusal::unavailable("your credentials for clusters ran out, try again")),
        }
    }

    /// This session's own connections to a cluster, and what may be said over them of who asks.
    fn upstream(&self, name: &str, known: &Known) -> Result<(Arc<Upstream>, Arc<Pass>), Refusal> {
        let line = known.line.as_ref().map_err(|reason| Refusal::unavailable(reason.clone()))?;
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        // What was allowed a moment ago may be gone; `tidy` comes under this lock before or after.
        let standing = self.standing(name, line).filter(|_| !*self.end.borrow());
        let (known, pass) = standing.ok_or_else(|| nowhere(name))?;
        if let Some(there) = ways.get_mut(name).filter(|there| Arc::ptr_eq(&there.upstream.line, line))
            && loses_nothing(&known.cluster, &there.pass, &pass)
        {
            there.pass = Arc::clone(&pass);
            return Ok((Arc::clone(&there.upstream), pass));
        }
        let within = self.around.rules.borrow().clocks.connect;
        let upstream = Arc::new(Upstream::new(Arc::clone(line), self.around.names.clone(), within));
        let made = Open { upstream: Arc::clone(&upstream), pass: Arc::clone(&pass) };
        if let Some(former) = ways.insert(name.to_owned(), made) {
            former.upstream.end();
        }
        Ok((upstream, pass))
    }

    /// The cluster of this line and the pass in force, if that opens it.
    fn standing(&self, name: &str, line: &Arc<super::cluster::Line>) -> Option<(Arc<Known>, Arc<Pass>)> {
        let pass = self.pushed.borrow().kube.pass.clone()?;
        let known = self.around.clusters.borrow().get(name).cloned()?;
        let same = known.line.as_ref().is_ok_and(|own| Arc::ptr_eq(own, line));
        (same && pass.clusters.iter().any(|own| own == name)).then_some((known, pass))
    }

    /// Ends connections to clusters that are gone, moved, no longer this session's, or that know it by what it has lost.
    /// Comes back only with the session.
    pub async fn tend(&self) {
        let (mut pushed, mut clusters) = (self.pushed.clone(), self.around.clusters.clone());
        loop {
            let changed = tokio::select! {
                changed = pushed.changed() => changed,
                changed = clusters.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            self.tidy();
        }
    }

    fn tidy(&self) {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        ways.retain(|name, way| {
            let standing = self.standing(name, &way.upstream.line);
            let stays = standing.filter(|(known, pass)| loses_nothing(&known.cluster, &way.pass, pass));
            match stays {
                Some((_, pass)) => {
                    way.pass = pass;
                    true
                }
                None => {
                    way.upstream.end();
                    false
                }
            }
        });
    }

    pub fn event(&self, record: Box<KubeRecord>) -> Event {
        Event::KubeRequest { session: self.session, user: self.user.to_string(), record }
    }

    /// Tells the audit of a request that the door refused, as far as the meter lets it.
    pub fn tell_refused(&self, method: &Method, path: &str, refusal: &Refusal) {
        let Some(unsaid) = self.refusals.pass(now()) else { return };
        let mut reason = refusal.message.clone();
        if unsaid > 0 {
            reason.push_str(&format!(" (and {unsaid} more before it)"));
        }
        let cluster = path.strip_prefix("/clusters/").and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let cut = |text: &str| text.chars().take(300).collect::<String>();
        self.around.notices.tell(Event::KubeRefused {
            session: self.session,
            user: self.user.to_string(),
            cluster: cut(cluster),
            request: cut(&format!("{method} {path}")),
            status: refusal.status.as_u16(),
            reason: cut(&reason),
        });
    }
}

/// Ten at once and ten a minute are told.
pub fn refusals() -> Meter {
    Meter::new(10, 6)
}

/// Of a 404 to its first questions kubectl would make "no such resource type".
fn nowhere(name: &str) -> Refusal {
    Refusal::forbidden(format!("no cluster {name} is here for you; `stockade clusters` lists yours"))
}
