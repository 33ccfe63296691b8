use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::audit::Event;
use crate::privsep::link::Link;
use crate::privsep::message::{PorterToKeeper, Silence};

/// The porter's end of its link to the keeper.
pub type KeeperLink = Link<PorterToKeeper, Silence>;

type Keeper = Option<Arc<KeeperLink>>;

/// How many events wait while the keeper is behind or being started again.
const QUEUE: usize = 1024;

/// The way of audit events to the keeper: never waits if not asked to, and counts what it must drop.
#[derive(Clone, Debug)]
pub struct Notices {
    queue: mpsc::Sender<Event>,
    keeper: Arc<watch::Sender<Keeper>>,
    lost: Arc<AtomicU64>,
}

impl Notices {
    /// Starts the task that sends.
    pub fn begin() -> Self {
        let (queue, events) = mpsc::channel(QUEUE);
        let (keeper, links) = watch::channel(None);
        let lost = Arc::new(AtomicU64::new(0));
        tokio::spawn(carry(events, links, Arc::clone(&lost)));
        Self { queue, keeper: Arc::new(keeper), lost }
    }

    /// From now on events go over this link.
    pub fn to(&self, link: Arc<KeeperLink>) {
        self.keeper.send_replace(Some(link));
    }

    /// There is no keeper, until the jailer brings the next.
    pub fn to_nobody(&self) {
        self.keeper.send_replace(None);
    }

    /// The keeper itself, waited for so long.
    pub async fn keeper(&self, within: Duration) -> Keeper {
        let mut keeper = self.keeper.subscribe();
        let there = timeout(within, keeper.wait_for(Option::is_some)).await;
        there.ok().and_then(Result::ok).and_then(|link| link.clone())
    }

    /// Waits until there is room for an event. Who begins nothing before that loses none with `tell_in_the_end`.
    pub async fn room(&self) -> bool {
        self.queue.reserve().await.is_ok()
    }

    /// Tells without waiting and without losing it: what does not go at once waits beside.
    pub fn tell_in_the_end(&self, event: Event) {
        let Err(TrySendError::Full(event)) = self.queue.try_send(event) else { return };
        let queue = self.queue.clone();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { queue.send(event).await });
        }
    }

    /// Waits for room: what an event must stand for does not happen before it. False when nobody takes events any more.
    pub async fn tell_surely(&self, event: Event) -> bool {
        self.queue.send(event).await.is_ok()
    }

    pub fn tell(&self, event: Event) {
        if self.queue.try_send(event).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn carry(mut events: mpsc::Receiver<Event>, mut links: watch::Receiver<Keeper>, lost: Arc<AtomicU64>) {
    while let Some(event) = events.recv().await {
        if !deliver(event, &mut links).await {
            return;
        }
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let what = format!("audit events of doors: {lost} were dropped while the keeper was behind");
            if !deliver(Event::LimitHit { session: None, what }, &mut links).await {
                return;
            }
        }
    }
}

/// Sends one event, over the next link if this one is dead; false when there will be no other.
async fn deliver(event: Event, links: &mut watch::Receiver<Keeper>) -> bool {
    let message = PorterToKeeper::Event(event);
    loop {
        let link = links.borrow_and_update().clone();
        if let Some(link) = link
            && link.send(&message).await.is_ok()
        {
            return true;
        }
        if links.changed().await.is_err() {
            return false;
        }
    }
}

/// Lets a few through at once and then one every so many seconds, and counts the rest.
#[derive(Debug)]
pub struct Meter {
    most: i64,
    every: i64,
    at: Mutex<Mark>,
}

#[derive(Debug)]
struct Mark {
    left: i64,
    since: i64,
    unsaid: u64,
}

impl Meter {
    pub fn new(most: i64, every: i64) -> Self {
        Self { most, every, at: Mutex::new(Mark { left: most, since: 0, unsaid: 0 }) }
    }

    /// Whether this one goes through, and how many did not since the last that did.
    pub fn pass(&self, now: i64) -> Option<u64> {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if now < at.since {
            // The clock was set back: count from here.
            at.since = now;
        }
        let earned = now.saturating_sub(at.since) / self.every.max(1);
        if earned > 0 {
            at.left = at.left.saturating_add(earned).min(self.most);
            at.since = now;
        }
        if at.left < 1 {
            at.unsaid += 1;
            return None;
        }
        at.left -= 1;
        Some(std::mem::take(&mut at.unsaid))
    }
}

/// Counts within each second of the clock.
#[derive(Debug, Default)]
pub struct Pace(Mutex<(i64, u32)>);

impl Pace {
    /// Counts one; whether this second has seen more than `most`.
    pub fn is_over(&self, most: u32, now: i64) -> bool {
        let mut at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if at.0 != now {
            *at = (now, 0);
        }
        at.1 = at.1.saturating_add(1);
        at.1 > most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_a_minute_that_says_how_many() {
        let meter = Meter::new(1, 60);
        assert_eq!(meter.pass(1000), Some(0));
        assert_eq!((0..59).filter_map(|s| meter.pass(1000 + s)).count(), 0);
        assert_eq!(meter.pass(1060), Some(59));
        assert_eq!(meter.pass(5), None, "a clock set back is no way to earn");
    }

    #[test]
    fn each_second_counts_anew() {
        let pace = Pace::default();
        assert_eq!((0..5).map(|_| pace.is_over(3, 1)).collect::<Vec<_>>(), [false, false, false, true, true]);
        assert!(!pace.is_over(3, 2));
    }
}
