//! `[rbac]`: what IAM groups mean on clusters, and how it gets there.

mod level;
mod read;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::level::built_in;
pub(super) use self::read::rbac;
use crate::identity::Pattern;

/// Present: groups named `k8s-LEVEL@CLUSTER[@NAMESPACE]` are access to clusters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rbac {
    pub levels: Vec<Level>,
    /// No groups and Roles for these, and less there for whole-cluster grants; see `Level::system`.
    pub skip_namespaces: Vec<Pattern>,
    pub namespaces: Namespaces,
    /// IAM groups have no tags: ours are those below this path. `/stockade/`
    pub group_path: String,
    /// Who users are on EKS clusters, with `{user}` once.
    pub username: String,
    /// ARNs of the bastion's own identities: they alone may assume users' roles.
    pub bastion: Vec<String>,
    /// ARN of the permissions boundary of every role that is made; there is one wherever there is AWS.
    pub boundary: Option<String>,
    pub role_tags: BTreeMap<String, String>,
    /// The inline policy of the role that clusters know.
    pub role_policy: Value,
    pub members: MembersFrom,
    /// Percent of what is ours that one plan may remove.
    pub most_removed: u8,
    /// How long the empty groups of a cluster or namespace outlive it.
    pub grace: Duration,
    pub cycle: Duration,
    /// URL of an SQS queue with IAM's events.
    pub queue: Option<String>,
    pub audit: PathBuf,
    pub state: PathBuf,
    /// Health and metrics.
    pub listen: Option<SocketAddr>,
    /// Contexts named like clusters: credentials for clusters that are not EKS.
    pub kubeconfig: Option<PathBuf>,
    /// Where the lease of each cluster lies.
    pub lease_namespace: String,
}

/// What a level allows; RBAC cannot deny, so exceptions are left out of what the API server says it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    pub name: String,
    /// `pods`, `pods/exec`, `deployments.apps`, `*.apps`, `*`.
    pub allow: Vec<Allow>,
    /// Paths that are no resource.
    pub urls: Vec<String>,
    pub system: System,
}

/// Verbs on resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allow {
    pub resources: Vec<Pattern>,
    pub except: Vec<Pattern>,
    /// `*` is all, climbing (escalate, bind, impersonate) included.
    pub verbs: Vec<String>,
}

/// What a grant for a whole cluster means in skipped namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// As everywhere.
    Same,
    /// Reading, but no Secrets and no way into a container.
    Read,
    None,
}

/// Which namespaces have groups of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespaces {
    All,
    /// Those with this label, `stockade/access=yes`: IAM allows a few hundred groups an account.
    Labelled(String),
}

impl Namespaces {
    pub fn has(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::All => true,
            Self::Labelled(label) => {
                let (key, value) = label.split_once('=').unwrap_or((label, ""));
                labels.get(key).is_some_and(|found| found == value)
            }
        }
    }
}

impl Rbac {
    /// Who a user is on EKS clusters.
    pub fn username_of(&self, user: &str) -> String {
        self.username.replace("{user}", user)
    }

    /// The user who is called so there.
    pub fn user_of<'n>(&self, username: &'n str) -> Option<&'n str> {
        let (before, after) = self.username.split_once("{user}")?;
        let user = username.strip_prefix(before)?.strip_suffix(after)?;
        (!user.is_empty()).then_some(user)
    }

    pub fn is_skipped(&self, namespace: &str) -> bool {
        self.skip_namespaces.iter().any(|pattern| pattern.matches(namespace))
    }

    /// Whether a group of IAM below this path says who has access. The bastion and `stockade access` both ask here: a group
    /// of the same name elsewhere is somebody else's, and opens nothing.
    pub fn reads_group(&self, path: &str) -> bool {
        self.members == MembersFrom::Iam && path.starts_with(&self.group_path)
    }

    pub fn level(&self, name: &str) -> Option<&Level> {
        self.levels.iter().find(|level| level.name == name)
    }
}

/// What says who has which grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MembersFrom {
    Iam,
    /// This tag of IAM users: names of groups with spaces between.
    Tag(String),
    /// `[users] groups` of the file.
    File,
}
