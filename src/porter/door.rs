use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net as unix;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, SERVER};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::answer::{Answer, Ask, Kind, Reply, answer};
use super::jail::{Jail, Pushed};
use super::metadata;
use crate::privsep::table::Door;

/// How long a request waits for the warden's first word: botocore gives up after a second.
pub const PATIENCE: Duration = Duration::from_millis(900);

/// For the whole of a request's headers. hyper has one clock for this and for an idle connection.
pub const HEADERS_WITHIN: Duration = Duration::from_secs(10);

/// Request line and headers together, and hyper's buffer.
pub const LONGEST_HEAD: usize = 16 * 1024;

/// No door wants a body; this much is read and thrown away so that the connection stays usable.
const LONGEST_BODY: usize = 1024;
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// A connection's life, however busy: who never reads what he asked for ends here.
const LIFE: Duration = Duration::from_secs(300);
const FAREWELL: Duration = Duration::from_secs(5);

/// After a connection too many: the rest waits in the kernel's backlog and costs no processor.
const BREATH: Duration = Duration::from_millis(2);

/// After a failed accept (no descriptors left), for which no door is closed, and before a hasty jail's answer.
pub const PAUSE: Duration = Duration::from_millis(250);

/// A door's name in the audit.
pub fn name(door: Door) -> &'static str {
    match door {
        Door::Metadata => "metadata",
        Door::MetadataV6 => "metadata, IPv6",
        Door::Container => "container",
        Door::PodIdentity => "pod identity",
        Door::PodIdentityV6 => "pod identity, IPv6",
        Door::Control => "control",
        Door::Egress => "egress",
        Door::Kube => "kube",
    }
}

/// How a door answers; the egress door and the kube door do not answer, they let through.
pub fn kind(door: Door) -> Option<Kind> {
    match door {
        Door::Metadata | Door::MetadataV6 => Some(Kind::Metadata),
        Door::Container | Door::PodIdentity | Door::PodIdentityV6 => Some(Kind::Container),
        Door::Control => Some(Kind::Control),
        Door::Egress | Door::Kube => None,
    }
}

/// A door's socket.
pub enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener),
}

pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Takes what the jailer bound inside the jail; must be called inside the runtime.
    pub fn new(door: Door, socket: OwnedFd) -> io::Result<Self> {
        if door == Door::Control {
            let listener = unix::UnixListener::from(socket);
            listener.set_nonblocking(true)?;
            return Ok(Self::Unix(UnixListener::from_std(listener)?));
        }
        let listener = std::net::TcpListener::from(socket);
        listener.set_nonblocking(true)?;
        let own = listener.local_addr()?;
        Ok(Self::Tcp(TcpListener::from_std(listener)?, own))
    }

    pub fn own(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(_, own) => Some(*own),
            Self::Unix(_) => None,
        }
    }

    pub async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener, _) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

/// Where a request came in: this, and nothing in the request, says who asks.
struct Place {
    door: Door,
    kind: Kind,
    own: Option<SocketAddr>,
    jail: Arc<Jail>,
    pushed: watch::Receiver<Pushed>,
}

/// Keeps a door until the jail is gone: dropping this closes the listener and its connections.
pub async fn keep(listener: Listener, (door, kind): (Door, Kind), jail: Arc<Jail>, pushed: watch::Receiver<Pushed>) {
    let place = Arc::new(Place { door, kind, own: listener.own(), jail, pushed });
    let words = Words { crowd: "connections to this jail's doors", door: "a door of this jail", paced: true };
    let pass = || Arc::clone(&place.jail.connections).try_acquire_owned().ok();
    receive(&listener, &place.jail, words, pass, |stream, permit| {
        let place = Arc::clone(&place);
        async move {
            let _permit = permit;
            match stream {
                Stream::Tcp(stream) => {
                    // Without it Nagle and delayed ACK cost 40 ms on a second request.
                    let _ = stream.set_nodelay(true);
                    converse(stream, place).await;
                }
                // A read without room for ancillary data: the kernel closes what was sent along.
                Stream::Unix(stream) => converse(stream, place).await,
            }
        }
    })
    .await;
}

