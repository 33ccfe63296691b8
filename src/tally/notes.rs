//! What tally tells the keeper, and the keeper's word that it is taken down.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::TallyError;
use crate::privsep::link::{Link, LinkError};
use crate::privsep::message::{KeeperToTally, Number, TallyToKeeper};
use crate::privsep::{Accusation, Role};
use crate::recording::Exec;
use crate::session::SessionId;

/// Attempts on their way. Each channel has one at the most, and the queue is first come, first served.
const QUEUE: usize = 64;

pub type KeeperLink = Link<TallyToKeeper, KeeperToTally>;

/// The way to whichever keeper there is.
#[derive(Clone, Debug)]
pub struct Notes {
    queue: mpsc::Sender<TallyToKeeper>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    answers: HashMap<u64, oneshot::Sender<()>>,
}

impl Notes {
    /// The notes, and what carries them.
    pub fn new() -> (Self, Carrier) {
        let (queue, notes) = mpsc::channel(QUEUE);
        let waiting = Arc::<Mutex<Waiting>>::default();
        (Self { queue, waiting: waiting.clone() }, Carrier { notes, waiting })
    }

    /// Returns when a keeper has taken the attempt down; while there is none it waits, and the attempt with it.
    pub async fn take_down(&self, session: SessionId, number: Number, exec: Exec) {
        loop {
            let (answer, noted) = oneshot::channel();
            let ticket = {
                let mut waiting = lock(&self.waiting);
                waiting.last += 1;
                let ticket = waiting.last;
                waiting.answers.insert(ticket, answer);
                ticket
            };
            let note = TallyToKeeper::Exec { ticket, session, number, exec: exec.clone() };
            if self.queue.send(note).await.is_err() {
                // Tally ends; what was not answered waits in the kernel.
                return std::future::pending().await;
            }
            // A keeper that died with it may not have written it: twice is better than never.
            if noted.await.is_ok() {
                return;
            }
        }
    }
}

/// The other end: one keeper after the other.
#[derive(Debug)]
pub struct Carrier {
    notes: mpsc::Receiver<TallyToKeeper>,
    waiting: Arc<Mutex<Waiting>>,
}

impl Carrier {
    pub async fn run(mut self, mut keepers: mpsc::Receiver<KeeperLink>) -> Result<(), TallyError> {
        let Some(mut keeper) = keepers.recv().await else { return Ok(()) };
        loop {
            // Reading and writing wait apart: two ends that both wait to write would wait for ever.
            let next = tokio::select! {
                error = self.hear(&keeper) => {
                    if let LinkError::Breach(what) = error {
                        return Err(Accusation { role: Role::Keeper, what }.into());
                    }
                    keepers.recv().await
                }
                next = keepers.recv() => next,
            };
            // Who still waits tells the next one again.
            lock(&self.waiting).answers.clear();
            let Some(next) = next else { return Ok(()) };
            keeper = next;
        }
    }

    /// Carries until the link fails.
    async fn hear(&mut self, keeper: &KeeperLink) -> LinkError {
        let (notes, waiting) = (&mut self.notes, &self.waiting);
        let say = async {
            while let Some(note) = notes.recv().await {
                // A failed link shows itself to the reader too; its note is told again.
                let _ = keeper.send(&note).await;
            }
            std::future::pending().await
        };
        let listen = async {
            loop {
                match keeper.recv().await {
                    Ok((KeeperToTally::Noted { ticket }, _)) => {
                        let answer = lock(waiting).answers.remove(&ticket);
                        // Whoever waited may be gone with its jail.
                        answer.map(|answer| answer.send(()));
                    }
                    Err(error) => return error,
                }
            }
        };
        tokio::select! {
            error = listen => error,
            error = say => error,
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::privsep::link::pair;

    const PATIENCE: Duration = Duration::from_secs(5);

    type KeeperEnd = Link<KeeperToTally, TallyToKeeper>;

    fn ends() -> (KeeperEnd, KeeperLink) {
        let (ours, theirs) = pair().unwrap();
        (Link::new(ours).unwrap(), Link::new(theirs).unwrap())
    }

    async fn next(keeper: &KeeperEnd) -> (u64, u32) {
        let (TallyToKeeper::Exec { ticket, exec, .. }, _) = timeout(PATIENCE, keeper.recv()).await.unwrap().unwrap();
        (ticket, exec.pid)
    }

    fn exec(pid: u32) -> Exec {
        Exec { pid, path: "/bin/true".into(), arguments: Vec::new() }
    }

    #[tokio::test]
    async fn a_channel_that_is_not_answered_holds_up_no_other_and_a_new_keeper_hears_it_again() {
        let (notes, carrier) = Notes::new();
        let (keepers, links) = mpsc::channel(1);
        tokio::spawn(carrier.run(links));
        let ((keeper, link), session) = (ends(), SessionId::mint());
        keepers.send(link).await.unwrap();
        let take_down = |pid: u32| {
            let notes = notes.clone();
            tokio::spawn(async move { notes.take_down(session, pid, exec(pid)).await })
        };
        let held = take_down(1);
        assert_eq!(next(&keeper).await.1, 1);
        for _ in 0..300 {
            let other = take_down(2);
            let (ticket, pid) = next(&keeper).await;
            assert_eq!(pid, 2);
            keeper.send(&KeeperToTally::Noted { ticket }).await.unwrap();
            timeout(PATIENCE, other).await.unwrap().unwrap();
        }
        assert!(!held.is_finished());
        drop(keeper);
        let (keeper, link) = ends();
        keepers.send(link).await.unwrap();
        let (ticket, pid) = next(&keeper).await;
        assert_eq!(pid, 1, "not answered, so told again");
        keeper.send(&KeeperToTally::Noted { ticket }).await.unwrap();
        timeout(PATIENCE, held).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_keeper_in_breach_is_accused() {
        let (_notes, carrier) = Notes::new();
        let (keepers, links) = mpsc::channel(1);
        let carrier = tokio::spawn(carrier.run(links));
        let (ours, theirs) = pair().unwrap();
        keepers.send(Link::new(theirs).unwrap()).await.unwrap();
        crate::privsep::link::send_packet(std::os::fd::AsFd::as_fd(&ours), b"\xff", &[]).unwrap();
        let ended = timeout(PATIENCE, carrier).await.unwrap().unwrap();
        assert!(matches!(ended, Err(TallyError::Untrusted(Accusation { role: Role::Keeper, .. }))), "{ended:?}");
    }
}
