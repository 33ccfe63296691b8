use std::fmt;
use std::net::{IpAddr, SocketAddr};

use hyper::header::{HOST, ORIGIN};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, StatusCode, Uri, Version};

use super::jail::{Jail, Pushed};
use super::{container, control, metadata};

/// The kinds of door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Metadata,
    Container,
    Control,
}

/// A request as the law sees it. No `Debug`: headers hold tokens.
pub struct Ask<'a> {
    pub kind: Kind,
    /// The door's own address; the control door has none.
    pub own: Option<SocketAddr>,
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub version: Version,
    pub headers: &'a HeaderMap,
}

impl Ask<'_> {
    /// GET, or HEAD, whose body hyper leaves out.
    pub fn reads(&self) -> bool {
        matches!(*self.method, Method::GET | Method::HEAD)
    }

    /// A header that must be there once or not at all: `Err` when it is there twice.
    pub fn single(&self, name: &str) -> Result<Option<&[u8]>, ()> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next().map(|value| value.as_bytes());
        if values.next().is_some() { Err(()) } else { Ok(first) }
    }
}

/// What a door does with a request.
#[derive(Debug)]
pub enum Answer {
    Reply(Reply),
    /// Make an IMDSv2 token that is good for this many seconds.
    Token(i64),
    /// The warden has said nothing yet: wait a moment, and then this.
    NotYet(Reply),
}

/// A response.
pub struct Reply {
    pub status: StatusCode,
    pub content: &'static str,
    pub body: String,
    pub header: Option<(&'static str, String)>,
    /// The audit hears of it.
    pub refusal: bool,
}

impl Reply {
    pub fn text(body: impl Into<String>) -> Self {
        Self { status: StatusCode::OK, content: "text/plain", body: body.into(), header: None, refusal: false }
    }

    pub fn json(status: StatusCode, body: String) -> Self {
        Self { status, content: "application/json", body, header: None, refusal: false }
    }

    /// A request that is refused for what it is, not for how AWS stands.
    pub fn refuse(kind: Kind, status: StatusCode, code: &str, message: &str) -> Self {
        let reply = match kind {
            Kind::Metadata => Self { status, ..Self::text(format!("{} - {code}: {message}\n", status.as_u16())) },
            Kind::Container | Kind::Control => Self::json(status, container::problem(code, message)),
        };
        Self { refusal: true, ..reply }
    }
}

/// The body may hold credentials.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({}, {} bytes)", self.status, self.body.len())
    }
}

/// The law of all doors.
pub fn answer(ask: &Ask<'_>, jail: &Jail, pushed: &Pushed, now: i64) -> Answer {
    if let Err(reply) = addressed(ask) {
        return Answer::Reply(reply);
    }
    match ask.kind {
        Kind::Metadata => metadata::answer(ask, jail, pushed, now),
        Kind::Container => container::answer(ask, jail, pushed, now),
        Kind::Control => control::answer(ask, jail, pushed, now),
    }
}

/// Whether the request was meant for this door by the program that sends it. A page in a browser sends `Origin`, a
/// rebound name shows in `Host`, a proxy that was talked into it adds `X-Forwarded-For`.
fn addressed(ask: &Ask<'_>) -> Result<(), Reply> {
    let refuse = |status, message| Err(Reply::refuse(ask.kind, status, reason(status), message));
    if ask.headers.contains_key(ORIGIN) {
        return refuse(StatusCode::FORBIDDEN, "a door answers no web page");
    }
    if ask.headers.contains_key("x-forwarded-for") {
        return refuse(StatusCode::FORBIDDEN, "a door answers no proxy");
    }
    let host = match ask.single(HOST.as_str()) {
        Ok(Some(host)) => host,
        Ok(None) if ask.version < Version::HTTP_11 => return named_by_line(ask),
        Ok(None) => return refuse(StatusCode::BAD_REQUEST, "HTTP/1.1 needs a Host header"),
        Err(()) => return refuse(StatusCode::BAD_REQUEST, "more than one Host header"),
    };
    if !std::str::from_utf8(host).is_ok_and(|host| is_own(host, ask.own)) {
        return refuse(StatusCode::FORBIDDEN, "the Host header names another server");
    }
    named_by_line(ask)
}

/// The request line may name a server too, and RFC 9112 section 3.2.2 lets it win over Host.
fn named_by_line(ask: &Ask<'_>) -> Result<(), Reply> {
    match ask.uri.authority() {
        Some(server) if !is_own(server.as_str(), ask.own) => {
            let status = StatusCode::FORBIDDEN;
            Err(Reply::refuse(ask.kind, status, reason(status), "the request line names another server"))
        }
        _ => Ok(()),
    }
}

/// Compares addresses, not spellings: fd00:ec2::254 has many.
fn is_own(server: &str, own: Option<SocketAddr>) -> bool {
    let Some(own) = own else {
        return matches!(server, "stockade" | "localhost");
    };
    // An authority may hold `user@`; a Host may not.
    if server.contains('@') {
        return false;
    }
    let Ok(server) = server.parse::<Authority>() else { return false };
    let name = server.host();
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    let port = server.port().map(|port| port.as_str().parse::<u16>());
    let port_is_own = match port {
        None => own.port() == 80,
        Some(port) => port == Ok(own.port()),
    };
    port_is_own && bare.parse::<IpAddr>() == Ok(own.ip())
}

/// The status in its own words.
pub fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Refused")
}
