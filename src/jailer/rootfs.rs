//! What a jail sees as `/`: assembled by its first process, still root, before any instruction of the user's.
//!
//! Every directory written here is on a tmpfs made a moment ago, so no path can lead through something a user planted;
//! the image is read through `openat2` without symlinks.

use std::ffi::CString;
use std::fs::Permissions;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use fs_err as fs;
use rustix::fs::{CWD, Dev, FileType, Mode, OFlags, ResolveFlags, makedev, mknodat, openat2};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind, mount_change,
    mount_remount, move_mount, open_tree, unmount,
};

use super::fault::{Fault, Step};
use crate::identity::{Principal, Secret};
use crate::sys::mount::{Attributes, set_attributes};

/// The user's own uid and gid inside the jail.
pub const USER: u32 = 1000;
/// The group of terminals, as Debian numbers it.
const TTY: u32 = 5;

/// What a jail is made of.
#[derive(Debug)]
pub struct Bundle<'a> {
    /// An empty directory of the host; each jail mounts its own tmpfs over it, in its own mount namespace.
    pub base: &'a str,
    pub image: &'a str,
    pub user: &'a Principal,
    pub userns: BorrowedFd<'a>,
    /// Host uid of the jail's uid 0.
    pub first_uid: u32,
    pub scratch: u64,
    pub home: Option<&'a str>,
    /// This program, for the `stockade` command inside.
    pub program: &'a str,
    pub token: &'a Secret,
    pub shell: &'a str,
}

const DOTS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Builds the tree and moves into it. On return the host's mounts are gone from this process.
pub fn enter(bundle: &Bundle<'_>) -> Result<(), Fault> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).step("make the mounts private")?;
    // These are taken by path before the tmpfs covers the place they lie in.
    let image = detached(bundle.image, true, Some(bundle.userns)).step("take the image")?;
    let home = bundle.home.map(|home| detached(home, false, Some(bundle.userns)).step("take the home")).transpose()?;
    let program = detached(bundle.program, true, None).step("take the stockade command")?;

    let options = format!("size={},nr_inodes=16k,mode=0755", bundle.scratch);
    mount("stockade", bundle.base, "tmpfs", DOTS, &*text(options)?).step("mount the writable layer")?;
    rustix::process::chdir(bundle.base).step("enter the writable layer")?;
    for directory in ["low", "up", "work", "root"] {
        fs::create_dir(directory).step("make a directory of the writable layer")?;
    }
    move_mount(&image, "", CWD, "low", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step("attach the image")?;
    furnish(bundle)?;
    // Relative names: /proc/mounts inside the jail shows them.
    mount("overlay", "root", "overlay", DOTS, c"lowerdir=low,upperdir=up,workdir=work").step("mount the overlay")?;
    rustix::process::chdir("root").step("enter the new root")?;
    if let Some(home) = home {
        let place = format!("home/{}", bundle.user);
        move_mount(&home, "", CWD, &*place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step("attach the home")?;
    }
    move_mount(&program, "", CWD, "usr/local/bin/stockade", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .step("attach the stockade command")?;
    kernel_files(bundle.first_uid)?;
    rustix::process::pivot_root(".", ".").step("pivot into the new root")?;
    unmount(".", UnmountFlags::DETACH).step("let go of the host's mounts")?;
    rustix::process::chdir("/").step("enter the new root")
}

/// A copy of a mount, attached nowhere yet.
fn detached(path: &str, read_only: bool, idmap: Option<BorrowedFd<'_>>) -> std::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, path, flags)?;
    set_attributes(mount.as_fd(), &Attributes { read_only, idmap })?;
    Ok(mount)
}

/// Files of this jail alone, put into the upper layer before it is one.
fn furnish(bundle: &Bundle<'_>) -> Result<(), Fault> {
    let (root, user) = (bundle.first_uid, bundle.first_uid + USER);
    chown("up", Some(root), Some(root)).step("own the upper layer")?;
    // These become directories of the jail, merged with the image's: the modes must be the usual ones.
    for directory in ["etc", "home", "run", "run/stockade", "tmp", "usr", "usr/local", "usr/local/bin", "proc", "dev"] {
        place(directory, 0o755, root)?;
    }
    fs::set_permissions("up/tmp", Permissions::from_mode(0o1777)).step("open up /tmp")?;
    place(&format!("home/{}", bundle.user), 0o700, user)?;
    let name = bundle.user;
    let passwd = format!("{name}:x:{USER}:{USER}::/home/{name}:{}\n", bundle.shell);
    file("etc/passwd", &(image_file("etc/passwd")? + &passwd), 0o644, root)?;
    file("etc/group", &(image_file("etc/group")? + &format!("{name}:x:{USER}:\n")), 0o644, root)?;
    file("etc/hosts", "127.0.0.1\tlocalhost stockade\n::1\tlocalhost\n", 0o644, root)?;
    file("etc/hostname", "stockade\n", 0o644, root)?;
    file("usr/local/bin/stockade", "", 0o755, root)?;
    file("run/stockade/token", bundle.token.expose(), 0o400, user)
}

fn place(path: &str, mode: u32, owner: u32) -> Result<(), Fault> {
    let path = format!("up/{path}");
    fs::create_dir(&path).step("make a directory of the jail")?;
    fs::set_permissions(&path, Permissions::from_mode(mode)).step("set the mode of a directory of the jail")?;
    chown(&path, Some(owner), Some(owner)).step("own a directory of the jail")
}

fn file(path: &str, text: &str, mode: u32, owner: u32) -> Result<(), Fault> {
    let path = format!("up/{path}");
    fs::write(&path, text).step("write a file of the jail")?;
    fs::set_permissions(&path, Permissions::from_mode(mode)).step("set the mode of a file of the jail")?;
    chown(&path, Some(owner), Some(owner)).step("own a file of the jail")
}

/// A text of the image, which may be anybody's: no symlink is followed, a FIFO does not block, and a line for our own
/// uid or without an end cannot swallow the one that is appended.
fn image_file(path: &str) -> Result<String, Fault> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let low = openat2(CWD, "low", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .step("open the image")?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let Ok(opened) = openat2(&low, path, flags, Mode::empty(), resolve) else { return Ok(String::new()) };
    let mut bytes = Vec::new();
    std::fs::File::from(opened).take(1 << 20).read_to_end(&mut bytes).step("read a file of the image")?;
    let own = format!(":{USER}:");
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().filter(|line| !line.contains(&own)).map(|line| format!("{line}\n")).collect())
}

/// /proc, /dev and what must not be seen or written in them. There is no /sys.
fn kernel_files(first_uid: u32) -> Result<(), Fault> {
    mount("proc", "proc", "proc", DOTS | MountFlags::NOEXEC, None).step("mount /proc")?;
    mount("dev", "dev", "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, c"size=64k,mode=0755").step("mount /dev")?;
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        device(name, makedev(1, minor))?;
    }
    device("tty", makedev(5, 0))?;
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, format!("dev/{name}")).step("link a device")?;
    }
    for directory in ["dev/pts", "dev/shm"] {
        fs::create_dir(directory).step("make a directory in /dev")?;
    }
    // A few terminals each: all instances share one limit of the host's.
    let options = format!("newinstance,ptmxmode=0666,mode=0620,gid={},max=16", first_uid + TTY);
    mount("devpts", "dev/pts", "devpts", MountFlags::NOSUID | MountFlags::NOEXEC, &*text(options)?)
        .step("mount the jail's terminals")?;
    mount("shm", "dev/shm", "tmpfs", DOTS | MountFlags::NOEXEC, c"size=16m,mode=1777").step("mount /dev/shm")?;
    mask()
}

