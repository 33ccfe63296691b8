use std::mem::discriminant;

use serde::Serialize;

use super::types::{Aws, Config, Roles, Ssh};

impl Config {
    /// The settings that a reload cannot change, because running jails, their recordings, the roles' uids or their fences
    /// hang on them; empty if `new` may come into force. With any, the old configuration stays and stockade must be
    /// restarted.
    pub fn fixed_against(&self, new: &Self) -> Vec<String> {
        // The portal's account comes and goes with `[kube.public]`, which is fixed itself. Of `[ssh]` only `linger` is the warden's; the rest is the gate's, whose connections would see two rules.
        let ssh = |config: &Self| Ssh { linger: self.ssh.linger, ..config.ssh.clone() };
        let mut fixed = [
            differing("listen", &self.listen, &new.listen),
            differing("ssh", &ssh(self), &ssh(new)),
            differing("recording", &self.recording, &new.recording),
            differing("roles", &self.roles, &Roles { portal: self.roles.portal, ..new.roles }),
            differing("aws", &self.aws.as_ref().map(door), &new.aws.as_ref().map(door)),
        ]
        .concat();
        let settings = [
            // The warden may read beneath the directory that was there when its fence closed, and nowhere else.
            ("users.authorized_keys", self.users.authorized_keys != new.users.authorized_keys),
            ("jail.uid_base", self.jail.uid_base != new.jail.uid_base),
            ("jail.max_jails", self.jail.max_jails != new.jail.max_jails),
            ("audit.file", self.audit.file != new.audit.file),
            // Which credentials a session has, and whether one issue serves both uses.
            ("kube.kube_role", discriminant(&self.kube.role) != discriminant(&new.kube.role)),
            ("kube.public", self.kube.public != new.kube.public),
            ("state.directory", self.state.directory != new.state.directory),
        ];
        fixed.extend(settings.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned()));
        fixed
    }
}

/// What the porter was told once.
#[derive(Serialize)]
struct Door {
    region: String,
    imds_v1: bool,
}

fn door(aws: &Aws) -> Door {
    Door { region: aws.region.clone(), imds_v1: aws.imds_v1 }
}

/// The settings of a section that differ, by their full names; the section's own where one side has none of it.
fn differing(section: &str, old: &impl Serialize, new: &impl Serialize) -> Vec<String> {
    use serde_json::Value;
    match (serde_json::to_value(old), serde_json::to_value(new)) {
        (Ok(Value::Object(old)), Ok(Value::Object(new))) => {
            let names = new.iter().filter(|(name, value)| old.get(*name) != Some(*value));
            names.map(|(name, _)| format!("{section}.{name}")).collect()
        }
        (Ok(old), Ok(new)) if old == new => Vec::new(),
        _ => vec![format!("[{section}]")],
    }
}
