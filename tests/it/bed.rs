//! Issue item "A real test bed": that it is one. Real API servers ask the real aws-iam-authenticator, which asks AWS
//! about presigned tokens; a node runs exec, attach, logs, port-forward, cp and debug.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use stockade::access::eks::Entries;
use stockade::warden::clusters::Place;

use crate::access_aws;
use crate::aws::control;
use crate::yard::{Cluster, Clusters, Plugin, Terminal, spawn_with, until};

/// kubectl's own names for its two protocols.
const STREAMS: [&str; 2] = ["KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"];
const PROTOCOLS: [&str; 2] = ["true", "false"];

fn whoami(cluster: Cluster, kubeconfig: &Path) -> Value {
    let answer = cluster.run(kubeconfig, &["auth", "whoami", "-o", "json"]).ok();
    serde_json::from_str::<Value>(&answer).unwrap()["status"]["userInfo"].clone()
}

#[track_caller]
fn is_refused(cluster: Cluster, kubeconfig: &Path) {
    let answer = cluster.run(kubeconfig, &["auth", "whoami"]);
    assert!(answer.code == Some(1) && answer.stderr.contains("Unauthorized"), "{answer:?}");
}

#[test]
fn tokens_of_both_plugins_are_accepted() {
    let clusters = Clusters::start();
    for cluster in [clusters.hyades(), clusters.pleiades()] {
        for plugin in [Plugin::AwsCli, Plugin::Authenticator] {
            let user = whoami(cluster, &cluster.login("alice", plugin));
            assert_eq!(user["username"], "stockade:alice:s-alice", "{plugin:?} on {}", cluster.name);
            assert_eq!(user["extra"]["sessionName"][0], "s-alice");
            let groups = user["groups"].as_array().unwrap();
            assert!(groups.contains(&"stockade:platform-admins".into()), "{groups:?}");
        }
    }
    let bob = whoami(clusters.hyades(), &clusters.hyades().login("bob", Plugin::Authenticator));
    assert_eq!(bob["username"], "stockade:bob:s-bob");
}

/// It deletes what a former bed left, and nothing else.
#[test]
fn a_directory_of_somebody_elses_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("log")).unwrap();
    std::fs::write(place.path().join("log/mine"), "").unwrap();
    let mut start = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bed/start"));
    start.arg(place.path());
    let refused = spawn_with(start, None).wait();
    assert!(refused.code == Some(1) && refused.stderr.contains("was no bed's before"), "{refused:?}");
    assert!(place.path().join("log/mine").exists());
}

/// The role whose keys a jail has is on no cluster, and bob is on one of the two.
#[test]
fn a_role_without_an_access_entry_is_refused() {
    let clusters = Clusters::start();
    is_refused(clusters.hyades(), &clusters.hyades().login_with("alice", Plugin::Authenticator, "bastion"));
    is_refused(clusters.pleiades(), &clusters.pleiades().login("bob", Plugin::Authenticator));
}

#[test]
fn a_token_is_good_for_its_own_cluster() {
    let clusters = Clusters::start();
    let (hyades, pleiades) = (clusters.hyades(), clusters.pleiades());
    let token = hyades.token("alice");
    let anonymous = clusters.path("anonymous");
    std::fs::write(&anonymous, "{apiVersion: v1, kind: Config}").unwrap();
    let with = |cluster: Cluster, token: &str| {
        let ca = cluster.ca().display().to_string();
        let server = ["--server", cluster.endpoint(), "--certificate-authority", &ca, "--token", token];
        cluster.run(&anonymous, &[&server[..], &["auth", "whoami"]].concat())
    };
    assert!(with(hyades, &token).ok().contains("stockade:alice:s-alice"));
    let refused = with(pleiades, &token);
    assert!(refused.code == Some(1) && refused.stderr.contains("Unauthorized"), "{refused:?}");
    assert!(with(pleiades, &pleiades.token("alice")).ok().contains("stockade:alice:s-alice"));
    let broken = token.replacen("k8s-aws-v1.aHR0", "k8s-aws-v1.aHR1", 1);
    assert_ne!(broken, token);
    assert!(with(hyades, &broken).stderr.contains("Unauthorized"));
}

