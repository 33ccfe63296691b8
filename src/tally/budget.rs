//! How many attempts of one channel are listed: all of a person's, not all of a loop's.

use std::time::Duration;

use tokio::time::Instant;

const BURST: u32 = 2000;
const PER_SECOND: u32 = 200;

/// A bucket of attempts that fills with time.
#[derive(Debug)]
pub struct Budget {
    left: u32,
    filled: Instant,
    unlisted: u64,
}

/// What became of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    Within,
    /// Counted, not listed.
    Over,
    /// The first that is listed again, after so many that were not.
    After {
        unlisted: u64,
    },
}

impl Budget {
    pub fn new(now: Instant) -> Self {
        Self { left: BURST, filled: now, unlisted: 0 }
    }

    pub fn spend(&mut self, now: Instant) -> Spent {
        let seconds = u32::try_from((now - self.filled).as_secs()).unwrap_or(u32::MAX);
        if seconds > 0 {
            self.left = self.left.saturating_add(seconds.saturating_mul(PER_SECOND)).min(BURST);
            self.filled += Duration::from_secs(u64::from(seconds));
        }
        if self.left == 0 {
            self.unlisted += 1;
            return Spent::Over;
        }
        self.left -= 1;
        match std::mem::take(&mut self.unlisted) {
            0 => Spent::Within,
            unlisted => Spent::After { unlisted },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_counted_and_then_told() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert!((0..BURST).all(|_| budget.spend(start) == Spent::Within));
        assert_eq!([budget.spend(start), budget.spend(start)], [Spent::Over, Spent::Over]);
        assert_eq!(budget.spend(start + Duration::from_secs(1)), Spent::After { unlisted: 2 });
    }
}
