//! What the keeper tells the warden, over whichever warden is there.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::privsep::link::Link;
use crate::privsep::message::{KeeperToWarden, WardenToKeeper};

/// Messages that wait for a warden; who has more to say waits.
const QUEUE: usize = 1024;

pub(super) type WardenLink = Link<KeeperToWarden, WardenToKeeper>;

/// Counts the wardens there have been.
pub(super) type Reign = u64;

#[derive(Debug)]
pub(super) struct Warden {
    queue: mpsc::Sender<(Option<Reign>, KeeperToWarden)>,
    link: watch::Sender<(Reign, Option<Arc<WardenLink>>)>,
}

impl Warden {
    /// Must be called inside the runtime.
    pub(super) fn new() -> Self {
        let (queue, messages) = mpsc::channel(QUEUE);
        let link = watch::Sender::new((0, None));
        tokio::spawn(send(messages, link.subscribe()));
        Self { queue, link }
    }

    /// A new warden is there.
    pub(super) fn enthrone(&self, link: Arc<WardenLink>) -> Reign {
        self.link.send_modify(|(reign, current)| {
            *reign += 1;
            *current = Some(link);
        });
        self.link.borrow().0
    }

    /// This warden is gone.
    pub(super) fn depose(&self, gone: Reign) {
        self.link.send_if_modified(|(reign, current)| *reign == gone && current.take().is_some());
    }

    /// News: whichever warden comes must hear it.
    pub(super) async fn tell(&self, message: KeeperToWarden) {
        let _ = self.queue.send((None, message)).await;
    }

    /// An answer: only the warden that asked may hear it; another would take it for a breach.
    pub(super) async fn answer(&self, asked: Reign, message: KeeperToWarden) {
        let _ = self.queue.send((Some(asked), message)).await;
    }
}

type Messages = mpsc::Receiver<(Option<Reign>, KeeperToWarden)>;

async fn send(mut messages: Messages, mut link: watch::Receiver<(Reign, Option<Arc<WardenLink>>)>) {
    while let Some((asked, message)) = messages.recv().await {
        let mut failed = 0;
        loop {
            let next = link.wait_for(|(reign, link)| link.is_some() && *reign > failed).await.map(|next| next.clone());
            let Ok((reign, Some(link))) = next else { return };
            if asked.is_some_and(|asked| asked != reign) || link.send(&message).await.is_ok() {
                break;
            }
            failed = reign;
        }
    }
}
