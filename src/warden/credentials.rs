//! Every live session's AWS credentials: asked for at login, renewed in time, pushed to the porter, forgotten at the end.
//!
//! One task per session holds that session's credentials and nobody else's, so one request at a time is in flight for
//! a (user, role, session, policy). An issue is on its way to the audit before it is on its way to the porter.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::authority::{AssumeRequest, Authority};
use crate::audit::Event;
use crate::identity::Principal;
use crate::privsep::message::{Grant, Refusal, WardenToPorter};
use crate::session::SessionId;

/// The metadata door serves nothing with less than 25 minutes left (SDKs stretch what they hold), so this leaves it
/// five minutes of failing renewals before anybody notices.
const RENEW_AT: Duration = Duration::from_secs(30 * 60);
/// As `porter::metadata` has it.
const LEAST: Duration = Duration::from_secs(25 * 60);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A refusal is somebody's decision: it is asked about again because somebody may decide anew.
const REFUSED_PAUSE: Duration = Duration::from_secs(5 * 60);
/// Requests to STS at one time: a new warden finds a thousand sessions, and STS throttles the whole account.
const IN_FLIGHT: usize = 16;

/// Who makes credentials: `Authority`, or a test's script.
pub trait Sts: Send + Sync + 'static {
    fn assume(&self, request: &AssumeRequest) -> impl Future<Output = Result<Grant, Refusal>> + Send;
}

impl Sts for Authority {
    async fn assume(&self, request: &AssumeRequest) -> Result<Grant, Refusal> {
        Authority::assume(self, request).await
    }
}

/// What the configuration says about credentials.
#[derive(Clone, Debug)]
pub struct Terms {
    /// With `{user}` in it.
    pub role: String,
    pub tags: Vec<(String, String)>,
    pub policy: Option<String>,
    pub duration: Duration,
}

impl Terms {
    fn request(&self, session: SessionId, principal: &Principal) -> AssumeRequest {
        AssumeRequest {
            principal: principal.clone(),
            session,
            role_arn: self.role.replace("{user}", principal.as_str()),
            tags: self.tags.clone(),
            policy: self.policy.clone(),
            duration: self.duration,
        }
    }
}

/// What credentials are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The jail's metadata door.
    Jail,
    /// Tokens for clusters, signed in the porter: the keys enter no jail.
    Clusters,
}

/// Issues, renews and ends.
pub struct Issuer<S> {
    office: Arc<Office<S>>,
    terms: Mutex<Terms>,
    live: Mutex<HashMap<SessionId, Live>>,
}

struct Live {
    task: AbortHandle,
    again: Arc<Notify>,
    /// A jail's credentials serve clusters too.
    both: Arc<AtomicBool>,
}

/// What all sessions' tasks share.
struct Office<S> {
    sts: S,
    purpose: Purpose,
    turns: Semaphore,
    porter: mpsc::Sender<WardenToPorter>,
    audit: mpsc::Sender<Event>,
}

impl<S: Sts> Issuer<S> {
    pub fn new(
        sts: S,
        purpose: Purpose,
        terms: Terms,
        porter: mpsc::Sender<WardenToPorter>,
        audit: mpsc::Sender<Event>,
    ) -> Self {
        let office = Office { sts, purpose, turns: Semaphore::new(IN_FLIGHT), porter, audit };
        Self { office: Arc::new(office), terms: Mutex::new(terms), live: Mutex::default() }
    }

    /// For sessions that begin from now on.
    pub fn set_terms(&self, terms: Terms) {
        *lock(&self.terms) = terms;
    }

    /// Asks at once, so that the first call in the jail need not wait. A session begins once: `false` if it had begun.
    pub fn begin(&self, session: SessionId, principal: &Principal) -> bool {
        let mut live = lock(&self.live);
        if live.contains_key(&session) {
            return false;
        }
        let request = lock(&self.terms).request(session, principal);
        let again = Arc::new(Notify::new());
        let both = Arc::new(AtomicBool::new(false));
        let keep = Keep::new(request, Arc::clone(&self.office), Arc::clone(&again), Arc::clone(&both));
        let task = tokio::spawn(keep.run()).abort_handle();
        live.insert(session, Live { task, again, both });
        true
    }

    /// Whether a jail's credentials are to serve clusters too: one issue for both uses. `false` if it has none.
    pub fn serve_clusters(&self, session: SessionId, wanted: bool) -> bool {
        let live = lock(&self.live);
        let Some(live) = live.get(&session) else { return false };
        if live.both.swap(wanted, Ordering::Relaxed) != wanted && wanted {
            live.again.notify_one();
        }
        true
    }

    /// Nothing is renewed and nothing is sent any more.
    pub fn end(&self, session: SessionId) {
        if let Some(live) = lock(&self.live).remove(&session) {
            live.task.abort();
        }
    }

    /// A new porter knows nothing: every session's newest credentials go to it again.
    pub fn resend_all(&self) {
        lock(&self.live).values().for_each(|live| live.again.notify_one());
    }
}

impl<S> Drop for Issuer<S> {
    fn drop(&mut self) {
        lock(&self.live).values().for_each(|live| live.task.abort());
    }
}

/// Keeps one session in credentials.
struct Keep<S> {
    request: AssumeRequest,
    office: Arc<Office<S>>,
    again: Arc<Notify>,
    both: Arc<AtomicBool>,
    grant: Option<Grant>,
    refusal: Option<Refusal>,
    failures: u32,
}

/// The porter or the audit is gone for good: the warden is ending.
struct Closed;

