//! What should be there: the grants that count, and on each cluster the roles, bindings and entries that they mean.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::change::{Object, Target};
use super::entries::{self, Other, STANDARD};
use super::level::{in_cluster, in_namespace, keeping};
use super::membership::{Membership, membership};
use super::names::Grant;
use super::plan::Problem;
use super::roles::{Roles, roles};
use super::rows::without_path;
use super::world::{
    Binding, Cluster, Directory, Entry, MARK, Members, Mode, Rbac, Role, Rules, Seen, Subject, WRITTEN, World,
};
use crate::config::Terms;
use crate::config::rbac::Level;
use crate::identity::Principal;

/// Behind the name of a ClusterRole that is bound in namespaces, each for itself.
pub const NAMESPACES: &str = ":namespaces";
/// Whether only access calls an RBAC object so.
pub fn is_name_of_ours(name: &str) -> bool {
    name.strip_suffix(NAMESPACES).unwrap_or(name).parse::<Grant>().is_ok()
}

const AWS_AUTH: &str = "aws-auth";

/// Before the name of a group of IAM: what Kubernetes calls it.
pub const GROUP: &str = "stockade:";

/// The objects that should be there, and only those that are ours to make.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Those that clusters have a place for; whether IAM does is another question.
    pub grants: BTreeSet<Grant>,
    /// Who has what, as far as it counts.
    pub members: Members,
    /// IAM roles by name.
    pub roles: BTreeMap<String, Role>,
    /// Of the clusters that could be read.
    pub clusters: BTreeMap<String, Place>,
    pub problems: Vec<Problem>,
}

/// One cluster's part. What many namespaces have alike is there once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    pub cluster_roles: BTreeMap<String, Arc<Rules>>,
    /// By namespace and name.
    pub roles: BTreeMap<(String, String), Arc<Rules>>,
    pub cluster_bindings: BTreeMap<String, Arc<Binding>>,
    pub bindings: BTreeMap<(String, String), Arc<Binding>>,
    /// By the ARN as it stands in the entry, or without its path in aws-auth.
    pub entries: BTreeMap<String, Entry>,
    /// `None`: who is let in cannot be told, and is left as it is.
    pub held: Option<entries::Held>,
    /// Rows of aws-auth that are to go, for entries are what counts.
    pub rows: BTreeMap<String, Entry>,
}

impl Place {
    /// Whether the role of an entry or of a row is to be let in.
    pub fn lets_in(&self, target: &Target) -> bool {
        match target {
            Target::Entry { role, .. } => self.entries.contains_key(role),
            Target::Row { role, .. } => self.entries.keys().any(|arn| without_path(arn) == *role),
            _ => false,
        }
    }
}

/// What should be in `world`.
pub fn wanted(world: &World, terms: &Terms) -> Wanted {
    let membership = membership(world, terms);
    let mut roles = roles(&world.directory, &membership, terms);
    let mut wanted = Wanted::default();
    wanted.problems.extend(membership.problems.iter().cloned());
    wanted.problems.append(&mut roles.problems);
    let mut users = entries::users(&world.directory, terms);
    users.extend(roles.arns.keys().map(String::as_str));
    let mut live: BTreeMap<&str, Vec<(&Grant, &BTreeSet<String>)>> = BTreeMap::new();
    for (grant, users) in &membership.live {
        live.entry(&grant.cluster).or_default().push((grant, users));
    }
    for (name, seen) in &world.clusters {
        match seen {
            Seen::Away(why) => wanted.problems.push(Problem {
                cluster: Some(name.clone()),
                subject: name.clone(),
                what: format!("it cannot be read ({why}): nothing is done there, and its users keep their roles"),
            }),
            Seen::Read(cluster) => {
                let live = live.remove(name.as_str()).unwrap_or_default();
                let ground = Ground { name, cluster, terms, live };
                let mut place = ground.place(&membership, &roles, &mut wanted);
                let others = ground.others(&users, &mut place, &mut wanted);
                ground.ways_past_the_door(&others, &world.directory, &roles, &mut wanted);
                ground.strangers(&others, &place, &mut wanted);
                wanted.clusters.insert(name.clone(), place);
            }
        }
    }
    wanted.roles = roles.wanted;
    wanted.members = membership.live;
    wanted
}

