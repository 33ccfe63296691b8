use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use serde_json::Value;

use super::{Output, spawn_with, until, within};

/// The very first on a machine builds the clusters' programs; `tests/run` does that before.
const START: Duration = Duration::from_secs(1800);

/// Two real clusters, `hyades` and `pleiades`, with the AWS that lets people in: `tests/bed/start`. All tests of a run
/// share them, so each works in a namespace of its own, and nobody changes the mood of this AWS.
pub struct Clusters {
    run: PathBuf,
    environment: BTreeMap<String, String>,
    _script: Child,
    /// The script ends all of it when this is closed: with this process, however that ends.
    alive: Mutex<Option<ChildStdin>>,
}

/// Who signs the tokens of a login.
#[derive(Clone, Copy, Debug)]
pub enum Plugin {
    AwsCli,
    Authenticator,
}

impl Clusters {
    /// The clusters of this run; the first that asks starts them.
    pub fn start() -> &'static Self {
        static CLUSTERS: OnceLock<Clusters> = OnceLock::new();
        CLUSTERS.get_or_init(|| Self::with(""))
    }

    /// Others, whose API servers have these flags too. Whoever starts them ends them.
    pub fn with(flags: &str) -> Self {
        let run = tempfile::Builder::new().prefix("bed-").tempdir().unwrap().keep();
        let said = run.join("said");
        let log = File::create(&said).unwrap();
        let mut script = Command::new(script("start"))
            .arg("--end-with-stdin")
            .arg(&run)
            .env("BED_APISERVER_FLAGS", flags)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let alive = script.stdin.take().unwrap();
        let text = within(START, || {
            if let Some(status) = script.try_wait().unwrap() {
                panic!("the clusters ended with {status}: {}", std::fs::read_to_string(&said).unwrap());
            }
            std::fs::read_to_string(run.join("env")).ok()
        });
        let lines = text.expect("clusters that start in time");
        let lines = lines.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        let environment = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { run, environment, _script: script, alive: Mutex::new(Some(alive)) }
    }

    pub fn end(&self) {
        *self.alive.lock().unwrap() = None;
    }

    /// env=prod, team=platform; in us-east-1. Alice and bob are known.
    pub fn hyades(&'static self) -> Cluster {
        Cluster { all: self, name: "hyades" }
    }

    /// env=dev, team=platform; in eu-west-1. Alice is known, bob is not.
    pub fn pleiades(&'static self) -> Cluster {
        Cluster { all: self, name: "pleiades" }
    }

    pub fn variable(&self, name: &str) -> &str {
        &self.environment[name]
    }

    /// The bastion's environment: its AWS identity and where that AWS is.
    pub fn bastion(&self) -> BTreeMap<String, String> {
        self.identity("bastion")
    }

    /// That of `bastion` or `access`.
    pub fn identity(&self, of: &str) -> BTreeMap<String, String> {
        let text = std::fs::read_to_string(self.path(&format!("aws/{of}.env"))).unwrap();
        text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }

    /// `kubectl`, `aws-iam-authenticator`: the very programs that a jail has.
    pub fn program(&self, name: &str) -> PathBuf {
        Path::new(self.variable("BED_BIN")).join(name)
    }

    /// What AWS was asked, oldest first.
    pub fn trail(&self) -> Vec<Value> {
        json_lines(&self.path("trail.jsonl"))
    }

    /// Lines of Python as the owner of the account, with boto3 at hand.
    #[track_caller]
    pub fn as_root(&self, lines: &str) -> String {
        let keys = [("AWS_ACCESS_KEY_ID", "AKIAROOTOFTHEBED0000"), ("AWS_SECRET_ACCESS_KEY", "root-secret-of-the-bed")];
        self.python(lines, &keys.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }

    /// Likewise as the bastion's own user.
    #[track_caller]
    pub fn as_bastion(&self, lines: &str) -> String {
        self.python(lines, &self.bastion())
    }

    #[track_caller]
    fn python(&self, lines: &str, identity: &BTreeMap<String, String>) -> String {
        let mut python = Command::new(self.variable("BED_PYTHON"));
        python.args(["-c", lines]).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        for name in ["AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_EC2_METADATA_DISABLED"] {
            python.env(name, self.variable(name));
        }
        python.envs(identity);
        spawn_with(python, None).wait().ok()
    }
}

/// One of them.
#[derive(Clone, Copy)]
pub struct Cluster {
    all: &'static Clusters,
    pub name: &'static str,
}

