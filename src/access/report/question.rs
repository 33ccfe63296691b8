//! What somebody may do or not: a verb on a resource, or on a path that is none.

use std::fmt;

use crate::access::world::{Cluster, Served};

/// As the API server would be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub verb: String,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Resource {
        /// Empty: the core group.
        group: String,
        /// `pods`, `pods/exec`.
        resource: String,
        place: Place,
        name: Option<String>,
    },
    /// `/metrics`
    Url(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Of the whole cluster, or in all namespaces at once.
    Cluster,
    Namespace(String),
    /// In some namespace at least: what an auditor asks.
    Anywhere,
}

/// The words of the command line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Words<'a> {
    pub verb: &'a str,
    /// `pods`, `pods/exec`, `deployments.apps`, `deployments.apps/scale`, `*`, `/metrics`
    pub resource: &'a str,
    pub namespace: Option<&'a str>,
    pub name: Option<&'a str>,
}

/// Why there is no question in the words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    #[error("'{0}' is no resource: say it like pods, pods/exec, deployments.apps, deployments.apps/scale or /metrics")]
    Resource(String),
    #[error("the cluster does not serve '{resource}'{}; a resource of a group that is not served is said like {resource}.GROUP", near(.like))]
    NotServed { resource: String, like: Vec<String> },
    #[error("the cluster has no namespace '{0}'")]
    Namespace(String),
    #[error("a path is in no namespace and has no name: leave --namespace and --name out")]
    Path,
}

fn near(like: &[String]) -> String {
    if like.is_empty() { String::new() } else { format!(" (it does serve {})", like.join(", ")) }
}

/// What RBAC knows and no API server serves: objects of the verbs impersonate, sign, approve and attest.
const VIRTUAL: &[(&str, &str, bool)] = &[
    ("", "users", false),
    ("", "groups", false),
    ("authentication.k8s.io", "uids", false),
    ("authentication.k8s.io", "userextras", false),
    ("certificates.k8s.io", "signers", false),
];

/// Verbs that no resource lists among its own.
const BESIDE: &[&str] = &["*", "approve", "attest", "bind", "escalate", "impersonate", "sign", "use"];

/// The question in the words, on that cluster, and what the asker should know of it.
pub fn read(cluster: &Cluster, words: Words<'_>) -> Result<(Question, Vec<String>), Unclear> {
    let verb = words.verb.to_owned();
    if words.resource.starts_with('/') {
        if words.namespace.is_some() || words.name.is_some() {
            return Err(Unclear::Path);
        }
        return Ok((Question { verb, what: What::Url(words.resource.to_owned()) }, Vec::new()));
    }
    if let Some(namespace) = words.namespace.filter(|name| !cluster.namespaces.contains_key(*name)) {
        return Err(Unclear::Namespace(namespace.to_owned()));
    }
    let (group, resource) = parse(words.resource).ok_or_else(|| Unclear::Resource(words.resource.to_owned()))?;
    let mut notes = Vec::new();
    let (group, namespaced) = resolve(cluster, group, &resource, &verb, &mut notes)?;
    let mut name = words.name.map(str::to_owned);
    let place = match words.namespace {
        // The API server takes a namespace to be in itself, so a RoleBinding there counts.
        Some(namespace) if resource.split('/').next() == Some("namespaces") => {
            name.get_or_insert_with(|| namespace.to_owned());
            Place::Namespace(namespace.to_owned())
        }
        Some(namespace) if namespaced => Place::Namespace(namespace.to_owned()),
        Some(_) => {
            notes.push(format!("{resource} are in no namespace: asked of the whole cluster"));
            Place::Cluster
        }
        None if namespaced => Place::Anywhere,
        None => Place::Cluster,
    };
    Ok((Question { verb, what: What::Resource { group, resource, place, name } }, notes))
}

