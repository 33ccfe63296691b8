use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::audit::Event;
use crate::config::{EgressLimits, EgressRule};
use crate::identity::{Principal, Secret};
use crate::privsep::message::{Grant, Refusal};
use crate::session::SessionId;

use super::Settings;
use super::kube::Said;
use super::notice::{Meter, Notices, Pace};
use super::token::Tokens;

/// The most connections at all doors of a jail together: what one jail does must not be felt in another.
const MOST_CONNECTIONS: usize = 64;

/// The most requests and connections a second before each waits; an SDK needs three an hour.
const MOST_A_SECOND: u32 = 200;

/// Whose doors these are. All processes in a jail are one principal.
#[derive(Debug)]
pub struct Jail {
    pub session: SessionId,
    pub user: Principal,
    pub settings: Settings,
    pub tokens: Tokens,
    token: Secret,
    pub connections: Arc<Semaphore>,
    pace: Pace,
    refusals: Meter,
    limits: Meter,
    egress_refusals: Meter,
    pub notices: Notices,
    pub egress: Arc<Share>,
}

/// A jail's use of the egress door.
#[derive(Debug, Default)]
pub struct Share {
    open: AtomicU32,
    /// Bytes so far, both ways.
    pub used: AtomicU64,
}

/// A connection's place at the egress door.
#[derive(Debug)]
pub struct Entered(Arc<Share>);

impl Share {
    /// A place, unless `most` are taken.
    pub fn enter(self: &Arc<Self>, most: u32) -> Option<Entered> {
        let more = |open: u32| (open < most).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Entered(Arc::clone(self)))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Jail {
    pub fn new(session: SessionId, user: Principal, token: Secret, settings: Settings, notices: Notices) -> Self {
        Self {
            session,
            user,
            settings,
            token,
            tokens: Tokens::default(),
            connections: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
            pace: Pace::default(),
            refusals: Meter::new(10, 6),
            limits: Meter::new(1, 60),
            egress_refusals: Meter::new(10, 6),
            notices,
            egress: Arc::default(),
        }
    }

    /// Whether `Authorization` is this jail's token. An empty token opens nothing.
    pub fn is_token(&self, offered: &[u8]) -> bool {
        let own = self.token.expose().as_bytes();
        !own.is_empty() && bool::from(own.ct_eq(offered))
    }

    /// Counts a request or a connection; whether this jail must wait with it, so that others need not.
    pub fn is_hasty(&self, now: i64) -> bool {
        let hasty = self.pace.is_over(MOST_A_SECOND, now);
        if hasty {
            self.tell_limit("requests a second at this jail's doors", now);
        }
        hasty
    }

    /// Tells the audit of a refused request, at most ten at once and ten a minute.
    pub fn tell_refused(&self, door: &'static str, request: &str, status: u16, now: i64) {
        let Some(unsaid) = self.refusals.pass(now) else { return };
        let mut request: String = request.chars().take(200).collect();
        if unsaid > 0 {
            request.push_str(&format!(" (and {unsaid} more before it)"));
        }
        self.notices.tell(Event::DoorRefused { session: self.session, door: door.to_owned(), request, status });
    }

    /// The same for the egress door; `target` as it was asked for.
    pub fn tell_not_let_through(&self, target: &str, address: Option<String>, reason: &str, now: i64) {
        let Some(unsaid) = self.egress_refusals.pass(now) else { return };
        let mut reason = reason.to_owned();
        if unsaid > 0 {
            reason.push_str(&format!(" (and {unsaid} more before it)"));
        }
        let target = target.chars().take(300).collect();
        let (session, user) = (self.session, self.user.to_string());
        self.notices.tell(Event::EgressRefused { session, user, target, address, reason });
    }

    /// Tells the audit of a limit, once a minute.
    pub fn tell_limit(&self, what: &str, now: i64) {
        let Some(unsaid) = self.limits.pass(now) else { return };
        let what = if unsaid > 0 { format!("{what} (and {unsaid} times before)") } else { what.to_owned() };
        self.notices.tell(Event::LimitHit { session: Some(self.session), what });
    }
}

/// What the warden has said of a session so far.
#[derive(Clone, Debug, Default)]
pub struct Pushed {
    /// The newest credentials; good until they expire, whatever was said after them.
    pub grant: Option<Arc<Grant>>,
    /// When these end by a clock that nobody sets.
    lapse: Option<Instant>,
    /// The newest attempt, where it failed.
    pub refusal: Option<Arc<Refusal>>,
    /// What may be reached outside; nothing before the warden has said so.
    pub egress: Option<Arc<Allowance>>,
    /// Who the session is on clusters.
    pub kube: Said,
}

/// What a session may reach outside, and how much of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Allowance {
    pub rules: Vec<EgressRule>,
    pub limits: EgressLimits,
}

impl Pushed {
    /// `now`: seconds since the epoch, as everywhere here.
    pub fn issued(&mut self, grant: Box<Grant>, now: i64) {
        let left = u64::try_from(grant.credentials.expires.saturating_sub(now)).unwrap_or(0);
        self.lapse = Instant::now().checked_add(Duration::from_secs(left));
        self.grant = Some(Arc::from(grant));
        self.refusal = None;
    }

    pub fn refused(&mut self, refusal: Refusal) {
        self.refusal = Some(Arc::new(refusal));
    }

    /// How the session stands with AWS for an asker who needs credentials with `least` seconds to go.
    pub fn standing(&self, now: i64, least: i64) -> Standing<'_> {
        match (&self.grant, &self.refusal) {
            (Some(grant), _) if self.left(grant, now) >= least => Standing::Good(grant),
            (_, Some(refusal)) if refusal.code == "NoIdentity" => Standing::NoIdentity(refusal),
            (_, Some(refusal)) => Standing::Refused(refusal),
            (Some(_), None) => Standing::Lapsed,
            (None, None) => Standing::Unheard,
        }
    }
}

impl Pushed {
    /// The seconds that credentials live. A clock that was set back makes none live longer: the smaller of both counts.
    fn left(&self, grant: &Grant, now: i64) -> i64 {
        let left = grant.credentials.expires.saturating_sub(now);
        let steady = self.lapse.map(|lapse| lapse.saturating_duration_since(Instant::now()));
        // A second that has begun counts, as it does by the other clock.
        let whole = |steady: Duration| i64::try_from(steady.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        steady.map_or(left, |steady| left.min(whole(steady)))
    }
}

/// See `Pushed::standing`.
#[derive(Debug)]
pub enum Standing<'a> {
    Good(&'a Grant),
    Refused(&'a Refusal),
    /// The bastion gives out no AWS identity, to this user or at all.
    NoIdentity(&'a Refusal),
    /// The credentials ran out and nothing followed.
    Lapsed,
    /// The warden has said nothing yet.
    Unheard,
}
