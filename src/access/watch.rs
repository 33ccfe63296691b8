//! The daemon: a cycle now, one after each pause, and one as soon as somebody says that something changed.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::cycle::{Course, CycleError, Outcome};
use super::health::Board;
use super::seam::{Fleet, People, Turns};

/// After a failure; doubled with each that follows, up to the usual pause.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// IAM tells of a change before all of it knows: what an event brought is looked at once more after this.
const SECOND_LOOK: Duration = Duration::from_secs(20);
/// Events come in bursts.
const GATHER: Duration = Duration::from_millis(100);
/// From the end of one cycle to the next, whatever is told.
const LEAST_PAUSE: Duration = Duration::from_millis(500);

/// Somebody says that something changed; heard when a cycle has seen it, dropped when none could.
pub type Notice = oneshot::Sender<()>;

/// Cycles until the crew is told to stop.
pub async fn watch<P: People, F: Fleet, T: Turns>(
    mut course: Course<P, F, T>,
    board: Arc<Board>,
    mut told: mpsc::Receiver<Notice>,
) {
    let mut stop = course.crew().stop.clone();
    course.begin().await;
    let pause = course.pause();
    // In a row: of work, and of looks at any cluster. One that is away for long must not slow the others' retries.
    let (mut failures, mut absences) = (0_u32, 0_u32);
    let mut notices: Vec<Notice> = Vec::new();
    while !*stop.borrow() {
        let woken = !notices.is_empty();
        let result = course.cycle(now()).await;
        board.tell(result.as_ref().ok());
        match &result {
            Ok(outcome) => report(outcome, board.calls()),
            Err(CycleError::Stopped) => break,
            Err(error) => tracing::error!("{}", chain(error)),
        }
        for notice in notices.drain(..).filter(|_| result.is_ok()) {
            // Who no longer waits need not hear it.
            let _: Result<(), ()> = notice.send(());
        }
        let count = |former: u32, is_well: bool| if is_well { 0 } else { former.saturating_add(1) };
        failures = count(failures, result.as_ref().is_ok_and(is_quiet));
        absences = count(absences, result.as_ref().is_ok_and(|outcome| outcome.away.is_empty()));
        let usual = if woken { pause.min(SECOND_LOOK) } else { pause };
        tokio::select! {
            () = sleep(jittered(after(usual, failures).min(after(usual, absences)))) => {}
            () = gather(&mut told, &mut notices) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    course.end("it was told to").await;
}

/// A plan that waits for a person is no failure: trying again would not help.
fn is_quiet(outcome: &Outcome) -> bool {
    outcome.done.is_whole()
}

/// How long to wait after so many failures in a row.
fn after(usual: Duration, failures: u32) -> Duration {
    match failures {
        0 => usual,
        many => FIRST_RETRY.saturating_mul(1 << (many - 1).min(10)).min(usual),
    }
}

/// The next notices: those that come together are answered together.
async fn gather(told: &mut mpsc::Receiver<Notice>, notices: &mut Vec<Notice>) {
    let soonest = Instant::now() + LEAST_PAUSE;
    match told.recv().await {
        Some(notice) => notices.push(notice),
        // Nobody is left who could tell anything.
        None => std::future::pending().await,
    }
    sleep_until(soonest.max(Instant::now() + GATHER)).await;
    while let Ok(notice) = told.try_recv() {
        notices.push(notice);
    }
}

/// Nine to eleven tenths of it: many daemons that began together part.
fn jittered(pause: Duration) -> Duration {
    let tenth = u64::try_from(pause.as_millis() / 10).unwrap_or(u64::MAX).max(1);
    let spread = RandomState::new().build_hasher().finish() % (2 * tenth);
    pause - pause / 10 + Duration::from_millis(spread)
}

fn report(outcome: &Outcome, calls: u64) {
    let Outcome { done, away, stopped, took, plan, .. } = outcome;
    let (made, failed, left, problems) = (done.made.len(), done.failed.len(), done.left.len(), plan.problems.len());
    tracing::info!(made, failed, left, problems, away = away.len(), calls, ?took, "a cycle ended");
    for (change, fault) in &done.failed {
        tracing::warn!(target = %change.target, "could not be changed, and is tried again: {fault}");
    }
    if let Some((change, why)) = done.left.first() {
        tracing::warn!(left, "left for the next cycle, {} first: {why}", change.target);
    }
    if let Some(reason) = stopped {
        tracing::error!("nothing was changed: {reason}");
    }
}

/// An error with its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Seconds since the epoch.
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_tried_again_ever_more_slowly() {
        let usual = Duration::from_secs(300);
        let pauses: Vec<u64> = (0..9).map(|failures| after(usual, failures).as_secs()).collect();
        assert_eq!(pauses, [300, 5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(after(usual, u32::MAX), usual);
        for _ in 0..100 {
            let pause = jittered(usual).as_secs();
            assert!((270..330).contains(&pause), "{pause}");
        }
    }
}
