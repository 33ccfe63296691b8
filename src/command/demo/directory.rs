//! The demo's own directory: image, keys, configuration, and afterwards the recordings.

use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fs_err as fs;
use rustix::fs::{FlockOperation, flock};

use super::USER;
use super::cloud::{CLUSTERS, Cloud};
use super::interrupt::Interrupt;
use super::material::image_digest;
use super::step::Steps;

pub(super) const AUDIT: &str = "audit/audit.jsonl";
pub(super) const CONFIGURATION: &str = "stockade.toml";
pub(super) const KNOWN_HOSTS: &str = "known_hosts";
pub(super) const PROCESS: &str = "bastion.pid";
pub(super) const RECORDINGS: &str = "recordings";
pub(super) const USER_KEY: &str = "alice_ed25519";
const HOST_KEY: &str = "host_ed25519";
pub(super) const STATE: &str = "state";
/// Says which built image is the imported one.
const IMPORTED: &str = "image.imported";
/// Five numbers from here on, where no account, container or subordinate range of Debian's lies.
const FIRST_ROLE: u32 = 70_001;
/// A demo that was killed leaves its bastion this long to end.
const LAST_ONE: Duration = Duration::from_secs(20);

/// The directory, held by a lock as long as this value lives.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: fs::File,
}

/// Where the directory is or will be.
pub(super) fn place(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => {
            let state = std::env::var_os("XDG_STATE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
            let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
            state
                .or_else(home)
                .context("neither HOME nor XDG_STATE_HOME is set; name a directory with --directory")?
                .join("stockade-demo")
        }
    };
    let path = std::path::absolute(path)?;
    match path.to_str() {
        Some(text) if !text.contains(['"', '\n', '%', '$']) => Ok(path),
        _ => bail!(
            "the path of the demo's directory has a letter that configuration files cannot hold; choose another with --directory"
        ),
    }
}

/// Whether an image was imported there, so that none need be built.
pub(super) fn has_image(place: &Path) -> bool {
    fs::read_to_string(place.join(IMPORTED)).is_ok_and(|imported| imported == image_digest())
}

