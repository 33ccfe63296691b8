//! A session: one jail's life. Its id is public, minted by the warden, never reused, and authorises nothing.

mod id;

pub use id::SessionId;
