//! `[kube]` as it is read: what would make every request fail, or say less than it seems to, is a mistake.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::cluster::{Known, authority, endpoint, label};
use super::{AsRule, AuditRule, Clocks, ClusterRule, Discover, Kube, KubeRole, Level, PublicDoor, StaticCluster};
use crate::config::aws::region;
use crate::config::check::{HOUR, Host, SECOND, pattern};
use crate::config::read::{Field, Reading};
use crate::config::report::Mistake;
use crate::config::types::{Aws, RoleTemplate};
use crate::config::value::{Fields, Parsed, Value, choice, duration, flag, list, map, path, read, text, wrong};
use crate::identity::Pattern;

const DISCOVER: &str = "a [[kube.discover]]";
const MOST_CLUSTERS: usize = 200;
const MOST_CERTIFICATES: usize = 512 * 1024;
const MOST_PATTERNS: usize = 16 * 1024;
const ROLE: &str = "\"arn:aws:iam::123456789012:role/bastion/{user}-kube\"";

/// What the rest of the file and the host say.
pub(in crate::config) struct Ground<'a> {
    pub host: &'a Host<'a>,
    pub has_aws: bool,
    /// `None` also where `[aws]` has mistakes.
    pub aws: Option<&'a Aws>,
    /// What a bastion alone has is looked at.
    pub is_bastion: bool,
}

pub(in crate::config) fn kube(r: &mut Reading<'_>, ground: &Ground<'_>) -> Option<Kube> {
    const ROLES: &[(&str, bool)] = &[("separate", false), ("same", true)];
    let mut s = r.section("kube");
    let kube_role = s.maybe("kube_role", choice(ROLES));
    let role = s.maybe("role", template);
    let refresh = s.or("refresh", 300 * SECOND, duration(60 * SECOND..=24 * HOUR));
    let clocks = s.or("clocks", Clocks::default(), clocks);
    let known = Known::default();
    let clusters = s.or("cluster", Vec::new(), list(|value| known.cluster(value, ground)));
    let discover = s.or("discover", Vec::new(), list(|value| discover(value, ground)));
    let allow = s.or("allow", Vec::new(), list(rule));
    let deny = s.or("deny", Vec::new(), list(rule));
    let impersonate = s.or("impersonate", Vec::new(), list(impersonate));
    let audit = s.or("audit", Vec::new(), list(audit));
    let public = s.maybe("public", |value| match ground.is_bastion {
        true => public(value, ground.host).map(Some),
        false => Ok(None),
    });
    s.close();
    r.mistakes.extend(too_much(&clusters, &impersonate));
    let role = whose(r, ground, &kube_role, &role);
    Some(Kube {
        role: role?,
        clusters: clusters.value?,
        discover: discover.value?,
        refresh: refresh.value?,
        allow: allow.value?,
        deny: deny.value?,
        impersonate: impersonate.value?,
        audit: audit.value?,
        clocks: clocks.value?,
        public: public.value?.flatten(),
    })
}

/// All of it travels in packets and in one sealed file.
fn too_much(clusters: &Field<Vec<StaticCluster>>, others: &Field<Vec<AsRule>>) -> Option<Mistake> {
    let certificates = clusters.value.iter().flatten().filter_map(|cluster| cluster.authority.as_ref());
    if clusters.value.as_ref().is_some_and(|all| all.len() > MOST_CLUSTERS)
        || certificates.map(String::len).sum::<usize>() > MOST_CERTIFICATES
    {
        let what = format!("more than {MOST_CLUSTERS} clusters, or 512 KiB of their certificates");
        return Some(clusters.mistake(what, "let [[kube.discover]] find them, or use a second bastion"));
    }
    let lists = |rule: &AsRule| {
        let all = [&rule.clusters, &rule.as_users, &rule.as_groups];
        all.into_iter().flatten().map(|pattern| pattern.as_str().len() + 4).sum::<usize>()
    };
    let long = others.value.iter().flatten().map(lists).sum::<usize>() > MOST_PATTERNS;
    long.then(|| others.mistake("`impersonate`: the rules are longer than 16 KiB", "say it in fewer, wider patterns"))
}

