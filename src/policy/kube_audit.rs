//! How much of a request to a cluster is written down.

use std::sync::LazyLock;

use super::{KubeObject, KubeRequest};
use crate::config::{AuditRule, Level};
use crate::identity::Pattern;

/// What reads without changing.
const READS: &[&str] = &["get", "list", "watch", "head", "options"];

/// Made once: every request asks for them.
static DEFAULT: LazyLock<Vec<AuditRule>> = LazyLock::new(default_rules);

/// The level of a request: of the first rule that fits, or else Metadata; never above what its object allows. Without
/// any rule the default ones hold.
pub fn level(rules: &[AuditRule], cluster: &str, request: &KubeRequest) -> Level {
    let rules = if rules.is_empty() { &DEFAULT } else { rules };
    let rule = rules.iter().find(|rule| fits(rule, cluster, request));
    let level = rule.map_or(Level::Metadata, |rule| rule.level);
    level.min(cap(request))
}

/// The most that may be written down: a body that can hold a credential is not.
pub fn cap(request: &KubeRequest) -> Level {
    let Some(object) = &request.object else { return Level::Metadata };
    if tells_credentials(object) { Level::Metadata } else { Level::Request }
}

/// By resource, in whatever group: what is called a secret or a token anywhere is taken for one.
fn tells_credentials(object: &KubeObject) -> bool {
    let KubeObject { group, resource, subresource, .. } = object;
    let (resource, subresource) = (resource.to_ascii_lowercase(), subresource.to_ascii_lowercase());
    // What is behind a proxy has forms of its own to log in with.
    let proxied = subresource == "proxy";
    let named = ["secret", "token", "credential", "password", "certificate"];
    let named = |text: &str| named.iter().any(|word| text.contains(word));
    // People keep passwords in ConfigMaps.
    let holds = resource == "configmaps";
    proxied || holds || named(&resource) || named(&subresource) || group == "authentication.k8s.io"
}

fn fits(rule: &AuditRule, cluster: &str, request: &KubeRequest) -> bool {
    let AuditRule { level: _, verbs, resources, namespaces, paths, clusters } = rule;
    any(clusters, cluster) && any(verbs, &request.verb) && about(resources, namespaces, paths, request)
}

/// A rule that names paths is about requests without a resource, one that names resources or namespaces about those
/// with one; one that names both is about both.
fn about(resources: &[Pattern], namespaces: &[Pattern], paths: &[Pattern], request: &KubeRequest) -> bool {
    match &request.object {
        None if paths.is_empty() => resources.is_empty() && namespaces.is_empty(),
        None => any(paths, &request.path),
        Some(_) if resources.is_empty() && namespaces.is_empty() => paths.is_empty(),
        Some(object) => any(namespaces, &object.namespace) && (resources.is_empty() || named(resources, object)),
    }
}

/// `pods`, `pods/log`, `deployments.apps`, `deployments.apps/scale`, `*.apps`, `*`. As in the API server's own policy a
/// resource is not its subresources, but for `*`.
fn named(resources: &[Pattern], object: &KubeObject) -> bool {
    let KubeObject { group, resource, subresource, .. } = object;
    let with = |name: String| if subresource.is_empty() { name } else { format!("{name}/{subresource}") };
    let (short, long) = (with(resource.clone()), with(format!("{resource}.{group}")));
    resources.iter().any(|pattern| match pattern.as_str() {
        "*" => true,
        text if text.contains('/') != short.contains('/') => false,
        _ => pattern.matches(&short) || !group.is_empty() && pattern.matches(&long),
    })
}

/// Whether one fits; where there is none, everything does.
fn any(patterns: &[Pattern], text: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(text))
}

