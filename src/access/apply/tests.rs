//! Whatever there was and shall be, and whatever fails on the way: nobody has more in between than before and after.

use std::collections::BTreeMap;
use std::sync::Mutex;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::access::change::{Cause, Object, Target};
use crate::access::entries::row_of;
use crate::access::simulated::{Simulated, When};
use crate::access::standing::bound;
use crate::access::tests::worlds::cluster;
use crate::access::world::{
    Binding, Cluster, Directory, Entry, LABEL, LABELLED, MARK, Mode, Rbac, Role, Rule, Rules, Seen, Subject, World,
};

const USERS: [&str; 3] = ["alice", "bob", "carol"];
const CLUSTERS: [&str; 2] = ["hyades", "pleiades"];
const ROLES: [&str; 2] = ["a", "b"];

/// A simulation that notes what there is after each change.
struct Noted {
    simulated: Simulated,
    worlds: Mutex<Vec<World>>,
}

impl People for Noted {
    async fn read(&self) -> Result<Directory, Fault> {
        People::read(&self.simulated).await
    }

    async fn carry_out(&self, change: &Change) -> Result<(), Fault> {
        let done = People::carry_out(&self.simulated, change).await;
        self.worlds.lock().unwrap().push(self.simulated.world());
        done
    }
}

impl Fleet for Noted {
    async fn clusters(&self) -> Result<Vec<String>, Fault> {
        self.simulated.clusters().await
    }

    async fn read(&self, cluster: &str) -> Result<Cluster, Fault> {
        Fleet::read(&self.simulated, cluster).await
    }

    async fn carry_out(&self, cluster: &str, change: &Change) -> Result<(), Fault> {
        let done = Fleet::carry_out(&self.simulated, cluster, change).await;
        self.worlds.lock().unwrap().push(self.simulated.world());
        done
    }
}

/// Nobody else is there.
pub struct Alone;

impl Turns for Alone {
    async fn take(&self, _: &str) -> Result<Turn, Fault> {
        Ok(Turn::Ours)
    }

    async fn end(&self, _: &str) {}
}

fn arn(user: &str) -> String {
    format!("arn:aws:iam::123456789012:role/{user}")
}

/// One user: the role's trust, and who the entry on each cluster says they are.
type Person = Option<(bool, [Option<usize>; 2])>;
/// Verbs, and who is bound to it, by which role.
type Level = ([bool; 3], Option<([bool; 3], usize)>);

/// Who aws-auth of `pleiades` says that each user is.
type Rows = [Option<usize>; 3];

fn with_rows(mut world: World, rows: &Rows) -> World {
    let said = USERS.iter().zip(rows).filter_map(|(user, who)| {
        let username = format!("stockade:{}", USERS[(*who)?]);
        Some(format!("- {{rolearn: '{}', username: '{username}'}}\n", arn(user)))
    });
    if let Some(Seen::Read(pleiades)) = world.clusters.get_mut("pleiades") {
        pleiades.aws_auth.map_roles = Some(said.collect());
    }
    world
}

fn row(cluster: &Cluster, user: &str) -> Option<Entry> {
    let row = row_of(cluster, &arn(user))?;
    Some(Entry { tags: BTreeMap::from([(MARK.to_owned(), user.to_owned())]), ..row })
}

fn world(people: &[Person; 3], levels: &[[Option<Level>; 2]; 2]) -> World {
    let mut world = World::default();
    let mark = |user: &str| BTreeMap::from([(MARK.to_owned(), user.to_owned())]);
    for (user, person) in USERS.iter().zip(people) {
        let Some((open, _)) = person else { continue };
        let role = Role { trust: json!({ "open": open }), tags: mark(user), ..Role::default() };
        world.directory.roles.insert((*user).to_owned(), role);
    }
    for (at, name) in CLUSTERS.iter().enumerate() {
        let mode = if *name == "pleiades" { Mode::Both } else { Mode::Entries };
        let mut cluster = Cluster { served: Vec::new(), ..cluster(mode, []) };
        for (user, person) in USERS.iter().zip(people) {
            let Some(who) = person.and_then(|(_, entries)| entries[at]) else { continue };
            let (username, kind) = (format!("stockade:{}", USERS[who]), "STANDARD".to_owned());
            let entry = Entry { username, kind, tags: mark(user), ..Entry::default() };
            cluster.entries.insert(arn(user), entry);
        }
        for (role, level) in ROLES.iter().zip(&levels[at]) {
            let Some((verbs, binding)) = level else { continue };
            let labels = BTreeMap::from([(LABEL.to_owned(), LABELLED.to_owned())]);
            let verbs = ["get", "create", "delete"].iter().zip(verbs).filter(|(_, on)| **on);
            let rule = Rule {
                verbs: verbs.map(|(verb, _)| (*verb).to_owned()).collect(),
                groups: [String::new()].into(),
                resources: ["pods".to_owned()].into(),
                ..Rule::default()
            };
            let rules = Rules { rules: vec![rule], aggregated: false };
            let version = || "1".to_owned();
            cluster
                .cluster_roles
                .insert((*role).to_owned(), Rbac { is: rules, labels: labels.clone(), created: 0, version: version() });
            let Some((subjects, to)) = binding else { continue };
            let subjects = USERS.iter().zip(subjects).filter(|(_, on)| **on);
            let subjects = subjects.map(|(user, _)| Subject::User(format!("stockade:{user}"))).collect();
            let binding = Binding { role: ("ClusterRole".to_owned(), ROLES[*to].to_owned()), subjects };
            let binding = Rbac { is: binding, labels, created: 0, version: version() };
            cluster.cluster_bindings.insert((*role).to_owned(), binding);
        }
        world.clusters.insert((*name).to_owned(), Seen::Read(Box::new(cluster)));
    }
    world
}

