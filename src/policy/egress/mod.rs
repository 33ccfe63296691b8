//! The law of the way out: which rules are a user's, which of them match a target, which addresses they reach.

mod address;
mod aws;
mod preset;
mod target;

pub use address::{Class, class};
pub use aws::is_region;
pub use target::{Host, NotATarget, Target, is_host_name};

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::config::{Allow, Egress, EgressRule};

use preset::{Speech, speech};

/// The rules of a user in these groups.
pub fn granted(egress: &Egress, groups: &BTreeSet<String>) -> Vec<EgressRule> {
    egress.allow.iter().filter(|allow| is_for(allow, groups)).map(|allow| allow.rule.clone()).collect()
}

/// Whether a rule is for a user in these groups.
pub fn is_for(allow: &Allow, groups: &BTreeSet<String>) -> bool {
    let everybody = |pattern: &&crate::identity::Pattern| pattern.as_str() == "*";
    allow.groups.iter().any(|pattern| everybody(&pattern) || groups.iter().any(|group| pattern.matches(group)))
}

/// The rules that name this host and port.
pub fn matching<'r>(rules: &'r [EgressRule], target: &Target) -> Vec<&'r EgressRule> {
    let meant = |rule: &&EgressRule| {
        rule.ports.contains(&target.port) && (lists(rule, &target.host) || preset(rule, target).is_some())
    };
    rules.iter().filter(meant).collect()
}

/// Whether a rule that names this target wants TLS there which names it, too.
pub fn wants_tls(rule: &EgressRule, target: &Target) -> bool {
    rule.tls && preset(rule, target) != Some(Speech::Ssh)
}

fn lists(rule: &EgressRule, host: &Host) -> bool {
    match host {
        // An address is meant only by itself, never by a pattern.
        Host::Address(address) => rule.hosts.iter().any(|host| host.as_str().parse() == Ok(*address)),
        Host::Name(name) => rule.hosts.iter().any(|pattern| pattern.matches(name)),
    }
}

fn preset(rule: &EgressRule, target: &Target) -> Option<Speech> {
    match &target.host {
        Host::Address(_) => None,
        Host::Name(name) => speech(rule, name, target.port),
    }
}

/// Whether a rule's hosts may be reached at this address, which is where the names led; why not.
pub fn reaches(rule: &EgressRule, address: IpAddr) -> Result<(), &'static str> {
    match class(address) {
        Class::Never(why) => Err(why),
        Class::Public if rule.cidrs.is_empty() => Ok(()),
        _ if rule.cidrs.iter().any(|net| net.contains(&address::plain(address))) => Ok(()),
        Class::Private => Err("a private address, and the rule names no network that it lies in"),
        Class::Public => Err("an address outside the networks that the rule names"),
    }
}

#[cfg(test)]
mod tests;
