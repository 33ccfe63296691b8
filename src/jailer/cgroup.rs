//! A cgroup per jail: version 2 where it has the controllers, else version 1 beside an empty version 2 directory, which
//! still gives birth into the cgroup and a kill of all in it at once.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, statfs, unlinkat};

use super::fault::{Fault, Step};
use super::plan::Limits;

const ROOT: &str = "/sys/fs/cgroup";
const CONTROLLERS: [&str; 3] = ["pids", "memory", "cpu"];
/// `CGROUP2_SUPER_MAGIC`
const CGROUP2: i64 = 0x6367_7270;

/// How long a start waits for what a killed jailer left.
const SWEEP: Duration = Duration::from_secs(3);

/// The directories below which jails get theirs.
#[derive(Debug)]
pub struct Cgroups {
    /// Each version 1 controller's; empty on a version 2 host.
    v1: Vec<(&'static str, OwnedFd)>,
    v2: Option<OwnedFd>,
    /// Keeps moves into version 1 cgroups quick.
    _quick: Option<OwnedFd>,
}

/// One jail's.
#[derive(Debug)]
pub struct Cgroup {
    name: String,
    /// Where a process is born into the jail.
    v2: Option<OwnedFd>,
    /// Each version 1 controller's directory, and where a process moves itself into it.
    v1: Vec<(OwnedFd, OwnedFd)>,
}

impl Cgroups {
    /// Makes the bastion's own directories, and empties them of what a former jailer left.
    pub fn open(instance: &str) -> Result<Self, Fault> {
        let name = format!("stockade-{instance}");
        let is_v2 = |path: &str| statfs(path).is_ok_and(|fs| fs.f_type == CGROUP2);
        let mut cgroups = Self { v1: Vec::new(), v2: None, _quick: None };
        if is_v2(ROOT) {
            delegate(&PathBuf::from(ROOT))?;
            cgroups.v2 = Some(directory(&PathBuf::from(ROOT).join(&name))?);
            delegate(&PathBuf::from(ROOT).join(&name))?;
        } else {
            for controller in CONTROLLERS {
                cgroups.v1.push((controller, directory(&PathBuf::from(ROOT).join(controller).join(&name))?));
            }
            let unified = PathBuf::from(ROOT).join("unified");
            if unified.to_str().is_some_and(is_v2) {
                cgroups.v2 = Some(directory(&unified.join(&name))?);
            }
            cgroups._quick = quick_moves().ok();
        }
        cgroups.sweep();
        Ok(cgroups)
    }

    /// A new jail's, with its limits.
    pub fn create(&self, name: String, limits: &Limits) -> Result<Cgroup, Fault> {
        let mut cgroup = Cgroup { name, v2: None, v1: Vec::new() };
        match self.fill(&mut cgroup, limits) {
            Ok(()) => Ok(cgroup),
            Err(fault) => {
                self.remove(&cgroup);
                Err(fault)
            }
        }
    }

    fn fill(&self, cgroup: &mut Cgroup, limits: &Limits) -> Result<(), Fault> {
        for (controller, parent) in &self.v1 {
            let own = child(parent, &cgroup.name)?;
            match *controller {
                "pids" => write(&own, "pids.max", &limits.pids.to_string())?,
                "memory" => write(&own, "memory.limit_in_bytes", &limits.memory.to_string())?,
                _ => write(&own, "cpu.cfs_quota_us", &limits.cpu.to_string())?,
            }
            let procs = openat(&own, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).step(LIMIT)?;
            cgroup.v1.push((own, procs));
        }
        if let Some(parent) = &self.v2 {
            let own = child(parent, &cgroup.name)?;
            if self.v1.is_empty() {
                write(&own, "pids.max", &limits.pids.to_string())?;
                write(&own, "memory.max", &limits.memory.to_string())?;
                // A host without swap has no such file, and nothing to limit.
                let _ = write(&own, "memory.swap.max", "0");
                write(&own, "cpu.max", &format!("{} 100000", limits.cpu))?;
            }
            cgroup.v2 = Some(own);
        }
        Ok(())
    }

    /// Takes the jail's directories away; false while something is still in them.
    pub fn remove(&self, cgroup: &Cgroup) -> bool {
        let parents = self.v1.iter().map(|(_, parent)| parent).chain(&self.v2);
        parents.fold(true, |all, parent| {
            let removed = unlinkat(parent, &cgroup.name, AtFlags::REMOVEDIR);
            all && matches!(removed, Ok(()) | Err(rustix::io::Errno::NOENT))
        })
    }

