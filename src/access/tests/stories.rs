use super::worlds::*;
use crate::access::change::Cause;
use crate::access::plan::plan;
use crate::access::print;
use crate::access::world::{MARK, Mode, Role, Seen};

const ALICE: &str = "arn:aws:iam::123456789012:role/bastion/alice-kube";

fn ready() -> crate::access::world::World {
    settled(hyades(), &terms(""))
}

#[test]
fn a_new_cluster_gets_groups_and_roles_by_itself() {
    let world = ready();
    let groups: Vec<&str> = world.directory.groups.keys().map(String::as_str).collect();
    let mut wanted = Vec::new();
    for level in ["admin", "poweruser", "user"] {
        for place in ["hyades", "hyades@default", "hyades@taurus"] {
            wanted.push(format!("k8s-{level}@{place}"));
        }
    }
    assert_eq!(groups, wanted);
    let hyades = read(&world, "hyades");
    let roles: Vec<&str> = hyades.cluster_roles.keys().map(String::as_str).collect();
    assert_eq!(
        roles,
        [
            "k8s-admin@hyades",
            "k8s-poweruser@hyades",
            "k8s-poweruser@hyades:namespaces",
            "k8s-user@hyades",
            "k8s-user@hyades:namespaces"
        ]
    );
    assert_eq!(hyades.roles.len(), 6);
    assert!(hyades.cluster_bindings.is_empty() && hyades.bindings.is_empty() && hyades.entries.is_empty());
    assert!(world.directory.roles.is_empty());
}

#[test]
fn whoever_joins_is_bound_and_whoever_leaves_is_not() {
    let (terms, mut world) = (terms(""), ready());
    join(&mut world, "k8s-poweruser@hyades", &["alice"]);
    let plan = planned(&world, &terms);
    assert_eq!(
        lines(&plan),
        [
            "+ IAM role alice",
            "+ IAM role alice-kube",
            "+ hyades: access entry of arn:aws:iam::123456789012:role/bastion/alice-kube",
            "+ hyades: RoleBinding default/k8s-poweruser@hyades",
            "+ hyades: RoleBinding taurus/k8s-poweruser@hyades",
            "+ hyades: ClusterRoleBinding k8s-poweruser@hyades",
        ]
    );
    let joined = Cause::Joined { user: "alice".into(), group: "k8s-poweruser@hyades".into() };
    assert!(plan.changes.iter().all(|change| change.cause == joined && change.user.as_deref() == Some("alice")));
    let mut world = settled(world, &terms);
    let hyades = read(&world, "hyades");
    assert_eq!(hyades.cluster_bindings["k8s-poweruser@hyades"].is, bound("k8s-poweruser@hyades", &[user("alice")]));
    let inner = &hyades.bindings[&("taurus".to_owned(), "k8s-poweruser@hyades".to_owned())].is;
    assert_eq!(*inner, bound("k8s-poweruser@hyades:namespaces", &[user("alice")]));
    assert_eq!(hyades.entries[ALICE].username, "stockade:alice");
    assert_eq!(hyades.entries[ALICE].groups, set(["stockade:k8s-poweruser@hyades"]));

    leave(&mut world, "k8s-poweruser@hyades", "alice");
    let plan = planned(&world, &terms);
    assert_eq!(
        lines(&plan),
        [
            "- hyades: RoleBinding default/k8s-poweruser@hyades",
            "- hyades: RoleBinding taurus/k8s-poweruser@hyades",
            "- hyades: ClusterRoleBinding k8s-poweruser@hyades",
            "- hyades: access entry of arn:aws:iam::123456789012:role/bastion/alice-kube",
            "- IAM role alice",
            "- IAM role alice-kube",
        ]
    );
    let left = Cause::Left { user: "alice".into(), group: "k8s-poweruser@hyades".into() };
    assert!(plan.changes.iter().all(|change| change.cause == left), "{:?}", plan.changes);
    assert_eq!(plan.stop(20), None, "one of one may go");
    assert_eq!(settled(world, &terms), ready());
}