/// Who users are on EKS.
fn whose(
    r: &mut Reading<'_>,
    ground: &Ground<'_>,
    same: &Field<Option<bool>>,
    role: &Field<Option<RoleTemplate>>,
) -> Option<KubeRole> {
    let (is_same, template) = (same.value?, role.value.clone()?);
    let Some(aws) = ground.aws else {
        const WHAT: &str = "a role for clusters without [aws]";
        const HINT: &str = "add [aws], whose identity assumes users' roles, or take this out";
        match (ground.has_aws, is_same, &template) {
            (false, _, Some(_)) => r.mistakes.push(role.mistake(WHAT, HINT)),
            (false, Some(true), None) => r.mistakes.push(same.mistake(WHAT, HINT)),
            _ => {}
        }
        return Some(KubeRole::None);
    };
    match (is_same, template) {
        (Some(true), None) => Some(KubeRole::Same),
        (Some(true), Some(_)) => {
            let what = "`role` of [kube] beside kube_role = \"same\"";
            r.mistakes.push(role.mistake(what, "take one of the two out: \"same\" uses the role of [aws]"));
            None
        }
        (_, Some(template)) if template == aws.role => {
            let hint =
                format!("make a second one, like {ROLE}; kube_role = \"same\" says that one role is to serve both");
            r.mistakes.push(role.mistake("`role` of [kube] is that of [aws]", hint));
            None
        }
        (_, Some(template)) if template.partition() != aws.role.partition() => {
            let what =
                format!("`role` is in partition {}, that of [aws] in {}", template.partition(), aws.role.partition());
            r.mistakes.push(role.mistake(what, "one identity cannot assume both"));
            None
        }
        (_, Some(template)) => Some(KubeRole::Separate(template)),
        (_, None) => {
            let text = aws.role.as_str().replace("{user}", "{user}-kube");
            RoleTemplate::try_from(text).ok().map(KubeRole::Separate)
        }
    }
}

fn template(value: &Value<'_>) -> Parsed<RoleTemplate> {
    let found = text(value)?;
    RoleTemplate::try_from(found).or_else(|error| wrong(value, error.to_string(), format!("write it like {ROLE}")))
}

fn clocks(value: &Value<'_>) -> Parsed<Clocks> {
    let default = Clocks::default();
    let mut f = Fields::of(value, "[kube.clocks]")?;
    let connect = f.or("connect", default.connect, duration(SECOND..=60 * SECOND));
    let answer = f.or("answer", default.answer, duration(SECOND..=HOUR));
    let idle = f.or("idle", default.idle, duration(Duration::ZERO..=168 * HOUR));
    f.close()?;
    Ok(Clocks { connect, answer, idle })
}

fn discover(value: &Value<'_>, ground: &Ground<'_>) -> Parsed<Discover> {
    let mut f = Fields::of(value, DISCOVER)?;
    let role = f.maybe("role", plain_role);
    let regions = f.maybe("regions", list(region));
    let tags = f.or("tags", BTreeMap::new(), map(label_pattern));
    let own = role.as_ref().is_none_or(|role| {
        let account = role.split(':').nth(4).unwrap_or_default();
        ground.aws.is_some_and(|aws| aws.account == account)
    });
    let trusted = f.or("trusted", own, flag);
    f.close()?;
    if !ground.has_aws {
        return wrong(value, "[[kube.discover]] without [aws]", "add [aws]: it is EKS that is asked");
    }
    let regions = regions.or_else(|| Some(vec![ground.aws?.region.clone()])).unwrap_or_default();
    if regions.is_empty() && ground.aws.is_some() {
        return wrong(value, "`regions` is empty", "leave it out for the region of [aws]");
    }
    Ok(Discover { role, regions, tags, trusted })
}