/// How the audit calls a door, and too many connections at it.
pub struct Words {
    pub crowd: &'static str,
    pub door: &'static str,
    /// Too many a second wait; whoever lists pods asks as often as that.
    pub paced: bool,
}

/// Accepts whom `pass` lets in. Every connection ends with this future.
pub async fn receive<Pass, Talk: Future<Output = ()> + Send + 'static>(
    listener: &Listener,
    jail: &Jail,
    words: Words,
    pass: impl Fn() -> Option<Pass>,
    converse: impl Fn(Stream, Pass) -> Talk,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok(stream) => {
                let Some(passed) = pass() else {
                    drop(stream);
                    jail.tell_limit(words.crowd, now());
                    sleep(BREATH).await;
                    continue;
                };
                if words.paced && jail.is_hasty(now()) {
                    sleep(BREATH).await;
                }
                connections.spawn(converse(stream, passed));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                jail.tell_limit(&format!("{} cannot accept: {error}", words.door), now());
                sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, place: Arc<Place>) {
    let service = service_fn(|request| {
        let place = Arc::clone(&place);
        async move { Ok::<_, Infallible>(respond(request, &place).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_WITHIN)
            .max_buf_size(LONGEST_HEAD)
            .max_header_size(LONGEST_HEAD)
            .serve_connection(TokioIo::new(stream), service)
    );
    // What the client breaks is the client's: hyper has answered 400, 408 or 431, or there is nobody to answer.
    if timeout(LIFE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(FAREWELL, connection).await;
    }
}

async fn respond(request: Request<Incoming>, place: &Place) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let kind = place.kind;
    if place.jail.is_hasty(now()) {
        sleep(PAUSE).await;
    }
    if !swallowed(body).await {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        let mut response = response(kind, Reply::refuse(kind, status, "Too Large", "a door takes no body"));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    let reply = settle(&head, kind, place).await;
    if reply.refusal {
        let request = format!("{} {}", head.method, head.uri.path());
        place.jail.tell_refused(name(place.door), &request, reply.status.as_u16(), now());
    }
    response(kind, reply)
}

/// Reads a small body to its end; false if it is not small or does not end.
async fn swallowed(body: Incoming) -> bool {
    if body.is_end_stream() {
        return true;
    }
    matches!(timeout(BODY_WITHIN, Limited::new(body, LONGEST_BODY).collect()).await, Ok(Ok(_)))
}

async fn settle(head: &Parts, kind: Kind, place: &Place) -> Reply {
    let ask = Ask {
        kind,
        own: place.own,
        method: &head.method,
        uri: &head.uri,
        version: head.version,
        headers: &head.headers,
    };
    let mut pushed = place.pushed.clone();
    let mut answered = answer(&ask, &place.jail, &pushed.borrow_and_update(), now());
    if matches!(answered, Answer::NotYet(_)) {
        let _ = timeout(PATIENCE, pushed.changed()).await;
        answered = answer(&ask, &place.jail, &pushed.borrow(), now());
    }
    match answered {
        Answer::Reply(reply) | Answer::NotYet(reply) => reply,
        Answer::Token(ttl) => metadata::token_reply(place.jail.tokens.issue(ttl, now()), ttl),
    }
}

fn response(kind: Kind, reply: Reply) -> Response<Full<Bytes>> {
    let server = if kind == Kind::Metadata { "EC2ws" } else { "stockade" };
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static(server));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content));
    if let Some((name, value)) = reply.header
        && let Ok(value) = HeaderValue::from_str(&value)
    {
        headers.insert(HeaderName::from_static(name), value);
    }
    response
}

/// The one clock of the doors, in seconds since the epoch.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
