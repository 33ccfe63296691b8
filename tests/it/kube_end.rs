//! Issue 5: what ends streams on clusters ("Session end and the first lock"), clusters that fail, and "Bad input" from a
//! jail to a whole bastion.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::kube::{bastion, plan, start};
use crate::yard::{Cluster, Clusters, STOCKADE, Terminal, Yard};

fn lock(yard: &Yard, target: &[&str]) {
    let file = yard.path("stockade.toml");
    let ran = Command::new(STOCKADE)
        .args(["lock", "--config"])
        .arg(file)
        .args(["add", "--reason", "a test"])
        .args(target)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// An event of the API server's for each of what `begin` began, by verb and subresource.
const BEGUN: [(&str, &str); 4] = [("watch", ""), ("get", "log"), ("get", "exec"), ("get", "portforward")];

/// In alice's jail: a watch, a log that is followed, an exec and a forwarded port. Their Audit-IDs.
#[track_caller]
fn begin(yard: &Yard, cluster: Cluster, namespace: &str) -> (Terminal, Vec<Value>) {
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    alice.shell(&format!(
        "kubectl config set-context --current --namespace {namespace}; (kubectl get pods -w & kubectl logs -f web -c app & \
         kubectl exec web -c app -- sleep 1000 & kubectl port-forward web 7000:1 &) > /dev/null 2>&1"
    ));
    let ids =
        BEGUN.map(|what| cluster.audited(|event| is(event, namespace, what, "ResponseStarted"))["auditID"].clone());
    (alice, ids.to_vec())
}

fn is(event: &Value, namespace: &str, (verb, subresource): (&str, &str), stage: &str) -> bool {
    let about = &event["objectRef"];
    about["namespace"] == namespace
        && about["resource"] == "pods"
        && about["subresource"].as_str().unwrap_or_default() == subresource
        && event["verb"] == verb
        && event["stage"] == stage
        && event["user"]["username"].as_str().is_some_and(|user| user.starts_with("stockade:alice:"))
}

/// "a killed or expired session ends its streams within a second"; "`stockade lock add` ... for a user or session"
#[test]
fn a_session_that_ends_takes_its_streams_with_it() {
    let clusters = Clusters::start();
    let cluster = clusters.hyades();
    let yard = bastion(clusters);
    type End = fn(&Yard, &mut Terminal, &str);
    let ends: [(&str, End); 4] = [
        ("exit", |_, alice, _| alice.enter("exit")),
        ("connection", |_, alice, _| alice.kill()),
        ("session", |yard, _, session| lock(yard, &["--session", session])),
        ("user", |yard, _, _| lock(yard, &["--user", "alice"])),
    ];
    for (name, end) in ends {
        let namespace = cluster.namespace(name);
        let (mut alice, ids) = begin(&yard, cluster, &namespace);
        let exec = yard.audit().wait_for("SK5203I", |event| event["unmapped"]["namespace"] == *namespace);
        let session = exec["session"]["uid"].as_str().unwrap();
        end(&yard, &mut alice, session);
        for id in ids {
            cluster.audited(|event| event["auditID"] == id && event["stage"] != "ResponseStarted");
            yard.audit().wait_for("SK5201I", |event| {
                let kubernetes = &event["unmapped"]["kubernetes"];
                kubernetes["auditID"] == id && kubernetes["stage"] != "ResponseStarted"
            });
        }
        let closed = yard.audit().wait_for("SK5204I", |event| event["session"]["uid"] == *session);
        assert_eq!(closed["api"]["request"]["uid"], exec["api"]["request"]["uid"], "{name}");
    }
}

/// The way to an API server, which can be cut.
struct Way {
    address: SocketAddr,
    open: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    fn to(endpoint: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (open, streams) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(Vec::new())));
        let (is_open, into) = (open.clone(), streams.clone());
        std::thread::spawn(move || {
            for one in listener.incoming().flatten() {
                if !is_open.load(Ordering::SeqCst) {
                    continue;
                }
                let other = TcpStream::connect(endpoint.trim_start_matches("https://")).unwrap();
                into.lock().unwrap().extend([one.try_clone().unwrap(), other.try_clone().unwrap()]);
                for (from, to) in [(one.try_clone(), other.try_clone()), (Ok(other), Ok(one))] {
                    std::thread::spawn(move || carry(from.unwrap(), to.unwrap()));
                }
            }
        });
        Self { address, open, streams }
    }

    fn cut(&self) {
        self.open.store(false, Ordering::SeqCst);
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16384];
    while let Ok(got @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..got]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// The bastion's own certificate on a cluster, for whoever is there at an address and proves to be of an authority.
