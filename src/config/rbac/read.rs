//! `[rbac]` as it is read: what IAM, EKS or a cluster would refuse is refused here, once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::level::{levels, with_built_in};
use super::{MembersFrom, Namespaces, Rbac};
use crate::config::aws::tags;
use crate::config::check::{HOUR, Host, SECOND};
use crate::config::kube::{Ground, Kube, KubeRole};
use crate::config::read::{Field, Reading};
use crate::config::report::Mistake;
use crate::config::value::{Parsed, Value, choice, duration, flag, list, path, read, text, whole, wrong};
use crate::identity::Pattern;

const DAY: Duration = Duration::from_secs(86_400);
/// Of all inline policies of a role, white space not counted.
const LONGEST_POLICY: usize = 10_240;
const BOUNDARY: &str = "\"arn:aws:iam::123456789012:policy/stockade-boundary\"";
const BASTION: &str = "[\"arn:aws:iam::123456789012:role/stockade\"]";

/// `Some(None)`: there is no such section.
pub(in crate::config) fn rbac(r: &mut Reading<'_>, ground: &Ground<'_>, kube: Option<&Kube>) -> Option<Option<Rbac>> {
    if !r.has("rbac") {
        return Some(None);
    }
    let mut s = r.section("rbac");
    let own = s.or("level", Vec::new(), levels);
    let built = s.or("default_levels", true, flag);
    let skip = s.or("skip_namespaces", vec![Pattern::new("kube-*")], list(namespaces_pattern));
    let namespaces = s.or("namespaces", false, labelled);
    let label = s.or("namespace_label", "stockade/access=yes".to_owned(), label);
    let group_path = s.or("group_path", "/stockade/".to_owned(), group_path);
    let username = s.or("username", "stockade:{user}".to_owned(), username);
    let bastion = match ground.has_aws {
        true => s.must("bastion", BASTION, list(identity)),
        false => s.or("bastion", Vec::new(), list(identity)),
    };
    let boundary = s.maybe("boundary", boundary);
    let role_tags = s.or("role_tags", BTreeMap::new(), tags);
    let role_policy = s.or("role_policy", describe_cluster(), |value| policy(value, ground.host));
    let members = s.or("members", if ground.has_aws { Whence::Iam } else { Whence::File }, members);
    let tag = s.or("member_tag", "stockade:groups".to_owned(), tag);
    let most_removed = s.or("most_removed", 20, whole(0..=100));
    let grace = s.or("grace", 7 * DAY, duration(Duration::ZERO..=365 * DAY));
    let cycle = s.or("cycle", 300 * SECOND, duration(SECOND..=24 * HOUR));
    let queue = s.maybe("queue", queue);
    let audit = s.or("audit", "/var/lib/stockade/access.jsonl".into(), path);
    let state = s.or("state", "/var/lib/stockade/access".into(), path);
    let listen = s.maybe("listen", read::<SocketAddr>("write an address and a port: \"127.0.0.1:9464\""));
    let kubeconfig = s.maybe("kubeconfig", path);
    let lease_namespace = s.or("lease_namespace", "kube-system".to_owned(), namespace);
    s.close();
    r.mistakes.extend(without_aws(ground, &members, &bastion));
    r.mistakes.extend(unbounded(ground, &boundary));
    r.mistakes.extend(one_name(ground, kube, &bastion));
    Some(Some(Rbac {
        levels: with_built_in(own.value?, built.value?),
        skip_namespaces: skip.value?,
        namespaces: if namespaces.value? { Namespaces::Labelled(label.value?) } else { Namespaces::All },
        group_path: group_path.value?,
        username: username.value?,
        bastion: bastion.value?,
        boundary: boundary.value?,
        role_tags: role_tags.value?,
        role_policy: role_policy.value?,
        members: match members.value? {
            Whence::Iam => MembersFrom::Iam,
            Whence::Tags => MembersFrom::Tag(tag.value?),
            Whence::File => MembersFrom::File,
        },
        most_removed: u8::try_from(most_removed.value?).unwrap_or(100),
        grace: grace.value?,
        cycle: cycle.value?,
        queue: queue.value?,
        audit: audit.value?,
        state: state.value?,
        listen: listen.value?,
        kubeconfig: kubeconfig.value?,
        lease_namespace: lease_namespace.value?,
    }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whence {
    Iam,
    Tags,
    File,
}

fn members(value: &Value<'_>) -> Parsed<Whence> {
    const FROM: &[(&str, Whence)] = &[("iam", Whence::Iam), ("tags", Whence::Tags), ("file", Whence::File)];
    choice(FROM)(value)
}

fn labelled(value: &Value<'_>) -> Parsed<bool> {
    const WHICH: &[(&str, bool)] = &[("all", false), ("labelled", true)];
    choice(WHICH)(value)
}

fn without_aws(ground: &Ground<'_>, members: &Field<Whence>, bastion: &Field<Vec<String>>) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    if !ground.has_aws && members.value.is_some_and(|from| from != Whence::File) {
        let hint = "add [aws], or write members = \"file\": then [users] groups says who is in";
        mistakes.push(members.mistake("`members` of IAM without [aws]", hint));
    }
    if ground.has_aws && bastion.value.as_ref().is_some_and(Vec::is_empty) {
        let hint = format!("name the bastion's own role, which alone may assume users' roles: {BASTION}");
        mistakes.push(bastion.mistake("`bastion`: nobody could assume users' roles", hint));
    }
    mistakes
}

/// Whoever makes roles without a boundary can make an administrator.
fn unbounded(ground: &Ground<'_>, boundary: &Field<Option<String>>) -> Option<Mistake> {
    let hint = format!("add boundary = {BOUNDARY}: a policy that is the most that any user's role may do");
    (ground.has_aws && matches!(boundary.value, Some(None)))
        .then(|| boundary.mistake("`boundary` is missing from [rbac]", hint))
}

/// Roles are made in one account, where a name is taken whatever its path.
fn one_name(ground: &Ground<'_>, kube: Option<&Kube>, at: &Field<Vec<String>>) -> Option<Mistake> {
    let (aws, KubeRole::Separate(second)) = (ground.aws?, &kube?.role) else { return None };
    if second.account() != aws.role.account() {
        let what = format!("`role` of [kube] is in account {}, that of [aws] in {}", second.account(), aws.account);
        return Some(at.mistake(what, "roles are made in one account: name a role of the same one in [kube]"));
    }
    let name = |arn: &str| arn.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    (name(second.as_str()) == name(aws.role.as_str())).then(|| {
        let what = "`role` of [kube] has the name of that of [aws], under another path";
        at.mistake(what, "IAM and aws-auth take two roles of one name for one: write {user}-kube there")
    })
}

fn describe_cluster() -> Json {
    json!({
        "Version": "2012-10-17",
        "Statement": [{ "Effect": "Allow", "Action": "eks:DescribeCluster", "Resource": "*" }],
    })
}

fn policy(value: &Value<'_>, host: &Host<'_>) -> Parsed<Json> {
    const HINT: &str =
        "write an IAM policy, or the path of its file: {\"Version\": \"2012-10-17\", \"Statement\": [...]}";
    let found = text(value)?;
    let found = match found.starts_with('/') {
        true => (host.read)(Path::new(&found)).or_else(|error| wrong(value, error, HINT))?,
        false => found,
    };
    let parsed: Json = match serde_json::from_str(&found) {
        Ok(parsed) => parsed,
        Err(error) => return wrong(value, format!("not JSON: {error}"), HINT),
    };
    if parsed.get("Statement").is_none() {
        return wrong(value, "the policy has no Statement", HINT);
    }
    match parsed.to_string().len() {
        0..=LONGEST_POLICY => Ok(parsed),
        long => wrong(value, format!("{long} characters, IAM takes {LONGEST_POLICY}"), "shorten it"),
    }
}

fn namespaces_pattern(value: &Value<'_>) -> Parsed<Pattern> {
    let found = text(value)?;
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-*?".contains(&b);
    if !found.is_empty() && found.bytes().all(letter) {
        return Ok(Pattern::new(found));
    }
    let hint = "names are of the letters a-z 0-9 - and * stands for any run of them";
    wrong(value, format!("'{}' cannot match any namespace", found.escape_debug()), hint)
}

fn namespace(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=63).contains(&found.len()) && found.bytes().all(letter) {
        return Ok(found);
    }
    wrong(value, format!("'{}' is not a namespace", found.escape_debug()), "at most 63 of the letters a-z 0-9 -")
}

fn label(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    match found.split_once('=') {
        Some((key, label)) if !key.is_empty() && key.bytes().chain(label.bytes()).all(letter) => Ok(found),
        _ => wrong(value, format!("'{}' is not a label", found.escape_debug()), "write \"stockade/access=yes\""),
    }
}

/// All of the account's groups would be ours below `/`.
fn group_path(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-/".contains(&b);
    let whole = found.starts_with('/') && found.ends_with('/') && !found.contains("//") && found.len() <= 512;
    if whole && found.len() > 2 && found.bytes().all(letter) {
        return Ok(found);
    }
    let hint = "begin and end it with /: \"/stockade/\"; groups below it are ours to make and to remove";
    wrong(value, format!("'{}' is not a path of IAM for groups of our own", found.escape_debug()), hint)
}

/// EKS keeps these beginnings for itself.
fn username(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    if found.matches("{user}").count() != 1 || found.replace("{user}", "").contains(['{', '}']) {
        return wrong(value, "`{user}` belongs in it once", "write \"stockade:{user}\"");
    }
    let reserved = ["system:", "eks:", "aws:", "amazon:", "iam:"].into_iter().find(|word| found.starts_with(word));
    if let Some(reserved) = reserved {
        return wrong(value, format!("'{reserved}' is the cluster's own"), "write \"stockade:{user}\"");
    }
    let plain = |c: char| c.is_ascii_graphic() && !"\"'\\*".contains(c);
    if found.len() > 128 || !found.chars().all(plain) {
        return wrong(value, "a letter that names of users should not have", "write \"stockade:{user}\"");
    }
    Ok(found)
}

/// A role or a user; a session of a role is no principal that lasts.
fn identity(value: &Value<'_>) -> Parsed<String> {
    const HINT: &str = "write the ARN of the bastion's role: \"arn:aws:iam::123456789012:role/stockade\"";
    let found = text(value)?;
    if is_arn(&found, &["role/", "user/"]) {
        return Ok(found);
    }
    wrong(value, format!("'{}' is not the ARN of a role or a user", found.escape_debug()), HINT)
}

fn boundary(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    if is_arn(&found, &["policy/"]) {
        return Ok(found);
    }
    let hint = format!("write it like {BOUNDARY}");
    wrong(value, format!("'{}' is not the ARN of a policy", found.escape_debug()), hint)
}

fn is_arn(text: &str, kinds: &[&str]) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-/".contains(&b);
    let ["arn", partition, "iam", "", account, resource] = parts.as_slice() else { return false };
    let name = kinds.iter().find_map(|kind| resource.strip_prefix(kind)).unwrap_or_default();
    let digits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    (digits || (*account == "aws" && kinds.contains(&"policy/")))
        && (*partition == "aws" || partition.starts_with("aws-"))
        && !name.is_empty()
        && name.bytes().all(letter)
}

fn tag(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    let letter = |c: char| c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c);
    if (1..=128).contains(&found.chars().count()) && found.chars().all(letter) {
        return Ok(found);
    }
    wrong(value, format!("'{}' is not the name of a tag", found.escape_debug()), "write \"stockade:groups\"")
}

fn queue(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    let rest = found.strip_prefix("https://").or_else(|| found.strip_prefix("http://")).unwrap_or_default();
    if rest.contains('/') && rest.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(found);
    }
    let hint = "write it as SQS does: \"https://sqs.us-east-1.amazonaws.com/123456789012/stockade-access\"";
    wrong(value, format!("'{}' is not the URL of a queue", found.escape_debug()), hint)
}
