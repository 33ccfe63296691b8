//! A jail's user namespace: a range of 65536 host uids, and no namespaces below it.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::thread::UnshareFlags;

use super::fault::{Fault, Step};
use crate::sys::clone::{Alone, Cloned, clone, exit_now};

/// How many uids a jail has.
pub(super) const RANGE: u32 = 65536;

/// A namespace that maps 0 to `base`, kept by its descriptor alone: the process that carries it ends here.
pub fn make(alone: &Alone, base: u32) -> Result<OwnedFd, Fault> {
    let (mapped, map) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    let carrier = clone(alone, crate::sys::clone::flags::NEW_USER, None).step("make a user namespace")?;
    let Cloned::Parent { pid, pidfd } = carrier else {
        drop(map);
        exit_now(i32::from(forbid_more(&mapped).is_err()));
    };
    drop(mapped);
    let process = format!("/proc/{}", pid.as_raw_nonzero());
    let ready = (|| {
        let line = format!("0 {base} {RANGE}");
        fs::write(format!("{process}/uid_map"), &line).step("map the jail's uids")?;
        fs::write(format!("{process}/gid_map"), &line).step("map the jail's gids")?;
        let namespace = fs::File::open(format!("{process}/ns/user")).step("open the user namespace")?;
        rustix::io::write(&map, b"m").step("wake the user namespace's carrier")?;
        Ok(OwnedFd::from(namespace))
    })();
    drop(map);
    use std::os::fd::AsFd;
    let ended = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).step("wait for the carrier")?;
    match ended.and_then(|status| status.exit_status()) {
        Some(0) => ready,
        _ => ready.and(Err(Fault::new("forbid nested user namespaces", "the carrier failed"))),
    }
}

/// In the carrier: after this line no process of the jail can make a user namespace of its own. It must be written here:
/// inside the jail /proc/sys is read-only, and there it would fail in silence.
fn forbid_more(mapped: &OwnedFd) -> Result<(), Fault> {
    let mut byte = [0];
    if rustix::io::read(mapped, &mut byte).step("wait for the map")? == 0 {
        return Err(Fault::new("wait for the map", "the jailer gave up"));
    }
    fs::write("/proc/sys/user/max_user_namespaces", "0").step("forbid nested user namespaces")
}

/// A private copy of the host's mounts, so that nothing the jailer mounts is seen elsewhere or outlives it.
pub fn private_mounts(alone: &Alone) -> Result<(), Fault> {
    use rustix::mount::{MountPropagationFlags, mount_change};
    crate::sys::clone::unshare(alone, UnshareFlags::NEWNS).step("unshare the mounts")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).step("make the mounts private")
}