#[test]
fn an_admin_of_one_namespace_is_nothing_elsewhere() {
    let (terms, mut world) = (terms(""), ready());
    join(&mut world, "k8s-admin@hyades@taurus", &["bob"]);
    let world = settled(world, &terms);
    let hyades = read(&world, "hyades");
    assert!(hyades.cluster_bindings.is_empty());
    let keys: Vec<_> = hyades.bindings.keys().collect();
    assert_eq!(keys, [&("taurus".to_owned(), "k8s-admin@hyades@taurus".to_owned())]);
    let binding = &hyades.bindings.values().next().unwrap().is;
    assert_eq!(binding.role, ("Role".to_owned(), "k8s-admin@hyades@taurus".to_owned()));
    assert_eq!(hyades.roles[&("taurus".to_owned(), "k8s-admin@hyades@taurus".to_owned())].is, everything());
}

#[test]
fn the_roles_trust_the_bastion_alone() {
    let (terms, mut world) =
        (terms("boundary = 'arn:aws:iam::123456789012:policy/edge'\nrole_tags = { team = 'ops' }"), ready());
    join(&mut world, "k8s-user@hyades", &["alice"]);
    let world = settled(world, &terms);
    let role = &world.directory.roles["alice-kube"];
    assert_eq!(
        role.trust,
        serde_json::json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Principal": { "AWS": ["arn:aws:iam::123456789012:role/stockade"] },
            "Action": ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"],
            "Condition": {
                "StringEquals": { "sts:SourceIdentity": "alice" },
                "Null": { "aws:RequestTag/stockade:session": "false" },
            },
        }] })
    );
    assert_eq!(
        (role.path.as_str(), role.boundary.as_deref()),
        ("/bastion/", Some("arn:aws:iam::123456789012:policy/edge"))
    );
    assert_eq!(role.tags, [(MARK, "alice"), ("team", "ops")].map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert_eq!(role.inline.len(), 1);
    assert!(world.directory.roles["alice"].inline.is_empty());
}

#[test]
fn what_is_changed_by_hand_is_reported_and_put_back() {
    let (terms, mut world) = (terms(""), ready());
    join(&mut world, "k8s-user@hyades", &["alice"]);
    let good = settled(world, &terms);
    let drift = |plan: &crate::access::plan::Plan| -> Vec<String> {
        let said =
            |change: &crate::access::change::Change| format!("{}: {}", change.target, print::cause(&change.cause));
        plan.changes.iter().map(said).collect()
    };
    let mut hands: Vec<(&str, Box<dyn Fn(&mut crate::access::world::World)>)> = Vec::new();
    hands.push((
        "IAM role alice-kube: drift: its trust policy not as [rbac] has it",
        Box::new(|world| {
            let role = world.directory.roles.get_mut("alice-kube").unwrap();
            role.trust["Statement"][0]["Principal"]["AWS"] = "arn:aws:iam::666666666666:root".into();
        }),
    ));
    hands.push((
        "IAM role alice-kube: drift: its policies not as [rbac] has it",
        Box::new(|world| {
            let role = world.directory.roles.get_mut("alice-kube").unwrap();
            role.attached.insert("arn:aws:iam::aws:policy/AdministratorAccess".into());
        }),
    ));
    hands.push((
        "hyades: ClusterRole k8s-user@hyades: drift: its rules were changed by hand",
        Box::new(|world| {
            read_mut(world, "hyades").cluster_roles.get_mut("k8s-user@hyades").unwrap().is = everything();
        }),
    ));
    hands.push((
        "hyades: ClusterRole k8s-user@hyades: drift: the label rbac.authorization.k8s.io/aggregate-to-edit was put on it",
        Box::new(|world| {
            let role = read_mut(world, "hyades").cluster_roles.get_mut("k8s-user@hyades").unwrap();
            role.labels.insert("rbac.authorization.k8s.io/aggregate-to-edit".into(), "true".into());
        }),
    ));
    hands.push((
        "hyades: ClusterRoleBinding k8s-user@hyades: drift: it was changed by hand",
        Box::new(|world| {
            let held = read_mut(world, "hyades").cluster_bindings.get_mut("k8s-user@hyades").unwrap();
            held.is.subjects.insert(user("bob"));
        }),
    ));
    hands.push((
        "hyades: access entry of arn:aws:iam::123456789012:role/bastion/alice-kube: drift: it was changed by hand",
        Box::new(|world| {
            let entry = read_mut(world, "hyades").entries.get_mut(ALICE).unwrap();
            entry.groups.insert("system:masters".into());
        }),
    ));
    hands.push((
        "hyades: access entry of arn:aws:iam::123456789012:role/bastion/alice-kube: drift: it was changed by hand",
        Box::new(|world| {
            let entry = read_mut(world, "hyades").entries.get_mut(ALICE).unwrap();
            entry.policies.insert("arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy".into());
        }),
    ));
    for (said, hand) in hands {
        let mut world = good.clone();
        hand(&mut world);
        assert_eq!(drift(&planned(&world, &terms)), [said]);
        let after = settled(world, &terms);
        assert_eq!(after.directory, good.directory, "{said}");
        assert_eq!(read(&after, "hyades").entries, read(&good, "hyades").entries, "{said}");
    }
}

