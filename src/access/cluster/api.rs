//! Requests to one API server: counted, in time, and never sent on to where an answer points.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, Preconditions};
use kube::client::Body;
use kube::core::Status;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::key::Key;
use crate::access::seam::Fault;
use crate::policy::kube::is_endpoint;

const CONNECT: Duration = Duration::from_secs(10);
/// Of a request and its answer, connecting included.
const WHOLE: Duration = Duration::from_secs(30);
const PAGE: usize = 500;
const SMALLEST_PAGE: usize = 8;
/// An answer that never ends its pages would keep a cycle for ever.
const PAGES: usize = 1000;
/// A page of 500 ClusterRoles is a few megabytes; one that is longer is asked for in smaller ones.
const LONGEST_ANSWER: usize = 16 << 20;
/// Of a whole list: whoever makes fat objects must not end the process that looks at all clusters.
const LONGEST_LIST: usize = 96 << 20;
/// Of what a server says, as much as a sentence needs.
const LONGEST_WORDS: usize = 600;
const JSON: &str = "application/json";

/// Where an API server is, and who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// `https://host[:port][/prefix]`
    pub endpoint: String,
    /// The only certificates that its own may come from, as PEM.
    pub authority: String,
    /// The name in its certificate, where it is not the endpoint's host.
    pub server_name: Option<String>,
}

/// One cluster's API.
pub struct Api {
    client: kube::Client,
    key: Key,
    calls: Arc<AtomicU64>,
    pub(super) longest_list: usize,
}

/// An answer of 2xx.
pub(super) struct Answer {
    pub content_type: String,
    pub body: Bytes,
}

#[derive(serde::Deserialize)]
struct Page<T> {
    metadata: Option<ListMeta>,
    items: Option<Vec<T>>,
}

impl Api {
    /// Asks nobody anything; within a runtime, for the client has a task of its own. Each request counts in `calls`.
    pub fn new(site: &Site, key: Key, calls: Arc<AtomicU64>) -> Result<Self, Fault> {
        let unusable = |what: &str| fault("Unusable", format!("{} {what}", site.endpoint), false);
        if !is_endpoint(&site.endpoint) {
            return Err(unusable("is no https address of an API server"));
        }
        let endpoint: Uri = site.endpoint.parse().map_err(|_| unusable("is no address"))?;
        let mut config = kube::Config::new(endpoint);
        config.connect_timeout = Some(CONNECT);
        config.default_retry = false;
        config.tls_server_name = site.server_name.clone();
        let authority: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(site.authority.as_bytes()).collect();
        let authority = authority.map_err(|_| unusable("has an authority that is not PEM"))?;
        if authority.is_empty() {
            return Err(unusable("has no authority"));
        }
        config.root_cert = Some(authority.into_iter().map(|certificate| certificate.to_vec()).collect());
        config.auth_info = key.shown_by_tls();
        let client = kube::Client::try_from(config);
        let client = client.map_err(|error| unusable(&format!("cannot be asked: {}", chain(&error))))?;
        Ok(Self { client, key, calls, longest_list: LONGEST_LIST })
    }

