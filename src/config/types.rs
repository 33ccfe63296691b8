use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::admission::{MaxStartups, Netblock, Network, Penalties};
use super::egress::Egress;
use super::kube::Kube;
use super::rbac::Rbac;
use crate::identity::{Pattern, Principal};

/// A configuration without mistakes. Only the loader makes one; the roles read it back from JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// SHA-256 of the file, in hex: what the audit trail calls this configuration.
    pub digest: String,
    pub listen: Listen,
    pub ssh: Ssh,
    pub users: Users,
    /// Without it the metadata door answers "no identity".
    pub aws: Option<Aws>,
    pub access: Access,
    pub jail: Jail,
    pub recording: Recording,
    pub audit: Audit,
    pub state: State,
    pub roles: Roles,
    pub egress: Egress,
    #[serde(default)]
    pub kube: Kube,
    #[serde(default)]
    pub rbac: Option<Rbac>,
}

impl Config {
    /// Whether the porter connects to anything: by a rule of the egress door, or to a cluster.
    pub fn reaches_out(&self) -> bool {
        !self.egress.allow.is_empty() || !self.kube.clusters.is_empty() || !self.kube.discover.is_empty()
    }
}

/// Where stockade listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// At least one.
    pub ssh: Vec<SocketAddr>,
}

/// The SSH server's limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ssh {
    /// Private host keys; at least one, absolute. The jailer opens them, the gate reads them once.
    pub host_keys: Vec<PathBuf>,
    pub algorithms: Algorithms,
    pub login_grace: Duration,
    pub max_startups: MaxStartups,
    /// Of the connections that have not logged in yet, how many one source may hold.
    pub max_startups_per_source: u32,
    pub source_netblock: Netblock,
    /// Sources that have no share and no penalties.
    pub exempt: Vec<Network>,
    /// `None`: nobody is penalised.
    pub penalties: Option<Penalties>,
    pub max_auth_tries: u32,
    /// Session channels on one connection.
    pub max_sessions: u32,
    /// Zero: none are sent.
    pub keepalive: Duration,
    /// Names of variables that a client may set; `TERM` is always among them.
    pub env: Vec<Pattern>,
    pub banner: Option<String>,
    /// How long a session outlives its connection.
    pub linger: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithms {
    /// Post-quantum first, curve25519 for clients that have nothing newer.
    Modern,
    /// Post-quantum key exchange only.
    Pq,
}

/// Where users' keys and static groups come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// A directory with one file per user in the syntax of authorized_keys; see `keyfile`.
    pub authorized_keys: PathBuf,
    /// Group to members; beside IAM's.
    pub groups: BTreeMap<String, BTreeSet<Principal>>,
}

/// The AWS identity that a user's jail is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aws {
    pub region: String,
    /// Twelve digits.
    pub account: String,
    pub role: RoleTemplate,
    pub keys_from_iam: bool,
    pub groups_from_iam: bool,
    /// How long an answer of IAM is good.
    pub cache: Duration,
    /// How long it is still used while IAM cannot be reached.
    pub stale: Duration,
    /// The text of the inline session policy, at most 2048 characters of JSON.
    pub session_policy: Option<String>,
    pub session_tags: BTreeMap<String, String>,
    /// 15 minutes to 12 hours.
    pub duration: Duration,
    pub imds_v1: bool,
}

/// The ARN of a role with `{user}` once in the role's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoleTemplate {
    pub(super) text: String,
}

/// Who may log in. Deny wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// `*` alone lets in everybody who has a key, in a group or not.
    pub allow_groups: Vec<Pattern>,
    pub deny_groups: Vec<Pattern>,
    pub deny_users: Vec<Pattern>,
}

