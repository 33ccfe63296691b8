//! One cluster's part of the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::causes::{Past, group_of, subjects, user_of};
use super::change::{Cause, Change, Object, Target};
use super::plan::Plan;
use super::wanted::{Place, is_name_of_ours};
use super::world::{Binding, Cluster, Entry, MARK, Rbac, Rule, Rules, Seen, WRITTEN, World};
use crate::config::Terms;

/// Labels of Kubernetes' own that make a ClusterRole part of another one.
const AGGREGATE: &str = "rbac.authorization.k8s.io/";

pub(super) fn cluster(plan: &mut Plan, name: &str, place: &Place, world: &World, past: &Past, terms: &Terms) {
    let Some(Seen::Read(cluster)) = world.clusters.get(name) else { return };
    let draft = Draft { name, place, cluster, past, terms };
    draft.cluster_roles(plan);
    draft.roles(plan);
    draft.cluster_bindings(plan);
    draft.bindings(plan);
    draft.entries(plan);
    draft.rows(plan);
}

struct Draft<'a> {
    name: &'a str,
    place: &'a Place,
    cluster: &'a Cluster,
    past: &'a Past,
    terms: &'a Terms,
}

impl Draft<'_> {
    fn cluster_roles(&self, plan: &mut Plan) {
        let target = |name: &String| Target::ClusterRole { cluster: self.name.into(), name: name.clone() };
        self.rules(
            plan,
            &self.place.cluster_roles,
            &self.cluster.cluster_roles,
            |_| true,
            target,
            |_| format!("cluster {}", self.name),
        );
    }

    fn roles(&self, plan: &mut Plan) {
        let target = |(namespace, name): &(String, String)| Target::Role {
            cluster: self.name.into(),
            namespace: namespace.clone(),
            name: name.clone(),
        };
        let lives = |(namespace, _): &(String, String)| self.lives(namespace);
        self.rules(plan, &self.place.roles, &self.cluster.roles, lives, target, |(namespace, _)| {
            format!("namespace {namespace} of {}", self.name)
        });
    }

    fn cluster_bindings(&self, plan: &mut Plan) {
        for (name, held, wanted) in both(&self.cluster.cluster_bindings, &self.place.cluster_bindings) {
            let target = Target::ClusterRoleBinding { cluster: self.name.into(), name: name.clone() };
            self.binding(plan, target, name, held, wanted);
        }
    }

    fn bindings(&self, plan: &mut Plan) {
        for (key, held, wanted) in both(&self.cluster.bindings, &self.place.bindings) {
            let (namespace, name) = key;
            if self.lives(namespace) {
                let (cluster, namespace) = (self.name.to_owned(), namespace.clone());
                let target = Target::RoleBinding { cluster, namespace, name: name.clone() };
                self.binding(plan, target, name, held, wanted);
            }
        }
    }

    /// Nothing can be made in a namespace that is going, and what is there goes with it.
    fn lives(&self, namespace: &str) -> bool {
        self.cluster.namespaces.get(namespace).is_some_and(|namespace| !namespace.terminating)
    }

    fn rules<K: Ord + Named>(
        &self,
        plan: &mut Plan,
        wanted: &BTreeMap<K, Arc<Rules>>,
        held: &BTreeMap<K, Rbac<Rules>>,
        lives: impl Fn(&K) -> bool,
        target: impl Fn(&K) -> Target,
        place: impl Fn(&K) -> String,
    ) {
        for (key, held, wanted) in both(held, wanted).filter(|(key, ..)| lives(key)) {
            let cause = match (held, wanted) {
                (Some(held), Some(wanted)) => match why_not(held, wanted, self.name) {
                    Some(cause) => cause,
                    None => continue,
                },
                (Some(_), None) => Cause::Configured,
                _ => Cause::Appeared(place(key)),
            };
            plan.changes.push(Change {
                target: target(key),
                was: held.map(|held| Object::Rules(held.is.clone())),
                shall_be: wanted.map(|wanted| Object::Rules((**wanted).clone())),
                version: held.map(|held| held.version.clone()).unwrap_or_default(),
                user: None,
                cause,
            });
        }
    }

    fn binding(
        &self,
        plan: &mut Plan,
        target: Target,
        name: &str,
        held: Option<&Rbac<Binding>>,
        wanted: Option<&Arc<Binding>>,
    ) {
        let labels = held.and_then(by_hand);
        if let (Some(held), Some(wanted)) = (held, wanted)
            && held.is == **wanted
            && labels.is_none()
        {
            return;
        }
        let other_role = held.zip(wanted).is_some_and(|(held, wanted)| held.is.role != wanted.role);
        let was = held.map(|held| Object::Binding(held.is.clone()));
        let shall_be = wanted.map(|wanted| Object::Binding((**wanted).clone()));
        let version = held.map(|held| held.version.clone()).unwrap_or_default();
        let whole = Change { target, was, shall_be, version, user: None, cause: Cause::Configured };
        let mut change = Change { user: self.user(&whole), ..whole };
        change.cause = match (held, labels) {
            (Some(_), Some(label)) => Cause::Drift(label),
            (Some(held), None) if was_changed(&held.labels, &Object::Binding(held.is.clone())) => {
                Cause::Drift("it was changed by hand".to_owned())
            }
            _ if other_role => Cause::Drift("it binds to another role".to_owned()),
            _ => self.cause_of_binding(&change, name),
        };
        if other_role {
            // Kubernetes never changes the role of a binding.
            plan.changes.push(Change { shall_be: None, ..change.clone() });
            (change.was, change.version) = (None, String::new());
        }
        plan.changes.push(change);
    }

    /// The one user that a change is about.
    fn user(&self, change: &Change) -> Option<String> {
        let (lost, gained) = subjects(change);
        let mut all = lost.iter().chain(&gained);
        match (all.next(), all.next()) {
            (Some(one), None) => user_of(one, self.cluster.mode, &self.terms.rbac).map(str::to_owned),
            _ => None,
        }
    }

    fn cause_of_binding(&self, change: &Change, group: &str) -> Cause {
        let (lost, gained) = subjects(change);
        let name = |subject| user_of(subject, self.cluster.mode, &self.terms.rbac);
        if lost.iter().any(|subject| name(subject).is_none()) {
            return Cause::Drift("it binds somebody that access did not".to_owned());
        }
        if let (Target::RoleBinding { namespace, .. }, None) = (&change.target, &change.was) {
            // Who is bound in the whole cluster already has joined before this namespace was there.
            let whole = self.cluster.cluster_bindings.get(group).filter(|held| held.is_ours());
            if whole.is_some_and(|whole| gained.is_subset(&whole.is.subjects)) {
                return Cause::Appeared(format!("namespace {namespace} of {}", self.name));
            }
        }
        if let (Target::RoleBinding { .. }, None) = (&change.target, &change.shall_be) {
            let whole = self.place.cluster_bindings.get(group);
            if whole.is_some_and(|whole| lost.is_subset(&whole.subjects)) {
                return Cause::Configured;
            }
        }
        match (gained.iter().find_map(name), lost.iter().find_map(name)) {
            (Some(user), _) => Cause::Joined { user: user.to_owned(), group: group.to_owned() },
            (None, Some(user)) => self.past.left_group(user, group),
            (None, None) => Cause::Configured,
        }
    }

    fn entries(&self, plan: &mut Plan) {
        let Some(held) = &self.place.held else { return };
        for (arn, held, wanted) in both(&held.ours, &self.place.entries) {
            let user = [wanted, held].into_iter().flatten().find_map(|entry| entry.tags.get(MARK));
            let user = user.cloned().unwrap_or_default();
            let target = Target::Entry { cluster: self.name.to_owned(), role: arn.clone() };
            let base = Change {
                target,
                was: held.cloned().map(Object::Entry),
                shall_be: None,
                version: String::new(),
                user: Some(user.clone()),
                cause: Cause::Configured,
            };
            match (held, wanted) {
                (Some(held), Some(wanted)) => self.entry(plan, base, held, wanted, &user),
                (Some(held), None) => {
                    let group = held.groups.iter().find_map(|group| group_of(group));
                    let cause = group.map_or_else(|| self.past.left(&user), |group| self.past.left_group(&user, group));
                    plan.changes.push(Change { cause, ..base });
                }
                (None, Some(wanted)) => {
                    let group = wanted.groups.iter().find_map(|group| group_of(group)).unwrap_or_default().to_owned();
                    let cause = Cause::Joined { user, group };
                    plan.changes.push(Change { shall_be: Some(Object::Entry(wanted.clone())), cause, ..base });
                }
                (None, None) => {}
            }
        }
    }

    /// What aws-auth says of roles that only access entries shall let in.
    fn rows(&self, plan: &mut Plan) {
        for (arn, row) in &self.place.rows {
            let groups: Vec<&str> = row.groups.iter().map(String::as_str).collect();
            let as_whom = match groups.as_slice() {
                [] => format!("as '{}'", row.username.escape_debug()),
                groups => format!("as '{}' in {}", row.username.escape_debug(), groups.join(", ").escape_debug()),
            };
            plan.changes.push(Change {
                target: Target::Row { cluster: self.name.to_owned(), role: arn.clone() },
                was: Some(Object::Entry(row.clone())),
                shall_be: None,
                version: String::new(),
                user: row.tags.get(MARK).cloned(),
                cause: Cause::Drift(format!("aws-auth lets it in, {as_whom}, where its access entry alone shall")),
            });
        }
    }

    fn entry(&self, plan: &mut Plan, base: Change, held: &Entry, wanted: &Entry, user: &str) {
        let mut tags = held.tags.clone();
        tags.extend(wanted.tags.clone());
        let shall_be = Entry { tags, created: held.created, ..wanted.clone() };
        if *held == shall_be {
            return;
        }
        let cause = match cause_of_entry(held, &shall_be, user) {
            Some(Cause::Left { group, .. }) => self.past.left_group(user, &group),
            Some(cause) => cause,
            None => Cause::Drift("it was changed by hand".to_owned()),
        };
        if held.kind != shall_be.kind {
            // EKS never changes the kind of an entry.
            plan.changes.push(Change { cause: cause.clone(), ..base.clone() });
            let shall_be = Some(Object::Entry(Entry { created: 0, ..wanted.clone() }));
            plan.changes.push(Change { was: None, shall_be, cause, ..base });
        } else {
            plan.changes.push(Change { shall_be: Some(Object::Entry(shall_be)), cause, ..base });
        }
    }
}

