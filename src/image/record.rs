use serde::{Deserialize, Serialize};

use super::{Digest, Error, Result};

/// What a jail takes from an image's configuration. `User` is left out: who runs in a jail is never the image's say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// `NAME=value`, each with a name and without NUL.
    pub env: Vec<String>,
    /// Entrypoint and Cmd in one.
    pub command: Vec<String>,
    pub working_directory: Option<String>,
}

/// What is known of an unpacked image: `image.json` beside its root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The manifest's, `sha256:...`.
    pub digest: String,
    /// When it was built, in its own words.
    pub created: Option<String>,
    pub config: Config,
    pub layers: usize,
    pub entries: u64,
    pub bytes: u64,
    /// Files whose setuid or setgid bit was taken away: how many, and the first of them.
    pub privileged: u64,
    pub privileged_names: Vec<String>,
    /// Nodes in the image's /dev, which a jail makes itself.
    pub devices_left_out: u64,
    pub attributes_dropped: u64,
}

impl Record {
    /// The digest, checked again: the record was written by the process that read the hostile image.
    pub fn digest(&self) -> Result<Digest> {
        self.digest.parse()
    }
}

impl Config {
    pub(super) fn from_oci(config: Option<&oci_spec::image::Config>) -> Result<Self> {
        let Some(config) = config else { return Ok(Self::default()) };
        let env = config.env().clone().unwrap_or_default();
        for variable in &env {
            let named = variable.split_once('=').is_some_and(|(name, _)| !name.is_empty());
            if !named || variable.contains('\0') {
                return Err(Error::Config(format!("`{}` in Env is no NAME=value", variable.escape_debug())));
            }
        }
        let mut command = config.entrypoint().clone().unwrap_or_default();
        command.extend(config.cmd().clone().unwrap_or_default());
        let working_directory = config.working_dir().clone().filter(|directory| !directory.is_empty());
        if command.iter().chain(&working_directory).any(|text| text.contains('\0')) {
            return Err(Error::Config("a NUL byte in Cmd, Entrypoint or WorkingDir".into()));
        }
        Ok(Self { env, command, working_directory })
    }
}
