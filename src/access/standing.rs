//! What went wrong so far, and what must therefore not be done: a right is not given to somebody through a rule or a
//! role that could not be set right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::change::{Change, Object, Target};
use super::evidence::subjects;
use super::ranks::{Rank, role_of};
use super::rows::without_path;
use super::seam::Fault;
use super::world::{Binding, Seen, Subject, World};
use crate::config::Terms;

/// After so many in a row a place is left alone until the next cycle.
const MOST_FAULTS: u32 = 3;

/// Who users are, each with `{user}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// On EKS clusters.
    pub username: String,
    /// In IAM: the name of the role that clusters know.
    pub role: String,
}

impl Names {
    pub fn of(terms: &Terms) -> Self {
        let role = terms.cluster_role().map(|template| template.as_str()).unwrap_or_default();
        let role = role.rsplit('/').next().unwrap_or_default().to_owned();
        Self { username: terms.rbac.username.clone(), role }
    }
}

/// What is known to be not as it should.
#[derive(Clone, Debug)]
pub struct Standing {
    names: Names,
    bound: Arc<Bound>,
    /// Whatever could not be changed: what follows was meant for what it would have been.
    undone: BTreeSet<Target>,
    /// Roles and ClusterRoles that are not as they shall be.
    unwritten: BTreeSet<Target>,
    /// Those that somebody is still bound to who shall not be.
    crowded: BTreeSet<Target>,
    /// Names on clusters that are still bound to something they shall not have.
    lingering: BTreeSet<String>,
    /// Names on clusters whose roles in IAM or access entries are not as they shall be.
    unsafe_names: BTreeSet<String>,
    /// Users whose roles in IAM are not as they shall be, or lead where they shall not.
    users: BTreeSet<String>,
    /// Users whose roles in IAM aws-auth lets in still.
    in_rows: BTreeSet<String>,
    /// In a row, by place; `None` is IAM.
    faults: BTreeMap<Option<String>, u32>,
}

/// Who is bound to which Role and ClusterRole, by their names on the cluster.
pub type Bound = BTreeMap<Target, BTreeSet<String>>;

/// As it was before anything was changed.
pub fn bound(world: &World) -> Bound {
    let mut bound = Bound::new();
    let mut note = |target: Target, binding: &Binding| {
        let names = binding.subjects.iter().filter_map(name);
        if let Some(role) = role_of(&target, binding) {
            bound.entry(role).or_default().extend(names);
        }
    };
    for (cluster, seen) in &world.clusters {
        let Seen::Read(read) = seen else { continue };
        for (name, binding) in read.cluster_bindings.iter().filter(|(_, binding)| binding.is_ours()) {
            note(Target::ClusterRoleBinding { cluster: cluster.clone(), name: name.clone() }, &binding.is);
        }
        for ((namespace, name), binding) in read.bindings.iter().filter(|(_, binding)| binding.is_ours()) {
            let (cluster, namespace, name) = (cluster.clone(), namespace.clone(), name.clone());
            note(Target::RoleBinding { cluster, namespace, name }, &binding.is);
        }
    }
    bound
}

