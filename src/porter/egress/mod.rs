//! The egress door: HTTP CONNECT and SOCKS 5 to what the session's rules name, and nothing else.
//!
//! Both are spoken at one address, for the first byte tells them apart: one door to fence, to count and to remember.
//!
//! The name is resolved here, outside the jail; the very address that was checked is connected to; what the jail then
//! says in TLS must name the same host. So neither a name that moves nor a name that is not meant leads anywhere else.

mod admit;
mod connect;
mod hello;
mod names;
mod socks;
mod tunnel;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::door::{HEADERS_WITHIN, Listener, PAUSE, Stream, Words, now, receive};
use super::jail::{Allowance, Jail, Pushed};
use crate::audit::Event;
use crate::policy::egress::Target;

use admit::{Refusal, still_allowed};
use hello::NoHello;
use tunnel::{Bounds, End, Meter};

pub use names::{Names, Sources};

/// From the first byte to the answer: a head, a name and a few addresses.
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

impl Place {
    /// A jail that asks too often waits, so that others need not.
    async fn breathe(&self) {
        if self.jail.is_hasty(now()) {
            sleep(PAUSE).await;
        }
    }
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

/// One wish, and then what it opened.
async fn converse(stream: TcpStream, place: Arc<Place>) {
    let _ = stream.set_nodelay(true);
    let mut first = [0];
    let Ok(Ok(1)) = timeout(HEADERS_WITHIN, stream.peek(&mut first)).await else { return };
    // No method of HTTP begins like this.
    let opened = if first == [socks::VERSION] {
        timeout(ADMISSION, socks::ask(stream, &place)).await.ok().flatten()
    } else {
        connect::ask(stream, &place).await
    };
    if let Some((passage, jail, read)) = opened {
        carry(passage, jail, read, &place).await;
    }
}

/// Tells the audit of a wish that does not go through.
fn tell(target: &str, refusal: &Refusal, place: &Place) {
    let address = refusal.address.map(|address| address.to_string());
    place.jail.tell_not_let_through(target, address, &refusal.reason, now());
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
