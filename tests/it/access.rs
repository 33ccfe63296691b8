//! Issue 6, end to end: an admin changes nothing but the members of IAM groups; `stockade access` brings it to a real
//! cluster, and people try it through ssh with the jail's own kubectl.

mod levels;
mod watch;

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::kube::plan;
use crate::yard::{Cluster, Clusters, Output, Plan, STOCKADE, spawn_with, until};

/// One at a time: groups of one cluster are of all that happens there.
static TURN: Mutex<()> = Mutex::new(());

/// `pleiades`, with access to it by IAM groups.
struct Scene {
    _turn: MutexGuard<'static, ()>,
    clusters: &'static Clusters,
    cluster: Cluster,
    config: PathBuf,
}

impl Scene {
    /// With a bastion's configuration still to be started, or none.
    fn new() -> (Self, Plan) {
        Self::with("")
    }

    /// With more in `[rbac]`.
    fn with(rbac: &str) -> (Self, Plan) {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let clusters = Clusters::start();
        let plan = plan(clusters);
        let at = |name: &str| plan.path(name).display().to_string();
        let settings = format!(
            "aws.cache = '1s'\n[kube]\ndiscover = [{{ regions = ['eu-west-1'] }}]\nallow = []\n\
             [rbac]\nbastion = ['arn:aws:iam::123456789012:user/stockade-bastion']\n\
             boundary = 'arn:aws:iam::123456789012:policy/stockade-boundary'\nnamespaces = 'labelled'\n\
             cycle = '10m'\naudit = '{}'\nstate = '{}'\n{rbac}",
            at("access.jsonl"),
            at("access")
        );
        let plan = plan.config(&settings);
        let config = plan.write();
        (Self { _turn: turn, clusters, cluster: clusters.pleiades(), config }, plan)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut access = Command::new(STOCKADE);
        access.arg("access").args(arguments).arg("--config").arg(&self.config).env_clear();
        access.envs(self.clusters.identity("access")).env("AWS_EC2_METADATA_DISABLED", "true");
        access
    }

    #[track_caller]
    fn access(&self, arguments: &[&str]) -> Output {
        spawn_with(self.command(arguments), None).wait()
    }

    /// Changes what is to be changed, and nothing is left then.
    #[track_caller]
    fn apply(&self) -> String {
        let said = self.access(&["apply"]).ok();
        let again = self.access(&["plan"]);
        assert_eq!(again.code, Some(0), "{}{}", again.text(), again.stderr);
        said
    }

    /// Lines of Python by an admin of IAM.
    #[track_caller]
    fn iam(&self, lines: &str) -> String {
        self.clusters.as_root(&format!("import boto3; iam = boto3.client('iam')\n{lines}"))
    }

    #[track_caller]
    fn joins(&self, user: &str, group: &str) {
        self.iam(&format!("iam.add_user_to_group(GroupName='{group}', UserName='{user}')"));
    }

    #[track_caller]
    fn leaves(&self, user: &str, group: &str) {
        self.iam(&format!("iam.remove_user_from_group(GroupName='{group}', UserName='{user}')"));
    }

    /// A namespace that has groups of its own, with a pod.
    fn namespace(&self, name: &str) -> String {
        let name = self.cluster.namespace(name);
        self.cluster.as_admin(&["label", "namespace", &name, "stockade/access=yes"]);
        name
    }

    /// What the audit trail says of a user, by code.
    fn told(&self, code: &str, about: &str) -> usize {
        let trail = std::fs::read_to_string(self.config.with_file_name("access.jsonl")).unwrap_or_default();
        let lines = trail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["metadata"]["event_code"] == code && line.to_string().contains(about)).count()
    }
}