    /// At the end: the bastion's own directories, which are empty now or stay.
    pub fn close(&self) {
        for parent in self.v1.iter().map(|(_, parent)| parent).chain(&self.v2) {
            if let Ok(place) = std::fs::read_link(format!("/proc/self/fd/{}", parent.as_raw_fd())) {
                let _ = std::fs::remove_dir(place);
            }
        }
    }

    /// What a killed jailer left: its jails die with it, their directories do not. Waits for the last of their processes,
    /// whose uids the first new jail would get.
    fn sweep(&self) {
        let since = Instant::now();
        while !self.is_swept() {
            if since.elapsed() > SWEEP {
                eprintln!("stockade: jailer: processes of a former jailer's jails do not end; their cgroups stay");
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_swept(&self) -> bool {
        let mut swept = true;
        for parent in self.v1.iter().map(|(_, parent)| parent).chain(&self.v2) {
            let Ok(entries) = rustix::fs::Dir::read_from(parent) else { continue };
            for entry in entries.flatten() {
                let Ok(name) = entry.file_name().to_str() else { continue };
                if entry.file_type() == rustix::fs::FileType::Directory && !name.starts_with('.') {
                    if let Ok(left) = openat(parent, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
                        let _ = write(&left, "cgroup.kill", "1");
                    }
                    swept &= unlinkat(parent, name, AtFlags::REMOVEDIR).is_ok();
                }
            }
        }
        swept
    }
}

impl Cgroup {
    pub fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(AsFd::as_fd)
    }

    /// Moves the calling process in, where it was not born in.
    pub fn enter(&self) -> Result<(), Fault> {
        for (_, procs) in &self.v1 {
            rustix::io::write(procs, b"0").step("enter the jail's cgroup")?;
        }
        Ok(())
    }

    /// What the jail was held back by, as the kernel counted it.
    pub fn limits_hit(&self) -> Vec<&'static str> {
        let directories = || self.v1.iter().map(|(own, _)| own).chain(&self.v2);
        let counted = |file: &str, key: &str| directories().any(|own| count(own, file, key).is_some_and(|n| n > 0));
        let mut hit = Vec::new();
        if counted("pids.events", "max") {
            hit.push("the jail had as many processes as it may");
        }
        if counted("memory.events", "oom_kill") || counted("memory.oom_control", "oom_kill") {
            hit.push("the jail had all the memory it may, and a process of it was killed");
        }
        hit
    }

    /// Kills everything inside at once; the caller kills process 1 as well, for hosts without `cgroup.kill`.
    pub fn kill(&self) {
        if let Some(own) = &self.v2 {
            let _ = write(own, "cgroup.kill", "1");
        }
    }
}

/// A move between version 1 cgroups waits for a grace period, some 10 ms, and a login makes two. A hierarchy mounted with
/// `favordynmods` (kernel 6.0) has the kernel stay ready for moves instead, for as long as it is mounted; fork and exit
/// take a slower path for that. This one has no controller and no path, and goes with the jailer.
fn quick_moves() -> rustix::io::Result<OwnedFd> {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen};
    let context = fsopen("cgroup", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_flag(context.as_fd(), "none")?;
    fsconfig_set_flag(context.as_fd(), "favordynmods")?;
    fsconfig_set_string(context.as_fd(), "name", "stockade")?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

const LIMIT: &str = "set a limit of the jail's cgroup";

fn delegate(path: &std::path::Path) -> Result<(), Fault> {
    let own = openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step(LIMIT)?;
    write(&own, "cgroup.subtree_control", "+pids +memory +cpu")
}

fn directory(path: &std::path::Path) -> Result<OwnedFd, Fault> {
    match mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(io::Error::from(e)).step("make the bastion's cgroup"),
    }
    openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step("open the bastion's cgroup")
}

fn child(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Fault> {
    mkdirat(parent, name, Mode::from_raw_mode(0o755)).step("make the jail's cgroup")?;
    openat(parent, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step("open the jail's cgroup")
}

/// The number behind a key of a file of `key number` lines.
fn count(directory: &OwnedFd, file: &str, key: &str) -> Option<u64> {
    let file = openat(directory, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = [0; 1024];
    let got = rustix::io::read(file, &mut text).ok()?;
    let text = std::str::from_utf8(text.get(..got)?).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

fn write(directory: &OwnedFd, file: &str, value: &str) -> Result<(), Fault> {
    let file = openat(directory, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).step(LIMIT)?;
    rustix::io::write(file, value.as_bytes()).step(LIMIT)?;
    Ok(())
}
