//! The egress door: HTTP CONNECT to what the session's rules name, and nothing else.
//!
//! The name is resolved here, outside the jail; the very address that was checked is connected to; what the jail then
//! says in TLS must name the same host. So neither a name that moves nor a name that is not meant leads anywhere else.

mod admit;
mod hello;
mod names;
mod tunnel;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Parts};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::door::{HEADERS_WITHIN, LONGEST_HEAD, Listener, PAUSE, Stream, Words, now, receive};
use super::jail::{Allowance, Jail, Pushed};
use crate::audit::Event;
use crate::policy::egress::Target;

use admit::{Refusal, admit, still_allowed};
use hello::NoHello;
use tunnel::{Bounds, End, Meter};

pub use names::{Names, Sources};

/// From the first byte to the 200: the head, a name and a few addresses.
const ADMISSION: Duration = Duration::from_secs(45);

/// Before the warden has said how many there may be.
const AT_FIRST: u32 = 32;

/// A fatal TLS alert, access_denied: so that the client says more than "connection closed".
const DENIED: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 49];

/// Whose door it is.
struct Place {
    jail: Arc<Jail>,
    pushed: watch::Receiver<Pushed>,
    names: watch::Receiver<Arc<Names>>,
}

/// A connection that may go through.
struct Passage {
    target: Target,
    address: SocketAddr,
    /// It must name the target in TLS.
    tls: bool,
    outside: TcpStream,
    allowance: Arc<Allowance>,
}

/// Keeps the door until the jail is gone: dropping this closes the listener and its connections.
pub async fn keep(
    listener: Listener,
    jail: Arc<Jail>,
    pushed: watch::Receiver<Pushed>,
    names: watch::Receiver<Arc<Names>>,
) {
    let place = Arc::new(Place { jail, pushed, names });
    let crowd = "connections through this jail's egress door";
    let words = Words { crowd, door: "the egress door of this jail", paced: true };
    let pass = || {
        let most = place.pushed.borrow().egress.as_ref().map_or(AT_FIRST, |said| said.limits.connections);
        place.jail.egress.enter(most)
    };
    receive(&listener, &place.jail, words, pass, |stream, entered| {
        let place = Arc::clone(&place);
        async move {
            let _entered = entered;
            if let Stream::Tcp(stream) = stream {
                converse(stream, place).await;
            }
        }
    })
    .await;
}

