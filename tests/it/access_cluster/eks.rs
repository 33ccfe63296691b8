//! Clusters that know AWS: found, opened by tokens, and told whom to let in.

use super::*;

/// Both clusters of EKS, by tokens of access's own identity.
#[tokio::test]
async fn clusters_of_eks_are_found_and_read() {
    let clusters = Clusters::start();
    let regions = vec!["us-east-1".to_owned(), "eu-west-1".to_owned()];
    let discover = Discover { role: None, regions, tags: Default::default(), trusted: false };
    let kube = Kube { discover: vec![discover], ..Kube::default() };
    let fleet = Fleet::new(&kube, &terms(None, "default"), Some(entries(clusters).await), "a test");
    let names = fleet.clusters().await.unwrap();
    assert_eq!(names, ["hyades", "pleiades"]);
    for (name, region) in [("hyades", "us-east-1"), ("pleiades", "eu-west-1")] {
        let world = fleet.read(name).await.unwrap();
        assert_eq!((world.mode, world.place), (Mode::Both, format!("123456789012 {region}")));
        let alice = &world.entries["arn:aws:iam::123456789012:role/stockade/kube/alice-kube"];
        assert_eq!(alice.username, "stockade:alice:{{SessionName}}");
        assert!(world.namespaces.contains_key("kube-system"));
    }

    // An entry, and a role that access itself has not: it may `escalate`.
    let role = "arn:aws:iam::123456789012:role/stockade/kube/carol-kube".to_owned();
    let target = Target::Entry { cluster: "hyades".into(), role: role.clone() };
    let world = fleet.read("hyades").await.unwrap();
    let was = world.entries[&role].clone();
    assert!(!was.tags.contains_key("stockade:access"), "the bed's own, for people");
    let other = Entry { groups: set(["stockade:other"]), ..was.clone() };
    let refused =
        fleet.carry_out("hyades", &change(&target, Some(Object::Entry(was)), Some(Object::Entry(other)), "")).await;
    assert!(refused.is_err(), "it has no mark of ours");
    let target = Target::ClusterRole { cluster: "hyades".into(), name: "k8s-user@hyades:eks".into() };
    let _litter = Litter(clusters.hyades(), vec!["clusterrole/k8s-user@hyades:eks".into()]);
    fleet.carry_out("hyades", &change(&target, None, Some(Object::Rules(rules("delete"))), "")).await.unwrap();
    let (is, _, version) = seen(&fleet.read("hyades").await.unwrap(), &target).unwrap();
    fleet.carry_out("hyades", &change(&target, Some(is), None, &version)).await.unwrap();
}

