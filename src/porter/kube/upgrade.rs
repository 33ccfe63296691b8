//! Exec, attach and port-forward: requests that end HTTP. Which may, what is agreed on, and what then goes through.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{Either, Empty, Full};
use hyper::body::Bytes;
use hyper::header::{
    CONNECTION, HOST, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::pump::{Side, moved};
use super::record::{End, Record, command, container};
use super::route::{Route, single};
use super::status::Refusal;
use super::upstream::{Unreached, Upstream, Wire};
use super::{Answer, Asker};
use crate::policy::{KubeObject, kube_request::flag};
use crate::privsep::message::{PorterToKeeper, StreamProtocol};
use crate::recording::KubeStream;

const STREAM_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Both ends have said 101: how long until they are out of HTTP.
const TURN: Duration = Duration::from_secs(10);

/// The words that the two ways of upgrading have for one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    WebSocket,
    Spdy,
}

impl Manner {
    fn upgrade(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::WebSocket => "websocket",
            Self::Spdy => "SPDY/3.1",
        })
    }

    /// Where client and server name their subprotocols.
    fn protocols(self) -> HeaderName {
        match self {
            Self::WebSocket => SEC_WEBSOCKET_PROTOCOL,
            Self::Spdy => STREAM_VERSION,
        }
    }
}

/// An upgrade that the door lets a client ask for.
#[derive(Debug)]
pub struct Wish {
    manner: Manner,
    /// Of those that the client offers, in its order.
    offered: Vec<&'static str>,
    key: Option<HeaderValue>,
    /// Its streams are the keeper's: exec and attach.
    pub kept: bool,
}

/// Whether a request wants to end HTTP.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) || headers.contains_key(SEC_WEBSOCKET_KEY)
}

pub fn wish(head: &Parts, route: &Route, is_empty: bool) -> Result<Wish, Refusal> {
    let object =
        route.request.object.as_ref().filter(|o| o.group.is_empty() && o.resource == "pods" && !o.name.is_empty());
    let kept = match object.map(|object| object.subresource.as_str()) {
        Some("exec" | "attach") => true,
        Some("portforward") => false,
        _ => return Err(Refusal::bad("only exec, attach and port-forward may upgrade a connection")),
    };
    if !is_empty {
        return Err(Refusal::bad("a request that upgrades its connection has no body"));
    }
    let headers = &head.headers;
    let upgrade = single(headers, UPGRADE.as_str())?.unwrap_or_default();
    let connection = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named = connection.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    let manner = match head.method {
        Method::GET if upgrade.eq_ignore_ascii_case("websocket") && named => Manner::WebSocket,
        Method::POST if upgrade.eq_ignore_ascii_case("SPDY/3.1") && named => Manner::Spdy,
        _ => return Err(Refusal::bad("an upgrade is GET to websocket or POST to SPDY/3.1")),
    };
    let key = headers.get(SEC_WEBSOCKET_KEY).cloned();
    if manner == Manner::WebSocket && (key.is_none() || single(headers, SEC_WEBSOCKET_VERSION.as_str())? != Some("13"))
    {
        return Err(Refusal::bad("a websocket needs Sec-WebSocket-Key and Sec-WebSocket-Version: 13"));
    }
    let offers = headers.get_all(manner.protocols()).iter().filter_map(|value| value.to_str().ok());
    let offers: Vec<&str> = offers.flat_map(|value| value.split(',')).map(str::trim).collect();
    let known = spoken(manner, kept);
    let offered: Vec<&str> =
        offers.iter().filter_map(|offer| known.iter().find(|known| *known == offer).copied()).collect();
    if offered.is_empty() {
        return Err(Refusal::bad(format!("the client must speak one of {}", known.join(", "))));
    }
    Ok(Wish { manner, offered, key, kept })
}

