//! Tally: names every exec attempt in the jails, by seccomp notification.
//!
//! It may read the memory of any process (CAP_SYS_PTRACE) and nothing else: no file, no network. What it reads there is
//! the jailed program's own word and goes into an event, never into a decision. An attempt goes on when the keeper has
//! taken it down. Each channel's listener is served by a task of its own, one attempt at a time: an exec storm waits for
//! itself in the kernel, and so does whoever fills its recording; no attempt is left out, and no other channel waits. A
//! jail can make a read of its memory last (threads that hold its memory map, pages on a slow disk), so reads have threads
//! of their own, one a jail at a time.

mod attempt;
mod notes;
mod pace;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use tokio::io::Interest;
use tokio::sync::{Semaphore, mpsc};

use self::notes::{KeeperLink, Notes};
use self::pace::Pace;
use crate::privsep::link::{Link, LinkError};
use crate::privsep::message::{FromJailer, JailerToTally, Number, Silence};
use crate::privsep::{Accusation, Role};
use crate::recording::Exec;
use crate::session::SessionId;
use crate::sys::notify::{self, Slate};
use crate::sys::watched::Watched;

/// Why tally ends.
#[derive(Debug, thiserror::Error)]
pub enum TallyError {
    #[error("lost the jailer")]
    Jailer(#[source] LinkError),
    #[error("cannot serve a link or a listener")]
    Watch(#[source] std::io::Error),
    #[error("a peer cannot be trusted")]
    Untrusted(#[from] Accusation),
}

/// Serves until the jailer closes the control link.
pub async fn serve(control: Link<Silence, FromJailer<JailerToTally>>) -> Result<(), TallyError> {
    let (notes, carrier) = Notes::new();
    let (keeper, keepers) = mpsc::channel(1);
    tokio::select! {
        done = attend(control, notes, keeper) => done,
        done = carrier.run(keepers) => done,
    }
}

async fn attend(
    control: Link<Silence, FromJailer<JailerToTally>>,
    notes: Notes,
    keeper: mpsc::Sender<KeeperLink>,
) -> Result<(), TallyError> {
    let mut turns = HashMap::<SessionId, Weak<Semaphore>>::new();
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
            (FromJailer::Told(JailerToTally::Watch { session, number }), Some(slate)) => {
                let (Some(listener), Ok(slate)) = (descriptors.pop(), Slate::open(slate)) else { continue };
                turns.retain(|_, turn| turn.strong_count() > 0);
                let turn = turns.get(&session).and_then(Weak::upgrade).unwrap_or_else(|| Arc::new(Semaphore::new(1)));
                turns.insert(session, Arc::downgrade(&turn));
                tokio::spawn(watch(session, number, (listener, slate), turn, notes.clone()));
            }
            (FromJailer::Peer(_) | FromJailer::Begin | FromJailer::Reload, _) => {}
            (FromJailer::Told(JailerToTally::Watch { .. }), None) => {}
        }
    }
}

/// Serves one listener until its last process is gone.
async fn watch(
    session: SessionId,
    number: Number,
    (listener, mut slate): (OwnedFd, Slate),
    turn: Arc<Semaphore>,
    notes: Notes,
) {
    let Ok(listener) = Watched::new(listener) else { return };
    notify::wake_in_place(listener.as_fd());
    let mut pace = Pace::new(tokio::time::Instant::now());
    // A former tally may have died with an attempt in its hands, listed or not: twice is better than never.
    let mut left = Some(slate.last()).filter(|left| notify::still_waits(listener.as_fd(), left.id));
    loop {
        let attempt = match left.take() {
            Some(left) => left,
            None => {
                pace.turn().await;
                match listener.io(Interest::READABLE, |listener| notify::receive(listener, &mut slate)).await {
                    Ok(attempt) => attempt,
                    // The process was killed before it was our turn: nothing was executed, and the kernel no longer
                    // knows what.
                    Err(e) if e.raw_os_error() == Some(libc::ENOENT) => continue,
                    Err(_) => return,
                }
            }
        };
        pace.taken();
        let Some(mut exec) = read(&turn, attempt).await else { return };
        // What was read counts only if the same process still waits, for a pid is used again; the attempt counts anyway.
        if !notify::still_waits(listener.as_fd(), attempt.id) {
            (exec.path, exec.arguments) = (String::new(), Vec::new());
        }
        notes.take_down(session, number, exec).await;
        let _ = notify::go_on(listener.as_fd(), attempt.id);
    }
}

/// Beside the runtime, and never two of one jail.
async fn read(turn: &Semaphore, attempt: notify::Attempt) -> Option<Exec> {
    // Never closed.
    let _turn = turn.acquire().await.ok()?;
    tokio::task::spawn_blocking(move || attempt::read(&attempt)).await.ok()
}
