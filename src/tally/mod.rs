//! Tally: counts and names every exec attempt in the jails, by seccomp notification.
//!
//! It may read the memory of any process (CAP_SYS_PTRACE) and nothing else: no file, no network. What it reads there is
//! the jailed program's own word and goes into an event, never into a decision. Each jail's listener is served in turn,
//! so that an exec storm in one delays the execs of that one.

mod attempt;
mod budget;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use self::budget::Budget;
use crate::audit::Event;
use crate::privsep::Role;
use crate::privsep::link::{Link, LinkError};
use crate::privsep::message::{FromJailer, JailerToTally, Number, Silence, ToKeeper};
use crate::session::SessionId;
use crate::sys::notify;
use crate::sys::watched::Watched;

/// Events that wait for the keeper; a full queue holds back the jails that fill it.
const QUEUE: usize = 256;

/// Why tally ends.
#[derive(Debug, thiserror::Error)]
pub enum TallyError {
    #[error("lost the jailer")]
    Jailer(#[source] LinkError),
    #[error("cannot serve a link or a listener")]
    Watch(#[source] std::io::Error),
}

/// Serves until the jailer closes the control link.
pub async fn serve(control: Link<Silence, FromJailer<JailerToTally>>) -> Result<(), TallyError> {
    let (events, queue) = mpsc::channel(QUEUE);
    let (keeper, keepers) = mpsc::channel(1);
    tokio::spawn(forward(queue, keepers));
    let mut watched: HashMap<SessionId, Vec<AbortHandle>> = HashMap::new();
    loop {
        let (message, mut descriptors) = match control.recv().await {
            Ok(received) => received,
            Err(LinkError::Closed) => return Ok(()),
            Err(e) => return Err(TallyError::Jailer(e)),
        };
        match (message, descriptors.pop()) {
            (FromJailer::Peer(Role::Keeper), Some(socket)) => {
                let link = Link::new(socket).map_err(TallyError::Watch)?;
                let _ = keeper.send(link).await;
            }
            (FromJailer::Told(JailerToTally::Watch { session, number }), Some(listener)) => {
                let task = tokio::spawn(watch(session, number, listener, events.clone()));
                watched.entry(session).or_default().push(task.abort_handle());
            }
            (FromJailer::Told(JailerToTally::Gone { session }), _) => {
                watched.remove(&session).into_iter().flatten().for_each(|task| task.abort());
            }
            (FromJailer::Peer(_) | FromJailer::Begin | FromJailer::Reload, _) => {}
            (FromJailer::Told(JailerToTally::Watch { .. }), None) => {}
        }
    }
}

/// Sends events to whichever keeper there is; while there is none they wait, and the jails with them.
async fn forward(mut queue: mpsc::Receiver<ToKeeper>, mut keepers: mpsc::Receiver<Link<ToKeeper, Silence>>) {
    let Some(mut keeper) = keepers.recv().await else { return };
    while let Some(event) = queue.recv().await {
        while keeper.send(&event).await.is_err() {
            let Some(next) = keepers.recv().await else { return };
            keeper = next;
        }
        while let Ok(next) = keepers.try_recv() {
            keeper = next;
        }
    }
}

/// Serves one listener until its last process is gone.
async fn watch(session: SessionId, number: Number, listener: OwnedFd, events: mpsc::Sender<ToKeeper>) {
    let Ok(listener) = Watched::new(listener).map(Arc::new) else { return };
    notify::wake_in_place(std::os::fd::AsFd::as_fd(&*listener));
    let mut budget = Budget::new(tokio::time::Instant::now());
    loop {
        let attempt = match listener.io(Interest::READABLE, notify::receive).await {
            Ok(attempt) => attempt,
            // The process was killed between its call and our reading.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(_) => return,
        };
        let exec = attempt::read(&attempt);
        let socket = std::os::fd::AsFd::as_fd(&*listener);
        // What was read counts only if the same process still waits: a pid is used again.
        if notify::still_waits(socket, attempt.id) {
            report(session, number, exec, &mut budget, &events).await;
            let _ = notify::go_on(std::os::fd::AsFd::as_fd(&*listener), attempt.id);
        }
        tokio::task::yield_now().await;
    }
}

async fn report(
    session: SessionId,
    number: Number,
    exec: crate::recording::Exec,
    budget: &mut Budget,
    events: &mpsc::Sender<ToKeeper>,
) {
    match budget.spend(tokio::time::Instant::now()) {
        budget::Spent::Within => {}
        budget::Spent::Over => return,
        budget::Spent::After { unlisted } => {
            let what = format!("{unlisted} exec attempts came faster than they are listed");
            let event = Event::LimitHit { session: Some(session), what };
            let _ = events.send(ToKeeper::Event(event)).await;
        }
    }
    let _ = events.send(ToKeeper::Exec { session, number, exec }).await;
}
