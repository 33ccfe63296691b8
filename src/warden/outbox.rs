//! What the warden says to one peer: never waits for it, and notices when it has stopped listening.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;

use crate::privsep::link::Link;
use crate::privsep::message::Message;

/// What may wait for a peer. A captured peer that stops reading must not make the warden grow, or stop.
const WAITING: usize = 1024;

/// How long a peer may take for the last words.
const FLUSH: Duration = Duration::from_secs(2);

/// The sending side of a link.
#[derive(Debug)]
pub struct Outbox<S> {
    waiting: mpsc::Sender<S>,
    /// Ends with what it could not send.
    sends: JoinHandle<Vec<S>>,
}

impl<S: Message + Sync> Outbox<S> {
    pub fn to<R: Message>(link: Arc<Link<S, R>>) -> Self {
        let (outbox, mut waiting) = mpsc::channel::<S>(WAITING);
        let sends = tokio::spawn(async move {
            while let Some(message) = waiting.recv().await {
                if link.send(&message).await.is_err() {
                    waiting.close();
                    return std::iter::once(message).chain(std::iter::from_fn(|| waiting.try_recv().ok())).collect();
                }
            }
            Vec::new()
        });
        Self { waiting: outbox, sends }
    }

    /// False when the peer is gone or has not read for very long: what is said to it is lost.
    pub fn say(&self, message: S) -> bool {
        self.offer(message).is_ok()
    }

    /// The same, and gives back what is not said.
    pub fn offer(&self, message: S) -> Result<(), S> {
        self.waiting.try_send(message).map_err(TrySendError::into_inner)
    }

    pub fn is_gone(&self) -> bool {
        self.waiting.is_closed()
    }

    pub fn has_room(&self) -> bool {
        !self.is_gone() && self.waiting.capacity() > 0
    }

    /// Waits for room, or for the peer's end.
    pub fn room(&self) -> impl Future<Output = ()> + Send + use<S> {
        let waiting = self.waiting.clone();
        async move { drop(waiting.reserve().await) }
    }

    /// What a peer that is gone has not been sent.
    pub async fn unsaid(self) -> Vec<S> {
        drop(self.waiting);
        self.sends.await.unwrap_or_default()
    }

    /// Sends what still waits, and then this, as far as the peer takes it in time.
    pub async fn flush(self, last: impl IntoIterator<Item = S>) {
        let Self { waiting, sends } = self;
        let flushed = async {
            for message in last {
                if waiting.send(message).await.is_err() {
                    break;
                }
            }
            drop(waiting);
            sends.await
        };
        let _ = tokio::time::timeout(FLUSH, flushed).await;
    }
}
