use std::collections::BTreeSet;
use std::fmt;

use crate::config::{Access, Home};
use crate::identity::authorized_keys::{AuthorizedKey, WhyNot};
use crate::identity::{Pattern, Principal};

/// What speaks for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A key that is listed for the user, and whose conditions hold.
    Key { fingerprint: String, terminal: bool },
    /// None is, or they do not.
    NoKey(WhyNot),
}

impl From<&AuthorizedKey> for Evidence {
    fn from(key: &AuthorizedKey) -> Self {
        Self::Key { fingerprint: key.fingerprint(), terminal: key.terminal }
    }
}

impl From<Result<&AuthorizedKey, WhyNot>> for Evidence {
    fn from(found: Result<&AuthorizedKey, WhyNot>) -> Self {
        found.map_or_else(Self::NoKey, Self::from)
    }
}

/// The answer to "may this user come in".
#[must_use = "a decision that nobody looks at lets somebody in, or nobody"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Permit(Permit),
    Denial(Denial),
}

/// The user may come in. Only `decide` makes one, so whoever holds one has asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    principal: Principal,
    groups: BTreeSet<String>,
    fingerprint: String,
    terminal: bool,
    home: Home,
    by: Rule,
}

/// The user may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub principal: Principal,
    pub groups: BTreeSet<String>,
    pub reason: Reason,
}

/// The rule that let somebody in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `allow_groups` has `*`.
    Everybody,
    Group {
        pattern: Pattern,
        group: String,
    },
}

/// The first thing that stands against a user, in the order it is looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("deny_users has '{pattern}'")]
    User { pattern: Pattern },
    #[error("deny_groups has '{pattern}', and they are in group '{group}'")]
    Group { pattern: Pattern, group: String },
    #[error("allow_groups is empty: nobody may log in")]
    Nobody,
    #[error("allow_groups has {allowed}, and they are in {held}")]
    NoGroup { allowed: String, held: String },
    #[error("{0}")]
    Key(WhyNot),
}

/// Decides whether a user may log in. Deny wins over allow, whatever its order; rules are looked at before keys, so
/// that the reason of a denied user does not depend on the key they came with.
///
/// ```no_run
/// use stockade::config::{Access, Home};
/// use stockade::identity::Pattern;
/// use stockade::policy::{Decision, Evidence, decide};
///
/// let access = Access { allow_groups: vec![Pattern::new("ops*")], deny_groups: vec![], deny_users: vec![] };
/// let key = Evidence::Key { fingerprint: "SHA256:x".into(), terminal: true };
/// let alice = "alice".parse().unwrap();
/// let decision = decide(&access, Home::Persistent, &alice, ["ops-night".to_owned()].into(), &key);
/// assert!(matches!(decision, Decision::Permit(_)));
/// assert_eq!(decision.to_string(), "'alice' may log in: allow_groups has 'ops*', and they are in group 'ops-night'");
/// ```
pub fn decide(
    access: &Access,
    home: Home,
    principal: &Principal,
    groups: BTreeSet<String>,
    evidence: &Evidence,
) -> Decision {
    let denied = |groups, reason| Decision::Denial(Denial { principal: principal.clone(), groups, reason });
    let by = match rule(access, principal, &groups) {
        Ok(rule) => rule,
        Err(reason) => return denied(groups, reason),
    };
    match evidence {
        Evidence::NoKey(why) => denied(groups, Reason::Key(why.clone())),
        Evidence::Key { fingerprint, terminal } => Decision::Permit(Permit {
            principal: principal.clone(),
            groups,
            fingerprint: fingerprint.clone(),
            terminal: *terminal,
            home,
            by,
        }),
    }
}

fn rule(access: &Access, principal: &Principal, groups: &BTreeSet<String>) -> Result<Rule, Reason> {
    if let Some(pattern) = access.deny_users.iter().find(|pattern| pattern.matches(principal.as_str())) {
        return Err(Reason::User { pattern: pattern.clone() });
    }
    if let Some((pattern, group)) = meet(&access.deny_groups, groups) {
        return Err(Reason::Group { pattern: pattern.clone(), group: group.clone() });
    }
    if access.allow_groups.is_empty() {
        return Err(Reason::Nobody);
    }
    if access.allow_groups.iter().any(|pattern| pattern.as_str() == "*") {
        return Ok(Rule::Everybody);
    }
    match meet(&access.allow_groups, groups) {
        Some((pattern, group)) => Ok(Rule::Group { pattern: pattern.clone(), group: group.clone() }),
        None => Err(Reason::NoGroup {
            allowed: named(access.allow_groups.iter().map(Pattern::as_str)),
            held: if groups.is_empty() { "no group".into() } else { named(groups.iter().map(String::as_str)) },
        }),
    }
}

fn meet<'a>(patterns: &'a [Pattern], groups: &'a BTreeSet<String>) -> Option<(&'a Pattern, &'a String)> {
    patterns.iter().find_map(|pattern| Some((pattern, groups.iter().find(|group| pattern.matches(group))?)))
}

fn named<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

impl Permit {
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    pub fn groups(&self) -> &BTreeSet<String> {
        &self.groups
    }