    /// Takes in lists of so many bytes at most, where it would be 96 MiB.
    #[must_use]
    pub fn with_longest_list(self, longest_list: usize) -> Self {
        Self { longest_list, ..self }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault> {
        read(path, &self.ask(Method::GET, path, None, JSON).await?.body)
    }

    /// `None`: there is no such thing.
    pub(in crate::access) async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Fault> {
        present(self.get(path).await)
    }

    pub(super) async fn get_as(&self, path: &str, accept: &'static str) -> Result<Answer, Fault> {
        self.ask(Method::GET, path, None, accept).await
    }

    /// All items, page by page.
    pub(super) async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Fault> {
        self.pages(path, LONGEST_LIST, SMALLEST_PAGE).await
    }

    /// Likewise, if it is of so many bytes at most, in pages that are not too long; else `is_too_much`.
    pub(super) async fn list_within<T: DeserializeOwned>(&self, path: &str, most: usize) -> Result<Vec<T>, Fault> {
        self.pages(path, most, PAGE).await
    }

    async fn pages<T: DeserializeOwned>(&self, path: &str, most: usize, smallest: usize) -> Result<Vec<T>, Fault> {
        let mut all = Vec::new();
        let mut next = String::new();
        let (mut limit, mut length) = (PAGE, 0);
        for _ in 0..PAGES {
            let place = format!("{path}?limit={limit}{next}");
            let answer = match self.get_as(&place, JSON).await {
                Err(fault) if fault.code == "Broken" && limit > smallest => {
                    limit = smallest;
                    continue;
                }
                answer => answer?,
            };
            length += answer.body.len();
            if length > most {
                return Err(fault("TooLarge", format!("{path} has more than {} KiB", most >> 10), false));
            }
            let page: Page<T> = read(&place, &answer.body)?;
            all.extend(page.items.unwrap_or_default());
            match page.metadata.and_then(|metadata| metadata.continue_).filter(|mark| !mark.is_empty()) {
                Some(mark) => next = format!("&continue={}", encoded(&mark)),
                None => return Ok(all),
            }
        }
        Err(fault("Endless", format!("{path} has more than {PAGES} pages"), false))
    }

    pub(in crate::access) async fn create<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Fault> {
        let answer = self.ask(Method::POST, path, Some(written(path, body)?), JSON).await?;
        read(path, &answer.body)
    }

    /// The body's resourceVersion says what it replaces: anything else is a conflict.
    pub(in crate::access) async fn replace<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Fault> {
        let answer = self.ask(Method::PUT, path, Some(written(path, body)?), JSON).await?;
        read(path, &answer.body)
    }

    /// This version of this very object, or nothing is deleted; one that is gone already is as good.
    pub(super) async fn delete(&self, path: &str, uid: Option<String>, version: &str) -> Result<(), Fault> {
        let preconditions = Preconditions { resource_version: Some(version.to_owned()), uid };
        let options = DeleteOptions { preconditions: Some(preconditions), ..DeleteOptions::default() };
        let body = written(path, &options)?;
        present(self.ask(Method::DELETE, path, Some(body), JSON).await).map(|_| ())
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Vec<u8>>, accept: &str) -> Result<Answer, Fault> {
        let late = || Err(fault("Timeout", format!("no answer to {path} within {} s", WHOLE.as_secs()), true));
        // Boxed, or each caller's future would hold it several times over.
        let exchange = Box::pin(self.exchange(method, path, body, accept));
        let answer = timeout(WHOLE, exchange).await.unwrap_or_else(|_| late());
        if answer.as_ref().is_err_and(|fault| fault.code == "Unauthorized") {
            self.key.forget().await;
        }
        answer
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<Vec<u8>>, accept: &str) -> Result<Answer, Fault> {
        let request = self.request(method, path, body, accept).await?;
        self.calls.fetch_add(1, Ordering::Relaxed);
        let sent = self.client.send(request).await;
        let (head, body) = sent.map_err(|error| fault("Unreachable", chain(&error), true))?.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await;
        let body = body.map_err(|error| fault("Broken", format!("{path}: {}", chain(&*error)), true))?.to_bytes();
        if !head.status.is_success() {
            return Err(refused(head.status, path, &body));
        }
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        Ok(Answer { content_type: content_type.unwrap_or_default().to_owned(), body })
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        accept: &str,
    ) -> Result<Request<Body>, Fault> {
        let agent = concat!("stockade-access/", env!("CARGO_PKG_VERSION"));
        let mut request = Request::builder().method(method).uri(path).header(ACCEPT, accept).header(USER_AGENT, agent);
        if let Some(token) = self.key.token().await? {
            let header = HeaderValue::try_from(format!("Bearer {}", token.expose()));
            let mut header = header.map_err(|_| fault("Unusable", "its token is no header".into(), false))?;
            header.set_sensitive(true);
            request = request.header(AUTHORIZATION, header);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, JSON);
        }
        let body = body.map_or_else(Body::empty, Body::from);
        request.body(body).map_err(|error| fault("Unusable", format!("{path}: {error}"), false))
    }
}

