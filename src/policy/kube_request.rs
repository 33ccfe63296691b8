//! What a request asks of a cluster: verb, resource, name. By the API server's own rules, so that both name it alike.

use minicbor::{Decode, Encode};
use percent_encoding::percent_decode_str;

/// Of an object: a DNS subdomain.
const LONGEST_NAME: usize = 253;

/// A request, as RBAC and audit rules see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct KubeRequest {
    /// `get`, `list`, `watch`, …; of a request that names no resource the method in small letters.
    #[n(0)]
    pub verb: String,
    /// Decoded, without the query.
    #[n(1)]
    pub path: String,
    /// `None`: `/healthz`, `/openapi/v3`, `/apis`.
    #[n(2)]
    pub object: Option<KubeObject>,
}

/// What a request is about. What it does not name is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct KubeObject {
    #[n(0)]
    pub group: String,
    #[n(1)]
    pub version: String,
    #[n(2)]
    pub namespace: String,
    #[n(3)]
    pub resource: String,
    #[n(4)]
    pub name: String,
    #[n(5)]
    pub subresource: String,
}

impl KubeRequest {
    /// `path` is decoded; `query` is as it came.
    pub fn read(method: &str, path: &str, query: &str) -> Self {
        let plain = || Self { verb: method.to_ascii_lowercase(), path: path.to_owned(), object: None };
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, parts) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return plain(),
        };
        // Verbs in the path are older than Kubernetes 1.0 and still answered.
        let (verb, parts) = match parts {
            [verb @ ("watch" | "proxy"), rest @ ..] if !rest.is_empty() => (*verb, rest),
            _ => (verb(method), parts),
        };
        let (namespace, parts) = match parts {
            ["namespaces", namespace] | ["namespaces", namespace, "status" | "finalize", ..] => (*namespace, parts),
            ["namespaces", namespace, rest @ ..] => (*namespace, rest),
            _ => ("", parts),
        };
        let part = |at: usize| parts.get(at).copied().unwrap_or_default();
        let mut object = KubeObject {
            group: group.into(),
            version: version.into(),
            namespace: namespace.into(),
            resource: part(0).into(),
            name: part(1).into(),
            subresource: if verb == "proxy" { "" } else { part(2) }.into(),
        };
        let verb = match verb {
            "get" if object.name.is_empty() => {
                object.name = named(query).unwrap_or_default();
                if watches(query) { "watch" } else { "list" }
            }
            "delete" if object.name.is_empty() => "deletecollection",
            other => other,
        };
        Self { verb: verb.into(), path: path.into(), object: Some(object) }
    }

    /// Whether its answer has no foreseeable end, as the API server's own audit sees it.
    pub fn is_long_running(&self) -> bool {
        let Some(object) = &self.object else { return false };
        matches!(self.verb.as_str(), "watch" | "proxy")
            || matches!(object.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward")
    }

    /// Whether something behind the API server answers, in whose words the cluster has no part.
    pub fn is_proxy(&self) -> bool {
        self.object.as_ref().is_some_and(|object| self.verb == "proxy" || object.subresource == "proxy")
    }

    /// Whether it goes to a kubelet, which knows no user.
    pub fn is_node_proxy(&self) -> bool {
        self.is_proxy() && self.object.as_ref().is_some_and(|object| object.resource == "nodes")
    }
}

fn verb(method: &str) -> &'static str {
    match method {
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// The values that a query gives a name, in their order.
pub fn values<'q>(query: &'q str, name: &'q str) -> impl Iterator<Item = String> + 'q {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key) == name && !pair.is_empty()).then(|| decoded(value))
    })
}

/// A flag of a query: there, and neither `false` nor `0`.
pub fn flag(query: &str, name: &str) -> bool {
    values(query, name).next().is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
}

fn watches(query: &str) -> bool {
    flag(query, "watch")
}

