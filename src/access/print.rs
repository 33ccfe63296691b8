//! A plan as people read it, and as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::{Value, json};

use super::change::{Cause, Change, Object};
use super::plan::{Plan, Quota};
use super::world::{Entry, Role, Rule, Rules, Subject};
use crate::recording::visible;

/// So many lines of one part of one change are shown.
const MOST_LINES: usize = 20;

/// Lines: `+` is made, `-` is removed, `~` is changed, with what changes below it.
pub fn text(plan: &Plan) -> String {
    let mut out = String::new();
    for quota in &plan.quotas {
        let _ = writeln!(out, "{}", quota_line(quota));
    }
    for problem in &plan.problems {
        let place = problem.cluster.as_ref().map(|cluster| format!("{}: ", visible(cluster))).unwrap_or_default();
        let _ = writeln!(out, "! {place}{}: {}", visible(&problem.subject), visible(&problem.what));
    }
    // By place, which is easier to read than the order in which it is done; JSON has that.
    let places: BTreeSet<Option<&str>> = plan.changes.iter().map(|change| change.target.cluster()).collect();
    for place in places {
        let _ = writeln!(out, "{}{}:", if out.is_empty() { "" } else { "\n" }, visible(place.unwrap_or("IAM")));
        for change in plan.changes.iter().filter(|change| change.target.cluster() == place) {
            change_lines(&mut out, change);
        }
    }
    let _ = write!(out, "{}{}", if out.is_empty() { "" } else { "\n" }, sum(plan));
    if let Some(stop) = plan.stop(plan.most_removed) {
        let _ = write!(out, "\nSTOPPED: {stop}");
    }
    out.push('\n');
    out
}

/// "12 to make, 3 to change, 1 to remove", or that there is nothing.
pub fn sum(plan: &Plan) -> String {
    let count = |sign| plan.changes.iter().filter(|change| self::sign(change) == sign).count();
    match plan.changes.len() {
        0 => "nothing to do".to_owned(),
        _ => format!("{} to make, {} to change, {} to remove", count('+'), count('~'), count('-')),
    }
}

fn quota_line(quota: &Quota) -> String {
    let Quota { what, used, after, most } = quota;
    let full = if after >= most { ": that is all" } else { "" };
    match used == after {
        true => format!("{}: {used} of {most}{full}", visible(what)),
        false => format!("{}: {used} of {most}, {after} after this{full}", visible(what)),
    }
}

fn sign(change: &Change) -> char {
    match (&change.was, &change.shall_be) {
        (None, _) => '+',
        (_, None) => '-',
        _ => '~',
    }
}

fn change_lines(out: &mut String, change: &Change) {
    let target = change.target.to_string();
    let place = change.target.cluster().map(|cluster| format!("{cluster}: ")).unwrap_or_default();
    let target = target.strip_prefix(&place).unwrap_or(&target);
    let _ = writeln!(out, "  {} {}  ({})", sign(change), visible(target), visible(&cause(&change.cause)));
    let (lost, gained) = difference(change);
    for (sign, lines) in [('-', lost), ('+', gained)] {
        for line in lines.iter().take(MOST_LINES) {
            let _ = writeln!(out, "      {sign} {}", visible(line));
        }
        if lines.len() > MOST_LINES {
            let _ = writeln!(out, "      {sign} and {} more", lines.len() - MOST_LINES);
        }
    }
}

/// The sentence of a cause.
pub fn cause(cause: &Cause) -> String {
    cause.to_string()
}

/// What an object loses and gains, a line each.
fn difference(change: &Change) -> (Vec<String>, Vec<String>) {
    let facts = |object: &Option<Object>| object.as_ref().map(facts).unwrap_or_default();
    let (was, shall_be) = (facts(&change.was), facts(&change.shall_be));
    // What a role allows is the same for all that are made; it is told where it changes.
    if change.was.is_none() && matches!(change.shall_be, Some(Object::Rules(_) | Object::IamRole(_))) {
        return (Vec::new(), Vec::new());
    }
    if change.shall_be.is_none() && !matches!(change.was, Some(Object::Binding(_))) {
        return (Vec::new(), Vec::new());
    }
    (was.difference(&shall_be).cloned().collect(), shall_be.difference(&was).cloned().collect())
}

fn facts(object: &Object) -> BTreeSet<String> {
    match object {
        Object::Group => BTreeSet::new(),
        Object::Rules(rules) => rule_facts(rules),
        Object::Binding(binding) => {
            let role = format!("to {} {}", binding.role.0, binding.role.1);
            binding.subjects.iter().map(subject).chain([role]).collect()
        }
        Object::Entry(entry) => entry_facts(entry),
        Object::IamRole(role) => role_facts(role),
    }
}

