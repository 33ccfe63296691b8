//! Rights that follow IAM's groups: OCSF's User Access Management and Group Management.

use serde_json::{Value, json};

use super::{Told, cut};
use crate::audit::{Class, Event};

/// Whether it is one of these: their codes are all those of the nine thousands.
pub(super) fn knows(event: &Event) -> bool {
    event.code().code.starts_with("SK9")
}

pub(super) fn tell(event: &Event) -> Told {
    match event.code().class {
        Class::GroupManagement => tell_group(event),
        Class::UserAccessManagement => tell_user(event),
        _ => tell_work(event),
    }
}

fn tell_group(event: &Event) -> Told {
    match event {
        Event::MemberJoined { user, group } => {
            about(Told::new(format!("{user} joined {group}")), group).attribute("user", json!({ "name": cut(user) }))
        }
        Event::MemberLeft { user, group } => {
            about(Told::new(format!("{user} left {group}")), group).attribute("user", json!({ "name": cut(user) }))
        }
        Event::GroupMade { group, cause } => {
            about(Told::new(format!("group {group} was made: {cause}")), group).and("cause", cause.as_str())
        }
        Event::GroupRemoved { group, cause } => {
            about(Told::new(format!("group {group} was removed: {cause}")), group).and("cause", cause.as_str())
        }
        Event::LevelWritten { group, target, cause } => {
            level(format!("{target} was written: {cause}"), group, target, cause)
        }
        Event::LevelRemoved { group, target, cause } => {
            level(format!("{target} was removed: {cause}"), group, target, cause)
        }
        _ => Told::new(event.code().name),
    }
}

fn about(told: Told, group: &str) -> Told {
    told.attribute("group", json!({ "name": cut(group) })).attribute("actor", ourselves())
}

fn level(message: String, group: &str, target: &str, cause: &str) -> Told {
    about(Told::new(message), group).attribute("resource", json!({ "name": cut(target) })).and("cause", cause)
}

/// Who does it. Who asked for it, by changing a group, is the cause: CloudTrail knows the rest.
fn ourselves() -> Value {
    json!({ "app_name": "stockade access" })
}

fn tell_user(event: &Event) -> Told {
    match event {
        Event::AccessGiven { user, target, cluster, group, cause } => {
            let told = Told::new(format!("{user} was given {target}: {cause}"));
            rights(told, user, target, cluster.as_deref(), group.as_deref()).and("cause", cause.as_str())
        }
        Event::AccessTaken { user, target, cluster, group, cause } => {
            let told = Told::new(format!("{target} was taken from {user}: {cause}"));
            rights(told, user, target, cluster.as_deref(), group.as_deref()).and("cause", cause.as_str())
        }
        Event::DriftMended { user, target, cause } => {
            let told = Told::new(format!("{target} was put back: {cause}"))
                .attribute("actor", ourselves())
                .attribute("resources", json!([{ "name": cut(target) }]))
                .and("cause", cause.as_str());
            user.iter().fold(told, |told, user| told.attribute("user", json!({ "name": cut(user) })))
        }
        _ => Told::new(event.code().name),
    }
}

fn rights(told: Told, user: &str, target: &str, cluster: Option<&str>, group: Option<&str>) -> Told {
    let told = told
        .attribute("actor", ourselves())
        .attribute("user", json!({ "name": cut(user) }))
        .attribute("resources", json!([{ "name": cut(target) }]))
        .attribute("privileges", json!([cut(group.unwrap_or(target))]));
    let told = group.iter().fold(told, |told, group| told.and("group", *group));
    cluster.iter().fold(told, |told, cluster| told.and("cluster", *cluster))
}

fn tell_work(event: &Event) -> Told {
    match event {
        Event::AccessChangeFailed { target, cause, code, message } => {
            Told::new(format!("{target} could not be changed: {code}: {message}"))
                .failed()
                .and("target", target.as_str())
                .and("cause", cause.as_str())
                .and("code", code.as_str())
                .and("reason", message.as_str())
        }
        Event::AccessProblem { what } => Told::new(what.as_str()).failed().and("what", what.as_str()),
        Event::AccessProblemOver { what } => Told::new(format!("no longer: {what}")).and("what", what.as_str()),
        Event::AccessUnread { place, reason } => {
            Told::new(format!("{place} cannot be read, nothing is changed there: {reason}"))
                .failed()
                .and("place", place.as_str())
                .and("reason", reason.as_str())
        }
        Event::AccessRead { place } => Told::new(format!("{place} can be read again")).and("place", place.as_str()),
        Event::MassRemovalStopped { reason } => {
            Told::new(format!("nothing was changed: {reason}")).failed().and("reason", reason.as_str())
        }
        Event::AccessStarted { version, mass_removal } => {
            Told::new("access began").and("version", version.as_str()).and("mass_removal", *mass_removal)
        }
        Event::AccessStopped { reason } => Told::new(format!("access ended: {reason}")).and("reason", reason.as_str()),
        _ => Told::new(event.code().name),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Stamp, line};
    use super::*;

    fn read(event: &Event) -> Value {
        serde_json::from_slice(&line(event, Stamp { time: 5, sequence: 7 })).unwrap()
    }

    #[test]
    fn a_right_has_the_shape_of_ocsf() {
        let value = read(&Event::AccessGiven {
            user: "alice".into(),
            target: "hyades: ClusterRoleBinding k8s-admin@hyades".into(),
            cluster: Some("hyades".into()),
            group: Some("k8s-admin@hyades".into()),
            cause: "alice joined k8s-admin@hyades".into(),
        });
        for (path, expected) in [
            ("/class_uid", json!(3005)),
            ("/type_uid", json!(300_501)),
            ("/user/name", json!("alice")),
            ("/privileges/0", json!("k8s-admin@hyades")),
            ("/resources/0/name", json!("hyades: ClusterRoleBinding k8s-admin@hyades")),
            ("/unmapped/cluster", json!("hyades")),
            ("/unmapped/cause", json!("alice joined k8s-admin@hyades")),
        ] {
            assert_eq!(value.pointer(path), Some(&expected), "{path}");
        }
        let left = read(&Event::MemberLeft { user: "bob".into(), group: "k8s-user@hyades".into() });
        assert_eq!((&left["type_uid"], &left["group"]["name"]), (&json!(300_604), &json!("k8s-user@hyades")));
    }

    #[test]
    fn every_one_of_them_has_its_own_words() {
        let ours = Event::CODES.iter().filter(|row| row.code.starts_with("SK9"));
        assert!(ours.clone().all(|row| !row.name.is_empty()));
        let failed = read(&Event::AccessChangeFailed {
            target: "IAM role alice".into(),
            cause: "alice joined k8s-user@hyades".into(),
            code: "Throttling".into(),
            message: "slow down".into(),
        });
        assert_eq!((&failed["status_id"], &failed["severity_id"]), (&json!(2), &json!(3)));
    }
}