struct Ground<'a> {
    name: &'a str,
    cluster: &'a Cluster,
    terms: &'a Terms,
    /// Who has what here.
    live: Vec<(&'a Grant, &'a BTreeSet<String>)>,
}

impl Ground<'_> {
    fn place(&self, membership: &Membership, roles: &Roles, wanted: &mut Wanted) -> Place {
        let mut place = Place::default();
        match entries::held(self.cluster, self.terms) {
            Ok(held) => place.held = Some(held),
            Err(why) => self.problem(
                wanted,
                AWS_AUTH,
                format!(
                    "mapRoles of kube-system/aws-auth is not what EKS reads ({why}): who is let in is left as it is"
                ),
            ),
        }
        for namespace in &self.cluster.crowded {
            let what = "it has so many Roles or RoleBindings that only those with a name of access are read: find out who makes \
                        them, and delete them";
            self.problem(wanted, &format!("namespace {namespace}"), what.to_owned());
        }
        let admitted = Admitted { membership, let_in: self.let_in(roles, &mut place, wanted) };
        for level in &self.terms.rbac.levels {
            self.whole(level, &admitted, &mut place, wanted);
            self.namespaces(level, &admitted, &mut place, wanted);
        }
        place
    }

    /// Whom others let in. What aws-auth says of our own roles beside their entries is to go.
    fn others(&self, users: &BTreeSet<&str>, place: &mut Place, wanted: &mut Wanted) -> Vec<Other> {
        let mut others: Vec<Other> = place.held.iter().flat_map(|held| held.foreign.clone()).collect();
        let said = |what: &str, why: String| {
            format!(
                "{what} of kube-system/aws-auth is not what EKS reads ({why}): whom it lets in is not known, mend it"
            )
        };
        if let Some(why) = &self.cluster.aws_auth.unread {
            let what = format!("what stands in it beside the access entries is not known ({why}): let access read it");
            self.problem(wanted, AWS_AUTH, what);
        }
        match entries::beside(self.cluster, users, self.terms) {
            Ok(beside) => {
                place.rows = beside.ours;
                others.extend(beside.foreign);
            }
            Err(why) => self.problem(wanted, AWS_AUTH, said("mapRoles", why)),
        }
        match entries::users_of_iam(self.cluster) {
            Ok(users) => others.extend(users),
            Err(why) => self.problem(wanted, AWS_AUTH, said("mapUsers", why)),
        }
        others
    }

    /// The keys of a user's other role are in jails: whoever lets that one in lets its user in past the kube door.
    fn ways_past_the_door(&self, others: &[Other], directory: &Directory, roles: &Roles, wanted: &mut Wanted) {
        for arn in others.iter().map(|other| &other.arn) {
            if arn.split(':').nth(4) != Some(directory.account.as_str()) || !arn.contains(":role/") {
                continue;
            }
            let role = arn.rsplit('/').next().and_then(|name| directory.roles.get(name));
            let Some(user) = role.and_then(|role| role.tags.get(MARK)) else { continue };
            if roles.arns.get(user).is_none_or(|own| own != arn && without_path(own) != *arn) {
                let what = format!(
                    "a hand let in this role of {user}'s, whose keys are in jails and go past the kube door: remove that \
                     entry"
                );
                self.problem(wanted, arn, what);
            }
        }
    }

    /// Somebody who has the name of a user of ours has that user's rights, and no group of IAM says so.
    fn strangers(&self, others: &[Other], place: &Place, wanted: &mut Wanted) {
        for other in others {
            let own = entries::is_own(&other.arn, &other.username, self.terms);
            let name = (!own && self.is_name(&other.username, place))
                .then(|| format!("as '{}'", other.username.escape_debug()));
            let groups = other.groups.iter().filter(|group| group.starts_with(GROUP));
            let groups: Vec<String> = groups.map(|group| format!("in group '{}'", group.escape_debug())).collect();
            let said: Vec<String> = name.into_iter().chain(groups).collect();
            if !said.is_empty() {
                let what = format!(
                    "{} of another hand lets it in {}, past every group of IAM: left, and whoever has it has what that \
                     name has here; remove it there",
                    other.by,
                    said.join(", ")
                );
                self.problem(wanted, &other.arn, what);
            }
        }
    }

    /// Whether access calls somebody so, or may some day.
    fn is_name(&self, username: &str, place: &Place) -> bool {
        match self.terms.rbac.username.as_str() {
            // Any name may be a user's, and one with a session in it is whatever its bearer likes.
            "{user}" => {
                let is_known = || place.entries.values().any(|entry| entry.username == username);
                username.contains("{{SessionName") || is_known()
            }
            _ => username.starts_with(GROUP) || self.terms.rbac.user_of(username).is_some(),
        }
    }

    /// Who may be bound here, and the entries of those that EKS lets in.
    fn let_in(&self, roles: &Roles, place: &mut Place, wanted: &mut Wanted) -> BTreeMap<String, Subject> {
        let mut grants: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (grant, users) in &self.live {
            for user in *users {
                grants.entry(user).or_default().insert(format!("{GROUP}{grant}"));
            }
        }
        let mut let_in = BTreeMap::new();
        for (user, groups) in grants {
            if self.cluster.mode == Mode::Impersonated {
                match user.parse::<Principal>() {
                    Ok(_) => drop(let_in.insert(user.to_owned(), Subject::User(user.to_owned()))),
                    Err(why) => self.problem(wanted, user, format!("{why}: nothing is given")),
                }
                continue;
            }
            let Some(arn) = roles.arns.get(user) else {
                if self.terms.cluster_role().is_none() {
                    self.problem(
                        wanted,
                        user,
                        "EKS knows users by roles, and there is no [aws]: nothing is given".into(),
                    );
                }
                continue;
            };
            let arn = entries::key(self.cluster.mode, arn);
            if place.held.as_ref().is_some_and(|held| held.has_foreign(&arn)) {
                let what = format!(
                    "somebody else let this role in: left, and {user} gets nothing here; remove that entry to hand it over"
                );
                self.problem(wanted, &arn, what);
                continue;
            }
            let username = self.terms.rbac.username_of(user);
            let tags = [(MARK.to_owned(), user.to_owned())].into();
            let entry =
                Entry { username: username.clone(), groups, tags, kind: STANDARD.to_owned(), ..Entry::default() };
            place.entries.insert(arn, entry);
            let_in.insert(user.to_owned(), Subject::User(username));
        }
        let_in
    }

    /// A level for the cluster as a whole.
    fn whole(&self, level: &Level, admitted: &Admitted<'_>, place: &mut Place, wanted: &mut Wanted) {
        let grant = Grant::of_cluster(&level.name, self.name);
        let name = grant.to_string();
        let subjects = admitted.subjects(&grant);
        wanted.grants.insert(grant);
        let expanded = in_cluster(level, &self.cluster.served);
        let inner = format!("{name}{NAMESPACES}");
        let kept = |name: &str, rules| self.kept(level, rules, self.cluster.cluster_roles.get(name));
        if self.cluster_role(&name, kept(&name, expanded.everywhere), place, wanted) {
            self.cluster_binding(&name, &subjects, place, wanted);
        }
        let namespaces = expanded.namespaces.map(|rules| kept(&inner, rules));
        let Some(rules) = namespaces.filter(|rules| !rules.rules.is_empty()) else { return };
        if self.cluster_role(&inner, rules, place, wanted) && !subjects.is_empty() {
            let binding = Arc::new(Binding { role: ("ClusterRole".into(), inner), subjects });
            let skipped = |namespace: &&String| self.terms.rbac.is_skipped(namespace);
            let spaces = self.cluster.namespaces.iter().filter(|(_, space)| !space.terminating).map(|(name, _)| name);
            for namespace in spaces.filter(|namespace| !skipped(namespace)) {
                self.binding(namespace, &name, &binding, place, wanted);
            }
        }
    }

    /// A level for each namespace that has groups of its own.
    fn namespaces(&self, level: &Level, admitted: &Admitted<'_>, place: &mut Place, wanted: &mut Wanted) {
        let written = in_namespace(level, &self.cluster.served);
        let mut rules = Arc::new(written.clone());
        let rbac = &self.terms.rbac;
        for (namespace, about) in &self.cluster.namespaces {
            if about.terminating || rbac.is_skipped(namespace) || !rbac.namespaces.has(&about.labels) {
                continue;
            }
            let grant = Grant::of_namespace(&level.name, self.name, namespace);
            let (name, subjects) = (grant.to_string(), admitted.subjects(&grant));
            wanted.grants.insert(grant);
            let key = (namespace.clone(), name.clone());
            let target =
                || Target::Role { cluster: self.name.into(), namespace: namespace.clone(), name: name.clone() };
            let held = self.cluster.roles.get(&key);
            if !self.is_free(held, target, wanted) {
                continue;
            }
            if !self.cluster.stale.is_empty() {
                let kept = self.kept(level, written.clone(), held);
                // Most are alike.
                rules = if *rules == kept { rules } else { Arc::new(kept) };
            }
            place.roles.insert(key, rules.clone());
            if !subjects.is_empty() {
                let binding = Arc::new(Binding { role: ("Role".into(), name.clone()), subjects });
                self.binding(namespace, &name, &binding, place, wanted);
            }
        }
    }

    /// With what the object that is there has of groups that cannot be asked, unless another hand wrote it.
    fn kept(&self, level: &Level, rules: Rules, held: Option<&Rbac<Rules>>) -> Rules {
        let stale = &self.cluster.stale;
        match held.filter(|held| !stale.is_empty() && held.is_ours() && is_as_written(held)) {
            Some(held) => keeping(rules, level, &held.is, stale),
            None => rules,
        }
    }

    /// False: somebody else's is in its place, and what that allows is nobody's to give.
    fn cluster_role(&self, name: &str, rules: Rules, place: &mut Place, wanted: &mut Wanted) -> bool {
        let target = || Target::ClusterRole { cluster: self.name.into(), name: name.into() };
        let free = self.is_free(self.cluster.cluster_roles.get(name), target, wanted);
        if free {
            place.cluster_roles.insert(name.to_owned(), Arc::new(rules));
        }
        free
    }

    fn cluster_binding(&self, name: &str, subjects: &BTreeSet<Subject>, place: &mut Place, wanted: &mut Wanted) {
        let target = || Target::ClusterRoleBinding { cluster: self.name.into(), name: name.into() };
        if self.is_free(self.cluster.cluster_bindings.get(name), target, wanted) && !subjects.is_empty() {
            let role = ("ClusterRole".to_owned(), name.to_owned());
            place.cluster_bindings.insert(name.to_owned(), Arc::new(Binding { role, subjects: subjects.clone() }));
        }
    }

    fn binding(&self, namespace: &str, name: &str, binding: &Arc<Binding>, place: &mut Place, wanted: &mut Wanted) {
        let key = (namespace.to_owned(), name.to_owned());
        let target =
            || Target::RoleBinding { cluster: self.name.into(), namespace: namespace.into(), name: name.into() };
        if self.is_free(self.cluster.bindings.get(&key), target, wanted) {
            place.bindings.insert(key, binding.clone());
        }
    }

    fn is_free<T>(&self, held: Option<&Rbac<T>>, target: impl Fn() -> Target, wanted: &mut Wanted) -> bool {
        if held.is_none_or(Rbac::is_ours) {
            return true;
        }
        let what =
            "it is there, and access did not make it: left, and nothing is given by it; remove it to have it made";
        wanted.problems.push(Problem {
            cluster: Some(self.name.to_owned()),
            subject: target().to_string(),
            what: what.to_owned(),
        });
        false
    }

    fn problem(&self, wanted: &mut Wanted, subject: &str, what: String) {
        let subject = subject.escape_debug().to_string();
        wanted.problems.push(Problem { cluster: Some(self.name.to_owned()), subject, what });
    }
}

fn is_as_written(held: &Rbac<Rules>) -> bool {
    held.labels.get(WRITTEN).is_some_and(|written| *written == Object::Rules(held.is.clone()).written())
}

/// Who is in which group, and may be bound on a cluster.
struct Admitted<'a> {
    membership: &'a Membership,
    let_in: BTreeMap<String, Subject>,
}

impl Admitted<'_> {
    fn subjects(&self, grant: &Grant) -> BTreeSet<Subject> {
        let users = self.membership.live.get(grant).into_iter().flatten();
        users.filter_map(|user| self.let_in.get(user).cloned()).collect()
    }
}
