//! The bastion's AWS: it alone holds the base identity, and turns it into one session's short-lived credentials.
//!
//! `Authority::connect` is awaited before lock-down, on a runtime that may end afterwards; it opens every file it ever
//! will (names, roots, shared configuration) and no socket. What still works when files no longer open:
//!
//! | provider of the base identity                  | after lock-down                                             |
//! |------------------------------------------------|-------------------------------------------------------------|
//! | environment, static profile, IMDS, ECS by URI  | works                                                       |
//! | profile with `role_arn` and one of the above   | works                                                       |
//! | web identity (EKS IRSA), a token file of EKS pod identity | reads its token at each refresh: `token_files`   |
//! | container URI with a host name                 | not: the SDK resolves it by the C library; use an address   |
//! | `credential_process`, SSO, `login_session`     | refused by `connect`, with a sentence                       |

mod ask;
mod refusal;
mod surroundings;

use std::path::PathBuf;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;

pub use self::ask::{AssumeRequest, Caller};
pub use self::refusal::{no_identity, refusal_of};
pub use self::surroundings::Surroundings;
use crate::privsep::message::{Grant, Refusal};

const CONNECT: Duration = Duration::from_secs(3);
const ATTEMPT: Duration = Duration::from_secs(5);
/// Both tries and the pause between them: nobody's first call in a jail waits longer for a verdict.
const OPERATION: Duration = Duration::from_secs(9);

/// The bastion's AWS identity, and who may be asked with it.
#[derive(Clone, Debug)]
pub struct Authority {
    sts: aws_sdk_sts::Client,
    iam: aws_sdk_iam::Client,
    region: String,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("cannot read '{path}', which names are resolved by")]
    Names { path: PathBuf, source: std::io::Error },
    #[error("cannot read '{path}', the certificates that TLS trusts; name another with SSL_CERT_FILE")]
    Roots { path: PathBuf, source: std::io::Error },
    #[error("cannot make a resolver from /etc/resolv.conf and /etc/hosts: {0}")]
    Resolver(String),
    #[error("cannot make a TLS client: {0}")]
    Tls(String),
    #[error(
        "the bastion's AWS profile has a credential_process, which is refused: the process that holds the identity \
         may not start programs; use an instance role, a container role or access keys"
    )]
    CredentialProcess,
    #[error("the bastion's AWS profile cannot be used: {0}")]
    Profile(String),
    #[error("'{0}' is not an AWS region; set aws.region, for example \"eu-central-1\"")]
    Region(String),
}

impl Authority {
    /// Reads the SDK's standard settings from the environment and the shared files; asks nobody anything.
    pub async fn connect(region: &str, surroundings: &Surroundings) -> Result<Self, AuthorityError> {
        if region.is_empty() || !region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(AuthorityError::Region(region.to_owned()));
        }
        refuse_programs(region).await?;
        let config = configuration(region, surroundings.http_client()?).await;
        Ok(Self {
            sts: aws_sdk_sts::Client::new(&config),
            iam: aws_sdk_iam::Client::new(&config),
            region: region.to_owned(),
        })
    }

    /// Credentials of one user for one session; never anybody else's.
    pub async fn assume(&self, request: &AssumeRequest) -> Result<Grant, Refusal> {
        request.ask(&self.sts, &self.region).await
    }

    /// Who the bastion is to AWS: for `doctor`.
    pub async fn whoami(&self) -> Result<Caller, Refusal> {
        ask::whoami(&self.sts).await
    }

    /// IAM with the same identity, for the directory.
    pub fn iam(&self) -> aws_sdk_iam::Client {
        self.iam.clone()
    }
}

/// The files that the SDK reads again whenever the base identity is renewed. Empty for most; else lock-down must leave
/// their directories readable (the kubelet replaces such a file by moving a symbolic link).
pub fn token_files() -> Vec<PathBuf> {
    ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]
        .into_iter()
        .filter_map(std::env::var_os)
        .map(PathBuf::from)
        .collect()
}

async fn configuration(region: &str, http: SharedHttpClient) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(OPERATION)
        .build();
    let retries = RetryConfig::standard()
        .with_max_attempts(2)
        .with_initial_backoff(Duration::from_millis(100))
        .with_max_backoff(Duration::from_millis(500));
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(retries)
        .load()
        .await
}

/// The chain's own refusal of a `credential_process` would come with the first login, as one log line among others.
/// Environment keys come before the profile in the chain, so with them the profile does not matter.
async fn refuse_programs(region: &str) -> Result<(), AuthorityError> {
    if EnvironmentVariableCredentialsProvider::new().provide_credentials().await.is_ok() {
        return Ok(());
    }
    let offline = http_client_fn(|_, _| SharedHttpConnector::new(Offline));
    let config =
        ProviderConfig::without_region().with_region(Some(Region::new(region.to_owned()))).with_http_client(offline);
    let profile = ProfileFileCredentialsProvider::builder().configure(&config).build();
    match profile.provide_credentials().await {
        Err(error @ CredentialsError::InvalidConfiguration(_)) => {
            let chain = refusal::chain(&error);
            let process = chain.contains("credentials-process");
            Err(if process { AuthorityError::CredentialProcess } else { AuthorityError::Profile(chain) })
        }
        // Nothing there, or somebody must be asked: found out with the first request.
        _ => Ok(()),
    }
}

/// Lets a profile be judged without a network.
#[derive(Debug)]
struct Offline;

impl HttpConnector for Offline {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::ready(Err(ConnectorError::user("not asked yet".into())))
    }
}
