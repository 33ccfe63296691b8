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
mod power;
mod refusal;
mod surroundings;

use std::path::PathBuf;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;

pub use self::ask::{AssumeRequest, Caller};
pub use self::refusal::{chain, no_identity, refusal_of};
pub use self::surroundings::Surroundings;
use crate::privsep::message::{Grant, Refusal};

/// The name of the bastion's own session in other accounts.
const LOOKS_FOR_CLUSTERS: &str = "stockade-discovery";

const CONNECT: Duration = Duration::from_secs(3);
/// Both tries and the pause between them: nobody's first call in a jail waits longer for a verdict.
const WARDEN: Patience = Patience {
    attempts: 2,
    first_pause: Duration::from_millis(100),
    longest_pause: Duration::from_millis(500),
    attempt: Duration::from_secs(5),
    operation: Duration::from_secs(9),
};

/// How often and how long AWS is asked the same thing. Pauses double, and are cut by chance, so that many that were
/// throttled together do not come back together.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub attempts: u32,
    pub first_pause: Duration,
    pub longest_pause: Duration,
    /// For one attempt.
    pub attempt: Duration,
    /// For all of them with their pauses.
    pub operation: Duration,
}

/// The bastion's AWS identity, and who may be asked with it.
#[derive(Clone, Debug)]
pub struct Authority {
    sts: aws_sdk_sts::Client,
    iam: aws_sdk_iam::Client,
    /// For clients of other regions and accounts.
    config: SdkConfig,
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
        let config = configuration(region, surroundings, WARDEN).await?;
        Ok(Self {
            sts: aws_sdk_sts::Client::new(&config),
            iam: aws_sdk_iam::Client::new(&config),
            config,
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

    /// What of this the bastion may do that nobody's keeper should: for `doctor`.
    pub async fn writes(&self, caller: &Caller, upon: &[String]) -> Result<Vec<String>, Refusal> {
        power::writes(&self.iam, &caller.arn, upon).await
    }

    /// EKS of a region, with the same identity or one that it assumes.
    pub async fn eks(&self, role: Option<&str>, region: &str) -> aws_sdk_eks::Client {
        let mut config = aws_sdk_eks::config::Builder::from(&self.config).region(Region::new(region.to_owned()));
        if let Some(role) = role {
            let assumed = AssumeRoleProvider::builder(role).session_name(LOOKS_FOR_CLUSTERS).configure(&self.config);
            config = config.credentials_provider(assumed.build().await);
        }
        aws_sdk_eks::Client::from_conf(config.build())
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

/// The SDK's standard settings from the environment and the shared files, over our TLS and resolver.
pub async fn configuration(
    region: &str,
    surroundings: &Surroundings,
    patience: Patience,
) -> Result<SdkConfig, AuthorityError> {
    if region.is_empty() || !region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(AuthorityError::Region(region.to_owned()));
    }
    refuse_programs(region).await?;
    let http = surroundings.http_client()?;
    let region = Region::new(region.to_owned());
    Ok(patience.on(aws_config::defaults(BehaviorVersion::latest()).region(region).http_client(http)).load().await)
}

impl Patience {
    fn on(&self, loader: ConfigLoader) -> ConfigLoader {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_attempt_timeout(self.attempt)
            .operation_timeout(self.operation)
            .build();
        let retries = RetryConfig::standard()
            .with_max_attempts(self.attempts)
            .with_initial_backoff(self.first_pause)
            .with_max_backoff(self.longest_pause);
        loader.timeout_config(timeouts).retry_config(retries)
    }
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
            let told = chain(&error);
            let process = told.contains("credentials-process");
            Err(if process { AuthorityError::CredentialProcess } else { AuthorityError::Profile(told) })
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
