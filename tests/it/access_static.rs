//! Access without AWS: clusters of the file, groups of the file, and an API server that dies in the midst of the work.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::yard::{Cluster, Clusters, Output, STOCKADE, spawn_with, until, within};

/// No other test's: one of the API servers is killed here, and whole cycles remove what is of no group.
fn clusters() -> &'static Clusters {
    static CLUSTERS: OnceLock<Clusters> = OnceLock::new();
    CLUSTERS.get_or_init(|| Clusters::with(""))
}

/// `stockade access watch`.
pub struct Watch {
    process: Child,
    log: PathBuf,
}

impl Watch {
    /// By such a line; what it says goes into a file.
    pub fn start(mut line: Command, log: PathBuf) -> Self {
        line.stdin(Stdio::null()).stdout(Stdio::null());
        Self { process: line.stderr(File::create(&log).unwrap()).spawn().unwrap(), log }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// As systemd ends it.
    pub fn end(mut self) -> ExitStatus {
        assert!(Command::new("kill").arg(self.process.id().to_string()).status().unwrap().success());
        self.process.wait().unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `alcor` is an API server that knows nothing of AWS.
struct Scene {
    root: tempfile::TempDir,
    cluster: Cluster,
}

impl Scene {
    fn new(cluster: Cluster) -> Self {
        let scene = Self { root: tempfile::tempdir().unwrap(), cluster };
        let (certificate, key) = cluster.certificate("admin");
        let packed = |file: PathBuf| STANDARD.encode(std::fs::read(file).unwrap());
        let [ca, certificate, key] = [cluster.ca(), certificate, key].map(packed);
        let text = format!(
            "apiVersion: v1\nkind: Config\n\
             clusters: [{{name: c, cluster: {{server: '{}', certificate-authority-data: {ca}}}}}]\n\
             users: [{{name: u, user: {{client-certificate-data: {certificate}, client-key-data: {key}}}}}]\n\
             contexts: [{{name: alcor, context: {{cluster: c, user: u}}}}]\n",
            cluster.endpoint()
        );
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(scene.path("kubeconfig")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A namespace that has groups of its own for each name.
    fn namespaces(&self, names: &[String]) {
        let one = |name: &String| {
            format!(
                "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{stockade/access: 'yes'}}}}}}"
            )
        };
        self.cluster.apply(&names.iter().map(one).collect::<Vec<_>>().join("\n---\n"));
    }

    /// Groups as `[users]` has them, and more of `[rbac]`.
    fn configure(&self, groups: &str, rbac: &str) {
        let root = self.root.path().display();
        let text = format!(
            "[users]\ngroups = {groups}\n\
             [[kube.cluster]]\nname = 'alcor'\nway = 'impersonate'\nkubeconfig = '{root}/kubeconfig'\n\
             context = 'alcor'\n\
             [rbac]\nnamespaces = 'labelled'\nkubeconfig = '{root}/kubeconfig'\nstate = '{root}/state'\n\
             audit = '{root}/audit.jsonl'\n{rbac}\n"
        );
        std::fs::write(self.path("stockade.toml"), text).unwrap();
    }

    fn line(&self, verb: &str) -> Command {
        let mut access = Command::new(STOCKADE);
        access.args(["access", verb, "--config"]).arg(self.path("stockade.toml")).env_clear();
        access
    }

    #[track_caller]
    fn access(&self, verb: &str) -> Output {
        spawn_with(self.line(verb), None).wait()
    }

    fn count(&self, kind: &str) -> usize {
        let line = ["get", kind, "-A", "-o", "name", "-l", "app.kubernetes.io/managed-by=stockade-access"];
        self.cluster.as_admin(&line).lines().count()
    }
}

/// "Clusters without AWS: the same groups from a file ... bound to `impersonate` users: keep IAM behind one seam."
#[test]
fn without_aws_the_groups_of_the_file_are_access() {
    let scene = Scene::new(clusters().pleiades());
    let space = "access-file".to_owned();
    scene.namespaces(std::slice::from_ref(&space));
    let may = |verb: &str| {
        let line = ["auth", "can-i", verb, "pods", "-n", &space, "--as", "alice"];
        scene.cluster.run(&scene.cluster.admin(), &line).text() == "yes"
    };
    scene.configure(&format!("{{ 'k8s-user@alcor@{space}' = ['alice'] }}"), "");
    let planned = scene.access("plan");
    assert_eq!(planned.code, Some(2), "{}", planned.stderr);
    let text = planned.text();
    assert!(text.contains(&format!("RoleBinding {space}/k8s-user@alcor@{space}")) && !text.contains("IAM"), "{text}");
    assert!(!may("list"));
    scene.access("apply").ok();
    scene.access("plan").ok();
    assert!(may("list") && !may("delete"));
    let listed = scene.cluster.run(&scene.cluster.admin(), &["-n", &space, "get", "pods", "--as", "alice"]);
    assert_eq!(listed.code, Some(0), "{}", listed.stderr);

    scene.configure(&format!("{{ 'k8s-user@alcor@{space}' = [] }}"), "");
    scene.access("apply").ok();
    assert!(!may("list"));

    scene.configure("{}", "members = 'iam'");
    let refused = scene.access("plan");
    assert_eq!(refused.code, Some(78), "{}", refused.text());
    assert!(refused.stderr.contains("`members` of IAM without [aws]"), "{}", refused.stderr);
}

/// A program of the bed, as its own script started it.
struct Again(Child);

impl Again {
    /// Kills it as a machine dies.
    fn kill(name: &str) -> Vec<String> {
        let pids = std::fs::read_to_string(clusters().path("pids")).unwrap();
        let pid = pids.lines().find_map(|line| line.strip_suffix(&format!(" {name}"))).unwrap();
        let line = std::fs::read_to_string(Path::new("/proc").join(pid).join("cmdline")).unwrap();
        assert!(Command::new("kill").args(["-9", pid]).status().unwrap().success());
        until("its end", || (!Path::new("/proc").join(pid).join("exe").exists()).then_some(()));
        line.split_terminator('\0').map(str::to_owned).collect()
    }

    fn start(line: &[String]) -> Self {
        let quiet =
            |command: &mut Command| command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(quiet(Command::new(&line[0]).args(&line[1..])).unwrap())
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// "Fault test: API server ... dies between any two calls; the next cycle converges": a real one, in the midst of it.
#[test]
fn an_api_server_that_dies_in_the_midst_is_gone_on_with() {
    const SPACES: usize = 200;
    let scene = Scene::new(clusters().hyades());
    let spaces: Vec<String> = (0..SPACES).map(|n| format!("midst-{n}")).collect();
    scene.namespaces(&spaces);
    let groups: Vec<String> = spaces.iter().map(|space| format!("'k8s-user@alcor@{space}' = ['alice']")).collect();
    scene.configure(&format!("{{ {} }}", groups.join(", ")), "cycle = '10m'");
    let watch = Watch::start(scene.line("watch"), scene.path("log"));
    let made = || {
        let audit = std::fs::read_to_string(scene.cluster.path("audit.log")).unwrap_or_default();
        let is_one = |line: &&str| line.contains("\"verb\":\"create\"") && line.contains("midst-");
        audit.lines().filter(|line| is_one(line) && line.contains("\"resource\":\"roles\"")).count()
    };
    until("the midst of it", || (made() >= 30).then_some(()));
    let server = Again::kill("apiserver-hyades");
    until("a cycle that left something", || watch.log().contains("left for the next cycle").then_some(()));
    let _server = Again::start(&server);
    let is_up = || scene.cluster.run(&scene.cluster.admin(), &["get", "--raw", "/readyz"]).code == Some(0);
    until("the API server again", || is_up().then_some(()));
    let whole = || scene.count("roles") == 3 * SPACES && scene.count("rolebindings") == SPACES;
    // What it waits after so many failures is bounded.
    within(Duration::from_secs(120), || whole().then_some(())).expect("all of it");
    assert!(watch.end().success());
    scene.access("plan").ok();
}