/// By a token that stockade signs with the key of an IAM user, which has no session.
#[tokio::test]
async fn access_may_write_rbac_and_read_no_secrets() {
    let clusters = Clusters::start();
    let access = Entries::new(access_aws::identity(&clusters.path("aws/access.env")).await);
    let anonymous = clusters.path("access.kubeconfig");
    std::fs::write(&anonymous, "{apiVersion: v1, kind: Config}").unwrap();
    for cluster in [clusters.hyades(), clusters.pleiades()] {
        let place = Place { role: None, region: cluster.region().into() };
        let token = access.token(&place, cluster.name).await.unwrap();
        let ca = cluster.ca().display().to_string();
        let server = ["--server", cluster.endpoint(), "--certificate-authority", &ca, "--token", token.expose()];
        let said = |ask: &[&str]| {
            let answer = cluster.run(&anonymous, &[&server[..], &["auth"], ask].concat());
            String::from_utf8(answer.stdout).unwrap()
        };
        assert!(said(&["whoami"]).contains("stockade-access"));
        assert_eq!(said(&["can-i", "escalate", "clusterroles.rbac.authorization.k8s.io"]).trim(), "yes");
        assert_eq!(said(&["can-i", "get", "secrets"]).trim(), "no");
    }
}

#[test]
fn access_entries_let_in_and_out() {
    let clusters = Clusters::start();
    let cluster = clusters.hyades();
    let dave = cluster.login("dave", Plugin::Authenticator);
    is_refused(cluster, &dave);
    let entry = "import boto3; eks = boto3.client('eks'); \
                 dave = {'clusterName': 'hyades', 'principalArn': 'arn:aws:iam::123456789012:role/stockade/kube/dave-kube'}; ";
    clusters.as_root(&format!("{entry} eks.create_access_entry(**dave, username='stockade:dave:{{{{SessionName}}}}')"));
    let known = || cluster.run(&dave, &["auth", "whoami"]).code == Some(0);
    until("dave on the cluster", || known().then_some(()));
    clusters.as_root(&format!("{entry} eks.delete_access_entry(**dave)"));
    until("dave off the cluster", || (!known()).then_some(()));
}

#[test]
fn aws_tells_of_both_clusters() {
    let clusters = Clusters::start();
    for (cluster, environment) in [(clusters.hyades(), "prod"), (clusters.pleiades(), "dev")] {
        let described = format!(
            "import boto3, json; eks = boto3.client('eks', region_name='{}'); \
             print(json.dumps(eks.describe_cluster(name='{}')['cluster'], default=str))",
            cluster.region(),
            cluster.name
        );
        let described: Value = serde_json::from_str(&clusters.as_bastion(&described)).unwrap();
        assert_eq!(described["endpoint"], cluster.endpoint());
        assert_eq!(described["tags"]["env"], environment);
        assert!(described["certificateAuthority"]["data"].as_str().unwrap().starts_with("LS0t"), "{described}");
    }
}

/// A test that needs other clusters adds them where nobody else looks.
#[test]
fn clusters_appear_and_vanish() {
    let clusters = Clusters::start();
    let list = || {
        let list = "import boto3; print(boto3.client('eks', region_name='us-west-2').list_clusters()['clusters'])";
        clusters.as_bastion(list)
    };
    assert_eq!(list(), "[]");
    let ca = clusters.hyades().ca().display().to_string();
    let one = json!({ "name": "third", "region": "us-west-2", "endpoint": "https://127.0.0.1:1", "ca": ca });
    let endpoint = clusters.variable("AWS_ENDPOINT_URL");
    control(endpoint, "POST", "eks", &json!({ "add": one }));
    assert_eq!(list(), "['third']");
    control(endpoint, "POST", "eks", &json!({ "remove": "third" }));
    assert_eq!(list(), "[]");
}

