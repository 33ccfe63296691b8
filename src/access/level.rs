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
    /// Where the first does less in skipped namespaces: a ClusterRole bound in each of the others. It may have no rules.
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
    Expanded {
        everywhere: rules(level, served, Part::Everywhere(level.system)),
        namespaces: Some(rules(level, served, Part::Namespaced)),
    }
}

/// What a grant for one namespace means: its Role.
pub fn in_namespace(level: &Level, served: &[Served]) -> Rules {
    rules(level, served, Part::Namespaced)
}

/// The same with what an object of this level, as it was written last, has of groups that cannot be asked just now: roles
/// must not shrink and grow with the health of somebody's server. What the level allows no more goes all the same.
pub fn keeping(rules: Rules, level: &Level, held: &Rules, stale: &BTreeSet<String>) -> Rules {
    let had = Gathered::of(held, |group| stale.contains(group));
    if had.verbs.is_empty() {
        return rules;
    }
    let (mut kept, level) = (Gathered::of(&rules, |_| true), gathered(level, &had.as_served(), Part::All));
    for ((group, resource), verbs) in &had.verbs {
        kept.add(group, resource, &level.common(group, resource, verbs));
    }
    let urls = rules.rules.into_iter().filter(|rule| !rule.urls.is_empty());
    let mut rules: Vec<Rule> = kept.rules().into_iter().chain(urls).collect();
    rules.sort();
    Rules { rules, aggregated: false }
}

fn gathered(level: &Level, served: &[Served], part: Part) -> Gathered {
    let mut gathered = Gathered::default();
    for allow in &level.allow {
        gathered.allow(allow, served, part);
    }
    gathered
}

fn rules(level: &Level, served: &[Served], part: Part) -> Rules {
    let mut rules = gathered(level, served, part).rules();
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
    /// What rules say of some groups; what they say of certain names or of paths is left out.
    fn of(rules: &Rules, is_meant: impl Fn(&str) -> bool) -> Self {
        let mut gathered = Self::default();
        for rule in rules.rules.iter().filter(|rule| rule.names.is_empty()) {
            for group in rule.groups.iter().filter(|group| is_meant(group)) {
                rule.resources.iter().for_each(|resource| gathered.add(group, resource, &rule.verbs));
            }
        }
        gathered
    }

    /// As if the API server had told them.
    fn as_served(&self) -> Vec<Served> {
        let one = |(group, resource): &(String, String)| Served {
            group: group.clone(),
            resource: resource.clone(),
            namespaced: true,
            verbs: BTreeSet::new(),
        };
        self.verbs.keys().map(one).collect()
    }

    /// Those of the verbs that are allowed here as well.
    fn common(&self, group: &str, resource: &str, verbs: &BTreeSet<String>) -> BTreeSet<String> {
        let wider = [(group, resource), (group, "*"), ("*", "*")];
        let here = wider.into_iter().filter_map(|(g, r)| self.verbs.get(&(g.to_owned(), r.to_owned())));
        let here: BTreeSet<String> = here.flatten().cloned().collect();
        match (here.contains("*"), verbs.contains("*")) {
            (true, _) => verbs.clone(),
            (false, true) => here,
            (false, false) => &here & verbs,
        }
    }

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
        let plain = |name: &str| !name.contains('*');
        let inside = |one: &&Served| part != Part::Namespaced || one.namespaced;
        for one in served.iter().filter(|one| plain(&one.group)).filter(inside) {
            let group = one.group.as_str();
            // A group that no exception speaks of needs no list, and has its future resources allowed too.
            if whole && wanted.iter().any(|s| s.is_whole(group)) && !except.iter().any(|s| s.group(group)) {
                self.add(group, "*", &verbs);
            } else if plain(&one.resource)
                && wanted.iter().any(|s| s.matches(one))
                && !except.iter().any(|s| s.matches(one))
            {
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