/// One CONNECT, and then what it opened.
async fn converse(stream: TcpStream, place: Arc<Place>) {
    let _ = stream.set_nodelay(true);
    let opened = Arc::new(Mutex::new(None));
    let service = service_fn(|request| {
        let (place, opened) = (Arc::clone(&place), Arc::clone(&opened));
        async move { Ok::<_, Infallible>(respond(request, &place, &opened).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(LONGEST_HEAD)
        .max_header_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let _ = timeout(ADMISSION, connection).await;
    let through = opened.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some((passage, upgrade)): Option<(Passage, OnUpgrade)> = through else { return };
    let Ok(Ok(upgraded)) = timeout(HEADERS_WITHIN, upgrade).await else { return };
    if let Ok(Parts { io, read_buf, .. }) = upgraded.downcast::<TokioIo<TcpStream>>() {
        carry(passage, io.into_inner(), read_buf.to_vec(), &place).await;
    }
}

async fn respond(
    mut request: Request<Incoming>,
    place: &Place,
    opened: &Mutex<Option<(Passage, OnUpgrade)>>,
) -> Response<Full<Bytes>> {
    if place.jail.is_hasty(now()) {
        sleep(PAUSE).await;
    }
    match admit(&request, place).await {
        Ok(passage) => {
            let upgrade = hyper::upgrade::on(&mut request);
            *opened.lock().unwrap_or_else(PoisonError::into_inner) = Some((passage, upgrade));
            Response::new(Full::default())
        }
        Err(refusal) => {
            let target = format!("{} {}", request.method(), request.uri());
            let target = target.strip_prefix("CONNECT ").unwrap_or(&target);
            let address = refusal.address.map(|address| address.to_string());
            place.jail.tell_not_let_through(target, address, &refusal.reason, now());
            refused(&refusal)
        }
    }
}

/// The reason stands in the status line too: that much the AWS SDKs and git show.
fn refused(refusal: &Refusal) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("stockade: {}\n", refusal.reason))));
    *response.status_mut() = refusal.status;
    if let Ok(phrase) = ReasonPhrase::try_from(refusal.reason.as_bytes()) {
        response.extensions_mut().insert(phrase);
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn carry(mut passage: Passage, mut jail: TcpStream, first: Vec<u8>, place: &Place) {
    let first = if passage.tls {
        match hello::read(&mut jail, first, &passage.target.host.to_string()).await {
            Ok(first) => first,
            Err(why) => return cut_off(&passage, jail, &why, place).await,
        }
    } else {
        first
    };
    if !place.jail.notices.tell_surely(opened(&passage, place)).await {
        return;
    }
    let limits = passage.allowance.limits;
    let bounds = Bounds { bytes: limits.bytes, idle: Duration::from_secs(limits.idle) };
    let (target, address) = (passage.target.clone(), passage.address);
    let meter = Meter::new(&place.jail.egress.used);
    let mut record = Record { place, target: &target, address, meter: &meter, reason: "the jail ended".into() };
    let revoked = revoked(&target, address, passage.tls, place);
    record.reason = tokio::select! {
        end = tunnel::run(&mut jail, &mut passage.outside, &first, bounds, &meter) => {
            if end == End::Spent {
                place.jail.tell_limit("bytes through this jail's egress door", now());
            }
            end.to_string()
        }
        () = revoked => "the rule that allowed it is gone".into(),
    };
}

/// Nothing of what the jail said goes on.
async fn cut_off(passage: &Passage, mut jail: TcpStream, why: &NoHello, place: &Place) {
    let address = Some(passage.address.ip().to_string());
    place.jail.tell_not_let_through(&passage.target.to_string(), address, &why.to_string(), now());
    if matches!(why, NoHello::Nameless | NoHello::Encrypted | NoHello::Another(_)) {
        let _ = timeout(HEADERS_WITHIN, jail.write_all(&DENIED)).await;
    }
}

/// Comes back when the rules in force no longer allow the connection.
async fn revoked(target: &Target, address: SocketAddr, tls: bool, place: &Place) {
    let mut pushed = place.pushed.clone();
    loop {
        let allowed = pushed
            .borrow_and_update()
            .egress
            .as_ref()
            .is_some_and(|said| still_allowed(said, target, address.ip(), tls));
        if !allowed || pushed.changed().await.is_err() {
            return;
        }
    }
}

fn opened(passage: &Passage, place: &Place) -> Event {
    Event::EgressOpened {
        session: place.jail.session,
        user: place.jail.user.to_string(),
        host: passage.target.host.to_string(),
        port: passage.target.port,
        address: passage.address.ip().to_string(),
    }
}

/// Tells the audit how a connection ended, also where the jail's end drops it in the middle.
struct Record<'a> {
    place: &'a Place,
    target: &'a Target,
    address: SocketAddr,
    meter: &'a Meter<'a>,
    reason: String,
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let jail = &self.place.jail;
        jail.notices.tell(Event::EgressClosed {
            session: jail.session,
            user: jail.user.to_string(),
            host: self.target.host.to_string(),
            port: self.target.port,
            address: self.address.ip().to_string(),
            sent: self.meter.sent.load(Ordering::Relaxed),
            received: self.meter.received.load(Ordering::Relaxed),
            milliseconds: u64::try_from(self.meter.elapsed().as_millis()).unwrap_or(u64::MAX),
            reason: std::mem::take(&mut self.reason),
        });
    }
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;