/// `None`: more than the groups differs, or a group that is none of ours.
fn cause_of_entry(held: &Entry, shall_be: &Entry, user: &str) -> Option<Cause> {
    if (Entry { groups: shall_be.groups.clone(), ..held.clone() }) != *shall_be {
        return None;
    }
    let joined = shall_be.groups.difference(&held.groups).next();
    let left: Vec<&String> = held.groups.difference(&shall_be.groups).collect();
    let ours = |name: &str| group_of(name).is_some_and(|group| group.parse::<super::names::Grant>().is_ok());
    if left.iter().any(|name| !ours(name)) {
        return None;
    }
    let user = user.to_owned();
    match (joined.and_then(|name| group_of(name)), left.first().and_then(|name| group_of(name))) {
        (Some(group), _) => Some(Cause::Joined { user, group: group.to_owned() }),
        (None, Some(group)) => Some(Cause::Left { user, group: group.to_owned() }),
        (None, None) => None,
    }
}

/// Every key of either, with what is ours there and what should be.
fn both<'a, K: Ord + Named, H: Ours, W>(
    held: &'a BTreeMap<K, H>,
    wanted: &'a BTreeMap<K, W>,
) -> impl Iterator<Item = (&'a K, Option<&'a H>, Option<&'a W>)> {
    let ours = held.iter().filter(|(key, held)| held.ours(key.object()));
    let keys: BTreeSet<&K> = ours.map(|(key, _)| key).chain(wanted.keys()).collect();
    keys.into_iter().map(move |key| (key, held.get(key), wanted.get(key)))
}

