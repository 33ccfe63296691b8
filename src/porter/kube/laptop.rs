//! Laptops: connections whose TLS the portal ended. No listener says who asks, so a token in each request does; the first
//! that is good binds the connection to its grant.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net as unix;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::StatusCode;
use hyper::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep};

use super::super::door::now;
use super::super::jail::Pushed;
use super::super::notice::Meter;
use super::asker::{Asker, Guard, Surroundings, refusals};
use super::status::Refusal;
use super::{MOST_REQUESTS, Who, converse};
use crate::identity::Principal;
use crate::session::SessionId;

/// At one time, of one grant.
const MOST_CONNECTIONS: usize = 64;

/// What the warden granted.
#[derive(Debug, Default)]
pub struct Grants(Mutex<HashMap<SessionId, Grant>>);

#[derive(Debug)]
struct Grant {
    user: Principal,
    /// SHA-256 of the token.
    digest: [u8; 32],
    /// Seconds since the epoch.
    expires: i64,
    /// The same by a clock that nobody sets.
    lapse: Instant,
    pushed: watch::Sender<Pushed>,
    places: Arc<Semaphore>,
    /// Of requests, on all connections together.
    requests: Arc<Semaphore>,
    /// Of refusals that are told: who connects anew has no new one.
    refusals: Arc<Meter>,
}

/// A grant as a connection finds it.
struct Found {
    session: SessionId,
    user: Principal,
    pushed: watch::Receiver<Pushed>,
    places: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    refusals: Arc<Meter>,
}

impl Grant {
    fn left(&self) -> Duration {
        let seconds = u64::try_from(self.expires.saturating_sub(now())).unwrap_or(0);
        self.lapse.saturating_duration_since(Instant::now()).min(Duration::from_secs(seconds))
    }
}

impl Grants {
    /// A new grant, or a new token for one. `early`: what was said of it before.
    pub fn grant(
        &self,
        session: SessionId,
        (user, digest, expires): (Principal, [u8; 32], i64),
        early: Option<Pushed>,
    ) {
        let left = u64::try_from(expires.saturating_sub(now())).unwrap_or(0);
        let lapse = Instant::now() + Duration::from_secs(left.min(10 * 365 * 86400));
        let mut all = self.all();
        match all.get_mut(&session) {
            Some(known) => (known.digest, known.expires, known.lapse) = (digest, expires, lapse),
            None => {
                let (pushed, _) = watch::channel(early.unwrap_or_default());
                let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
                let requests = Arc::new(Semaphore::new(MOST_REQUESTS));
                let refusals = Arc::new(refusals());
                all.insert(session, Grant { user, digest, expires, lapse, pushed, places, requests, refusals });
            }
        }
    }

    /// Its connections end with what they wait for.
    pub fn end(&self, session: SessionId) {
        self.all().remove(&session);
    }

    /// Whose they were.
    pub fn end_all(&self) -> Vec<(SessionId, Principal)> {
        self.all().drain().map(|(session, grant)| (session, grant.user)).collect()
    }

    /// What the warden says of a grant.
    pub fn pushed(&self, session: SessionId) -> Option<watch::Sender<Pushed>> {
        self.all().get(&session).map(|grant| grant.pushed.clone())
    }

    fn left(&self, session: SessionId) -> Duration {
        self.all().get(&session).map_or(Duration::ZERO, Grant::left)
    }

    fn find(&self, token: &[u8]) -> Option<Found> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let all = self.all();
        let (session, grant) = all.iter().find(|(_, grant)| bool::from(grant.digest.ct_eq(&digest)))?;
        let alive = !grant.left().is_zero();
        alive.then(|| Found {
            session: *session,
            user: grant.user.clone(),
            pushed: grant.pushed.subscribe(),
            places: Arc::clone(&grant.places),
            requests: Arc::clone(&grant.requests),
            refusals: Arc::clone(&grant.refusals),
        })
    }

    fn all(&self) -> MutexGuard<'_, HashMap<SessionId, Grant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody at the public door.
pub struct Visitor {
    grants: Arc<Grants>,
    around: Surroundings,
    /// Address and port.
    from: String,
    bound: watch::Sender<Option<Bound>>,
    /// True when the connection is over.
    pub end: watch::Sender<bool>,
}

#[derive(Clone, Debug)]
struct Bound {
    asker: Arc<Asker>,
    _place: Arc<OwnedSemaphorePermit>,
}

impl Visitor {
    /// Who asks, by this request's token. Whatever is wrong with it, the answer is one.
    pub fn asker(&self, headers: &HeaderMap) -> Result<Arc<Asker>, Refusal> {
        let found = bearer(headers).and_then(|token| self.grants.find(token));
        let Found { session, user, pushed, places, requests, refusals } = found.ok_or_else(unknown)?;
        if self.bound.borrow().is_none() {
            let place = places.try_acquire_owned();
            let place = place.map_err(|_| {
                Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many connections with this token at once")
            })?;
            let mut asker = Asker::new(session, user, pushed, self.around.clone());
            asker.source = Some(self.from.clone());
            (asker.places, asker.refusals) = (requests, refusals);
            let bound = Bound { asker: Arc::new(asker), _place: Arc::new(place) };
            // Two requests at once: the first of them binds.
            self.bound.send_if_modified(|known| {
                let first = known.is_none();
                known.get_or_insert(bound);
                first
            });
        }
        self.known().filter(|asker| asker.session == session).ok_or_else(unknown)
    }

    pub fn known(&self) -> Option<Arc<Asker>> {
        self.bound.borrow().as_ref().map(|bound| Arc::clone(&bound.asker))
    }
}

fn unknown() -> Refusal {
    let sentence = "no token that is good: `ssh BASTION stockade token CLUSTER` gives one to whoever may log in";
    Refusal::new(StatusCode::UNAUTHORIZED, sentence)
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    (values.next().is_none() && scheme.eq_ignore_ascii_case(b"bearer ")).then_some(token)
}

/// Serves a connection until it ends, or its grant does. `proved` runs when it is bound to one.
pub async fn visit<Proved: Future<Output = ()>>(
    (socket, is_http2, from): (OwnedFd, bool, String),
    grants: Arc<Grants>,
    around: Surroundings,
    proved: Proved,
) {
    let socket = unix::UnixStream::from(socket);
    let Ok(stream) = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket)) else { return };
    let names = around.rules.borrow().public.clone();
    let (bound, end) = (watch::Sender::new(None), watch::Sender::new(false));
    let mut binding = bound.subscribe();
    let who = Arc::new(Who::Laptop(Visitor { grants: Arc::clone(&grants), around, from, bound, end }));
    let granted = async {
        let Ok(bound) = binding.wait_for(Option::is_some).await.map(|bound| bound.clone()) else { return };
        let Some(Bound { asker, .. }) = bound else { return };
        let _guard = Guard(Arc::clone(&asker));
        proved.await;
        tokio::select! {
            () = asker.tend() => {}
            () = lapse(&grants, asker.session) => {}
        }
    };
    tokio::select! {
        () = converse(stream, Arc::clone(&who), names, is_http2) => {}
        () = granted => {}
    }
    who.end().send_replace(true);
}

/// The end of a grant's last token.
async fn lapse(grants: &Grants, session: SessionId) {
    loop {
        match grants.left(session) {
            Duration::ZERO => return,
            left => sleep(left).await,
        }
    }
}