impl<S: Sts> Keep<S> {
    fn new(request: AssumeRequest, office: Arc<Office<S>>, again: Arc<Notify>, both: Arc<AtomicBool>) -> Self {
        Self { request, office, again, both, grant: None, refusal: None, failures: 0 }
    }

    async fn run(mut self) {
        loop {
            let Ok(pause) = self.ask().await else { return };
            let next = Instant::now() + pause;
            loop {
                tokio::select! {
                    () = sleep_until(next) => break,
                    () = self.again.notified() => if self.resend().await.is_err() { return },
                }
            }
        }
    }

    /// One attempt, told to audit and porter. Returns how long to wait for the next.
    async fn ask(&mut self) -> Result<Duration, Closed> {
        let answer = {
            let _turn = self.office.turns.acquire().await.map_err(|_| Closed)?;
            self.office.sts.assume(&self.request).await
        };
        match answer {
            Ok(grant) => self.issued(grant).await,
            Err(refusal) => self.refused(refusal).await,
        }
    }

    async fn issued(&mut self, grant: Grant) -> Result<Duration, Closed> {
        // They live no longer than was asked for, whatever this machine's clock says.
        let pause = renewal(remaining(grant.credentials.expires).min(self.request.duration));
        self.audit(Event::CredentialIssued {
            session: self.request.session,
            user: self.request.principal.to_string(),
            role: self.request.role_arn.clone(),
            access_key_id: grant.credentials.access_key_id.clone(),
            expires: grant.credentials.expires,
        })
        .await?;
        (self.failures, self.refusal, self.grant) = (0, None, Some(grant.clone()));
        self.push_grant(grant).await?;
        Ok(pause)
    }

    async fn refused(&mut self, refusal: Refusal) -> Result<Duration, Closed> {
        let pause = if refusal.transient { back_off(self.failures) } else { jittered(REFUSED_PAUSE) };
        self.failures = self.failures.saturating_add(1);
        tracing::warn!(
            session.id = %self.request.session, principal = %self.request.principal, code = refusal.code,
            again_in = pause.as_secs(), "no AWS credentials: {}", refusal.message
        );
        let last = self.refusal.replace(refusal.clone());
        // An outage of hours is one line in the audit, not one for each try.
        if last.as_ref().is_none_or(|last| last.code != refusal.code) {
            self.audit(Event::CredentialRefused {
                session: self.request.session,
                user: self.request.principal.to_string(),
                role: self.request.role_arn.clone(),
                code: refusal.code.clone(),
                message: refusal.message.clone(),
            })
            .await?;
        }
        if last.is_none_or(|last| (last.code, last.message) != (refusal.code.clone(), refusal.message.clone())) {
            self.push_refusal(refusal).await?;
        }
        Ok(pause)
    }

    async fn resend(&self) -> Result<(), Closed> {
        if let Some(grant) = self.grant.clone() {
            self.push_grant(grant).await?;
        }
        if let Some(refusal) = self.refusal.clone() {
            self.push_refusal(refusal).await?;
        }
        Ok(())
    }

    fn serves(&self, purpose: Purpose) -> bool {
        self.office.purpose == purpose || (purpose == Purpose::Clusters && self.both.load(Ordering::Relaxed))
    }

    async fn push_grant(&self, grant: Grant) -> Result<(), Closed> {
        let session = self.request.session;
        if self.serves(Purpose::Clusters) {
            let credentials = grant.credentials.clone();
            self.push(WardenToPorter::ClusterCredentials { session, credentials }).await?;
        }
        if self.serves(Purpose::Jail) {
            self.push(WardenToPorter::Issued { session, grant: Box::new(grant) }).await?;
        }
        Ok(())
    }

    async fn push_refusal(&self, refusal: Refusal) -> Result<(), Closed> {
        let session = self.request.session;
        if self.serves(Purpose::Clusters) {
            self.push(WardenToPorter::NoClusterCredentials { session, refusal: refusal.clone() }).await?;
        }
        if self.serves(Purpose::Jail) {
            self.push(WardenToPorter::Refused { session, refusal }).await?;
        }
        Ok(())
    }

    async fn push(&self, message: WardenToPorter) -> Result<(), Closed> {
        self.office.porter.send(message).await.map_err(|_| Closed)
    }

    async fn audit(&self, event: Event) -> Result<(), Closed> {
        self.office.audit.send(event).await.map_err(|_| Closed)
    }
}

/// When to renew what lives this long: at 30 minutes left. What lives hardly longer is renewed while the metadata door
/// still serves it, what that door never serves half-way.
fn renewal(remaining: Duration) -> Duration {
    let pause = match remaining.checked_sub(LEAST) {
        Some(served) if !served.is_zero() => remaining.saturating_sub(RENEW_AT).max(served / 2),
        _ => remaining / 2,
    };
    // Never at once: an answer that is already old would otherwise be asked for without end.
    pause.max(LONGEST_PAUSE)
}

fn back_off(failures: u32) -> Duration {
    jittered(FIRST_PAUSE.saturating_mul(2u32.saturating_pow(failures.min(16))).min(LONGEST_PAUSE))
}

/// Between half of it and all of it: sessions that failed together must not ask together again.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let half = pause / 2;
    let spread = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
    half + Duration::from_millis(RandomState::new().build_hasher().finish() % spread)
}

fn remaining(expires: i64) -> Duration {
    let expires = UNIX_EPOCH + Duration::from_secs(u64::try_from(expires).unwrap_or_default());
    expires.duration_since(SystemTime::now()).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
