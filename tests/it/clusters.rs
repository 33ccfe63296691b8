//! "Clusters": what the configuration says of them, and that its secrets are the warden's alone.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::aws::control;
use crate::yard::{Clusters, Plan, STOCKADE, Yard, descriptors, until};

const CA: &str = include_str!("../../src/config/tests/ca.pem");
const TOKEN: &str = "tests-own-token-0123456789";

fn kubeconfig(file: PathBuf, mode: u32) -> PathBuf {
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: good\n\
         clusters: [{{name: c, cluster: {{server: 'https://c.test:6443', certificate-authority-data: {}}}}}]\n\
         contexts: [{{name: good, context: {{cluster: c, user: u}}}}, {{name: exec, context: {{cluster: c, user: x}}}}]\n\
         users: [{{name: u, user: {{token: {TOKEN}}}}}, {{name: x, user: {{exec: {{command: aws}}}}}}]\n",
        STANDARD.encode(CA)
    );
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    file
}

fn taurus(file: &Path, more: &str) -> String {
    let rules = "[[kube.allow]]\ngroups = ['ops']\n[users.groups]\nops = ['alice']\n";
    let file = file.display();
    format!("{rules}[[kube.cluster]]\nname = 'taurus'\nway = 'impersonate'\nkubeconfig = '{file}'\n{more}")
}

fn check(file: &Path, more: &[&str]) -> Output {
    Command::new(STOCKADE).args(["check", "--config"]).arg(file).args(more).output().unwrap()
}

/// "exec plugins are refused with a sentence naming the other ways: the warden may not exec"
#[test]
fn a_kubeconfig_is_a_secret_and_starts_nothing() {
    for (mode, more, wanted) in [
        (0o644, "", "can be read by others (mode 0644)"),
        (0o600, "context = 'exec'\n", "the warden may not exec; use way = \"eks\", or way = \"impersonate\""),
        (0o600, "context = 'none'\n", "there is no context 'none' in it"),
    ] {
        let plan = Yard::new();
        let settings = taurus(&kubeconfig(plan.path("kubeconfig"), mode), more);
        let plan = plan.config(&settings);
        let refused = check(&plan.write(), &[]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(78), "{said}");
        assert!(said.contains(wanted) && said.contains("stockade.toml:") && !said.contains(TOKEN), "{said}");
    }
}