fn people(strict: bool) -> impl Strategy<Value = [Person; 3]> {
    let person = move |me: usize| {
        let entry = move || {
            let who = if strict { Just(me).boxed() } else { prop_oneof![3 => Just(me), 1 => 0..3_usize].boxed() };
            proptest::option::weighted(0.8, who)
        };
        let open = if strict { Just(false).boxed() } else { proptest::bool::weighted(0.2).boxed() };
        proptest::option::weighted(0.8, (open, [entry(), entry()]))
    };
    [person(0).boxed(), person(1).boxed(), person(2).boxed()]
}

fn levels() -> impl Strategy<Value = [[Option<Level>; 2]; 2]> {
    let verbs = || proptest::array::uniform3(any::<bool>());
    let bound = || proptest::option::weighted(0.8, (verbs(), 0..2_usize));
    let level = move || proptest::option::weighted(0.8, (verbs(), bound()));
    [[level(), level()], [level(), level()]]
}

/// Everything that is different, without a thought for order.
fn difference(now: &World, then: &World) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut note = |target: Target, was: Option<Object>, shall_be: Option<Object>, version: String| {
        if was != shall_be {
            let user = match &target {
                Target::IamRole(name) => Some(name.clone()),
                Target::Entry { role, .. } | Target::Row { role, .. } => role.rsplit('/').next().map(str::to_owned),
                _ => None,
            };
            changes.push(Change { target, was, shall_be, version, user, cause: Cause::Configured });
        }
    };
    for name in USERS {
        let of = |world: &World| world.directory.roles.get(name).map(|role| Object::IamRole(Box::new(role.clone())));
        note(Target::IamRole(name.to_owned()), of(now), of(then), String::new());
    }
    for name in CLUSTERS {
        let of = |world: &World| match &world.clusters[name] {
            Seen::Read(cluster) => (**cluster).clone(),
            Seen::Away(_) => unreachable!(),
        };
        let (now, then, cluster) = (of(now), of(then), name.to_owned());
        for user in USERS {
            let of = |cluster: &Cluster| cluster.entries.get(&arn(user)).cloned().map(Object::Entry);
            let target = Target::Entry { cluster: cluster.clone(), role: arn(user) };
            note(target, of(&now), of(&then), String::new());
            let target = Target::Row { cluster: cluster.clone(), role: arn(user) };
            note(target, row(&now, user).map(Object::Entry), None, String::new());
        }
        for role in ROLES {
            let of = |cluster: &Cluster| cluster.cluster_roles.get(role).map(|role| Object::Rules(role.is.clone()));
            let version = now.cluster_roles.get(role).map(|role| role.version.clone()).unwrap_or_default();
            let target = Target::ClusterRole { cluster: cluster.clone(), name: role.to_owned() };
            note(target, of(&now), of(&then), version);
            let of =
                |cluster: &Cluster| cluster.cluster_bindings.get(role).map(|held| Object::Binding(held.is.clone()));
            let version = now.cluster_bindings.get(role).map(|held| held.version.clone()).unwrap_or_default();
            let target = Target::ClusterRoleBinding { cluster: cluster.clone(), name: role.to_owned() };
            note(target, of(&now), of(&then), version);
        }
    }
    changes
}

