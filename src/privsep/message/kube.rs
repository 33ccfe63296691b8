//! What the porter knows of clusters and of who a session is there, and what it hands to the keeper.

use minicbor::{Decode, Encode};

use crate::identity::{Pattern, Secret};

/// A cluster as every session that may use it reaches it. No two have one name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Cluster {
    /// Letters, digits, `.`, `_`, `-`: a part of a path and the name of a context.
    #[n(0)]
    pub name: String,
    /// `https://host[:port][/prefix]`
    #[n(1)]
    pub endpoint: String,
    /// The only certificates that the API server's may come from, as PEM.
    #[n(2)]
    pub authority: String,
    /// The name in its certificate, where it is not the endpoint's host.
    #[n(3)]
    pub server_name: Option<String>,
    #[n(4)]
    pub way: Way,
}

/// How a user is themselves there.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Way {
    /// A presigned token of the session's cluster credentials, made where it is used.
    #[n(0)]
    Eks {
        #[n(0)]
        region: String,
        /// As EKS calls it: the value of the signed header `x-k8s-aws-id`.
        #[n(1)]
        cluster: String,
    },
    /// This credential, and headers that say who the user is.
    #[n(1)]
    Impersonate(#[n(0)] Credential),
    /// This credential for everybody.
    #[n(2)]
    Shared(#[n(0)] Credential),
}

/// What the bastion itself shows an API server.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Credential {
    #[n(0)]
    Token(#[n(0)] Secret),
    /// Chain and private key, PEM.
    #[n(1)]
    Certificate {
        #[n(0)]
        chain: String,
        #[n(1)]
        key: Secret,
    },
}

/// Who a session is on clusters, and on which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Pass {
    /// Names of clusters; any other is not there for this session.
    #[n(0)]
    pub clusters: Vec<String>,
    /// For `Way::Impersonate`: the user's groups as the clusters know them.
    #[n(1)]
    pub groups: Vec<String>,
    #[n(2)]
    pub may_be: Vec<MayBe>,
}

/// Whom a session may be with `--as`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MayBe {
    #[n(0)]
    pub clusters: Vec<Pattern>,
    #[n(1)]
    pub users: Vec<Pattern>,
    #[n(2)]
    pub groups: Vec<Pattern>,
}

/// As client and API server agreed on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum StreamProtocol {
    /// v4.channel.k8s.io
    #[n(0)]
    WebSocket4,
    /// v5.channel.k8s.io: the end of stdin has a message of its own.
    #[n(1)]
    WebSocket5,
    /// v4.base64.channel.k8s.io and the older ones are refused by the door.
    #[n(2)]
    Spdy,
}