impl Cluster {
    pub fn endpoint(&self) -> &'static str {
        self.all.variable(&format!("BED_{}", self.name.to_uppercase()))
    }

    pub fn region(&self) -> &'static str {
        self.all.variable(&format!("BED_{}_REGION", self.name.to_uppercase()))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.all.path(self.name).join(name)
    }

    pub fn ca(&self) -> PathBuf {
        self.path("pki/ca.crt")
    }

    /// The kubeconfig of who may do everything.
    pub fn admin(&self) -> PathBuf {
        self.path("admin.kubeconfig")
    }

    /// A client's certificate and key: `admin`, `impersonator`, `alice`, `front-proxy`.
    pub fn certificate(&self, client: &str) -> (PathBuf, PathBuf) {
        (self.path(&format!("pki/{client}.crt")), self.path(&format!("pki/{client}.key")))
    }

    /// A kubeconfig with which a user is here without a bastion.
    #[track_caller]
    pub fn login(&self, user: &str, plugin: Plugin) -> PathBuf {
        self.login_with(user, plugin, "kube")
    }

    /// By one of the user's two roles: `kube`, which the clusters know, or `bastion`.
    #[track_caller]
    pub fn login_with(&self, user: &str, plugin: Plugin, role: &str) -> PathBuf {
        let plugin = match plugin {
            Plugin::AwsCli => "aws",
            Plugin::Authenticator => "authenticator",
        };
        let mut login = Command::new(script("login"));
        login.arg(&self.all.run).args([user, self.name, plugin, role]).env("BED_SESSION", format!("s-{user}"));
        spawn_with(login, None).wait().ok().into()
    }

    /// A token for this cluster, as `aws-iam-authenticator token` makes it.
    #[track_caller]
    pub fn token(&self, user: &str) -> String {
        self.minted(user, Plugin::Authenticator).0
    }

    /// A token, and the environment that its maker had: the user's AWS keys.
    #[track_caller]
    pub fn minted(&self, user: &str, plugin: Plugin) -> (String, BTreeMap<String, String>) {
        let kubeconfig = std::fs::read_to_string(self.login(user, plugin)).unwrap();
        let words = |name: &str| kubeconfig.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap();
        let lines = kubeconfig.lines().filter_map(|line| line.trim().strip_prefix("- {name: "));
        let pairs = lines.filter_map(|line| line.trim_end_matches('}').split_once(", value: "));
        let environment: BTreeMap<String, String> =
            pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect();
        let mut mint = Command::new(words("command: "));
        mint.args(words("args: ").trim_matches(['[', ']']).split(", ")).env_clear().envs(&environment);
        mint.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let credential: Value = serde_json::from_str(&spawn_with(mint, None).wait().ok()).unwrap();
        (credential["status"]["token"].as_str().unwrap().to_owned(), environment)
    }

    pub fn kubectl_line(&self, kubeconfig: &Path, arguments: &[&str]) -> Vec<String> {
        let mut line = vec![self.all.program("kubectl").display().to_string()];
        line.extend(["--cache-dir".into(), self.all.path("discovery").display().to_string()]);
        line.extend(["--kubeconfig".into(), kubeconfig.display().to_string()]);
        line.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        line
    }

    pub fn kubectl(&self, kubeconfig: &Path, arguments: &[&str]) -> Command {
        let line = self.kubectl_line(kubeconfig, arguments);
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    #[track_caller]
    pub fn run(&self, kubeconfig: &Path, arguments: &[&str]) -> Output {
        spawn_with(self.kubectl(kubeconfig, arguments), None).wait()
    }

    #[track_caller]
    pub fn as_admin(&self, arguments: &[&str]) -> String {
        self.run(&self.admin(), arguments).ok()
    }

    #[track_caller]
    pub fn apply(&self, manifest: &str) {
        let apply = self.kubectl(&self.admin(), &["apply", "-f", "-"]);
        spawn_with(apply, Some(manifest.as_bytes().to_vec())).wait().ok();
    }

    /// A namespace for one test, with a pod `web` of two containers: `app` counts in its log, `shell` is bash on a
    /// terminal. Developers may read, exec, attach and forward in it.
    #[track_caller]
    pub fn namespace(&self, purpose: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("{purpose}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}\n---\n{}\n---\n{}",
            MANIFEST_OF_WEB.replace("NAMESPACE", &name),
            MANIFEST_OF_RIGHTS.replace("NAMESPACE", &name)
        ));
        self.as_admin(&["-n", &name, "wait", "--for=condition=Ready", "pod/web", "--timeout", "20s"]);
        name
    }

    /// The API server's audit events so far.
    pub fn audit(&self) -> Vec<Value> {
        json_lines(&self.path("audit.log"))
    }

    /// Waits for an audit event that is the right one.
    #[track_caller]
    pub fn audited(&self, right: impl Fn(&Value) -> bool) -> Value {
        until("the API server's audit event", || self.audit().into_iter().find(&right))
    }
}

const MANIFEST_OF_WEB: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: NAMESPACE, labels: {app: web}}
spec:
  nodeName: node-0
  containers:
    - name: app
      image: none.invalid/app
      command: [sh, -c, 'i=0; while :; do i=$((i+1)); echo "line $i"; sleep 0.2; done']
    - {name: shell, image: none.invalid/shell, command: [bash, --norc], stdin: true, tty: true}"#;

const MANIFEST_OF_RIGHTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: developers, namespace: NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: stockade-developer}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "stockade:developers"}]"#;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bed").join(name)
}

fn json_lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}