/// What holds where the configuration says nothing: nothing of discovery and of the questions that clients ask by
/// themselves, metadata of reads, bodies of writes.
pub fn default_rules() -> Vec<AuditRule> {
    let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::new(*text)).collect();
    let rule = |level, verbs: &[&str], resources: &[&str], paths: &[&str]| AuditRule {
        level,
        verbs: patterns(verbs),
        resources: patterns(resources),
        namespaces: Vec::new(),
        paths: patterns(paths),
        clusters: Vec::new(),
    };
    const DISCOVERY: &[&str] = &[
        "/",
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/openapi/*",
        "/version",
        "/version/",
        "/healthz*",
        "/livez*",
        "/readyz*",
    ];
    const ASKED: &[&str] =
        &["selfsubjectaccessreviews.authorization.k8s.io", "selfsubjectrulesreviews.authorization.k8s.io"];
    const NOISE: &[&str] = &["leases.coordination.k8s.io", "events", "events.events.k8s.io"];
    vec![
        rule(Level::None, &["get", "head"], &[], DISCOVERY),
        rule(Level::None, &["create"], ASKED, &[]),
        rule(Level::None, &["watch"], NOISE, &[]),
        rule(Level::Metadata, READS, &[], &[]),
        rule(Level::Request, &[], &[], &[]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(rules: &[AuditRule], cluster: &str, method: &str, target: &str) -> Level {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        level(rules, cluster, &KubeRequest::read(method, path, query))
    }

    #[test]
    fn by_default_discovery_is_silence_and_writes_have_bodies() {
        use Level::{Metadata, None, Request};
        let rules = [];
        for (expected, method, target) in [
            (None, "GET", "/api"),
            (None, "GET", "/api/v1"),
            (None, "GET", "/apis/apps/v1"),
            (None, "GET", "/openapi/v3/apis/apps/v1"),
            (None, "GET", "/version"),
            (None, "GET", "/readyz"),
            (None, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
            (None, "GET", "/apis/coordination.k8s.io/v1/leases?watch=1"),
            (None, "GET", "/api/v1/namespaces/web/events?watch=true"),
            (Metadata, "GET", "/api/v1/namespaces/web/events"),
            (Metadata, "GET", "/api/v1/pods?watch=1"),
            (Metadata, "GET", "/api/v1/namespaces/web/pods/a/log"),
            (Metadata, "GET", "/api/v1/namespaces/web/pods/a/exec?command=sh"),
            (Metadata, "GET", "/metrics"),
            (Metadata, "POST", "/api"),
            (Request, "POST", "/api/v1/namespaces/web/pods"),
            (Request, "POST", "/api/v1/namespaces/web/pods/a/exec"),
            (Request, "PATCH", "/api/v1/namespaces/web/pods/a/ephemeralcontainers"),
            (Request, "DELETE", "/apis/apps/v1/namespaces/web/deployments/a"),
            (Request, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews"),
        ] {
            assert_eq!(by(&rules, "hyades", method, target), expected, "{method} {target}");
        }
    }

    #[test]
    fn no_rule_writes_down_what_holds_credentials() {
        let all = [AuditRule {
            level: Level::Request,
            verbs: vec![],
            resources: vec![],
            namespaces: vec![],
            paths: vec![],
            clusters: vec![],
        }];
        for target in [
            "/api/v1/namespaces/web/secrets",
            "/api/v1/namespaces/web/configmaps",
            "/api/v1/namespaces/web/serviceaccounts/a/token",
            "/apis/authentication.k8s.io/v1/tokenreviews",
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            "/apis/certificates.k8s.io/v1/certificatesigningrequests",
            "/apis/external-secrets.io/v1/namespaces/web/externalsecrets",
            "/apis/bitnami.com/v1alpha1/namespaces/web/SealedSecrets",
            "/api/v1/namespaces/web/services/a/proxy/login",
            "/api/v1/namespaces/web/pods/a/proxy",
            "/oauth/token",
        ] {
            assert_eq!(by(&all, "hyades", "POST", target), Level::Metadata, "{target}");
        }
        assert_eq!(by(&all, "hyades", "POST", "/api/v1/namespaces/web/pods"), Level::Request);
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rule = |level, fill: fn(&mut AuditRule)| {
            let mut rule = AuditRule {
                level,
                verbs: vec![],
                resources: vec![],
                namespaces: vec![],
                paths: vec![],
                clusters: vec![],
            };
            fill(&mut rule);
            rule
        };
        let rules = [
            rule(Level::None, |rule| rule.clusters = vec![Pattern::new("dev-*")]),
            rule(Level::None, |rule| rule.resources = vec![Pattern::new("pods/log"), Pattern::new("deployments.apps")]),
            rule(Level::Request, |rule| {
                rule.resources = vec![Pattern::new("*.apps/scale"), Pattern::new("p*")];
                rule.namespaces = vec![Pattern::new("web")];
            }),
            rule(Level::None, |rule| rule.paths = vec![Pattern::new("/healthz*")]),
            rule(Level::None, |rule| rule.namespaces = vec![Pattern::new("noise")]),
        ];
        for (expected, target) in [
            (Level::None, "/api/v1/namespaces/web/pods/a/log"),
            (Level::None, "/apis/apps/v1/namespaces/web/deployments/a"),
            (Level::Request, "/apis/apps/v1/namespaces/web/deployments/a/scale"),
            (Level::Request, "/api/v1/namespaces/web/pods/a"),
            (Level::Metadata, "/api/v1/namespaces/web/pods/a/status"),
            (Level::Metadata, "/api/v1/namespaces/other/pods/a"),
            (Level::Metadata, "/api/v1/nodes"),
            (Level::None, "/healthz/etcd"),
            (Level::Metadata, "/version"),
            (Level::None, "/api/v1/namespaces/noise/services"),
        ] {
            assert_eq!(by(&rules, "hyades", "PUT", target), expected, "{target}");
        }
        assert_eq!(by(&rules, "dev-1", "PUT", "/version"), Level::None);
    }
}
