//! Who somebody is: principals, their keys, their groups, and the secrets made for them.
//!
//! Knows nothing of sockets, clocks or AWS. What is proved here is only the shape of a claim.

mod pattern;
mod principal;
mod secret;

pub use pattern::Pattern;
pub use principal::{NotAPrincipal, Principal};
pub use secret::{Credentials, Secret};
