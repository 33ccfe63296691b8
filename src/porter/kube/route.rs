//! `/clusters/NAME/...`: which cluster, and what there. What two programs could read in two ways is refused.

use hyper::header::{HOST, ORIGIN};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode, Uri, Version};
use percent_encoding::percent_decode_str;

use super::status::Refusal;
use crate::policy::KubeRequest;

const PREFIX: &str = "/clusters/";

/// No object has a path like that, and an event must hold it.
const LONGEST_PATH: usize = 4096;

/// Encoded, these change a path where somebody decodes it once more: NUL `%` `.` `/` `\`
const REFUSED: [&str; 5] = ["%00", "%25", "%2e", "%2f", "%5c"];

/// Where a request goes.
#[derive(Debug)]
pub struct Route {
    pub cluster: String,
    /// Path and query as they go on: encoded as they came.
    pub target: String,
    pub request: KubeRequest,
}

pub fn route(method: &Method, uri: &Uri) -> Result<Route, Refusal> {
    let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    if !known.contains(method) {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is no method of an API server's")));
    }
    if uri.path().len() > LONGEST_PATH {
        return Err(Refusal::bad("the path is too long"));
    }
    let rest = uri.path().strip_prefix(PREFIX);
    let rest = rest.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "only /clusters/NAME/... is here"))?;
    let (cluster, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if !is_name(cluster) {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "what follows /clusters/ is no name of a cluster"));
    }
    let path = if path.is_empty() { "/" } else { path };
    let decoded = decoded(path)?;
    if decoded == "/clusters" || decoded.starts_with(PREFIX) {
        return Err(Refusal::bad("the path names a cluster twice"));
    }
    let query = uri.query();
    let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let request = KubeRequest::read(method.as_str(), &decoded, query.unwrap_or_default());
    Ok(Route { cluster: cluster.to_owned(), target, request })
}

/// The path that an API server sees, if every server sees the same.
pub fn decoded(path: &str) -> Result<String, Refusal> {
    let lower = path.to_ascii_lowercase();
    if REFUSED.iter().any(|encoded| lower.contains(encoded)) {
        return Err(Refusal::bad("the path hides a dot, a slash, a backslash or a percent sign behind %"));
    }
    let decoded = percent_decode_str(path).decode_utf8().map_err(|_| Refusal::bad("the path is not UTF-8"))?;
    if decoded.contains(|c: char| c.is_control() || c == '\\') {
        return Err(Refusal::bad("the path has a backslash or a control character"));
    }
    if !decoded.starts_with('/') || decoded.contains("//") || decoded.split('/').any(|part| matches!(part, "." | ".."))
    {
        return Err(Refusal::bad("the path has an empty part, or one that is . or .."));
    }
    Ok(decoded.into_owned())
}

pub fn is_name(text: &str) -> bool {
    let letters = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    !text.is_empty() && letters && !matches!(text, "." | "..")
}

/// Whether the request was meant for this door, which goes by these names. A page in a browser shows in `Origin`, a
/// rebound name in `Host`; and the request line may name a server too.
pub fn addressed(head: &Parts, names: &[String]) -> Result<(), Refusal> {
    let is_own = |name: &str| names.iter().any(|own| own.eq_ignore_ascii_case(name));
    let host = single(&head.headers, HOST.as_str())?;
    let line = head.uri.authority().map(|authority| authority.as_str());
    if host.is_none() && (line.is_none() || head.version < Version::HTTP_2) {
        return Err(Refusal::bad("the request has no Host header"));
    }
    if host.into_iter().chain(line).any(|name| !is_own(name)) {
        return Err(Refusal::forbidden("the request names another server"));
    }
    let own_page = |origin: &str| origin.strip_prefix("http://").is_some_and(is_own);
    match single(&head.headers, ORIGIN.as_str())? {
        Some(origin) if !own_page(origin) => Err(Refusal::forbidden("the kube door answers no web page")),
        _ => Ok(()),
    }
}

