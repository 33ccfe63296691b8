//! Which headers go on: to a cluster those of a list, from a cluster all but those of a list.

use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, ALT_SVC, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_UNMODIFIED_SINCE, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, SET_COOKIE,
    STRICT_TRANSPORT_SECURITY, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Uri};

use super::cluster::Line;
use super::route::decoded;

/// What kubectl, client-go, k9s, helm and the libraries of other languages send and an API server reads.
const TO_CLUSTER: [HeaderName; 13] = [
    ACCEPT,
    ACCEPT_ENCODING,
    ACCEPT_LANGUAGE,
    CACHE_CONTROL,
    CONTENT_TYPE,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_UNMODIFIED_SINCE,
    RANGE,
    USER_AGENT,
    HeaderName::from_static("kubectl-command"),
    HeaderName::from_static("kubectl-session"),
];

/// What is of one connection, and what would move a client elsewhere or make it keep something.
const NOT_FROM_CLUSTER: [HeaderName; 14] = [
    ALT_SVC,
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    SET_COOKIE,
    STRICT_TRANSPORT_SECURITY,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    WWW_AUTHENTICATE,
    HeaderName::from_static("via"),
];

/// A client's headers, as far as they go on.
pub fn to_cluster(client: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(TO_CLUSTER.len() + 4);
    for name in &TO_CLUSTER {
        for value in client.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    headers
}

/// Takes from a cluster's headers what does not go on. `keep_length`: an answer without the body that it speaks of.
pub fn from_cluster(headers: &mut HeaderMap, keep_length: bool) {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> = named.flat_map(|list| list.split(',')).filter_map(|n| n.trim().parse().ok()).collect();
    for name in named.iter().chain(&NOT_FROM_CLUSTER) {
        headers.remove(name);
    }
    // hyper counts the body itself; a length beside chunks would be another.
    if !keep_length {
        headers.remove(CONTENT_LENGTH);
    }
}

/// What answers behind a proxy may be anybody's page.
pub fn sandbox(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
}

/// Writes a redirect anew as this door's, if it stays inside the cluster: kubectl follows with method and body.
pub fn keep_inside(headers: &mut HeaderMap, cluster: &str, line: &Line) -> bool {
    let Some(inside) = headers.get(LOCATION).and_then(|value| inside(value, cluster, line)) else { return false };
    headers.insert(LOCATION, inside);
    true
}

fn inside(location: &HeaderValue, cluster: &str, line: &Line) -> Option<HeaderValue> {
    let location = location.to_str().ok()?;
    let uri: Uri = location.parse().ok()?;
    let own = match (uri.scheme_str(), uri.authority()) {
        (None, None) => location.starts_with('/'),
        (Some("https"), Some(server)) => server.as_str().eq_ignore_ascii_case(&line.authority),
        _ => false,
    };
    let path = uri.path().strip_prefix(&line.prefix).filter(|path| path.starts_with('/'))?;
    decoded(path).ok()?;
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    HeaderValue::try_from(format!("/clusters/{cluster}{path}{query}")).ok().filter(|_| own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::porter::kube::tests::line;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| (name.parse().unwrap(), value.parse().unwrap());
        lines.iter().map(pair).collect::<Vec<(HeaderName, HeaderValue)>>().into_iter().fold(
            HeaderMap::new(),
            |mut map, (name, value)| {
                map.append(name, value);
                map
            },
        )
    }

    #[test]
    fn nothing_that_says_who_asks_goes_on() {
        let client = map(&[
            ("accept", "application/json"),
            ("accept", "*/*"),
            ("user-agent", "kubectl/v1.36"),
            ("kubectl-command", "kubectl get"),
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
            ("impersonate-user", "root"),
            ("impersonate_user", "root"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-remote-user", "root"),
            ("via", "1.1 x"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("connection", "keep-alive, accept"),
            ("keep-alive", "5"),
            ("proxy-authorization", "x"),
            ("transfer-encoding", "chunked"),
            ("content-length", "7"),
            ("upgrade", "h2c"),
            ("audit-id", "mine"),
            ("host", "127.0.0.1:6443"),
            ("origin", "http://127.0.0.1:6443"),
            ("x-anything", "y"),
        ]);
        let gone = map(&[
            ("accept", "application/json"),
            ("accept", "*/*"),
            ("user-agent", "kubectl/v1.36"),
            ("kubectl-command", "kubectl get"),
        ]);
        assert_eq!(to_cluster(&client), gone);
    }

    #[test]
    fn an_answer_sets_nothing_and_leads_nowhere() {
        let mut headers = map(&[
            ("content-type", "application/json"),
            ("audit-id", "x"),
            ("warning", "299 - \"old\""),
            ("x-hop", "y"),
            ("connection", "close, X-Hop"),
            ("set-cookie", "a=b"),
            ("alt-svc", "h3=\":443\""),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
        ]);
        from_cluster(&mut headers, false);
        assert_eq!(
            headers,
            map(&[("content-type", "application/json"), ("audit-id", "x"), ("warning", "299 - \"old\"")])
        );
    }

    #[test]
    fn a_redirect_stays_inside_or_is_none() {
        let line = line("https://api.example.test:8443/k8s/c1");
        for (location, wanted) in [
            ("/k8s/c1/api/v1?x=1", Some("/clusters/hyades/api/v1?x=1")),
            ("https://api.example.test:8443/k8s/c1/api", Some("/clusters/hyades/api")),
            ("https://API.example.test:8443/k8s/c1/api", Some("/clusters/hyades/api")),
            ("/api/v1", None),
            ("/k8s/c10/api", None),
            ("/k8s/c1/../c2/api", None),
            ("/k8s/c1/%2e%2e/c2/api", None),
            ("//evil.example/k8s/c1/api", None),
            ("https://evil.example/k8s/c1/api", None),
            ("https://api.example.test/k8s/c1/api", None),
            ("http://api.example.test:8443/k8s/c1/api", None),
            ("https://x@api.example.test:8443/k8s/c1/api", None),
            ("api", None),
            ("", None),
        ] {
            let mut headers = map(&[("location", location)]);
            let kept = keep_inside(&mut headers, "hyades", &line);
            let said = headers.get("location").unwrap().to_str().unwrap();
            assert_eq!(kept.then_some(said), wanted, "{location}");
        }
        assert!(!keep_inside(&mut HeaderMap::new(), "hyades", &line));
    }
}
