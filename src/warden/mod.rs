//! The warden: decides who gets in and what a session may have, and asks the jailer, the keeper and the porter to do it.
//!
//! It holds the policy and the bastion's AWS identity. It never sees a byte of a terminal, of a recording, or of what a
//! jail sends. Everything it hears goes through one queue, so that each decision sees a whole state.

pub mod authority;
pub mod clusters;
mod court;
pub mod credentials;
pub mod directory;
mod egress;
pub mod judge;
pub mod locks;
mod outbox;
mod post;
mod refusals;
mod sessions;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use self::court::Court;
use self::outbox::Outbox;
use self::post::{Post, read};
use crate::privsep::Role;
use crate::privsep::link::{Link, LinkError};
use crate::privsep::message::{FromJailer, JailerToWarden, Silence, WardenToJailer, WardenToPorter};

pub use self::court::{Claimant, Judge, Judgement, Review};
pub use self::sessions::{Sponsor, Terms};

/// Messages that wait to be handled; then their senders wait.
const QUEUE: usize = 1024;

/// What the warden starts with.
pub struct Start<J, S> {
    pub control: Link<WardenToJailer, FromJailer<JailerToWarden>>,
    pub judge: J,
    pub sponsor: S,
    pub terms: Terms,
    /// What the sponsor has for the porter.
    pub grants: mpsc::Receiver<WardenToPorter>,
    /// What the sponsor has for the audit.
    pub events: mpsc::Receiver<crate::audit::Event>,
    /// The clusters that EKS has, whenever it was asked.
    pub found: mpsc::Receiver<Vec<clusters::Found>>,
    pub locks: locks::Watch,
    /// Reads a new configuration into judge, sponsor and terms.
    pub reload: Box<dyn Fn(Vec<OwnedFd>) -> Option<Terms> + Send>,
}

/// Why the warden ends.
#[derive(Debug, thiserror::Error)]
pub enum WardenError {
    #[error("lost the jailer")]
    Jailer(#[source] LinkError),
    #[error("cannot serve a link")]
    Link(#[source] std::io::Error),
}

/// Serves until the jailer closes the control link.
pub async fn serve<J: Judge, S: Sponsor>(start: Start<J, S>) -> Result<(), WardenError> {
    let Start { control, judge, sponsor, terms, grants, events, found, mut locks, reload } = start;
    let (post, mut letters) = mpsc::channel(QUEUE);
    let control = Arc::new(control);
    let jailer = Outbox::to(control.clone());
    tokio::spawn(read(control, post.clone(), Post::Jailer));
    tokio::spawn(pass_on(grants, post.clone(), Post::Grant));
    tokio::spawn(pass_on(events, post.clone(), Post::Event));
    tokio::spawn(pass_on(found, post.clone(), Post::Found));
    let mut court = Court::new(judge, sponsor, terms, jailer, post.clone());
    // Before anybody is judged.
    court.heed(locks.look());
    tokio::spawn(locks.keep(post.clone()));
    while let Some(letter) = letters.recv().await {
        match letter {
            Post::Jailer(Err(LinkError::Closed)) => {
                court.farewell().await;
                return Ok(());
            }
            Post::Jailer(Err(e)) => return Err(WardenError::Jailer(e)),
            Post::Jailer(Ok((FromJailer::Peer(role), descriptors))) => {
                introduce(&mut court, role, descriptors, &post).map_err(WardenError::Link)?;
            }
            Post::Jailer(Ok((FromJailer::Reload, descriptors))) => {
                if let Some(terms) = reload(descriptors) {
                    court.adopt(terms);
                }
            }
            Post::Jailer(Ok((FromJailer::Begin, _))) => {}
            Post::Jailer(Ok((FromJailer::Told(told), _))) => court.hear_jailer(told),
            Post::Gate(term, Ok((message, _))) => court.hear_gate(term, message),
            Post::Gate(term, Err(error)) => court.lost_gate(term, &error),
            Post::Keeper(reign, Ok((message, _))) => court.hear_keeper(reign, message),
            Post::Keeper(reign, Err(error)) => court.lost_keeper(reign, &error),
            Post::Porter(Err(LinkError::Breach(what))) => court.dismiss(Role::Porter, what),
            Post::Porter(_) => {}
            Post::Judged(judged) => court.judged(*judged),
            Post::Reviewed { session, review } => court.judged_again(session, review),
            Post::LoginReviewed(term, connection, review) => court.login_reviewed(term, connection, review),
            Post::LaptopReviewed(id, review) => court.laptop_reviewed(id, review),
            Post::TokenReviewed(asked, review) => court.token_reviewed(*asked, review),
            Post::Locks(change) => court.heed(change),
            Post::Due(due) => court.due(due),
            Post::Grant(grant) => court.grant(grant),
            Post::Event(event) => court.event(event),
            Post::Found(found) => court.found_clusters(found),
        }
    }
    Ok(())
}

fn introduce<J: Judge, S: Sponsor>(
    court: &mut Court<J, S>,
    role: Role,
    mut descriptors: Vec<OwnedFd>,
    post: &mpsc::Sender<Post>,
) -> std::io::Result<()> {
    let Some(socket) = descriptors.pop() else { return Ok(()) };
    match role {
        Role::Gate => {
            let link = Arc::new(Link::new(socket)?);
            let term = court.met_gate(Outbox::to(link.clone()));
            tokio::spawn(read(link, post.clone(), move |received| Post::Gate(term, received)));
        }
        Role::Keeper => {
            let link = Arc::new(Link::new(socket)?);
            let reign = court.met_keeper(Outbox::to(link.clone()));
            tokio::spawn(read(link, post.clone(), move |received| Post::Keeper(reign, received)));
        }
        Role::Porter => {
            let link = Arc::new(Link::<_, Silence>::new(socket)?);
            court.met_porter(Outbox::to(link.clone()));
            tokio::spawn(read(link, post.clone(), Post::Porter));
        }
        Role::Warden | Role::Tally | Role::Portal => {}
    }
    Ok(())
}

async fn pass_on<T>(mut from: mpsc::Receiver<T>, to: mpsc::Sender<Post>, wrap: fn(T) -> Post) {
    while let Some(item) = from.recv().await {
        if to.send(wrap(item)).await.is_err() {
            return;
        }
    }
}

/// Runs something later, through the queue.
fn later(post: &mpsc::Sender<Post>, after: Duration, due: post::Due) {
    let post = post.clone();
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        let _ = post.send(Post::Due(due)).await;
    });
}
