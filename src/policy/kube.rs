//! Who may use which cluster, and whom they may be there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv6Addr;

use crate::config::rbac::Rbac;
use crate::config::{AsRule, ClusterRule, Kube};
use crate::identity::Pattern;
use crate::policy::egress::is_host_name;

/// As long as EKS has them.
const LONGEST_NAME: usize = 100;
/// As long as Kubernetes has them.
const LONGEST_NAMESPACE: usize = 63;

/// What the configuration says of who may use clusters.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'k> {
    pub kube: &'k Kube,
    /// With it, groups named `k8s-LEVEL@CLUSTER` and `k8s-LEVEL@CLUSTER@NAMESPACE` open the cluster by themselves. What
    /// their members may do there the cluster decides, so nothing is given by it but the way.
    pub rbac: Option<&'k Rbac>,
}

/// A cluster as the rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'c> {
    pub name: &'c str,
    pub labels: &'c BTreeMap<String, String>,
    /// Everybody is the bastion there: no level means anything, and no group opens it without a rule.
    pub shared: bool,
}

/// The answer to "may somebody in these groups use this cluster", and the rule that gave it.
#[must_use = "a verdict that nobody looks at opens or closes a cluster by accident"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'k> {
    Allowed {
        /// From 1, in the order of the file.
        number: usize,
        rule: &'k ClusterRule,
    },
    /// No rule is needed: the group is named for this cluster.
    Granted {
        group: &'k str,
    },
    Denied {
        number: usize,
        rule: &'k ClusterRule,
    },
    /// There are so many rules, and none is for them and it.
    NotAllowed {
        rules: usize,
        /// A group could be named for it, and none of theirs is.
        by_group: bool,
    },
}

/// Deny wins, whatever the order; without an allow, or a group that is named for it, nothing is reached.
pub fn may_use<'k>(rules: Rules<'k>, groups: &'k BTreeSet<String>, cluster: Subject<'_>) -> Verdict<'k> {
    let Rules { kube, rbac } = rules;
    let first = |rules: &'k [ClusterRule]| {
        let mut numbered = rules.iter().zip(1..);
        numbered.find(|(rule, _)| is_member(&rule.groups, groups) && is_meant(rule, cluster))
    };
    if let Some((rule, number)) = first(&kube.deny) {
        return Verdict::Denied { number, rule };
    }
    if let Some((rule, number)) = first(&kube.allow) {
        return Verdict::Allowed { number, rule };
    }
    let rbac = rbac.filter(|_| !cluster.shared);
    let named = rbac.and_then(|rbac| groups.iter().find(|group| named_for(rbac, group) == Some(cluster.name)));
    match named {
        Some(group) => Verdict::Granted { group },
        None => Verdict::NotAllowed { rules: kube.allow.len(), by_group: rbac.is_some() },
    }
}

/// The cluster that a group of this name is access to.
pub fn named_for<'g>(rbac: &Rbac, group: &'g str) -> Option<&'g str> {
    let (level, rest) = group.strip_prefix("k8s-")?.split_once('@')?;
    let (cluster, namespace) = match rest.split_once('@') {
        Some((cluster, namespace)) => (cluster, Some(namespace)),
        None => (rest, None),
    };
    let is_known = rbac.levels.iter().any(|known| known.name == level);
    (is_known && namespace.is_none_or(is_namespace)).then_some(cluster)
}

/// Whether a name is kept for groups that are access to clusters, of whatever levels there may be.
pub fn is_of_access(group: &str) -> bool {
    group.starts_with("k8s-") && group.contains('@')
}

/// Whether membership of a group of IAM counts: of one that is named for access only where access reads it.
pub fn counts(rbac: Option<&Rbac>, group: &str, path: &str) -> bool {
    !is_of_access(group) || rbac.is_none_or(|rbac| rbac.reads_group(path))
}

/// A label of RFC 1123, as Kubernetes has it.
pub fn is_namespace(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=LONGEST_NAMESPACE).contains(&name.len())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name.bytes().all(letter)
}

/// The rules that let members of these groups be somebody else somewhere.
pub fn others<'k>(kube: &'k Kube, groups: &BTreeSet<String>) -> impl Iterator<Item = &'k AsRule> {
    kube.impersonate.iter().filter(move |rule| is_member(&rule.groups, groups))
}

fn is_member(patterns: &[Pattern], groups: &BTreeSet<String>) -> bool {
    patterns.iter().any(|pattern| pattern.as_str() == "*" || groups.iter().any(|group| pattern.matches(group)))
}

fn is_meant(rule: &ClusterRule, cluster: Subject<'_>) -> bool {
    rule.clusters.iter().any(|pattern| pattern.matches(cluster.name))
        && rule.labels.iter().all(|(name, pattern)| cluster.labels.get(name).is_some_and(|is| pattern.matches(is)))
}

impl Verdict<'_> {
    pub fn allows(&self) -> bool {
        matches!(self, Self::Allowed { .. } | Self::Granted { .. })
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed { number, rule } => write!(f, "[[kube.allow]] number {number} is {}", Told(rule)),
            Self::Denied { number, rule } => write!(f, "[[kube.deny]] number {number} is {}", Told(rule)),
            Self::Granted { group } => write!(f, "group '{group}' is access to it, by [rbac]"),
            Self::NotAllowed { rules: 0, by_group: false } => {
                f.write_str("there is no [[kube.allow]]: nobody may use any cluster")
            }
            Self::NotAllowed { rules, by_group } => {
                match rules {
                    0 => f.write_str("there is no [[kube.allow]]")?,
                    rules => write!(f, "none of the {rules} [[kube.allow]] is for them and this cluster")?,
                }
                if *by_group { f.write_str(", and no group of theirs is access to it by its name") } else { Ok(()) }
            }
        }
    }
}

/// A rule in words.
struct Told<'r>(&'r ClusterRule);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |patterns: &[Pattern]| patterns.iter().map(|p| format!("'{p}'")).collect::<Vec<_>>().join(", ");
        write!(f, "for groups {} and clusters {}", list(&self.0.groups), list(&self.0.clusters))?;
        for (name, pattern) in &self.0.labels {
            write!(f, " with {name} = '{pattern}'")?;
        }
        Ok(())
    }
}

/// A part of a path, the name of a context, and what EKS calls clusters.
pub fn is_cluster_name(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    name.len() <= LONGEST_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !name.ends_with('.')
        && name.bytes().all(letter)
}

/// `https://host[:port][/prefix]`, and nothing that a client could read otherwise.
pub fn is_endpoint(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://") else { return false };
    let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let six = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match six {
        Some(six) => six.parse::<Ipv6Addr>().is_ok(),
        None => is_host_name(host) || host.parse::<std::net::Ipv4Addr>().is_ok(),
    };
    let is_port = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|number| number != 0)
    });
    let segment = |part: &str| {
        part != "." && part != ".." && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b))
    };
    is_host && is_port && !prefix.ends_with('/') && !prefix.contains("//") && prefix.split('/').all(segment)
}

#[cfg(test)]
pub mod tests;
