//! What a level allows on one cluster: RBAC cannot deny, so exceptions are left out of what the API server serves.

use std::collections::{BTreeMap, BTreeSet};

use super::world::{Rule, Rules, Served};
use crate::config::rbac::{Allow, Level, System};
use crate::identity::Pattern;

const READ: [&str; 3] = ["get", "list", "watch"];
/// The only subresources whose `get` is but reading: that of others opens a console, a proxy or a shell.
const READABLE: [&str; 3] = ["log", "scale", "status"];

/// What a grant for a whole cluster means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expanded {
    /// In every namespace and outside of them: a ClusterRole with a ClusterRoleBinding.
    pub everywhere: Rules,
    /// Where the first does less in skipped namespaces: a ClusterRole bound in each of the others.
    pub namespaces: Option<Rules>,
}

/// What of the API a set of rules is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    All,
    Namespaced,
    /// What holds in skipped namespaces too.
    Everywhere(System),
}

pub fn in_cluster(level: &Level, served: &[Served]) -> Expanded {
    if level.system == System::Same {
        return Expanded { everywhere: rules(level, served, Part::All), namespaces: None };
    }
    let namespaces = rules(level, served, Part::Namespaced);
    Expanded {
        everywhere: rules(level, served, Part::Everywhere(level.system)),
        namespaces: (!namespaces.rules.is_empty()).then_some(namespaces),
    }
}

/// What a grant for one namespace means: its Role.
pub fn in_namespace(level: &Level, served: &[Served]) -> Rules {
    rules(level, served, Part::Namespaced)
}

fn rules(level: &Level, served: &[Served], part: Part) -> Rules {
    let mut gathered = Gathered::default();
    for allow in &level.allow {
        gathered.allow(allow, served, part);
    }
    let mut rules = gathered.rules();
    if part != Part::Namespaced && !level.urls.is_empty() {
        let all = level.allow.iter().any(|allow| allow.verbs.iter().any(|verb| verb == "*"));
        let verbs = [if all { "*" } else { "get" }.to_owned()].into();
        rules.push(Rule { verbs, urls: level.urls.iter().cloned().collect(), ..Rule::default() });
    }
    rules.sort();
    Rules { rules, aggregated: false }
}

/// Verbs by API group and resource; `*` for all.
#[derive(Default)]
struct Gathered {
    verbs: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Gathered {
    fn allow(&mut self, allow: &Allow, served: &[Served], part: Part) {
        let wanted: Vec<Selector> = allow.resources.iter().map(Selector::new).collect();
        let except: Vec<Selector> = allow.except.iter().map(Selector::new).collect();
        let verbs: BTreeSet<String> = allow.verbs.iter().cloned().collect();
        let whole = matches!(part, Part::All | Part::Namespaced);
        if whole && except.is_empty() && wanted.iter().any(Selector::is_everything) {
            self.add("*", "*", &verbs);
            return;
        }
        // A name with a star in it would be read as one.
        let plain = |one: &&Served| !one.group.contains('*') && !one.resource.contains('*');
        let inside = |one: &&Served| part != Part::Namespaced || one.namespaced;
        for one in served.iter().filter(plain).filter(inside) {
            let group = one.group.as_str();
            // A group that no exception speaks of needs no list, and has its future resources allowed too.
            if whole && wanted.iter().any(|s| s.is_whole(group)) && !except.iter().any(|s| s.group(group)) {
                self.add(group, "*", &verbs);
            } else if wanted.iter().any(|s| s.matches(one)) && !except.iter().any(|s| s.matches(one)) {
                match part {
                    Part::Everywhere(system) if one.namespaced => {
                        self.add(group, &one.resource, &in_skipped(system, one, &verbs));
                    }
                    _ => self.add(group, &one.resource, &verbs),
                }
            }
        }
    }

    fn add(&mut self, group: &str, resource: &str, verbs: &BTreeSet<String>) {
        if !verbs.is_empty() {
            let all = self.verbs.entry((group.to_owned(), resource.to_owned())).or_default();
            all.extend(verbs.iter().cloned());
        }
    }

    /// In as few rules as say the same.
    fn rules(mut self) -> Vec<Rule> {
        for verbs in self.verbs.values_mut().filter(|verbs| verbs.contains("*")) {
            *verbs = BTreeSet::from(["*".to_owned()]);
        }
        let covered = |group: &str, resource: &str, verbs: &BTreeSet<String>| {
            let wider = [("*", "*"), (group, "*")].into_iter().filter(|wide| *wide != (group, resource));
            let mut wider = wider.filter_map(|(group, all)| self.verbs.get(&(group.to_owned(), all.to_owned())));
            wider.any(|wide| wide.contains("*") || verbs.is_subset(wide))
        };
        let mut by_group: BTreeMap<(&BTreeSet<String>, &String), BTreeSet<String>> = BTreeMap::new();
        for ((group, resource), verbs) in &self.verbs {
            if !covered(group, resource, verbs) {
                by_group.entry((verbs, group)).or_default().insert(resource.clone());
            }
        }
        let mut by_resources: BTreeMap<(&BTreeSet<String>, BTreeSet<String>), BTreeSet<String>> = BTreeMap::new();
        for ((verbs, group), resources) in by_group {
            by_resources.entry((verbs, resources)).or_default().insert(group.clone());
        }
        let rule = |((verbs, resources), groups): ((&BTreeSet<String>, _), _)| Rule {
            verbs: verbs.clone(),
            groups,
            resources,
            ..Rule::default()
        };
        by_resources.into_iter().map(rule).collect()
    }
}

/// The verbs that are left in skipped namespaces of those of a whole-cluster grant.
fn in_skipped(system: System, one: &Served, verbs: &BTreeSet<String>) -> BTreeSet<String> {
    let subresource = one.resource.split_once('/').map(|(_, sub)| sub);
    let secret = one.group.is_empty() && one.resource == "secrets";
    let harmless = subresource.is_none_or(|sub| READABLE.contains(&sub)) && !secret;
    match system {
        System::Same => verbs.clone(),
        System::Read if harmless => {
            READ.iter().filter(|verb| verbs.contains(**verb) || verbs.contains("*")).map(|v| v.to_string()).collect()
        }
        System::Read | System::None => BTreeSet::new(),
    }
}

/// `pods`, `pods/exec`, `deployments/scale.apps`, `*.apps`, `*`: without a dot it is of the core group, but `*` alone.
struct Selector {
    resource: Pattern,
    group: Pattern,
}

impl Selector {
    fn new(pattern: &Pattern) -> Self {
        let (resource, group) = match pattern.as_str() {
            "*" => ("*", "*"),
            text => text.split_once('.').unwrap_or((text, "")),
        };
        Self { resource: Pattern::new(resource), group: Pattern::new(group) }
    }

    fn group(&self, group: &str) -> bool {
        fits(&self.group, group)
    }

    fn matches(&self, one: &Served) -> bool {
        self.group(&one.group) && fits(&self.resource, &one.resource)
    }

    fn is_whole(&self, group: &str) -> bool {
        self.resource.as_str() == "*" && self.group(group)
    }

    fn is_everything(&self) -> bool {
        self.resource.as_str() == "*" && self.group.as_str() == "*"
    }
}

/// Most patterns are a star or have none: there are many resources to ask about.
fn fits(pattern: &Pattern, text: &str) -> bool {
    match pattern.as_str() {
        "*" => true,
        plain if !plain.contains(['*', '?']) => plain == text,
        _ => pattern.matches(text),
    }
}
