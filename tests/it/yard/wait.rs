use std::time::{Duration, Instant};

/// Every wait of the tests is for a state, and ends here at the latest: whatever else a busy machine does.
pub const DEADLINE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(10);

/// Looks until there is something to see.
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    match within(DEADLINE, look) {
        Some(seen) => seen,
        None => panic!("{what}: not in {DEADLINE:?}"),
    }
}

pub fn within<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if started.elapsed() > deadline {
            return None;
        }
        std::thread::sleep(POLL);
    }
}
