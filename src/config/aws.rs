//! `[aws]`: what STS would refuse at every login is refused here, once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::check::{HOUR, Host, SECOND};
use super::read::{Field, Reading};
use super::report::Mistake;
use super::types::{Aws, RoleTemplate};
use super::value::{Parsed, Value, duration, flag, map, path, spoken, text, wrong};

/// STS takes 50 tags; stockade adds its own.
const TAGS: usize = 40;
const POLICY: usize = 2048;
const ROLE: &str = "\"arn:aws:iam::123456789012:role/bastion/{user}\"";

pub(super) fn aws(r: &mut Reading<'_>, host: &Host<'_>) -> Option<Aws> {
    let mut s = r.section("aws");
    let region = s.must("region", "\"us-east-1\"", region);
    let account = s.maybe("account", account);
    let role = s.must("role", ROLE, role);
    let keys_from_iam = s.or("keys_from_iam", true, flag);
    let groups_from_iam = s.or("groups_from_iam", true, flag);
    let cache = s.or("cache", 300 * SECOND, duration(Duration::ZERO..=24 * HOUR));
    let stale = s.or("stale", 24 * HOUR, duration(Duration::ZERO..=720 * HOUR));
    let session_policy = s.maybe("session_policy", |value| policy(value, host));
    let session_tags = s.or("session_tags", BTreeMap::new(), tags);
    let lifetime = s.or("duration", HOUR, duration(900 * SECOND..=12 * HOUR));
    let imds_v1 = s.or("imds_v1", false, flag);
    s.close();
    r.mistakes.extend(elsewhere(&role, &account, &region));
    if let (Some(cache), Some(kept)) = (cache.value, stale.value)
        && kept < cache
    {
        let what = format!("`stale` ({}) is shorter than `cache` ({})", spoken(kept), spoken(cache));
        r.mistakes.push(stale.mistake(what, "an answer is used for `cache`, and up to `stale` while IAM is away"));
    }
    let role = role.value?;
    Some(Aws {
        region: region.value?,
        account: account.value?.unwrap_or_else(|| role.account().to_owned()),
        role,
        keys_from_iam: keys_from_iam.value?,
        groups_from_iam: groups_from_iam.value?,
        cache: cache.value?,
        stale: stale.value?,
        session_policy: session_policy.value?,
        session_tags: session_tags.value?,
        duration: lifetime.value?,
        imds_v1: imds_v1.value?,
    })
}

/// A role of another account, or of a partition that the region is not in.
fn elsewhere(role: &Field<RoleTemplate>, account: &Field<Option<String>>, region: &Field<String>) -> Vec<Mistake> {
    let Some(arn) = &role.value else { return Vec::new() };
    let mut mistakes = Vec::new();
    if let Some(Some(account)) = &account.value
        && arn.account() != account
    {
        let what = format!("`role` is of account {}, but `account` is {account}", arn.account());
        mistakes.push(role.mistake(what, "one of the two is a slip: they must be the same account"));
    }
    if let Some(region) = &region.value {
        let partition = match region.split('-').next() {
            Some("cn") => "aws-cn",
            Some("us") if region.starts_with("us-gov-") => "aws-us-gov",
            _ if region.contains("-iso") => arn.partition(),
            Some("eusc") => "aws-eusc",
            _ => "aws",
        };
        if arn.partition() != partition {
            let what = format!("`role` is in partition {}, but region {region} is in {partition}", arn.partition());
            mistakes.push(role.mistake(what, format!("the role's ARN begins with arn:{partition}: there")));
        }
    }
    mistakes
}

pub(super) fn region(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    let parts: Vec<&str> = found.split('-').collect();
    let words =
        parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    let number = parts.last().is_some_and(|part| part.bytes().all(|b| b.is_ascii_digit()));
    if parts.len() >= 3 && words && number {
        return Ok(found);
    }
    wrong(value, format!("'{found}' is not a region"), "write it as AWS does: \"us-east-1\"")
}

fn account(value: &Value<'_>) -> Parsed<String> {
    const HINT: &str = "write the twelve digits in quotes: leading zeros count";
    let found =
        text(value).map_err(|more| more.into_iter().map(|m| Mistake { hint: HINT.into(), ..m }).collect::<Vec<_>>())?;
    if found.len() == 12 && found.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(found);
    }
    wrong(value, format!("'{found}' is not an account"), HINT)
}

fn role(value: &Value<'_>) -> Parsed<RoleTemplate> {
    let found = text(value)?;
    RoleTemplate::try_from(found).or_else(|error| wrong(value, error.to_string(), format!("write it like {ROLE}")))
}

/// The session policy's file, read and inlined.
fn policy(value: &Value<'_>, host: &Host<'_>) -> Parsed<String> {
    let file = path(value)?;
    let found = (host.read)(Path::new(&file));
    let found = found.or_else(|error| wrong(value, error, "the loader reads it as root; make it a plain file"))?;
    let found = found.trim();
    let parsed: Result<serde_json::Value, _> = serde_json::from_str(found);
    match parsed {
        Err(error) => return wrong(value, format!("'{}' is not JSON: {error}", file.display()), "write an IAM policy"),
        Ok(json) if json.get("Statement").is_none() => {
            let what = format!("'{}' has no Statement", file.display());
            return wrong(value, what, "write an IAM policy: {\"Version\": \"2012-10-17\", \"Statement\": [...]}");
        }
        Ok(_) => {}
    }
    if let Some(letter) = found.chars().find(|c| !matches!(c, '\t' | '\n' | '\r' | ' '..='\u{ff}')) {
        return wrong(value, format!("'{letter}' is in '{}'", file.display()), "STS takes only Latin-1 letters");
    }
    match found.chars().count() {
        0..=POLICY => Ok(found.to_owned()),
        long => wrong(
            value,
            format!("'{}' has {long} characters, STS takes {POLICY}", file.display()),
            "take the white space out, or move statements to the role's own policies",
        ),
    }
}

/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_Tag.html>
pub(super) fn tags(value: &Value<'_>) -> Parsed<BTreeMap<String, String>> {
    let tags = map(|key, value| {
        let lower = key.to_lowercase();
        if lower.starts_with("aws:") || lower.starts_with("stockade:") {
            return wrong(value, format!("tag '{key}' is reserved"), "take another name; aws: and stockade: are taken");
        }
        if key.is_empty() || key.chars().count() > 128 || !key.chars().all(tag_letter) {
            let hint = "1 to 128 letters, digits, spaces and _ . : / = + - @";
            return wrong(value, format!("'{key}' is not the name of a tag"), hint);
        }
        let found = text(value)?;
        if found.chars().count() > 256 || !found.chars().all(tag_letter) {
            let hint = "at most 256 letters, digits, spaces and _ . : / = + - @";
            return wrong(value, format!("tag '{key}' has a value that STS refuses"), hint);
        }
        Ok(found)
    })(value)?;
    let distinct: BTreeSet<String> = tags.keys().map(|key| key.to_lowercase()).collect();
    if distinct.len() < tags.len() {
        return wrong(value, "two tags differ only in case", "STS takes them for the same tag: remove one");
    }
    if tags.len() > TAGS {
        return wrong(
            value,
            format!("{} tags", tags.len()),
            format!("at most {TAGS}: STS takes 50, stockade adds its own"),
        );
    }
    Ok(tags)
}

fn tag_letter(c: char) -> bool {
    c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c)
}
