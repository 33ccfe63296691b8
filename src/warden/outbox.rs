//! What the warden says to one peer: never waits for it, and notices when it has stopped listening.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::privsep::link::Link;
use crate::privsep::message::Message;

/// What may wait for a peer. A captured peer that stops reading must not make the warden grow, or stop.
const WAITING: usize = 1024;

/// The sending side of a link.
#[derive(Debug)]
pub struct Outbox<S>(mpsc::Sender<S>);

impl<S: Message + Sync> Outbox<S> {
    pub fn to<R: Message>(link: Arc<Link<S, R>>) -> Self {
        let (outbox, mut waiting) = mpsc::channel::<S>(WAITING);
        tokio::spawn(async move {
            while let Some(message) = waiting.recv().await {
                if link.send(&message).await.is_err() {
                    return;
                }
            }
        });
        Self(outbox)
    }

    /// False when the peer is gone or has not read for very long: what is said to it is lost.
    pub fn say(&self, message: S) -> bool {
        self.0.try_send(message).is_ok()
    }
}
