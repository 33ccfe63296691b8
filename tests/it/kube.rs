//! Issue 5, "Proof with real clients": the jail's own kubectl through the kube door, on real clusters. Streams are in
//! `kube_streams`, what is written down in `kube_audit`.

use std::time::Duration;

use crate::yard::{Clusters, Plan, Yard, until};

/// A bastion that finds both clusters: alice is of the platform's admins and may use each, bob hyades alone.
pub fn plan(clusters: &Clusters) -> Plan {
    let mut plan = Yard::new().user("alice").user("bob").config(
        "aws.region = 'us-east-1'\naws.role = 'arn:aws:iam::123456789012:role/bastion/{user}'\n\
         [jail]\nhome_size = '256MiB'\n\
         [kube]\nrole = 'arn:aws:iam::123456789012:role/stockade/kube/{user}-kube'\n\
         discover = [{ regions = ['us-east-1', 'eu-west-1'] }]\n\
         allow = [{ groups = ['platform-admins'] }, { groups = ['developers'], clusters = ['hyades'] }]\n",
    );
    for (name, value) in clusters.bastion() {
        plan = plan.env(&name, &value);
    }
    plan.env("AWS_EC2_METADATA_DISABLED", "true")
}

/// Starts it and waits for the clusters.
#[track_caller]
pub fn start(plan: Plan) -> Yard {
    let yard = plan.start();
    for cluster in ["hyades", "pleiades"] {
        yard.audit().wait_for("SK4101I", |event| event["unmapped"]["cluster"] == cluster);
    }
    yard
}

#[track_caller]
pub fn bastion(clusters: &Clusters) -> Yard {
    start(plan(clusters))
}

/// The session of the only login of a user so far.
#[track_caller]
pub fn session(yard: &Yard, user: &str) -> String {
    let began = yard.audit().wait_for("SK2001I", |event| event["actor"]["user"]["name"] == user);
    began["session"]["uid"].as_str().unwrap().to_owned()
}

/// A pod of one container that sleeps, as a person writes it.
pub fn pod(name: &str) -> String {
    format!(
        "{{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {{\"name\": \"{name}\"}}, \"spec\": \
         {{\"nodeName\": \"node-0\", \"containers\": [{{\"name\": \"app\", \"image\": \"none.invalid/{name}\", \
         \"command\": [\"sleep\", \"1000\"]}}]}}}}"
    )
}

/// "an engineer logs in and `kubectl get pods` ... just work on each cluster they may use, without a login ritual, an
/// exec plugin in the jail or a secret on disk"
#[test]
fn kubectl_just_works_on_each_cluster() {
    let clusters = Clusters::start();
    let yard = bastion(clusters);
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    assert_eq!(alice.shell("kubectl config get-contexts -o name"), "hyades\npleiades");
    assert_eq!(alice.shell("kubectl -n team-a get pods -o name"), "pod/web");
    assert_eq!(alice.shell("kubectl --context pleiades -n team-b get pods -o name"), "pod/web");
    let me = format!("stockade:alice:{}", session(&yard, "alice"));
    for cluster in ["hyades", "pleiades"] {
        let asked =
            format!("kubectl --context {cluster} auth whoami -o jsonpath='{{.status.userInfo.username}}{{\"\\n\"}}'");
        assert_eq!(alice.shell(&asked), me, "{cluster}");
    }
    let secret = "grep -rlE 'k8s-aws-v1|client-key|X-Amz-Signature|token:' ~ /tmp 2>/dev/null | grep -v history; true";
    assert_eq!(alice.shell(secret), "");
}

#[test]
fn kubectl_writes_watches_and_follows() {
    let clusters = Clusters::start();
    let cluster = clusters.pleiades();
    let namespace = cluster.namespace("writes");
    let yard = bastion(clusters);
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    alice.shell(&format!("kubectl config use-context pleiades; kubens {namespace}"));
    let mut watcher = yard.ssh("alice").terminal();
    watcher.prompt();
    watcher.enter("kubectl get pods --watch --no-headers -o custom-columns=N:.metadata.name,P:.status.phase");
    watcher.wait_for(r"web +Running");
    alice.shell(&format!("echo '{}' > pod.json", pod("written")));
    assert_eq!(alice.shell("kubectl apply -f pod.json"), "pod/written created");
    watcher.wait_for(r"written +Running");
    assert_eq!(alice.shell("kubectl apply -f pod.json"), "pod/written unchanged");
    alice.shell("kubectl label pod written colour=blue");
    assert_eq!(cluster.as_admin(&["-n", &namespace, "get", "pods", "-l", "colour=blue", "-o", "name"]), "pod/written");
    assert!(alice.shell("kubectl describe pod written").contains("none.invalid/written"));
    assert_eq!(
        alice.shell("kubectl delete pod written --now"),
        "pod \"written\" deleted from writes namespace".replace("writes", &namespace)
    );
    let mut follower = yard.ssh("alice").terminal_of("kubectl logs -f --tail=1 web -c app");
    follower.wait_for(r"line \d+\r\nline \d+\r\nline \d+\r\n");
    follower.type_text("\u{3}");
    assert_ne!(follower.end(), 0);
    assert!(watcher.is_running());
}

