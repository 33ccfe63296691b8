//! Who somebody is: principals, their keys, their groups, and the secrets made for them.
//!
//! Knows nothing of sockets, clocks or AWS. What is proved here is only the shape of a claim.

pub mod authorized_keys;
pub mod eks;
mod options;
mod partition;
mod pattern;
mod principal;
mod public_key;
mod secret;
mod source;

pub use partition::partition;
pub use pattern::Pattern;
pub use principal::{NotAPrincipal, Principal};
pub use public_key::{BadKey, KeyKind, fingerprint};
pub use secret::{Credentials, Secret};
pub use source::{BadSource, Sources};

#[cfg(any(test, fuzzing))]
pub mod fuzz;