#[test]
fn a_binding_to_another_role_is_made_anew() {
    let (terms, mut world) = (terms(""), ready());
    join(&mut world, "k8s-user@hyades", &["alice"]);
    let mut world = settled(world, &terms);
    let held = read_mut(&mut world, "hyades").cluster_bindings.get_mut("k8s-user@hyades").unwrap();
    held.is.role.1 = "cluster-admin".into();
    let plan = planned(&world, &terms);
    let said = ["- hyades: ClusterRoleBinding k8s-user@hyades", "+ hyades: ClusterRoleBinding k8s-user@hyades"];
    assert_eq!(lines(&plan), said);
    assert!(plan.changes.iter().all(|change| matches!(change.cause, Cause::Drift(_))));
    settled(world, &terms);
}

#[test]
fn foreign_objects_in_our_place_are_left_and_nothing_is_given_by_them() {
    let (terms, mut world) = (terms(""), hyades());
    join(&mut world, "k8s-user@hyades", &["alice"]);
    join(&mut world, "k8s-admin@hyades", &["bob"]);
    world.directory.roles.insert("bob-kube".into(), Role { path: "/".into(), ..Role::default() });
    let hyades = read_mut(&mut world, "hyades");
    hyades.cluster_roles.insert("k8s-user@hyades".into(), foreign(everything()));
    hyades.cluster_bindings.insert("k8s-admin@hyades".into(), foreign(bound("view", &[])));
    let plan = planned(&world, &terms);
    assert_eq!(
        problems(&plan),
        [
            "bob-kube: a role of this name was not made by access: left, and bob gets nothing by it; tag it \
             stockade:access=bob to hand it over",
            "hyades: ClusterRole k8s-user@hyades: it is there, and access did not make it: left, and nothing is given \
             by it; remove it to have it made",
            "hyades: ClusterRoleBinding k8s-admin@hyades: it is there, and access did not make it: left, and nothing is \
             given by it; remove it to have it made",
        ]
    );
    let after = settled(world.clone(), &terms);
    let (before, now) = (read(&world, "hyades"), read(&after, "hyades"));
    assert_eq!(now.cluster_roles["k8s-user@hyades"], before.cluster_roles["k8s-user@hyades"]);
    assert_eq!(now.cluster_bindings, before.cluster_bindings);
    assert_eq!(after.directory.roles["bob-kube"], world.directory.roles["bob-kube"]);
    assert_eq!(now.entries.keys().collect::<Vec<_>>(), [ALICE]);
}

