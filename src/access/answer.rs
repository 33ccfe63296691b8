//! What a cycle did, as JSON: Lambda's answer, and that of `apply --output json`.

use serde_json::{Value, json};

use super::change::Change;
use super::cycle::Outcome;

/// More are counted and not listed: Lambda's answers have an end.
const MOST: usize = 500;

pub fn answer(outcome: &Outcome, calls: u64) -> Value {
    let Outcome { plan, done, away, alone, stopped, took, .. } = outcome;
    let failed = done.failed.iter().take(MOST).map(|(change, fault)| {
        let mut row = told(change);
        row["error"] = json!({ "code": fault.code, "message": fault.message });
        row
    });
    let left = done.left.iter().take(MOST).map(|(change, why)| {
        let mut row = told(change);
        row["why"] = json!(why);
        row
    });
    let problems = plan.problems.iter().take(MOST);
    json!({
        "whole": outcome.is_whole(),
        "counts": {
            "changed": done.made.len(),
            "failed": done.failed.len(),
            "left": done.left.len(),
            "problems": plan.problems.len(),
        },
        "changed": done.made.iter().take(MOST).map(told).collect::<Vec<_>>(),
        "failed": failed.collect::<Vec<_>>(),
        "left": left.collect::<Vec<_>>(),
        "unread": away,
        "without_turn": alone,
        "problems": problems.map(|p| json!({ "cluster": p.cluster, "subject": p.subject, "what": p.what })).collect::<Vec<_>>(),
        "stopped": stopped,
        "milliseconds": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "calls": calls,
    })
}

fn told(change: &Change) -> Value {
    let how = match (&change.was, &change.shall_be) {
        (None, _) => "made",
        (Some(_), Some(_)) => "changed",
        (Some(_), None) => "removed",
    };
    json!({ "target": change.target.to_string(), "how": how, "cause": change.cause.to_string(), "user": change.user })
}