pub(super) fn fault(code: &str, message: String, transient: bool) -> Fault {
    Fault { code: code.to_owned(), message, transient }
}

/// Somebody else was first: the next cycle looks again.
pub(super) fn conflict(message: String) -> Fault {
    fault("Conflict", message, true)
}

pub(super) fn present<T>(answer: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match answer {
        Err(fault) if fault.code == "NotFound" => Ok(None),
        other => other.map(Some),
    }
}

/// There is more in a list than is taken in, or its pages cannot be.
pub(super) fn is_too_much(fault: &Fault) -> bool {
    matches!(fault.code.as_str(), "TooLarge" | "Endless" | "Broken")
}

/// A part of a path or a query.
pub(super) fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn read<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(body)
        .map_err(|error| fault("Unreadable", format!("{path} is not what it should be: {error}"), false))
}

fn written<B: Serialize>(path: &str, body: &B) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(body).map_err(|error| fault("Unusable", format!("{path}: {error}"), false))
}

/// An answer that is none of 2xx, in Kubernetes' words where it has some.
fn refused(status: StatusCode, path: &str, body: &[u8]) -> Fault {
    let said: Status = serde_json::from_slice(body).unwrap_or_default();
    let reason = match status {
        // The code is what is acted upon: these must not depend on a body.
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::NOT_FOUND => "NotFound",
        _ if is_word(&said.reason) => &said.reason,
        StatusCode::CONFLICT => "Conflict",
        _ => status.as_str(),
    };
    let words = if said.message.is_empty() { status.to_string() } else { plain(&said.message) };
    let transient = status.is_server_error()
        || matches!(status, StatusCode::CONFLICT | StatusCode::GONE | StatusCode::TOO_MANY_REQUESTS);
    fault(reason, format!("{path}: {words}"), transient)
}

fn is_word(text: &str) -> bool {
    (1..64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn plain(text: &str) -> String {
    text.chars().take(LONGEST_WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An error with all of its causes.
fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !words.contains(&said) {
            words.push_str(": ");
            words.push_str(&said);
        }
        cause = inner.source();
    }
    plain(&words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_servers_words_but_not_its_bytes() {
        let body = br#"{"kind":"Status","code":409,"reason":"AlreadyExists","message":"roles \"a\" is\nthere"}"#;
        let said = refused(StatusCode::CONFLICT, "/x", body);
        assert_eq!((said.to_string().as_str(), said.transient), ("AlreadyExists: /x: roles \"a\" is there", true));
        for (status, body, code, transient) in [
            (StatusCode::FORBIDDEN, &br#"{"reason":"Forbidden"}"#[..], "Forbidden", false),
            (StatusCode::UNAUTHORIZED, b"<html>", "Unauthorized", false),
            (StatusCode::NOT_FOUND, br#"{"reason":"Gone"}"#, "NotFound", false),
            (StatusCode::FOUND, b"", "302", false),
            (StatusCode::GONE, br#"{"reason":"Expired"}"#, "Expired", true),
            (StatusCode::TOO_MANY_REQUESTS, br#"{"reason":"\u001b[2J"}"#, "429", true),
            (StatusCode::BAD_GATEWAY, b"\xff", "502", true),
        ] {
            let said = refused(status, "/x", body);
            assert_eq!((said.code.as_str(), said.transient), (code, transient));
        }
        let long = format!(r#"{{"message":"{}"}}"#, "é".repeat(10_000));
        assert!(refused(StatusCode::BAD_REQUEST, "/x", long.as_bytes()).message.chars().count() < 700);
    }
}
