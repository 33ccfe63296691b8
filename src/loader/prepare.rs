//! What must be there before the first login.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use fs_err as fs;
use rustix::fs::{Mode, OFlags, open};

use crate::config::{Config, Home};
use crate::jailer::{USER, home};
use crate::policy::lock;

/// Makes the directories of the state, each with the one owner that writes it.
pub fn directories(config: &Config) -> anyhow::Result<()> {
    let keeper = config.roles.keeper;
    owned(&config.recording.directory, 0o750, keeper.uid, keeper.gid)?;
    audit_file(&config.audit.file, keeper.uid, keeper.gid)?;
    locks(config)?;
    if config.jail.home == Home::Persistent {
        let homes = config.state.directory.join("homes");
        owned(&homes, 0o700, 0, 0)?;
        template(&homes, config.jail.home_size)?;
    }
    Ok(())
}

/// Root's, for the warden to read. What has ended by itself goes.
fn locks(config: &Config) -> anyhow::Result<()> {
    let locks = lock::directory(&config.state.directory);
    owned(&locks, 0o750, 0, config.roles.warden.gid)?;
    lock::sweep(&locks, jiff::Timestamp::now().as_second());
    Ok(())
}

fn owned(path: &Path, mode: u32, uid: u32, gid: u32) -> anyhow::Result<()> {
    if !path.exists() {
        fs::create_dir_all(path)?;
    }
    fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    chown(path, Some(uid), Some(gid)).with_context(|| format!("cannot give {} to uid {uid}", path.display()))
}

/// A directory that is there already may be shared, as /var/log and the state's own are: then only the file is the
/// keeper's, and it is made here.
fn audit_file(path: &Path, uid: u32, gid: u32) -> anyhow::Result<()> {
    let Some(directory) = path.parent() else { return Ok(()) };
    if !directory.exists() {
        return owned(directory, 0o750, uid, gid);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file =
        open(path, flags, Mode::from_raw_mode(0o640)).with_context(|| format!("cannot make {}", path.display()))?;
    std::os::unix::fs::fchown(file, Some(uid), Some(gid)).with_context(|| format!("cannot own {}", path.display()))
}

/// The empty home that each new user's is copied from. Made anew when the configured size changes; homes that exist keep
/// theirs.
fn template(homes: &Path, size: u64) -> anyhow::Result<()> {
    let template = homes.join(home::TEMPLATE);
    if fs::metadata(&template).is_ok_and(|about| about.len() == size) {
        return Ok(());
    }
    let part = homes.join(".template.new");
    fs::File::create(&part)?.set_len(size)?;
    // The user's own uid, as the idmapped mount shows it. No reserved blocks: nobody in the jail is root.
    let owner = format!("root_owner={USER}:{USER},lazy_itable_init=1");
    // Blocks as the loop device has them: a small file system would get smaller ones, which it cannot be mounted with.
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-b", "4096", "-m", "0", "-E", &owner])
        .arg(&part)
        .output()
        .context("cannot run mkfs.ext4; install e2fsprogs, or set home = \"ephemeral\" in [jail]")?;
    if !made.status.success() {
        bail!("mkfs.ext4 failed: {}", String::from_utf8_lossy(&made.stderr).trim());
    }
    // A directory that nobody in the jail could enter, in everybody's home; e2fsck makes one if it ever needs it.
    let tidied = Command::new("debugfs").args(["-w", "-R", "rmdir lost+found"]).arg(&part).output();
    tidied.context("cannot run debugfs; install e2fsprogs")?;
    fs::rename(&part, &template)?;
    Ok(())
}

/// Listening sockets, open before any right is given up.
pub fn listeners(addresses: &[SocketAddr]) -> anyhow::Result<Vec<OwnedFd>> {
    addresses.iter().map(|address| bind(*address)).collect()
}

fn bind(address: SocketAddr) -> anyhow::Result<OwnedFd> {
    let listener = TcpListener::bind(address).with_context(|| {
        format!(
            "cannot listen on {address}; is another server there? [listen] ssh and [kube.public] listen name addresses"
        )
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}