/// "cluster unknown or not allowed (same answer)"
#[test]
fn a_missing_and_a_forbidden_cluster_are_the_same() {
    let clusters = Clusters::start();
    let yard = bastion(clusters);
    assert_eq!(yard.ssh("bob").run("kubectl config get-contexts -o name").ok(), "hyades");
    assert_eq!(yard.ssh("bob").run("kubectl -n team-a get pods -o name").ok(), "pod/web");
    let refused = |cluster: &str| {
        ["get pods", "auth whoami", "-n team-a exec web -- true", "version", "get --raw /api/v1/pods"].map(|asked| {
            let line = format!("kubectl --server http://127.0.0.1:6443/clusters/{cluster} {asked}");
            let ran = yard.ssh("bob").run(&line);
            assert_ne!(ran.code, Some(0), "{line}: {ran:?}");
            (ran.code, ran.text().replace(cluster, "CLUSTER"), words(&ran.stderr).replace(cluster, "CLUSTER"))
        })
    };
    let (forbidden, missing) = (refused("pleiades"), refused("nowhere"));
    assert_eq!(forbidden, missing);
    assert!(forbidden[0].2.contains("CLUSTER"), "{forbidden:?}");
    // What RBAC refuses is RBAC's to say.
    let ran = yard.ssh("bob").run("kubectl -n team-b get pods");
    assert!(ran.code == Some(1) && ran.stderr.contains("Forbidden") && ran.stderr.contains("stockade:bob:"), "{ran:?}");
}

/// Without the times and places that kubectl puts before what it logs.
fn words(stderr: &str) -> String {
    let log = regex::Regex::new(r"(?m)^[EIW]\d{4} \S+ +\d+ \S+\] ").unwrap();
    log.replace_all(stderr, "").into_owned()
}

/// "two users asking for the same cluster at once never share an identity on a pooled connection"
#[test]
fn two_users_at_once_never_share_an_identity() {
    let clusters = Clusters::start();
    let yard = bastion(clusters);
    // One file each: kubectl ends its line by a write of its own.
    let asked = "cd $(mktemp -dp ~); for i in $(seq 25); do \
                 kubectl auth whoami -o jsonpath='{.status.userInfo.username}{\"\\n\"}' > $i & \
                 [ $((i % 5)) = 0 ] && wait; done; wait; cat *";
    let running = ["alice", "bob", "alice", "bob"].map(|user| (user, yard.ssh(user).begin(asked)));
    for (user, client) in running {
        // A hundred starts of kubectl.
        let said = client.wait_at_most(Duration::from_secs(240)).ok();
        let names: Vec<&str> = said.lines().collect();
        assert_eq!(names.len(), 25, "{said}");
        let own = format!("stockade:{user}:");
        assert!(names.iter().all(|name| name.starts_with(&own) && *name == names[0]), "{said}");
    }
}

/// "200 concurrent watches"
#[test]
fn two_hundred_watches_at_once() {
    let clusters = Clusters::start();
    let cluster = clusters.hyades();
    let namespace = cluster.namespace("watches");
    let yard = bastion(clusters);
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    let watch = format!("http://127.0.0.1:6443/clusters/hyades/api/v1/namespaces/{namespace}/pods?watch=1");
    alice.shell(&format!(
        "mkdir w; for i in $(seq 200); do echo \"url = {watch}\"; echo \"output = w/$i\"; done > urls; \
         {{ curl -sN --parallel --parallel-immediate --parallel-max 200 -K urls 2> said & }}"
    ));
    let count = |alice: &mut crate::yard::Terminal, word: &str| {
        alice.shell(&format!("grep -l '{word}' w/* 2>/dev/null | wc -l"))
    };
    until("200 watches that have begun", || (count(&mut alice, "ADDED") == "200").then_some(()));
    cluster.as_admin(&["-n", &namespace, "label", "pod", "web", "seen=by-all"]);
    until("200 watches that see a change", || (count(&mut alice, "by-all") == "200").then_some(()));
}
