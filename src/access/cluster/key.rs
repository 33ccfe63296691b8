//! What is shown to an API server.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::config::AuthInfo;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::access::eks::Entries;
use crate::access::seam::Fault;
use crate::config::Proof;
use crate::identity::Secret;
use crate::warden::clusters::Place;

/// Each new token costs the cluster a question to STS; one is good for ten minutes at least.
const USED: Duration = Duration::from_mins(8);

/// Who access is to a cluster.
pub enum Key {
    /// Of a kubeconfig.
    Proof(Proof),
    /// A token of access's own AWS identity.
    Eks(Tokens),
}

/// Tokens for one cluster of EKS, which takes each for 15 minutes.
pub struct Tokens {
    entries: Arc<Entries>,
    place: Place,
    cluster: String,
    last: Mutex<Option<(Secret, Instant)>>,
}

impl Tokens {
    /// `cluster` as EKS calls it.
    pub fn new(entries: Arc<Entries>, place: Place, cluster: String) -> Self {
        Self { entries, place, cluster, last: Mutex::default() }
    }

    async fn token(&self) -> Result<Secret, Fault> {
        let mut last = self.last.lock().await;
        if let Some((token, _)) = last.as_ref().filter(|(_, made)| made.elapsed() < USED) {
            return Ok(token.clone());
        }
        let token = Box::pin(self.entries.token(&self.place, &self.cluster)).await?;
        *last = Some((token.clone(), Instant::now()));
        Ok(token)
    }
}

impl Key {
    /// For a header; a certificate is shown by TLS.
    pub(super) async fn token(&self) -> Result<Option<Secret>, Fault> {
        match self {
            Self::Proof(Proof::Token(token)) => Ok(Some(token.clone())),
            Self::Proof(Proof::Certificate { .. }) => Ok(None),
            Self::Eks(tokens) => tokens.token().await.map(Some),
        }
    }

    /// The next request has a new token: this one was not taken.
    pub(super) async fn forget(&self) {
        if let Self::Eks(tokens) = self {
            *tokens.last.lock().await = None;
        }
    }

    pub(super) fn shown_by_tls(&self) -> AuthInfo {
        let Self::Proof(Proof::Certificate { chain, key }) = self else { return AuthInfo::default() };
        AuthInfo {
            client_certificate_data: Some(STANDARD.encode(chain)),
            client_key_data: Some(STANDARD.encode(key.expose()).into()),
            ..AuthInfo::default()
        }
    }
}
