//! The gate: the only process that reads the internet's bytes. It speaks SSH, claims to the warden who proved which key,
//! and carries one stream of packets per channel between client and keeper.
//!
//! It decides nothing: the warden permits, the keeper records. It never opens a file, executes, connects or resolves a
//! name; what it needs arrives as descriptors. No keeper, no new connection; no warden, no login.

mod admission;
mod channel;
mod client;
mod connection;
mod input;
mod keeper;
mod lobby;
mod penalties;
pub mod portal;
mod request;
mod settings;
mod streams;
mod warden;
mod wire;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use russh::keys::PrivateKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::admission::{Admission, Refusal};
use self::keeper::Witness;
pub use self::settings::{Algorithms, MaxStartups, Rekey, Settings};
use self::streams::Streams;
use self::warden::Warden;
use crate::privsep::link::{Link, LinkError};
use crate::privsep::message::{FromJailer, JailerToGate, Silence};
use crate::privsep::{Accusation, Role};

/// What the gate is given before it is locked down.
pub struct Start {
    pub settings: Settings,
    pub listeners: Vec<std::net::TcpListener>,
    pub host_keys: Vec<PrivateKey>,
    pub control: Link<Silence, FromJailer<JailerToGate>>,
}

/// Why the gate ends.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    #[error("no host key was given; name one in [ssh] host_keys")]
    NoHostKey,
    #[error("the link to the warden is gone for good")]
    NoWarden,
    #[error("a listener could not be taken over")]
    Listener(#[source] io::Error),
    #[error("the jailer's link ended")]
    Jailer(#[source] LinkError),
    #[error("a link to the {0} could not be taken over")]
    Peer(Role, #[source] io::Error),
    #[error("the jailer said what it may not say to a gate: {0}")]
    Breach(&'static str),
    #[error("a peer cannot be trusted")]
    Untrusted(#[from] Accusation),
}

/// What all connections share.
struct Gate {
    settings: Settings,
    ssh: Arc<russh::server::Config>,
    admission: Admission,
    witness: Arc<Witness>,
    warden: Arc<Warden>,
    streams: Arc<Streams>,
    /// Whoever finds that this gate cannot go on says why here.
    end: mpsc::Sender<GateError>,
    connections: AtomicU64,
}

/// Serves until the jailer goes away.
pub async fn serve(start: Start) -> Result<(), GateError> {
    let Start { settings, listeners, host_keys, control } = start;
    if host_keys.is_empty() {
        return Err(GateError::NoHostKey);
    }
    let ssh = Arc::new(settings.ssh(host_keys));
    let (end, mut ends) = mpsc::channel(1);
    let (witness, keeper_links) = Witness::start(end.clone());
    let streams = Arc::<Streams>::default();
    let (warden, warden_links) = Warden::start(streams.clone(), end.clone());
    let gate = Arc::new(Gate {
        admission: Admission::new(&settings, witness.clone()),
        settings,
        ssh,
        witness,
        warden,
        streams,
        end,
        connections: AtomicU64::new(first_number()),
    });

    // Dropped with this future: the tasks end with the gate.
    let mut listening = JoinSet::new();
    for listener in listeners {
        listener.set_nonblocking(true).map_err(GateError::Listener)?;
        let listener = TcpListener::from_std(listener).map_err(GateError::Listener)?;
        listening.spawn(accept(gate.clone(), listener));
    }
    let mut sweep = tokio::time::interval(Duration::from_secs(5));
    loop {
        let received = tokio::select! {
            received = control.recv() => received,
            Some(end) = ends.recv() => return Err(end),
            _ = sweep.tick() => {
                gate.streams.sweep();
                gate.admission.sweep();
                continue;
            }
        };
        let (message, descriptors) = received.map_err(GateError::Jailer)?;
        let mut descriptors = descriptors.into_iter();
        match message {
            FromJailer::Peer(role) => {
                let socket = descriptors.next().ok_or(GateError::Breach("a peer without its link"))?;
                match role {
                    Role::Warden => link(role, socket, &warden_links).await?,
                    Role::Keeper => link(role, socket, &keeper_links).await?,
                    _ => return Err(GateError::Breach("a peer that is none")),
                }
            }
            FromJailer::Told(JailerToGate::Stream { session, number }) => {
                let stream = descriptors.next().ok_or(GateError::Breach("a stream without its descriptor"))?;
                gate.streams.arrived(session, number, stream);
            }
            // New settings are for new processes of the gate; its connections keep theirs.
            FromJailer::Reload => tracing::info!("a reload was announced; the gate keeps its settings"),
            FromJailer::Begin => return Err(GateError::Breach("a second beginning")),
        }
    }
}

async fn link<S, R>(role: Role, socket: OwnedFd, links: &mpsc::Sender<Link<S, R>>) -> Result<(), GateError>
where
    S: crate::privsep::message::Message,
    R: crate::privsep::message::Message,
{
    let link = Link::new(socket).map_err(|e| GateError::Peer(role, e))?;
    // The receiver lives as long as the gate.
    let _ = links.send(link).await;
    Ok(())
}

/// Numbers of different lives of the gate do not meet: the warden knows sessions by their connection's number.
fn first_number() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() >> 1
}

async fn accept(gate: Arc<Gate>, listener: TcpListener) {
    // A gate that has just begun has no links yet: who comes meanwhile waits in the backlog and is not turned away.
    gate.witness.arrived().await;
    loop {
        match listener.accept().await {
            Ok((socket, from)) => admit(&gate, socket, from),
            Err(error) => {
                // EMFILE and its kin stay true for a while: spinning on them would starve who is already in.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Everything that can refuse a connection before it costs any SSH work.
fn admit(gate: &Arc<Gate>, socket: TcpStream, from: SocketAddr) {
    if !gate.witness.present() {
        return gate.admission.refused(from, "the keeper is away".into());
    }
    let place = match gate.admission.enter(from) {
        Ok(place) => place,
        Err(refusal) => {
            // Nobody waits for a client that does not take it.
            let _ = socket.try_write(refusal.words());
            // Those of the penalised are counted and told at the end.
            if refusal != Refusal::Penalised {
                gate.admission.refused(from, refusal.to_string());
            }
            return;
        }
    };
    if !gate.admission.connected(from) {
        return;
    }
    let number = gate.connections.fetch_add(1, Ordering::Relaxed);
    tokio::spawn(connection::serve(gate.clone(), socket, from, number, place));
}
