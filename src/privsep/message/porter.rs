//! What the porter may hand out.

use minicbor::{Decode, Encode};

use crate::config::{EgressLimits, EgressRule};
use crate::identity::Credentials;
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
