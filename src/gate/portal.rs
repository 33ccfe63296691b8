//! The portal: a second gate, for laptops. It ends TLS and hands what is inside to the porter.
//!
//! It holds the certificate's key and the listeners, and never looks at a byte that it carries: who speaks is told by the
//! token in each request, which the porter compares. Until that word the connection stands in the lobby, with the same
//! shares, grace and penalties as one of SSH that has not logged in.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncWriteExt, BufReader, copy};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::admission::{Admission, Refusal};
use super::keeper::Witness;
use super::lobby::{Displaced, Ticket};
use super::penalties::Offence;
use super::{GateError, Settings, link};
use crate::privsep::link::{Link, LinkError};
use crate::privsep::message::{FromJailer, PortalToPorter, PorterToPortal, Silence};
use crate::privsep::{Accusation, Role};

/// How long a client has to leave when the porter has.
const FAREWELL: Duration = Duration::from_secs(5);

/// HTTP/2, as TLS names it.
const H2: &[u8] = b"h2";

/// One TLS record and a little more.
const BUFFER: usize = 32 * 1024;

/// How long the porter's word may be behind the end of what it answered.
const WORD: Duration = Duration::from_millis(500);

type PorterLink = Link<PortalToPorter, PorterToPortal>;

/// What the portal begins with, after lock-down.
pub struct Start {
    /// `[ssh]`'s rules for whoever has not logged in.
    pub settings: Settings,
    pub listeners: Vec<std::net::TcpListener>,
    pub tls: Arc<ServerConfig>,
    pub control: Link<Silence, FromJailer<Silence>>,
    /// Reads what comes with a new configuration.
    pub reload: Box<dyn Fn(Vec<OwnedFd>) -> Option<Arc<ServerConfig>> + Send>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum NoTls {
    #[error("[kube.public] certificate is not a chain of certificates in PEM")]
    Chain(#[source] pem::Error),
    #[error("[kube.public] key is not a private key in PEM, without a passphrase")]
    Key(#[source] pem::Error),
    #[error("[kube.public] certificate and key do not go together")]
    Pair(#[source] rustls::Error),
}

/// The newest suites alone: ECDHE with AES-GCM or ChaCha20, and X25519MLKEM768 where the client has it.
pub fn tls(chain: &[u8], key: &[u8], tls12: bool) -> Result<ServerConfig, NoTls> {
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>().map_err(NoTls::Chain)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(NoTls::Key)?;
    let versions: &[_] = if tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key))
        .map_err(NoTls::Pair)?;
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// What all connections share.
struct Portal {
    grace: Duration,
    admission: Admission,
    witness: Arc<Witness>,
    tls: watch::Receiver<Arc<ServerConfig>>,
    porter: watch::Receiver<Option<Arc<PorterLink>>>,
    number: AtomicU64,
    /// Who waits for the porter's word.
    unproved: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

/// Serves until the jailer goes away.
pub async fn serve(start: Start) -> Result<(), GateError> {
    let Start { settings, listeners, tls, control, reload } = start;
    let (end, mut ends) = mpsc::channel(1);
    let (witness, keeper_links) = Witness::start(end.clone());
    let (certificate, tls) = watch::channel(tls);
    let (porter_link, porter) = watch::channel(None);
    let portal = Arc::new(Portal {
        grace: settings.login_grace,
        admission: Admission::new(&settings, witness.clone()),
        witness,
        tls,
        porter,
        number: AtomicU64::new(1),
        unproved: Mutex::default(),
    });
    let mut tasks = JoinSet::new();
    for listener in listeners {
        listener.set_nonblocking(true).map_err(GateError::Listener)?;
        let listener = TcpListener::from_std(listener).map_err(GateError::Listener)?;
        tasks.spawn(accept(portal.clone(), listener));
    }
    let mut sweep = tokio::time::interval(Duration::from_secs(5));
    loop {
        let (message, mut descriptors) = tokio::select! {
            received = control.recv() => received.map_err(GateError::Jailer)?,
            Some(end) = ends.recv() => return Err(end),
            _ = sweep.tick() => {
                portal.admission.sweep();
                continue;
            }
        };
        match message {
            FromJailer::Peer(role) => {
                let socket = descriptors.pop().ok_or(GateError::Breach("a peer without its link"))?;
                match role {
                    Role::Keeper => link(role, socket, &keeper_links).await?,
                    Role::Porter => {
                        let link = Arc::new(Link::new(socket).map_err(|e| GateError::Peer(role, e))?);
                        porter_link.send_replace(Some(link.clone()));
                        tasks.spawn(hear(portal.clone(), link, end.clone()));
                    }
                    _ => return Err(GateError::Breach("a peer that is none")),
                }
            }
            FromJailer::Reload => {
                if let Some(tls) = reload(descriptors) {
                    certificate.send_replace(tls);
                }
            }
            FromJailer::Told(never) => match never {},
            FromJailer::Begin => return Err(GateError::Breach("a second beginning")),
        }
    }
}

/// The porter's word of who has proved a token.
async fn hear(portal: Arc<Portal>, link: Arc<PorterLink>, end: mpsc::Sender<GateError>) {
    loop {
        match link.recv().await {
            Ok((PorterToPortal::Proved { number }, _)) => {
                if let Some(waiting) = portal.unproved().remove(&number) {
                    let _ = waiting.send(());
                }
            }
            Err(LinkError::Breach(what)) => {
                let _ = end.try_send(Accusation { role: Role::Porter, what }.into());
                return;
            }
            Err(LinkError::Closed | LinkError::Socket(_)) => return,
        }
    }
}

async fn accept(portal: Arc<Portal>, listener: TcpListener) {
    portal.witness.arrived().await;
    // Dropped with the portal: connections end with it.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((socket, from)) => {
                if let Some(place) = portal.admit(from) {
                    connections.spawn(portal.clone().converse(socket, from, place));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

impl Portal {
    /// No word of why: it would have to be said before TLS.
    fn admit(&self, from: SocketAddr) -> Option<(Ticket, Displaced)> {
        if !self.witness.present() {
            self.admission.refused(from, "the keeper is away".into());
            return None;
        }
        match self.admission.enter(from) {
            Ok(place) => self.admission.connected(from).then_some(place),
            Err(refusal) => {
                // Those of the penalised are counted and told at the end.
                if refusal != Refusal::Penalised {
                    self.admission.refused(from, refusal.to_string());
                }
                None
            }
        }
    }

    async fn converse(self: Arc<Self>, socket: TcpStream, from: SocketAddr, (ticket, displaced): (Ticket, Displaced)) {
        let deadline = Instant::now() + self.grace;
        let _ = socket.set_nodelay(true);
        let acceptor = TlsAcceptor::from(self.tls.borrow().clone());
        let outside = match timeout_at(deadline, acceptor.accept(socket)).await {
            Ok(Ok(outside)) => outside,
            Ok(Err(error)) => return self.shame(from, format!("TLS: {error}"), Offence::Protocol),
            Err(_) => return self.shame(from, "the client did not finish TLS in time".into(), Offence::GraceExceeded),
        };
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let (prove, mut proved) = oneshot::channel();
        self.unproved().insert(number, prove);
        let _forget = Forget { portal: &self, number };
        let http2 = outside.get_ref().1.alpn_protocol() == Some(H2);
        let Some(inside) = self.hand_over(number, from, http2).await else {
            return self.admission.refused(from, "the porter is away".into());
        };
        let patience = async {
            tokio::select! {
                Ok(()) = displaced => "the client had shown no token when another source needed its place",
                () = sleep_until(deadline) => "the client showed no token in time",
            }
        };
        let mut carried = pin!(carry(outside, inside));
        tokio::select! {
            biased;
            Ok(()) = &mut proved => drop(ticket),
            () = &mut carried => {
                // The word comes another way than the answer, which a client that is quick needs no longer.
                if !matches!(timeout(WORD, proved).await, Ok(Ok(()))) {
                    self.shame(from, "no token was shown".into(), Offence::AuthFail);
                }
                return;
            }
            why = patience => return self.shame(from, why.into(), Offence::GraceExceeded),
        }
        carried.await;
    }

    fn shame(&self, from: SocketAddr, why: String, offence: Offence) {
        self.admission.refused(from, why);
        self.admission.penalise(from, offence);
    }

    /// The other end of the plain stream goes to the porter.
    async fn hand_over(&self, number: u64, from: SocketAddr, http2: bool) -> Option<UnixStream> {
        let porter = self.porter.borrow().clone()?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().ok()?;
        ours.set_nonblocking(true).ok()?;
        theirs.set_nonblocking(true).ok()?;
        let ours = UnixStream::from_std(ours).ok()?;
        let message = PortalToPorter::Connection { number, from: from.to_string(), http2 };
        porter.send_with(&message, &[theirs.as_fd()]).await.ok()?;
        Some(ours)
    }

    fn unproved(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        self.unproved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both ways until the porter has no more to say: a client that then neither speaks nor leaves must not keep its place.
async fn carry(outside: TlsStream<TcpStream>, inside: UnixStream) {
    let (client, mut to_client) = tokio::io::split(outside);
    let (porter, mut to_porter) = inside.into_split();
    let mut up = pin!(async {
        let _ = copy(&mut BufReader::with_capacity(BUFFER, client), &mut to_porter).await;
        let _ = to_porter.shutdown().await;
    });
    let mut down = pin!(async {
        let _ = copy(&mut BufReader::with_capacity(BUFFER, porter), &mut to_client).await;
        let _ = to_client.shutdown().await;
    });
    tokio::select! {
        () = &mut up => down.await,
        () = &mut down => drop(timeout(FAREWELL, up).await),
    }
}

/// A connection that is gone waits for no word.
struct Forget<'a> {
    portal: &'a Portal,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.portal.unproved().remove(&self.number);
    }
}
