use std::collections::BTreeMap;

use super::worlds::*;
use crate::access::change::Cause;
use crate::access::plan::plan;
use crate::access::world::{Entry, LABEL, LABELLED, Mode, Role, Seen, User, World};

fn many(users: usize) -> World {
    let mut world = hyades();
    for number in 0..users {
        let user = format!("user{number}");
        world.directory.users.insert(user.clone(), User::default());
        join(&mut world, "k8s-user@hyades", &[&user]);
    }
    settled(world, &terms(""))
}

#[test]
fn who_is_deleted_in_iam_loses_everything() {
    let (terms, mut world) = (terms(""), hyades());
    join(&mut world, "k8s-user@hyades", &["alice", "bob"]);
    let mut world = settled(world, &terms);
    world.directory.users.remove("alice");
    leave(&mut world, "k8s-user@hyades", "alice");
    let plan = planned(&world, &terms);
    assert!(plan.changes.iter().all(|change| change.cause == Cause::UserGone("alice".into())), "{:?}", plan.changes);
    let after = settled(world, &terms);
    assert!(!format!("{after:?}").contains("alice"));
}

#[test]
fn too_many_removals_stop() {
    let terms = terms("");
    for (users, gone, stops) in
        [(1, 1, false), (2, 1, false), (2, 2, true), (20, 3, false), (20, 4, false), (20, 5, true)]
    {
        let mut world = many(users);
        for number in 0..gone {
            leave(&mut world, "k8s-user@hyades", &format!("user{number}"));
        }
        let stop = planned(&world, &terms).stop(20);
        assert_eq!(stop.is_some(), stops, "{gone} of {users}: {stop:?}");
    }
    let mut world = many(10);
    world.directory.groups.get_mut("k8s-user@hyades").unwrap().members.clear();
    assert_eq!(
        planned(&world, &terms).stop(20).unwrap(),
        "10 of 10 users would lose what they have, more than the 20 % of most_removed: nothing is done; say \
         --allow-mass-removal if that is meant"
    );
    assert_eq!(planned(&world, &terms).stop(100), None);
}

#[test]
fn an_empty_answer_strips_nobody() {
    let terms = terms("");
    let mut world = many(1);
    world.directory.users.clear();
    world.directory.groups.values_mut().for_each(|group| group.members.clear());
    assert!(planned(&world, &terms).stop(100).unwrap().starts_with("IAM says that there are no users at all"));
    let mut world = many(1);
    world.directory.groups.clear();
    assert!(planned(&world, &terms).stop(100).unwrap().starts_with("IAM says that there is no group below /stockade/"));
}

#[test]
fn another_level_is_no_loss() {
    let terms = terms("");
    let mut world = many(3);
    for number in 0..3 {
        leave(&mut world, "k8s-user@hyades", &format!("user{number}"));
        join(&mut world, "k8s-admin@hyades", &[&format!("user{number}")]);
    }
    assert_eq!(planned(&world, &terms).stop(20), None);
}

#[test]
fn groups_outlive_their_place_until_they_are_empty_and_grace_is_over() {
    const DAY: i64 = 86_400;
    let (terms, mut world) = (terms(""), settled(hyades(), &terms("")));
    join(&mut world, "k8s-user@hyades@taurus", &["alice"]);
    let mut world = settled(world, &terms);
    let hyades = read_mut(&mut world, "hyades");
    hyades.namespaces.remove("taurus");
    hyades.roles.retain(|(namespace, _), _| namespace != "taurus");
    hyades.bindings.clear();
    let first = planned(&world, &terms);
    assert_eq!(first.gone, [("hyades@taurus".to_owned(), NOW)].into());
    assert!(!lines(&first).iter().any(|line| line.contains("IAM group")), "{:?}", lines(&first));
    assert!(!lines(&first).iter().any(|line| line.contains("IAM role")), "{:?}", lines(&first));
    let early = plan(&world, &terms, &first.gone, NOW + 6 * DAY);
    assert!(!lines(&early).iter().any(|line| line.contains("IAM group")));
    assert_eq!(early.gone, first.gone);
    let late = plan(&world, &terms, &early.gone, NOW + 7 * DAY);
    let groups: Vec<String> = lines(&late).into_iter().filter(|line| line.contains("IAM group")).collect();
    assert_eq!(groups, ["- IAM group k8s-admin@hyades@taurus", "- IAM group k8s-poweruser@hyades@taurus"]);
    let said = "k8s-user@hyades@taurus: there is no namespace 'taurus': it is left, and its 1 members get nothing by it; \
                empty it if that stays";
    assert!(problems(&late).contains(&said.to_owned()), "{:?}", problems(&late));
    leave(&mut world, "k8s-user@hyades@taurus", "alice");
    let last = plan(&world, &terms, &late.gone, NOW + 8 * DAY);
    assert!(lines(&last).contains(&"- IAM group k8s-user@hyades@taurus".to_owned()));
    // It comes back: nothing is remembered.
    read_mut(&mut world, "hyades").namespaces.insert("taurus".into(), Default::default());
    assert_eq!(plan(&world, &terms, &late.gone, NOW + 9 * DAY).gone, BTreeMap::new());
}

