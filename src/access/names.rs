//! `k8s-LEVEL@CLUSTER` and `k8s-LEVEL@CLUSTER@NAMESPACE`: the one mapping between IAM and Kubernetes.
//!
//! The name of an IAM group, of a ClusterRole or Role and of its binding are the same text. RBAC takes any segment of a
//! path for a name, IAM 128 of its letters and no second name that differs in case alone. Nothing is ever cut to fit.

use std::fmt;
use std::str::FromStr;

use crate::config::RoleTemplate;
use crate::identity::Principal;
use crate::policy::kube::{is_cluster_name, is_namespace};

/// IAM's limits.
pub const LONGEST_GROUP: usize = 128;
pub const LONGEST_ROLE: usize = 64;
/// STS wants a SourceIdentity of two letters at least.
pub const SHORTEST_SOURCE: usize = 2;
const PREFIX: &str = "k8s-";

/// What members of a group may do, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    /// A level of the configuration: `admin`, `poweruser`, `user`.
    pub level: String,
    pub cluster: String,
    /// `None`: the cluster as a whole.
    pub namespace: Option<String>,
}

/// Why a name is no grant's, or a grant can have no group or role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("not the name of a grant: write k8s-LEVEL@CLUSTER or k8s-LEVEL@CLUSTER@NAMESPACE")]
    Shape,
    #[error("names of grants are lower case where it says k8s-LEVEL: '{0}' is meant, perhaps")]
    Case(String),
    #[error("'{}' is not the name of a level", .0.escape_debug())]
    Level(String),
    #[error("'{}' is not the name of a cluster", .0.escape_debug())]
    Cluster(String),
    #[error("'{}' is not the name of a namespace: at most 63 of a-z 0-9 and - between them", .0.escape_debug())]
    Namespace(String),
    #[error("no group can be called '{0}': {1} letters, IAM takes {LONGEST_GROUP}; give the cluster a shorter name")]
    LongGroup(String, usize),
    #[error("no role can be called '{0}': {1} letters, IAM takes {LONGEST_ROLE}")]
    LongRole(String, usize),
    #[error("'{0}' is shorter than the two letters that STS wants of a SourceIdentity")]
    ShortUser(String),
    #[error("'{}' cannot be a user here: {}", .0.escape_debug(), crate::identity::NotAPrincipal)]
    User(String),
}

impl Grant {
    pub fn of_cluster(level: &str, cluster: &str) -> Self {
        Self { level: level.into(), cluster: cluster.into(), namespace: None }
    }

    pub fn of_namespace(level: &str, cluster: &str, namespace: &str) -> Self {
        Self { namespace: Some(namespace.into()), ..Self::of_cluster(level, cluster) }
    }

    /// The name of its IAM group; it may be too long for one.
    pub fn group(&self) -> Result<String, BadName> {
        let name = self.to_string();
        let letters = name.len();
        if letters > LONGEST_GROUP {
            return Err(BadName::LongGroup(name, letters));
        }
        match name.parse::<Self>() {
            Ok(read) if read == *self => Ok(name),
            Ok(_) => Err(BadName::Shape),
            Err(why) => Err(why),
        }
    }

    /// Where it is, as `Plan::gone` calls it.
    pub fn place(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{}@{namespace}", self.cluster),
            None => self.cluster.clone(),
        }
    }
}

/// The name of the IAM group, the ClusterRole or Role and its binding: all the same.
impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k8s-{}@{}", self.level, self.cluster)?;
        self.namespace.iter().try_for_each(|namespace| write!(f, "@{namespace}"))
    }
}

impl FromStr for Grant {
    type Err = BadName;

    fn from_str(name: &str) -> Result<Self, BadName> {
        let Some(rest) = name.strip_prefix(PREFIX) else { return Err(nearly(name)) };
        let parts: Vec<&str> = rest.split('@').collect();
        let (level, cluster, namespace) = match parts.as_slice() {
            [level, cluster] => (*level, *cluster, None),
            [level, cluster, namespace] => (*level, *cluster, Some(*namespace)),
            _ => return Err(BadName::Shape),
        };
        if name.len() > LONGEST_GROUP {
            return Err(BadName::LongGroup(name.escape_debug().to_string(), name.len()));
        }
        if !is_level(level) {
            return Err(BadName::Level(level.to_owned()));
        }
        if !is_cluster_name(cluster) {
            return Err(BadName::Cluster(cluster.to_owned()));
        }
        match namespace {
            Some(namespace) if !is_namespace(namespace) => Err(BadName::Namespace(namespace.to_owned())),
            Some(namespace) => Ok(Self::of_namespace(level, cluster, namespace)),
            None => Ok(Self::of_cluster(level, cluster)),
        }
    }
}

/// A name that only its case keeps from being a grant's; IAM would not take the right one beside it.
fn nearly(name: &str) -> BadName {
    let (first, rest) = name.split_once('@').unwrap_or((name, ""));
    let lower = format!("{}@{rest}", first.to_ascii_lowercase());
    if first.is_ascii() && lower != name && lower.parse::<Grant>().is_ok() {
        return BadName::Case(lower);
    }
    BadName::Shape
}

fn is_level(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(letter)
}

