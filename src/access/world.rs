//! What there is: IAM and the clusters as they were read. Values only; `BTreeMap`s, so that equal worlds print alike.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::names::Grant;

/// Everything that a plan is made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    pub directory: Directory,
    /// By the name that the bastion offers them under.
    pub clusters: BTreeMap<String, Seen>,
}

/// A cluster, or why it could not be read: nothing is planned for that one.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    Read(Box<Cluster>),
    Away(String),
}

/// People, groups and roles of one AWS account, or of another source behind the same seam.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Directory {
    /// Twelve digits; empty without AWS.
    pub account: String,
    pub groups: BTreeMap<String, Group>,
    pub users: BTreeMap<String, User>,
    /// By name, which IAM keeps unique whatever the path. All that there are: foreign ones may stand in our place.
    pub roles: BTreeMap<String, Role>,
    pub quotas: Quotas,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// `/stockade/`; ours are those below the configured path, for IAM's groups have no tags.
    pub path: String,
    pub members: BTreeSet<String>,
    /// Seconds since the epoch; zero: not known.
    pub created: i64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct User {
    pub path: String,
    pub tags: BTreeMap<String, String>,
    pub created: i64,
}

/// A role of IAM. Documents are JSON values: two spellings of one policy are equal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Role {
    pub path: String,
    pub trust: Value,
    /// By the policy's name.
    pub inline: BTreeMap<String, Value>,
    /// ARNs of managed policies.
    pub attached: BTreeSet<String>,
    pub boundary: Option<String>,
    /// Ours has `stockade:access` = the name of its user.
    pub tags: BTreeMap<String, String>,
    /// Seconds; IAM's default is 3600.
    pub longest_session: i32,
    pub created: i64,
    /// When it was assumed last, as far as IAM knows.
    pub last_used: Option<i64>,
}

/// How many there are and may be; `None`: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    pub groups: Option<u32>,
    pub roles: Option<u32>,
    pub groups_per_user: Option<u32>,
}

/// Who EKS lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// API: access entries alone.
    Entries,
    /// API_AND_CONFIG_MAP: access entries, and the ConfigMap aws-auth for whoever has none.
    Both,
    /// CONFIG_MAP: the ConfigMap aws-auth alone.
    AwsAuth,
    /// No EKS: the bastion's own credential, and headers that say who the user is.
    Impersonated,
}

/// One cluster as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    pub mode: Mode,
    /// Account and region of AWS, or what the configuration says.
    pub place: String,
    pub namespaces: BTreeMap<String, Namespace>,
    /// What the API server serves, subresources, custom and aggregated ones included; sorted.
    pub served: Vec<Served>,
    /// Groups whose own servers do not answer the API server now: `served` may lack theirs.
    pub stale: BTreeSet<String>,
    pub cluster_roles: BTreeMap<String, Rbac<Rules>>,
    pub roles: BTreeMap<(String, String), Rbac<Rules>>,
    pub cluster_bindings: BTreeMap<String, Rbac<Binding>>,
    /// By namespace and name.
    pub bindings: BTreeMap<(String, String), Rbac<Binding>>,
    /// Namespaces with so many Roles or RoleBindings that only those with a name of ours were read.
    pub crowded: BTreeSet<String>,
    /// By the principal's ARN; of the modes `Entries` and `Both`.
    pub entries: BTreeMap<String, Entry>,
    /// Of the modes `AwsAuth` and `Both`.
    pub aws_auth: AwsAuth,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    pub labels: BTreeMap<String, String>,
    pub created: i64,
    pub terminating: bool,
}

/// A resource or subresource of the API: `pods`, `pods/exec`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Served {
    /// Empty: the core group.
    pub group: String,
    pub resource: String,
    pub namespaced: bool,
    pub verbs: BTreeSet<String>,
}

/// An RBAC object with what marks it as ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rbac<T> {
    pub is: T,
    pub labels: BTreeMap<String, String>,
    pub created: i64,
    /// Changed only if the object still has this version, so that two hands do not overwrite each other.
    pub version: String,
}

/// What a Role or ClusterRole allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub rules: Vec<Rule>,
    /// The rules are gathered from other ClusterRoles by their labels.
    pub aggregated: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule {
    pub verbs: BTreeSet<String>,
    pub groups: BTreeSet<String>,
    pub resources: BTreeSet<String>,
    /// Empty: all names.
    pub names: BTreeSet<String>,
    /// Paths that are no resource.
    pub urls: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// `ClusterRole` or `Role`, and its name. Kubernetes never changes it: a binding to another role is made anew.
    pub role: (String, String),
    pub subjects: BTreeSet<Subject>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    User(String),
    Group(String),
    /// Namespace and name.
    ServiceAccount(String, String),
}

/// An access entry of EKS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub username: String,
    pub groups: BTreeSet<String>,
    /// Ours has `stockade:access` = the name of its user.
    pub tags: BTreeMap<String, String>,
    /// `STANDARD` for people.
    pub kind: String,
    pub created: i64,
    /// ARNs of EKS's own access policies; ours have none, so one that is there was added by hand.
    pub policies: BTreeSet<String>,
}

/// The ConfigMap aws-auth of kube-system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsAuth {
    /// The text under `mapRoles`; `None`: there is no such ConfigMap, or nothing under that key.
    pub map_roles: Option<String>,
    /// Likewise `mapUsers`, where access writes nothing.
    pub map_users: Option<String>,
    pub version: String,
    /// Why nobody can say what is in it, where entries come first.
    pub unread: Option<String>,
}

/// The mark of what is ours: a label in Kubernetes, a tag in AWS.
pub const MARK: &str = "stockade:access";
/// The same as a label: Kubernetes allows no colon there.
pub const LABEL: &str = "app.kubernetes.io/managed-by";
pub const LABELLED: &str = "stockade-access";
/// A label with `change::Object::written`.
pub const WRITTEN: &str = "stockade/written";

impl<T> Rbac<T> {
    pub fn is_ours(&self) -> bool {
        self.labels.get(LABEL).is_some_and(|by| by == LABELLED)
    }
}

/// Who is in a group that grants something, from whatever source: IAM's groups, tags of users, a file.
pub type Members = BTreeMap<Grant, BTreeSet<String>>;
