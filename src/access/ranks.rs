//! In which order changes are carried out, so that in between nobody has more than before and after.
//!
//! Taking comes first, from what people touch to what stands behind it: bindings, entries, roles in IAM, rules, groups.
//! Then what is there is set right: rules that become fewer, roles and entries that another hand changed. Giving goes
//! the other way. A binding that gains some and loses others is written twice. A row of aws-auth counts where there is no
//! access entry, so it goes before an entry does, and after one that comes in its stead.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{Change, Object, Target};
use super::rows::without_path;
use super::world::{Binding, Rule, Rules};

/// What comes after what; of one rank, all may be done at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    BindingsTaken,
    /// Of aws-auth: they let in whoever loses an entry.
    RowsTaken,
    EntriesTaken,
    IamRolesTaken,
    RulesTaken,
    GroupsTaken,
    RulesNarrowed,
    /// Those that are there and are changed: before anybody gains by them.
    IamRolesMended,
    GroupsGiven,
    EntriesMended,
    RulesGiven,
    IamRolesGiven,
    EntriesGiven,
    /// Of aws-auth: there is an entry in their stead.
    RowsReplaced,
    BindingsGiven,
}

impl Rank {
    /// Whether these are in IAM, where all clusters meet.
    pub fn is_in_iam(self) -> bool {
        use Rank::{GroupsGiven, GroupsTaken, IamRolesGiven, IamRolesMended, IamRolesTaken};
        matches!(self, IamRolesTaken | GroupsTaken | IamRolesMended | GroupsGiven | IamRolesGiven)
    }

    pub fn is_of_entries(self) -> bool {
        use Rank::{EntriesGiven, EntriesMended, EntriesTaken, RowsReplaced, RowsTaken};
        matches!(self, RowsTaken | EntriesTaken | EntriesMended | EntriesGiven | RowsReplaced)
    }
}

/// Sorts changes, and splits those that take from some and give to others.
pub fn ranked(changes: Vec<Change>) -> BTreeMap<Rank, Vec<Change>> {
    let mut ranks: BTreeMap<Rank, Vec<Change>> = BTreeMap::new();
    let replaced = replaced(&changes);
    for (rank, part) in changes.into_iter().flat_map(|change| split(change, &replaced)) {
        ranks.entry(rank).or_default().push(part);
    }
    ranks
}

/// When a change begins to be carried out.
pub fn first(change: &Change, replaced: &BTreeSet<Target>) -> Option<Rank> {
    split(change.clone(), replaced).first().map(|(rank, _)| *rank)
}

/// Rows of aws-auth that let somebody in until their access entry does, and give no more than that will. Any other goes
/// before all entries: one that an entry hides comes into force with its end, one of a role that is still to be made with
/// that, and one that gives more is nobody's right.
pub(super) fn replaced(changes: &[Change]) -> BTreeSet<Target> {
    let entries = || {
        changes.iter().filter_map(|change| match &change.target {
            Target::Entry { cluster, role } => Some(((cluster.as_str(), without_path(role)), change)),
            _ => None,
        })
    };
    let there: BTreeSet<_> = entries().filter(|(_, change)| change.was.is_some()).map(|(key, _)| key).collect();
    let made: BTreeMap<_, _> = entries().filter(|(key, _)| !there.contains(key)).collect();
    let roles = changes.iter().filter(|change| change.was.is_none()).filter_map(|change| match &change.target {
        Target::IamRole(name) => Some(name.as_str()),
        _ => None,
    });
    let roles: BTreeSet<&str> = roles.collect();
    let is_replaced = |change: &&Change| {
        let Target::Row { cluster, role } = &change.target else { return false };
        if role.rsplit('/').next().is_some_and(|name| roles.contains(name)) {
            return false;
        }
        let entry = made.get(&(cluster.as_str(), role.clone())).and_then(|change| change.shall_be.as_ref());
        match (&change.was, entry) {
            (Some(Object::Entry(row)), Some(Object::Entry(entry))) => {
                row.username == entry.username && row.groups.is_subset(&entry.groups)
            }
            _ => false,
        }
    };
    changes.iter().filter(is_replaced).map(|change| change.target.clone()).collect()
}