/// The role that looks into an account; nobody's own.
fn plain_role(value: &Value<'_>) -> Parsed<String> {
    const HINT: &str = "write it like \"arn:aws:iam::210987654321:role/stockade-discovery\"";
    let found = text(value)?;
    let parts: Vec<&str> = found.splitn(6, ':').collect();
    let name = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-/".contains(&b));
    match parts.as_slice() {
        ["arn", partition, "iam", "", account, resource]
            if (*partition == "aws" || partition.starts_with("aws-"))
                && account.len() == 12
                && account.bytes().all(|b| b.is_ascii_digit())
                && resource.strip_prefix("role/").is_some_and(|role| !role.is_empty() && name(role)) =>
        {
            Ok(found)
        }
        _ => wrong(value, format!("'{}' is not the ARN of a role", found.escape_debug()), HINT),
    }
}

fn label_pattern(name: &str, value: &Value<'_>) -> Parsed<Pattern> {
    label(name, value).map(Pattern::new)
}

fn everybody() -> Vec<Pattern> {
    vec![Pattern::new("*")]
}

fn rule(value: &Value<'_>) -> Parsed<ClusterRule> {
    let mut f = Fields::of(value, "a rule of [kube]")?;
    let (groups, clusters) = (f.maybe("groups", list(pattern)), f.maybe("clusters", list(name_pattern)));
    let labels = f.maybe("labels", map(label_pattern));
    f.close()?;
    if groups.is_none() && clusters.is_none() && labels.is_none() {
        let hint = "write groups = [\"*\"] if everybody on every cluster is meant";
        return wrong(value, "the rule names no group, cluster or label", hint);
    }
    let rule = ClusterRule {
        groups: groups.unwrap_or_else(everybody),
        clusters: clusters.unwrap_or_else(everybody),
        labels: labels.unwrap_or_default(),
    };
    if rule.groups.is_empty() || rule.clusters.is_empty() {
        return wrong(
            value,
            "an empty list, so the rule is for nobody",
            "leave it out for everybody, or every cluster",
        );
    }
    Ok(rule)
}

fn name_pattern(value: &Value<'_>) -> Parsed<Pattern> {
    let found = text(value)?;
    if !found.is_empty() && found.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-*?".contains(&b)) {
        return Ok(Pattern::new(found));
    }
    let hint = "names of clusters are of the letters A-Z a-z 0-9 - _ . and * stands for any run of them";
    wrong(value, format!("'{}' cannot match any cluster", found.escape_debug()), hint)
}

fn impersonate(value: &Value<'_>) -> Parsed<AsRule> {
    let mut f = Fields::of(value, "a [[kube.impersonate]]")?;
    let groups = f.must("groups", "[\"ops\"]", list(pattern)).unwrap_or_default();
    let clusters = f.or("clusters", everybody(), list(name_pattern));
    let as_users = f.or("as_users", Vec::new(), list(somebody));
    let as_groups = f.or("as_groups", Vec::new(), list(somebody));
    f.close()?;
    if as_users.is_empty() && as_groups.is_empty() {
        return wrong(
            value,
            "the rule names nobody to be",
            "add as_users = [\"deployer\"] or as_groups = [\"viewers\"]",
        );
    }
    if groups.is_empty() || clusters.is_empty() {
        return wrong(value, "an empty list, so the rule is for nobody", "name groups, and clusters or none for all");
    }
    Ok(AsRule { groups, clusters, as_users, as_groups })
}

/// What a pattern is meant to match; whatever it could, nobody is ever let be `system:*`.
fn somebody(value: &Value<'_>) -> Parsed<Pattern> {
    let found = text(value)?;
    if found.starts_with("system:") {
        let hint = "system:masters and its like are above every rule of the cluster; bind the user's own group instead";
        return wrong(value, format!("'{}' is the cluster's own", found.escape_debug()), hint);
    }
    words(value)
}

