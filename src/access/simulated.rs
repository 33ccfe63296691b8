//! AWS and clusters in memory, for tests: as strict as the real ones, and fails when it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use super::change::{Change, Object, Target};
use super::rows::{Row, rows};
use super::seam::{Fault, Fleet, People};
use super::world::{AwsAuth, Cluster, Directory, Entry, Group, MARK, Mode, Rbac, Role, Seen, World};

/// Clones share one world.
#[derive(Clone)]
pub struct Simulated {
    inner: Arc<Mutex<Inner>>,
}

/// When the answer of a failing call is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before,
    /// It was done all the same.
    After,
}

struct Inner {
    world: World,
    group_path: String,
    calls: usize,
    changes: usize,
    failing: BTreeMap<usize, When>,
    dead_from: Option<usize>,
    versions: usize,
}

impl Simulated {
    /// `group_path` as `[rbac]` has it.
    pub fn new(world: World, group_path: &str) -> Self {
        let (failing, group_path) = (BTreeMap::new(), group_path.to_owned());
        let inner = Inner { world, group_path, calls: 0, changes: 0, failing, dead_from: None, versions: 1000 };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// As it is now.
    pub fn world(&self) -> World {
        self.lock().world.clone()
    }

    /// An admin's hand.
    pub fn by_hand(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.lock().world);
    }

    /// All calls so far, reads too.
    pub fn calls(&self) -> usize {
        self.lock().calls
    }

    /// Changes that were carried out.
    pub fn changes(&self) -> usize {
        self.lock().changes
    }

    /// The n-th call from the beginning (1 is the first) fails.
    pub fn fail_at(&self, call: usize, when: When) {
        self.lock().failing.insert(call, when);
    }

    /// That call and all after it fail, until `heal`.
    pub fn die_at(&self, call: usize) {
        self.lock().dead_from = Some(call);
    }

    pub fn heal(&self) {
        let mut inner = self.lock();
        inner.failing.clear();
        inner.dead_from = None;
    }

