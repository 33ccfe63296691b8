//! Where access writes its evidence: a file of its own, or lines on standard output for what collects them there.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;

use crate::audit::{self, AuditError, Event, Sink, written};

/// The open audit trail.
#[derive(Debug)]
pub enum Trail {
    File(Sink, Mutex<Option<JoinHandle<Result<(), AuditError>>>>),
    /// For Lambda: CloudWatch keeps what is printed. With the number of the next line.
    Lines(AtomicU64),
    /// For tests.
    Kept(Mutex<Vec<Event>>),
}

/// Why there is none; without one nothing is changed.
#[derive(Debug, thiserror::Error)]
pub enum TrailError {
    #[error("the audit file '{0}' has no directory and name")]
    Name(String),
    #[error("cannot open the directory of the audit file")]
    Directory(#[source] std::io::Error),
    #[error("cannot write the audit trail; is `stockade access watch` running? stop it first, both write one file")]
    Open(#[source] AuditError),
}

impl Trail {
    /// Opens the file, and makes its directory. Needs a runtime.
    pub fn open(path: &Path) -> Result<Self, TrailError> {
        let unnamed = || TrailError::Name(path.display().to_string());
        let name = path.file_name().and_then(OsStr::to_str).ok_or_else(unnamed)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).ok_or_else(unnamed)?;
        fs_err::create_dir_all(directory).map_err(TrailError::Directory)?;
        let directory: OwnedFd = fs_err::File::open(directory).map_err(TrailError::Directory)?.into_parts().0.into();
        let (sink, scribe) = audit::open(directory, name).map_err(TrailError::Open)?;
        Ok(Self::File(sink, Mutex::new(Some(tokio::spawn(scribe.run())))))
    }

    pub fn lines() -> Self {
        Self::Lines(AtomicU64::new(0))
    }

    pub async fn record(&self, event: Event) {
        match self {
            Self::File(sink, _) => sink.record(event).await,
            Self::Lines(number) => {
                let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                let line = written(&event, time, number.fetch_add(1, Ordering::Relaxed) + 1);
                // Nobody is left to be told that nobody listens.
                let _ = std::io::stdout().lock().write_all(&line);
            }
            Self::Kept(events) => events.lock().unwrap_or_else(PoisonError::into_inner).push(event),
        }
    }

    /// Waits until all of it is on stable storage.
    pub async fn settle(&self) {
        if let Self::File(sink, _) = self {
            sink.settle().await;
        }
    }

    /// Nothing is changed while what is changed cannot be written down.
    pub fn healthy(&self) -> bool {
        match self {
            Self::File(sink, writer) => {
                let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                sink.healthy() && writer.as_ref().is_none_or(|writer| !writer.is_finished())
            }
            Self::Lines(_) | Self::Kept(_) => true,
        }
    }
}
