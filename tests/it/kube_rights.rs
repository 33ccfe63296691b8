//! Issue 6: rights on clusters that are taken away in IAM while they are used.

use serde_json::Value;

use crate::kube::plan;
use crate::kube_end::impersonator;
use crate::yard::{Cluster, Clusters, Laptop, Terminal, with_public_door};

/// The bastion may say there that somebody is in the group, and its members may what developers may.
const MANIFEST_OF_A_GROUP: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "says-GROUP"}
rules:
  - {apiGroups: [""], resources: [groups], verbs: [impersonate], resourceNames: [developers, "GROUP"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "says-GROUP"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "says-GROUP"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "stockade:bastion"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: "GROUP", namespace: NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: stockade-developer}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "GROUP"}]"#;

/// In a terminal of bob's: a watch, an exec and a forwarded port. Their Audit-IDs.
#[track_caller]
fn begin(bob: &mut Terminal, cluster: Cluster, context: &str, namespace: &str, port: u16) -> Vec<Value> {
    let kubectl = format!("kubectl --context {context} -n {namespace}");
    bob.shell(&format!(
        "({kubectl} get pods -w & {kubectl} exec web -c app -- sleep 1000 & {kubectl} port-forward web {port}:1 &) \
         > /dev/null 2>&1"
    ));
    let of_bob = |event: &Value| {
        let user = event["user"]["username"].as_str().unwrap_or_default();
        let named = event["impersonatedUser"]["username"].as_str();
        if context == "taurus" { named == Some("bob") } else { user.starts_with("stockade:bob:") }
    };
    let begun = [("watch", ""), ("get", "exec"), ("get", "portforward")].map(|(verb, subresource)| {
        cluster.audited(|event| {
            let about = &event["objectRef"];
            about["namespace"] == namespace
                && about["subresource"].as_str().unwrap_or_default() == subresource
                && event["verb"] == verb
                && event["stage"] == "ResponseStarted"
                && of_bob(event)
        })
    });
    begun.map(|event| event["auditID"].clone()).to_vec()
}

/// "a user removed from all groups of a cluster loses its context in running sessions within a cycle; streams end"
#[test]
fn whoever_is_taken_out_of_a_group_loses_what_it_gave_while_they_use_it() {
    let clusters = Clusters::start();
    let cluster = clusters.hyades();
    let namespace = cluster.namespace("taken");
    let group = format!("k8s-user@hyades@{namespace}");
    cluster.apply(&MANIFEST_OF_A_GROUP.replace("GROUP", &group).replace("NAMESPACE", &namespace));
    let iam = |lines: &str| {
        clusters
            .as_root(&format!("import boto3; iam = boto3.client('iam'); group = {{'GroupName': '{group}'}}; {lines}"))
    };
    iam("iam.create_group(Path='/stockade/', **group); iam.add_user_to_group(UserName='bob', **group)");

    let plan = with_public_door(plan(clusters));
    let taurus = plan.path("taurus");
    impersonator(&taurus, cluster, cluster.endpoint(), &std::fs::read(cluster.ca()).unwrap());
    let yard = plan
        .config(&format!(
            "aws.cache = '1s'\n[kube]\ndiscover = [{{ regions = ['us-east-1'] }}]\n\
             cluster = [{{ name = 'taurus', way = 'impersonate', kubeconfig = '{}' }}]\n\
             allow = [{{ groups = ['{group}'], clusters = ['hyades'] }}, {{ groups = ['*'], clusters = ['taurus'] }}]\n",
            taurus.display()
        ))
        .start();
    yard.audit().wait_for("SK4101I", |event| event["unmapped"]["cluster"] == "hyades");

    let mut bob = yard.ssh("bob").terminal();
    bob.prompt();
    assert_eq!(bob.shell("kubectl config get-contexts -o name"), "hyades\ntaurus");
    let mut streams = begin(&mut bob, cluster, "hyades", &namespace, 7001);
    streams.extend(begin(&mut bob, cluster, "taurus", &namespace, 7002));
    let laptop = Laptop::of(&yard, "bob");
    let line = ["-n", &namespace, "logs", "-f", "--tail=1", "web", "-c", "app"];
    let mut outside = Terminal::of(&laptop.line("hyades", &line), &[]);
    outside.wait_for(r"line \d+\r\nline \d+\r\n");
    let token = yard.token("bob", "hyades");

    iam("iam.remove_user_from_group(UserName='bob', **group); iam.delete_group(**group)");
    yard.audit().wait_for("SK2008I", |event| event["unmapped"]["left"] == serde_json::json!([group]));
    for id in streams {
        cluster.audited(|event| event["auditID"] == id && event["stage"] != "ResponseStarted");
    }
    outside.end();
    let (status, body) = yard.knock(&token);
    assert!(status == 403 && body.contains("no cluster hyades is here for you"), "{status} {body}");
    bob.shell("while kubectl config get-contexts -o name | grep -q hyades; do sleep 0.1; done");
    assert_eq!(bob.shell("kubectl config get-contexts -o name"), "taurus");
    let refused = bob.shell("curl -s http://127.0.0.1:6443/clusters/hyades/api");
    assert!(refused.contains("no cluster hyades is here for you"), "{refused}");
    let refused = bob.shell(&format!("kubectl --context taurus -n {namespace} get pods"));
    assert!(refused.contains("(Forbidden)") && refused.contains("\"bob\""), "{refused}");
}