    /// Of the key that spoke for the user.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether a terminal may be allocated; `no-pty` and `restrict` of the key's line forbid it.
    pub fn terminal(&self) -> bool {
        self.terminal
    }

    pub fn home(&self) -> Home {
        self.home
    }

    pub fn rule(&self) -> &Rule {
        &self.by
    }
}

impl Decision {
    pub fn permit(self) -> Result<Permit, Denial> {
        match self {
            Self::Permit(permit) => Ok(permit),
            Self::Denial(denial) => Err(denial),
        }
    }

    /// Why, in sentences that name the rule, one a line.
    pub fn explain(&self) -> Vec<String> {
        let mut sentences = vec![format!("{self}.")];
        if let Self::Permit(permit) = self {
            sentences.push(format!("The key {} spoke for them.", permit.fingerprint));
            if !permit.terminal {
                sentences.push("The key's line forbids a terminal: only commands without one will run.".into());
            }
            sentences.push(match permit.home {
                Home::Persistent => "Their home is kept from one session to the next.".into(),
                Home::Ephemeral => "Their home goes with the jail.".into(),
            });
        }
        sentences
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permit(permit) => write!(f, "'{}' may log in: {}", permit.principal, permit.by),
            Self::Denial(denial) => denial.fmt(f),
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' may not log in: {}", self.principal, self.reason)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("allow_groups has '*'"),
            Self::Group { pattern, group } => {
                write!(f, "allow_groups has '{pattern}', and they are in group '{group}'")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(allow: &[&str], deny: &[&str], users: &[&str]) -> Access {
        let patterns = |texts: &[&str]| texts.iter().copied().map(Pattern::new).collect();
        Access { allow_groups: patterns(allow), deny_groups: patterns(deny), deny_users: patterns(users) }
    }

    fn key() -> Evidence {
        Evidence::Key { fingerprint: "SHA256:abc".into(), terminal: true }
    }

    fn said(access: &Access, groups: &[&str], evidence: &Evidence) -> String {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        decide(access, Home::Persistent, &"alice".parse().unwrap(), groups, evidence).to_string()
    }

    #[test]
    fn each_rule_names_itself() {
        for (access, groups, wanted) in [
            (access(&["*"], &[], &[]), &[][..], "may log in: allow_groups has '*'"),
            (
                access(&["ops"], &[], &[]),
                &["dev", "ops"],
                "may log in: allow_groups has 'ops', and they are in group 'ops'",
            ),
            (
                access(&["k8s-*@hyades"], &[], &[]),
                &["k8s-admin@hyades"],
                "may log in: allow_groups has 'k8s-*@hyades', and they are in group 'k8s-admin@hyades'",
            ),
            (access(&[], &[], &[]), &["ops"], "may not log in: allow_groups is empty: nobody may log in"),
            (
                access(&["ops", "dba"], &[], &[]),
                &["dev", "web"],
                "may not log in: allow_groups has 'ops', 'dba', and they are in 'dev', 'web'",
            ),
            (access(&["ops"], &[], &[]), &[], "may not log in: allow_groups has 'ops', and they are in no group"),
            (access(&["**"], &[], &[]), &[], "may not log in: allow_groups has '**', and they are in no group"),
        ] {
            assert_eq!(said(&access, groups, &key()), format!("'alice' {wanted}"));
        }
    }

    #[test]
    fn deny_wins() {
        let group = access(&["*", "ops"], &["o*"], &[]);
        assert_eq!(
            said(&group, &["ops"], &key()),
            "'alice' may not log in: deny_groups has 'o*', and they are in group 'ops'"
        );
        let user = access(&["*"], &["ops"], &["al*"]);
        assert_eq!(said(&user, &["ops"], &key()), "'alice' may not log in: deny_users has 'al*'");
        assert!(said(&access(&["*"], &["ops"], &["bob"]), &["dev"], &key()).contains("may log in"));
    }

    #[test]
    fn no_key_no_permit() {
        let none = Evidence::NoKey(WhyNot::NoKeys);
        assert_eq!(
            said(&access(&["*"], &[], &[]), &[], &none),
            "'alice' may not log in: no key is listed for the user"
        );
        assert_eq!(
            said(&access(&["*"], &[], &["alice"]), &[], &none),
            "'alice' may not log in: deny_users has 'alice'"
        );
    }

    #[test]
    fn a_permit_explains_itself() {
        let evidence = Evidence::Key { fingerprint: "SHA256:abc".into(), terminal: false };
        let decision =
            decide(&access(&["*"], &[], &[]), Home::Ephemeral, &"alice".parse().unwrap(), BTreeSet::new(), &evidence);
        assert_eq!(
            decision.explain(),
            [
                "'alice' may log in: allow_groups has '*'.",
                "The key SHA256:abc spoke for them.",
                "The key's line forbids a terminal: only commands without one will run.",
                "Their home goes with the jail.",
            ]
        );
        let permit = decision.permit().unwrap();
        assert_eq!((permit.fingerprint(), permit.terminal(), permit.home()), ("SHA256:abc", false, Home::Ephemeral));
    }
}
