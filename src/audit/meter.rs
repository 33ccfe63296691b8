use std::time::{Duration, Instant};

/// Lets a burst of lines through and then one at a time; the rest is counted. A flood cannot fill what is behind it.
#[derive(Debug)]
pub struct Meter {
    burst: Duration,
    every: Duration,
    /// When all that was let through is paid for.
    paid: Option<Instant>,
    held: u64,
}

impl Meter {
    pub fn new(burst: u32, every: Duration) -> Self {
        Self { burst: every.saturating_mul(burst.saturating_sub(1)), every, paid: None, held: 0 }
    }

    pub fn passes(&mut self, now: Instant) -> bool {
        let paid = self.paid.map_or(now, |paid| paid.max(now));
        if paid.saturating_duration_since(now) > self.burst {
            self.held += 1;
            return false;
        }
        self.paid = Some(paid + self.every);
        true
    }

    /// Nothing is owed and nothing is to be told.
    pub fn is_idle(&self, now: Instant) -> bool {
        self.held == 0 && self.paid.is_none_or(|paid| paid <= now)
    }

    /// How many were held back since this was last asked.
    pub fn held(&mut self) -> u64 {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_and_then_a_trickle() {
        let (mut meter, start) = (Meter::new(3, SECOND), Instant::now());
        let passed = |meter: &mut Meter, now| (0..10).filter(|_| meter.passes(now)).count();
        assert_eq!((passed(&mut meter, start), meter.held(), meter.held()), (3, 7, 0));
        assert_eq!(passed(&mut meter, start + SECOND), 1);
        assert!(!meter.is_idle(start + 60 * SECOND), "some are to be told");
        meter.held();
        assert!(!meter.is_idle(start + SECOND) && meter.is_idle(start + 60 * SECOND));
        assert_eq!(passed(&mut meter, start + 60 * SECOND), 3);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_more_than_the_rate_passes(steps in prop::collection::vec(0u64..3000, 1..300)) {
            let (mut meter, start) = (Meter::new(5, SECOND), Instant::now());
            let (mut at, mut passed) = (Duration::ZERO, 0);
            for step in &steps {
                at += Duration::from_millis(*step);
                passed += u64::from(meter.passes(start + at));
            }
            prop_assert_eq!(passed + meter.held(), steps.len() as u64);
            prop_assert!(passed <= 5 + at.as_secs() + 1);
        }
    }
}
