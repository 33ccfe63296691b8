use std::time::Duration;

/// How fast a recording is shown again.
#[derive(Clone, Debug)]
pub struct Pace {
    speed: f64,
    /// What lies before is shown at once.
    seek: Duration,
    /// No pause of the recording counts for more.
    idle_limit: Option<Duration>,
    last: Duration,
}

impl Pace {
    /// `speed` above zero; anything else is 1.
    pub fn new(speed: f64, seek: Duration, idle_limit: Option<Duration>) -> Self {
        let speed = if speed.is_finite() && speed > 0.0 { speed } else { 1.0 };
        Self { speed, seek, idle_limit, last: seek }
    }

    /// How long to wait before what happened at `at` is shown.
    pub fn wait(&mut self, at: Duration) -> Duration {
        if at <= self.seek {
            return Duration::ZERO;
        }
        let pause = at.saturating_sub(self.last);
        self.last = self.last.max(at);
        let pause = self.idle_limit.map_or(pause, |limit| pause.min(limit));
        Duration::try_from_secs_f64(pause.as_secs_f64() / self.speed).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn seek_speed_and_idle_limit() {
        let mut pace = Pace::new(2.0, s(10), Some(s(6)));
        let waits: Vec<_> = [1, 9, 10, 12, 12, 100, 104].map(|at| pace.wait(s(at))).to_vec();
        assert_eq!(waits, [s(0), s(0), s(0), s(1), s(0), s(3), s(2)]);
        assert_eq!(Pace::new(f64::NAN, s(0), None).wait(s(3)), s(3));
        assert_eq!(Pace::new(1e-300, s(0), None).wait(s(3)), Duration::MAX);
    }
}
