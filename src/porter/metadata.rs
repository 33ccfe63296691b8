//! 169.254.169.254 and fd00:ec2::254: the instance metadata service, version 2.

use std::borrow::Cow;

use hyper::{Method, StatusCode};

use super::answer::{Answer, Ask, Kind, Reply, reason};
use super::document;
use super::jail::{Jail, Pushed, Standing};
use crate::identity::partition;
use crate::privsep::message::Refusal;

const TOKEN: &str = "x-aws-ec2-metadata-token";
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const LONGEST_TTL: i64 = 21_600;

/// botocore stretches an expiry nearer than 20 minutes by itself, up to 20 minutes past now: credentials with less
/// than this to go would be used after their death.
const LEAST: i64 = 25 * 60;

const LAPSED: &str = "no fresh credentials from AWS STS, ask again";

pub fn answer(ask: &Ask<'_>, jail: &Jail, pushed: &Pushed, now: i64) -> Answer {
    let path = ask.uri.path();
    if path == "/latest/api/token" || *ask.method == Method::PUT {
        return session_token(ask, path);
    }
    if !ask.reads() {
        let reply = refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        return Answer::Reply(Reply { header: Some(("allow", "GET, HEAD".into())), ..reply });
    }
    let allowed = match ask.single(TOKEN) {
        Ok(Some(token)) => jail.tokens.knows(token, now),
        Ok(None) => jail.settings.imds_v1,
        Err(()) => false,
    };
    if !allowed {
        let sentence = "a session token is needed, see PUT /latest/api/token";
        return Answer::Reply(refuse(StatusCode::UNAUTHORIZED, sentence));
    }
    find(path, jail, pushed, now).unwrap_or_else(|| Answer::Reply(refuse(StatusCode::NOT_FOUND, "no such path")))
}

/// `PUT /latest/api/token`. Other versions of the path are forbidden, not unknown: so EC2 does.
fn session_token(ask: &Ask<'_>, path: &str) -> Answer {
    let versioned = path.strip_suffix("/api/token").and_then(|rest| rest.strip_prefix('/'));
    let reply = match (versioned, ask.method) {
        (Some("latest"), &Method::PUT) => match ttl(ask) {
            Some(ttl) => return Answer::Token(ttl),
            None => refuse(StatusCode::BAD_REQUEST, "x-aws-ec2-metadata-token-ttl-seconds is 1 to 21600"),
        },
        (Some("latest"), _) => {
            let reply = refuse(StatusCode::METHOD_NOT_ALLOWED, "only PUT");
            Reply { header: Some(("allow", "PUT".into())), ..reply }
        }
        (Some(version), _) if is_version(version) => {
            refuse(StatusCode::FORBIDDEN, "tokens come from /latest/api/token")
        }
        _ => refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD"),
    };
    Answer::Reply(reply)
}

fn ttl(ask: &Ask<'_>) -> Option<i64> {
    let text = std::str::from_utf8(ask.single(TTL).ok()??).ok()?;
    let digits = !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
    let ttl = digits.then(|| text.parse().ok())??;
    (1..=LONGEST_TTL).contains(&ttl).then_some(ttl)
}

/// The reply to a new token; Go's SDK needs its time to live echoed.
pub fn token_reply(token: Option<String>, ttl: i64) -> Reply {
    match token {
        Some(token) => Reply { header: Some((TTL, ttl.to_string())), ..Reply::text(token) },
        None => Reply {
            status: StatusCode::SERVICE_UNAVAILABLE,
            ..Reply::text("503 - Service Unavailable: no random bytes\n")
        },
    }
}

/// `None`: no such path.
fn find(path: &str, jail: &Jail, pushed: &Pushed, now: i64) -> Option<Answer> {
    let path = path.strip_prefix('/')?;
    if path.is_empty() {
        return Some(text("2021-03-23\nlatest"));
    }
    let (version, rest) = path.split_once('/').unwrap_or((path, ""));
    if !is_version(version) {
        return None;
    }
    // EC2 takes a slash behind anything, and botocore asks for `placement/availability-zone/`.
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if let Some(role) = rest.strip_prefix("meta-data/iam/security-credentials/") {
        return credentials(role, jail, pushed, now);
    }
    match rest {
        "" => Some(text("dynamic\nmeta-data")),
        "meta-data" => Some(text("iam/\ninstance-id\nplacement/\nservices/")),
        "meta-data/iam" => with_role(jail, pushed, now, |_| text("info\nsecurity-credentials/")),
        "meta-data/iam/security-credentials" => with_role(jail, pushed, now, text),
        "meta-data/placement" => Some(text("availability-zone\nregion")),
        "meta-data/services" => Some(text("domain\npartition")),
        "dynamic" => Some(text("instance-identity/")),
        "dynamic/instance-identity" => Some(text("document")),
        _ => leaf(rest, jail, pushed, now),
    }
}