/// Whether this user can have a role of this template and be its SourceIdentity.
pub fn role_of(template: &RoleTemplate, user: &str) -> Result<(String, String), BadName> {
    let principal: Principal = user.parse().map_err(|_| BadName::User(user.to_owned()))?;
    if user.len() < SHORTEST_SOURCE {
        return Err(BadName::ShortUser(user.to_owned()));
    }
    let name = template.name(&principal);
    match name.len() {
        0..=LONGEST_ROLE => Ok((name, template.arn(&principal))),
        letters => Err(BadName::LongRole(name, letters)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str) -> String {
        name.parse::<Grant>().unwrap_err().to_string()
    }

    #[test]
    fn the_names_of_the_issue_are_read_and_written_alike() {
        for name in ["k8s-poweruser@hyades", "k8s-admin@hyades@taurus", "k8s-user@Prod_1.eu@admin", "k8s-a-b@c-d@e-f"] {
            assert_eq!(name.parse::<Grant>().unwrap().to_string(), name);
            assert_eq!(name.parse::<Grant>().unwrap().group(), Ok(name.to_owned()));
        }
        let taurus: Grant = "k8s-admin@hyades@taurus".parse().unwrap();
        assert_eq!(taurus, Grant::of_namespace("admin", "hyades", "taurus"));
        assert_eq!(taurus.place(), "hyades@taurus");
    }

    #[test]
    fn names_that_are_no_grants_say_why() {
        for (name, why) in [
            ("k8s-admin@", "'' is not the name of a cluster"),
            ("k8s-admin", "not the name of a grant: write k8s-LEVEL@CLUSTER or k8s-LEVEL@CLUSTER@NAMESPACE"),
            ("ops", "not the name of a grant: write k8s-LEVEL@CLUSTER or k8s-LEVEL@CLUSTER@NAMESPACE"),
            ("k8s-@hyades", "'' is not the name of a level"),
            ("k8s-Admin@hyades", "'Admin' is not the name of a level"),
            ("k8s-admin@hyades@", "'' is not the name of a namespace: at most 63 of a-z 0-9 and - between them"),
            (
                "k8s-admin@hyades@Taurus",
                "'Taurus' is not the name of a namespace: at most 63 of a-z 0-9 and - between them",
            ),
            ("k8s-admin@hyades@-", "'-' is not the name of a namespace: at most 63 of a-z 0-9 and - between them"),
            ("k8s-admin@hy ades", "'hy ades' is not the name of a cluster"),
            ("k8s-ädmin@hyades", "'ädmin' is not the name of a level"),
            ("k8s-admin@hyädes", "'hyädes' is not the name of a cluster"),
            ("k8s-admin@\u{1b}[2J", "'\\u{1b}[2J' is not the name of a cluster"),
            (
                "K8S-Admin@hyades",
                "names of grants are lower case where it says k8s-LEVEL: 'k8s-admin@hyades' is meant, perhaps",
            ),
        ] {
            assert_eq!(said(name), why, "{name}");
        }
        assert_eq!(said("k8s-admin@a@b@c"), BadName::Shape.to_string());
        assert_eq!(said("\u{212a}8s-admin@hyades"), BadName::Shape.to_string());
    }

    #[test]
    fn what_is_too_long_has_no_group_and_is_not_cut() {
        let grant = Grant::of_namespace("poweruser", &"c".repeat(50), &"n".repeat(63));
        assert_eq!(grant.group().unwrap().len(), 128);
        let longer = Grant::of_namespace("poweruser", &"c".repeat(51), &"n".repeat(63));
        assert!(matches!(longer.group(), Err(BadName::LongGroup(_, 129))));
        assert_eq!(longer.to_string().parse::<Grant>(), Err(BadName::LongGroup(longer.to_string(), 129)));
        let exact = format!("k8s-admin@{}", "x".repeat(118));
        assert_eq!((exact.len(), exact.parse::<Grant>().unwrap_err()), (128, BadName::Cluster("x".repeat(118))));
        assert!(Grant::of_namespace("admin", "hyades", &"n".repeat(64)).group().is_err());
    }

    #[test]
    fn a_namespace_may_be_called_like_a_level() {
        let grant: Grant = "k8s-user@admin@admin".parse().unwrap();
        assert_eq!(grant, Grant::of_namespace("user", "admin", "admin"));
    }

    #[test]
    fn a_role_has_a_name_that_iam_and_sts_take() {
        let template = RoleTemplate::try_from("arn:aws:iam::123456789012:role/bastion/{user}-kube".to_owned()).unwrap();
        let (name, arn) = role_of(&template, "alice").unwrap();
        assert_eq!((name.as_str(), arn.as_str()), ("alice-kube", "arn:aws:iam::123456789012:role/bastion/alice-kube"));
        assert_eq!(role_of(&template, "a"), Err(BadName::ShortUser("a".into())));
        assert_eq!(role_of(&template, "-a"), Err(BadName::User("-a".into())));
        assert!(role_of(&template, &"a".repeat(59)).is_ok());
        assert_eq!(role_of(&template, &"a".repeat(60)), Err(BadName::LongRole(format!("{}-kube", "a".repeat(60)), 65)));
    }

    proptest::proptest! {
        /// One mapping: two grants never have one name, and every name that is read is written the same.
        #[test]
        fn every_name_is_one_grant(name in "k8s-[a-z@A-Z0-9.ä-]{0,30}", any: String) {
            for name in [name, any] {
                if let Ok(grant) = name.parse::<Grant>() {
                    assert_eq!(grant.to_string(), name);
                    assert_eq!(grant.group(), Ok(name));
                }
            }
        }
    }
}
