//! The audit trail: what happened, one JSON line per event with a stable code, shaped after OCSF.
//!
//! Every role makes `Event`s; only the keeper stamps them (time, sequence number) and writes them, to a file that it
//! only ever appends to. Whoever makes events of what strangers do holds them to a `Meter`. Knows nothing of processes and links; decides nothing.

mod event;
mod kube;
mod line;
mod meter;
mod sink;
mod tail;

pub use event::{Class, Code, Event};
pub use kube::{KubeBody, KubeRecord, KubeStage, KubeUser};
pub use line::{plain, written};
pub use meter::Meter;
pub use sink::{AuditError, Scribe, Sink, open};