fn leaf(path: &str, jail: &Jail, pushed: &Pushed, now: i64) -> Option<Answer> {
    match path {
        "meta-data/instance-id" => Some(text(document::instance(&jail.session))),
        "meta-data/placement/region" => with_region(jail, pushed, now, |region| text(region)),
        "meta-data/placement/availability-zone" => with_region(jail, pushed, now, |r| text(document::zone(r))),
        "meta-data/services/domain" => with_region(jail, pushed, now, |r| text(partition(r).1)),
        "meta-data/services/partition" => with_region(jail, pushed, now, |r| text(partition(r).0)),
        "meta-data/iam/info" => match (&pushed.grant, &pushed.refusal) {
            (Some(grant), _) => Some(text(document::profile(grant, &jail.session))),
            (None, Some(_)) => None,
            (None, None) => Some(Answer::NotYet(unheard(now))),
        },
        "dynamic/instance-identity/document" => with_region(jail, pushed, now, |region| {
            let account = pushed.grant.as_ref().map(|grant| grant.account.as_str());
            text(document::identity(region, account, &jail.session))
        }),
        _ => None,
    }
}

/// The role's name, which exists even when STS refuses: EC2 names a role that cannot be assumed, and tells why in its
/// document. A jail without identity has none, so that SDKs say "no credentials" and look elsewhere.
fn with_role(jail: &Jail, pushed: &Pushed, now: i64, then: impl FnOnce(String) -> Answer) -> Option<Answer> {
    if let Some(grant) = &pushed.grant {
        return Some(then(grant.role.clone()));
    }
    match pushed.standing(now, LEAST) {
        Standing::Unheard => Some(Answer::NotYet(unheard(now))),
        Standing::NoIdentity(_) => Some(no_identity()),
        // The role has the user's name where nobody said otherwise.
        _ => Some(then(jail.user.to_string())),
    }
}

fn with_region(jail: &Jail, pushed: &Pushed, now: i64, then: impl FnOnce(&str) -> Answer) -> Option<Answer> {
    let told = pushed.grant.as_ref().map(|grant| grant.region.as_str());
    match told.or(jail.settings.region.as_deref()) {
        Some(region) => Some(then(region)),
        None if pushed.refusal.is_some() => None,
        None => Some(Answer::NotYet(unheard(now))),
    }
}

fn credentials(role: &str, jail: &Jail, pushed: &Pushed, now: i64) -> Option<Answer> {
    let standing = pushed.standing(now, LEAST);
    match standing {
        Standing::Unheard => return Some(Answer::NotYet(unheard(now))),
        Standing::NoIdentity(_) if pushed.grant.is_none() => return Some(no_identity()),
        _ => {}
    }
    let own = pushed.grant.as_ref().map_or(jail.user.as_str(), |grant| &grant.role);
    if unescape(role)? != own {
        return None;
    }
    Some(match standing {
        Standing::Good(grant) => text(document::instance_credentials(grant)),
        Standing::Refused(refusal) | Standing::NoIdentity(refusal) => refused(refusal, now),
        Standing::Lapsed | Standing::Unheard => Answer::Reply(Reply {
            status: StatusCode::SERVICE_UNAVAILABLE,
            ..Reply::text(document::instance_problem("Unavailable", LAPSED, now))
        }),
    })
}

/// What is worth another try is a 503, which SDKs try again; what is not is EC2's document of a refusal.
fn refused(refusal: &Refusal, now: i64) -> Answer {
    let status = if refusal.transient { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let body = document::instance_problem(document::instance_code(refusal), &refusal.message, now);
    Answer::Reply(Reply { status, ..Reply::text(body) })
}

fn no_identity() -> Answer {
    let body = "404 - Not Found: this session has no AWS identity\n";
    Answer::Reply(Reply { status: StatusCode::NOT_FOUND, ..Reply::text(body) })
}

fn unheard(now: i64) -> Reply {
    let body = document::instance_problem("Unavailable", "the credentials are not there yet, ask again", now);
    Reply { status: StatusCode::SERVICE_UNAVAILABLE, ..Reply::text(body) }
}

/// `latest`, `1.0` or a date, by its shape.
fn is_version(text: &str) -> bool {
    let date = |(i, b): (usize, u8)| if matches!(i, 4 | 7) { b == b'-' } else { b.is_ascii_digit() };
    matches!(text, "latest" | "1.0") || (text.len() == 10 && text.bytes().enumerate().all(date))
}

/// Undoes `%40` and its like: a role's name may hold `@`, `+`, `=` and `,`, which some clients escape.
fn unescape(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = u8::from_str_radix(part.get(..2)?, 16).ok()?;
        plain.push(char::from(byte).is_ascii_graphic().then_some(char::from(byte))?);
        plain.push_str(part.get(2..)?);
    }
    Some(Cow::Owned(plain))
}

fn refuse(status: StatusCode, message: &str) -> Reply {
    Reply::refuse(Kind::Metadata, status, reason(status), message)
}

fn text(body: impl Into<String>) -> Answer {
    Answer::Reply(Reply::text(body))
}
