//! Names that people get wrong, and names that two places read differently.

use super::worlds::*;
use crate::access::world::{Group, Mode, Seen, User};

#[test]
fn groups_that_mean_nothing_are_told_and_left() {
    let (terms, mut world) = (terms(""), hyades());
    let long = format!("k8s-admin@{}", "x".repeat(118));
    assert_eq!(long.len(), 128);
    for name in
        ["k8s-admin@", "k8s-admin@nosuch", "k8s-root@hyades", "k8s-ädmin@hyades", "k8s-admin@hyades@kube-system"]
    {
        join(&mut world, name, &["alice"]);
    }
    join(&mut world, &long, &["alice"]);
    let plan = planned(&world, &terms);
    let left = "it is left, and members get nothing by it";
    let wanted = [
        "k8s-admin@: '' is not the name of a cluster; left, and members get nothing by it".to_owned(),
        format!("k8s-admin@hyades@kube-system: namespace 'kube-system' is one of skip_namespaces: {left}"),
        "k8s-admin@nosuch: there is no cluster 'nosuch': it is left, and its 1 members get nothing by it; empty it if \
         that stays"
            .to_owned(),
        format!("{long}: '{}' is not the name of a cluster; left, and members get nothing by it", "x".repeat(118)),
        format!("k8s-root@hyades: there is no level 'root', only admin, poweruser, user: {left}"),
        "k8s-ädmin@hyades: 'ädmin' is not the name of a level; left, and members get nothing by it".to_owned(),
    ];
    assert_eq!(problems(&plan), wanted);
    let after = settled(world.clone(), &terms);
    assert!(after.directory.roles.is_empty() && read(&after, "hyades").cluster_bindings.is_empty());
    for (name, group) in &world.directory.groups {
        assert_eq!(after.directory.groups.get(name), Some(group));
    }
}

#[test]
fn a_group_of_another_case_is_in_the_way_and_named() {
    let (terms, mut world) = (terms(""), hyades());
    join(&mut world, "K8S-Admin@hyades", &["alice"]);
    let plan = planned(&world, &terms);
    assert_eq!(
        problems(&plan),
        [
            "K8S-Admin@hyades: names of grants are lower case where it says k8s-LEVEL: 'k8s-admin@hyades' is meant, \
             perhaps; left, and members get nothing by it",
            "k8s-admin@hyades: 'K8S-Admin@hyades' is there, and IAM takes the two names for one: left, rename or remove it",
        ]
    );
    assert!(!lines(&plan).contains(&"+ IAM group k8s-admin@hyades".to_owned()));
    assert!(read(&settled(world, &terms), "hyades").cluster_bindings.is_empty());
}

#[test]
fn a_group_below_another_path_counts_for_nothing() {
    let (terms, mut world) = (terms(""), hyades());
    let members = set(["alice"]);
    world.directory.groups.insert("k8s-admin@hyades".into(), Group { path: "/".into(), members, created: 1 });
    let plan = planned(&world, &terms);
    assert!(problems(&plan)[0].starts_with("k8s-admin@hyades: a foreign group of this name, below /:"));
    let after = settled(world, &terms);
    assert!(after.directory.roles.is_empty() && read(&after, "hyades").cluster_bindings.is_empty());
}

#[test]
fn two_clusters_that_differ_in_case_have_no_groups() {
    let (terms, mut world) = (terms(""), hyades());
    world.clusters.insert("Hyades".into(), Seen::Read(cluster(Mode::Entries, ["default"]).into()));
    let plan = planned(&world, &terms);
    let said = "k8s-admin@Hyades: IAM takes 'k8s-admin@Hyades' and 'k8s-admin@hyades' for one name: none is made, rename \
                a cluster";
    assert!(problems(&plan).contains(&said.to_owned()), "{:?}", problems(&plan));
    let made: Vec<String> = lines(&plan).into_iter().filter(|line| line.contains("IAM group")).collect();
    assert_eq!(
        made,
        ["admin", "poweruser", "user"].map(|level| format!("+ IAM group k8s-{level}@hyades@taurus")),
        "those that nobody else is called like"
    );
}