pub fn impersonator(file: &Path, cluster: Cluster, endpoint: &str, authority: &[u8]) {
    credential(file, cluster.certificate("impersonator"), endpoint, authority);
}

/// A kubeconfig that shows a client's certificate.
pub fn credential(file: &Path, (certificate, key): (PathBuf, PathBuf), endpoint: &str, authority: &[u8]) {
    let inline = |bytes: &[u8]| STANDARD.encode(bytes);
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: '{endpoint}', certificate-authority-data: {}}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         users: [{{name: u, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\n",
        inline(authority),
        inline(&std::fs::read(certificate).unwrap()),
        inline(&std::fs::read(key).unwrap())
    );
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A cluster without AWS knows people and groups by the bastion's own names for them.
const MANIFEST_OF_PLAIN_GROUPS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: plain-NAMESPACE}
rules:
  - apiGroups: [""]
    resources: [groups]
    verbs: [impersonate]
    resourceNames: [platform-admins, developers, on-call]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: plain-NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: plain-NAMESPACE}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "stockade:bastion"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: admins-NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: platform-admins}]"#;

/// "API server restarts", "a wrong certificate"; and `impersonate`, "for clusters without AWS".
#[test]
fn a_cluster_that_fails_is_named_and_found_again() {
    let clusters = Clusters::start();
    let cluster = clusters.pleiades();
    let namespace = cluster.namespace("restart");
    cluster.apply(&MANIFEST_OF_PLAIN_GROUPS.replace("NAMESPACE", &namespace));
    let way = Way::to(cluster.endpoint());
    let plan = plan(clusters);
    let (taurus, imposter) = (plan.path("taurus"), plan.path("imposter"));
    let endpoint = format!("https://{}", way.address);
    impersonator(&taurus, cluster, &endpoint, &std::fs::read(cluster.ca()).unwrap());
    let other = std::fs::read(clusters.hyades().ca()).unwrap();
    impersonator(&imposter, cluster, &endpoint, &other);
    let entry = |name: &str, file: &Path| {
        format!("{{ name = '{name}', way = 'impersonate', kubeconfig = '{}' }}", file.display())
    };
    let settings = format!("kube.cluster = [{}, {}]", entry("taurus", &taurus), entry("imposter", &imposter));
    let yard = start(plan.config(&settings));

    let refused = yard.ssh("alice").run("kubectl --context imposter get pods");
    assert!(refused.code == Some(1) && refused.stderr.contains("certificate"), "{refused:?}");

    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    alice.shell(&format!("kubectl config use-context taurus; kubens {namespace}"));
    let me =
        alice.shell("kubectl auth whoami -o jsonpath='{.status.userInfo.username} {.status.userInfo.groups}{\"\\n\"}'");
    assert!(me.starts_with("alice [") && me.contains("\"platform-admins\""), "{me}");
    let mut watcher = yard.ssh("alice").terminal();
    watcher.prompt();
    watcher.enter("kubectl get pods -w --no-headers; echo ended-$?");
    watcher.wait_for("web .*Running");
    way.cut();
    watcher.wait_for(r"ended-\d");
    let said = alice.shell("kubectl get pods; echo $?");
    assert!(said.ends_with('1') && said.contains("taurus"), "{said}");
    assert!(!said.contains("panic"), "{said}");
    way.mend();
    assert!(alice.shell("kubectl get pods").contains("web"), "the next request works");
}