fn text(options: String) -> Result<CString, Fault> {
    CString::new(options).map_err(|_| Fault::new("write mount options", "a NUL byte"))
}

fn device(name: &str, number: Dev) -> Result<(), Fault> {
    let path = format!("dev/{name}");
    mknodat(CWD, &*path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), number).step("make a device")?;
    fs::set_permissions(&path, Permissions::from_mode(0o666)).step("open up a device")
}

/// Parts of /proc that belong to the host: hidden, or read-only.
fn mask() -> Result<(), Fault> {
    // The last four count what the whole host does: how often a neighbour's keys were pressed can be read from them.
    const HIDDEN: [&str; 15] = [
        "kcore",
        "keys",
        "key-users",
        "timer_list",
        "kallsyms",
        "kmsg",
        "kpagecount",
        "kpageflags",
        "kpagecgroup",
        "sched_debug",
        "latency_stats",
        "interrupts",
        "softirqs",
        "schedstat",
        "diskstats",
    ];
    const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
    for name in HIDDEN {
        let path = format!("proc/{name}");
        if fs::symlink_metadata(&path).is_ok() {
            mount_bind("dev/null", &*path).step("hide a part of /proc")?;
        }
    }
    for name in ["acpi", "scsi", "pressure"] {
        let path = format!("proc/{name}");
        if fs::symlink_metadata(&path).is_ok() {
            mount("none", &*path, "tmpfs", DOTS | MountFlags::RDONLY, c"size=0").step("hide a part of /proc")?;
        }
    }
    for name in READ_ONLY {
        let path = format!("proc/{name}");
        if fs::symlink_metadata(&path).is_ok() {
            mount_bind(&*path, &*path).step("bind a part of /proc")?;
            let flags = MountFlags::BIND | MountFlags::RDONLY | DOTS | MountFlags::NOEXEC;
            mount_remount(&*path, flags, c"").step("make a part of /proc read-only")?;
        }
    }
    Ok(())
}