/// What a jail is made of and may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Jail {
    pub image: String,
    /// Absolute, inside the image.
    pub shell: String,
    pub home: Home,
    /// Bytes.
    pub home_size: u64,
    /// Bytes of the writable layer, /tmp and /run together.
    pub scratch_size: u64,
    pub pids: u32,
    /// Bytes.
    pub memory: u64,
    /// CPUs: 0.5 is half of one.
    pub cpu: f64,
    pub max_jails: u32,
    /// The first uid (and gid) of slot 0; each slot has 65536.
    pub uid_base: u32,
    /// Every execve attempt is recorded by seccomp notification.
    pub exec_audit: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Home {
    /// One image per user, shared by that user's jails.
    Persistent,
    /// Goes with the jail.
    Ephemeral,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recording {
    pub directory: PathBuf,
    pub durability: Durability,
    pub input: Input,
    /// Regular expressions of prompts (the end of the output), beside the built-in ones: what is typed after them is
    /// counted, not kept.
    pub redact: Vec<String>,
    /// Bytes kept back for each session, so that its end can be written.
    pub reserve: u64,
    /// Percent of the filesystem: a warning, no new sessions, sessions end. `warn_at < refuse_at < end_at <= 100`.
    pub warn_at: u8,
    pub refuse_at: u8,
    pub end_at: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// On this machine's stable storage before it is shown.
    Local,
    /// There at most one second after it was shown.
    Relaxed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Input {
    /// Recorded, but not what is typed while the terminal does not echo.
    Redacted,
    Full,
    None,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    pub file: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Holds `images/`, `homes/` and `locks/`.
    pub directory: PathBuf,
}

/// The accounts of the roles: different uids, none of them root's or a jail's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    pub gate: Account,
    pub warden: Account,
    pub porter: Account,
    pub keeper: Account,
    pub tally: Account,
    /// Only where laptops have a door.
    #[serde(default)]
    pub portal: Option<Account>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
}

/// One slot of uids; the width of a user namespace that looks like a whole system.
pub(super) const SLOT: u32 = 65536;

impl Jail {
    /// All uids that jails may have.
    pub fn uids(&self) -> Range<u64> {
        let base = u64::from(self.uid_base);
        base..base + u64::from(self.max_jails) * u64::from(SLOT)
    }
}

impl Users {
    /// The static groups of a user.
    pub fn groups_of(&self, user: &Principal) -> BTreeSet<String> {
        self.groups.iter().filter(|(_, members)| members.contains(user)).map(|(name, _)| name.clone()).collect()
    }
}

impl RoleTemplate {
    /// The ARN of a user's role.
    pub fn arn(&self, user: &Principal) -> String {
        self.text.replace("{user}", user.as_str())
    }

    /// The role's name: the last part of its ARN, which is what the metadata door shows.
    pub fn name(&self, user: &Principal) -> String {
        let arn = self.arn(user);
        arn.rsplit('/').next().unwrap_or_default().to_owned()
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn partition(&self) -> &str {
        self.part(1)
    }

    pub fn account(&self) -> &str {
        self.part(4)
    }

    fn part(&self, number: usize) -> &str {
        self.text.split(':').nth(number).unwrap_or_default()
    }
}

/// The text is not the ARN of a role with `{user}` in its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARole {
    #[error("not the ARN of a role")]
    Shape,
    #[error("`{{user}}` is missing: every user needs a role of their own, there is no default")]
    NoUser,
    #[error(
        "`{{user}}` belongs once into the role's name, after the last `/`: role names are unique whatever their path"
    )]
    UserElsewhere,
    #[error("'{0}' cannot be in the ARN of a role")]
    Letter(char),
}

impl TryFrom<String> for RoleTemplate {
    type Error = NotARole;

    fn try_from(text: String) -> Result<Self, NotARole> {
        let parts: Vec<&str> = text.split(':').collect();
        let ["arn", partition, "iam", "", account, resource] = parts.as_slice() else {
            return Err(NotARole::Shape);
        };
        let Some((path, name)) = resource.strip_prefix("role/").map(|r| r.rsplit_once('/').unwrap_or(("", r))) else {
            return Err(NotARole::Shape);
        };
        let twelve = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        if !twelve || !(*partition == "aws" || partition.starts_with("aws-")) || name.is_empty() {
            return Err(NotARole::Shape);
        }
        match (path.contains("{user}"), name.matches("{user}").count()) {
            (false, 0) => return Err(NotARole::NoUser),
            (false, 1) => {}
            _ => return Err(NotARole::UserElsewhere),
        }
        let plain = name.replace("{user}", "");
        let letter = |c: &char| !(c.is_ascii_alphanumeric() || "_+=,.@-".contains(*c));
        if let Some(bad) = plain.chars().find(letter).or_else(|| path.chars().filter(|c| *c != '/').find(letter)) {
            return Err(NotARole::Letter(bad));
        }
        Ok(Self { text })
    }
}

impl From<RoleTemplate> for String {
    fn from(role: RoleTemplate) -> Self {
        role.text
    }
}
