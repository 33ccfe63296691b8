//! A request to a cluster: all that a Kubernetes audit event (audit.k8s.io/v1) says of one.

use minicbor::{Decode, Encode};

use crate::config::Level;
use crate::policy::KubeRequest;

/// Told when it ended; of a stream for exec, attach or port-forward also when it began.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KubeRecord {
    #[n(0)]
    pub cluster: String,
    /// The API server writes the same.
    #[n(1)]
    pub audit_id: String,
    #[n(2)]
    pub level: Level,
    #[n(3)]
    pub stage: KubeStage,
    #[n(4)]
    pub request: KubeRequest,
    /// Path and query as the API server sees them; a very long one is cut.
    #[n(5)]
    pub uri: String,
    /// Whom the user asked to be.
    #[n(6)]
    pub impersonated: Option<KubeUser>,
    /// A laptop's address and port; a jail has none.
    #[n(7)]
    pub source: Option<String>,
    #[n(8)]
    pub user_agent: String,
    /// Of the answer; 0 where none came.
    #[n(9)]
    pub status: u16,
    /// Microseconds since the epoch.
    #[n(10)]
    pub received: i64,
    /// Of this stage, in microseconds since the epoch.
    #[n(11)]
    pub at: i64,
    /// Bytes of bodies and streams: to the cluster.
    #[n(12)]
    pub sent: u64,
    #[n(13)]
    pub got: u64,
    /// Of exec and attach.
    #[n(14)]
    pub container: Option<String>,
    #[n(15)]
    pub command: Vec<String>,
    #[n(16)]
    pub body: Option<KubeBody>,
    /// What ended it before its end.
    #[n(17)]
    pub trouble: Option<String>,
}

/// The API server's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum KubeStage {
    #[n(0)]
    ResponseStarted,
    #[n(1)]
    ResponseComplete,
    /// It broke. Where the client or the session wanted no more of it, it is complete.
    #[n(2)]
    Panic,
}

/// Somebody on a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KubeUser {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub groups: Vec<String>,
}

/// A request's body, where the level asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum KubeBody {
    /// JSON, whole.
    #[n(0)]
    Whole(#[n(0)] String),
    /// JSON of which an event may have only the beginning.
    #[n(1)]
    Cut {
        #[n(0)]
        begins: String,
        /// Of all of it.
        #[n(1)]
        length: u64,
    },
    /// Another thing, as JSON.
    #[n(2)]
    Read {
        #[n(0)]
        json: String,
        /// What it is, and how much of it was read.
        #[n(1)]
        of: String,
    },
    /// What it claims to be, and why nothing of it is here.
    #[n(3)]
    Unread(#[n(0)] String),
}