/// The older ones have no half-close, or are text.
fn spoken(manner: Manner, kept: bool) -> &'static [&'static str] {
    match (manner, kept) {
        (Manner::WebSocket, true) => &["v5.channel.k8s.io", "v4.channel.k8s.io"],
        (Manner::WebSocket, false) => &["SPDY/3.1+portforward.k8s.io", "v4.channel.k8s.io"],
        (Manner::Spdy, true) => &["v4.channel.k8s.io"],
        (Manner::Spdy, false) => &["portforward.k8s.io"],
    }
}

impl Wish {
    /// Writes into a request what asks for the upgrade.
    fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, self.manner.upgrade());
        if let Ok(offered) = HeaderValue::try_from(self.offered.join(", ")) {
            headers.insert(self.manner.protocols(), offered);
        }
        if let (Manner::WebSocket, Some(key)) = (self.manner, &self.key) {
            headers.insert(SEC_WEBSOCKET_KEY, key.clone());
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
    }

    /// What the cluster agreed on, if that is something it was asked for.
    fn agreed(&self, headers: &HeaderMap) -> Option<&'static str> {
        let text = |name| single(headers, name).ok().flatten();
        let upgrade = self.manner.upgrade();
        let same = text("upgrade").is_some_and(|word| upgrade.to_str().is_ok_and(|own| own.eq_ignore_ascii_case(word)));
        let chosen = text(self.manner.protocols().as_str());
        let chosen = self.offered.iter().find(|offered| Some(**offered) == chosen).copied();
        chosen.filter(|_| same && !headers.contains_key(SEC_WEBSOCKET_EXTENSIONS))
    }

    /// The cluster's 101 as the client gets it.
    fn switch(&self, agreed: &'static str, theirs: &HeaderMap) -> Response<Answer> {
        let mut response = Response::new(Either::Left(Full::default()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, self.manner.upgrade());
        headers.insert(self.manner.protocols(), HeaderValue::from_static(agreed));
        for name in [SEC_WEBSOCKET_ACCEPT, AUDIT_ID] {
            if let Some(value) = theirs.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        response
    }

    /// What the keeper is told of it, and what it will read.
    fn stream(&self, agreed: &str, route: &Route, audit_id: &str) -> Option<(KubeStream, StreamProtocol)> {
        let object = route.request.object.as_ref().filter(|_| self.kept)?;
        let query = route.target.split_once('?').map_or("", |(_, query)| query);
        let KubeObject { namespace, name, subresource, .. } = object.clone();
        let stream = KubeStream {
            audit_id: audit_id.to_owned(),
            cluster: route.cluster.clone(),
            namespace,
            pod: name,
            container: container(query),
            subresource,
            command: command(query),
            terminal: flag(query, "tty"),
        };
        let protocol = match (self.manner, agreed) {
            (Manner::Spdy, _) => StreamProtocol::Spdy,
            (Manner::WebSocket, "v5.channel.k8s.io") => StreamProtocol::WebSocket5,
            (Manner::WebSocket, _) => StreamProtocol::WebSocket4,
        };
        Some((stream, protocol))
    }
}

/// A request on a connection of its own: the answer, as an ordinary one or as the beginning of a stream.
pub async fn ask(
    wish: &Wish,
    target: &str,
    mut headers: HeaderMap,
    method: Method,
    upstream: &Upstream,
) -> Result<Response<hyper::body::Incoming>, Unreached> {
    wish.ask(&mut headers);
    if let Ok(host) = HeaderValue::from_str(&upstream.line.authority) {
        headers.insert(HOST, host);
    }
    let mut send = upstream.fresh().await?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    *request.headers_mut() = headers;
    if let Ok(uri) = format!("{}{target}", upstream.line.prefix).parse() {
        *request.uri_mut() = uri;
    }
    send.send_request(request).await.map_err(Unreached::Broken)
}

/// Both sides are about to leave HTTP.
pub struct Opened {
    client: OnUpgrade,
    cluster: OnUpgrade,
    upstream: Arc<Upstream>,
    record: Record,
    stream: Option<(KubeStream, StreamProtocol)>,
    idle: Duration,
    _place: OwnedSemaphorePermit,
}

/// Where a connection finds what its last request opened.
pub type Slot = Mutex<Option<Opened>>;

/// What a request brings along when it turns into a stream.
pub struct Turning {
    pub client: OnUpgrade,
    pub upstream: Arc<Upstream>,
    pub record: Record,
    pub idle: Duration,
    pub place: OwnedSemaphorePermit,
}

/// A cluster's 101: the client's, and what then follows.
pub fn turn(
    wish: &Wish,
    route: &Route,
    mut theirs: Response<hyper::body::Incoming>,
    turning: Turning,
) -> Result<(Response<Answer>, Opened), Record> {
    let Turning { client, upstream, mut record, idle, place } = turning;
    let Some(agreed) = wish.agreed(theirs.headers()) else { return Err(record) };
    record.status(101);
    let stream = wish.stream(agreed, route, &record.audit_id);
    let response = wish.switch(agreed, theirs.headers());
    let cluster = hyper::upgrade::on(&mut theirs);
    Ok((response, Opened { client, cluster, upstream, record, stream, idle, _place: place }))
}

/// A client's connection: one that the keeper can be given.
pub trait Client: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    fn descriptor(self) -> std::io::Result<OwnedFd>;
}