fn split(change: Change, replaced: &BTreeSet<Target>) -> Vec<(Rank, Change)> {
    let taken = change.shall_be.is_none();
    let rank = match change.target {
        Target::Group(_) if taken => Rank::GroupsTaken,
        Target::Group(_) => Rank::GroupsGiven,
        Target::ClusterRole { .. } | Target::Role { .. } if taken => Rank::RulesTaken,
        Target::ClusterRole { .. } | Target::Role { .. } if is_narrower(&change) => Rank::RulesNarrowed,
        Target::ClusterRole { .. } | Target::Role { .. } => Rank::RulesGiven,
        Target::IamRole(_) if taken => Rank::IamRolesTaken,
        Target::IamRole(_) if change.was.is_some() => Rank::IamRolesMended,
        Target::IamRole(_) => Rank::IamRolesGiven,
        Target::Row { .. } if replaced.contains(&change.target) => Rank::RowsReplaced,
        Target::Row { .. } => Rank::RowsTaken,
        Target::Entry { .. } => return entry(change),
        Target::RoleBinding { .. } | Target::ClusterRoleBinding { .. } => return binding(change),
    };
    vec![(rank, change)]
}

/// An entry that made its holder somebody else is removed, and made anew when all that the right one has is right.
fn entry(change: Change) -> Vec<(Rank, Change)> {
    match (&change.was, &change.shall_be) {
        (_, None) => vec![(Rank::EntriesTaken, change)],
        (Some(Object::Entry(was)), Some(Object::Entry(shall_be))) if was.username != shall_be.username => {
            let taken = Change { shall_be: None, ..change.clone() };
            vec![(Rank::EntriesTaken, taken), (Rank::EntriesGiven, Change { was: None, ..change })]
        }
        (Some(_), _) => vec![(Rank::EntriesMended, change)],
        (None, _) => vec![(Rank::EntriesGiven, change)],
    }
}

fn binding(change: Change) -> Vec<(Rank, Change)> {
    let (was, shall_be) = match (&change.was, &change.shall_be) {
        (_, None) => return vec![(Rank::BindingsTaken, change)],
        (Some(Object::Binding(was)), Some(Object::Binding(shall_be))) => (was, shall_be),
        _ => return vec![(Rank::BindingsGiven, change)],
    };
    if was.role != shall_be.role {
        let taken = Change { shall_be: None, ..change.clone() };
        let given = Change { was: None, version: String::new(), ..change };
        return vec![(Rank::BindingsTaken, taken), (Rank::BindingsGiven, given)];
    }
    if shall_be.subjects.is_subset(&was.subjects) {
        return vec![(Rank::BindingsTaken, change)];
    }
    if was.subjects.is_subset(&shall_be.subjects) {
        return vec![(Rank::BindingsGiven, change)];
    }
    let staying = Object::Binding(Binding { subjects: &was.subjects & &shall_be.subjects, ..was.clone() });
    let taken = Change { shall_be: Some(staying.clone()), ..change.clone() };
    // Which version it has then is not known yet.
    let given = Change { was: Some(staying), version: String::new(), ..change };
    vec![(Rank::BindingsTaken, taken), (Rank::BindingsGiven, given)]
}

/// The Role or ClusterRole that a binding is to.
pub fn role_of(target: &Target, binding: &Binding) -> Option<Target> {
    let (kind, name) = &binding.role;
    let (cluster, namespace) = match target {
        Target::RoleBinding { cluster, namespace, .. } => (cluster.clone(), Some(namespace.clone())),
        Target::ClusterRoleBinding { cluster, .. } => (cluster.clone(), None),
        _ => return None,
    };
    match (kind.as_str(), namespace) {
        ("Role", Some(namespace)) => Some(Target::Role { cluster, namespace, name: name.clone() }),
        ("ClusterRole", _) => Some(Target::ClusterRole { cluster, name: name.clone() }),
        _ => None,
    }
}

/// Whether a change of rules certainly gives nobody more.
pub fn is_narrower(change: &Change) -> bool {
    match (&change.was, &change.shall_be) {
        (Some(Object::Rules(was)), Some(Object::Rules(shall_be))) => narrows(was, shall_be),
        _ => false,
    }
}

/// Whether `new` certainly allows nothing that `old` did not.
fn narrows(old: &Rules, new: &Rules) -> bool {
    !new.aggregated && new.rules.iter().all(|rule| old.rules.iter().any(|former| covers(former, rule)))
}