/// The bed's AWS decides by policies: the role's, and what a session policy leaves of them.
#[test]
fn policies_decide_what_a_role_may() {
    let lines = r#"
import boto3, json
from botocore.exceptions import ClientError
def read(user, bucket, **more):
    role = f"arn:aws:iam::123456789012:role/bastion/{user}"
    keys = boto3.client("sts").assume_role(RoleArn=role, RoleSessionName=f"s-{user}", SourceIdentity=user, **more)["Credentials"]
    s3 = boto3.client("s3", **{"aws_" + name: keys[key] for name, key in [
        ("access_key_id", "AccessKeyId"), ("secret_access_key", "SecretAccessKey"), ("session_token", "SessionToken")]})
    try:
        return s3.get_object(Bucket=bucket, Key="hello.txt")["Body"].read().decode().strip()
    except ClientError as refused:
        return refused.response["Error"]["Code"]
policy = lambda action: json.dumps({"Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]})
print(read("alice", "home-alice"), read("bob", "home-alice"), read("bob", "home-bob"), sep=", ")
print(read("alice", "home-alice", Policy=policy("s3:List*")), read("alice", "home-bob", Policy=policy("*")), sep=", ")
print(read("alice", "home-alice", Policy=policy("s3:Get*")))
"#;
    let said = Clusters::start().as_bastion(lines);
    assert_eq!(said, "hello alice, AccessDenied, hello bob\nAccessDenied, AccessDenied\nhello alice");
}

#[test]
fn rights_are_rbacs() {
    let cluster = Clusters::start().hyades();
    let (alice, bob) = (cluster.login("alice", Plugin::Authenticator), cluster.login("bob", Plugin::Authenticator));
    assert!(cluster.run(&bob, &["-n", "team-a", "get", "pods"]).ok().contains("web"));
    for refused in [&["-n", "team-b", "get", "pods"][..], &["-n", "team-a", "delete", "pod", "web"]] {
        let answer = cluster.run(&bob, refused);
        assert!(answer.code == Some(1) && answer.stderr.contains("Forbidden"), "{answer:?}");
    }
    assert!(cluster.run(&alice, &["-n", "team-b", "get", "pods"]).ok().contains("web"));
}

/// For clusters that do not know AWS: a certificate that may be anybody, and may do nothing as itself.
#[test]
fn the_bastions_certificate_impersonates_and_does_nothing_else() {
    let cluster = Clusters::start().pleiades();
    let (certificate, key) = cluster.certificate("impersonator");
    let kubeconfig = std::fs::read_to_string(cluster.admin()).unwrap();
    let (admin, admin_key) = cluster.certificate("admin");
    let swapped = kubeconfig
        .replace(admin.to_str().unwrap(), certificate.to_str().unwrap())
        .replace(admin_key.to_str().unwrap(), key.to_str().unwrap());
    let file = cluster.path("impersonator.kubeconfig");
    std::fs::write(&file, swapped).unwrap();
    let get = ["-n", "team-a", "get", "pods"];
    let own = cluster.run(&file, &get);
    assert!(own.code == Some(1) && own.stderr.contains("Forbidden"), "{own:?}");
    let erin = ["--as", "stockade:erin", "--as-group", "stockade:developers", "--as-user-extra", "session=s-erin"];
    assert!(cluster.run(&file, &[&erin[..], &get].concat()).ok().contains("web"));
    let masters = ["--as", "x", "--as-group", "system:masters"];
    let masters = cluster.run(&file, &[&masters[..], &["get", "nodes"]].concat());
    assert!(masters.code == Some(1) && masters.stderr.contains("Forbidden"), "{masters:?}");
}

#[test]
fn exec_has_an_exit_code_an_end_of_input_and_a_terminal() {
    let cluster = Clusters::start().hyades();
    let namespace = cluster.namespace("exec");
    let bob = cluster.login("bob", Plugin::Authenticator);
    for websockets in PROTOCOLS {
        let kubectl = |arguments: &[&str]| {
            let mut kubectl = cluster.kubectl(&bob, &[&["-n", &namespace, "exec"], arguments].concat());
            kubectl.envs(STREAMS.map(|name| (name, websockets)));
            kubectl
        };
        let exit = spawn_with(kubectl(&["web", "-c", "app", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]), None);
        let exit = exit.wait();
        assert_eq!((exit.code, exit.text().as_str()), (Some(7), "out"), "websockets: {websockets}");
        assert!(exit.stderr.starts_with("err\n"), "{}", exit.stderr);
        let count = spawn_with(kubectl(&["-i", "web", "-c", "app", "--", "wc", "-c"]), Some(vec![0; 1_000_000]));
        assert_eq!(count.wait().ok(), "1000000", "websockets: {websockets}");

        let shell = ["-n", &namespace, "exec", "-it", "web", "-c", "app", "--", "bash", "--norc"];
        let mut shell = Terminal::of(&cluster.kubectl_line(&bob, &shell), &STREAMS.map(|name| (name, websockets)));
        shell.prompt();
        shell.resize(111, 33);
        until("the new size", || (shell.shell("stty size") == "33 111").then_some(()));
        shell.enter("exit 9");
        assert_eq!(shell.end(), 9, "websockets: {websockets}");
    }
}

#[test]
fn ports_are_forwarded() {
    let cluster = Clusters::start().hyades();
    let bob = cluster.login("bob", Plugin::Authenticator);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!(":{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut heard = [0; 5];
            stream.read_exact(&mut heard).unwrap();
            stream.write_all(&heard).unwrap();
        }
    });
    for websockets in PROTOCOLS {
        let line = cluster.kubectl_line(&bob, &["-n", "team-a", "port-forward", "web", &port]);
        let mut forward = Terminal::of(&line, &STREAMS.map(|name| (name, websockets)));
        let at = forward.wait_for(r"Forwarding from (127\.0\.0\.1:\d+)").swap_remove(1);
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"hello", "websockets: {websockets}");
    }
}