/// "An admin adds johnsmith to the IAM group `k8s-poweruser@hyades`. Within a cycle he is a power user there; taken out,
/// he is not. Pocahontas joins `k8s-admin@hyades@taurus` and is admin of that namespace alone."
#[test]
fn membership_of_groups_is_the_only_thing_an_admin_changes() {
    let (scene, plan) = Scene::new();
    let taurus = scene.namespace("taurus");
    let orion = scene.cluster.namespace("orion");
    for user in ["johnsmith", "pocahontas"] {
        scene.iam(&format!("iam.create_user(UserName='{user}', Path='/bastion/')"));
    }
    let power = "k8s-poweruser@pleiades";
    let admin = format!("k8s-admin@pleiades@{taurus}");

    let planned = scene.access(&["plan"]);
    assert_eq!(planned.code, Some(2), "{}", planned.stderr);
    assert!(planned.text().contains(power) && planned.text().contains(&admin), "{}", planned.text());
    scene.apply();

    let yard = plan.user("johnsmith").user("pocahontas").start();
    yard.audit().wait_for("SK4101I", |event| event["unmapped"]["cluster"] == "pleiades");
    scene.joins("johnsmith", power);
    scene.joins("pocahontas", &admin);
    scene.apply();

    let mut john = yard.ssh("johnsmith").terminal();
    john.prompt();
    until("a power user", || {
        john.shell(&format!("kubectl -n {orion} create configmap his -o name")).contains("configmap/his").then_some(())
    });
    assert_eq!(john.shell(&format!("kubectl -n {orion} exec web -c app -- echo in")), "in");
    let script = "kind: Role\\napiVersion: rbac.authorization.k8s.io/v1\\nmetadata: {name: more}\\nrules: []\\n";
    for climb in [
        "kubectl create clusterrolebinding climb --clusterrole=cluster-admin --user=stockade:johnsmith".to_owned(),
        "kubectl create clusterrole climb --verb='*' --resource='*'".to_owned(),
        format!("printf '{script}' | kubectl -n {orion} apply -f -"),
        format!("kubectl label clusterrole {power} rbac.authorization.k8s.io/aggregate-to-view=true"),
        format!("kubectl -n {orion} create token default"),
        "kubectl -n kube-system run climb --image none.invalid/x".to_owned(),
        "kubectl get --raw /api/v1/nodes/node-0/proxy/pods".to_owned(),
    ] {
        let said = john.shell(&climb);
        assert!(
            said.contains("Forbidden") || said.contains("forbidden") || said.contains("nodes/proxy"),
            "{climb}: {said}"
        );
    }

    let mut poca = yard.ssh("pocahontas").terminal();
    poca.prompt();
    until("an admin of one namespace", || {
        poca.shell(&format!("printf '{script}' | kubectl -n {taurus} apply -f -")).contains("created").then_some(())
    });
    for elsewhere in [format!("kubectl -n {orion} get pods"), "kubectl get nodes".into(), "kubectl get pods -A".into()]
    {
        let said = poca.shell(&elsewhere);
        assert!(said.contains("(Forbidden)"), "{elsewhere}: {said}");
    }

    john.enter(&format!("kubectl -n {orion} get pods -w; echo ended-$?"));
    john.wait_for("web .*Running");
    scene.leaves("johnsmith", power);
    scene.apply();
    john.wait_for(r"ended-\d");
    until("no context", || john.shell("kubectl config get-contexts -o name").is_empty().then_some(()));
    let roles = scene.iam(
        "print([role['RoleName'] for page in iam.get_paginator('list_roles').paginate() for role in page['Roles']])",
    );
    assert!(!roles.contains("johnsmith") && roles.contains("pocahontas-kube"), "{roles}");
    let bound = scene.cluster.as_admin(&["get", "clusterrolebindings,rolebindings", "-A", "-o", "yaml"]);
    assert!(!bound.contains("stockade:johnsmith") && bound.contains("stockade:pocahontas"), "{bound}");
    assert_eq!((scene.told("SK9001I", "johnsmith"), scene.told("SK9002I", "johnsmith")), (1, 1));

    scene.iam(&format!(
        "iam.remove_user_from_group(GroupName='{admin}', UserName='pocahontas'); iam.delete_user(UserName='pocahontas')"
    ));
    scene.apply();
    let bound = scene.cluster.as_admin(&["get", "rolebindings", "-A", "-o", "yaml"]);
    assert!(!bound.contains("stockade:pocahontas"), "{bound}");
}

/// "a hand-made change to them is reported and put back; a foreign object in our place is reported and left"; "A
/// hand-made change of a trust policy does not go unnoticed."
#[test]
fn what_is_changed_by_hand_is_told_and_put_back() {
    let (scene, _plan) = Scene::new();
    let cluster = scene.cluster;
    let space = scene.namespace("byhand");
    scene.apply();
    scene.iam("iam.create_user(UserName='drifter', Path='/bastion/')");
    let group = format!("k8s-user@pleiades@{space}");
    scene.joins("drifter", &group);
    scene.apply();

    let rules = r#"[{"op": "add", "path": "/rules/0", "value": {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}}]"#;
    cluster.as_admin(&["-n", &space, "patch", "role", &group, "--type=json", "-p", rules]);
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}"#;
    scene.iam(&format!("iam.update_assume_role_policy(RoleName='drifter-kube', PolicyDocument='{trust}')"));
    // Of another's making, where one of ours would stand.
    let foreign = format!("k8s-admin@pleiades@{space}");
    cluster.as_admin(&["-n", &space, "delete", "role", &foreign]);
    cluster.as_admin(&["-n", &space, "create", "role", &foreign, "--verb=get", "--resource=pods"]);

    let planned = scene.access(&["plan"]);
    assert_eq!(planned.code, Some(2));
    for expected in ["drifter-kube", "its trust policy", &group, &foreign] {
        assert!(planned.text().contains(expected), "{expected}: {}", planned.text());
    }
    scene.apply();
    let rules = cluster.as_admin(&["-n", &space, "get", "role", &group, "-o", "jsonpath={.rules}"]);
    assert!(!rules.contains("secrets"), "{rules}");
    let trust = scene.iam("print(iam.get_role(RoleName='drifter-kube')['Role']['AssumeRolePolicyDocument'])");
    assert!(trust.contains("sts:SourceIdentity") && !trust.contains("'*'"), "{trust}");
    let rules = cluster.as_admin(&["-n", &space, "get", "role", &foreign, "-o", "jsonpath={.rules[*].verbs}"]);
    assert_eq!(rules, r#"["get"]"#, "left as it was");

    scene.iam(&format!(
        "iam.remove_user_from_group(GroupName='{group}', UserName='drifter'); iam.delete_user(UserName='drifter')"
    ));
    cluster.as_admin(&["-n", &space, "delete", "role", &foreign]);
    scene.apply();
}

