//! Whether a CONNECT may go through, and the connection outside if it may.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
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

/// A CONNECT that does not go through.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    /// For the user and for the audit.
    pub reason: String,
    pub address: Option<IpAddr>,
}

impl Refusal {
    fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), address: None }
    }
}

pub async fn admit(request: &Request<Incoming>, place: &Place) -> Result<Passage, Refusal> {
    if *request.method() != Method::CONNECT {
        let reason = "this door takes CONNECT only; use https, plain HTTP is not let out";
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, reason));
    }
    let target = request.uri().authority().map(|authority| authority.as_str().parse::<Target>());
    let target = match target {
        Some(Ok(target)) => target,
        Some(Err(error)) => return Err(Refusal::new(StatusCode::BAD_REQUEST, error.to_string())),
        None => return Err(Refusal::new(StatusCode::BAD_REQUEST, "CONNECT names no host")),
    };
    let allowance = allowance(place).await?;
    let rules = matching(&allowance.rules, &target);
    if rules.is_empty() {
        return Err(Refusal::new(StatusCode::FORBIDDEN, format!("no rule lets you through to {target}")));
    }
    if place.jail.egress.used.load(Ordering::Relaxed) >= allowance.limits.bytes {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "this session has used up its share of bytes"));
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
    known.ok_or_else(|| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "your rules are not known yet, try again"))
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
            refusal.get_or_insert(Refusal { status: StatusCode::FORBIDDEN, reason, address: Some(*address) });
        }
    }
    if !open.is_empty() {
        return Ok(open);
    }
    Err(refusal.unwrap_or_else(|| Refusal::new(StatusCode::BAD_GATEWAY, format!("{target} has no address"))))
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
        Refusal { status: StatusCode::BAD_GATEWAY, reason: format!("{target} does not answer"), address }
    };
    timeout(CONNECT_ALL, tried).await.ok().flatten().ok_or_else(unreached)
}

/// Whether rules that may be newer than the connection allow it.
pub fn still_allowed(said: &Allowance, target: &Target, address: IpAddr, tls: bool) -> bool {
    matching(&said.rules, target).iter().any(|rule| reaches(rule, address).is_ok() && (tls || !wants_tls(rule, target)))
}
