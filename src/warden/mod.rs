//! warden

pub mod authority;
pub mod credentials;
pub mod directory;