#[test]
fn a_cluster_that_is_gone_takes_nobodys_roles_at_once() {
    let (terms, mut world) = (terms(""), hyades());
    join(&mut world, "k8s-user@hyades", &["alice"]);
    let mut world = settled(world, &terms);
    world.clusters.clear();
    let plan = planned(&world, &terms);
    assert_eq!(lines(&plan), Vec::<String>::new());
    assert_eq!(plan.gone.keys().collect::<Vec<_>>(), ["hyades", "hyades@default", "hyades@taurus"]);
}

/// Nobody who can tag a role makes us remove it.
#[test]
fn a_mark_on_another_role_removes_nothing() {
    let (terms, mut world) = (terms(""), hyades());
    let tags = BTreeMap::from([("stockade:access".to_owned(), "alice".to_owned())]);
    let role = Role { path: "/".into(), tags, ..Role::default() };
    world.directory.roles.insert("Administrator".into(), role.clone());
    let plan = planned(&world, &terms);
    assert!(problems(&plan)[0].starts_with("Administrator: it carries access' mark, but is no role"));
    assert_eq!(settled(world, &terms).directory.roles["Administrator"], role);
}

#[test]
fn what_is_skipped_from_now_on_is_taken_away() {
    let mut world = hyades();
    join(&mut world, "k8s-poweruser@hyades", &["alice"]);
    let world = settled(world, &terms(""));
    let skipping = terms("skip_namespaces = ['kube-*', 'taurus']");
    let plan = planned(&world, &skipping);
    assert!(plan.changes.iter().all(|change| change.cause == Cause::Configured), "{:?}", plan.changes);
    let after = settled(world, &skipping);
    assert!(
        !read(&after, "hyades").bindings.keys().chain(read(&after, "hyades").roles.keys()).any(|(n, _)| n == "taurus")
    );
}

#[test]
fn a_namespace_that_is_going_is_left_to_go() {
    let (terms, mut world) = (terms(""), hyades());
    join(&mut world, "k8s-poweruser@hyades", &["alice"]);
    let mut world = settled(world, &terms);
    read_mut(&mut world, "hyades").namespaces.get_mut("taurus").unwrap().terminating = true;
    assert_eq!(lines(&planned(&world, &terms)), Vec::<String>::new());
    leave(&mut world, "k8s-poweruser@hyades", "alice");
    assert!(!lines(&planned(&world, &terms)).iter().any(|line| line.contains("taurus")));
}

#[test]
fn only_namespaces_that_opted_in_have_groups() {
    let (terms, mut world) = (terms("namespaces = 'labelled'"), hyades());
    let label = ("stockade/access".to_owned(), "yes".to_owned());
    read_mut(&mut world, "hyades").namespaces.get_mut("taurus").unwrap().labels.extend([label]);
    let plan = planned(&world, &terms);
    let groups = lines(&plan).into_iter().filter(|line| line.contains("IAM group") && line.matches('@').count() == 2);
    assert_eq!(groups.count(), 3);
    assert!(!lines(&plan).iter().any(|line| line.contains("default")), "{:?}", lines(&plan));
}

#[test]
fn one_cluster_of_two_modes_at_a_time() {
    let (terms, mut world) = (terms(""), hyades());
    world.clusters.insert("pleiades".into(), Seen::Read(cluster(Mode::AwsAuth, ["default"]).into()));
    join(&mut world, "k8s-user@hyades", &["alice"]);
    join(&mut world, "k8s-user@pleiades", &["alice"]);
    let mut world = settled(world, &terms);
    leave(&mut world, "k8s-user@hyades", "alice");
    let plan = planned(&world, &terms);
    assert!(plan.changes.iter().all(|change| change.target.cluster() == Some("hyades")), "{:?}", lines(&plan));
    assert!(settled(world, &terms).directory.roles.contains_key("alice-kube"));
}