/// The fleet says so of both: neither is offered, and neither is touched.
#[test]
fn two_clusters_of_one_name_in_two_accounts_are_left() {
    let (terms, mut world) = (terms(""), hyades());
    let why = "two clusters are called so, in 123456789012 and in 210987654321";
    world.clusters.insert("hyades".into(), Seen::Away(why.into()));
    join(&mut world, "k8s-admin@hyades", &["alice"]);
    let plan = planned(&world, &terms);
    assert_eq!(lines(&plan), Vec::<String>::new());
    assert!(problems(&plan)[0].contains(why));
}

#[test]
fn names_at_their_limits() {
    let terms = terms("");
    let (cluster_name, long) = ("c".repeat(51), "n".repeat(63));
    let mut world = hyades();
    let named = cluster(Mode::Entries, ["admin", &long]);
    world.clusters.insert(cluster_name.clone(), Seen::Read(named.into()));
    let plan = planned(&world, &terms);
    let poweruser = format!("k8s-poweruser@{cluster_name}@{long}");
    let said = format!(
        "{poweruser}: no group can be called '{poweruser}': 129 letters, IAM takes 128; give the cluster a shorter name; \
         nobody can be given this"
    );
    assert_eq!(problems(&plan), [said]);
    let after = settled(world, &terms);
    assert!(after.directory.groups.contains_key(&format!("k8s-admin@{cluster_name}@{long}")));
    assert!(after.directory.groups.contains_key(&format!("k8s-user@{cluster_name}@admin")));
    assert!(read(&after, &cluster_name).roles.contains_key(&(long, poweruser)));
}

#[test]
fn users_that_can_have_no_role_are_told() {
    let (terms, mut world) = (terms(""), hyades());
    let long = "x".repeat(60);
    for user in ["b", "-dash", "carol", "carol-kube", long.as_str()] {
        world.directory.users.insert(user.into(), User::default());
    }
    join(&mut world, "k8s-user@hyades", &["alice", "b", "-dash", "carol", "carol-kube", &long]);
    let plan = planned(&world, &terms);
    let said = problems(&plan);
    assert!(said.iter().any(|said| said.starts_with("b: 'b' is shorter than the two letters")), "{said:?}");
    assert!(said.iter().any(|said| said.starts_with("-dash: '-dash' cannot be a user here")), "{said:?}");
    assert!(said.iter().any(|said| said.starts_with(&format!("{long}: no role can be called"))), "{said:?}");
    let twins = "the roles of 'carol' and 'carol-kube' would both be called 'carol-kube': rename one user";
    assert!(said.contains(&format!("carol: {twins}")) && said.contains(&format!("carol-kube: {twins}")), "{said:?}");
    let after = settled(world, &terms);
    let subjects = &read(&after, "hyades").cluster_bindings["k8s-user@hyades"].is.subjects;
    // The second one's own role is not the contested one.
    assert_eq!(*subjects, [user("alice"), user("carol-kube")].into());
}

/// A newcomer does not take away what somebody has by being called like their role.
#[test]
fn whose_a_role_is_keeps_it() {
    let (terms, mut world) = (terms(""), hyades());
    join(&mut world, "k8s-user@hyades", &["alice"]);
    let mut world = settled(world, &terms);
    world.directory.users.insert("alice-kube".into(), User::default());
    join(&mut world, "k8s-user@hyades", &["alice-kube"]);
    let after = settled(world, &terms);
    assert!(read(&after, "hyades").cluster_bindings["k8s-user@hyades"].is.subjects.contains(&user("alice")));
}

#[test]
fn a_role_of_somebody_who_left_makes_room_for_another_of_its_name() {
    let (terms, mut world) = (terms(""), hyades());
    world.directory.users.insert("alice-kube".into(), User::default());
    join(&mut world, "k8s-user@hyades", &["alice-kube"]);
    let mut world = settled(world, &terms);
    leave(&mut world, "k8s-user@hyades", "alice-kube");
    join(&mut world, "k8s-user@hyades", &["alice"]);
    let roles: Vec<String> =
        lines(&planned(&world, &terms)).into_iter().filter(|line| line.contains("alice-kube")).collect();
    let wanted = ["- IAM role alice-kube", "+ IAM role alice-kube"];
    assert_eq!(roles.iter().filter(|line| wanted.contains(&line.as_str())).collect::<Vec<_>>(), wanted);
    assert_eq!(settled(world, &terms).directory.roles["alice-kube"].tags["stockade:access"], "alice");
}
