//! A wish in the words of HTTP: CONNECT (RFC 9110, 9.3.6).

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Parts};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::door::{HEADERS_WITHIN, LONGEST_HEAD};
use super::admit::{Refusal, Why, admit};
use super::{ADMISSION, Passage, Place, tell};
use crate::policy::egress::Target;

/// The passage, the jail's side of it, and what was read of that beyond the request.
pub async fn ask(stream: TcpStream, place: &Arc<Place>) -> Option<(Passage, TcpStream, Vec<u8>)> {
    let opened = Arc::new(Mutex::new(None));
    let service = service_fn(|request| {
        let (place, opened) = (Arc::clone(place), Arc::clone(&opened));
        async move { Ok::<_, Infallible>(respond(request, &place, &opened).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(LONGEST_HEAD)
        .max_header_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let _ = timeout(ADMISSION, connection).await;
    let through = opened.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (passage, upgrade): (Passage, OnUpgrade) = through?;
    let upgraded = timeout(HEADERS_WITHIN, upgrade).await.ok()?.ok()?;
    let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    Some((passage, io.into_inner(), read_buf.to_vec()))
}

async fn respond(
    mut request: Request<Incoming>,
    place: &Place,
    opened: &Mutex<Option<(Passage, OnUpgrade)>>,
) -> Response<Full<Bytes>> {
    place.breathe().await;
    let admitted = match wish(&request) {
        Ok(target) => admit(target, place).await,
        Err(refusal) => Err(refusal),
    };
    match admitted {
        Ok(passage) => {
            let upgrade = hyper::upgrade::on(&mut request);
            *opened.lock().unwrap_or_else(PoisonError::into_inner) = Some((passage, upgrade));
            Response::new(Full::default())
        }
        Err(refusal) => {
            let target = format!("{} {}", request.method(), request.uri());
            tell(target.strip_prefix("CONNECT ").unwrap_or(&target), &refusal, place);
            refused(&refusal)
        }
    }
}

fn wish(request: &Request<Incoming>) -> Result<Target, Refusal> {
    if *request.method() != Method::CONNECT {
        let reason = "this door takes CONNECT only; use https, plain HTTP is not let out";
        return Err(Refusal::new(Why::Verb, reason));
    }
    let authority = request.uri().authority().ok_or_else(|| Refusal::new(Why::Unclear, "CONNECT names no host"))?;
    authority.as_str().parse().map_err(|error| Refusal::new(Why::Unclear, format!("{error}")))
}

/// The reason stands in the status line too: that much the AWS SDKs and git show.
fn refused(refusal: &Refusal) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("stockade: {}\n", refusal.reason))));
    *response.status_mut() = status(refusal.why);
    if let Ok(phrase) = ReasonPhrase::try_from(refusal.reason.as_bytes()) {
        response.extensions_mut().insert(phrase);
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn status(why: Why) -> StatusCode {
    match why {
        Why::Unclear => StatusCode::BAD_REQUEST,
        Why::Verb => StatusCode::METHOD_NOT_ALLOWED,
        Why::Denied => StatusCode::FORBIDDEN,
        Why::NotYet => StatusCode::SERVICE_UNAVAILABLE,
        Why::Missing | Why::Unreached => StatusCode::BAD_GATEWAY,
    }
}
