//! Who a request is on a cluster: the door's word alone, whatever the client says of itself.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::cluster::Known;
use super::route::single;
use super::status::Refusal;
use super::upstream::Upstream;
use crate::audit::KubeUser;
use crate::identity::{Credentials, Principal, eks};
use crate::privsep::message::{Credential, Pass, Way};
use crate::session::SessionId;

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
/// `stockade.dev/session`, encoded as the API server wants a key that is no header's name.
const SESSION: HeaderName = HeaderName::from_static("impersonate-extra-stockade.dev%2fsession");

/// Of all names together.
const LONGEST_WANTED: usize = 4096;

/// A token serves this long; the cluster would take it for longer.
const REUSE: Duration = Duration::from_secs(10 * 60);

/// A token of these credentials.
#[derive(Debug)]
pub struct Minted {
    /// Marked as sensitive: no `Debug` shows it.
    header: HeaderValue,
    access_key_id: String,
    until: Instant,
}

/// Who asks, as far as a cluster hears of it.
pub struct Whom<'a> {
    pub session: SessionId,
    pub user: &'a Principal,
    pub pass: &'a Pass,
    /// For EKS.
    pub credentials: Option<&'a Arc<Credentials>>,
    /// Whom they asked to be.
    pub wanted: Option<&'a KubeUser>,
}

/// Whom a client asks to be with `--as` and `--as-group`.
pub fn wanted(headers: &HeaderMap) -> Result<Option<KubeUser>, Refusal> {
    let name = single(headers, USER.as_str())?;
    let groups = headers.get_all(GROUP).iter().map(|group| group.to_str().map(str::to_owned));
    let groups: Vec<String> =
        groups.collect::<Result<_, _>>().map_err(|_| Refusal::bad("a group to be in is not plain text"))?;
    let other = headers.keys().find(|header| {
        // Some servers take `_` for `-`.
        let is_one = header.as_str().replace('_', "-").starts_with("impersonate-");
        is_one && *header != USER && *header != GROUP
    });
    if let Some(other) = other {
        return Err(Refusal::forbidden(format!("the kube door does not let {other} through; use --as and --as-group")));
    }
    let length: usize = groups.iter().map(String::len).sum::<usize>() + name.map_or(0, str::len);
    if length > LONGEST_WANTED {
        return Err(Refusal::bad("--as and --as-group are too long"));
    }
    match name {
        Some(name) if !name.is_empty() => Ok(Some(KubeUser { name: name.to_owned(), groups })),
        None if groups.is_empty() => Ok(None),
        _ => Err(Refusal::bad("--as-group needs --as")),
    }
}

/// Whether a pass lets its holder be this one here. One rule must allow all of it.
pub fn may_be(pass: &Pass, cluster: &str, wanted: &KubeUser) -> Result<(), Refusal> {
    let mut names = wanted.groups.iter().chain([&wanted.name]);
    let system = names.any(|name| is_system(name));
    let allowed = pass.may_be.iter().any(|rule| {
        rule.clusters.iter().any(|pattern| pattern.matches(cluster))
            && rule.users.iter().any(|pattern| pattern.matches(&wanted.name))
            && wanted.groups.iter().all(|group| rule.groups.iter().any(|pattern| pattern.matches(group)))
    });
    if allowed && !system {
        return Ok(());
    }
    let groups = if wanted.groups.is_empty() { String::new() } else { format!(" in {}", wanted.groups.join(", ")) };
    Err(Refusal::forbidden(format!("no rule of the bastion lets you be {}{groups} on cluster {cluster}", wanted.name)))
}

/// Kubernetes' own users and groups, masters among them.
fn is_system(name: &str) -> bool {
    name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("system:"))
}

/// Writes into a request who makes it.
pub fn sign(
    headers: &mut HeaderMap,
    whom: &Whom<'_>,
    known: &Known,
    upstream: &Upstream,
    now: i64,
) -> Result<(), Refusal> {
    match &known.cluster.way {
        Way::Eks { region, cluster } => {
            let credentials = whom.credentials.ok_or_else(|| Refusal::unavailable("there are no credentials yet"))?;
            headers.insert(AUTHORIZATION, token(upstream, credentials, region, cluster, now)?);
        }
        Way::Shared(credential) => show(headers, credential)?,
        Way::Impersonate(credential) => {
            show(headers, credential)?;
            headers.insert(SESSION, value(&whom.session.to_string())?);
            if whom.wanted.is_none() {
                headers.insert(USER, value(whom.user.as_str())?);
                for group in whom.pass.groups.iter().filter(|group| !is_system(group)) {
                    headers.append(GROUP, value(group)?);
                }
            }
        }
    }
    if let Some(wanted) = whom.wanted {
        headers.insert(USER, value(&wanted.name)?);
        for group in &wanted.groups {
            headers.append(GROUP, value(group)?);
        }
    }
    Ok(())
}

fn show(headers: &mut HeaderMap, credential: &Credential) -> Result<(), Refusal> {
    if let Credential::Token(token) = credential {
        headers.insert(AUTHORIZATION, bearer(token.expose())?);
    }
    Ok(())
}

/// The token of before, as long as it is of these credentials and young.
fn token(
    upstream: &Upstream,
    credentials: &Credentials,
    region: &str,
    cluster: &str,
    now: i64,
) -> Result<HeaderValue, Refusal> {
    let mut minted = upstream.minted.lock().unwrap_or_else(PoisonError::into_inner);
    let is_good = |minted: &&Minted| minted.access_key_id == credentials.access_key_id && Instant::now() < minted.until;
    if let Some(good) = minted.as_ref().filter(is_good) {
        return Ok(good.header.clone());
    }
    let header = bearer(eks::token(credentials, region, cluster, now).expose())?;
    let (access_key_id, until) = (credentials.access_key_id.clone(), Instant::now() + REUSE);
    *minted = Some(Minted { header: header.clone(), access_key_id, until });
    Ok(header)
}

fn bearer(token: &str) -> Result<HeaderValue, Refusal> {
    let mut header = value(&zeroize::Zeroizing::new(format!("Bearer {token}")))?;
    header.set_sensitive(true);
    Ok(header)
}

fn value(text: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| Refusal::unavailable("who you are cannot be said to this cluster"))
}
