//! A session: one jail's life. Its id is public, minted by the warden, never reused, and authorises nothing. `verb` is what a
//! user may ask about theirs, `kubeconfig` how kubectl finds its clusters, `exit` what stockade says by an exit status.

pub mod exit;
mod id;
pub mod kubeconfig;
mod number;
pub mod verb;

pub use id::SessionId;
pub use number::{FIRST_STREAM, channel_name, channel_number};
