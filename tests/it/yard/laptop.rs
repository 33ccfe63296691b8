use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Clusters, Output, Plan, Yard, spawn_with};

/// A user's laptop: it reaches the bastion alone, and has kubectl, ssh and a key.
pub struct Laptop {
    home: PathBuf,
    kubectl: PathBuf,
}

impl Laptop {
    /// With the kubeconfig that this bastion gives to the user.
    #[track_caller]
    pub fn of(yard: &Yard, user: &str) -> Self {
        let home = yard.path(&format!("laptop-{user}"));
        std::fs::create_dir_all(home.join("bin")).unwrap();
        let laptop = Self { kubectl: Clusters::start().program("kubectl"), home };
        let settings = format!(
            "IdentityFile {}\nUserKnownHostsFile {}\nGlobalKnownHostsFile /dev/null\nStrictHostKeyChecking yes\n\
             IdentitiesOnly yes\nBatchMode yes\n",
            yard.path(user).display(),
            yard.path("known_hosts").display()
        );
        std::fs::write(laptop.home.join("ssh_config"), settings).unwrap();
        // ssh takes its user's directory from the accounts of the machine, whatever HOME says.
        let ssh = format!("#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n", laptop.home.join("ssh_config").display());
        std::fs::write(laptop.home.join("bin/ssh"), ssh).unwrap();
        std::fs::set_permissions(laptop.home.join("bin/ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let kubeconfig = yard.ssh(user).run("stockade kubeconfig").ok();
        std::fs::write(laptop.kubeconfig(), kubeconfig).unwrap();
        laptop
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.home.join("kubeconfig")
    }

    /// What stands for ssh here.
    pub fn ssh(&self) -> PathBuf {
        self.home.join("bin/ssh")
    }

    pub fn line(&self, cluster: &str, arguments: &[&str]) -> Vec<String> {
        let path = |name: &str| self.home.join(name).display().to_string();
        let mut line = vec!["env".into(), "-i".into(), format!("HOME={}", self.home.display())];
        let search = std::env::var("PATH").unwrap_or_default();
        line.push(format!("PATH={}:{search}", path("bin")));
        line.push(self.kubectl.display().to_string());
        line.extend(["--kubeconfig".into(), path("kubeconfig"), "--cache-dir".into(), path("cache")]);
        line.extend(["--context", cluster].map(str::to_owned));
        line.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        line
    }

    pub fn kubectl(&self, cluster: &str, arguments: &[&str]) -> Command {
        let line = self.line(cluster, arguments);
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        command
    }

    #[track_caller]
    pub fn run(&self, cluster: &str, arguments: &[&str]) -> Output {
        spawn_with(self.kubectl(cluster, arguments), None).wait()
    }
}

/// The bed's clusters for everybody.
pub fn with_clusters(plan: Plan) -> Plan {
    let mut plan = plan.config(
        "aws.region = 'us-east-1'\naws.role = 'arn:aws:iam::123456789012:role/bastion/{user}'\n\
         [kube]\nrole = 'arn:aws:iam::123456789012:role/stockade/kube/{user}-kube'\n\
         allow = [{groups = ['*']}]\ndiscover = [{regions = ['us-east-1', 'eu-west-1']}]\n",
    );
    for (name, value) in Clusters::start().bastion() {
        plan = plan.env(&name, &value);
    }
    plan.env("AWS_EC2_METADATA_DISABLED", "true")
}

/// A public kube door, with a certificate of its own authority.
pub fn with_public_door(plan: Plan) -> Plan {
    let at = |name: &str| plan.path(name).display().to_string();
    certificate(plan.path("").as_path());
    let account = plan.slot.portal_uid();
    let settings = format!(
        "roles.portal = '{account}:{account}'\n\
         [kube.public]\nlisten = ['127.0.0.1:{port}']\nurl = 'https://127.0.0.1:{port}'\n\
         certificate = '{}'\nkey = '{}'\nca = '{}'\n",
        at("door.pem"),
        at("door.key"),
        at("ca.pem"),
        port = plan.slot.public_port(),
    );
    plan.config(&settings)
}

/// A certificate for the door, by the yard's authority.
pub fn certificate(place: &Path) {
    let openssl = |arguments: &str| {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(place).args(["req", "-x509", "-days", "2", "-nodes", "-newkey", "ec"]);
        openssl.args(["-pkeyopt", "ec_paramgen_curve:P-256"]).args(arguments.split(' '));
        spawn_with(openssl, None).wait().ok();
    };
    if !place.join("ca.pem").exists() {
        openssl("-subj /CN=authority -keyout ca.key -out ca.pem");
    }
    openssl(
        "-CA ca.pem -CAkey ca.key -subj /CN=door -addext subjectAltName=IP:127.0.0.1 \
         -addext basicConstraints=critical,CA:FALSE -keyout door.key -out door.pem",
    );
    std::fs::set_permissions(place.join("door.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
}

impl Yard {
    pub fn public_port(&self) -> u16 {
        self.plan.slot.public_port()
    }

    /// What `stockade token CLUSTER` prints of a token.
    #[track_caller]
    pub fn token(&self, user: &str, cluster: &str) -> String {
        let said = self.ssh(user).run(&format!("stockade token {cluster}")).ok();
        let credential: Value = serde_json::from_str(&said).unwrap();
        credential["status"]["token"].as_str().unwrap().to_owned()
    }

    /// curl at the public door; its own words come first, then `-w`'s.
    pub fn curl(&self, arguments: &[&str], path: &str) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "--cacert"]).arg(self.path("ca.pem")).args(arguments);
        curl.arg(format!("https://127.0.0.1:{}{path}", self.public_port()));
        curl
    }

    /// The public door's status for a token, and its body.
    #[track_caller]
    pub fn knock(&self, token: &str) -> (u16, String) {
        let authorization = format!("Authorization: Bearer {token}");
        let curl = self.curl(&["-H", &authorization, "-w", "\n%{http_code}"], "/clusters/hyades/api/v1/namespaces");
        let said = spawn_with(curl, None).wait();
        let text = said.text();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", &text));
        (status.parse().unwrap_or_else(|_| panic!("{said:?}")), body.to_owned())
    }
}