/// "Bad input": each is answered with a no, and no API server hears of it.
#[test]
fn bad_input_from_a_jail_reaches_no_cluster() {
    let clusters = Clusters::start();
    let yard = bastion(clusters);
    let mut bob = yard.ssh("bob").terminal();
    bob.prompt();
    let mut wrong = Vec::new();
    let marked = |target: &str| target.replace("MARK", "configmaps/marked-as-bad");
    for (arguments, expected) in [
        ("http://127.0.0.1:6443/clusters/hyades/../pleiades/api/v1/MARK", "400"),
        ("http://127.0.0.1:6443/clusters/hyades/api/v1/../../../pleiades/api/v1/MARK", "400"),
        ("http://127.0.0.1:6443/clusters/hyades/api%2F..%2F..%2Fpleiades/api/v1/MARK", "400"),
        ("http://127.0.0.1:6443/clusters/hyades%2Fapi/v1/MARK", "404"),
        ("http://127.0.0.1:6443/clusters/%2e%2e/pleiades/MARK", "404"),
        ("http://127.0.0.1:6443/clusters/hyades/clusters/pleiades/api/v1/MARK", "400"),
        ("http://127.0.0.1:6443//clusters/hyades/api/v1/MARK", "404"),
        ("http://127.0.0.1:6443/clusters//hyades/api/v1/MARK", "404"),
        ("http://127.0.0.1:6443/api/v1/MARK", "404"),
        ("-H 'Host: evil.example' http://127.0.0.1:6443/clusters/hyades/api/v1/MARK", "403"),
        ("-H 'Origin: http://evil.example' http://127.0.0.1:6443/clusters/hyades/api/v1/MARK", "403"),
        ("--request-target http://evil.example/clusters/hyades/api/v1/MARK http://127.0.0.1:6443/", "400|403"),
        ("--request-target https://10.0.0.1/api/v1/MARK http://127.0.0.1:6443/", "400|403|404"),
        (
            "-H \"X-Long: $(head -c 100000 /dev/zero | tr '\\0' a)\" http://127.0.0.1:6443/clusters/hyades/api/v1/MARK",
            "431",
        ),
        (
            "-d body -H 'Connection: Upgrade' -H 'Upgrade: SPDY/3.1' -H 'X-Stream-Protocol-Version: v4.channel.k8s.io' \
             'http://127.0.0.1:6443/clusters/hyades/api/v1/namespaces/marked-as-bad/pods/web/exec?command=true'",
            "400",
        ),
        (
            "-H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: \
             AAAAAAAAAAAAAAAAAAAAAA==' -H 'Sec-WebSocket-Protocol: v5.channel.k8s.io' \
             http://127.0.0.1:6443/clusters/hyades/api/v1/MARK",
            "400",
        ),
    ] {
        let line = format!("curl -s -m 10 --path-as-is -o /dev/null -w '%{{http_code}}\\n' {}", marked(arguments));
        let got = yard.ssh("bob").run(&line).text();
        if !expected.split('|').any(|code| code == got) {
            wrong.push(format!("{arguments}: {got} and not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let head = marked("POST /clusters/hyades/api/v1/MARK HTTP/1.1\\r\\nHost: 127.0.0.1:6443\\r\\n");
    for framing in [
        "Content-Length: 5\\r\\nContent-Length: 6\\r\\n\\r\\nhello!",
        "Transfer-Encoding: chunked, identity\\r\\n\\r\\n0\\r\\n\\r\\n",
        "Transfer-Encoding : chunked\\r\\n\\r\\n0\\r\\n\\r\\n",
        "X: a\\r\\n folded\\r\\n\\r\\n",
    ] {
        let said = bob
            // The door may have answered and closed before all is said.
            .shell(&format!("exec 3<>/dev/tcp/127.0.0.1/6443; (printf '{head}{framing}' >&3); timeout 10 head -1 <&3"));
        assert!(said.starts_with("HTTP/1.1 400"), "{framing}: {said}");
    }
    assert_eq!(bob.shell("kubectl -n team-a get pods -o name"), "pod/web");
    for cluster in [clusters.hyades(), clusters.pleiades()] {
        let heard = std::fs::read_to_string(cluster.path("audit.log")).unwrap();
        assert!(!heard.contains("marked-as-bad"), "{}", cluster.name);
    }
}
