//! Issue 5, "Proof with real clients": those that are not the image's own kubectl, from a jail on a real cluster.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::kube::{plan, pod, start};
use crate::yard::{Cluster, Clusters, Yard};

struct Client {
    name: &'static str,
    /// Of `tests/kube-clients/build`'s.
    brought: &'static str,
    environment: &'static str,
}

const CLIENTS: &[Client] = &[
    Client {
        name: "kubectl 1.36, WebSocket",
        brought: "kubectl-1.28",
        environment: "KUBECTL=/usr/local/bin/kubectl KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true",
    },
    Client {
        name: "kubectl 1.36, SPDY",
        brought: "kubectl-1.28",
        environment: "KUBECTL=/usr/local/bin/kubectl KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false",
    },
    Client { name: "kubectl 1.28", brought: "kubectl-1.28", environment: "" },
    Client { name: "kubectl 1.20", brought: "kubectl-1.20", environment: "" },
    Client { name: "client-go, WebSocket", brought: "client-go", environment: "PROTOCOL=websocket" },
    Client { name: "client-go, SPDY", brought: "client-go", environment: "PROTOCOL=spdy" },
    Client { name: "Python", brought: "python", environment: "" },
    Client { name: "JavaScript", brought: "node", environment: "" },
];

/// What `tests/kube-clients/build` makes or finds in its cache.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kube-clients/build");
        let built = Command::new(build).stderr(Stdio::inherit()).output().unwrap();
        assert!(built.status.success(), "tests/kube-clients/build failed");
        String::from_utf8(built.stdout).unwrap().trim().into()
    })
}

/// Programs go into a home as everything does: through SSH.
fn bring(yard: &Yard, user: &str, names: &[&str]) {
    let packed = Command::new("tar").arg("-C").arg(built()).arg("-c").args(names).output().unwrap();
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    yard.ssh(user).input(packed.stdout).run("tar -x --no-same-owner").ok();
}

fn roomy(clusters: &Clusters) -> Yard {
    start(plan(clusters).config("jail = { home_size = '1GiB' }"))
}

/// "The matrix {tty, no tty} x {stdin, none} x {WebSocket v4, v5, SPDY} x {kubectl, client-go, Python, JavaScript}"
#[test]
fn every_client_executes_with_and_without_terminal_and_input() {
    let clusters = Clusters::start();
    let namespace = clusters.hyades().namespace("matrix");
    let yard = roomy(clusters);
    bring(&yard, "bob", &["kubectl-1.28", "kubectl-1.20", "client-go", "python", "node"]);
    let mut wrong = Vec::new();
    for Client { name, brought, environment } in CLIENTS {
        for (tty, stdin) in [("no-tty", "none"), ("no-tty", "stdin"), ("tty", "none"), ("tty", "stdin")] {
            let word = if stdin == "stdin" { "read x" } else { "x=none" };
            let line = format!(
                "exec env {environment} ~/{brought}/run {namespace} web app {tty} {stdin} \
                 sh -c '{word}; [ -t 1 ] && echo terminal-$x || echo pipe-$x; exit 3'"
            );
            let (code, said) = executed(&yard, &line, tty == "tty", stdin == "stdin");
            // kubectl asks for no terminal where it has no input.
            let terminal = tty == "tty" && (stdin == "stdin" || !brought.starts_with("kubectl"));
            let place = if terminal { "terminal" } else { "pipe" };
            let expected = format!("{place}-{}", if stdin == "stdin" { "word" } else { "none" });
            if code != Some(3) || !said.contains(&expected) {
                wrong.push(format!("{name}, {tty}, {stdin}: {code:?} {said}"));
            }
            let opened = yard.audit().of("SK5203I").pop().unwrap_or_default();
            let closed = yard.audit().wait_for("SK5204I", |event| event["api"]["request"] == opened["api"]["request"]);
            if closed["unmapped"]["exit"] != 3 || opened["unmapped"]["terminal"] != terminal {
                wrong.push(format!("{name}, {tty}, {stdin}: {opened} {closed}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(yard.audit().of("SK5203I").len(), CLIENTS.len() * 4);
}

fn executed(yard: &Yard, line: &str, terminal: bool, input: bool) -> (Option<i32>, String) {
    if !terminal {
        let ran = yard.ssh("bob").input(if input { "word\n" } else { "" }).run(line);
        return (ran.code, format!("{} {}", ran.text(), ran.stderr));
    }
    let mut terminal = yard.ssh("bob").terminal_of(line);
    if input {
        terminal.enter("word");
    }
    let code = terminal.end();
    (i32::try_from(code).ok(), String::from_utf8_lossy(&terminal.all()).into_owned())
}

/// "an older one by exact module version, and Debian's 1.20 (before WebSocket)"
#[test]
fn older_kubectls_do_their_work() {
    let clusters = Clusters::start();
    let cluster = clusters.hyades();
    let namespace = cluster.namespace("older");
    let yard = roomy(clusters);
    bring(&yard, "alice", &["kubectl-1.28", "kubectl-1.20"]);
    yard.ssh("alice").input(pod("written")).run("cat > pod.json").ok();
    for version in ["1.28", "1.20"] {
        let ran = yard.ssh("alice").run(&format!(
            "set -e; k() {{ ~/kubectl-{version}/kubectl -n {namespace} \"$@\"; }}; k get pods; k apply -f pod.json; \
             k wait --for=condition=Ready pod/written --timeout 20s; k logs --tail 1 web -c app; k cp -c app pod.json \
             web:there-{version}; k cp -c app web:there-{version} back; cmp pod.json back; k delete pod written --now"
        ));
        for word in ["web", "pod/written created", "line ", "\"written\" deleted"] {
            assert!(ran.ok().contains(word), "{version}: {word}: {ran:?}");
        }
        assert!(yard.ssh("alice").run("kubectl --context nowhere get pods").code == Some(1));
        let missing = format!("~/kubectl-{version}/kubectl --server http://127.0.0.1:6443/clusters/nowhere get pods");
        let missing = yard.ssh("alice").run(&missing);
        // 1.20 says of every refusal of its first question that there is no such resource type.
        let said = missing.stderr.contains(if version == "1.20" { "resource type" } else { "nowhere" });
        assert!(missing.code == Some(1) && said, "{version}: {missing:?}");
        gone(cluster, &namespace, "written");
    }
}

fn gone(cluster: Cluster, namespace: &str, name: &str) {
    crate::yard::until("a pod's end", || {
        (!cluster.as_admin(&["-n", namespace, "get", "pods", "-o", "name"]).contains(name)).then_some(())
    });
}

/// "client-go informer example"
#[test]
fn an_informer_hears_of_pods() {
    let clusters = Clusters::start();
    let cluster = clusters.hyades();
    let namespace = cluster.namespace("informer");
    let yard = roomy(clusters);
    bring(&yard, "bob", &["client-go"]);
    let mut informer = yard.ssh("bob").terminal_of(&format!("exec ~/client-go/client-go informer {namespace}"));
    informer.wait_for("added web");
    let manifest = pod("heard").replacen("{\"name\"", &format!("{{\"namespace\": \"{namespace}\", \"name\""), 1);
    cluster.apply(&manifest);
    informer.wait_for("added heard");
    cluster.as_admin(&["-n", &namespace, "delete", "pod", "heard", "--now"]);
    informer.wait_for("deleted heard");
}
