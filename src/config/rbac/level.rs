//! `[[rbac.level]]`: what a level allows, and the levels that there are without one.

use std::collections::BTreeSet;

use toml::de::DeTable;

use super::{Allow, Level, System};
use crate::config::value::{Fields, Parsed, Value, choice, list, text, wrong};
use crate::identity::Pattern;

const BUILT_IN: &str = include_str!("../levels.toml");
const LEVEL: &str = "a [[rbac.level]]";
const ALLOW: &str = "an `allow` of [[rbac.level]]";

/// admin, poweruser and user.
pub fn built_in() -> Vec<Level> {
    let (root, _) = DeTable::parse_recoverable(BUILT_IN);
    let levels = root.into_inner().into_iter().find(|(key, _)| key.get_ref() == "level");
    levels.and_then(|(_, value)| list(level)(&value).ok()).unwrap_or_default()
}

/// Those of the file stand beside the built-in ones, or in their place.
pub(super) fn with_built_in(own: Vec<Level>, built: bool) -> Vec<Level> {
    let names: BTreeSet<String> = own.iter().map(|level| level.name.clone()).collect();
    let built = if built { built_in() } else { Vec::new() };
    built.into_iter().filter(|level| !names.contains(&level.name)).chain(own).collect()
}

pub(super) fn levels(value: &Value<'_>) -> Parsed<Vec<Level>> {
    let found = list(level)(value)?;
    let names: BTreeSet<&str> = found.iter().map(|level| level.name.as_str()).collect();
    if names.len() < found.len() {
        return wrong(value, "two levels have one name", "a group's name says the level: rename one of them");
    }
    Ok(found)
}

fn level(value: &Value<'_>) -> Parsed<Level> {
    const SYSTEM: &[(&str, System)] = &[("same", System::Same), ("read", System::Read), ("none", System::None)];
    let mut f = Fields::of(value, LEVEL)?;
    let name = f.must("name", "\"release\"", name);
    let system = f.or("system_namespaces", System::Read, choice(SYSTEM));
    let urls = f.or("urls", Vec::new(), list(url));
    let allow = f.must("allow", "[{ resources = [\"pods\"], verbs = [\"get\"] }]", list(allow));
    f.close()?;
    match (name, allow) {
        (Some(name), Some(allow)) if !allow.is_empty() => Ok(Level { name, allow, urls, system }),
        _ => wrong(value, "a level that allows nothing", "add an `allow`, or take it out"),
    }
}

/// It is part of the names of groups, where `@` ends it.
fn name(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=32).contains(&found.len()) && found.bytes().all(letter) {
        return Ok(found);
    }
    wrong(value, format!("'{}' cannot be a level", found.escape_debug()), "1 to 32 of the letters a-z 0-9 -")
}

fn allow(value: &Value<'_>) -> Parsed<Allow> {
    let mut f = Fields::of(value, ALLOW)?;
    let resources = f.must("resources", "[\"pods\", \"*.apps\"]", list(resource)).unwrap_or_default();
    let except = f.or("except", Vec::new(), list(resource));
    let verbs = f.must("verbs", "[\"get\", \"list\", \"watch\"]", list(verb)).unwrap_or_default();
    f.close()?;
    if resources.is_empty() || verbs.is_empty() {
        return wrong(value, "an empty list, so nothing is allowed", "name resources and verbs, or take it out");
    }
    if verbs.len() > 1 && verbs.iter().any(|verb| verb == "*") {
        return wrong(value, "`verbs`: \"*\" and others", "\"*\" alone is all of them, climbing included");
    }
    Ok(Allow { resources, except, verbs })
}

/// The subresource stands before the group, as in the rules of RBAC.
fn resource(value: &Value<'_>) -> Parsed<Pattern> {
    const HINT: &str = "write \"pods\", \"pods/exec\", \"deployments/scale.apps\", \"*.apps\" or \"*\"";
    let found = text(value)?;
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-./*?".contains(&b);
    let (resource, group) = found.split_once('.').unwrap_or((&found, ""));
    if resource.is_empty() || found.len() > 256 || !found.bytes().all(letter) || resource.matches('/').count() > 1 {
        return wrong(value, format!("'{}' is not a resource", found.escape_debug()), HINT);
    }
    if group.contains('/') {
        return wrong(value, format!("'{found}' has a `/` in its group"), HINT);
    }
    Ok(Pattern::new(found))
}

fn verb(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    if found == "*" || (!found.is_empty() && found.bytes().all(|b| b.is_ascii_lowercase())) {
        return Ok(found);
    }
    wrong(
        value,
        format!("'{}' is not a verb", found.escape_debug()),
        "write them as Kubernetes does: \"get\", \"list\"",
    )
}

fn url(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    let path = found.strip_suffix('*').unwrap_or(&found);
    if found == "*" || (path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'*')) {
        return Ok(found);
    }
    let hint = "write a path, with * at its end alone: \"/healthz\", \"/healthz/*\"";
    wrong(value, format!("'{}' is not a path", found.escape_debug()), hint)
}
