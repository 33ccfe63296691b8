//! "each level checked against a table of at least 60 verb/resource pairs with SelfSubjectAccessReview": real API
//! servers are asked what `access_levels.txt` says.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Scene;
use crate::yard::{spawn_with, until};

const TABLE: &str = include_str!("../access_levels.txt");
/// The table's words for namespaces, and the ones that are there.
const SPACES: [&str; 2] = ["taurus", "orion"];

/// Served as an aggregated API and as anybody's own: both are found by discovery alone.
const DEFINITIONS: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: PLURAL.GROUP
  annotations: {api-approved.kubernetes.io: "unapproved, for a test"}
spec:
  group: GROUP
  scope: SCOPE
  names: {plural: PLURAL, singular: SINGULAR, kind: KIND, listKind: KINDList}
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}}
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}"#;

struct Row<'t> {
    level: &'t str,
    verb: &'t str,
    resource: &'t str,
    namespace: &'t str,
    expected: bool,
}

fn rows() -> impl Iterator<Item = Row<'static>> {
    let lines = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let [level, verb, resource, namespace, expected] =
            line.split_whitespace().collect::<Vec<_>>().try_into().unwrap();
        Row { level, verb, resource, namespace, expected: expected == "yes" }
    })
}

/// `RESOURCE[.GROUP][/SUBRESOURCE][=NAME]`, or a path.
fn review(row: &Row<'_>, spaces: &BTreeMap<&str, String>) -> Value {
    let spec = if row.resource.starts_with('/') {
        json!({ "nonResourceAttributes": { "path": row.resource, "verb": row.verb } })
    } else {
        let named = |text: &str| spaces.get(text).cloned().unwrap_or_else(|| text.to_owned());
        let (rest, name) = row.resource.split_once('=').unwrap_or((row.resource, ""));
        let (rest, subresource) = rest.split_once('/').unwrap_or((rest, ""));
        let (resource, group) = rest.split_once('.').unwrap_or((rest, ""));
        let namespace = if row.namespace == "-" { String::new() } else { named(row.namespace) };
        json!({ "resourceAttributes": {
            "verb": row.verb, "resource": resource, "group": group, "subresource": subresource, "name": named(name),
            "namespace": namespace,
        } })
    };
    json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec })
}

/// "and with real calls, including attempts to climb": what RBAC decides before anything is looked for or done.
#[track_caller]
fn try_for_real(scene: &Scene, level: &str, user: &str, spaces: &BTreeMap<&str, String>) {
    let [taurus, orion] = SPACES.map(|space| spaces[space].as_str());
    let (cluster, admin) = (scene.cluster, scene.cluster.admin());
    let exec =
        |space: &str| format!("create --raw /api/v1/namespaces/{space}/pods/nosuch/exec?command=true -f /dev/null");
    let climbs = "create clusterrolebinding climb --clusterrole=cluster-admin --user=somebody --dry-run=server";
    let gathers =
        "label clusterrole view rbac.authorization.k8s.io/aggregate-to-edit=climb --overwrite --dry-run=server";
    let widens = format!("-n {taurus} create role climb --verb=* --resource=secrets --dry-run=server");
    let changes = ["admin", "poweruser", "admin@taurus", "poweruser@taurus"];
    for (line, may) in [
        (exec("kube-system"), &["admin"][..]),
        (exec(taurus), &["admin", "poweruser", "user", "admin@taurus", "poweruser@taurus", "user@taurus"]),
        (exec(orion), &["admin", "poweruser", "user"]),
        (climbs.to_owned(), &["admin"]),
        (gathers.to_owned(), &["admin"]),
        (widens, &["admin", "admin@taurus"]),
        (format!("-n {taurus} create token default"), &["admin", "admin@taurus"]),
        ("get --raw /api/v1/nodes/node-0/proxy/pods".to_owned(), &["admin"]),
        (format!("-n {taurus} delete pod nosuch"), &changes),
        (format!("-n {taurus} get secrets"), &changes),
        (
            format!("-n {taurus} get pods"),
            &["admin", "poweruser", "user", "admin@taurus", "poweruser@taurus", "user@taurus"],
        ),
        ("get nodes".to_owned(), &["admin", "poweruser", "user"]),
    ] {
        let mut words = vec!["--as", user];
        words.extend(line.split(' '));
        let ran = cluster.run(&admin, &words);
        let refused = ran.stderr.to_lowercase().contains("forbidden");
        assert_eq!(!refused, may.contains(&level), "{level}: {line}: {}", ran.stderr);
    }
}