/// "`aws-auth` ConfigMap mode for clusters that are CONFIG_MAP (one careful read-modify-write, foreign entries
/// untouched)"
#[tokio::test]
async fn a_row_of_aws_auth_lets_somebody_in() {
    let clusters = Clusters::start();
    let hyades = clusters.hyades();
    // The same cluster as one that knows no entries, where nobody else looks.
    let endpoint = clusters.variable("AWS_ENDPOINT_URL");
    let ca = hyades.ca().display().to_string();
    let same = json!({"name": "hyades", "region": "ap-south-1", "endpoint": hyades.endpoint(), "ca": ca,
        "access_map": clusters.path("nobody-reads.json"), "mode": "CONFIG_MAP", "tags": {}});
    control(endpoint, "POST", "eks", &json!({"add": same}));
    let foreign =
        "# the nodes\n- rolearn: arn:aws:iam::123456789012:role/nodes   # old\n  username: nodes\n  groups: [n]\n";
    let manifest = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "aws-auth", "namespace":
        "kube-system"}, "data": {"mapRoles": foreign, "mapUsers": "[]\n"}});
    hyades.apply(&manifest.to_string());

    let way = StaticWay::Eks { region: "ap-south-1".into(), cluster: "hyades".into() };
    let kube = Kube { clusters: vec![stated("old", way)], ..Kube::default() };
    let fleet = Fleet::new(&kube, &terms(None, "default"), Some(entries(clusters).await), "a test");
    assert_eq!(fleet.clusters().await.unwrap(), ["old"]);
    let world = fleet.read("old").await.unwrap();
    assert_eq!((world.mode, world.aws_auth.map_roles.as_deref()), (Mode::AwsAuth, Some(foreign)));

    let role = "arn:aws:iam::123456789012:role/stockade/kube/dave-kube".to_owned();
    let target = Target::Entry { cluster: "old".into(), role };
    let groups = set(["stockade:k8s-user@old"]);
    let entry = Entry { username: "stockade:dave".into(), groups, ..Entry::default() };
    let row = |was: Option<&Entry>, shall_be: Option<&Entry>| {
        change(&target, was.cloned().map(Object::Entry), shall_be.cloned().map(Object::Entry), "")
    };
    fleet.carry_out("old", &row(None, Some(&entry))).await.unwrap();
    let dave = hyades.login("dave", Plugin::Authenticator);
    let said = until("dave is let in", || {
        let said = hyades.run(&dave, &["auth", "whoami", "-o", "json"]);
        (said.code == Some(0)).then_some(said.stdout)
    });
    let said: Value = serde_json::from_slice(&said).unwrap();
    assert_eq!(said["status"]["userInfo"]["username"], "stockade:dave");
    assert!(said["status"]["userInfo"]["groups"].as_array().unwrap().contains(&json!("stockade:k8s-user@old")));

    // The same once more, where entries come first: there a row only goes.
    let both = json!({"name": "hyades", "region": "eu-central-1", "endpoint": hyades.endpoint(), "ca": ca,
        "access_map": clusters.path("nobody-reads-2.json"), "mode": "API_AND_CONFIG_MAP", "tags": {}});
    control(endpoint, "POST", "eks", &json!({"add": both}));
    let way = StaticWay::Eks { region: "eu-central-1".into(), cluster: "hyades".into() };
    let kube = Kube { clusters: vec![stated("both", way)], ..Kube::default() };
    let second = Fleet::new(&kube, &terms(None, "default"), Some(entries(clusters).await), "a test");
    assert_eq!(second.clusters().await.unwrap(), ["both"]);
    let world = second.read("both").await.unwrap();
    assert_eq!((world.mode, world.aws_auth.map_users.as_deref()), (Mode::Both, Some("[]\n")));
    let beside = Target::Row { cluster: "both".into(), role: "arn:aws:iam::123456789012:role/dave-kube".into() };
    let gone = |was: &Entry| change(&beside, Some(Object::Entry(was.clone())), None, "");
    let stale = second.carry_out("both", &gone(&Entry { username: "dave".into(), ..entry.clone() })).await.unwrap_err();
    assert_eq!((stale.code.as_str(), stale.transient), ("Conflict", true));
    for _ in 0..2 {
        second.carry_out("both", &gone(&entry)).await.unwrap();
    }
    assert_eq!(second.read("both").await.unwrap().aws_auth.map_roles.as_deref(), Some(foreign));
    until("dave is out", || (hyades.run(&dave, &["auth", "whoami"]).code != Some(0)).then_some(()));
    control(endpoint, "POST", "eks", &json!({"remove": "hyades", "region": "eu-central-1"}));
    fleet.carry_out("old", &row(None, Some(&entry))).await.unwrap();

    let other = Entry { groups: set(["stockade:k8s-admin@old"]), ..entry.clone() };
    let stale = fleet.carry_out("old", &row(Some(&other), None)).await.unwrap_err();
    assert_eq!((stale.code.as_str(), stale.transient), ("Conflict", true));
    fleet.carry_out("old", &row(Some(&entry), Some(&other))).await.unwrap();
    fleet.carry_out("old", &row(Some(&other), None)).await.unwrap();
    let map: Value =
        serde_json::from_str(&hyades.as_admin(&["-n", "kube-system", "get", "cm", "aws-auth", "-o", "json"])).unwrap();
    assert_eq!(map["data"], json!({"mapRoles": foreign, "mapUsers": "[]\n"}));
    until("dave is out again", || (hyades.run(&dave, &["auth", "whoami"]).code != Some(0)).then_some(()));

    hyades.as_admin(&[
        "-n",
        "kube-system",
        "patch",
        "cm",
        "aws-auth",
        "--type=merge",
        "-p",
        r#"{"data": {"mapRoles": "{"}}"#,
    ]);
    let refused = fleet.carry_out("old", &row(None, Some(&entry))).await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.transient), ("AwsAuth", false));
    assert!(refused.message.contains("mend it by hand"), "{refused}");
    hyades.as_admin(&["-n", "kube-system", "delete", "cm", "aws-auth"]);
    let none = fleet.read("old").await.unwrap();
    assert_eq!(none.aws_auth.map_roles, None);
    control(endpoint, "POST", "eks", &json!({"remove": "hyades", "region": "ap-south-1"}));
}