fn covers(wide: &Rule, narrow: &Rule) -> bool {
    let has = |wide: &BTreeSet<String>, narrow: &BTreeSet<String>| wide.contains("*") || narrow.is_subset(wide);
    has(&wide.verbs, &narrow.verbs)
        && has(&wide.groups, &narrow.groups)
        && has(&wide.resources, &narrow.resources)
        && has(&wide.urls, &narrow.urls)
        && (wide.names.is_empty() || (!narrow.names.is_empty() && narrow.names.is_subset(&wide.names)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::change::Cause;
    use crate::access::world::Subject;

    fn bound(role: &str, users: &[&str]) -> Option<Object> {
        let subjects = users.iter().map(|user| Subject::User((*user).to_owned())).collect();
        Some(Object::Binding(Binding { role: ("ClusterRole".into(), role.into()), subjects }))
    }

    fn change(target: Target, was: Option<Object>, shall_be: Option<Object>) -> Change {
        Change { target, was, shall_be, version: "7".into(), user: None, cause: Cause::Configured }
    }

    fn on(name: &str) -> Target {
        Target::ClusterRoleBinding { cluster: "hyades".into(), name: name.into() }
    }

    fn rules() -> Change {
        let target = Target::ClusterRole { cluster: "hyades".into(), name: "a".into() };
        let more = Rules { aggregated: true, ..Rules::default() };
        change(target, Some(Object::Rules(Rules::default())), Some(Object::Rules(more)))
    }

    fn ranks(changes: Vec<Change>) -> Vec<Rank> {
        ranked(changes).into_iter().flat_map(|(rank, changes)| vec![rank; changes.len()]).collect()
    }

    #[test]
    fn taking_comes_first_and_backwards() {
        let role = |was, shall_be| change(Target::IamRole("alice".into()), was, shall_be);
        let object = || Some(Object::IamRole(Box::default()));
        let all = vec![
            change(on("b"), None, bound("a", &["alice"])),
            role(None, object()),
            rules(),
            role(object(), None),
            change(on("a"), bound("a", &["alice"]), None),
        ];
        let expected =
            [Rank::BindingsTaken, Rank::IamRolesTaken, Rank::RulesGiven, Rank::IamRolesGiven, Rank::BindingsGiven];
        assert_eq!(ranks(all), expected);
    }

    #[test]
    fn a_binding_to_another_role_is_removed_and_made() {
        let ranks = ranked(vec![change(on("a"), bound("a", &["alice"]), bound("b", &["alice"]))]);
        let (taken, given) = (&ranks[&Rank::BindingsTaken][0], &ranks[&Rank::BindingsGiven][0]);
        assert_eq!((&taken.shall_be, taken.version.as_str()), (&None, "7"));
        assert_eq!((&given.was, given.version.as_str()), (&None, ""));
    }

    #[test]
    fn who_goes_is_gone_before_anything_is_given() {
        let mixed = change(on("a"), bound("a", &["alice", "bob"]), bound("a", &["bob", "carol"]));
        let ranks = ranked(vec![mixed, rules()]);
        assert_eq!(ranks[&Rank::BindingsTaken][0].shall_be, bound("a", &["bob"]));
        assert_eq!(ranks[&Rank::BindingsGiven][0].was, bound("a", &["bob"]));
        let order: Vec<Rank> = ranks.into_keys().collect();
        assert_eq!(order, [Rank::BindingsTaken, Rank::RulesGiven, Rank::BindingsGiven]);
    }

    #[test]
    fn fewer_rules_are_known_as_fewer() {
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
        let rule = |verbs: &[&str], resources: &[&str]| Rule {
            verbs: set(verbs),
            groups: set(&[""]),
            resources: set(resources),
            ..Rule::default()
        };
        let rules = |rules: &[Rule]| Rules { rules: rules.to_vec(), aggregated: false };
        let wide = rules(&[rule(&["*"], &["*"])]);
        let two = rules(&[rule(&["get", "list"], &["pods", "services"])]);
        let one = rules(&[rule(&["get"], &["pods"])]);
        assert!(narrows(&wide, &two) && narrows(&two, &one) && narrows(&one, &rules(&[])));
        assert!(!narrows(&one, &two) && !narrows(&two, &wide));
        let named = rules(&[Rule { names: set(&["web"]), ..rule(&["get"], &["pods"]) }]);
        assert!(narrows(&one, &named) && !narrows(&named, &one));
    }
}
