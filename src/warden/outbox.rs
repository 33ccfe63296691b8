//! What the warden says to one peer: never waits for it, and notices when it has stopped listening.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::privsep::link::Link;
use crate::privsep::message::Message;

/// What may wait for a peer. A captured peer that stops reading must not make the warden grow, or stop.
const WAITING: usize = 1024;

/// How long what was said last may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The sending side of a link.
#[derive(Debug)]
pub struct Outbox<S> {
    messages: mpsc::Sender<S>,
    sender: JoinHandle<()>,
}

impl<S: Message + Sync> Outbox<S> {
    pub fn to<R: Message>(link: Arc<Link<S, R>>) -> Self {
        let (outbox, mut waiting) = mpsc::channel::<S>(WAITING);
        let sender = tokio::spawn(async move {
            while let Some(message) = waiting.recv().await {
                if link.send(&message).await.is_err() {
                    return;
                }
            }
        });
        Self { messages: outbox, sender }
    }

    /// False when the peer is gone or has not read for very long: what is said to it is lost.
    pub fn say(&self, message: S) -> bool {
        self.messages.try_send(message).is_ok()
    }

    /// Waits until all that was said has left.
    pub async fn empty(self) {
        drop(self.messages);
        let _ = timeout(LAST_WORDS, self.sender).await;
    }
}
