//! Connections to one cluster for one session: pooled for requests, fresh for upgrades, never another's.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::Executor;
use hyper::{StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepidle, set_tcp_keepintvl};
use rustls::client::Resumption;
use rustls::{CertificateError, ClientConfig};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::super::egress::Names;
use super::body::Sent;
use super::cluster::Line;
use super::status::Refusal;
use super::whom::Minted;

/// A connection that nobody uses.
const IDLE: Duration = Duration::from_secs(90);

/// As client-go: a stream may be this far ahead of its reader, and all streams of a connection together.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const FRAME: u32 = 64 << 10;

/// API servers let a connection have 100 streams, and one more would wait until one of them ends, which watches do not.
const MOST_STREAMS: usize = 90;

/// A connection whose other end is gone without a word is found out, and no balancer on the way forgets it.
const PING: Duration = Duration::from_secs(30);

/// rustls asks for 4 KiB at a time, whatever the record: from here it gets them without a system call for each.
const READ: usize = 32 << 10;

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum Unreached {
    #[error("its name has no address")]
    NoAddress,
    #[error("it does not answer within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("it refuses connections ({0})")]
    Refused(#[source] io::Error),
    #[error("its certificate is not one that its authority gave to this name")]
    Certificate,
    #[error("TLS failed ({0})")]
    Tls(#[source] io::Error),
    #[error("it broke off ({0})")]
    Broken(#[source] hyper::Error),
}

impl Unreached {
    pub fn refusal(&self, cluster: &str) -> Refusal {
        let status = match self {
            Self::Slow(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::NoAddress | Self::Refused(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Certificate | Self::Tls(_) | Self::Broken(_) => StatusCode::BAD_GATEWAY,
        };
        Refusal::new(status, format!("cluster {cluster} cannot be reached: {self}"))
    }
}

/// Tasks that end with what they belong to.
#[derive(Clone, Debug)]
pub struct Life(watch::Receiver<bool>);

impl Life {
    pub fn of(end: &watch::Sender<bool>) -> Self {
        Self(end.subscribe())
    }

    /// Comes back when it is over.
    pub async fn over(&mut self) {
        let _ = self.0.wait_for(|over| *over).await;
    }
}

impl<F: Future + Send + 'static> Executor<F> for Life
where
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let mut life = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = life.over() => {}
                _ = task => {}
            }
        });
    }
}

/// One session's way to one cluster; dropping or ending it breaks off all its connections.
#[derive(Debug)]
pub struct Upstream {
    pub line: Arc<Line>,
    lanes: Mutex<Vec<Arc<Lane>>>,
    pooled: Connector,
    fresh: Connector,
    end: watch::Sender<bool>,
    pub minted: Mutex<Option<Minted>>,
}

/// Connections that are used again, one where HTTP/2 is spoken: no other session has them. Held for as long as a request
/// and its answer take.
pub type Lane = Client<Connector, Sent>;

impl Upstream {
    pub fn new(line: Arc<Line>, names: watch::Receiver<Arc<Names>>, within: Duration) -> Self {
        let end = watch::Sender::new(false);
        let connector = |protocols: &[&[u8]]| {
            let mut tls = line.tls.clone();
            tls.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            // Tickets are this session's, too.
            tls.resumption = Resumption::in_memory_sessions(4);
            Connector { line: Arc::clone(&line), names: names.clone(), tls: Arc::new(tls), within }
        };
        let (pooled, fresh) = (connector(&[b"h2", b"http/1.1"]), connector(&[b"http/1.1"]));
        Self { line, lanes: Mutex::default(), pooled, fresh, end, minted: Mutex::new(None) }
    }

    /// One with room for a request.
    pub fn lane(&self) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        // Its place here is one of those that count.
        if let Some(lane) = lanes.iter().find(|lane| Arc::strong_count(lane) <= MOST_STREAMS) {
            return Arc::clone(lane);
        }
        let lane = Arc::new(self.client());
        lanes.push(Arc::clone(&lane));
        lane
    }

    fn client(&self) -> Lane {
        Client::builder(self.life())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_max_frame_size(FRAME)
            .http2_keep_alive_interval(PING)
            .build(self.pooled.clone())
    }

    pub fn life(&self) -> Life {
        Life::of(&self.end)
    }

    pub fn end(&self) {
        self.end.send_replace(true);
    }

    /// A connection of its own, for a request that will not be HTTP for long.
    pub async fn fresh(&self) -> Result<SendRequest<Empty<Bytes>>, Unreached> {
        let stream = self.fresh.connect().await?;
        let (send, connection) = http1::handshake(stream).await.map_err(Unreached::Broken)?;
        self.life().execute(connection.with_upgrades());
        Ok(send)
    }

    pub fn forget_token(&self) {
        *self.minted.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Connects to the cluster, whatever the request's URI says.
#[derive(Clone, Debug)]
pub struct Connector {
    line: Arc<Line>,
    names: watch::Receiver<Arc<Names>>,
    tls: Arc<ClientConfig>,
    within: Duration,
}

impl Connector {
    async fn connect(&self) -> Result<TokioIo<Wire>, Unreached> {
        let made = timeout(self.within, self.try_all()).await;
        made.unwrap_or(Err(Unreached::Slow(self.within))).map(|stream| TokioIo::new(Wire(stream)))
    }

    async fn try_all(&self) -> Result<TlsStream<BufReader<TcpStream>>, Unreached> {
        let addresses = match self.line.host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => {
                let names = Arc::clone(&self.names.borrow());
                names.find(&self.line.host).await
            }
        };
        let mut why = Unreached::NoAddress;
        // The last address may take all the time that is left.
        let share = self.within / u32::try_from(addresses.len().max(1)).unwrap_or(1);
        for address in addresses {
            match timeout(share, TcpStream::connect(SocketAddr::new(address, self.line.port))).await {
                Ok(Ok(stream)) => return self.greet(stream).await,
                Ok(Err(error)) => why = Unreached::Refused(error),
                Err(_) => why = Unreached::Slow(self.within),
            }
        }
        Err(why)
    }

    async fn greet(&self, stream: TcpStream) -> Result<TlsStream<BufReader<TcpStream>>, Unreached> {
        let _ = stream.set_nodelay(true);
        let _ = set_socket_keepalive(&stream, true);
        let _ = set_tcp_keepidle(&stream, PING);
        let _ = set_tcp_keepintvl(&stream, PING);
        let tls = TlsConnector::from(Arc::clone(&self.tls));
        tls.connect(self.line.server.clone(), BufReader::with_capacity(READ, stream)).await.map_err(|error| {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match tls {
                Some(rustls::Error::InvalidCertificate(CertificateError::Expired)) => Unreached::Tls(error),
                Some(rustls::Error::InvalidCertificate(_)) => Unreached::Certificate,
                _ => Unreached::Tls(error),
            }
        })
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = Unreached;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Unreached>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unreached>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await })
    }
}

/// TLS as hyper's pool wants it: it says whether HTTP/2 was agreed on.
#[derive(Debug)]
pub struct Wire(pub TlsStream<BufReader<TcpStream>>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        match self.0.get_ref().1.alpn_protocol() {
            Some(b"h2") => Connected::new().negotiated_h2(),
            _ => Connected::new(),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, to)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
