//! The boundary: which process may say what to which, in which phase, with how many descriptors.
//!
//! Everything that crosses from one uid to another is an enum of `message`, one per direction, sent over a `link`
//! (a SOCK_SEQPACKET pair that the jailer made). `table` says when a message may come. A message that is unknown,
//! out of phase or has the wrong number of descriptors ends its sender, in the way that `table` says; there is no error reply to probe with.

mod accusation;
pub mod begin;
pub mod changes;
pub mod fence;
pub mod link;
pub mod message;
mod role;
pub mod stream;
pub mod table;

pub use accusation::Accusation;
pub use role::Role;

#[cfg(any(test, fuzzing))]
pub mod fuzz;
