//! Servers that are away, wrong, or old.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use super::*;

/// An API server of another time: the lists of 1.25 and nothing in them. Below `/moved` it points elsewhere, below
/// `/odd` it talks nonsense.
const SERVER: &str = r#"
import http.server, json, ssl, sys
def resources(version, *names):
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": [
        {"name": name, "singularName": "", "namespaced": name != "nodes", "kind": "Kind", "verbs": ["get", "drain"]}
        for name in names]}
group = lambda name: {"name": name, "versions": [{"groupVersion": f"{name}/v1", "version": "v1"}],
                      "preferredVersion": {"groupVersion": f"{name}/v1", "version": "v1"}}
ANSWERS = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": resources("v1", "pods", "pods/exec", "nodes"),
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group("apps"), group("broken.test")]},
    "/apis/apps/v1": resources("apps/v1", "deployments"),
    "/apis/aggregated.test/v1": resources("aggregated.test/v1", "lakes"),
}
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        path = self.path.split("?")[0]
        status, body = 200, json.dumps(ANSWERS.get(path, {"metadata": {}, "items": None})).encode()
        if path.startswith("/apis/broken.test"):
            status, body = 503, b"service unavailable"
        if path.startswith("/moved"):
            status, body = 302, b""
        if path.startswith("/odd"):
            body = b"<html>"
        self.send_response(status)
        self.send_header("Location", "https://127.0.0.1:%d%s" % (server.server_port, path.removeprefix("/moved")))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:3])
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_port, flush=True)
server.serve_forever()
"#;

pub struct Server {
    process: Child,
    pub port: u16,
}

impl Server {
    /// With the certificate of a cluster's API server.
    pub fn start(cluster: Cluster) -> Self {
        let (certificate, key) = cluster.certificate("apiserver");
        let mut process = Command::new(Clusters::start().variable("BED_PYTHON"))
            .args(["-c", SERVER])
            .args([certificate, key])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, port: line.trim().parse().unwrap() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A fleet of one, with another address or authority than the kubeconfig says.
async fn at(endpoint: Option<String>, authority: Option<String>) -> Fleet {
    let hyades = Clusters::start().hyades();
    let file = KubeconfigEntry { file: "/the/wardens/own".into(), context: None };
    let taurus = StaticCluster { endpoint, authority, ..stated(TAURUS, StaticWay::Impersonate(file)) };
    let kube = Kube { clusters: vec![taurus], ..Kube::default() };
    let fleet = Fleet::new(&kube, &terms(Some(kubeconfig(hyades)), "default"), None, "a test");
    assert_eq!(fleet.clusters().await.unwrap(), [TAURUS]);
    fleet
}

async fn refused(endpoint: Option<String>, authority: Option<String>) -> Fault {
    at(endpoint, authority).await.read(TAURUS).await.unwrap_err()
}

#[tokio::test]
async fn a_server_that_is_away_or_another_is_a_fault() {
    let clusters = Clusters::start();
    let server = Server::start(clusters.hyades());
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let down = refused(Some(format!("https://{closed}")), None).await;
    assert_eq!((down.code.as_str(), down.transient), ("Unreachable", true), "{down}");

    let other = std::fs::read_to_string(clusters.pleiades().ca()).unwrap();
    let wrong = refused(None, Some(other)).await;
    assert_eq!(wrong.code, "Unreachable");
    assert!(wrong.message.contains("certificate"), "{wrong}");

    let at = |prefix: &str| Some(format!("https://127.0.0.1:{}{prefix}", server.port));
    let moved = refused(at("/moved"), None).await;
    assert_eq!((moved.code.as_str(), moved.transient), ("302", false), "it is not followed: {moved}");
    let odd = refused(at("/odd"), None).await;
    assert_eq!(odd.code, "Unreadable", "{odd}");
    assert!(!odd.message.contains("html"), "{odd}");

    // It takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let late = refused(Some(format!("https://{}", silent.local_addr().unwrap())), None).await;
    assert!(late.transient && ["Unreachable", "Timeout"].contains(&late.code.as_str()), "{late}");
}

#[tokio::test]
async fn who_is_not_let_in_is_told_so() {
    let hyades = Clusters::start().hyades();
    let (certificate, key) = hyades.certificate("alice");
    let text = std::fs::read_to_string(kubeconfig(hyades)).unwrap();
    let users = text.find("users:").unwrap();
    let packed = |path: PathBuf| STANDARD.encode(std::fs::read(path).unwrap());
    let proofs = [
        ("{token: nobodys}".to_owned(), "Unauthorized"),
        (
            format!("{{client-certificate-data: {}, client-key-data: {}}}", packed(certificate), packed(key)),
            "Forbidden",
        ),
    ];
    for (proof, code) in proofs {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{}users: [{{name: u, user: {proof}}}]\n", &text[..users])).unwrap();
        let way = StaticWay::Impersonate(KubeconfigEntry { file: "/the/wardens/own".into(), context: None });
        let kube = Kube { clusters: vec![stated(TAURUS, way)], ..Kube::default() };
        let fleet = Fleet::new(&kube, &terms(Some(file.path().to_owned()), "default"), None, "a test");
        fleet.clusters().await.unwrap();
        let refused = fleet.read(TAURUS).await.unwrap_err();
        assert_eq!((refused.code.as_str(), refused.transient), (code, false), "{refused}");
        // The credential is changed under a running daemon.
        std::fs::write(file.path(), &text).unwrap();
        fleet.clusters().await.unwrap();
        fleet.read(TAURUS).await.unwrap();
        std::fs::set_permissions(file.path(), Permissions::from_mode(0o640)).unwrap();
        fleet.clusters().await.unwrap();
        let refused = fleet.read(TAURUS).await.unwrap_err();
        assert!(refused.message.contains("can be read by others (mode 0640)"), "{refused}");
    }
}

/// What has no aggregated discovery is asked version by version; a group whose server is away is left out.
#[tokio::test]
async fn an_old_server_is_read_too() {
    let server = Server::start(Clusters::start().hyades());
    let fleet = at(Some(format!("https://127.0.0.1:{}", server.port)), None).await;
    let world = fleet.read(TAURUS).await.unwrap();
    let served: Vec<String> =
        world.served.iter().map(|s| format!("{}/{} {}", s.group, s.resource, s.namespaced)).collect();
    assert_eq!(served, ["/nodes false", "/pods true", "/pods/exec true", "apps/deployments true"]);
    assert!(world.namespaces.is_empty() && world.cluster_roles.is_empty());
}
