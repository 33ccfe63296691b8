//! What the demo needs of this machine: all that is missing is said at once, before anything is done.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::directory;
use crate::command::doctor;

const SBIN: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Something that is not there.
#[derive(Debug, PartialEq, Eq)]
struct Missing {
    what: String,
    /// What Debian calls the package; nothing where none would help.
    package: Option<&'static str>,
}

/// What is to be started beside the bastion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub emulator: bool,
    pub clusters: bool,
}

/// Fails with the whole list, or with `install` gets what Debian has.
pub(super) fn meet(place: &Path, wanted: Wanted, install: bool) -> anyhow::Result<()> {
    let look = || missing(!directory::has_image(place), wanted);
    let mut lacking = look();
    if install && rustix::process::geteuid().is_root() && lacking.iter().any(|one| one.package.is_some()) {
        get(&packages(&lacking))?;
        lacking = look();
    }
    if lacking.is_empty() {
        return Ok(());
    }
    bail!("{}", sentence(&lacking))
}

fn missing(builds_image: bool, wanted: Wanted) -> Vec<Missing> {
    let mut lacking = Vec::new();
    let mut need = |there: bool, what: &str, package: Option<&'static str>| {
        if !there {
            lacking.push(Missing { what: what.to_owned(), package });
        }
    };
    let root = rustix::process::geteuid().is_root();
    need(root, "root: run it with sudo, or as root (jails are made of namespaces, mounts and uids)", None);
    for (program, package) in [
        ("ssh", "openssh-client"),
        ("ssh-keygen", "openssh-client"),
        ("mkfs.ext4", "e2fsprogs"),
        ("e2fsck", "e2fsprogs"),
        ("unshare", "util-linux"),
        ("setpriv", "util-linux"),
    ] {
        need(program_exists(program), program, Some(package));
    }
    if builds_image {
        need(program_exists("mmdebstrap"), "mmdebstrap, which builds the jail's image", Some("mmdebstrap"));
        need(program_exists("zstd"), "zstd", Some("zstd"));
        let keyring = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg").exists();
        need(keyring, "the keys of Debian's archive", Some("debian-archive-keyring"));
    }
    if builds_image || wanted.clusters {
        need(program_exists("go"), "Go of any version, which builds Kubernetes and its tools", Some("golang-go"));
    }
    if wanted.emulator && !bed_is_made() {
        need(python_makes_environments(), "python3 with venv, for the AWS emulator", Some("python3-venv"));
    }
    let loops = Path::new("/dev/loop-control").exists();
    need(loops, "loop devices, which hold the homes: run `modprobe loop`", None);
    doctor::unmet_by_the_kernel().iter().for_each(|what| need(false, what, None));
    lacking
}

fn program_exists(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named: Vec<PathBuf> = std::env::split_paths(&path).collect();
    named.iter().map(PathBuf::as_path).chain(SBIN.iter().map(Path::new)).any(|folder| folder.join(name).is_file())
}

/// Any complete environment will do for the answer; the script looks for the right one.
fn bed_is_made() -> bool {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    let digest = super::material::requirements_digest();
    cache.unwrap_or_else(home).join(format!("stockade/bed-{digest}/complete")).exists()
}

fn python_makes_environments() -> bool {
    ["python3", "/usr/bin/python3"].iter().any(|python| {
        let mut asked = Command::new(python);
        asked.args(["-c", "import venv, ensurepip"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        asked.status().is_ok_and(|status| status.success())
    })
}

fn packages(lacking: &[Missing]) -> Vec<&'static str> {
    let mut names: Vec<&str> = lacking.iter().filter_map(|one| one.package).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn sentence(lacking: &[Missing]) -> String {
    let list: Vec<String> = lacking.iter().map(|one| format!("\n  - {}", one.what)).collect();
    let names = packages(lacking);
    let mend = match names.is_empty() {
        true => String::new(),
        false => format!("\non Debian: apt-get install {}   (or give this command --install)", names.join(" ")),
    };
    format!("the demo needs what this machine lacks:{}{mend}", list.concat())
}

fn get(names: &[&str]) -> anyhow::Result<()> {
    eprintln!("installing {}", names.join(" "));
    for arguments in
        [vec!["-qq", "update"], [vec!["-qq", "install", "--no-install-recommends", "-y"], names.to_vec()].concat()]
    {
        let run = Command::new("apt-get")
            .args(&arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .stdout(std::io::stderr())
            .status();
        match run {
            Ok(status) if status.success() => {}
            Ok(status) => bail!("apt-get {} failed ({status})", arguments.join(" ")),
            Err(e) if e.kind() == ErrorKind::NotFound => bail!("--install needs apt-get, and this is not a Debian"),
            Err(e) => return Err(e).context("cannot run apt-get"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_said_at_once_with_one_line_to_mend_it() {
        let lacking = |what: &str, package| Missing { what: what.into(), package };
        let said = sentence(&[
            lacking("root: run it with sudo", None),
            lacking("ssh", Some("openssh-client")),
            lacking("ssh-keygen", Some("openssh-client")),
            lacking("zstd", Some("zstd")),
        ]);
        assert_eq!(
            said,
            "the demo needs what this machine lacks:\n  - root: run it with sudo\n  - ssh\n  - ssh-keygen\n  - zstd\n\
             on Debian: apt-get install openssh-client zstd   (or give this command --install)"
        );
    }
}
