//! What the warden hears, from everybody, in one order.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::clusters::Found;
use super::court::{Asker, Judged, Review};
use super::locks::Change;
use crate::audit::Event;
use crate::identity::Principal;
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
    /// A laptop's user was decided on again.
    LaptopReviewed(SessionId, Review),
    /// Somebody who asks for a token was decided on again.
    TokenReviewed(Box<(Asker, String)>, Review),
    Locks(Change),
    Due(Due),
    Grant(WardenToPorter),
    Event(Event),
    /// EKS was asked.
    Found(Vec<Found>),
}

/// What was put off.
#[derive(Debug)]
pub enum Due {
    /// The jailer had no room to hear that a session ends.
    End(SessionId),
    /// Nobody came back for a session whose connection was lost.
    Linger(SessionId),
    /// A channel that was closed by its client has had its hang-up; now it must go.
    Kill(SessionId, Number),
    /// The porter is to hear what a session may reach, and who it is on clusters.
    Rights(SessionId),
    /// The porter could not take all clusters.
    Clusters,
    /// The porter is to hear of a laptop's grant.
    Laptop(SessionId),
    /// The time of a laptop's token may be over.
    Lapse(SessionId),
    /// Nobody could say whether they may stay.
    Review(SessionId),
    /// A cycle is over for whoever of this user is in.
    Cycle(Principal),
    /// Refused logins were not told one by one.
    Refusals,
    /// The keeper's outbox has room again.
    Keeper,
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
