//! The law of hostile heads: what goes on is what was understood, and says nothing of who asks. And that of bodies.

use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Uri};

use super::{headers, route, whom};
use crate::policy::KubeRequest;

pub use super::content::fuzz::body;

/// Method and URI in a line, headers in lines.
pub fn request(bytes: &[u8]) {
    let mut lines = bytes.split(|b| *b == b'\n');
    let line = lines.next().unwrap_or_default();
    let mut words = line.splitn(2, |b| *b == b' ');
    let method = Method::from_bytes(words.next().unwrap_or_default());
    let uri = Uri::try_from(words.next().unwrap_or_default());
    let (Ok(method), Ok(uri)) = (method, uri) else { return };
    if let Ok(route) = route::route(&method, &uri) {
        judge(&uri, &route);
    }
    let mut client = HeaderMap::new();
    for line in lines.take(32) {
        let mut parts = line.splitn(2, |b| *b == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            client.append(name, value);
        }
    }
    let on = headers::to_cluster(&client);
    let forbidden = ["authorization", "cookie", "impersonate", "x-forwarded", "x-remote", "audit-id", "host"];
    assert!(!on.keys().any(|name| forbidden.iter().any(|word| name.as_str().replace('_', "-").starts_with(word))));
    if let Ok(None) = whom::wanted(&client) {
        let asks = |name: &HeaderName| name.as_str().replace('_', "-").starts_with("impersonate-");
        assert!(!client.keys().any(asks), "{client:?}");
    }
    let mut back = client.clone();
    headers::from_cluster(&mut back, false);
    assert!(!["connection", "set-cookie", "alt-svc", "content-length"].iter().any(|name| back.contains_key(*name)));
}

fn judge(uri: &Uri, route: &route::Route) {
    let whole = format!("/clusters/{}{}", route.cluster, route.target);
    let asked = uri.path_and_query().map_or("", |asked| asked.as_str());
    // A path may lack its first slash.
    assert!(whole == asked || whole.replacen("/?", "?", 1) == asked || whole.trim_end_matches('/') == asked, "{whole}");
    assert!(route::is_name(&route.cluster));
    let path = route.target.split('?').next().unwrap_or_default();
    let lower = path.to_ascii_lowercase();
    for hidden in ["//", "/./", "/../", "\\", "%2e", "%2f", "%5c", "%25", "%00"] {
        assert!(!lower.contains(hidden), "{path}");
    }
    assert!(!path.ends_with("/..") && !path.ends_with("/.") && path.starts_with('/'));
    let KubeRequest { path: decoded, .. } = &route.request;
    assert!(!decoded.chars().any(char::is_control) && !decoded.starts_with("/clusters/"));
    // Decoding what was decoded changes nothing: no two servers see two paths.
    assert_eq!(route::decoded(decoded).as_ref(), Ok(decoded));
}