fn words(value: &Value<'_>) -> Parsed<Pattern> {
    let found = text(value)?;
    if found.is_empty() || found.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return wrong(value, format!("'{}' cannot match anything", found.escape_debug()), "write a name or a pattern");
    }
    Ok(Pattern::new(found))
}

fn audit(value: &Value<'_>) -> Parsed<AuditRule> {
    const LEVELS: &[(&str, Level)] =
        &[("None", Level::None), ("Metadata", Level::Metadata), ("Request", Level::Request)];
    let mut f = Fields::of(value, "a [[kube.audit]]")?;
    let level = f.must("level", "\"Metadata\"", choice(LEVELS));
    let rule = AuditRule {
        level: level.unwrap_or(Level::Metadata),
        verbs: f.or("verbs", Vec::new(), list(lower)),
        resources: f.or("resources", Vec::new(), list(lower)),
        namespaces: f.or("namespaces", Vec::new(), list(words)),
        paths: f.or("paths", Vec::new(), list(request_path)),
        clusters: f.or("clusters", Vec::new(), list(name_pattern)),
    };
    f.close()?;
    let of_a_resource = !rule.resources.is_empty() || !rule.namespaces.is_empty();
    if of_a_resource && !rule.paths.is_empty() {
        let hint = "a path is of requests that name no resource: make two rules of it";
        return wrong(value, "`paths` beside `resources` or `namespaces`", hint);
    }
    Ok(rule)
}

/// Verbs and resources are in lower case, so any other would never fit.
fn lower(value: &Value<'_>) -> Parsed<Pattern> {
    match words(value)? {
        found if found.as_str().chars().any(char::is_uppercase) => wrong(
            value,
            format!("'{found}' cannot match anything"),
            "verbs and resources are in lower case: \"pods/log\"",
        ),
        found => Ok(found),
    }
}

fn request_path(value: &Value<'_>) -> Parsed<Pattern> {
    match words(value)? {
        found if found.as_str().starts_with(['/', '*']) => Ok(found),
        found => wrong(value, format!("'{found}' is not a path"), "begin it with /: \"/openapi/*\""),
    }
}

fn public(value: &Value<'_>, host: &Host<'_>) -> Parsed<PublicDoor> {
    let address = read::<SocketAddr>("write an address and a port: \"0.0.0.0:6443\" or \"[::]:6443\"");
    let mut f = Fields::of(value, "[kube.public]")?;
    let listen = f.must("listen", "[\"0.0.0.0:6443\"]", list(address));
    let url = f.must("url", "\"https://bastion.example.com:6443\"", origin);
    let certificate = f.must("certificate", "\"/etc/stockade/kube.pem\"", path);
    let key = f.must("key", "\"/etc/stockade/kube.key\"", path);
    let authority = f.maybe("ca", |value| authority(value, host));
    let tls12 = f.or("tls12", false, flag);
    let life = f.or("life", HOUR, duration(10 * SECOND..=24 * HOUR));
    f.close()?;
    let (Some(listen), Some(url), Some(certificate), Some(key)) = (listen, url, certificate, key) else {
        return wrong(value, "settings are missing", "add them");
    };
    let mut distinct = listen.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if listen.is_empty() || distinct.len() < listen.len() {
        return wrong(value, "`listen`: no address, or one twice", "write each address and port once");
    }
    Ok(PublicDoor { listen, url, certificate, key, authority, tls12, life })
}

/// An address without a path, for it is the door's own to have.
fn origin(value: &Value<'_>) -> Parsed<String> {
    let found = endpoint(value)?;
    match found.strip_prefix("https://").is_some_and(|rest| rest.contains('/')) {
        true => wrong(value, format!("'{found}' has a path"), "write https://host[:port]"),
        false => Ok(found),
    }
}
