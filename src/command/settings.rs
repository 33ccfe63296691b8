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
pub fn terms(config: &Config) -> warden::Terms {
    warden::Terms {
        region: config.aws.as_ref().map(|aws| aws.region.clone()),
        linger: config.ssh.linger,
        // One user's connections must leave jails for others.
        jails_per_user: usize::try_from(config.jail.max_jails / 2).unwrap_or(usize::MAX).clamp(1, 20),
        image: config.jail.image.clone(),
        role: config.aws.as_ref().map(|aws| aws.role.as_str().to_owned()),
        egress: std::sync::Arc::new(config.egress.clone()),
    }
}

/// The warden's, for credentials.
pub fn credentials(aws: &config::Aws) -> warden::credentials::Terms {
    warden::credentials::Terms {
        role: aws.role.as_str().to_owned(),
        tags: aws.session_tags.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        policy: aws.session_policy.clone(),
        duration: aws.duration,
    }
}

/// Key files beneath a descriptor, opened by the strict rules.
pub fn key_files(directory: OwnedFd) -> warden::directory::Files {
    warden::directory::Files::new(directory, |directory, user| match config::keyfile::read(directory, user) {
        // The parser says which line is not text.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.is_missing() => Ok(None),
        Err(refused) => Err(refused.to_string()),
    })
}
