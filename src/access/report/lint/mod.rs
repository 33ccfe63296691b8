//! What foreign roles and bindings of a cluster give away, and why an admin should know.

mod known;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::evaluate::{ANONYMOUS, AUTHENTICATED, Fit, UNAUTHENTICATED, fit, role};
use super::is_ours;
use super::question::{Place, Question, What, full};
use crate::access::world::{Binding, Cluster, Rbac, Rule, Rules, Seen, Subject, World};
use crate::recording::visible;

/// One thing to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// `ClusterRole view-all`, `RoleBinding taurus/open`
    pub object: String,
    /// What it gives.
    pub what: String,
    /// Why that matters, and what to do.
    pub why: String,
    /// Who has it by now.
    pub bound: Vec<String>,
}

/// Every finding on a cluster; what is ours and what Kubernetes itself makes are none.
pub fn lint(cluster: &Cluster) -> Vec<Finding> {
    let bound = bound(cluster);
    let everywhere = cluster.cluster_roles.iter().map(|(name, role)| (None, name, role));
    let inside = cluster.roles.iter().map(|((namespace, name), role)| (Some(namespace.as_str()), name, role));
    let roles = everywhere.chain(inside);
    let foreign = roles.filter(|(namespace, name, role)| !is_ours(name, role) && !known::is_built_in(*namespace, name));
    let mut found: Vec<Finding> = foreign.flat_map(|(at, name, role)| judge(at, name, &role.is, &bound)).collect();
    found.extend(open(cluster));
    found.sort();
    found
}

/// Of every cluster that could be read and has some, by its name.
pub fn everywhere(world: &World) -> BTreeMap<&str, Vec<Finding>> {
    let read = world.clusters.iter().filter_map(|(name, seen)| match seen {
        Seen::Read(cluster) => Some((name.as_str(), lint(cluster))),
        Seen::Away(_) => None,
    });
    read.filter(|(_, found)| !found.is_empty()).collect()
}

/// Lines for people; empty without findings.
pub fn text(found: &BTreeMap<&str, Vec<Finding>>) -> String {
    let mut text = String::new();
    for (cluster, findings) in found {
        for Finding { object, what, why, bound } in findings {
            let bound = if bound.is_empty() { "nobody yet".into() } else { bound.join(", ") };
            let line = visible(&format!("{cluster}: {object}: {what}; bound to {bound}"));
            text.push_str(&format!("{line}\n    {why}\n"));
        }
    }
    if text.is_empty() { text } else { format!("\nLeft open by others:\n{text}") }
}

type Bound = BTreeMap<(Option<String>, String), BTreeSet<String>>;

/// The subjects of each role.
fn bound(cluster: &Cluster) -> Bound {
    let mut bound = Bound::new();
    for (namespace, _, binding) in bindings(cluster) {
        let at = if binding.is.role.0 == "Role" { namespace.map(str::to_owned) } else { None };
        let subjects = binding.is.subjects.iter().map(|subject| match namespace {
            Some(namespace) => format!("{} in {namespace}", said(subject)),
            None => said(subject),
        });
        bound.entry((at, binding.is.role.1.clone())).or_default().extend(subjects);
    }
    bound
}

fn bindings(cluster: &Cluster) -> impl Iterator<Item = (Option<&str>, &String, &Rbac<Binding>)> {
    let everywhere = cluster.cluster_bindings.iter().map(|(name, binding)| (None, name, binding));
    let inside = cluster.bindings.iter();
    everywhere.chain(inside.map(|((namespace, name), binding)| (Some(namespace.as_str()), name, binding)))
}

pub(super) fn said(subject: &Subject) -> String {
    match subject {
        Subject::User(name) => format!("User {name}"),
        Subject::Group(name) => format!("Group {name}"),
        Subject::ServiceAccount(namespace, name) => format!("ServiceAccount {namespace}/{name}"),
    }
}

