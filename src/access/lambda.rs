//! The same cycle as an AWS Lambda: one for each event, whatever the event says. What was seen stays in memory while
//! Lambda keeps the process.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;
use tokio::sync::{Mutex, watch};

use super::answer::answer;
use super::cycle::Course;
use super::health::Board;
use super::seam::{Fleet, People, Turns};
use super::watch::{chain, now};

/// Before Lambda kills the process: for changes under way, and for giving the turns back.
const RESERVE: Duration = Duration::from_secs(10);

/// Serves the Lambda Runtime API until Lambda ends the process.
pub async fn serve<P: People, F: Fleet, T: Turns>(
    course: Course<P, F, T>,
    board: Arc<Board>,
    stop: watch::Sender<bool>,
) -> Result<(), lambda_runtime::Error> {
    course.begin().await;
    let (course, stop) = (Arc::new(Mutex::new(course)), Arc::new(stop));
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Value>| {
        invoked(course.clone(), board.clone(), stop.clone(), event.context.deadline())
    }))
    .await
}

/// An error is an invocation that failed, so that CloudWatch's own alarms see it.
async fn invoked<P: People, F: Fleet, T: Turns>(
    course: Arc<Mutex<Course<P, F, T>>>,
    board: Arc<Board>,
    stop: Arc<watch::Sender<bool>>,
    deadline: SystemTime,
) -> Result<Value, Diagnostic> {
    let mut course = course.lock().await;
    stop.send_replace(false);
    let remaining = deadline.duration_since(SystemTime::now()).unwrap_or_default();
    let bell = {
        let stop = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(remaining.saturating_sub(RESERVE)).await;
            stop.send_replace(true);
        })
    };
    let result = course.cycle(now()).await;
    bell.abort();
    board.tell(result.as_ref().ok());
    match result {
        Ok(outcome) => match &outcome.stopped {
            Some(reason) => Err(failed("MassRemoval", reason.clone())),
            None => Ok(answer(&outcome, board.calls())),
        },
        Err(error) => Err(failed("Unread", chain(&error))),
    }
}

fn failed(kind: &str, message: String) -> Diagnostic {
    Diagnostic { error_type: kind.to_owned(), error_message: message }
}
