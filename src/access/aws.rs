//! AWS by access's own identity: clients that are patient, and that count what they ask.
//!
//! Throttling is answered with pauses that double and are cut by chance, in the SDK; what is throttled for minutes is a
//! transient fault, and the next cycle goes on where this one ended.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::sts::AssumeRoleProvider;
use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials as Keys;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_iam::config::http::HttpResponse;
use aws_sdk_iam::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_iam::config::timeout::TimeoutConfig;
use aws_sdk_iam::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_iam::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;

use super::seam::Fault;
use crate::identity::{Credentials, Secret};
use crate::privsep::message::Refusal;
use crate::warden::authority::{AuthorityError, Patience, Surroundings, chain, configuration, refusal_of};

/// The name of access's session in other accounts, and what CloudTrail shows of it.
const SESSION: &str = "stockade-access";
/// Nobody waits at a keyboard for most of this, and a cycle that gives up begins again: some 15 s of pauses.
const PATIENCE: Patience = Patience {
    attempts: 8,
    first_pause: Duration::from_millis(200),
    longest_pause: Duration::from_secs(8),
    attempt: Duration::from_secs(20),
    operation: Duration::from_secs(90),
};
/// A queue is asked to answer within 20 s.
const POLL: Duration = Duration::from_secs(30);
/// Keys that live less than this are asked for anew: a token made with them must outlive its use.
const FRESH: i64 = 10 * 60;
/// AWS's words for what works a little later.
const LATER: [&str; 3] = ["ConcurrentModification", "ConcurrentModificationException", "EntityTemporarilyUnmodifiable"];

/// Cheap to clone: all of them count together.
#[derive(Clone, Debug)]
pub struct Aws {
    config: SdkConfig,
    calls: Calls,
    /// By the role they are of; `None`: access's own.
    keys: Arc<Mutex<HashMap<Option<String>, Keys>>>,
}

/// What was asked, by `service:Operation`, every attempt of it.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<Mutex<BTreeMap<String, u64>>>);

impl Aws {
    /// By the SDK's standard settings; asks nobody anything.
    pub async fn connect(region: &str, surroundings: &Surroundings) -> Result<Self, AuthorityError> {
        Ok(Self::new(configuration(region, surroundings, PATIENCE).await?))
    }

    /// Over a configuration that is there already.
    pub fn new(config: SdkConfig) -> Self {
        Self { config, calls: Calls::default(), keys: Arc::default() }
    }

    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Who access is to AWS: an ARN.
    pub async fn whoami(&self) -> Result<String, Fault> {
        let config = aws_sdk_sts::config::Builder::from(&self.config).interceptor(self.calls.clone());
        let said = aws_sdk_sts::Client::from_conf(config.build()).get_caller_identity().send().await;
        Ok(said.map_err(|error| fault(&error))?.arn.unwrap_or_default())
    }

    pub(super) fn iam(&self) -> aws_sdk_iam::Client {
        let config = aws_sdk_iam::config::Builder::from(&self.config).interceptor(self.calls.clone());
        aws_sdk_iam::Client::from_conf(config.build())
    }

    /// Of a region, by access's own identity or one that it assumes.
    pub(super) async fn eks(&self, role: Option<&str>, region: &str) -> aws_sdk_eks::Client {
        let mut config = aws_sdk_eks::config::Builder::from(&self.config)
            .region(Region::new(region.to_owned()))
            .interceptor(self.calls.clone());
        if let Some(role) = role {
            config = config.credentials_provider(self.assumed(role).await);
        }
        aws_sdk_eks::Client::from_conf(config.build())
    }

    pub(super) fn sqs(&self, region: Option<&str>) -> aws_sdk_sqs::Client {
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(POLL).operation_timeout(POLL * 2).build();
        let mut config =
            aws_sdk_sqs::config::Builder::from(&self.config).timeout_config(timeouts).interceptor(self.calls.clone());
        if let Some(region) = region {
            config = config.region(Region::new(region.to_owned()));
        }
        aws_sdk_sqs::Client::from_conf(config.build())
    }

    /// The keys themselves, for what is signed here: kept while they live.
    pub(super) async fn credentials(&self, role: Option<&str>) -> Result<Credentials, Fault> {
        let role = role.map(str::to_owned);
        let now = seconds(SystemTime::now());
        let kept = self.keys().get(&role).filter(|keys| expiry(keys) > now + FRESH).cloned();
        let keys = match (kept, &role) {
            (Some(keys), _) => keys,
            (None, Some(role)) => keys_of(&self.assumed(role).await).await?,
            (None, None) => match self.config.credentials_provider() {
                Some(own) => keys_of(&own).await?,
                None => return Err(nobody("the SDK has no source of credentials")),
            },
        };
        self.keys().insert(role, keys.clone());
        Ok(Credentials {
            access_key_id: keys.access_key_id().to_owned(),
            secret_access_key: Secret::new(keys.secret_access_key().to_owned()),
            session_token: Secret::new(keys.session_token().unwrap_or_default().to_owned()),
            issued: now,
            expires: expiry(&keys),
        })
    }

    async fn assumed(&self, role: &str) -> SharedCredentialsProvider {
        let assumed = AssumeRoleProvider::builder(role).session_name(SESSION).configure(&self.config);
        SharedCredentialsProvider::new(assumed.build().await)
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<Option<String>, Keys>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn keys_of(provider: &SharedCredentialsProvider) -> Result<Keys, Fault> {
    provider.provide_credentials().await.map_err(|error| {
        let mut fault = nobody(&chain(&error));
        fault.transient = !matches!(error, CredentialsError::InvalidConfiguration(_));
        fault
    })
}

fn nobody(why: &str) -> Fault {
    Fault { code: "NoIdentity".into(), message: format!("stockade has no AWS identity now: {why}"), transient: false }
}

/// `i64::MAX`: keys without an end.
fn expiry(keys: &Keys) -> i64 {
    keys.expiry().map_or(i64::MAX, seconds)
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl Calls {
    pub fn all(&self) -> BTreeMap<String, u64> {
        self.lock().clone()
    }

    pub fn total(&self) -> u64 {
        self.lock().values().sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for Calls {
    fn name(&self) -> &'static str {
        "Calls"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        about: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(asked) = about.load::<Metadata>() {
            let name = format!("{}:{}", asked.service().to_lowercase(), asked.name());
            *self.lock().entry(name).or_default() += 1;
        }
        Ok(())
    }
}

/// In AWS's words, and whether the next cycle may have more luck.
pub(super) fn fault<E>(error: &SdkError<E, HttpResponse>) -> Fault
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let Refusal { code, message, transient } = refusal_of(error);
    Fault { transient: transient || LATER.contains(&code.as_str()), code, message }
}