/// Group and resource; the group may stand behind the resource or behind the subresource.
pub fn parse(text: &str) -> Option<(Option<String>, String)> {
    let part = |text: &str| match text.split_once('.') {
        Some((name, group)) => (name.to_owned(), Some(group.to_owned())),
        None => (text.to_owned(), None),
    };
    let (resource, group) = match text.split_once('/') {
        None => part(text),
        Some((resource, below)) => {
            let ((resource, first), (below, second)) = (part(resource), part(below));
            if first.is_some() && second.is_some() || below.is_empty() || below.contains('/') {
                return None;
            }
            (format!("{resource}/{below}"), first.or(second))
        }
    };
    let plain =
        |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-./*:".contains(&b));
    let group_is_none = group.as_deref() == Some("");
    (!resource.starts_with('/') && !resource.is_empty() && plain(&resource) && !group_is_none)
        .then_some((group, resource))
}

/// The group, and whether the resource lives in namespaces.
fn resolve(
    cluster: &Cluster,
    group: Option<String>,
    resource: &str,
    verb: &str,
    notes: &mut Vec<String>,
) -> Result<(String, bool), Unclear> {
    if resource.contains('*') || group.as_deref() == Some("*") {
        return Ok((group.unwrap_or_else(|| "*".into()), true));
    }
    let fits =
        |served: &&Served| served.resource == resource && group.as_ref().is_none_or(|group| *group == served.group);
    // As kubectl: the core group before the others.
    let mut served: Vec<&Served> = cluster.served.iter().filter(fits).collect();
    served.sort_by(|a, b| a.group.cmp(&b.group));
    if let Some(first) = served.first() {
        // Nobody who says `pods` means those of the metrics.
        if let Some(more) = served.get(1..).filter(|more| !more.is_empty() && !first.group.is_empty()) {
            let others: Vec<&str> = more.iter().map(|served| served.group.as_str()).collect();
            notes.push(format!("also served by {}: say {resource}.GROUP to ask for that", others.join(", ")));
        }
        if !first.verbs.contains(verb) && !BESIDE.contains(&verb) {
            notes.push(format!("{resource} has no verb '{verb}' on this cluster"));
        }
        return Ok((first.group.clone(), first.namespaced));
    }
    let base = resource.split('/').next().unwrap_or_default();
    let known = VIRTUAL.iter().find(|(of, name, _)| *name == base && group.as_ref().is_none_or(|group| group == of));
    match (known, group) {
        (Some((group, _, namespaced)), _) => Ok(((*group).to_owned(), *namespaced)),
        (None, Some(group)) => {
            notes.push(format!("the cluster does not serve {resource} of {group}"));
            Ok((group, true))
        }
        (None, None) => Err(Unclear::NotServed { resource: resource.to_owned(), like: like(cluster, resource) }),
    }
}

/// What may have been meant: a word that goes on, or the resource that it is below.
fn like(cluster: &Cluster, resource: &str) -> Vec<String> {
    let near = |served: &&Served| served.resource.starts_with(resource) || resource.starts_with(&served.resource);
    cluster.served.iter().filter(near).take(3).map(|served| full(&served.group, &served.resource)).collect()
}

/// `deployments.apps/scale`
pub fn full(group: &str, resource: &str) -> String {
    match (group, resource.split_once('/')) {
        ("", _) => resource.to_owned(),
        (group, Some((resource, below))) => format!("{resource}.{group}/{below}"),
        (group, None) => format!("{resource}.{group}"),
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Url(path) => write!(f, "{} {path}", self.verb),
            What::Resource { group, resource, place, name } => {
                write!(f, "{} {}", self.verb, full(group, resource))?;
                name.iter().try_for_each(|name| write!(f, " {name}"))?;
                match place {
                    Place::Cluster => Ok(()),
                    Place::Namespace(namespace) => write!(f, " in {namespace}"),
                    Place::Anywhere => write!(f, " in any namespace"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::report::tests::hyades;

    fn ask<'a>(verb: &'a str, resource: &'a str, namespace: Option<&'a str>) -> Words<'a> {
        Words { verb, resource, namespace, name: None }
    }

    #[test]
    fn the_group_stands_behind_either_part() {
        let cluster = hyades();
        for text in ["deployments/scale", "deployments.apps/scale", "deployments/scale.apps"] {
            let (question, notes) = read(&cluster, ask("update", text, Some("taurus"))).unwrap();
            assert_eq!(question.to_string(), "update deployments.apps/scale in taurus");
            assert_eq!(notes, Vec::<String>::new());
        }
        assert_eq!(parse("a.b/c.d"), None);
        assert_eq!(parse("pods/"), None);
        assert_eq!(parse("/pods"), None);
        assert_eq!(parse("pods."), None);
        assert_eq!(parse("pods/exec/more"), None);
        assert_eq!(parse("Pods"), None);
    }

    #[test]
    fn what_is_in_no_namespace_is_asked_of_the_cluster() {
        let cluster = hyades();
        let (question, notes) = read(&cluster, ask("get", "nodes", Some("taurus"))).unwrap();
        assert_eq!((question.to_string().as_str(), notes.len()), ("get nodes", 1));
        let (question, _) = read(&cluster, ask("get", "namespaces", Some("taurus"))).unwrap();
        assert_eq!(question.to_string(), "get namespaces taurus in taurus");
        let (question, _) = read(&cluster, ask("get", "pods", None)).unwrap();
        assert_eq!(question.to_string(), "get pods in any namespace");
    }

    #[test]
    fn mistakes_are_said() {
        let cluster = hyades();
        let said = |words| read(&cluster, words).unwrap_err().to_string();
        assert_eq!(
            said(ask("get", "pod", None)),
            "the cluster does not serve 'pod' (it does serve pods, pods/attach, pods/binding); a resource of a group that \
             is not served is said like pod.GROUP"
        );
        assert_eq!(said(ask("get", "pods", Some("nosuch"))), "the cluster has no namespace 'nosuch'");
        assert!(matches!(read(&cluster, ask("get", "/metrics", Some("taurus"))), Err(Unclear::Path)));
        let (question, notes) = read(&cluster, ask("get", "comets.example.test", None)).unwrap();
        assert_eq!(question.to_string(), "get comets.example.test in any namespace");
        assert_eq!(notes.len(), 1);
        let (_, notes) = read(&cluster, ask("fly", "pods", None)).unwrap();
        assert_eq!(notes, ["pods has no verb 'fly' on this cluster"]);
    }
}
