//! warden

pub mod authority;
pub mod credentials;
