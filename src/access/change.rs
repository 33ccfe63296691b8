//! One change of one object, and why.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

use super::names::Grant;
use super::world::{Binding, Entry, LABEL, LABELLED, Role, Rules, WRITTEN};

/// What is changed. Ordered as they are carried out when something is given; backwards when it is taken away, so that
/// in between nobody has more than before and after.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// An IAM group.
    Group(Grant),
    ClusterRole {
        cluster: String,
        name: String,
    },
    Role {
        cluster: String,
        namespace: String,
        name: String,
    },
    /// A user's role in IAM, by its name.
    IamRole(String),
    /// An access entry, or the user's row in aws-auth where that is all there is, by the role's ARN.
    Entry {
        cluster: String,
        role: String,
    },
    /// A row of aws-auth beside access entries, by the role's ARN as it is there: without its path. It only ever goes.
    Row {
        cluster: String,
        role: String,
    },
    RoleBinding {
        cluster: String,
        namespace: String,
        name: String,
    },
    ClusterRoleBinding {
        cluster: String,
        name: String,
    },
}

/// The object as it was, or as it shall be.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A group has nothing but its name: who is in it is for admins alone to say.
    Group,
    Rules(Rules),
    IamRole(Box<Role>),
    Entry(Entry),
    Binding(Binding),
}

/// `was` alone: it is removed. `shall_be` alone: it is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub target: Target,
    pub was: Option<Object>,
    pub shall_be: Option<Object>,
    /// The version that `was` had, where there is such a thing.
    pub version: String,
    /// The user's part of it, for a change that is about one.
    pub user: Option<String>,
    pub cause: Cause,
}

/// Why something is changed: the sentence of the plan, the audit event and the report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A cluster or a namespace has come, or its API serves other resources now.
    Appeared(String),
    /// A cluster or a namespace has gone.
    Gone(String),
    Joined {
        user: String,
        group: String,
    },
    Left {
        user: String,
        group: String,
    },
    /// The user is in IAM no more.
    UserGone(String),
    /// The configuration wants it otherwise.
    Configured,
    /// It was changed by hand; this is put back.
    Drift(String),
}

impl Target {
    /// The cluster that it is in; `None`: in IAM.
    pub fn cluster(&self) -> Option<&str> {
        match self {
            Self::Group(_) | Self::IamRole(_) => None,
            Self::ClusterRole { cluster, .. }
            | Self::Role { cluster, .. }
            | Self::Entry { cluster, .. }
            | Self::Row { cluster, .. }
            | Self::RoleBinding { cluster, .. }
            | Self::ClusterRoleBinding { cluster, .. } => Some(cluster),
        }
    }
}

impl Object {
    /// All the labels of an RBAC object of ours: written with it, and no others left there, for a label of Kubernetes'
    /// own makes a ClusterRole part of another one.
    pub fn labels(&self) -> BTreeMap<String, String> {
        [(LABEL, LABELLED.to_owned()), (WRITTEN, self.written())].map(|(key, value)| (key.to_owned(), value)).into()
    }

    /// What tells a change by hand from one of the configuration: a digest of what was written last.
    pub fn written(&self) -> String {
        let text = match self {
            Self::Rules(rules) => {
                let mut lines: Vec<String> = rules.rules.iter().map(|rule| format!("{rule:?}")).collect();
                lines.sort();
                format!("{} {}", rules.aggregated, lines.join("\n"))
            }
            other => format!("{other:?}"),
        };
        Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(grant) => write!(f, "IAM group {grant}"),
            Self::IamRole(name) => write!(f, "IAM role {name}"),
            Self::ClusterRole { cluster, name } => write!(f, "{cluster}: ClusterRole {name}"),
            Self::Role { cluster, namespace, name } => write!(f, "{cluster}: Role {namespace}/{name}"),
            Self::Entry { cluster, role } => write!(f, "{cluster}: access entry of {role}"),
            Self::Row { cluster, role } => write!(f, "{cluster}: row of {role} in aws-auth"),
            Self::RoleBinding { cluster, namespace, name } => write!(f, "{cluster}: RoleBinding {namespace}/{name}"),
            Self::ClusterRoleBinding { cluster, name } => write!(f, "{cluster}: ClusterRoleBinding {name}"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Appeared(what) => write!(f, "there is {what}"),
            Self::Gone(what) => f.write_str(what),
            Self::Joined { user, group } => write!(f, "{user} is in {group}"),
            Self::Left { user, group } => write!(f, "{user} is no longer in {group}"),
            Self::UserGone(user) => write!(f, "there is no user {user} any more"),
            Self::Configured => f.write_str("the configuration has it so"),
            Self::Drift(what) => write!(f, "drift: {what}"),
        }
    }
}
