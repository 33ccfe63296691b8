//! Issue 5: what the rules of `[kube]` do to real requests, and ways to clusters that are not EKS's.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::aws::control;
use crate::kube::{plan, pod, session, start};
use crate::kube_audit::printed;
use crate::kube_end::credential;
use crate::kube_streams::PROTOCOLS;
use crate::yard::{Clusters, until};

/// "A verbosity policy like the API server's own (rules by verb, resource, namespace; levels None, Metadata, Request)"
#[test]
fn rules_decide_what_of_a_request_is_written() {
    let clusters = Clusters::start();
    let namespace = clusters.hyades().namespace("rules");
    let rules = format!(
        "kube.audit = [{{ level = 'None', verbs = ['list'], resources = ['services'], namespaces = ['{namespace}'] }},\n\
         {{ level = 'Request', resources = ['services', 'secrets'] }},\n\
         {{ level = 'None', paths = ['/api*', '/openapi/*', '/version'] }}]"
    );
    let yard = start(plan(clusters).config(&rules));
    let noted = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "noted"},
                    "spec": {"type": "ExternalName", "externalName": "blue.test"}}"#;
    let ran = yard.ssh("alice").input(noted).run(&format!(
        "cat > noted; alias k='kubectl -n {namespace}'; shopt -s expand_aliases
         k create -f noted; k create secret generic noted --from-literal word=hidden
         k get services; kubectl -n team-a get services; k get --raw /readyz; k get pods -o name"
    ));
    assert!(ran.ok().ends_with("pod/web"), "{ran:?}");
    let is =
        |event: &Value, verb: &str, resource: &str| event["verb"] == verb && event["objectRef"]["resource"] == resource;
    yard.audit().wait_for("SK5201I", |event| is(&event["unmapped"]["kubernetes"], "list", "pods"));
    let events = printed(&yard, &[]);
    let of = |verb: &str, resource: &str| -> Vec<&Value> {
        events.iter().filter(|event| is(event, verb, resource)).collect()
    };
    let [made] = of("create", "services")[..] else { panic!("{events:#?}") };
    assert_eq!(
        (&made["level"], &made["requestObject"]["spec"]["externalName"]),
        (&json!("Request"), &json!("blue.test"))
    );
    let [made] = of("create", "secrets")[..] else { panic!("{events:#?}") };
    assert!(
        made["level"] == "Metadata" && made["requestObject"].is_null(),
        "a Secret's body, whatever a rule says: {made}"
    );
    let [listed] = of("list", "services")[..] else { panic!("the rule is for one namespace: {events:#?}") };
    assert_eq!(listed["objectRef"]["namespace"], "team-a");
    assert_eq!(of("list", "pods")[0]["level"], "Metadata", "no rule is for it");
    let paths: Vec<&Value> =
        events.iter().filter(|event| event["objectRef"].is_null()).map(|e| &e["requestURI"]).collect();
    assert_eq!(paths, [&json!("/readyz")]);
}

/// "`--as` only if policy allows it and then audited"
#[test]
fn somebody_else_only_where_a_rule_says_so() {
    let clusters = Clusters::start();
    let rule = "kube.impersonate = [{ groups = ['platform-admins'], clusters = ['hyades'], as_users = ['deployer'], \
                as_groups = ['viewers'] }]";
    let yard = start(plan(clusters).config(rule));
    let whoami = "auth whoami -o jsonpath='{.status.userInfo.username} {.status.userInfo.groups}'";
    let line = format!("kubectl --context hyades --as deployer --as-group viewers {whoami}");
    let said = yard.ssh("alice").run(&line).ok();
    assert!(said.starts_with("deployer [") && said.contains("viewers") && !said.contains("platform-admins"), "{said}");
    let own = yard
        .audit()
        .wait_for("SK5201I", |event| event["unmapped"]["kubernetes"]["impersonatedUser"]["username"] == "deployer");
    let event = &own["unmapped"]["kubernetes"];
    assert_eq!(own["session"]["uid"], session(&yard, "alice"));
    assert_eq!(event["impersonatedUser"]["groups"], json!(["viewers"]), "{event}");
    let theirs = clusters.hyades().audited(|theirs| theirs["auditID"] == event["auditID"]);
    assert_eq!(theirs["impersonatedUser"]["username"], "deployer");
    assert!(theirs["user"]["username"].as_str().unwrap().starts_with("stockade:alice:"), "{theirs}");

    for (user, line) in [
        ("alice", "--context hyades --as bob"),
        ("alice", "--context hyades --as deployer --as-group stockade:platform-admins"),
        ("alice", "--context hyades --as system:admin"),
        ("alice", "--context hyades --as deployer --as-group system:masters"),
        ("alice", "--context pleiades --as deployer"),
        ("bob", "--context hyades --as deployer"),
    ] {
        let refused = yard.ssh(user).run(&format!("kubectl {line} get namespaces"));
        assert!(
            refused.code == Some(1) && refused.stderr.contains("no rule of the bastion lets you be"),
            "{refused:?}"
        );
    }
    let refused = yard.ssh("alice").run("kubectl --context hyades --as deployer --as-uid 0 get namespaces");
    assert!(refused.stderr.contains("does not let impersonate-uid through"), "{refused:?}");
    yard.audit().wait_for("SK5202W", |event| event["actor"]["user"]["name"] == "bob");
}