fn judge(namespace: Option<&str>, name: &str, rules: &Rules, bound: &Bound) -> Vec<Finding> {
    let object = match namespace {
        Some(namespace) => format!("Role {namespace}/{name}"),
        None => format!("ClusterRole {name}"),
    };
    let bound: Vec<String> =
        bound.get(&(namespace.map(str::to_owned), name.to_owned())).into_iter().flatten().cloned().collect();
    let finding = |(what, why): (String, &str)| Finding {
        object: object.clone(),
        what,
        why: why.to_owned(),
        bound: bound.clone(),
    };
    // Then there is nothing more to say.
    let all = |rule: &Rule| [&rule.verbs, &rule.groups, &rule.resources].iter().all(|set| set.contains("*"));
    if rules.rules.iter().any(|rule| all(rule) && rule.names.is_empty()) {
        return vec![finding(("everything".into(), EVERYTHING))];
    }
    let mut found = Vec::new();
    found.extend(streams(rules));
    found.extend(CHECKS.iter().filter_map(|check| check.of(rules)));
    found.extend(stars(rules));
    found.into_iter().map(finding).collect()
}

const EVERYTHING: &str = "whoever has it is admin of all it reaches, past every group of IAM";
const STAR: &str = "a star is also every verb that climbs (escalate, bind, impersonate) and every one that will come: \
                    list the verbs";
const RUNS: &str = "whoever has it runs commands in every container it reaches, as whoever the container is";
const OLD: &str = "before Kubernetes 1.35 this alone was enough over WebSockets; since then `create` is asked for too: \
                   give both, or take it out of a role that only reads";
const HALF: &str = "it runs commands over SPDY; WebSockets ask for `get` too, so new clients fall back or fail: give both \
                    or none";

/// Verbs on a resource that give more than they say.
struct Check {
    verbs: &'static [&'static str],
    group: &'static str,
    resources: &'static [&'static str],
    /// Whether a rule for certain names counts too.
    named: bool,
    why: &'static str,
}

const RBAC: &str = "rbac.authorization.k8s.io";

const CHECKS: &[Check] = &[
    Check {
        verbs: &["get", "create"],
        group: "",
        resources: &["nodes/proxy"],
        named: true,
        why: "it is exec in disguise: the kubelet runs commands in any container of the node for it, past admission and \
              the API server's audit; nodes/metrics, nodes/stats and nodes/log are enough for monitoring",
    },
    Check {
        verbs: &["escalate"],
        group: RBAC,
        resources: &["clusterroles", "roles"],
        named: true,
        why: "whoever has it writes into roles what they do not have themselves",
    },
    Check {
        verbs: &["bind"],
        group: RBAC,
        resources: &["clusterroles", "roles"],
        named: true,
        why: "whoever has it and may make bindings gives themselves roles that they do not have",
    },
    Check {
        verbs: &["impersonate"],
        group: "",
        resources: &["users", "groups", "serviceaccounts"],
        named: true,
        why: "whoever has it is anybody whom it names, or everybody",
    },
    Check {
        verbs: &["create"],
        group: "",
        resources: &["serviceaccounts/token"],
        named: true,
        why: "whoever has it logs in as those service accounts",
    },
    Check {
        verbs: &["list", "watch"],
        group: "",
        resources: &["secrets"],
        named: false,
        why: "a list of Secrets has what is in them, tokens of service accounts among it",
    },
];

impl Check {
    fn of(&self, rules: &Rules) -> Option<(String, &'static str)> {
        let gives = |verb: &&str, resource: &&str| match reach(rules, verb, self.group, resource) {
            Fit::Yes => true,
            Fit::Named(_) => self.named,
            Fit::No => false,
        };
        let resources: Vec<&str> = self
            .resources
            .iter()
            .filter(|resource| self.verbs.iter().any(|verb| gives(verb, resource)))
            .copied()
            .collect();
        let verbs: Vec<&str> = self
            .verbs
            .iter()
            .filter(|verb| self.resources.iter().any(|resource| gives(verb, resource)))
            .copied()
            .collect();
        (!verbs.is_empty()).then(|| (format!("{} {}", verbs.join(", "), resources.join(", ")), self.why))
    }
}

