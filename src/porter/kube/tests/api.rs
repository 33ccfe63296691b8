//! The cluster.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http_body_util::{BodyExt, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::yard::Material;

/// A request as the cluster saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub connection: usize,
    pub http2: bool,
    pub target: String,
    pub headers: HeaderMap,
}

impl Seen {
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }
}

type Body = BoxBody<Bytes, std::io::Error>;

/// hyper over TLS; its paths say what it does.
pub struct Api {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Pieces that `/stream` sends on, one each time.
    pub pieces: mpsc::Sender<Bytes>,
    /// How many bytes of a body `/swallow` has got.
    pub swallowed: watch::Receiver<usize>,
    /// How many connections have ended.
    pub ended: watch::Receiver<usize>,
    /// Dropped, it takes listener and connections along.
    _life: JoinSet<()>,
}

/// What a request at the API shares.
struct Inside {
    seen: Arc<Mutex<Vec<Seen>>>,
    pieces: tokio::sync::Mutex<mpsc::Receiver<Bytes>>,
    swallowed: watch::Sender<usize>,
}

impl Api {
    /// Which HTTP it speaks: `h2`, `http/1.1`.
    pub async fn new(protocols: &[&str]) -> Self {
        Self::with(protocols, Material::get()).await
    }

    pub async fn with(protocols: &[&str], material: &Material) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), protocols, material).await
    }

    pub async fn at(address: SocketAddr, protocols: &[&str], material: &Material) -> Self {
        let chain = CertificateDer::pem_slice_iter(material.chain.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(material.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut tls = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
        tls.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (pieces, receiver) = mpsc::channel(16);
        let (swallowed, counted) = watch::channel(0);
        let (ending, ended) = watch::channel(0);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let inside = Inside { seen: Arc::clone(&seen), pieces: tokio::sync::Mutex::new(receiver), swallowed };
        let mut life = JoinSet::new();
        life.spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), Arc::new(inside), ending));
        Self { address, seen, pieces, swallowed: counted, ended, _life: life }
    }

    pub fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().unwrap()
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, inside: Arc<Inside>, ending: watch::Sender<usize>) {
    let numbers = AtomicUsize::new(0);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let connection = numbers.fetch_add(1, Ordering::Relaxed);
        let (tls, inside, ending) = (tls.clone(), Arc::clone(&inside), ending.clone());
        connections.spawn(async move {
            if let Ok(stream) = tls.accept(stream).await {
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let service = service_fn(|request| {
                    let inside = Arc::clone(&inside);
                    async move { answer(request, &inside, connection).await.ok_or(std::fmt::Error) }
                });
                let io = TokioIo::new(stream);
                if is_http2 {
                    let mut builder = http2::Builder::new(TokioExecutor::new());
                    let _ = builder.max_concurrent_streams(100).serve_connection(io, service).await;
                } else {
                    let _ = http1::Builder::new().serve_connection(io, service).with_upgrades().await;
                }
            }
            ending.send_modify(|count| *count += 1);
        });
    }
}

fn whole(text: &str) -> Body {
    http_body_util::Full::new(Bytes::from(text.to_owned())).map_err(|never: Infallible| match never {}).boxed()
}

/// `None`: the connection breaks.
async fn answer(mut request: Request<Incoming>, inside: &Arc<Inside>, connection: usize) -> Option<Response<Body>> {
    let target = request.uri().path_and_query().unwrap().as_str().to_owned();
    inside.seen.lock().unwrap().push(Seen {
        connection,
        http2: request.version() == hyper::Version::HTTP_2,
        target: target.clone(),
        headers: request.headers().clone(),
    });
    let mut response = Response::new(whole("{\"kind\":\"APIVersions\"}"));
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("set-cookie", HeaderValue::from_static("a=b"));
    headers.insert("alt-svc", HeaderValue::from_static("h3=\":443\""));
    if let Some(id) = request.headers().get("audit-id") {
        headers.insert("audit-id", id.clone());
    }
    let word = target.split(['/', '?']).next_back().unwrap_or_default();
    match word {
        "stall" => std::future::pending().await,
        "break" => return None,
        "unknown" => *response.status_mut() = StatusCode::UNAUTHORIZED,
        "inside" => redirect(&mut response, "/api/v1/other"),
        "outside" => redirect(&mut response, "https://evil.example/api"),
        "switch" | "exec" | "portforward" => switch(&mut request, &mut response, word),
        "stream" => {
            let inside = Arc::clone(inside);
            let (sender, receiver) = mpsc::channel(1);
            tokio::spawn(async move {
                while let Some(piece) = inside.pieces.lock().await.recv().await {
                    let frame =
                        if piece.is_empty() { Err(std::io::Error::other("cut")) } else { Ok(Frame::data(piece)) };
                    if sender.send(frame).await.is_err() {
                        return;
                    }
                }
            });
            *response.body_mut() = Pieces(receiver).boxed();
        }
        "parts" => {
            let (sender, receiver) = mpsc::channel(2);
            for part in ["in ", "parts"] {
                sender.try_send(Ok(Frame::data(Bytes::from(part)))).unwrap();
            }
            *response.body_mut() = Pieces(receiver).boxed();
        }
        "swallow" => {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.into_data().map_or(0, |data| data.len());
                inside.swallowed.send_modify(|count| *count += length);
            }
        }
        _ => {}
    }
    Some(response)
}

/// A channel as a body.
struct Pieces(mpsc::Receiver<Piece>);

type Piece = Result<Frame<Bytes>, std::io::Error>;

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        self.0.poll_recv(cx)
    }
}

fn redirect(response: &mut Response<Body>, to: &'static str) {
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert("location", HeaderValue::from_static(to));
}

/// 101 to whatever was asked for, and then an echo.
fn switch(request: &mut Request<Incoming>, response: &mut Response<Body>, word: &str) {
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.body_mut() = whole("");
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    for name in ["upgrade", "sec-websocket-protocol", "x-stream-protocol-version"] {
        if let Some(value) = request.headers().get(name) {
            let first = value.to_str().unwrap().split(", ").next().unwrap().to_owned();
            headers.insert(name, first.parse().unwrap());
        }
    }
    if word == "switch" {
        headers.insert(UPGRADE, HeaderValue::from_static("anything"));
    }
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    });
}
