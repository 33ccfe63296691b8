//! The laws of the doors: no request opens what its token does not, and nothing leaves but what TLS names.

use std::net::SocketAddr;

use hyper::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use hyper::{HeaderMap, Method, Uri, Version};
use tokio::runtime::{Builder, Runtime};

use super::Settings;
use super::answer::{Answer, Ask, Kind, answer};
use super::jail::{Jail, Pushed};
use super::notice::Notices;
use crate::identity::{Credentials, Principal, Secret};
use crate::policy::egress::{Host, Target};
use crate::privsep::message::{Grant, Refusal};
use crate::session::SessionId;

use super::egress::fuzz as way_out;
pub use super::kube::fuzz::{body as kube_bodies, request as kube};

const NOW: i64 = 1_700_000_000;
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG";
const TOKEN: &str = "the-jail's-token";
/// In a header: a session token that is good.
const GOOD: &[u8] = b"$";

/// What stands still from one input to the next.
struct Scene {
    runtime: Runtime,
    /// Without IMDSv1, and with.
    jails: [Jail; 2],
    tokens: [String; 2],
}

thread_local! {
    static SCENE: Option<Scene> = scene();
}

fn scene() -> Option<Scene> {
    let runtime = Builder::new_current_thread().build().ok()?;
    let inside = runtime.enter();
    let alice: Principal = "alice".parse().ok()?;
    let jail = |imds_v1| {
        let settings = Settings { imds_v1, region: None };
        let session = SessionId::from_bytes([7; 16]);
        Jail::new(session, alice.clone(), Secret::new(TOKEN.into()), settings, Notices::begin())
    };
    let jails = [jail(false), jail(true)];
    let token = |jail: &Jail| jail.tokens.issue(i64::MAX, NOW);
    let [strict, lax] = &jails;
    let tokens = [token(strict)?, token(lax)?];
    drop(inside);
    Some(Scene { runtime, jails, tokens })
}

/// A byte of circumstances, then a request: a line of method and URI, and lines of headers.
pub fn doors(bytes: &[u8]) {
    let Some((circumstances, request)) = bytes.split_first() else { return };
    SCENE.with(|scene| {
        let Some(scene) = scene else { unreachable!("no runtime") };
        let _inside = scene.runtime.enter();
        ask(*circumstances, request, scene);
    });
}

fn ask(circumstances: u8, request: &[u8], scene: &Scene) {
    let (kind, own, host) = place(circumstances);
    let lax = usize::from(circumstances >> 2 & 1);
    let (Some(jail), Some(token)) = (scene.jails.get(lax), scene.tokens.get(lax)) else { return };
    let pushed = pushed(circumstances >> 3 & 3);
    let mut lines = request.split(|b| *b == b'\n');
    let line = lines.next().unwrap_or_default();
    let mut words = line.splitn(2, |b| *b == b' ');
    let method = Method::from_bytes(words.next().unwrap_or_default());
    let uri = Uri::try_from(words.next().unwrap_or_default());
    let (Ok(method), Ok(uri)) = (method, uri) else { return };
    let mut headers = HeaderMap::new();
    if circumstances & 0x20 != 0 {
        headers.insert(HOST, HeaderValue::from_static(host));
    }
    // Whether it holds a key to anything.
    let mut keyed = lax == 1 && kind == Kind::Metadata;
    for line in lines.take(32) {
        let mut parts = line.splitn(2, |b| *b == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = parts.next().unwrap_or_default();
        let value = if value == GOOD { token.as_bytes() } else { value };
        keyed |= value == TOKEN.as_bytes() || value == token.as_bytes();
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let version = if circumstances & 0x40 == 0 { Version::HTTP_11 } else { Version::HTTP_10 };
    let ask = Ask { kind, own, method: &method, uri: &uri, version, headers: &headers };
    judge(&ask, answer(&ask, jail, &pushed, NOW), keyed);
}

fn judge(ask: &Ask<'_>, answer: Answer, keyed: bool) {
    let reply = match answer {
        Answer::Reply(reply) => reply,
        Answer::NotYet(reply) => {
            assert!(!reply.refusal && !reply.body.contains(SECRET));
            reply
        }
        Answer::Token(ttl) => {
            assert!((1..=21_600).contains(&ttl) && *ask.method == Method::PUT && ask.kind == Kind::Metadata);
            assert!(!ask.headers.contains_key(ORIGIN) && !ask.headers.contains_key("x-forwarded-for"));
            return;
        }
    };
    assert!(keyed || !reply.body.contains(SECRET), "credentials without a token");
    assert!(!reply.body.contains(TOKEN));
    let strange = ask.headers.contains_key(ORIGIN) || ask.headers.contains_key("x-forwarded-for");
    assert!(!strange || (reply.refusal && reply.status.as_u16() == 403), "{reply:?}");
    assert!(ask.reads() || reply.refusal, "{} was done: {reply:?}", ask.method);
    assert!(!reply.refusal || reply.status.is_client_error(), "{reply:?}");
    if reply.content == "application/json" {
        assert!(serde_json::from_str::<serde_json::Value>(&reply.body).is_ok(), "{}", reply.body);
    }
    if let Some((name, value)) = reply.header {
        assert!(HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_str(&value).is_ok(), "{value}");
    }
}

fn place(circumstances: u8) -> (Kind, Option<SocketAddr>, &'static str) {
    match circumstances & 3 {
        0 => (Kind::Metadata, "169.254.169.254:80".parse().ok(), "169.254.169.254"),
        1 => (Kind::Container, "169.254.170.2:80".parse().ok(), "169.254.170.2"),
        2 => (Kind::Container, "[fd00:ec2::23]:80".parse().ok(), "[fd00:ec2::23]"),
        _ => (Kind::Control, None, "stockade"),
    }
}

fn pushed(said: u8) -> Pushed {
    let mut pushed = Pushed::default();
    if said & 1 != 0 {
        let credentials = Credentials {
            access_key_id: "ASIAEXAMPLE".into(),
            secret_access_key: Secret::new(SECRET.into()),
            session_token: Secret::new("FwoG-session-token".into()),
            issued: NOW,
            expires: NOW + 3600,
        };
        let role_arn = "arn:aws:iam::123456789012:role/bastion/alice".into();
        let (account, region) = ("123456789012".into(), "eu-central-1".into());
        pushed.issued(Box::new(Grant { credentials, role: "alice".into(), role_arn, account, region }), NOW);
    }
    if said & 2 != 0 {
        pushed.refused(Refusal { code: "AccessDenied".into(), message: "no".into(), transient: false });
    }
    pushed
}

/// What follows CONNECT, a line's end, and what then comes out of the jail.
pub fn egress(bytes: &[u8]) {
    let end = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
    let (line, rest) = bytes.split_at(end);
    let text = String::from_utf8_lossy(line);
    if let Ok(target) = text.parse::<Target>() {
        assert_eq!(target.to_string().parse().as_ref(), Ok(&target));
        if let Host::Name(name) = &target.host {
            assert!(name.parse::<std::net::IpAddr>().is_err() && !name.contains(|c: char| c.is_ascii_uppercase()));
        }
    }
    SCENE.with(|scene| {
        let Some(scene) = scene else { unreachable!("no runtime") };
        scene.runtime.block_on(way_out::hello(rest.get(1..).unwrap_or_default()));
    });
}

/// What a jail says to the door in SOCKS.
pub fn socks(bytes: &[u8]) {
    SCENE.with(|scene| {
        let Some(scene) = scene else { unreachable!("no runtime") };
        scene.runtime.block_on(way_out::socks(bytes));
    });
}
