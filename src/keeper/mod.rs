//! The keeper: holds every PTY, pipe and stream to a container, and alone writes recordings and the audit trail.
//!
//! Each byte is recorded on its way: output is on stable storage before it is shown, input is appended before it is
//! passed on. A session's events gather on its `tape`; one commit at a time writes them as a frame to its `reel`.
//! Must never know a credential, a policy or an address; opens nothing but files beneath two directories.

mod bulk;
mod channel;
mod clock;
mod desk;
mod ends;
mod input;
mod kube;
mod redact;
mod reel;
mod session;
mod signal;
mod space;
mod tape;
#[cfg(test)]
mod tests;
mod warden;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use regex::bytes::RegexSet;
use tokio::sync::mpsc;

use self::desk::Desk;
use self::reel::ReelError;
use crate::audit::{self, AuditError};
use crate::privsep::link::{Link, LinkError};
use crate::privsep::message::{FromJailer, JailerToKeeper, Silence};
use crate::privsep::{Accusation, Role};
use crate::recording::{self, Durability, RecoverError, Recovered, Store, StoreError};
use crate::session::SessionId;

#[cfg(any(test, fuzzing))]
pub use kube::fuzz::kube_streams;
pub use redact::InputPolicy;
pub use space::Thresholds;

/// What the keeper takes from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    pub durability: Durability,
    pub input: InputPolicy,
    /// Prompts after which input is not kept though the terminal does not hide it, beside those of `PROMPTS`.
    pub prompts: RegexSet,
    /// Bytes kept on disk for the end of each recording.
    pub reserve: u64,
    pub space: Thresholds,
    /// Bytes of a direction of a channel without a terminal that are recorded as themselves.
    pub bulk_after: u64,
    /// The audit file's name in its directory.
    pub audit: String,
}

/// Prompts that every keeper knows, beside the configuration's.
const PROMPTS: &str = r"(?i)(password|passphrase|passcode|verification code|one-time code|\bpin\b)[^:]{0,80}: ?$";

/// What the keeper holds when it begins: locked down, inside its runtime.
#[derive(Debug)]
pub struct Start {
    pub settings: Settings,
    /// The recordings' directory.
    pub recordings: OwnedFd,
    /// The audit file's directory.
    pub audit: OwnedFd,
    /// From the jailer. `Begin` has been read.
    pub control: Link<Silence, FromJailer<JailerToKeeper>>,
}