/// "`kubeconfig` (an entry's own client certificate or token)": there all are the bastion, and its own audit alone tells
/// them apart.
#[test]
fn a_credential_can_be_everybodys() {
    let clusters = Clusters::start();
    let cluster = clusters.hyades();
    let namespace = cluster.namespace("shared");
    let plan = plan(clusters);
    let taurus = plan.path("taurus");
    credential(&taurus, cluster.certificate("alice"), cluster.endpoint(), &std::fs::read(cluster.ca()).unwrap());
    let token = plan.path("token");
    let minted = cluster.as_admin(&["-n", &namespace, "create", "token", "default"]);
    let text = std::fs::read_to_string(&taurus).unwrap();
    let (before, _) = text.split_once("users: ").unwrap();
    std::fs::write(&token, format!("{before}users: [{{name: u, user: {{token: {minted}}}}}]\n")).unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let entry =
        |name: &str| format!("{{ name = '{name}', way = 'kubeconfig', kubeconfig = '{}' }}", plan.path(name).display());
    let settings = format!(
        "kube.cluster = [{}, {}]\nkube.allow = [{{ groups = ['*'] }}]\nkube.discover = [{{ regions = ['eu-west-1'] }}]",
        entry("taurus"),
        entry("token")
    );
    let yard = plan.config(&settings).start();
    for user in ["alice", "bob"] {
        let name = "auth whoami -o jsonpath='{.status.userInfo.username}'";
        let said =
            yard.ssh(user).run(&format!("kubectl --context taurus {name}; echo; kubectl --context token {name}")).ok();
        assert_eq!(said, format!("stockade:alice:certificate\nsystem:serviceaccount:{namespace}:default"), "{user}");
        let ran = yard
            .ssh(user)
            .run(&format!("kubectl --context taurus -n {namespace} exec web -c app -- echo it-is-{user}"));
        assert_eq!(ran.ok(), format!("it-is-{user}"));
        let own = yard
            .audit()
            .wait_for("SK5203I", |event| event["unmapped"]["command"] == json!(["echo", format!("it-is-{user}")]));
        assert_eq!(own["actor"]["user"]["name"], user, "{own}");
        let as_other = yard.ssh(user).run("kubectl --context taurus --as admin get pods");
        assert!(as_other.stderr.contains("no rule of the bastion lets you be admin"), "{as_other:?}");
    }
}

const MANIFEST_OF_GET: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: looks, namespace: NAMESPACE}
rules:
  - {apiGroups: [""], resources: [pods], verbs: [get, list, watch]}
  - {apiGroups: [""], resources: [pods/exec, pods/attach, pods/portforward], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: looks, namespace: NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: looks}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "stockade:developers"}]"#;

/// "exec, attach and port-forward need `get` and `create` from 1.35 on"
#[test]
fn who_may_only_get_an_exec_has_none() {
    let clusters = Clusters::start();
    let cluster = clusters.hyades();
    let namespace = "only-get";
    cluster.apply(&MANIFEST_OF_GET.replace("NAMESPACE", namespace));
    cluster.apply(&in_namespace(&pod("web"), namespace));
    cluster.as_admin(&["-n", namespace, "wait", "--for=condition=Ready", "pod/web", "--timeout", "20s"]);
    let yard = start(plan(clusters));
    for (name, protocol) in PROTOCOLS {
        for (line, what) in
            [("exec web -- true", "exec"), ("attach web", "attach"), ("port-forward web 7000:1", "portforward")]
        {
            let refused = yard.ssh("bob").run(&format!("{protocol}timeout 20 kubectl -n {namespace} {line}"));
            let wanted = format!("cannot create resource \"pods/{what}\"");
            assert!(refused.code == Some(1) && refused.stderr.contains(&wanted), "{name} {line}: {refused:?}");
        }
        assert!(yard.audit().of("SK5203I").is_empty(), "nothing was opened, and nothing recorded");
    }
    let told =
        yard.audit().wait_for("SK5201I", |event| event["unmapped"]["kubernetes"]["objectRef"]["subresource"] == "exec");
    assert_eq!(told["api"]["response"]["code"], 403, "{told}");
}

/// "token expired during a watch": an API server does not ask again, so what runs goes on, and the next request is told.
#[test]
fn a_token_that_is_no_good_any_more_ends_no_watch() {
    let clusters = Clusters::start();
    let cluster = clusters.pleiades();
    let namespace = cluster.namespace("expired");
    let yard = start(plan(clusters));
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    alice.shell(&format!(
        "kubectl config use-context pleiades; kubens {namespace}; kubectl get pods -w --no-headers > seen & true"
    ));
    until("a watch", || alice.shell("cat seen").contains("web").then_some(()));
    let session = session(&yard, "alice");
    let issued = yard.audit().wait_for("SK4001I", |event| {
        let known = event["iam_roles"][0]["name"].as_str().is_some_and(|name| name.ends_with("/alice-kube"));
        known && event["session"]["uid"] == session
    });
    let key = issued["unmapped"]["access_key_id"].as_str().unwrap();
    control(clusters.variable("AWS_ENDPOINT_URL"), "POST", "expire", &json!({ "key": key }));
    // The API server believes for two seconds what it was told of a token.
    alice.shell("until ! kubectl get pods > /dev/null 2> why && grep -q 'does not know you' why; do sleep 0.2; done");
    assert!(alice.shell("cat why").contains("or your session's credentials were revoked"));
    cluster.apply(&in_namespace(&pod("later"), &namespace));
    until("what the watch sees", || alice.shell("cat seen").contains("later").then_some(()));
    assert!(
        yard.ssh("alice").run(&format!("kubectl --context pleiades -n {namespace} get pods")).ok().contains("later")
    );
}

fn in_namespace(pod: &str, namespace: &str) -> String {
    pod.replacen("\"metadata\": {", &format!("\"metadata\": {{\"namespace\": \"{namespace}\", "), 1)
}