/// A list of one: `fieldSelector=metadata.name=NAME`.
fn named(query: &str) -> Option<String> {
    let selector = values(query, "fieldSelector").next()?;
    let name = selector.split(',').find_map(|term| {
        let (field, name) = term.split_once("==").or_else(|| term.split_once('='))?;
        (field == "metadata.name").then(|| name.to_owned())
    })?;
    let segment = !matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '%']);
    (segment && name.len() <= LONGEST_NAME).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `verb group/version namespace resource/name/subresource`, or `verb path`.
    fn read(method: &str, target: &str) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = KubeRequest::read(method, path, query);
        let Some(object) = request.object else { return format!("{} {}", request.verb, request.path) };
        let KubeObject { group, version, namespace, resource, name, subresource } = object;
        format!("{} {group}/{version} {namespace} {resource}/{name}/{subresource}", request.verb)
    }

    #[test]
    fn resources_are_named_as_the_api_server_names_them() {
        for (method, target, said) in [
            ("GET", "/api/v1/namespaces", "list /v1  namespaces//"),
            ("GET", "/api/v1/namespaces/other", "get /v1 other namespaces/other/"),
            ("GET", "/api/v1/namespaces/other/pods", "list /v1 other pods//"),
            ("GET", "/api/v1/namespaces/other/pods/foo", "get /v1 other pods/foo/"),
            ("HEAD", "/api/v1/namespaces/other/pods/foo", "get /v1 other pods/foo/"),
            ("GET", "/api/v1/namespaces/other/pods/foo/status", "get /v1 other pods/foo/status"),
            ("GET", "/api/v1/namespaces/other/pods/foo/proxy/a/b", "get /v1 other pods/foo/proxy"),
            ("GET", "/api/v1/pods", "list /v1  pods//"),
            ("GET", "/api/v1/pods?watch=true", "watch /v1  pods//"),
            ("GET", "/api/v1/pods?watch", "watch /v1  pods//"),
            ("GET", "/api/v1/pods?watch=0", "list /v1  pods//"),
            ("GET", "/api/v1/pods?watch=FALSE&watch=1", "list /v1  pods//"),
            ("GET", "/api/v1/pods/foo?watch=true", "get /v1  pods/foo/"),
            ("GET", "/api/v1/watch/pods", "watch /v1  pods//"),
            ("GET", "/api/v1/watch/namespaces/other/pods/foo", "watch /v1 other pods/foo/"),
            ("GET", "/api/v1/proxy/nodes/n1/stats", "proxy /v1  nodes/n1/"),
            ("POST", "/api/v1/namespaces/other/pods", "create /v1 other pods//"),
            ("POST", "/api/v1/namespaces/other/pods/foo/exec?command=sh", "create /v1 other pods/foo/exec"),
            ("PUT", "/api/v1/namespaces/other/finalize", "update /v1 other namespaces/other/finalize"),
            ("PUT", "/api/v1/namespaces/other/status", "update /v1 other namespaces/other/status"),
            ("PATCH", "/apis/apps/v1/namespaces/x/deployments/d/scale", "patch apps/v1 x deployments/d/scale"),
            ("DELETE", "/api/v1/namespaces/other/pods/foo", "delete /v1 other pods/foo/"),
            ("DELETE", "/apis/batch/v1/namespaces/other/jobs", "deletecollection batch/v1 other jobs//"),
            ("GET", "/apis/metrics.k8s.io/v1beta1/nodes", "list metrics.k8s.io/v1beta1  nodes//"),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dfoo", "list /v1  pods/foo/"),
            ("GET", "/api/v1/pods?fieldSelector=a=b,metadata.name==foo&watch=1", "watch /v1  pods/foo/"),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name=..", "list /v1  pods//"),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name!=foo", "list /v1  pods//"),
            ("OPTIONS", "/api/v1/pods", " /v1  pods//"),
        ] {
            assert_eq!(read(method, target), said, "{method} {target}");
        }
    }

    #[test]
    fn what_names_no_resource_has_its_method() {
        for path in ["/", "/api", "/api/v1", "/api/v1/", "/apis", "/apis/apps/v1", "/version", "/openapi/v3/api/v1"] {
            assert_eq!(read("GET", path), format!("get {path}"));
        }
        assert_eq!(read("POST", "/healthz/x/y/z"), "post /healthz/x/y/z");
    }

    #[test]
    fn some_answers_have_no_end_and_some_no_user() {
        let read = |target: &str| KubeRequest::read("GET", target, "");
        assert!(read("/api/v1/watch/pods").is_long_running());
        assert!(read("/api/v1/namespaces/a/pods/b/log").is_long_running());
        assert!(!read("/api/v1/namespaces/a/pods/b").is_long_running());
        assert!(read("/api/v1/nodes/n1/proxy").is_node_proxy());
        assert!(read("/api/v1/nodes/n1/proxy/run/a").is_node_proxy());
        assert!(read("/api/v1/proxy/nodes/n1").is_node_proxy());
        assert!(!read("/api/v1/namespaces/a/services/b/proxy").is_node_proxy());
        assert!(read("/api/v1/namespaces/a/services/b/proxy").is_proxy());
        assert!(!read("/proxy").is_proxy());
    }

    #[test]
    fn values_are_decoded() {
        let query = "command=sh&command=-c&command=echo+%22a%26b%22&tty=true&&stdin";
        assert_eq!(values(query, "command").collect::<Vec<_>>(), ["sh", "-c", "echo \"a&b\""]);
        assert!(flag(query, "tty") && flag(query, "stdin") && !flag(query, "stdout"));
    }
}