#[test]
fn logs_are_read_and_containers_attached() {
    let cluster = Clusters::start().hyades();
    let namespace = cluster.namespace("logs");
    let bob = cluster.login("bob", Plugin::Authenticator);
    assert!(cluster.run(&bob, &["-n", &namespace, "logs", "web", "-c", "app"]).ok().starts_with("line 1\n"));
    let followed = ["-n", &namespace, "logs", "-f", "--tail=1", "web", "-c", "app"];
    let mut followed = Terminal::of(&cluster.kubectl_line(&bob, &followed), &[]);
    followed.wait_for(r"line \d+\r\nline \d+\r\nline \d+\r\n");
    for websockets in PROTOCOLS {
        let attach = ["-n", &namespace, "attach", "-it", "web", "-c", "shell"];
        let mut attached = Terminal::of(&cluster.kubectl_line(&bob, &attach), &STREAMS.map(|name| (name, websockets)));
        attached.wait_for("command prompt");
        attached.enter("");
        attached.prompt();
        assert_eq!(attached.shell("echo $((6 * 7))"), "42", "websockets: {websockets}");
    }
}

#[test]
fn files_are_copied_both_ways() {
    let cluster = Clusters::start().hyades();
    let namespace = cluster.namespace("copy");
    let bob = cluster.login("bob", Plugin::Authenticator);
    let directory = tempfile::tempdir().unwrap();
    let (there, back) = (directory.path().join("there"), directory.path().join("back"));
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&there, &bytes).unwrap();
    for [from, to] in [[there.to_str().unwrap(), "web:copied"], ["web:copied", back.to_str().unwrap()]] {
        cluster.run(&bob, &["-n", &namespace, "cp", "-c", "app", from, to]).ok();
    }
    assert!(std::fs::read(&back).unwrap() == bytes);
}

