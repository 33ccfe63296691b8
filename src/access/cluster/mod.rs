//! One cluster: its API server is asked what there is, and told what shall be.
//!
//! `Api` is the way there; `read` makes a `world::Cluster`, `carry_out` makes, changes and removes what has our label
//! and nothing else. An object is changed only in the version that was planned with: whoever came in between wins, and
//! the next cycle looks again.

mod api;
pub mod aws_auth;
mod carry;
mod discovery;
mod key;
mod objects;
mod read;
mod spaces;

pub use self::api::{Api, Site};
pub use self::key::{Key, Tokens};
pub use self::spaces::Names;
