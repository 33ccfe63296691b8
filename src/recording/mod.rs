//! A session's recording: a container of hash-chained frames of CBOR events.

use minicbor::{Decode, Encode};

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
