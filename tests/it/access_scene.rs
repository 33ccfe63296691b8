//! IAM of a bed, and a real API server that no other test uses: the cluster has a name of its own in each test, access
//! makes groups for one namespace of it, and what is made goes with the test.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::aws::Bed;
use crate::yard::{Cluster, Clusters};

pub struct Scene {
    pub bed: Bed,
    pub root: tempfile::TempDir,
    cluster: Cluster,
    _alone: MutexGuard<'static, ()>,
    /// What the API server of hyades is called here.
    name: &'static str,
}

impl Scene {
    pub fn start(name: &'static str, rbac: &str) -> Self {
        // Whole cycles remove what carries access' mark and is of no group: other tests' objects, too.
        static CLUSTERS: OnceLock<Clusters> = OnceLock::new();
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (bed, cluster) = (Bed::start(), CLUSTERS.get_or_init(|| Clusters::with("")).hyades());
        let root = tempfile::tempdir().unwrap();
        let scene = Self { bed, root, cluster, _alone: alone, name };
        cluster.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {}, labels: {{access-test: {}}}}}}}",
            scene.space(),
            scene.name
        ));
        scene.private("kubeconfig", &scene.kubeconfig());
        scene.private("stockade.toml", &scene.configuration(rbac));
        scene
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn space(&self) -> String {
        format!("access-{}", self.name)
    }

    /// The group of a level in the namespace.
    pub fn group(&self, level: &str) -> String {
        format!("k8s-{level}@{}@{}", self.name, self.space())
    }

    /// The owner of the bed's account.
    pub async fn iam(&self) -> aws_sdk_iam::Client {
        self.bed.owner().await
    }

    pub async fn join(&self, user: &str, level: &str) {
        self.iam().await.add_user_to_group().group_name(self.group(level)).user_name(user).send().await.unwrap();
    }

    pub async fn leave(&self, user: &str, level: &str) {
        self.iam().await.remove_user_from_group().group_name(self.group(level)).user_name(user).send().await.unwrap();
    }

    /// Users whom the binding of a level in the namespace names.
    pub fn bound(&self, level: &str) -> Vec<String> {
        let (space, name) = (self.space(), self.group(level));
        let found = self.cluster.run(&self.cluster.admin(), &["-n", &space, "get", "rolebinding", &name, "-o", "json"]);
        if found.code != Some(0) {
            return Vec::new();
        }
        let binding: Value = serde_json::from_str(&found.ok()).unwrap();
        let subjects = binding["subjects"].as_array().cloned().unwrap_or_default();
        subjects.iter().map(|subject| subject["name"].as_str().unwrap().to_owned()).collect()
    }

    fn private(&self, name: &str, text: &str) {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn kubeconfig(&self) -> String {
        let (certificate, key) = self.cluster.certificate("admin");
        let packed = |file: PathBuf| STANDARD.encode(std::fs::read(file).unwrap());
        let [ca, certificate, key] = [self.cluster.ca(), certificate, key].map(packed);
        format!(
            "apiVersion: v1\nkind: Config\n\
             clusters: [{{name: c, cluster: {{server: '{}', certificate-authority-data: {ca}}}}}]\n\
             users: [{{name: u, user: {{client-certificate-data: {certificate}, client-key-data: {key}}}}}]\n\
             contexts: [{{name: {}, context: {{cluster: c, user: u}}}}]\n",
            self.cluster.endpoint(),
            self.name
        )
    }

    fn configuration(&self, rbac: &str) -> String {
        let (root, name, space) = (self.root.path().display(), self.name, self.space());
        format!(
            r#"
[aws]
region = "us-east-1"
role = "arn:aws:iam::123456789012:role/bastion/{{user}}-{name}"

[kube]
role = "arn:aws:iam::123456789012:role/stockade/kube/{{user}}-{name}-kube"

[[kube.cluster]]
name = "{name}"
way = "impersonate"
kubeconfig = "{root}/kubeconfig"
context = "{name}"

[rbac]
bastion = ["arn:aws:iam::123456789012:user/stockade-bastion"]
boundary = "arn:aws:iam::123456789012:policy/stockade-boundary"
namespaces = "labelled"
namespace_label = "access-test={name}"
lease_namespace = "{space}"
kubeconfig = "{root}/kubeconfig"
state = "{root}/state"
audit = "{root}/audit.jsonl"
{rbac}
"#
        )
    }
}

impl Drop for Scene {
    /// At once, so that the next one's cycles find nothing.
    fn drop(&mut self) {
        let delete = |what: &[&str]| {
            let line = [&["delete", "--ignore-not-found", "--wait=false"], what].concat();
            drop(self.cluster.kubectl(&self.cluster.admin(), &line).output());
        };
        let roles = ["admin", "poweruser", "user"].map(|level| format!("k8s-{level}@{}", self.name));
        let spaces = roles.iter().map(|role| format!("{role}:namespaces"));
        let all: Vec<String> = roles.iter().cloned().chain(spaces).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        delete(&[&["clusterrole"], &all[..]].concat());
        delete(&["-n", &self.space(), "role,rolebinding", "--all"]);
        delete(&["namespace", &self.space()]);
    }
}