/// Why the keeper ended; every session ends with it.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    #[error("the audit trail cannot be written")]
    Audit(#[source] AuditError),
    #[error("the prompts before hidden input cannot be compiled; shorten [recording] redact")]
    Prompts(#[source] regex::Error),
    #[error("the recordings' directory cannot be used")]
    Directory(#[source] std::io::Error),
    #[error("the jailer's link failed")]
    Control(#[source] LinkError),
    #[error("the link to the {role} cannot be watched")]
    Peer { role: Role, source: std::io::Error },
    #[error("a peer cannot be trusted")]
    Untrusted(#[from] Accusation),
}

/// Keeps until the jailer is gone.
pub async fn serve(start: Start) -> Result<(), KeeperError> {
    let mut settings = start.settings;
    let prompts = settings.prompts.patterns().iter().map(String::as_str).chain([PROMPTS]);
    settings.prompts = RegexSet::new(prompts).map_err(KeeperError::Prompts)?;
    let (sink, scribe) = audit::open(start.audit, &settings.audit).map_err(KeeperError::Audit)?;
    let (accuse, mut accused) = mpsc::channel(1);
    let desk = Arc::new(Desk::new(settings, start.recordings, sink, accuse).map_err(KeeperError::Directory)?);
    let mut scribe = tokio::spawn(scribe.run());
    tokio::spawn(recover(desk.clone()));
    tokio::spawn(space::watch(desk.clone()));
    let done = tokio::select! {
        done = &mut scribe => {
            let done = done.unwrap_or_else(|e| Err(AuditError::Sync(std::io::Error::other(e))));
            return done.map_err(KeeperError::Audit);
        }
        done = attend(&desk, &start.control) => done,
        Some(accusation) = accused.recv() => Err(accusation.into()),
    };
    let why = match &done {
        Err(KeeperError::Untrusted(_)) => "the bastion's authority broke its protocol",
        _ if desk.told_to_stop() => "the bastion stopped",
        _ => "the jailer died",
    };
    desk.close_all(why).await;
    desk.sink.settle().await;
    done
}

async fn attend(desk: &Arc<Desk>, control: &Link<Silence, FromJailer<JailerToKeeper>>) -> Result<(), KeeperError> {
    loop {
        let (message, fds) = match control.recv().await {
            Ok(received) => received,
            Err(LinkError::Closed) => return Ok(()),
            Err(fault) => return Err(KeeperError::Control(fault)),
        };
        match message {
            FromJailer::Told(told) => desk.told(told, fds).await?,
            FromJailer::Peer(role) => peer(desk, role, fds)?,
            // New settings would have to reach sessions that run under the old ones; they begin with the next keeper.
            FromJailer::Reload => {}
            FromJailer::Begin => return Err(KeeperError::Control(LinkError::Breach("a second beginning"))),
        }
    }
}

fn peer(desk: &Arc<Desk>, role: Role, fds: Vec<OwnedFd>) -> Result<(), KeeperError> {
    let failed = |source| KeeperError::Peer { role, source };
    for fd in fds {
        match role {
            Role::Warden => desk.greet(Link::new(fd).map_err(failed)?),
            Role::Gate | Role::Portal => {
                drop(tokio::spawn(desk.clone().hear_gate(role, Link::new(fd).map_err(failed)?)));
            }
            Role::Porter => drop(tokio::spawn(desk.clone().hear_porter(Link::new(fd).map_err(failed)?))),
            Role::Tally => drop(tokio::spawn(desk.clone().hear_tally(Link::new(fd).map_err(failed)?))),
            Role::Keeper => return Err(KeeperError::Control(LinkError::Breach("a keeper's link to itself"))),
        }
    }
    Ok(())
}

/// Closes what a crash left open, beside the first new sessions.
async fn recover(desk: Arc<Desk>) {
    let store = desk.clone();
    let unclosed = match blocking(move || store.store.unclosed()).await {
        Ok(Ok(unclosed)) => unclosed,
        Ok(Err(error)) => return not_recovered(&error),
        Err(error) => return not_recovered(&error),
    };
    // Those that run now are unclosed as well; an id is never used again, so a stranger stays one.
    for session in unclosed.into_iter().filter(|id| desk.session(*id).is_none()) {
        let store = desk.clone();
        match blocking(move || recover_one(&store.store, session)).await {
            Ok(Ok(Some(found))) => {
                let (session, events, lost) = (found.session, found.events, found.lost);
                desk.sink.record(audit::Event::RecordingRecovered { session, events, lost }).await;
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => not_recovered(&error),
            Err(error) => not_recovered(&error),
        }
    }
}

fn recover_one(store: &Store, session: SessionId) -> Result<Option<Recovered>, RecoveryError> {
    // A crash before the header was durable: nobody was let in, there is nothing to keep.
    if store.discard_unopened(session)? {
        return Ok(None);
    }
    let file = store.reopen(session)?;
    let recovered = recording::recover(&file, clock::wall(), clock::boot());
    recovered.map_err(|source| RecoveryError::Recover { session, source })
}

#[derive(Debug, thiserror::Error)]
enum RecoveryError {
    #[error("the recording cannot be opened")]
    Store(#[from] StoreError),
    #[error("the recording of {session} stays as the crash left it")]
    Recover { session: SessionId, source: RecoverError },
}

fn not_recovered(error: &(dyn std::error::Error + 'static)) {
    tracing::error!(error, "a recording was not recovered");
}

/// Runs what waits for the disk beside the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ReelError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| ReelError::Write(std::io::Error::other(e)))
}