/// Each resource by itself: a rule of hundreds differs in one of them.
fn rule_facts(rules: &Rules) -> BTreeSet<String> {
    let mut facts: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for rule in &rules.rules {
        for what in things(rule) {
            facts.entry(what).or_default().extend(rule.verbs.iter().map(String::as_str));
        }
    }
    let lines = facts.into_iter().map(|(what, verbs)| {
        let verbs: Vec<&str> = verbs.into_iter().collect();
        format!("{what}: {}", verbs.join(" "))
    });
    lines.chain(rules.aggregated.then(|| "rules gathered from other ClusterRoles".to_owned())).collect()
}

fn things(rule: &Rule) -> Vec<String> {
    let names = match rule.names.is_empty() {
        true => String::new(),
        false => format!(" named {}", rule.names.iter().cloned().collect::<Vec<_>>().join(" ")),
    };
    let spelled = |group: &String, resource: &String| match group.as_str() {
        "" => format!("{resource}{names}"),
        group => format!("{resource}.{group}{names}"),
    };
    let resources = rule.groups.iter().flat_map(|group| rule.resources.iter().map(move |one| spelled(group, one)));
    resources.chain(rule.urls.iter().cloned()).collect()
}

fn subject(subject: &Subject) -> String {
    match subject {
        Subject::User(name) => format!("user {name}"),
        Subject::Group(name) => format!("group {name}"),
        Subject::ServiceAccount(namespace, name) => format!("service account {namespace}/{name}"),
    }
}

fn entry_facts(entry: &Entry) -> BTreeSet<String> {
    let groups = entry.groups.iter().map(|group| format!("in {group}"));
    let policies = entry.policies.iter().map(|policy| format!("with {policy}"));
    let tags = entry.tags.iter().map(|(key, value)| format!("tag {key}={value}"));
    let rest = [format!("is {}", entry.username), format!("of kind {}", entry.kind)];
    groups.chain(policies).chain(tags).chain(rest).collect()
}

fn role_facts(role: &Role) -> BTreeSet<String> {
    let inline = role.inline.iter().map(|(name, policy)| format!("policy {name} {policy}"));
    let attached = role.attached.iter().map(|arn| format!("policy {arn}"));
    let tags = role.tags.iter().map(|(key, value)| format!("tag {key}={value}"));
    let boundary = role.boundary.iter().map(|arn| format!("boundary {arn}"));
    let rest = [format!("trusts {}", role.trust), format!("sessions of {} s", role.longest_session)];
    inline.chain(attached).chain(tags).chain(boundary).chain(rest).collect()
}

pub fn json(plan: &Plan) -> Value {
    let changes: Vec<Value> = plan.changes.iter().map(change_json).collect();
    let problems = plan
        .problems
        .iter()
        .map(|problem| json!({ "cluster": problem.cluster, "subject": problem.subject, "what": problem.what }));
    let quotas = plan
        .quotas
        .iter()
        .map(|quota| json!({ "what": quota.what, "used": quota.used, "after": quota.after, "most": quota.most }));
    let shares =
        plan.shares.iter().map(|share| json!({ "kind": share.kind, "removed": share.removed, "of": share.of }));
    json!({
        "changes": changes,
        "problems": problems.collect::<Vec<_>>(),
        "quotas": quotas.collect::<Vec<_>>(),
        "shares": shares.collect::<Vec<_>>(),
        "stop": plan.stop(plan.most_removed),
    })
}

pub fn change_json(change: &Change) -> Value {
    let (lost, gained) = difference(change);
    json!({
        "action": match sign(change) { '+' => "make", '-' => "remove", _ => "change" },
        "target": change.target.to_string(),
        "cluster": change.target.cluster(),
        "user": change.user,
        "cause": cause_json(&change.cause),
        "loses": lost,
        "gains": gained,
    })
}

/// The kind of a cause, its sentence, and whom and which group it is about.
pub fn cause_json(cause: &Cause) -> Value {
    let (kind, user, group) = match cause {
        Cause::Appeared(_) => ("appeared", None, None),
        Cause::Gone(_) => ("gone", None, None),
        Cause::Joined { user, group } => ("joined", Some(user), Some(group)),
        Cause::Left { user, group } => ("left", Some(user), Some(group)),
        Cause::UserGone(user) => ("user-gone", Some(user), None),
        Cause::Configured => ("configured", None, None),
        Cause::Drift(_) => ("drift", None, None),
    };
    json!({ "kind": kind, "what": self::cause(cause), "user": user, "group": group })
}
