//! stockade: a bastion whose jails have no network, only doors.
//!
//! The rooms, in the order of a session's life; arrows point down only (`tests/it/rooms.rs` holds them to it):
//!
//! ```text
//! main -> cli -> command          argv, verbs, exit codes
//! jailer loader gate warden porter keeper tally   the processes: each this binary again; all but the first two with a
//!                                 uid of their own
//! access                          IAM groups to Kubernetes RBAC: a process of its own, started by nobody here
//! privsep                         what one process may say to another, and when
//! audit recording image           append-only evidence; the image store
//! config identity policy session  the law: pure
//! sys                             every unsafe line
//! ```
#![deny(unsafe_code)]

pub mod access;
pub mod audit;
pub mod cli;
pub mod command;
pub mod config;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod gate;
pub mod identity;
pub mod image;
pub mod jailer;
pub mod keeper;
pub mod loader;
pub mod policy;
pub mod porter;
pub mod privsep;
pub mod recording;
pub mod session;
#[allow(unsafe_code)]
pub mod sys;
pub mod tally;
pub mod warden;