/// What whoever may assume a role can do: its user, and everybody where its trust is open.
fn rights(world: &World) -> BTreeSet<(String, String, String)> {
    let mut rights = BTreeSet::new();
    for (user, role) in &world.directory.roles {
        let mut holders = vec![user.clone()];
        if role.trust["open"] == true {
            holders.push("everybody".to_owned());
        }
        for (name, seen) in &world.clusters {
            let Seen::Read(cluster) = seen else { continue };
            // EKS asks aws-auth about nobody who has an entry.
            let Some(entry) = cluster.entries.get(&arn(user)).cloned().or_else(|| row(cluster, user)) else { continue };
            for binding in cluster.cluster_bindings.values() {
                if !binding.is.subjects.contains(&Subject::User(entry.username.clone())) {
                    continue;
                }
                let rules = cluster.cluster_roles.get(&binding.is.role.1);
                let verbs = rules.iter().flat_map(|role| &role.is.rules).flat_map(|rule| &rule.verbs);
                for (verb, holder) in verbs.flat_map(|verb| holders.iter().map(move |holder| (verb, holder))) {
                    rights.insert((holder.clone(), name.clone(), verb.clone()));
                }
            }
        }
    }
    rights
}

fn crew(noted: &Arc<Noted>) -> Arc<Crew<Noted, Noted, Alone>> {
    let (stop, stopped) = watch::channel(false);
    std::mem::forget(stop);
    let trail = Arc::new(Trail::Kept(Mutex::default()));
    let names = Names { username: "stockade:{user}".into(), role: "{user}".into() };
    Arc::new(Crew::new((noted.clone(), noted.clone(), Arc::new(Alone)), trail, names, stopped))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nobody_has_more_in_between(
        before in (people(false), levels()),
        rows in proptest::array::uniform3(proptest::option::weighted(0.4, 0..3_usize)),
        after in (people(true), levels()),
        failing in proptest::collection::btree_map(1..60_usize, any::<bool>(), 0..8),
    ) {
        let (before, after) = (with_rows(world(&before.0, &before.1), &rows), world(&after.0, &after.1));
        let simulated = Simulated::new(before.clone(), "/stockade/");
        for (call, lost) in failing {
            simulated.fail_at(call, if lost { When::After } else { When::Before });
        }
        let noted = Arc::new(Noted { simulated: simulated.clone(), worlds: Mutex::default() });
        let crew = crew(&noted);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut rounds = 0;
        loop {
            let now = simulated.world();
            let changes = difference(&now, &after);
            if changes.is_empty() {
                break;
            }
            rounds += 1;
            prop_assert!(rounds < 30, "no end: {changes:#?}");
            let leave = Leave { bound: Arc::new(bound(&now)), ..Leave::default() };
            runtime.block_on(apply(&crew, changes, &leave));
        }
        let allowed = &rights(&before) | &rights(&after);
        for (step, world) in noted.worlds.lock().unwrap().iter().enumerate() {
            let more = &rights(world) - &allowed;
            prop_assert!(more.is_empty(), "after call {}: {more:?}", step + 1);
        }
    }
}

#[tokio::test]
async fn a_cluster_that_dies_stops_no_other() {
    let none = [None, None, None];
    let level = Some(([true, false, false], None));
    let (before, after) = (world(&none, &[[None; 2]; 2]), world(&none, &[[level; 2]; 2]));
    let simulated = Simulated::new(before.clone(), "/stockade/");
    simulated.by_hand(|world| drop(world.clusters.insert("hyades".into(), Seen::Away("dead".into()))));
    let noted = Arc::new(Noted { simulated: simulated.clone(), worlds: Mutex::default() });
    let done = apply(&crew(&noted), difference(&before, &after), &Leave::default()).await;
    assert_eq!((done.made.len(), done.failed.len()), (2, 2));
    assert!(done.made.iter().all(|change| change.target.cluster() == Some("pleiades")));
}

#[tokio::test]
async fn a_place_that_fails_again_and_again_is_left_alone() {
    let none = [None, None, None];
    let before = world(&none, &[[None; 2]; 2]);
    let simulated = Simulated::new(before, "/stockade/");
    simulated.die_at(1);
    let noted = Arc::new(Noted { simulated: simulated.clone(), worlds: Mutex::default() });
    let changes = (0..40).map(|n| Change {
        target: Target::ClusterRole { cluster: "hyades".into(), name: format!("r{n}") },
        was: None,
        shall_be: Some(Object::Rules(Rules::default())),
        version: String::new(),
        user: None,
        cause: Cause::Configured,
    });
    let done = apply(&crew(&noted), changes.collect(), &Leave::default()).await;
    assert!(done.failed.len() < 10 && done.failed.len() + done.left.len() == 40, "{}", done.failed.len());
    assert!(done.left[0].1.contains("in a row"), "{}", done.left[0].1);
}