impl Directory {
    /// Makes it, and keeps other demos out of it.
    pub(super) fn take(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(e).with_context(|| format!("cannot make {}", path.display()));
            }
            _ => fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?,
        }
        let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!(
                "another demo runs in {}; log out of it first, or give this one --directory and --listen of its own",
                path.display()
            );
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// `place` has seen to it that the path is UTF-8.
    pub(super) fn text(&self, name: &str) -> anyhow::Result<String> {
        self.file(name).into_os_string().into_string().map_err(|path| anyhow::anyhow!("{path:?} is not UTF-8"))
    }

    /// The bastion of a demo that was killed ends by itself, but not at once.
    pub(super) fn wait_for_the_last(&self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let Ok(pid) = fs::read_to_string(self.file(PROCESS)) else { return Ok(()) };
        let own = self.file(CONFIGURATION);
        let runs = || {
            let line = fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
            line.split(|b| *b == 0).any(|word| word == own.as_os_str().as_encoded_bytes())
        };
        let begun = Instant::now();
        while runs() {
            interrupt.check()?;
            if begun.elapsed() > LAST_ONE {
                bail!("the bastion of the last demo (process {}) does not end; kill it", pid.trim());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Builds the jail's image if this machine has none yet, and imports it.
    pub(super) fn image(&self, steps: &Steps<'_>) -> anyhow::Result<()> {
        if has_image(&self.path) {
            return Ok(());
        }
        let build = self.file("material/images/build");
        let layout = steps.run("building the jail's image (once, up to 25 minutes)", &build, &[])?;
        let program = std::env::current_exe().context("cannot find this program's file")?;
        let images = self.file(STATE).join("images");
        let words = ["image", "import", &layout, "--name", "base", "--directory"];
        let mut arguments: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        arguments.push(images.as_os_str());
        steps.run("importing the image (once)", &program, &arguments)?;
        fs::write(self.file(IMPORTED), image_digest())?;
        Ok(())
    }

    /// The bastion's key and the user's, and what each side knows of the other's.
    pub(super) fn keys(&self, listen: SocketAddr) -> anyhow::Result<()> {
        let host = self.key(HOST_KEY, "stockade demo")?;
        let user = self.key(USER_KEY, USER)?;
        let name = match listen.port() {
            22 => listen.ip().to_string(),
            port => format!("[{}]:{port}", listen.ip()),
        };
        fs::write(self.file(KNOWN_HOSTS), format!("{name} {host}"))?;
        let keys = self.file("keys");
        fs::create_dir_all(&keys)?;
        fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o755))?;
        fs::write(keys.join(USER), user)?;
        fs::set_permissions(keys.join(USER), std::fs::Permissions::from_mode(0o644))?;
        Ok(())
    }

    /// Makes the key once; the text of its public half.
    fn key(&self, name: &str, comment: &str) -> anyhow::Result<String> {
        let path = self.file(name);
        let public = path.with_extension("pub");
        if !path.exists() || !public.exists() {
            let mut half = [&path, &public].into_iter().filter(|file| file.exists());
            half.try_for_each(fs::remove_file)?;
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
                .arg(&path)
                .stdin(Stdio::null())
                .output()
                .context("cannot run ssh-keygen")?;
            if !made.status.success() {
                bail!("ssh-keygen failed: {}", String::from_utf8_lossy(&made.stderr).trim());
            }
        }
        Ok(fs::read_to_string(&public)?)
    }

    /// Writes `stockade.toml` anew.
    pub(super) fn configuration(&self, listen: SocketAddr, cloud: &Cloud) -> anyhow::Result<()> {
        let text = self.settings(listen, cloud)?;
        let path = self.file(CONFIGURATION);
        let mut file = fs::File::create(&path)?;
        file.write_all(text.as_bytes())?;
        fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(())
    }

    fn settings(&self, listen: SocketAddr, cloud: &Cloud) -> anyhow::Result<String> {
        let path = |name: &str| self.text(name).map(|text| quoted(&text));
        let [gate, warden, porter, keeper, tally] = role_accounts(&fs::read_to_string("/etc/passwd")?);
        Ok(format!(
            "# Written by `stockade demo` at each start.\n\
             [listen]\nssh = [\"{listen}\"]\n\n\
             [ssh]\nhost_keys = [{host_key}]\nlinger = \"0s\"\n\n\
             [users]\nauthorized_keys = {keys}\ngroups = {{ demo = [\"{USER}\"] }}\n\n\
             [aws]\nregion = {region}\nrole = {role}\nkeys_from_iam = {emulated}\ngroups_from_iam = {emulated}\n\n\
             [jail]\nhome_size = \"256MiB\"\nmax_jails = 16\n\n\
             [recording]\ndirectory = {recordings}\n\n\
             [audit]\nfile = {audit}\n\n\
             [state]\ndirectory = {state}\n\n\
             [roles]\ngate = \"{gate}\"\nwarden = \"{warden}\"\nporter = \"{porter}\"\nkeeper = \"{keeper}\"\ntally = \"{tally}\"\n{kube}",
            kube = cloud.kube_role.map_or(String::new(), kube),
            host_key = path(HOST_KEY)?,
            keys = path("keys")?,
            region = quoted(&cloud.region),
            role = quoted(&cloud.role),
            emulated = cloud.is_emulated(),
            recordings = path(RECORDINGS)?,
            audit = path(AUDIT)?,
            state = path(STATE)?,
        ))
    }
}

/// The clusters there are, for everybody.
fn kube(role: &str) -> String {
    let regions = CLUSTERS.map(|(_, region)| format!("\"{region}\"")).join(", ");
    format!(
        "\n[kube]\nrole = {}\ndiscover = [{{ regions = [{regions}] }}]\nallow = [{{ groups = [\"*\"] }}]\n",
        quoted(role)
    )
}

/// A string in TOML.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// `uid:gid` of each role: no accounts are made on a machine that only tries stockade.
fn role_accounts(passwd: &str) -> [String; 5] {
    let taken = |uid: u32| passwd.lines().any(|line| line.split(':').nth(2) == Some(uid.to_string().as_str()));
    let mut free = (FIRST_ROLE..).filter(|uid| !taken(*uid));
    std::array::from_fn(|_| free.next().map(|uid| format!("{uid}:{uid}")).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_get_numbers_that_nobody_has() {
        let accounts = role_accounts("root:x:0:0::/root:/bin/sh\nx:x:70002:70002::/:/bin/sh\n");
        assert_eq!(accounts, ["70001:70001", "70003:70003", "70004:70004", "70005:70005", "70006:70006"]);
    }

    #[test]
    fn a_second_demo_is_kept_out_and_a_later_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("demo");
        let first = Directory::take(&place).unwrap();
        assert!(Directory::take(&place).unwrap_err().to_string().contains("another demo runs"));
        drop(first);
        assert!(Directory::take(&place).is_ok());
    }
}
