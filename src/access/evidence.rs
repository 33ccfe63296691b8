//! What a change says in the audit trail: who was given or lost what, by which group.

use std::collections::BTreeSet;

use super::change::{Cause, Change, Object, Target};
use super::world::Subject;
use crate::audit::Event;

/// The events of a change that was carried out. `username` is the configuration's, with `{user}` in it.
pub fn events(change: &Change, username: &str) -> Vec<Event> {
    let target = change.target.to_string();
    let cause = change.cause.to_string();
    let taken = change.shall_be.is_none();
    let mut told = match &change.target {
        Target::Group(grant) if taken => vec![Event::GroupRemoved { group: grant.to_string(), cause }],
        Target::Group(grant) => vec![Event::GroupMade { group: grant.to_string(), cause }],
        Target::ClusterRole { name, .. } | Target::Role { name, .. } => {
            let group = group_of(name).to_owned();
            vec![match taken {
                true => Event::LevelRemoved { group, target, cause },
                false => Event::LevelWritten { group, target, cause },
            }]
        }
        Target::IamRole(_) | Target::Entry { .. } => owned(change, target, cause),
        // It is drift, and told as that.
        Target::Row { .. } => Vec::new(),
        Target::RoleBinding { name, .. } | Target::ClusterRoleBinding { name, .. } => bound(change, name, username),
    };
    if let Cause::Drift(what) = &change.cause {
        let (target, cause) = (change.target.to_string(), what.clone());
        told.insert(0, Event::DriftMended { user: change.user.clone(), target, cause });
    }
    told
}

/// `k8s-poweruser@hyades:namespaces` is a part of what `k8s-poweruser@hyades` grants.
fn group_of(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

fn owned(change: &Change, target: String, cause: String) -> Vec<Event> {
    let user = change.user.clone().unwrap_or_default();
    let cluster = change.target.cluster().map(str::to_owned);
    match (&change.was, &change.shall_be) {
        (_, None) => vec![Event::AccessTaken { user, target, cluster, group: None, cause }],
        (None, Some(_)) => vec![Event::AccessGiven { user, target, cluster, group: None, cause }],
        // Put back or brought up to date; what was drift is said as that.
        (Some(_), Some(_)) if matches!(change.cause, Cause::Drift(_)) => Vec::new(),
        (Some(_), Some(_)) => vec![Event::AccessGiven { user, target, cluster, group: None, cause }],
    }
}

fn bound(change: &Change, name: &str, username: &str) -> Vec<Event> {
    let (was, shall_be) = (subjects(change.was.as_ref()), subjects(change.shall_be.as_ref()));
    let group = group_of(name).to_owned();
    let target = change.target.to_string();
    let cluster = change.target.cluster().map(str::to_owned);
    let taken = was.difference(&shall_be).map(|subject| {
        let user = user_of(subject, username);
        let cause = cause_of(change, &user, &group, false).to_string();
        let (target, cluster, group) = (target.clone(), cluster.clone(), Some(group.clone()));
        Event::AccessTaken { user, target, cluster, group, cause }
    });
    let given = shall_be.difference(&was).map(|subject| {
        let user = user_of(subject, username);
        let cause = cause_of(change, &user, &group, true).to_string();
        let (target, cluster, group) = (target.clone(), cluster.clone(), Some(group.clone()));
        Event::AccessGiven { user, target, cluster, group, cause }
    });
    taken.chain(given).collect()
}

/// A binding changes for several at once, and has one cause.
fn cause_of(change: &Change, user: &str, group: &str, given: bool) -> Cause {
    let other = match &change.cause {
        Cause::Joined { user: who, .. } => !given || who != user,
        Cause::Left { user: who, .. } | Cause::UserGone(who) => given || who != user,
        _ => false,
    };
    match (other, given) {
        (false, _) => change.cause.clone(),
        (true, true) => Cause::Joined { user: user.to_owned(), group: group.to_owned() },
        (true, false) => Cause::Left { user: user.to_owned(), group: group.to_owned() },
    }
}

/// Who is in a binding, before or after.
pub fn subjects(object: Option<&Object>) -> BTreeSet<Subject> {
    match object {
        Some(Object::Binding(binding)) => binding.subjects.clone(),
        _ => BTreeSet::new(),
    }
}

/// The user behind a name on a cluster. One that another hand put there is told as it is.
fn user_of(subject: &Subject, username: &str) -> String {
    match subject {
        Subject::User(name) => {
            let (before, after) = username.split_once("{user}").unwrap_or(("", ""));
            let user = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            user.unwrap_or(name).to_owned()
        }
        Subject::Group(name) => format!("group {name}"),
        Subject::ServiceAccount(namespace, name) => format!("system:serviceaccount:{namespace}:{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::world::Binding;

    fn binding(users: &[&str]) -> Option<Object> {
        let subjects = users.iter().map(|user| Subject::User(format!("stockade:{user}"))).collect();
        Some(Object::Binding(Binding { role: ("ClusterRole".into(), "k8s-admin@hyades".into()), subjects }))
    }

    fn told(cause: Cause, was: Option<Object>, shall_be: Option<Object>) -> Vec<String> {
        let target = Target::ClusterRoleBinding { cluster: "hyades".into(), name: "k8s-admin@hyades".into() };
        let change = Change { target, was, shall_be, version: String::new(), user: None, cause };
        let tell = |event| match event {
            Event::AccessGiven { user, cause, group, .. } => format!("+{user} {} {cause}", group.unwrap()),
            Event::AccessTaken { user, cause, group, .. } => format!("-{user} {} {cause}", group.unwrap()),
            Event::DriftMended { cause, .. } => format!("drift: {cause}"),
            other => format!("{other:?}"),
        };
        events(&change, "stockade:{user}").into_iter().map(tell).collect()
    }

    #[test]
    fn each_user_of_a_binding_has_an_event_and_a_cause() {
        let joined = Cause::Joined { user: "alice".into(), group: "k8s-admin@hyades".into() };
        let expected =
            [joined.to_string(), Cause::Left { user: "bob".into(), group: "k8s-admin@hyades".into() }.to_string()];
        let events = told(joined, binding(&["bob", "carol"]), binding(&["alice", "carol"]));
        assert_eq!(events[0], format!("-bob k8s-admin@hyades {}", expected[1]));
        assert_eq!(events[1], format!("+alice k8s-admin@hyades {}", expected[0]));
        assert_eq!(events.len(), 2);
    }

    #[test]
    fn what_another_hand_added_is_told_twice() {
        let drift = Cause::Drift("a subject too many".into());
        let mut events = told(drift, binding(&["alice", "mallory"]), binding(&["alice"]));
        assert_eq!(events.remove(0), "drift: a subject too many");
        assert!(events[0].starts_with("-mallory k8s-admin@hyades ") && events.len() == 1, "{events:?}");
    }
}