#[test]
fn aws_auth_keeps_the_rows_of_others_and_refuses_two_for_one_role() {
    const NODES: &str = "- rolearn: arn:aws:iam::123456789012:role/nodes\n  username: system:node:{{EC2PrivateDNSName}}\n  \
                         groups: [system:nodes]\n";
    const FOREIGN: &str =
        "- rolearn: arn:aws:iam::123456789012:role/bob-kube\n  username: admin\n  groups: [system:masters]\n";
    let (terms, mut world) = (terms(""), hyades());
    let mut pleiades = cluster(Mode::AwsAuth, ["default"]);
    pleiades.aws_auth.map_roles = Some(format!("{NODES}{FOREIGN}"));
    world.clusters = [("pleiades".into(), Seen::Read(pleiades.into()))].into();
    join(&mut world, "k8s-user@pleiades", &["alice", "bob"]);
    let plan = planned(&world, &terms);
    assert!(lines(&plan).contains(&"+ pleiades: access entry of arn:aws:iam::123456789012:role/alice-kube".to_owned()));
    assert_eq!(
        problems(&plan),
        ["arn:aws:iam::123456789012:role/bob-kube: somebody else let this role in: left, and bob gets nothing here; \
          remove that entry to hand it over"]
    );
    let mut after = settled(world, &terms);
    let rows = crate::access::rows::rows(read(&after, "pleiades").aws_auth.map_roles.as_deref().unwrap()).unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row.username.as_str()).collect();
    assert_eq!(names, ["system:node:{{EC2PrivateDNSName}}", "admin", "stockade:alice"]);
    assert_eq!(read(&after, "pleiades").cluster_bindings["k8s-user@pleiades"].is.subjects, [user("alice")].into());

    leave(&mut after, "k8s-user@pleiades", "alice");
    let after = settled(after, &terms);
    assert!(!read(&after, "pleiades").aws_auth.map_roles.as_deref().unwrap().contains("alice"));

    let mut broken = after;
    join(&mut broken, "k8s-user@pleiades", &["alice"]);
    read_mut(&mut broken, "pleiades").aws_auth.map_roles = Some("- rolearn: [".into());
    let plan = planned(&broken, &terms);
    assert!(problems(&plan)[0].contains("is not what EKS reads"), "{:?}", problems(&plan));
    assert!(!lines(&plan).iter().any(|line| line.contains("access entry")), "{:?}", lines(&plan));
}

#[test]
fn clusters_without_aws_have_users_of_the_file() {
    let terms = terms_of_file("{ 'k8s-user@lab' = ['alice'], ops = ['bob'], 'k8s-user@' = ['bob'] }", "");
    let world = crate::access::world::World {
        clusters: [("lab".into(), Seen::Read(cluster(Mode::Impersonated, ["default"]).into()))].into(),
        ..Default::default()
    };
    let plan = planned(&world, &terms);
    assert_eq!(problems(&plan), ["k8s-user@: '' is not the name of a cluster; left, and members get nothing by it"]);
    assert!(plan.changes.iter().all(|change| change.target.cluster() == Some("lab")));
    let after = settled(world, &terms);
    let alice = crate::access::world::Subject::User("alice".into());
    assert_eq!(read(&after, "lab").cluster_bindings["k8s-user@lab"].is.subjects, [alice].into());
}

#[test]
fn tags_of_users_can_say_it_where_groups_are_too_few() {
    let (terms, mut world) = (terms("members = 'tags'"), hyades());
    let tag = ("stockade:groups".to_owned(), "k8s-user@hyades+k8s-admin@hyades@taurus k8s-root@hyades".to_owned());
    world.directory.users.get_mut("alice").unwrap().tags.extend([tag]);
    let plan = planned(&world, &terms);
    assert!(!lines(&plan).iter().any(|line| line.contains("IAM group")));
    assert_eq!(
        problems(&plan),
        [
            "k8s-root@hyades: there is no level 'root', only admin, poweruser, user: it is left, and members get nothing \
          by it"
        ]
    );
    let after = settled(world, &terms);
    assert_eq!(
        read(&after, "hyades").entries[ALICE].groups,
        set(["stockade:k8s-admin@hyades@taurus", "stockade:k8s-user@hyades"])
    );
}

