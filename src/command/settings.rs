//! The configuration in the words of each role.

use std::os::fd::OwnedFd;

use anyhow::Context;

use crate::config::{self, Config};
use crate::{keeper, recording, warden};

/// The keeper's.
pub fn keeper(config: &Config) -> anyhow::Result<keeper::Settings> {
    let recording = &config.recording;
    Ok(keeper::Settings {
        durability: match recording.durability {
            config::Durability::Local => recording::Durability::Local,
            config::Durability::Relaxed => recording::Durability::Relaxed,
        },
        input: match recording.input {
            config::Input::Redacted => keeper::InputPolicy::Redacted,
            config::Input::Full => keeper::InputPolicy::Full,
            config::Input::None => keeper::InputPolicy::None,
        },
        prompts: regex::bytes::RegexSet::new(&recording.redact).context("[recording] redact")?,
        reserve: recording.reserve,
        space: keeper::Thresholds { warn: recording.warn_at, refuse: recording.refuse_at, end: recording.end_at },
        bulk_after: recording::BULK_AFTER,
        audit: file_name(&config.audit.file)?,
    })
}

fn file_name(path: &std::path::Path) -> anyhow::Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    Ok(name.context("[audit] file has no name")?.to_owned())
}

/// The warden's, for sessions.
pub fn terms(config: &Config, clusters: Vec<warden::clusters::Known>) -> warden::Terms {
    warden::Terms {
        kube: std::sync::Arc::new(config.kube.clone()),
        rbac: config.rbac.clone().map(std::sync::Arc::new),
        cycle: cycle(config),
        clusters,
        region: config.aws.as_ref().map(|aws| aws.region.clone()),
        linger: config.ssh.linger,
        // One user's connections must leave jails for others.
        jails_per_user: usize::try_from(config.jail.max_jails / 2).unwrap_or(usize::MAX).clamp(1, 20),
        image: config.jail.image.clone(),
        role: config.aws.as_ref().map(|aws| aws.role.as_str().to_owned()),
        egress: std::sync::Arc::new(config.egress.clone()),
        netblock: config.ssh.source_netblock,
        ssh_port: config.listen.ssh.first().map_or(22, std::net::SocketAddr::port),
    }
}

/// As often as IAM is asked anew. What files say changes by a reload, which asks about everybody.
fn cycle(config: &Config) -> Option<std::time::Duration> {
    let aws = config.aws.as_ref().filter(|aws| aws.groups_from_iam || aws.keys_from_iam)?;
    Some(aws.cache.max(SHORTEST_CYCLE))
}

/// A `cache` of nothing is for logins: whoever is in is not asked about without a pause.
const SHORTEST_CYCLE: std::time::Duration = std::time::Duration::from_secs(2);

/// The warden's, for credentials.
pub fn credentials(aws: &config::Aws) -> warden::credentials::Terms {
    warden::credentials::Terms {
        role: aws.role.as_str().to_owned(),
        tags: aws.session_tags.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        policy: aws.session_policy.clone(),
        duration: aws.duration,
    }
}

/// The warden's, for tokens: of the role that clusters know.
pub fn cluster_credentials(config: &Config, aws: &config::Aws) -> warden::credentials::Terms {
    let role = match &config.kube.role {
        config::KubeRole::Separate(role) => role,
        config::KubeRole::Same | config::KubeRole::None => &aws.role,
    };
    let policy = Some(NOTHING.to_owned());
    warden::credentials::Terms { role: role.as_str().to_owned(), policy, ..credentials(aws) }
}

/// A token says who somebody is, which AWS tells even those who may do nothing.
const NOTHING: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}"#;

/// Key files beneath a descriptor, opened by the strict rules.
pub fn key_files(directory: OwnedFd) -> warden::directory::Files {
    warden::directory::Files::new(directory, |directory, user| match config::keyfile::read(directory, user) {
        // The parser says which line is not text.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.is_missing() => Ok(None),
        Err(refused) => Err(refused.to_string()),
    })
}
