//! Whether a jail may go where it wants to, and the connection outside if it may. However it asked: one law.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::door::PATIENCE;
use super::super::jail::{Allowance, Pushed};
use super::{Passage, Place};
use crate::config::EgressRule;
use crate::policy::egress::{Host, Target, matching, reaches, wants_tls};

/// For one address, and for all of them.
const CONNECT: Duration = Duration::from_secs(6);
const CONNECT_ALL: Duration = Duration::from_secs(20);

/// A wish that does not go through.
#[derive(Debug)]
pub struct Refusal {
    pub why: Why,
    /// For the user, where the protocol has words for it, and for the audit.
    pub reason: String,
    pub address: Option<IpAddr>,
}

/// What each protocol has a number for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It names no host and port.
    Unclear,
    /// Another verb than CONNECT.
    Verb,
    Denied,
    /// The warden has not said what is allowed.
    NotYet,
    /// The name has no address.
    Missing,
    /// Nobody answers there.
    Unreached,
}

impl Refusal {
    pub fn new(why: Why, reason: impl Into<String>) -> Self {
        Self { why, reason: reason.into(), address: None }
    }
}

pub async fn admit(target: Target, place: &Place) -> Result<Passage, Refusal> {
    let allowance = allowance(place).await?;
    let rules = matching(&allowance.rules, &target);
    if rules.is_empty() {
        return Err(Refusal::new(Why::Denied, format!("no rule lets you through to {target}")));
    }
    if place.jail.egress.used.load(Ordering::Relaxed) >= allowance.limits.bytes {
        return Err(Refusal::new(Why::Denied, "this session has used up its share of bytes"));
    }
    let found = match &target.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => {
            let names = Arc::clone(&place.names.borrow());
            names.find(name).await
        }
    };
    let open = open(&rules, &target, &found)?;
    let (outside, address, tls) = dial(&target, &open).await?;
    Ok(Passage { target, address, tls, outside, allowance: Arc::clone(&allowance) })
}

/// What the warden has said, or will say in a moment.
async fn allowance(place: &Place) -> Result<Arc<Allowance>, Refusal> {
    let mut pushed = place.pushed.clone();
    let said = timeout(PATIENCE, pushed.wait_for(|known: &Pushed| known.egress.is_some())).await;
    let known = said.ok().and_then(Result::ok).and_then(|known| known.egress.clone());
    known.ok_or_else(|| Refusal::new(Why::NotYet, "your rules are not known yet, try again"))
}

/// Of the addresses found those that a rule reaches, and whether TLS must name the host there.
fn open(rules: &[&EgressRule], target: &Target, found: &[IpAddr]) -> Result<Vec<(IpAddr, bool)>, Refusal> {
    let (mut open, mut refusal) = (Vec::new(), None);
    for address in found {
        let reaching: Vec<_> = rules.iter().filter(|rule| reaches(rule, *address).is_ok()).collect();
        if !reaching.is_empty() {
            open.push((*address, reaching.iter().all(|rule| wants_tls(rule, target))));
        } else if let Some(Err(why)) = rules.first().map(|rule| reaches(rule, *address)) {
            let reason = format!("{target} leads to {address}: {why}");
            refusal.get_or_insert(Refusal { why: Why::Denied, reason, address: Some(*address) });
        }
    }
    if !open.is_empty() {
        return Ok(open);
    }
    Err(refusal.unwrap_or_else(|| Refusal::new(Why::Missing, format!("{target} has no address"))))
}

/// The very addresses that were checked, in their order.
async fn dial(target: &Target, open: &[(IpAddr, bool)]) -> Result<(TcpStream, SocketAddr, bool), Refusal> {
    let tried = async {
        for (address, tls) in open {
            let at = SocketAddr::new(*address, target.port);
            if let Ok(Ok(stream)) = timeout(CONNECT, TcpStream::connect(at)).await {
                let _ = stream.set_nodelay(true);
                return Some((stream, at, *tls));
            }
        }
        None
    };
    let unreached = || {
        let address = open.first().map(|(address, _)| *address);
        Refusal { why: Why::Unreached, reason: format!("{target} does not answer"), address }
    };
    timeout(CONNECT_ALL, tried).await.ok().flatten().ok_or_else(unreached)
}

/// Whether rules that may be newer than the connection allow it.
pub fn still_allowed(said: &Allowance, target: &Target, address: IpAddr, tls: bool) -> bool {
    matching(&said.rules, target).iter().any(|rule| reaches(rule, address).is_ok() && (tls || !wants_tls(rule, target)))
}
