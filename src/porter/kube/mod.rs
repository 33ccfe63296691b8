//! The kube door: `/clusters/NAME/...` is the API server of NAME, and who asks is who they are there.
//!
//! A client brings no credential and no name; the door writes both. What goes on is made anew from what was understood:
//! path, listed headers, a body counted on its way. `route` and `headers` are that law, `whom` says who asks, `upstream`
//! connects, `upgrade` is exec, attach and port-forward, `record` tells the audit. Nothing here belongs to a jail but the
//! listener: an `Asker` is a session with a pass.

mod asker;
mod body;
mod cluster;
mod content;
mod headers;
mod laptop;
mod pump;
mod record;
mod route;
mod status;
mod upgrade;
mod upstream;
mod whom;

use std::convert::Infallible;
use std::error::Error;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{HeaderValue, STRICT_TRANSPORT_SECURITY};
use hyper::http::request::Parts;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::door::{Listener, Stream, Words, now, receive};
use super::jail::Jail;
use crate::audit::KubeUser;
use crate::config::{AuditRule, Clocks};

use asker::{Admission, Guard};
use body::{Carried, Early, Sent};
use record::{End, Record};
use route::Route;
use status::Refusal;
use upgrade::{Client, Slot, Turning};
use upstream::{Lane, Life, Unreached};
use whom::Whom;

pub use asker::{Asker, Said, Surroundings};
pub use cluster::{Clusters, Known};
pub use laptop::{Grants, visit};

/// An answer's body: a Status, or a cluster's.
pub type Answer = Either<Full<Bytes>, Carried>;

/// What the configuration says to the kube door.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub clocks: Clocks,
    pub audit: Vec<AuditRule>,
    /// What laptops call this bastion: hosts, with ports where those are not HTTPS's own.
    pub public: Arc<[String]>,
}

/// A request's head: kubectl's are long where labels select.
const LONGEST_HEAD: usize = 64 * 1024;

/// Longer than a client keeps a connection that it does not use: who closes first loses no request.
const IDLE: Duration = Duration::from_secs(120);

/// The most connections and the most requests of a session at a time; k9s with all its watches has dozens.
const MOST_REQUESTS: usize = 512;

/// HTTP/2 from the jail.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const MOST_STREAMS: u32 = 256;

/// How an HTTP/2 connection begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Keeps a jail's door until the jail is gone: dropping this closes the listener and all that came of it.
pub async fn keep(listener: Listener, jail: Arc<Jail>, asker: Arc<Asker>) {
    let own = listener.own().map(|own| vec![own.to_string(), format!("localhost:{}", own.port())]);
    let names: Arc<[String]> = own.unwrap_or_default().into();
    let guard = Guard(Arc::clone(&asker));
    let words =
        Words { crowd: "connections to this jail's kube door", door: "the kube door of this jail", paced: false };
    let pass = || Arc::clone(&asker.connections).try_acquire_owned().ok();
    let received = receive(&listener, &jail, words, pass, |stream, permit| {
        let (asker, names) = (Arc::clone(&asker), Arc::clone(&names));
        async move {
            let _permit = permit;
            let Stream::Tcp(stream) = stream else { return };
            let _ = stream.set_nodelay(true);
            if let Ok(Some(is_http2)) = timeout(IDLE, begins_http2(&stream)).await {
                converse(stream, Arc::new(Who::Jail(asker)), names, is_http2).await;
            }
        }
    });
    tokio::select! {
        () = received => {}
        () = asker.tend() => {}
    }
    drop(guard);
}

/// Who asks on a connection: known by its listener, or by a token in each request.
enum Who {
    Jail(Arc<Asker>),
    Laptop(laptop::Visitor),
}

impl Who {
    fn asker(&self, headers: &HeaderMap) -> Result<Arc<Asker>, Refusal> {
        match self {
            Self::Jail(asker) => Ok(Arc::clone(asker)),
            Self::Laptop(visitor) => visitor.asker(headers),
        }
    }

    /// Who has asked.
    fn known(&self) -> Option<Arc<Asker>> {
        match self {
            Self::Jail(asker) => Some(Arc::clone(asker)),
            Self::Laptop(visitor) => visitor.known(),
        }
    }

    /// True when the connection must be over.
    fn end(&self) -> &watch::Sender<bool> {
        match self {
            Self::Jail(asker) => &asker.end,
            Self::Laptop(visitor) => &visitor.end,
        }
    }
}

