//! Verbs, laptops, groups and locks.

use serde_json::json;

use super::{Told, cut};
use crate::audit::Event;

pub(super) fn tell(event: &Event) -> Told {
    match event {
        Event::VerbAnswered { user, from, verb, cluster, status } => {
            let told = match status {
                0 => Told::new(format!("{user} was answered: {verb}")),
                _ => Told::new(format!("{user} was answered with status {status}: {verb}")).failed(),
            };
            let told = told.user(user).from(from).attribute("api", json!({ "operation": cut(verb) }));
            cluster.iter().fold(told, |told, cluster| told.and("cluster", cluster.as_str())).and("status", *status)
        }
        Event::LaptopGranted { session, user, from, key, expires } => {
            Told::new(format!("{user} was given a token for a laptop"))
                .session(session)
                .user(user)
                .from(from)
                .and("key", key.as_str())
                .and("expires", *expires)
        }
        Event::LaptopEnded { session, user, reason } => {
            Told::new(format!("the grant of {user} for a laptop ended: {reason}"))
                .session(session)
                .user(user)
                .and("reason", reason.as_str())
        }
        Event::GroupsChanged { session, user, joined, left } => {
            let of = |sign: char, groups: &[String]| {
                groups.iter().map(|group| format!(" {sign}{group}")).collect::<String>()
            };
            Told::new(cut(&format!("the groups of {user} changed:{}{}", of('-', left), of('+', joined))))
                .session(session)
                .user(user)
                .and("joined", json!(joined))
                .and("left", json!(left))
        }
        Event::LockAdded { target, reason, by, until } => {
            let told = Told::new(format!("{target} is locked: {reason}"))
                .and("target", target.as_str())
                .and("reason", reason.as_str())
                .and("by", by.as_str());
            until.iter().fold(told, |told, until| told.and("until", *until))
        }
        Event::LockReleased { target, reason, by } => Told::new(format!("{target} is no longer locked: {reason}"))
            .and("target", target.as_str())
            .and("reason", reason.as_str())
            .and("by", by.as_str()),
        _ => Told::new(event.code().name),
    }
}