/// What an object is called, wherever it is.
trait Named {
    fn object(&self) -> &str;
}

impl Named for String {
    fn object(&self) -> &str {
        self
    }
}

impl Named for (String, String) {
    fn object(&self) -> &str {
        &self.1
    }
}

trait Ours {
    fn ours(&self, name: &str) -> bool;
}

impl<T> Ours for Rbac<T> {
    /// Its label goes with a copy of it, too.
    fn ours(&self, name: &str) -> bool {
        self.is_ours() && is_name_of_ours(name)
    }
}

/// Of `entries::Held::ours`.
impl Ours for Entry {
    fn ours(&self, _: &str) -> bool {
        true
    }
}

/// Why rules are put otherwise; `None`: they are as they should be.
fn why_not(held: &Rbac<Rules>, wanted: &Rules, cluster: &str) -> Option<Cause> {
    if let Some(label) = by_hand(held) {
        return Some(Cause::Drift(label));
    }
    if held.is == *wanted {
        return None;
    }
    let sorted = |rules: &Rules| rules.rules.iter().cloned().collect::<BTreeSet<Rule>>();
    let (was, shall_be) = (sorted(&held.is), sorted(wanted));
    if was == shall_be && held.is.aggregated == wanted.aggregated {
        return None;
    }
    if was_changed(&held.labels, &Object::Rules(held.is.clone())) {
        return Some(Cause::Drift("its rules were changed by hand".to_owned()));
    }
    let verbs = |rules: &BTreeSet<Rule>| rules.iter().map(|rule| rule.verbs.clone()).collect::<BTreeSet<_>>();
    match held.labels.contains_key(WRITTEN) && verbs(&was) == verbs(&shall_be) {
        true => Some(Cause::Appeared(format!("what the API of {cluster} serves now"))),
        false if held.labels.contains_key(WRITTEN) => Some(Cause::Configured),
        false => Some(Cause::Drift("its rules are not those of its level".to_owned())),
    }
}

/// A label that nobody of ours set, and that does something.
fn by_hand<T>(held: &Rbac<T>) -> Option<String> {
    let label = held.labels.keys().find(|key| key.starts_with(AGGREGATE))?;
    Some(format!("the label {label} was put on it"))
}

/// Whether the object is another than the one that was written last.
fn was_changed(labels: &BTreeMap<String, String>, is: &Object) -> bool {
    labels.get(WRITTEN).is_some_and(|written| *written != is.written())
}