/// A connection's requests, and the stream that its last one may become.
async fn converse<C: Client>(stream: C, who: Arc<Who>, names: Arc<[String]>, is_http2: bool) {
    let slot = Arc::new(Slot::default());
    let service = service_fn(|request| {
        let (who, names, slot) = (Arc::clone(&who), Arc::clone(&names), Arc::clone(&slot));
        async move { Ok::<_, Infallible>(respond(request, &who, &names, &slot).await) }
    });
    // What the client breaks is the client's: hyper has answered 400, 408 or 431, or there is nobody to answer.
    if is_http2 {
        let _ = http2::Builder::new(Life::of(who.end()))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(MOST_STREAMS)
            .max_header_list_size(u32::try_from(LONGEST_HEAD).unwrap_or(u32::MAX))
            .serve_connection(TokioIo::new(stream), service)
            .await;
        return;
    }
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(LONGEST_HEAD)
        .max_header_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    let opened = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((opened, asker)) = opened.zip(who.known()) {
        upgrade::carry::<C>(opened, &asker).await;
    }
}

/// Looks at a connection's first bytes and leaves them there; `None` where it ends first.
async fn begins_http2(stream: &TcpStream) -> Option<bool> {
    let mut first = [0; 24];
    loop {
        let got = stream.peek(&mut first).await.ok().filter(|got| *got > 0)?;
        let seen = first.get(..got)?;
        if !PREFACE.starts_with(seen) {
            return Some(false);
        }
        if seen == PREFACE {
            return Some(true);
        }
        // The kernel tells no more of bytes that lie there already.
        sleep(Duration::from_millis(5)).await;
    }
}

async fn respond(request: Request<Incoming>, who: &Who, names: &[String], slot: &Slot) -> Response<Answer> {
    let in_text = status::asks_what_there_is(request.headers());
    let mut response = match who.asker(request.headers()) {
        Ok(asker) => answer(request, &asker, names, slot).await,
        Err(refusal) => refusal.response(),
    };
    if in_text && let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        response = refusal.text();
    }
    if matches!(who, Who::Laptop(_)) {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    response
}

async fn answer(request: Request<Incoming>, asker: &Arc<Asker>, names: &[String], slot: &Slot) -> Response<Answer> {
    let received = record::now();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    match admitted(request, asker, names, received).await {
        Ok(ask) => ask.go(slot).await,
        Err(refusal) => {
            asker.tell_refused(&method, uri.path(), &refusal);
            refusal.response()
        }
    }
}

/// A request that goes to its cluster.
struct Ask {
    head: Parts,
    body: Incoming,
    upgrade: Option<(upgrade::Wish, OnUpgrade)>,
    route: Route,
    admission: Admission,
    headers: HeaderMap,
    record: Record,
    clocks: Clocks,
}

/// All that the door itself may refuse.
async fn admitted(
    mut request: Request<Incoming>,
    asker: &Arc<Asker>,
    names: &[String],
    received: i64,
) -> Result<Ask, Refusal> {
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    route::addressed(&head, names)?;
    let route = route::route(&head.method, &head.uri)?;
    if route.request.is_node_proxy() {
        return Err(Refusal::forbidden("the kube door does not lead to nodes/proxy: a kubelet knows no user"));
    }
    let wanted = whom::wanted(&head.headers)?;
    let wish = match upgrade::is_wanted(&head.headers) {
        true => Some(upgrade::wish(&head, &route, body.is_end_stream())?),
        false => None,
    };
    let admission = asker.admit(&route.cluster).await?;
    if let Some(wanted) = &wanted {
        whom::may_be(&admission.pass, &route.cluster, wanted)?;
    }
    if wish.as_ref().is_some_and(|wish| wish.kept) && asker.around.notices.keeper(asker::PATIENCE).await.is_none() {
        return Err(Refusal::unavailable("nothing can be recorded now, and so nothing can be run: try again"));
    }
    if !matches!(timeout(asker::PATIENCE, asker.around.notices.room()).await, Ok(true)) {
        return Err(Refusal::unavailable("the audit is behind, and nothing goes on without it: try again"));
    }
    let headers = signed(&head, asker, &admission, wanted.as_ref())?;
    let rules = Arc::clone(&asker.around.rules.borrow());
    let record = Record::begin(asker, &rules.audit, &route, &head.headers, wanted, received);
    let upgrade = wish.map(|wish| (wish, on_upgrade));
    Ok(Ask { head, body, upgrade, route, admission, headers, record, clocks: rules.clocks })
}

/// A request's headers as the cluster gets them, but for its Audit-ID.
fn signed(head: &Parts, asker: &Asker, admission: &Admission, wanted: Option<&KubeUser>) -> Result<HeaderMap, Refusal> {
    let mut headers = headers::to_cluster(&head.headers);
    let whom = Whom {
        session: asker.session,
        user: &asker.user,
        pass: &admission.pass,
        credentials: admission.credentials.as_ref(),
        wanted,
    };
    whom::sign(&mut headers, &whom, &admission.known, &admission.upstream, now())?;
    Ok(headers)
}

impl Ask {
    async fn go(mut self, slot: &Slot) -> Response<Answer> {
        if let Ok(id) = self.record.audit_id.parse() {
            self.headers.insert("audit-id", id);
        }
        match self.upgrade.take() {
            Some((wish, on_upgrade)) => self.turn(wish, on_upgrade, slot).await,
            None => self.pass().await,
        }
    }