#[test]
fn a_debug_container_joins_a_pod() {
    let cluster = Clusters::start().hyades();
    let namespace = cluster.namespace("debug");
    let alice = cluster.login("alice", Plugin::Authenticator);
    for (websockets, container) in PROTOCOLS.into_iter().zip(["one", "two"]) {
        let debug =
            ["-n", &namespace, "debug", "web", "-it", "--image=none.invalid/tools", "-c", container, "--", "bash"];
        let mut debug = Terminal::of(&cluster.kubectl_line(&alice, &debug), &STREAMS.map(|name| (name, websockets)));
        debug.wait_for("command prompt");
        debug.enter("");
        debug.prompt();
        assert_eq!(debug.shell("echo $((6 * 7))"), "42", "websockets: {websockets}");
        debug.enter("exit 3");
        let status = format!(
            "jsonpath={{.status.ephemeralContainerStatuses[?(@.name=='{container}')].state.terminated.exitCode}}"
        );
        let code = || cluster.as_admin(&["-n", &namespace, "get", "pod", "web", "-o", &status]);
        until("the debug container's end", || (code() == "3").then_some(()));
    }
    let asked = cluster.audited(|event| {
        event["objectRef"]["subresource"] == "ephemeralcontainers"
            && event["objectRef"]["namespace"] == namespace.as_str()
    });
    assert_eq!(asked["requestObject"]["spec"]["ephemeralContainers"][0]["image"], "none.invalid/tools", "{asked}");
}

/// The session is in the cluster's audit and the person in AWS's trail, joined by the access key.
#[test]
fn audit_and_trail_name_the_session_and_the_person() {
    let clusters = Clusters::start();
    let cluster = clusters.hyades();
    let namespace = cluster.namespace("audit");
    let bob = cluster.login("bob", Plugin::Authenticator);
    cluster.run(&bob, &["-n", &namespace, "exec", "web", "-c", "app", "--", "echo", "seen"]).ok();
    let of = |stage: &str| {
        cluster.audited(|event| {
            let about = &event["objectRef"];
            about["subresource"] == "exec" && about["namespace"] == namespace.as_str() && event["stage"] == stage
        })
    };
    let (began, ended) = (of("ResponseStarted"), of("ResponseComplete"));
    assert_eq!(began["auditID"], ended["auditID"]);
    assert_eq!(ended["user"]["extra"]["sessionName"][0], "s-bob", "{ended}");
    assert!(ended["requestURI"].as_str().unwrap().contains("command=echo&command=seen"), "{ended}");
    let key = &ended["user"]["extra"]["accessKeyId"][0];
    let trail = clusters.trail();
    let checked = trail.iter().rfind(|line| line["key"] == *key && line["action"] == "GetCallerIdentity").unwrap();
    assert_eq!(checked["principal"], "arn:aws:sts::123456789012:assumed-role/bob-kube/s-bob");
    let assumed = |line: &&Value| line["action"] == "AssumeRole" && line["params"]["RoleSessionName"] == "s-bob";
    assert_eq!(trail.iter().rfind(assumed).unwrap()["params"]["SourceIdentity"], "bob");
}

#[test]
fn a_deployment_has_pods_and_a_namespace_goes() {
    let cluster = Clusters::start().pleiades();
    let namespace = cluster.namespace("gone");
    cluster.apply(&format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: d, namespace: {namespace}}}, spec: {{replicas: 2, \
         selector: {{matchLabels: {{app: d}}}}, template: {{metadata: {{labels: {{app: d}}}}, spec: {{nodeName: node-0, \
         containers: [{{name: c, image: none.invalid/c}}]}}}}}}}}"
    ));
    cluster.as_admin(&["-n", &namespace, "rollout", "status", "deployment/d", "--timeout", "20s"]);
    cluster.as_admin(&["delete", "namespace", &namespace, "--timeout", "50s"]);
}
