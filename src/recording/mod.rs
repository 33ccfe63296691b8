//! A session's recording: a container of hash-chained frames of CBOR events.
//!
//! Knows the bytes of a `.stk` file: how they are written, read, checked, mended after a crash and shown as something
//! else. Must never know a socket, a runtime or a clock but the one passed in. The keeper alone writes; reviewers read.
//!
//! ```text
//! file    = "STKREC1\n" opening frame* [closing]
//! frame   = u16 header length | u16 signature length | header | signature | payload | u32 frame length | u32 check
//! head_n  = SHA-256("stockade/rec/v1" || header_n)      check = first four bytes of head_n
//! payload = zstd((microseconds since the event before, event)*), to be sealed in a later version
//! header  = recording id, seq, head_(n-1), event range, times, length and SHA-256 of the payload, …
//! ```
//! Integers outside CBOR are little endian. The trailing length lets a reader start from the end. The signature's
//! length is zero, the header's fields `next_key` and `suite` are absent, until recordings are signed and sealed.
//!
//! Measured: a frame of one key press is 138 to 142 bytes, of a key and its echo 152, and takes 6 us to make; opening
//! 301, closing 157. Ed25519 will add 98 bytes (signature and `next_key`), one age file a frame 295 more. At 64 KiB a
//! mix of `ls -lR`, `git log -p` and sources packs 6.4 to 1, frames and all, at 170 MB/s; at 4 KiB 4.2 to 1.
mod chain;
mod drawing;
mod event;
mod export;
mod frame;
mod pace;
mod pack;
mod reader;
mod recover;
mod store;
mod summary;
mod text;
mod writer;

use minicbor::{Decode, Encode};

pub use drawing::Drawing;
pub use event::{Direction, Event, Terminal};
pub use export::{ExportError, asciicast, json, screen};
pub use frame::{Closing, FrameHeader, Kind, MAGIC, Opening, Totals};
pub use pace::Pace;
pub use reader::{ReadError, Reader, Recorded};
pub use recover::{RecoverError, Recovered, recover};
pub use store::{Entry, EntryError, State, Store, StoreError};
pub use summary::{Channel, Exit, Summary};
pub use text::{Text, visible};
pub use writer::Writer;

/// The bytes of one direction of a channel that are recorded as themselves; what follows is `Event::Bulk`.
pub const BULK_AFTER: u64 = 64 << 20;

/// How many bytes one `Event::Bulk` stands for.
pub const BULK_UNIT: u64 = 1 << 20;

/// When the bytes of a recording are on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Durability {
    /// Before they are shown.
    #[n(0)]
    Local,
    /// At most one second after they were shown.
    #[n(1)]
    Relaxed,
}

impl Durability {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Relaxed => "relaxed",
        }
    }
}

/// What a recording says of its session before the first event.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    #[n(0)]
    pub user: String,
    #[n(1)]
    pub from: String,
    #[n(2)]
    pub key: String,
    #[n(3)]
    pub client: String,
    #[n(4)]
    pub groups: Vec<String>,
    #[n(5)]
    pub image: String,
    #[n(6)]
    pub role: Option<String>,
}

/// An exec attempt.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Exec {
    #[n(0)]
    pub pid: u32,
    #[n(1)]
    pub path: String,
    #[n(2)]
    pub arguments: Vec<String>,
}

/// An exec or attach on a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KubeStream {
    /// What the API server's audit log calls it too.
    #[n(0)]
    pub audit_id: String,
    #[n(1)]
    pub cluster: String,
    #[n(2)]
    pub namespace: String,
    #[n(3)]
    pub pod: String,
    /// `None`: the pod's first.
    #[n(4)]
    pub container: Option<String>,
    /// `exec` or `attach`.
    #[n(5)]
    pub subresource: String,
    /// Empty with `attach`.
    #[n(6)]
    pub command: Vec<String>,
    #[n(7)]
    pub terminal: bool,
}

impl KubeStream {
    /// What runs where, on a line.
    pub fn title(&self) -> String {
        let Self { cluster, namespace, pod, container, subresource, command, .. } = self;
        let container = container.as_ref().map_or(String::new(), |container| format!("/{container}"));
        let command = if command.is_empty() { String::new() } else { format!(": {}", command.join(" ")) };
        format!("{subresource} {cluster}/{namespace}/{pod}{container}{command}")
    }
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;

#[cfg(test)]
mod tests;
