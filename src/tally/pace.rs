//! How fast the attempts of one channel are taken: a person's at once, a loop's no faster than they can be kept.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// So many at once …
const BURST: u32 = 2000;
/// … and then one in so long: 200 a second.
const EACH: Duration = Duration::from_millis(5);

/// A channel's share. Whoever has used it up waits; nothing is left out.
#[derive(Debug)]
pub struct Pace {
    /// When the whole burst may be had again.
    whole: Instant,
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self { whole: now }
    }

    /// When the next attempt may be taken.
    fn next(&self, now: Instant) -> Instant {
        let ahead = self.whole.saturating_duration_since(now);
        now + (ahead + EACH).saturating_sub(EACH * BURST)
    }

    fn spend(&mut self, now: Instant) {
        self.whole = self.whole.max(now) + EACH;
    }

    /// Waits until the next attempt may be taken; until then it waits in the kernel, one of each thread at the most.
    pub async fn turn(&self) {
        let now = Instant::now();
        let next = self.next(now);
        if next > now {
            sleep_until(next).await;
        }
    }

    /// An attempt was taken.
    pub fn taken(&mut self) {
        self.spend(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_each_waits_its_turn() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for _ in 0..BURST {
            assert_eq!(pace.next(start), start);
            pace.spend(start);
        }
        assert_eq!(pace.next(start), start + EACH);
        let mut now = start;
        for _ in 0..1000 {
            now = pace.next(now);
            pace.spend(now);
        }
        assert_eq!(now, start + EACH * 1000);
        // A second of rest is worth two hundred.
        now += Duration::from_secs(1);
        let free = std::iter::from_fn(|| (pace.next(now) == now).then(|| pace.spend(now))).count();
        assert_eq!(free, 200);
    }

    #[test]
    fn rest_earns_no_more_than_the_burst() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let later = start + Duration::from_secs(3600);
        let free = std::iter::from_fn(|| (pace.next(later) == later).then(|| pace.spend(later))).count();
        assert_eq!(free, BURST as usize);
    }
}