    /// What `People` and `Fleet` do, without waiting.
    pub fn carry_out_now(&self, change: &Change) -> Result<(), Fault> {
        let mut inner = self.lock();
        inner.called(|inner| {
            match change.target.cluster() {
                None => iam(&mut inner.world.directory, &inner.group_path, change)?,
                Some(name) => {
                    inner.versions += 1;
                    let version = inner.versions.to_string();
                    let Inner { world: World { directory, clusters }, .. } = inner;
                    let Some(Seen::Read(cluster)) = clusters.get_mut(name) else {
                        return Err(fault("Unavailable", name));
                    };
                    in_cluster(cluster, directory, change, &version)?;
                }
            }
            inner.changes += 1;
            Ok(())
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

impl Inner {
    fn called<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        self.calls += 1;
        let lost = Fault { code: "Lost".into(), message: "no answer".into(), transient: true };
        if self.dead_from.is_some_and(|from| self.calls >= from) {
            return Err(lost);
        }
        match self.failing.get(&self.calls) {
            Some(When::Before) => Err(lost),
            Some(When::After) => act(self).and(Err(lost)),
            None => act(self),
        }
    }
}

impl People for Simulated {
    async fn read(&self) -> Result<Directory, Fault> {
        self.lock().called(|inner| Ok(inner.world.directory.clone()))
    }

    async fn carry_out(&self, change: &Change) -> Result<(), Fault> {
        assert_eq!(change.target.cluster(), None, "{change:?}");
        self.carry_out_now(change)
    }
}

impl Fleet for Simulated {
    async fn clusters(&self) -> Result<Vec<String>, Fault> {
        self.lock().called(|inner| Ok(inner.world.clusters.keys().cloned().collect()))
    }

    async fn read(&self, cluster: &str) -> Result<Cluster, Fault> {
        self.lock().called(|inner| match inner.world.clusters.get(cluster) {
            Some(Seen::Read(read)) => Ok((**read).clone()),
            Some(Seen::Away(why)) => Err(Fault { code: "Away".into(), message: why.clone(), transient: true }),
            None => Err(fault("NotFound", cluster)),
        })
    }

    async fn carry_out(&self, cluster: &str, change: &Change) -> Result<(), Fault> {
        assert_eq!(change.target.cluster(), Some(cluster), "{change:?}");
        self.carry_out_now(change)
    }
}

fn fault(code: &str, message: impl ToString) -> Fault {
    Fault { code: code.into(), message: message.to_string(), transient: false }
}

fn iam(directory: &mut Directory, group_path: &str, change: &Change) -> Result<(), Fault> {
    match (&change.target, &change.was, &change.shall_be) {
        (Target::Group(grant), None, Some(Object::Group)) => {
            let name = grant.to_string();
            // Made by a try whose answer was lost, or by another daemon.
            if directory.groups.get(&name).is_some_and(|held| held.path == group_path) {
                return Ok(());
            }
            if name.len() > 128 || directory.groups.keys().any(|known| known.eq_ignore_ascii_case(&name)) {
                return Err(fault("EntityAlreadyExists", name));
            }
            let group = Group { path: group_path.into(), members: BTreeSet::new(), created: 1 };
            directory.groups.insert(name, group);
            Ok(())
        }
        (Target::Group(grant), Some(Object::Group), None) => {
            let name = grant.to_string();
            let Some(group) = directory.groups.get(&name) else { return Ok(()) };
            assert!(group.path.starts_with(group_path), "a foreign group: {change:?}");
            if !group.members.is_empty() {
                return Err(fault("DeleteConflict", name));
            }
            directory.groups.remove(&name);
            Ok(())
        }
        (Target::IamRole(name), was, shall_be) => {
            let taken = directory.roles.keys().any(|known| known.eq_ignore_ascii_case(name));
            let ours = directory.roles.get(name).is_some_and(|role| role.tags.contains_key(MARK));
            let mark = |role: &Role| (role.path.clone(), role.tags.get(MARK).cloned());
            match (was, shall_be) {
                (None, Some(Object::IamRole(role)))
                    if ours && directory.roles.get(name).map(mark) == Some(mark(role)) => {}
                (None, Some(Object::IamRole(_))) if taken || name.len() > 64 => {
                    return Err(fault("EntityAlreadyExists", name));
                }
                (Some(_), None) if !taken => return Ok(()),
                (Some(_), Some(_)) if !taken => return Err(fault("NoSuchEntity", name)),
                (Some(_), _) => assert!(ours, "a foreign role: {change:?}"),
                _ => {}
            }
            match shall_be {
                Some(Object::IamRole(role)) => {
                    let path = directory.roles.get(name).map(|role| &role.path);
                    assert!(path.is_none_or(|path| *path == role.path), "paths never change: {change:?}");
                    assert!(role.tags.contains_key(MARK), "no mark: {change:?}");
                    directory.roles.insert(name.clone(), (**role).clone());
                }
                None => drop(directory.roles.remove(name)),
                Some(other) => panic!("{other:?} is no role"),
            }
            Ok(())
        }
        other => panic!("not a change of IAM: {other:?}"),
    }
}

fn in_cluster(cluster: &mut Cluster, iam: &Directory, change: &Change, version: &str) -> Result<(), Fault> {
    let spaces = cluster.namespaces.clone();
    let there = |namespace: &String| match spaces.contains_key(namespace) {
        true => Ok(()),
        false => Err(fault("NotFound", namespace)),
    };
    let rules = |object: &Object| match object {
        Object::Rules(rules) => rules.clone(),
        other => panic!("{other:?} are no rules"),
    };
    let binding = |object: &Object| match object {
        Object::Binding(binding) => binding.clone(),
        other => panic!("{other:?} is no binding"),
    };
    match &change.target {
        Target::ClusterRole { name, .. } => put(&mut cluster.cluster_roles, name.clone(), change, version, rules),
        Target::Role { namespace, name, .. } => {
            there(namespace)?;
            put(&mut cluster.roles, (namespace.clone(), name.clone()), change, version, rules)
        }
        Target::ClusterRoleBinding { name, .. } => {
            let held = cluster.cluster_bindings.get(name).map(|held| &held.is.role);
            same_role(held, change)?;
            put(&mut cluster.cluster_bindings, name.clone(), change, version, binding)
        }
        Target::RoleBinding { namespace, name, .. } => {
            there(namespace)?;
            let key = (namespace.clone(), name.clone());
            same_role(cluster.bindings.get(&key).map(|held| &held.is.role), change)?;
            put(&mut cluster.bindings, key, change, version, binding)
        }
        Target::Entry { role, .. } => entry(cluster, iam, role, change),
        Target::Row { role, .. } => {
            assert!(cluster.mode == Mode::Both && change.shall_be.is_none(), "{change:?}");
            unlist(&mut cluster.aws_auth, role, change)
        }
        Target::Group(_) | Target::IamRole(_) => panic!("not in a cluster: {change:?}"),
    }
}

/// Kubernetes: "roleRef is immutable".
fn same_role(held: Option<&(String, String)>, change: &Change) -> Result<(), Fault> {
    match (held, &change.was, &change.shall_be) {
        (Some(held), Some(_), Some(Object::Binding(binding))) if *held != binding.role => {
            Err(fault("Invalid", "cannot change roleRef"))
        }
        _ => Ok(()),
    }
}

fn put<K: Ord, T: Clone>(
    held: &mut BTreeMap<K, Rbac<T>>,
    key: K,
    change: &Change,
    version: &str,
    value: impl Fn(&Object) -> T,
) -> Result<(), Fault> {
    match (held.get(&key), &change.was) {
        (Some(_), None) => return Err(fault("AlreadyExists", &change.target)),
        (None, Some(_)) => return Err(fault("NotFound", &change.target)),
        (Some(found), Some(_)) => {
            assert!(found.is_ours(), "a foreign object: {change:?}");
            if !change.version.is_empty() && change.version != found.version {
                return Err(Fault { transient: true, ..fault("Conflict", &change.target) });
            }
        }
        (None, None) => {}
    }
    match &change.shall_be {
        Some(object) => {
            let (labels, version) = (object.labels(), version.to_owned());
            held.insert(key, Rbac { is: value(object), labels, created: 1, version });
        }
        None => drop(held.remove(&key)),
    }
    Ok(())
}

fn entry(cluster: &mut Cluster, iam: &Directory, arn: &str, change: &Change) -> Result<(), Fault> {
    let shall_be = match &change.shall_be {
        None => None,
        Some(Object::Entry(entry)) => Some(entry),
        Some(other) => panic!("{other:?} is no entry"),
    };
    let name = arn.rsplit('/').next().unwrap();
    if shall_be.is_some() && change.was.is_none() && !iam.roles.contains_key(name) {
        return Err(fault("InvalidParameterException", arn));
    }
    match cluster.mode {
        Mode::Entries | Mode::Both => match (cluster.entries.get(arn), &change.was) {
            (Some(_), None) => return Err(fault("ResourceInUseException", arn)),
            (None, Some(_)) => return Err(fault("ResourceNotFoundException", arn)),
            (Some(found), Some(_)) => {
                assert!(found.tags.contains_key(MARK), "a foreign entry: {change:?}");
                let kind = shall_be.map(|entry| &entry.kind);
                assert!(kind.is_none_or(|kind| *kind == found.kind), "the kind never changes: {change:?}");
            }
            (None, None) => {}
        },
        Mode::AwsAuth => return row(&mut cluster.aws_auth, arn, change.was.is_some(), shall_be),
        Mode::Impersonated => panic!("nobody is let in here: {change:?}"),
    }
    match shall_be {
        Some(entry) => drop(cluster.entries.insert(arn.to_owned(), entry.clone())),
        None => drop(cluster.entries.remove(arn)),
    }
    Ok(())
}

/// All of them, if the one that was planned with is still there.
fn unlist(aws_auth: &mut AwsAuth, arn: &str, change: &Change) -> Result<(), Fault> {
    let Some(Object::Entry(was)) = &change.was else { panic!("{change:?}") };
    let mut all = rows(aws_auth.map_roles.as_deref().unwrap_or_default()).map_err(|why| fault("Unparsable", why))?;
    let is = |row: &Row| row.arn.eq_ignore_ascii_case(arn);
    if !all.iter().any(|row| is(row) && row.username == was.username && row.groups == was.groups) {
        return Err(fault("Conflict", &change.target));
    }
    all.retain(|row| !is(row));
    aws_auth.map_roles = Some(serde_saphyr::to_string(&all).unwrap());
    Ok(())
}

fn row(aws_auth: &mut AwsAuth, arn: &str, was: bool, shall_be: Option<&Entry>) -> Result<(), Fault> {
    let mut all = rows(aws_auth.map_roles.as_deref().unwrap_or_default()).map_err(|why| fault("Unparsable", why))?;
    let count = all.iter().filter(|row| row.arn.eq_ignore_ascii_case(arn)).count();
    if count != usize::from(was) {
        return Err(fault("Conflict", format!("{count} rows of {arn}")));
    }
    let made = shall_be.map(|entry| Row {
        arn: arn.to_owned(),
        username: entry.username.clone(),
        groups: entry.groups.clone(),
    });
    match (all.iter().position(|row| row.arn.eq_ignore_ascii_case(arn)), made) {
        (Some(at), Some(made)) => all[at] = made,
        (Some(at), None) => drop(all.remove(at)),
        (None, made) => all.extend(made),
    }
    aws_auth.map_roles = Some(serde_saphyr::to_string(&all).unwrap());
    Ok(())
}