/// How far a role goes for one verb.
fn reach<'a>(rules: &'a Rules, verb: &str, group: &str, resource: &str) -> Fit<'a> {
    let what = What::Resource { group: group.into(), resource: resource.into(), place: Place::Anywhere, name: None };
    let question = Question { verb: verb.into(), what };
    let mut best = Fit::No;
    for rule in &rules.rules {
        match fit(rule, &question) {
            Fit::Yes => return Fit::Yes,
            Fit::No => {}
            named => best = named,
        }
    }
    best
}

/// exec, attach and port-forward, which from 1.35 ask `create` of WebSockets too.
fn streams(rules: &Rules) -> Vec<(String, &'static str)> {
    let has = |verb: &str, resource: &str| reach(rules, verb, "", resource) != Fit::No;
    let mut found = Vec::new();
    for resource in ["pods/exec", "pods/attach", "pods/portforward"] {
        match (has("get", resource), has("create", resource)) {
            (true, false) => found.push((format!("get {resource} without create"), OLD)),
            (false, true) if resource == "pods/exec" => found.push((format!("create {resource} without get"), HALF)),
            (true, true) if resource == "pods/exec" => found.push((format!("get, create {resource}"), RUNS)),
            _ => {}
        }
    }
    found
}

fn stars(rules: &Rules) -> Option<(String, &'static str)> {
    let stars = rules.rules.iter().filter(|rule| rule.verbs.contains("*") && !rule.resources.is_empty());
    let each = stars.flat_map(|rule| {
        let groups = rule.groups.iter();
        groups.flat_map(|group| rule.resources.iter().map(move |resource| full(group, resource)))
    });
    let on: BTreeSet<String> = each.collect();
    let on: Vec<String> = on.into_iter().collect();
    (!on.is_empty()).then(|| (format!("all verbs on {}", on.join(", ")), STAR))
}

/// Everybody, with or without a login, and every pod.
const ANYBODY: &[&str] = &[UNAUTHENTICATED, AUTHENTICATED, "system:serviceaccounts"];

/// Bindings that let everybody do more than find out what the API serves and who they are. What the binding is called,
/// and what it is labelled, does not matter.
fn open(cluster: &Cluster) -> Vec<Finding> {
    let mut found = Vec::new();
    for (namespace, name, binding) in bindings(cluster) {
        let anybody = |subject: &&Subject| match subject {
            Subject::User(user) => user == ANONYMOUS,
            Subject::Group(group) => ANYBODY.contains(&group.as_str()),
            Subject::ServiceAccount(..) => false,
        };
        let open: Vec<String> = binding.is.subjects.iter().filter(anybody).map(said).collect();
        let more = role(cluster, namespace, &binding.is).is_some_and(|role| !role.is.rules.iter().all(is_discovery));
        if open.is_empty() || !more {
            continue;
        }
        let object = match namespace {
            Some(namespace) => format!("RoleBinding {namespace}/{name}"),
            None => format!("ClusterRoleBinding {name}"),
        };
        let (kind, role) = &binding.is.role;
        found.push(Finding {
            object,
            what: format!("{kind} {role} for {}", open.join(", ")),
            why: "anybody who reaches the API server, or any pod, has it: name who needs it".into(),
            bound: open,
        });
    }
    found
}

/// What system:discovery, system:public-info-viewer, system:service-account-issuer-discovery and system:basic-user give.
fn is_discovery(rule: &Rule) -> bool {
    const PATHS: &[&str] =
        &["/api", "/apis", "/healthz", "/livez", "/readyz", "/openapi", "/version", "/.well-known/", "/openid/v1/jwks"];
    const SELF: &[&str] = &["selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"];
    let reads = rule.verbs.iter().all(|verb| verb == "get" || verb == "head");
    let path = |url: &String| PATHS.iter().any(|path| url.starts_with(path));
    let paths = rule.resources.is_empty() && reads && rule.urls.iter().all(path);
    let asks = rule.urls.is_empty()
        && rule.verbs.iter().all(|verb| verb == "create")
        && rule.groups.iter().all(|group| group == "authorization.k8s.io" || group == "authentication.k8s.io")
        && rule.resources.iter().all(|resource| SELF.contains(&resource.as_str()));
    paths || asks
}
