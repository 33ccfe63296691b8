use std::borrow::Cow;
use std::time::Duration;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey};
use russh::server::Config;
use russh::{Limits, MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};

use ipnet::IpNet;

use super::input;
use crate::config::{Netblock, Penalties};
use crate::identity::Pattern;

/// Which algorithms are offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithms {
    /// Post-quantum key exchange first, X25519 for clients that have none.
    #[default]
    Modern,
    /// Post-quantum key exchange or none.
    Pq,
}

/// OpenSSH's `MaxStartups start:rate:full`, for connections that have not yet logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxStartups {
    /// From this many on, `rate` percent of a waiting source's further connections are refused…
    pub start: usize,
    pub rate: u32,
    /// …rising to all of them at this many.
    pub full: usize,
}

/// When keys are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rekey {
    /// At most 1 GiB: beyond it nonces could repeat.
    pub bytes: usize,
    pub time: Duration,
}

/// How the gate treats clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub algorithms: Algorithms,
    pub login_grace: Duration,
    pub max_startups: MaxStartups,
    /// Connections from one source that have not yet logged in.
    pub per_source: usize,
    /// What one source is.
    pub netblock: Netblock,
    /// Sources without a share and without penalties.
    pub exempt: Vec<IpNet>,
    pub penalties: Option<Penalties>,
    pub max_auth_tries: usize,
    /// Session channels at a time on one connection.
    pub max_sessions: usize,
    pub keepalive: Duration,
    /// Names of variables a client may set. `TERM` comes with the terminal.
    pub environment: Vec<Pattern>,
    pub banner: Option<String>,
    pub rekey: Rekey,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            algorithms: Algorithms::Modern,
            login_grace: Duration::from_secs(30),
            max_startups: MaxStartups { start: 10, rate: 30, full: 100 },
            per_source: 4,
            netblock: Netblock::default(),
            exempt: Vec::new(),
            penalties: Some(Penalties::default()),
            max_auth_tries: 6,
            max_sessions: 10,
            keepalive: Duration::from_secs(30),
            environment: vec![Pattern::new("LANG"), Pattern::new("LC_*")],
            banner: None,
            rekey: Rekey { bytes: 1 << 30, time: Duration::from_secs(3600) },
        }
    }
}

/// Keepalives that may stay without an answer.
pub const PATIENCE: usize = 3;

impl Settings {
    /// How long a client may not take what was sent to it.
    pub fn stall(&self) -> Duration {
        self.keepalive.saturating_mul(PATIENCE as u32 + 1)
    }

    pub(super) fn ssh(&self, keys: Vec<PrivateKey>) -> Config {
        let bytes = self.rekey.bytes.min(1 << 30);
        Config {
            // No version: it would tell an attacker what to try.
            server_id: SshId::Standard("SSH-2.0-stockade".into()),
            methods: MethodSet::from(&[MethodKind::PublicKey][..]),
            auth_rejection_time: Duration::from_secs(1),
            auth_rejection_time_initial: Some(Duration::ZERO),
            keys,
            limits: Limits { rekey_write_limit: bytes, rekey_read_limit: bytes, rekey_time_limit: self.rekey.time },
            window_size: input::WINDOW,
            maximum_packet_size: crate::privsep::stream::LONGEST_DATA as u32,
            preferred: self.algorithms.preferred(),
            // russh counts the `none` probe with which most clients begin; `Client::ask` holds the others to the number.
            max_auth_attempts: self.max_auth_tries.saturating_add(1),
            inactivity_timeout: None,
            // None is none; zero would be one after the other.
            keepalive_interval: (!self.keepalive.is_zero()).then_some(self.keepalive),
            keepalive_max: PATIENCE,
            nodelay: true,
            ..Config::default()
        }
    }
}

impl Algorithms {
    fn preferred(self) -> Preferred {
        // The extension names are how russh offers ext-info and strict kex (CVE-2023-48795): never without them.
        const EXTENSIONS: [kex::Name; 2] =
            [kex::EXTENSION_SUPPORT_AS_SERVER, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER];
        let exchanges = match self {
            Self::Modern => &[kex::MLKEM768X25519_SHA256, kex::CURVE25519, kex::CURVE25519_PRE_RFC_8731][..],
            Self::Pq => &[kex::MLKEM768X25519_SHA256],
        };
        Preferred {
            kex: exchanges.iter().chain(&EXTENSIONS).copied().collect(),
            key: Cow::Borrowed(&[
                Algorithm::Ed25519,
                Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
                Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
                Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
                Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
                Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
                // Last: users' hardware keys; no host key has this type.
                Algorithm::SkEd25519,
                Algorithm::SkEcdsaSha2NistP256,
            ]),
            cipher: Cow::Borrowed(&[
                cipher::AES_256_GCM,
                cipher::AES_128_GCM,
                cipher::CHACHA20_POLY1305,
                cipher::AES_256_CTR,
            ]),
            mac: Cow::Borrowed(&[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM]),
            compression: Cow::Borrowed(&[compression::NONE]),
            host_key_certificates: Cow::Borrowed(&[]),
        }
    }
}