/// "`stockade check --who alice --cluster hyades` explains"
#[test]
fn check_explains_who_may_use_a_cluster() {
    let plan = Yard::new().user("alice").user("bob");
    let settings = taurus(&kubeconfig(plan.path("kubeconfig"), 0o600), "");
    let plan = plan.config(&settings);
    let file = plan.write();
    for (who, cluster, code, wanted) in [
        (
            "alice",
            "taurus",
            0,
            "'alice' may use cluster 'taurus': [[kube.allow]] number 1 is for groups 'ops' and clusters '*'.",
        ),
        (
            "bob",
            "taurus",
            1,
            "'bob' may not use cluster 'taurus': none of the 1 [[kube.allow]] is for them and this cluster.",
        ),
        ("alice", "hyades", 1, "There is no cluster 'hyades'; the configuration names taurus."),
    ] {
        let said = check(&file, &["--who", who, "--cluster", cluster]);
        let text = String::from_utf8_lossy(&said.stdout);
        assert_eq!(said.status.code(), Some(code), "{text}");
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn a_kubeconfig_is_the_wardens_and_is_read_again_at_a_reload() {
    let plan = Yard::new().user("alice");
    let file = kubeconfig(plan.path("kubeconfig"), 0o600);
    let settings = taurus(&file, "");
    let yard = plan.config(&settings).start();
    yard.ssh("alice").run("true").ok();
    let name = file.display().to_string();
    for role in ["gate", "porter", "keeper", "tally", "warden"] {
        let held = descriptors(yard.role(role));
        // The warden has read it by now.
        assert!(held.iter().all(|(_, target)| *target != name), "{role}: {held:?}");
    }
    assert!(descriptors(yard.jailer()).iter().any(|(_, target)| *target == name), "kept for the next warden");
    yard.kill("warden");
    yard.ssh("alice").run("true").ok();

    std::fs::write(&file, "not one").unwrap();
    yard.signal("HUP");
    let refused = yard.audit().wait_for("SK7002W", |_| true);
    assert!(refused["unmapped"]["reason"].as_str().unwrap().contains("mistakes"), "{refused}");
    kubeconfig(yard.path("kubeconfig"), 0o600);
    yard.signal("HUP");
    until("a reload", || (yard.audit().of("SK7001I").len() == 2).then_some(()));
    assert!(!yard.log().contains(TOKEN) && yard.log().contains("not a kubeconfig"), "{}", yard.log());
}

/// The bed's AWS, its two clusters, and a rule for the admins of its platform.
fn eks(clusters: &Clusters, tags: &str) -> Plan {
    let mut plan = Yard::new().user("alice").user("bob").config(&discover(tags)).config(
        "aws.region = 'us-east-1'\naws.role = 'arn:aws:iam::123456789012:role/bastion/{user}'\n\
         kube.role = 'arn:aws:iam::123456789012:role/stockade/kube/{user}-kube'\n\
         [[kube.allow]]\ngroups = ['platform-admins']\n",
    );
    for (name, value) in clusters.bastion() {
        plan = plan.env(&name, &value);
    }
    plan.env("AWS_EC2_METADATA_DISABLED", "true")
}

fn discover(tags: &str) -> String {
    format!("[[kube.discover]]\nregions = ['us-east-1', 'eu-west-1']\ntags = {{ {tags} }}\n")
}

/// "discovered from EKS (accounts by role, regions, tag filters ...)"
#[test]
fn clusters_of_eks_come_and_go() {
    let clusters = Clusters::start();
    let yard = eks(clusters, "team = 'platform'").start();
    for cluster in [clusters.hyades(), clusters.pleiades()] {
        let event = yard.audit().wait_for("SK4101I", |event| event["unmapped"]["cluster"] == cluster.name);
        assert_eq!(event["unmapped"]["endpoint"], cluster.endpoint());
        assert_eq!(event["unmapped"]["place"], format!("123456789012 {}", cluster.region()));
    }
    let said = doctor(&yard.path("stockade.toml"), &clusters.bastion());
    for wanted in [
        "users are arn:aws:iam::123456789012:role/stockade/kube/{user}-kube on EKS",
        "there (eu-west-1)",
        "it may write nothing of IAM's",
    ] {
        assert!(said.lines().any(|line| line.starts_with("ok ") && line.contains(wanted)), "{said}");
    }
    yard.configure(&discover("env = 'pr*'"));
    yard.signal("HUP");
    yard.audit().wait_for("SK4102I", |event| event["unmapped"]["cluster"] == "pleiades");
    yard.configure(&format!("{}role = 'arn:aws:iam::123456789012:role/nobodys'\n", discover("")));
    yard.signal("HUP");
    let failed = yard.audit().wait_for("SK4103W", |_| true);
    assert!(failed["unmapped"]["place"].as_str().unwrap().contains("role/nobodys in "), "{failed}");
}

fn doctor(file: &Path, identity: &BTreeMap<String, String>) -> String {
    let mut doctor = Command::new(STOCKADE);
    doctor.args(["doctor", "--config"]).arg(file).env_clear().env("AWS_EC2_METADATA_DISABLED", "true").envs(identity);
    String::from_utf8(doctor.output().unwrap().stdout).unwrap()
}

/// "accounts by role": what looks in another account is a role there, and its tags are no labels unless it is trusted.
#[test]
fn clusters_of_another_account_are_found_with_a_role() {
    let clusters = Clusters::start();
    let arn = "arn:aws:iam::210987654321:role/looks-for-clusters";
    let law = |statement: Value| json!({ "Version": "2012-10-17", "Statement": [statement] });
    let bastion = "arn:aws:iam::123456789012:user/stockade-bastion";
    let ca = clusters.pleiades().ca().display().to_string();
    let cluster = |name: &str| json!({ "name": name, "region": "eu-west-1", "endpoint": format!("https://{name}.test"), "ca": ca, "tags": { "env": "dev" } });
    let account = json!({
        "account": "210987654321",
        "role": "looks-for-clusters",
        "trust": law(json!({ "Effect": "Allow", "Action": "sts:AssumeRole", "Principal": { "AWS": bastion } })),
        "policy": law(json!({ "Effect": "Allow", "Action": ["eks:ListClusters", "eks:DescribeCluster"], "Resource": "*" })),
        "clusters": [cluster("vela"), cluster("pleiades")],
    });
    control(clusters.variable("AWS_ENDPOINT_URL"), "POST", "account", &account);
    let allow = law(json!({ "Effect": "Allow", "Action": "sts:AssumeRole", "Resource": arn }));
    let own = "[[kube.discover]]\nregions = ['us-east-1', 'eu-west-1']\n";
    let other = format!("[[kube.discover]]\nrole = '{arn}'\nregions = ['eu-west-1']\ntrusted = false\n");
    let yard = eks(clusters, "").config(&format!("{own}{other}")).start();
    let failed = yard.audit().wait_for("SK4103W", |_| true);
    assert!(failed["unmapped"]["place"].as_str().unwrap().contains(arn), "its trust alone does not open it: {failed}");
    yard.audit().wait_for("SK4101I", |event| event["unmapped"]["cluster"] == "pleiades");
    clusters.as_root(&format!(
        "import boto3; boto3.client('iam').put_user_policy(UserName='stockade-bastion', PolicyName='looks', \
         PolicyDocument='{allow}')"
    ));
    yard.signal("HUP");
    let found = yard.audit().wait_for("SK4101I", |event| event["unmapped"]["cluster"] == "vela");
    assert_eq!(found["unmapped"]["place"], "210987654321 eu-west-1");
    // One name in two accounts is neither's.
    let twice = yard.audit().wait_for("SK4103W", |event| event["unmapped"]["place"] == "pleiades");
    assert!(
        twice.to_string().contains("123456789012 eu-west-1") && twice.to_string().contains("210987654321"),
        "{twice}"
    );
    yard.audit().wait_for("SK4102I", |event| event["unmapped"]["cluster"] == "pleiades");
    let by_role = |line: &Value| {
        let principal = line["principal"].as_str().unwrap_or_default();
        line["service"] == "eks" && principal.starts_with("arn:aws:sts::210987654321:assumed-role/looks-for-clusters/")
    };
    assert!(clusters.trail().iter().any(by_role));
    yard.configure("[[kube.allow]]\ngroups = ['*']\nlabels = { env = '*' }");
    yard.signal("HUP");
    until("the new rules", || (yard.audit().of("SK7001I").len() == 3).then_some(()));
    assert_eq!(yard.ssh("alice").run("stockade clusters").ok(), "hyades", "what is tagged elsewhere is no label here");
}

/// "doctor fails if the warden's can write IAM": a right that is for users' roles alone is found too.
#[test]
fn doctor_fails_where_the_bastion_could_make_itself_more() {
    let clusters = Clusters::start();
    let plan = eks(clusters, "");
    let file = plan.write();
    let make = "import boto3, json; iam = boto3.client('iam'); iam.create_user(UserName='mighty'); \
                may = {'Effect': 'Allow', 'Action': ['iam:PutRolePolicy', 'iam:GetRole'], \
                       'Resource': 'arn:aws:iam::123456789012:role/stockade/kube/*'}; \
                ask = {'Effect': 'Allow', 'Action': 'iam:SimulatePrincipalPolicy', 'Resource': '*'}; \
                put = lambda *all: iam.put_user_policy(UserName='mighty', PolicyName='x', PolicyDocument=json.dumps( \
                    {'Version': '2012-10-17', 'Statement': list(all)})); ";
    let made = format!(
        "{make} put(may); key = iam.create_access_key(UserName='mighty')['AccessKey']; \
                        print(key['AccessKeyId'], key['SecretAccessKey'])"
    );
    let (id, secret) =
        clusters.as_root(&made).split_once(' ').map(|(id, key)| (id.to_owned(), key.to_owned())).unwrap();
    let mut identity = clusters.bastion();
    identity.extend([("AWS_ACCESS_KEY_ID".to_owned(), id), ("AWS_SECRET_ACCESS_KEY".to_owned(), secret)]);
    let power = |identity| doctor(&file, identity).lines().find(|line| line.contains(" aws-power ")).map(str::to_owned);
    let said = power(&identity).unwrap();
    assert!(said.starts_with("warn") && said.contains("AccessDenied") && said.contains("iam:Simulate"), "{said}");
    clusters.as_root(&format!("{} put(may, ask)", make.replace("iam.create_user(UserName='mighty');", "")));
    let said = power(&identity).unwrap();
    let mighty = "FAIL  aws-power      arn:aws:iam::123456789012:user/mighty may iam:PutRolePolicy: whoever";
    assert!(said.starts_with(mighty), "{said}");
    assert!(power(&clusters.bastion()).unwrap().starts_with("ok"));
}

/// "one role for both": one issue serves jail and clusters, and no second role is asked for.
#[test]
fn one_role_can_be_both() {
    let clusters = Clusters::start();
    let settings = "kube.kube_role = 'same'\naws.role = 'arn:aws:iam::123456789012:role/stockade/kube/{user}-kube'";
    let mut plan = Yard::new()
        .user("alice")
        .config(settings)
        .config("aws.region = 'us-east-1'\n[[kube.discover]]\n[[kube.allow]]\ngroups = ['*']\n");
    for (name, value) in clusters.bastion() {
        plan = plan.env(&name, &value);
    }
    let yard = plan.env("AWS_EC2_METADATA_DISABLED", "true").start();
    yard.audit().wait_for("SK4101I", |event| event["unmapped"]["cluster"] == "hyades");
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    let issued = yard.audit().wait_for("SK4001I", |_| true);
    let trail = clusters.trail();
    let asked = trail.iter().filter(|line| line["params"]["RoleSessionName"] == issued["session"]["uid"]);
    assert_eq!(asked.count(), 1);
}

/// "metadata keys must not be a way round the kube door": what clusters know is a second role, which may do nothing else
/// and whose keys no jail sees; who may use no cluster has none.
#[test]
fn who_may_use_a_cluster_has_a_second_role_there() {
    let clusters = Clusters::start();
    let yard = eks(clusters, "").start();
    yard.audit().wait_for("SK4101I", |event| event["unmapped"]["cluster"] == "hyades");
    let role = |user: &str, suffix: &str| {
        yard.audit().wait_for("SK4001I", |event| {
            let role = event["actor"]["user"]["name"] == user;
            role && event["iam_roles"][0]["name"].as_str().is_some_and(|name| name.ends_with(suffix))
        })
    };
    let mut terminals = ["bob", "alice"].map(|user| yard.ssh(user).terminal());
    terminals.iter_mut().for_each(|terminal| terminal.prompt());
    let bob = role("bob", "role/bastion/bob");
    let (jail, there) = (role("alice", "role/bastion/alice"), role("alice", "role/stockade/kube/alice-kube"));
    assert_eq!(jail["session"], there["session"]);
    assert_ne!(jail["unmapped"]["access_key_id"], there["unmapped"]["access_key_id"]);
    let trail = clusters.trail();
    let asked = |role: &str| {
        let of = |line: &&Value| line["params"]["RoleArn"].as_str().is_some_and(|arn| arn.ends_with(role));
        trail.iter().filter(of).find(|line| line["params"]["RoleSessionName"] == there["session"]["uid"]).cloned()
    };
    let asked = asked("/alice-kube").expect("the second role was asked for");
    assert_eq!(asked["params"]["SourceIdentity"], "alice");
    assert!(asked["params"]["Policy"].as_str().unwrap().contains("\"Effect\":\"Deny\""), "{asked}");
    let of_bob = trail.iter().filter(|line| line["params"]["RoleSessionName"] == bob["session"]["uid"]);
    assert!(of_bob.count() == 1, "bob may use no cluster");
}
