//! The image store: OCI images, unpacked below `<state>/images/`, for jails to stand on.
//!
//! `sha256-<manifest digest>/{rootfs,image.json,lock}` is one image, `names/<name>` holds the digest a name means today.
//! An image is hostile until unpacked: `child` runs the parsing and the writing in a process that keeps nothing but the
//! right to give files away inside one empty directory. This room knows files; it never mounts, never runs anything of
//! an image and knows no jail.

pub mod child;
mod digest;
mod error;
mod fence;
mod layer;
mod layout;
mod place;
mod record;
mod store;
mod tree;
mod unpack;

pub use digest::Digest;
pub use error::Error;
pub use layer::Limits;
pub use record::{Config, Record};
pub use store::{Held, Listed, Name, Removed, Resolved, Store};

/// What this room's steps give.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod hostile;