    async fn pass(self) -> Response<Answer> {
        let Self { head, body, route, admission, headers, record, clocks, .. } = self;
        let is_head = head.method == Method::HEAD;
        let line = &admission.upstream.line;
        let Ok(uri) = format!("https://{}{}{}", line.authority, line.prefix, route.target).parse::<Uri>() else {
            return failed(record, &Refusal::bad("the path cannot be sent on"));
        };
        let sent = Sent { body, count: Arc::clone(&record.count), keep: record.keeps_body() };
        let mut request = Request::new(sent);
        *request.method_mut() = head.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let lane = admission.upstream.lane();
        let answer = lane.request(request);
        // A log that nobody writes to has no head yet.
        let patient = route.request.is_long_running() && route.request.verb != "watch";
        let answered = if patient { Ok(answer.await) } else { timeout(clocks.answer, answer).await };
        match answered {
            Ok(Ok(mut answer)) => {
                let long = route.request.is_long_running();
                let early = if long { Early::default() } else { Early::of(answer.body_mut()).await };
                pass_on((answer, early), is_head, &route, (admission, Some(lane)), record, clocks)
            }
            Ok(Err(error)) => failed(record, &broken(&error, &route.cluster)),
            Err(_) => failed(record, &late(&route.cluster, clocks)),
        }
    }

    async fn turn(self, wish: upgrade::Wish, on_upgrade: OnUpgrade, slot: &Slot) -> Response<Answer> {
        let Self { head, route, admission, headers, record, clocks, .. } = self;
        let asked = upgrade::ask(&wish, &route.target, headers, head.method, &admission.upstream);
        let answer = match timeout(clocks.answer, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return failed(record, &error.refusal(&route.cluster)),
            Err(_) => return failed(record, &late(&route.cluster, clocks)),
        };
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return pass_on((answer, Early::default()), false, &route, (admission, None), record, clocks);
        }
        let Admission { upstream, place, .. } = admission;
        let turning = Turning { client: on_upgrade, upstream, record, idle: clocks.idle, place };
        match upgrade::turn(&wish, &route, answer, turning) {
            Ok((response, opened)) => {
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
                response
            }
            Err(record) => failed(record, &confused(&route.cluster)),
        }
    }
}

/// A cluster's answer as the client gets it.
fn pass_on(
    (answer, early): (Response<Incoming>, Early),
    is_head: bool,
    route: &Route,
    (admission, lane): (Admission, Option<Arc<Lane>>),
    mut record: Record,
    clocks: Clocks,
) -> Response<Answer> {
    let (mut head, body) = answer.into_parts();
    let status = head.status;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return failed(record, &confused(&route.cluster));
    }
    let has_body = !is_head && status != StatusCode::NOT_MODIFIED;
    headers::from_cluster(&mut head.headers, !has_body);
    if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        let line = &admission.upstream.line;
        if !headers::keep_inside(&mut head.headers, &route.cluster, line) {
            let message = format!("cluster {} answered with a redirect that leads out of it", route.cluster);
            return failed(record, &Refusal::new(StatusCode::BAD_GATEWAY, message));
        }
    }
    if route.request.is_proxy() {
        headers::sandbox(&mut head.headers);
    } else if status == StatusCode::UNAUTHORIZED {
        admission.upstream.forget_token();
        return failed(record, &admission.unknown());
    }
    record.status(status.as_u16());
    let idle = if route.request.is_long_running() { clocks.idle } else { Duration::ZERO };
    let Admission { upstream, place, .. } = admission;
    let mut response = Response::new(Either::Right(Carried::new((early, body), record, idle, (upstream, lane), place)));
    *response.status_mut() = status;
    *response.headers_mut() = head.headers;
    response
}

/// An answer of the door's in place of the cluster's.
fn failed(mut record: Record, refusal: &Refusal) -> Response<Answer> {
    record.status(refusal.status.as_u16());
    // Its own 401 is an answer.
    let is_answer = refusal.status == StatusCode::UNAUTHORIZED;
    record.finish(&if is_answer { End::Done } else { End::Cut(refusal.message.clone()) });
    refusal.response()
}

fn late(cluster: &str, clocks: Clocks) -> Refusal {
    let message = format!("cluster {cluster} gave no answer within {} s", clocks.answer.as_secs());
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, message)
}

fn confused(cluster: &str) -> Refusal {
    let message = format!("cluster {cluster} changed to a protocol that it was not asked for");
    Refusal::new(StatusCode::BAD_GATEWAY, message)
}

/// hyper's word for what went wrong, or the connector's beneath it.
fn broken(error: &legacy::Error, cluster: &str) -> Refusal {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = cause {
        if let Some(unreached) = error.downcast_ref::<Unreached>() {
            return unreached.refusal(cluster);
        }
        cause = error.source();
    }
    Refusal::new(StatusCode::BAD_GATEWAY, format!("cluster {cluster} broke off before it answered"))
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;

#[cfg(test)]
mod tests;
