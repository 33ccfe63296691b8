use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, watch};

use super::GateError;
use crate::audit::Event;
use crate::privsep::link::{Link, LinkError};
use crate::privsep::message::{Silence, ToKeeper};
use crate::privsep::{Accusation, Role};

/// Events that may wait for the keeper.
const WAITING: usize = 1024;

/// The gate's events on their way to the keeper, who writes them.
#[derive(Debug)]
pub struct Witness {
    events: mpsc::Sender<Event>,
    present: watch::Sender<bool>,
    lost: AtomicU64,
    end: mpsc::Sender<GateError>,
}

type KeeperLink = Link<ToKeeper, Silence>;

impl Witness {
    /// The task ends with the sender of links.
    pub fn start(end: mpsc::Sender<GateError>) -> (Arc<Self>, mpsc::Sender<KeeperLink>) {
        let (events, waiting) = mpsc::channel(WAITING);
        let (links, fresh) = mpsc::channel(1);
        let witness = Arc::new(Self { events, present: watch::Sender::new(false), lost: AtomicU64::new(0), end });
        tokio::spawn(witness.clone().carry(waiting, fresh));
        (witness, links)
    }

    pub fn present(&self) -> bool {
        *self.present.borrow()
    }

    /// Returns when a keeper has come.
    pub async fn arrived(&self) {
        let _ = self.present.subscribe().wait_for(|present| *present).await;
    }

    /// False: the event will never be written, so what it tells of must not happen.
    pub fn tell(&self, event: Event) -> bool {
        match self.events.try_send(event) {
            Ok(()) => true,
            Err(_) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    async fn carry(self: Arc<Self>, mut events: mpsc::Receiver<Event>, mut links: mpsc::Receiver<KeeperLink>) {
        let mut unsent = None;
        let Some(mut link) = links.recv().await else { return };
        loop {
            self.present.send_replace(true);
            tokio::select! {
                () = self.forward(&link, &mut events, &mut unsent) => {}
                // Nothing is ever said here: whatever comes is the keeper's end, or a breach.
                told = link.recv() => if let Err(LinkError::Breach(what)) = told {
                    let _ = self.end.try_send(Accusation { role: Role::Keeper, what }.into());
                },
                fresh = links.recv() => match fresh {
                    Some(fresh) => { link = fresh; continue }
                    None => return,
                },
            }
            self.present.send_replace(false);
            tracing::warn!("the keeper is away; no connection is accepted until it is back");
            match links.recv().await {
                Some(fresh) => link = fresh,
                None => return,
            }
        }
    }

    /// Sends until the link fails. An event stays in `unsent` until the kernel has it.
    async fn forward(&self, link: &KeeperLink, events: &mut mpsc::Receiver<Event>, unsent: &mut Option<ToKeeper>) {
        loop {
            if let Some(message) = unsent {
                if link.send(message).await.is_err() {
                    return;
                }
                *unsent = None;
            }
            let event = match self.lost.swap(0, Ordering::Relaxed) {
                0 => events.recv().await,
                lost => {
                    let what = format!("{lost} events of the gate were lost: more came than the keeper could take");
                    Some(Event::LimitHit { session: None, what })
                }
            };
            match event {
                Some(event) => *unsent = Some(ToKeeper::Event(event)),
                None => std::future::pending().await,
            }
        }
    }
}
