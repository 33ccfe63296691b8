//! What the warden hears, from everybody, in one order.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::court::{Judged, Review};
use crate::audit::Event;
use crate::privsep::link::{Link, LinkError};
use crate::privsep::message::{
    Connection, FromJailer, GateToWarden, JailerToWarden, KeeperToWarden, Message, Number, Silence, WardenToPorter,
};
use crate::session::SessionId;

type Received<M> = Result<(M, Vec<OwnedFd>), LinkError>;

/// One life of the gate.
pub type Term = u64;

/// A letter.
#[derive(Debug)]
pub enum Post {
    Jailer(Received<FromJailer<JailerToWarden>>),
    Gate(Term, Received<GateToWarden>),
    /// From the keeper of a reign.
    Keeper(u64, Received<KeeperToWarden>),
    Porter(Received<Silence>),
    /// Somebody's keys and groups were looked up, and this is the decision.
    Judged(Box<Judged>),
    /// Somebody who is in was decided on again.
    Reviewed {
        session: SessionId,
        review: Review,
    },
    /// A login of a gate's life was decided on again.
    LoginReviewed(Term, Connection, Review),
    Due(Due),
    Grant(WardenToPorter),
    Event(Event),
}

/// What was put off.
#[derive(Debug)]
pub enum Due {
    /// Nobody came back for a session whose connection was lost.
    Linger(SessionId),
    /// A channel that was closed by its client has had its hang-up; now it must go.
    Kill(SessionId, Number),
    /// The porter is to hear what a session may reach.
    Egress(SessionId),
    /// Nobody could say whether they may stay.
    Review(SessionId),
}

/// Reads a link into the queue until it fails; the failure is the last letter.
pub async fn read<S: Message, R: Message>(
    link: Arc<Link<S, R>>,
    post: mpsc::Sender<Post>,
    wrap: impl Fn(Received<R>) -> Post,
) {
    loop {
        let received = link.recv().await;
        let last = received.is_err();
        if post.send(wrap(received)).await.is_err() || last {
            return;
        }
    }
}