impl Standing {
    pub fn new(names: &Names, bound: Arc<Bound>) -> Self {
        Self {
            names: names.clone(),
            bound,
            undone: BTreeSet::new(),
            unwritten: BTreeSet::new(),
            crowded: BTreeSet::new(),
            lingering: BTreeSet::new(),
            unsafe_names: BTreeSet::new(),
            users: BTreeSet::new(),
            in_rows: BTreeSet::new(),
            faults: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, other: Self) {
        self.undone.extend(other.undone);
        self.unwritten.extend(other.unwritten);
        self.crowded.extend(other.crowded);
        self.lingering.extend(other.lingering);
        self.unsafe_names.extend(other.unsafe_names);
        self.users.extend(other.users);
        self.in_rows.extend(other.in_rows);
        for (place, faults) in other.faults {
            let known = self.faults.entry(place).or_default();
            *known = faults.max(*known);
        }
    }

    pub fn answered(&mut self, place: Option<&str>) {
        self.faults.remove(&place.map(str::to_owned));
    }

    pub fn failed(&mut self, place: Option<&str>, fault: &Fault) {
        // Whoever may write in one namespace can keep changing what is there: that says nothing of the place.
        if fault.transient && !matches!(fault.code.as_str(), "Conflict" | "AlreadyExists") {
            *self.faults.entry(place.map(str::to_owned)).or_default() += 1;
        }
    }

    /// Why a place is left alone.
    pub fn lost(&self, place: Option<&str>) -> Option<String> {
        let faults = self.faults.get(&place.map(str::to_owned)).copied().unwrap_or_default();
        (faults >= MOST_FAULTS).then(|| format!("{} failed {faults} times in a row", place.unwrap_or("IAM")))
    }

    /// Remembers that a change is not done.
    pub fn block(&mut self, rank: Rank, change: &Change) {
        self.undone.insert(change.target.clone());
        match rank {
            Rank::RulesTaken | Rank::RulesNarrowed | Rank::RulesGiven => {
                self.unwritten.insert(change.target.clone());
            }
            Rank::BindingsTaken => {
                if let Some(Object::Binding(was)) = &change.was {
                    self.crowded.extend(role_of(&change.target, was));
                }
                let stay = subjects(change.shall_be.as_ref());
                self.lingering.extend(subjects(change.was.as_ref()).difference(&stay).filter_map(name));
            }
            Rank::IamRolesMended | Rank::IamRolesGiven if self.is_of_clusters(change) => {
                self.unsafe_names.extend(change.user.iter().map(|user| self.names.username.replace("{user}", user)));
                self.users.extend(change.user.clone());
            }
            Rank::RowsTaken => {
                if let Some(Object::Entry(row)) = &change.was {
                    self.unsafe_names.insert(row.username.clone());
                }
                self.in_rows.extend(change.user.clone());
            }
            Rank::EntriesTaken | Rank::EntriesMended | Rank::EntriesGiven => {
                if rank == Rank::EntriesTaken {
                    self.users.extend(change.user.clone());
                }
                let names = [&change.was, &change.shall_be].into_iter().flatten().filter_map(|object| match object {
                    Object::Entry(entry) => Some(entry.username.clone()),
                    _ => None,
                });
                self.unsafe_names.extend(names);
            }
            _ => {}
        }
    }

    /// What of a change may be done, and what is left with its reason.
    pub fn admit(&self, rank: Rank, change: Change) -> (Option<Change>, Option<(Change, String)>) {
        match rank {
            _ if self.undone.contains(&change.target) => {
                (None, Some((change, "the first step of it could not be done".into())))
            }
            Rank::RulesGiven if self.crowded.contains(&change.target) => {
                (None, Some((change, "somebody could not be taken out of its binding".into())))
            }
            Rank::RulesGiven if self.is_unsafe(&change.target) => (
                None,
                Some((change, "the role or access entry of one who is bound to it could not be set right".into())),
            ),
            Rank::EntriesTaken if self.is_in_row(&change) => {
                (None, Some((change, "its row in aws-auth could not be taken out, and would let it in instead".into())))
            }
            Rank::RowsReplaced if self.has_no_entry(&change) => {
                (None, Some((change, "its access entry could not be made".into())))
            }
            Rank::IamRolesGiven if self.is_awaited(&change) => {
                (None, Some((change, "a row in aws-auth that could not be taken out would let it in".into())))
            }
            Rank::IamRolesGiven | Rank::EntriesGiven if self.is_exposed(&change) => {
                (None, Some((change, "what it leads to could not be set right".into())))
            }
            Rank::BindingsGiven => self.admit_binding(change),
            _ => (Some(change), None),
        }
    }

    fn is_in_row(&self, change: &Change) -> bool {
        let Target::Entry { cluster, role } = &change.target else { return false };
        self.undone.contains(&Target::Row { cluster: cluster.clone(), role: without_path(role) })
    }

    fn has_no_entry(&self, row: &Change) -> bool {
        self.undone.iter().any(|undone| match (undone, &row.target) {
            (Target::Entry { cluster, role }, Target::Row { cluster: of, role: its }) => {
                cluster == of && without_path(role) == *its
            }
            _ => false,
        })
    }

    /// By a row that is for a role that is not there.
    fn is_awaited(&self, change: &Change) -> bool {
        self.is_of_clusters(change) && change.user.as_ref().is_some_and(|user| self.in_rows.contains(user))
    }

    /// Another role of the same user leads to no cluster.
    fn is_of_clusters(&self, change: &Change) -> bool {
        match (&change.target, &change.user) {
            (Target::IamRole(name), Some(user)) => *name == self.names.role.replace("{user}", user),
            _ => false,
        }
    }

    /// Whether a role or an entry would open what nobody shall have.
    fn is_exposed(&self, change: &Change) -> bool {
        let name = match (&change.shall_be, &change.user) {
            (Some(Object::Entry(entry)), _) => entry.username.clone(),
            (_, Some(user)) if self.is_of_clusters(change) => self.names.username.replace("{user}", user),
            _ => return false,
        };
        let unwritten = |role: &Target| self.bound.get(role).is_some_and(|names| names.contains(&name));
        change.user.as_ref().is_some_and(|user| self.users.contains(user))
            || self.lingering.contains(&name)
            || self.unwritten.iter().any(unwritten)
    }

    fn is_unsafe(&self, role: &Target) -> bool {
        self.bound.get(role).is_some_and(|names| !names.is_disjoint(&self.unsafe_names))
    }

    fn admit_binding(&self, change: Change) -> (Option<Change>, Option<(Change, String)>) {
        let (Some(Object::Binding(shall_be)), was) = (&change.shall_be, subjects(change.was.as_ref())) else {
            return (Some(change), None);
        };
        if role_of(&change.target, shall_be).is_some_and(|role| self.unwritten.contains(&role)) {
            return (None, Some((change, "its rules could not be written".into())));
        }
        let unsafe_now = |subject: &&Subject| match subject {
            Subject::User(name) => self.unsafe_names.contains(name) && !was.contains(*subject),
            _ => false,
        };
        let waiting: BTreeSet<Subject> = shall_be.subjects.iter().filter(unsafe_now).cloned().collect();
        if waiting.is_empty() {
            return (Some(change), None);
        }
        let kept = &shall_be.subjects - &waiting;
        let later = Some((change.clone(), "a user's role or access entry could not be set right".into()));
        if kept == was || (change.was.is_none() && kept.is_empty()) {
            return (None, later);
        }
        let binding = Binding { subjects: kept, ..shall_be.clone() };
        (Some(Change { shall_be: Some(Object::Binding(binding)), ..change }), later)
    }
}

fn name(subject: &Subject) -> Option<String> {
    match subject {
        Subject::User(name) => Some(name.clone()),
        Subject::Group(_) | Subject::ServiceAccount(..) => None,
    }
}