/// A header that must be there once or not at all.
pub fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(|value| value.to_str());
    match (first, values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        (Some(Err(_)), None) => Err(Refusal::bad(format!("the header {name} is not plain text"))),
        (_, Some(_)) => Err(Refusal::bad(format!("more than one header {name}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go(method: &str, uri: &str) -> Result<Route, Refusal> {
        route(&method.parse().unwrap(), &uri.parse().unwrap())
    }

    #[test]
    fn a_path_goes_on_as_it_came() {
        for (uri, cluster, target) in [
            ("/clusters/hyades/api/v1/pods?watch=true", "hyades", "/api/v1/pods?watch=true"),
            ("/clusters/hyades", "hyades", "/"),
            ("/clusters/hyades/", "hyades", "/"),
            (
                "/clusters/eu_1.a-b/apis/x/v1/clusterroles/system%3Anode",
                "eu_1.a-b",
                "/apis/x/v1/clusterroles/system%3Anode",
            ),
            ("/clusters/a/api/v1/namespaces/clusters/pods?x=..%2f", "a", "/api/v1/namespaces/clusters/pods?x=..%2f"),
        ] {
            let route = go("GET", uri).unwrap();
            assert_eq!((route.cluster.as_str(), route.target.as_str()), (cluster, target), "{uri}");
        }
        let hidden = go("GET", "/clusters/a/api/v1/nodes/n/%70roxy").unwrap();
        assert!(hidden.request.is_node_proxy());
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (uri, status) in [
            ("/", 404),
            ("/clusters", 404),
            ("/clusters/", 404),
            ("/clusters//api", 404),
            ("/clusters/../api", 404),
            ("/clusters/a%2fb/api", 404),
            ("/clusters/a;b/api", 404),
            ("/CLUSTERS/a/api", 404),
            ("//clusters/a/api", 404),
            ("/x/../clusters/a/api", 404),
            ("/clusters/a//api", 400),
            ("/clusters/a/api//v1", 400),
            ("/clusters/a/api/../v1", 400),
            ("/clusters/a/./api", 400),
            ("/clusters/a/..", 400),
            ("/clusters/a/%2e%2e/b", 400),
            ("/clusters/a/.%2E/b", 400),
            ("/clusters/a/api%2Fv1", 400),
            ("/clusters/a/api%5cv1", 400),
            ("/clusters/a/api%252fv1", 400),
            ("/clusters/a/api%00", 400),
            ("/clusters/a/api%0d%0aX:%20y", 400),
            ("/clusters/a/api%ff", 400),
            ("/clusters/a/clusters/b/api", 400),
            ("/clusters/a/clusters", 400),
            ("/clusters/a/%63lusters/b", 400),
        ] {
            assert_eq!(go("GET", uri).unwrap_err().status.as_u16(), status, "{uri}");
        }
        for method in ["CONNECT", "TRACE", "PROPFIND"] {
            assert_eq!(go(method, "/clusters/a/api").unwrap_err().status.as_u16(), 405, "{method}");
        }
    }

    #[test]
    fn a_request_must_be_meant_for_this_door() {
        let names = ["127.0.0.1:6443".to_owned(), "localhost:6443".to_owned()];
        let ask = |uri: &str, headers: &[(&'static str, &str)]| {
            let mut request = hyper::Request::builder().uri(uri);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            addressed(&request.body(()).unwrap().into_parts().0, &names).map_err(|refusal| refusal.status.as_u16())
        };
        let own = ("host", "127.0.0.1:6443");
        assert_eq!(ask("/", &[own]), Ok(()));
        assert_eq!(ask("/", &[("host", "LocalHost:6443")]), Ok(()));
        assert_eq!(ask("http://127.0.0.1:6443/", &[own]), Ok(()));
        assert_eq!(ask("/", &[own, ("origin", "http://127.0.0.1:6443")]), Ok(()));
        assert_eq!(ask("/", &[]), Err(400));
        assert_eq!(ask("/", &[own, own]), Err(400));
        assert_eq!(ask("/", &[("host", "127.0.0.1")]), Err(403));
        assert_eq!(ask("/", &[("host", "rebound.example:6443")]), Err(403));
        assert_eq!(ask("http://169.254.169.254/", &[own]), Err(403));
        assert_eq!(ask("http://x@127.0.0.1:6443/", &[own]), Err(403));
        assert_eq!(ask("/", &[own, ("origin", "http://example.com")]), Err(403));
        assert_eq!(ask("/", &[own, ("origin", "null")]), Err(403));
    }
}