#[test]
fn the_levels_are_on_a_real_cluster_what_the_table_says() {
    let (scene, _plan) = Scene::new();
    let cluster = scene.cluster;
    for (group, plural, kind, scope) in [
        ("example.test", "stars", "Star", "Namespaced"),
        ("metrics.k8s.io", "pods", "PodMetrics", "Namespaced"),
        ("metrics.k8s.io", "nodes", "NodeMetrics", "Cluster"),
    ] {
        let text = DEFINITIONS.replace("GROUP", group).replace("PLURAL", plural).replace("KIND", kind);
        cluster.apply(&text.replace("SINGULAR", &kind.to_lowercase()).replace("SCOPE", scope));
        let name = format!("{plural}.{group}");
        cluster.as_admin(&["wait", "--for=condition=Established", "crd", &name, "--timeout", "20s"]);
    }
    let spaces: BTreeMap<&str, String> = SPACES.map(|space| (space, scene.namespace(space))).into();
    scene.apply();
    let levels: Vec<&str> = {
        let mut levels: Vec<&str> = rows().map(|row| row.level).collect();
        levels.sort_unstable();
        levels.dedup();
        levels
    };
    let name = |level: &str| format!("of-{}", level.replace('@', "-"));
    for level in levels.iter().copied() {
        let (of_cluster, namespace) = level.split_once('@').unwrap_or((level, ""));
        let group = match spaces.get(namespace) {
            Some(space) => format!("k8s-{of_cluster}@pleiades@{space}"),
            None => format!("k8s-{of_cluster}@pleiades"),
        };
        scene.iam(&format!("iam.create_user(UserName='{}', Path='/bastion/')", name(level)));
        scene.joins(&name(level), &group);
    }
    scene.apply();

    for level in levels {
        let asked: Vec<Row<'_>> = rows().filter(|row| row.level == level).collect();
        let items: Vec<Value> = asked.iter().map(|row| review(row, &spaces)).collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string();
        let user = format!("stockade:{}", name(level));
        let arguments = ["--as", &user, "create", "-f", "-", "-o", "json", "--validate=false"];
        // The API server hears of new bindings a moment after they are made.
        let wrong = || {
            let asking = cluster.kubectl(&cluster.admin(), &arguments);
            let said = spawn_with(asking, Some(list.clone().into_bytes())).wait().ok();
            let answers: Vec<Value> =
                serde_json::Deserializer::from_str(&said).into_iter().collect::<Result<_, _>>().unwrap();
            assert_eq!(answers.len(), asked.len());
            let pairs = asked.iter().zip(&answers);
            let wrong = pairs.filter(|(row, answer)| answer["status"]["allowed"] != row.expected);
            wrong.map(|(row, _)| format!("{level} {} {} {}", row.verb, row.resource, row.namespace)).collect::<Vec<_>>()
        };
        let mut last = Vec::new();
        for _ in 0..3 {
            last = wrong();
            if last.is_empty() {
                break;
            }
        }
        assert!(last.is_empty(), "\n{}", last.join("\n"));
        try_for_real(&scene, level, &user, &spaces);
        scene.iam(&format!(
            "for group in iam.list_groups_for_user(UserName='{0}')['Groups']:\n    \
             iam.remove_user_from_group(GroupName=group['GroupName'], UserName='{0}')\niam.delete_user(UserName='{0}')",
            name(level)
        ));
    }
    scene.access(&["apply", "--allow-mass-removal"]).ok();
    scene.apply();
    until("no binding", || {
        let bound = cluster.as_admin(&["get", "clusterrolebindings,rolebindings", "-A", "-o", "yaml"]);
        (!bound.contains("stockade:of-")).then_some(())
    });
}