#[test]
fn quotas_are_counted_first_and_what_has_no_room_is_not_made() {
    let (terms, mut world) = (terms(""), hyades());
    world.directory.quotas.groups = Some(4);
    world.directory.quotas.roles = Some(1);
    join(&mut world, "k8s-admin@hyades", &["alice", "bob"]);
    let plan = planned(&world, &terms);
    let groups: Vec<String> = lines(&plan).into_iter().filter(|line| line.contains("IAM group")).collect();
    assert_eq!(
        groups,
        ["+ IAM group k8s-admin@hyades@default", "+ IAM group k8s-poweruser@hyades", "+ IAM group k8s-user@hyades"]
    );
    let printed = print::text(&plan);
    assert!(
        printed.starts_with("IAM groups: 1 of 4, 4 after this: that is all\nIAM roles: 0 of 1, 1 after this"),
        "{printed}"
    );
    assert!(printed.contains("! IAM groups: 5 groups are not made: the account may have 4 and has 1;"), "{printed}");
    assert!(printed.contains("! alice-kube: not made: the account has its 1 roles already"), "{printed}");
    settled(world, &terms);
}

#[test]
fn nothing_is_done_in_a_cluster_that_is_away_and_its_users_keep_their_roles() {
    let (terms, mut world) = (terms(""), ready());
    join(&mut world, "k8s-user@hyades", &["alice"]);
    let mut world = settled(world, &terms);
    world.clusters.insert("hyades".into(), Seen::Away("connection refused".into()));
    let plan = planned(&world, &terms);
    assert_eq!(lines(&plan), Vec::<String>::new());
    assert_eq!(
        problems(&plan),
        ["hyades: it cannot be read (connection refused): nothing is done there, and its users keep their roles"]
    );
    // Neither does anybody get a role by it.
    join(&mut world, "k8s-user@hyades", &["bob"]);
    assert_eq!(lines(&planned(&world, &terms)), Vec::<String>::new());
}

#[test]
fn a_new_namespace_gets_its_part_of_what_holds_in_the_cluster() {
    let (terms, mut world) = (terms(""), ready());
    join(&mut world, "k8s-poweruser@hyades", &["alice"]);
    let mut world = settled(world, &terms);
    read_mut(&mut world, "hyades").namespaces.insert("web".into(), Default::default());
    let plan = planned(&world, &terms);
    assert_eq!(plan.changes.len(), 7, "{:?}", lines(&plan));
    let appeared = Cause::Appeared("namespace web of hyades".into());
    assert!(plan.changes.iter().all(|change| change.cause == appeared), "{:?}", plan.changes);
    settled(world, &terms);
}

#[test]
fn credentials_of_another_account_change_nothing() {
    let (terms, mut world) = (terms(""), ready());
    join(&mut world, "k8s-user@hyades", &["alice"]);
    let mut world = settled(world, &terms);
    world.directory = directory(["alice"]);
    world.directory.account = "210987654321".into();
    let plan = plan(&world, &terms, &[("x".to_owned(), 1)].into(), NOW);
    assert_eq!(lines(&plan), Vec::<String>::new());
    assert_eq!(plan.gone, [("x".to_owned(), 1)].into());
    assert!(problems(&plan)[0].contains("the credentials of access are of account '210987654321'"));
}

#[test]
fn people_can_read_the_difference() {
    let (terms, mut world) = (terms(""), ready());
    join(&mut world, "k8s-user@hyades@taurus", &["alice"]);
    let mut world = settled(world, &terms);
    join(&mut world, "k8s-user@hyades@taurus", &["bob"]);
    leave(&mut world, "k8s-user@hyades@taurus", "alice");
    join(&mut world, "k8s-nobody@hyades", &["\u{1b}[2J"]);
    assert_eq!(print::text(&planned(&world, &terms)), include_str!("plan.txt"));
    let json = print::json(&planned(&world, &terms));
    assert_eq!(json["changes"].as_array().unwrap().len(), 7);
    assert_eq!(json["changes"][1]["cause"]["kind"], "left");
}