impl Client for TcpStream {
    fn descriptor(self) -> std::io::Result<OwnedFd> {
        self.into_std().map(OwnedFd::from)
    }
}

impl Client for UnixStream {
    fn descriptor(self) -> std::io::Result<OwnedFd> {
        self.into_std().map(OwnedFd::from)
    }
}

/// Moves a stream until either end, the clock, or the session's right to it ends.
pub async fn carry<C: Client>(opened: Opened, asker: &Asker) {
    let Opened { client, cluster, upstream, record, stream, idle, _place } = opened;
    let Ok(Ok((client, cluster))) = timeout(TURN, async { tokio::try_join!(client, cluster) }).await else { return };
    let (Some((client, from_client)), Some((cluster, from_cluster))) = (parts::<C>(client), parts::<Wire>(cluster))
    else {
        return;
    };
    if let Some(event) = record.begun()
        && !asker.around.notices.tell_surely(event).await
    {
        return;
    }
    let count = Arc::clone(&record.count);
    let far = Side { stream: cluster, first: from_cluster, count: &count.got };
    let mut life = upstream.life();
    let moved = async {
        match stream {
            None => moved(Side { stream: client, first: from_client, count: &count.sent }, far, idle).await,
            Some(stream) => match hand_over(client, from_client, stream, asker).await {
                Some(near) => moved(Side { stream: near, first: Bytes::new(), count: &count.sent }, far, idle).await,
                None => End::Cut("the recorder is not there".into()),
            },
        }
    };
    let end = tokio::select! {
        end = moved => end,
        () = life.over() => End::Left("the session's right to this cluster ended"),
    };
    record.finish(&end);
}

fn parts<T>(upgraded: Upgraded) -> Option<(T, Bytes)>
where
    TokioIo<T>: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let parts = upgraded.downcast::<TokioIo<T>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}

/// Gives the client to the keeper, and takes what the keeper lets through.
/// What the cluster said already goes through the pair like the rest.
async fn hand_over(
    client: impl Client,
    first: Bytes,
    (stream, protocol): (KubeStream, StreamProtocol),
    asker: &Asker,
) -> Option<UnixStream> {
    let keeper = asker.around.notices.keeper(Duration::ZERO).await?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    let client = client.descriptor().ok()?;
    let message = PorterToKeeper::Stream {
        session: asker.session,
        number: asker.number(),
        stream: Box::new(stream),
        from_client: first.to_vec(),
        protocol,
    };
    keeper.send_with(&message, &[client.as_fd(), theirs.as_fd()]).await.ok()?;
    UnixStream::from_std(std::os::unix::net::UnixStream::from(ours)).ok()
}
