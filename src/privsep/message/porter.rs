//! What the porter may hand out.

use minicbor::{Decode, Encode};

use super::{Cluster, Pass};
use crate::config::{EgressLimits, EgressRule};
use crate::identity::{Credentials, Principal};
use crate::session::SessionId;

/// What the porter may hand out. It asks for nothing: the warden pushes.
#[derive(Debug, Encode, Decode)]
pub enum WardenToPorter {
    /// The newest credentials of a session; they replace the former.
    #[n(0)]
    Issued {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        grant: Box<Grant>,
    },
    /// The newest attempt failed; credentials issued before stay good until they expire.
    #[n(1)]
    Refused {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        refusal: Refusal,
    },
    /// What this session may reach outside; it replaces what was said before.
    #[n(2)]
    Egress {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        rules: Vec<EgressRule>,
        #[n(2)]
        limits: EgressLimits,
    },
    /// A cluster; it replaces what was said of this name.
    #[n(3)]
    Cluster(#[n(0)] Box<Cluster>),
    /// There is no cluster of this name any more.
    #[n(4)]
    NoCluster {
        #[n(0)]
        name: String,
    },
    /// Who a session is on clusters; it replaces what was said before.
    #[n(5)]
    Pass {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        pass: Box<Pass>,
    },
    /// The newest credentials of the role that clusters know. They sign tokens in the porter and go nowhere else.
    #[n(6)]
    ClusterCredentials {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        credentials: Credentials,
    },
    /// The newest attempt to get them failed; those issued before stay good until they expire.
    #[n(7)]
    NoClusterCredentials {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        refusal: Refusal,
    },
    /// Somebody who is logged in fetched a token for a laptop: until it ends it opens the public door to this grant,
    /// a session of its own without a jail. One token a grant; a new one replaces it. A warden's grants end with its
    /// link: the next one does not know them, so it could not end them.
    #[n(8)]
    Laptop {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        user: Principal,
        /// SHA-256 of the token.
        #[n(2)]
        #[cbor(with = "minicbor::bytes")]
        digest: [u8; 32],
        /// Seconds since the epoch.
        #[n(3)]
        expires: i64,
    },
    /// A laptop's grant is over (its end, a lock): its streams end at once.
    #[n(9)]
    LaptopGone {
        #[n(0)]
        session: SessionId,
    },
}

/// Credentials and what the metadata documents say beside them.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Grant {
    #[n(0)]
    pub credentials: Credentials,
    /// The role's name: the last part of its ARN.
    #[n(1)]
    pub role: String,
    #[n(2)]
    pub role_arn: String,
    #[n(3)]
    pub account: String,
    #[n(4)]
    pub region: String,
}

/// Why there are no credentials, in AWS's words.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Refusal {
    /// `AccessDenied`, `Throttling`, `NoIdentity`, …
    #[n(0)]
    pub code: String,
    #[n(1)]
    pub message: String,
    /// Too many requests, or STS not reachable: worth asking again.
    #[n(2)]
    pub transient: bool,
}
