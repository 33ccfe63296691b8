//! `[kube]`: which clusters there are, who may use which, and what of their requests is written down.

mod cluster;
mod kubeconfig;
mod read;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

pub use self::kubeconfig::{Entry, NotUsable, Proof, entry};
pub(super) use self::read::{Ground, kube};
use super::types::RoleTemplate;
use crate::identity::Pattern;

/// Kubernetes: nothing without a cluster or a place to look for some.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kube {
    /// Who users are on EKS clusters.
    pub role: KubeRole,
    /// Named in the file, in its order. A discovered cluster never takes the name of one of these.
    pub clusters: Vec<StaticCluster>,
    pub discover: Vec<Discover>,
    /// How often discovery asks again.
    pub refresh: Duration,
    /// Which groups may use which clusters; deny wins, and without an allow nothing is reached.
    pub allow: Vec<ClusterRule>,
    pub deny: Vec<ClusterRule>,
    /// Whom users may be on clusters with `--as`; nobody without a rule.
    pub impersonate: Vec<AsRule>,
    /// The first rule that fits decides; none that fits: Metadata.
    pub audit: Vec<AuditRule>,
    pub clocks: Clocks,
    /// The door for laptops.
    pub public: Option<PublicDoor>,
}

impl Kube {
    /// There may be a cluster for somebody.
    pub fn is_used(&self) -> bool {
        !self.clusters.is_empty() || !self.discover.is_empty()
    }

    /// The kubeconfig files, each once, in the order in which the loader opens them.
    pub fn kubeconfigs(&self) -> Vec<&Path> {
        let mut files = Vec::new();
        for entry in self.clusters.iter().filter_map(|cluster| cluster.way.entry()) {
            if !files.contains(&entry.file.as_path()) {
                files.push(entry.file.as_path());
            }
        }
        files
    }
}

impl StaticWay {
    pub fn entry(&self) -> Option<&KubeconfigEntry> {
        match self {
            Self::Eks { .. } => None,
            Self::Impersonate(entry) | Self::Kubeconfig(entry) => Some(entry),
        }
    }
}

/// The role that clusters know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KubeRole {
    /// No AWS: no cluster of EKS can be used.
    #[default]
    None,
    /// A second role per user, whose keys never enter a jail.
    Separate(RoleTemplate),
    /// The user's own role: with its keys a user is themselves on a cluster without the kube door, unaudited.
    Same,
}

/// A cluster of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticCluster {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// `https://host[:port][/prefix]`; `None` for a kubeconfig entry, which says it itself.
    pub endpoint: Option<String>,
    /// The certificates that the API server's must come from, as PEM; `None`: as with `endpoint`.
    pub authority: Option<String>,
    /// The name in the server's certificate, where it is not the endpoint's host.
    pub server_name: Option<String>,
    pub way: StaticWay,
}

/// How a user is themselves on a cluster of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StaticWay {
    /// A presigned token of the user's credentials.
    Eks { region: String, cluster: String },
    /// The credential of this kubeconfig entry, and headers that say who the user is.
    Impersonate(KubeconfigEntry),
    /// The credential of this kubeconfig entry, for everybody alike.
    Kubeconfig(KubeconfigEntry),
}

/// A context of a kubeconfig file, which the loader opens for the warden alone: it is a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeconfigEntry {
    pub file: PathBuf,
    /// `None`: the file's current context.
    pub context: Option<String>,
}

/// Where to look for EKS clusters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discover {
    /// Assumed to look into another account; `None`: with the bastion's own identity.
    pub role: Option<String>,
    pub regions: Vec<String>,
    /// All of these tags, with values that fit.
    pub tags: BTreeMap<String, Pattern>,
    /// Its tags count as labels for `allow` and `deny`; those of accounts that are not trusted do not.
    pub trusted: bool,
}

/// Groups and the clusters they may, or may not, use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRule {
    /// `*` alone is everybody, in a group or not.
    pub groups: Vec<Pattern>,
    pub clusters: Vec<Pattern>,
    /// All of these labels, with values that fit.
    pub labels: BTreeMap<String, Pattern>,
}

/// Whom the members of groups may be with `--as` and `--as-group`; never `system:*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsRule {
    pub groups: Vec<Pattern>,
    pub clusters: Vec<Pattern>,
    pub as_users: Vec<Pattern>,
    pub as_groups: Vec<Pattern>,
}

/// How much is written down of requests; empty lists fit everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRule {
    pub level: Level,
    pub verbs: Vec<Pattern>,
    /// `pods`, `pods/log`, `deployments.apps`, `*`.
    pub resources: Vec<Pattern>,
    pub namespaces: Vec<Pattern>,
    /// Paths of requests that name no resource: `/healthz`, `/openapi/*`.
    pub paths: Vec<Pattern>,
    pub clusters: Vec<Pattern>,
}

/// The API server's words; a body of an answer is never written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Encode, Decode)]
#[cbor(index_only)]
pub enum Level {
    #[n(0)]
    None,
    #[n(1)]
    Metadata,
    /// With the request's body; never of Secrets, tokens and the like.
    #[n(2)]
    Request,
}

/// How long the kube door waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// For a connection to an API server, TLS included.
    pub connect: Duration,
    /// For the head of its answer; not for watches, whose head comes at once.
    pub answer: Duration,
    /// A stream (exec, attach, port-forward, watch, logs) without a byte; zero: for ever.
    pub idle: Duration,
}

impl PublicDoor {
    /// How a request's `Host` may name it.
    pub fn names(&self) -> Vec<String> {
        let host = self.url.strip_prefix("https://").unwrap_or(&self.url);
        let host = host.split('/').next().unwrap_or_default();
        match host.strip_suffix(":443") {
            Some(bare) => vec![bare.to_owned(), host.to_owned()],
            None if host.rsplit(']').next().is_some_and(|rest| rest.contains(':')) => vec![host.to_owned()],
            None => vec![host.to_owned(), format!("{host}:443")],
        }
    }
}

impl Default for Clocks {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(10), answer: seconds(90), idle: Duration::ZERO }
    }
}

/// The kube door for laptops: TLS, and a token that only somebody who is logged in can fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicDoor {
    pub listen: Vec<SocketAddr>,
    /// As laptops reach it: `https://bastion.example.com:6443`.
    pub url: String,
    /// Certificate chain and private key, PEM; opened by the loader for the portal alone.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The authority that laptops trust, written into their kubeconfig; `None`: one that they know.
    pub authority: Option<String>,
    /// TLS 1.2 with modern suites too.
    pub tls12: bool,
    /// How long a token is good.
    pub life: Duration,
}
