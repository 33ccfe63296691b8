use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Since the machine started, suspended time included: the clock that orders a recording's events.
pub(super) fn boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// What people read; never used for order.
pub(super) fn wall() -> Timestamp {
    Timestamp::now()
}