/// "A plan that would remove more than a configured share stops and asks"
#[test]
fn a_plan_that_takes_too_much_stops_and_asks() {
    let (scene, _plan) = Scene::new();
    let space = scene.namespace("masses");
    scene.apply();
    let group = format!("k8s-user@pleiades@{space}");
    for number in 0..5 {
        scene.iam(&format!("iam.create_user(UserName='mass-{number}', Path='/bastion/')"));
        scene.joins(&format!("mass-{number}"), &group);
    }
    scene.apply();
    for number in 0..5 {
        scene.leaves(&format!("mass-{number}"), &group);
    }
    let stopped = scene.access(&["apply"]);
    assert_eq!(stopped.code, Some(1));
    assert!(stopped.stderr.contains("--allow-mass-removal"), "{}", stopped.stderr);
    let bound = scene.cluster.as_admin(&["-n", &space, "get", "rolebinding", &group, "-o", "yaml"]);
    assert!(bound.contains("stockade:mass-4"), "{bound}");
    scene.access(&["apply", "--allow-mass-removal"]).ok();
    scene.apply();
    scene.iam("for n in range(5): iam.delete_user(UserName=f'mass-{n}')");
}

/// https://docs.aws.amazon.com/eks/latest/userguide/setting-up-access-entries.html: with API_AND_CONFIG_MAP, which the
/// bed's clusters have, an access entry comes before what aws-auth says of the same principal.
#[test]
fn rows_of_aws_auth_go_beside_entries_and_those_of_others_stay() {
    let (scene, _plan) = Scene::new();
    let space = scene.namespace("rows");
    scene.apply();
    scene.iam("iam.create_user(UserName='ursula', Path='/bastion/')");
    let group = format!("k8s-user@pleiades@{space}");
    let nodes = "# the nodes\n- rolearn: arn:aws:iam::123456789012:role/nodes   # old\n  username: nodes\n";
    let row = format!(
        "- rolearn: arn:aws:iam::123456789012:role/ursula-kube\n  username: stockade:ursula\n  groups: ['stockade:{group}']\n"
    );
    let users = "- userarn: arn:aws:iam::123456789012:user/ursula\n  username: stockade:alice\n";
    let map = |roles: &str| {
        serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "aws-auth", "namespace":
            "kube-system"}, "data": {"mapRoles": roles, "mapUsers": users}})
    };
    let held = || {
        let said = scene.cluster.as_admin(&["-n", "kube-system", "get", "configmap", "aws-auth", "-o", "json"]);
        serde_json::from_str::<Value>(&said).unwrap()["data"].clone()
    };
    scene.cluster.apply(&map(&format!("{row}{nodes}")).to_string());
    scene.joins("ursula", &group);

    let planned = scene.access(&["plan"]);
    assert_eq!(planned.code, Some(2), "{}", planned.stderr);
    for expected in ["role/ursula-kube in aws-auth", "a row of mapUsers in aws-auth", "as 'stockade:alice'"] {
        assert!(planned.text().contains(expected), "{expected}: {}", planned.text());
    }
    let report = scene.access(&["report", "--user", "ursula", "--output", "csv"]).text();
    assert!(report.contains("User stockade:alice") && report.contains("row of aws-auth of"), "{report}");
    let said = scene.apply();
    let (entry, gone) = (said.find("+ access entry of").unwrap(), said.find("- row of").unwrap());
    assert!(gone < entry, "it would let in a role that is still to be made: {said}");
    assert_eq!(held(), map(nodes)["data"], "no other byte");
    assert_eq!(scene.told("SK9009W", "role/ursula-kube in aws-auth"), 1);

    // What nobody can read says nothing, and stops nothing.
    scene.cluster.apply(&map("- rolearn: {").to_string());
    scene.leaves("ursula", &group);
    let said = scene.apply();
    assert!(said.contains("is not what EKS reads") && said.contains("- access entry of"), "{said}");
    assert_eq!(held(), map("- rolearn: {")["data"]);
    scene.cluster.as_admin(&["-n", "kube-system", "delete", "configmap", "aws-auth"]);
    scene.iam("iam.delete_user(UserName='ursula')");
    scene.apply();
}
