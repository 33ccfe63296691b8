//! The audit trail: what happened, one JSON line per event with a stable code, shaped after OCSF.
//!
//! Every role makes `Event`s; only the keeper stamps them (time, sequence number) and writes them.

mod event;

pub use event::Event;