/// The admin of one namespace may write bindings there, with whatever label and name.
#[test]
fn a_forged_binding_stops_no_plan() {
    let (terms, mut world) = (terms(""), many(4));
    let forged: Vec<_> = (0..100).map(|number| user(&format!("x{number}"))).collect();
    let held = read_mut(&mut world, "hyades");
    let mut binding = foreign(bound("k8s-user@hyades@default", &forged));
    binding.labels = [(LABEL.to_owned(), LABELLED.to_owned())].into();
    held.bindings.insert(("default".into(), "k8s-user@hyades@default".into()), binding);
    let plan = planned(&world, &terms);
    let seen = |group: &str, user: &str| group == "k8s-user@hyades" && user.starts_with("user");
    assert!(plan.stop(20).is_some(), "nobody has seen who is in which group");
    assert_eq!(plan.stop_where(20, seen), None);
    assert!(
        lines(&plan).iter().any(|line| line.contains("RoleBinding default/k8s-user@hyades@default")),
        "and it goes"
    );
}

#[test]
fn a_label_that_came_with_a_copy_makes_nothing_ours() {
    let (terms, mut world) = (terms(""), many(1));
    let mut copied = foreign(bound("view", &[user("somebody")]));
    copied.labels = [(LABEL.to_owned(), LABELLED.to_owned())].into();
    read_mut(&mut world, "hyades").bindings.insert(("default".into(), "deployers".into()), copied);
    assert_eq!(lines(&planned(&world, &terms)), [""; 0]);
}

#[test]
fn an_answer_without_namespaces_strips_nobody() {
    let (terms, mut world) = (terms(""), hyades());
    for number in 0..10 {
        let user = format!("user{number}");
        world.directory.users.insert(user.clone(), User::default());
        join(&mut world, "k8s-user@hyades@default", &[&user]);
    }
    let mut world = settled(world, &terms);
    read_mut(&mut world, "hyades").namespaces.clear();
    assert!(planned(&world, &terms).stop(20).is_some());
}

/// DESIGN 11.1: "A lock also removes the cluster's access entry or binding."
#[test]
fn who_is_locked_has_nothing_on_clusters_and_keeps_the_roles() {
    let (terms, mut world) = (terms(""), hyades());
    join(&mut world, "k8s-user@hyades", &["alice", "bob"]);
    let mut world = settled(world, &terms);
    let alice = world.directory.users.get_mut("alice").unwrap();
    alice.tags.insert("stockade:locked".into(), "lost laptop".into());
    let after = settled(world, &terms);
    let hyades = read(&after, "hyades");
    assert!(!format!("{:?}{:?}", hyades.cluster_bindings, hyades.entries).contains("alice"));
    assert!(
        format!("{:?}", hyades.cluster_bindings).contains("bob") && after.directory.roles.contains_key("alice-kube")
    );
}

/// What its admin does to a namespace is told, and neither the namespace's groups nor anybody else suffer.
#[test]
fn a_crowded_namespace_is_told_and_its_grants_stay() {
    let (terms, mut world) = (terms(""), hyades());
    join(&mut world, "k8s-admin@hyades@taurus", &["alice"]);
    let mut world = settled(world, &terms);
    read_mut(&mut world, "hyades").crowded.insert("taurus".into());
    let plan = planned(&world, &terms);
    assert_eq!(lines(&plan), [""; 0]);
    assert!(problems(&plan)[0].starts_with("namespace taurus: it has so many"), "{:?}", problems(&plan));
    leave(&mut world, "k8s-admin@hyades@taurus", "alice");
    let taken = lines(&planned(&world, &terms));
    assert!(taken.contains(&"- hyades: RoleBinding taurus/k8s-admin@hyades@taurus".into()), "{taken:?}");
}

#[test]
fn a_jails_role_that_a_hand_lets_in_is_told() {
    let (terms, mut world) = (terms(""), many(1));
    let arn = "arn:aws:iam::123456789012:role/bastion/user0";
    read_mut(&mut world, "hyades").entries.insert(arn.into(), Entry::default());
    let said = problems(&planned(&world, &terms));
    assert!(said.iter().any(|said| said.starts_with(arn) && said.contains("past the kube door")), "{said:?}");
}
