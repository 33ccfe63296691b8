//! What leaked in, and what may be taken from the processes around: descriptors, links of /proc that are no paths.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::attempt::Attempt::{Read, Run, Write};
use super::attempt::Found::{self, GaveWay, Held};
use super::attempt::{Row, all, shut, tried};
use crate::sys::attempt::call;
use crate::sys::clone::Alone;

const fn row(name: &'static str, what: &'static str, check: fn(&Alone) -> Found) -> Row {
    Row { name, what, attempt: Run(check) }
}

pub(super) const ROWS: &[Row] = &[
    row("fd-leak", "a descriptor from outside (CVE-2024-21626)", |_| leaks()),
    row("cwd-outside", "a working directory outside (CVE-2024-21626)", |_| outside("/proc/self/cwd")),
    row("root-outside", "a root outside", |_| outside("/proc/self/root")),
    row("init-root", "follow /proc/1/root", |_| link("/proc/1/root")),
    row("init-cwd", "follow /proc/1/cwd", |_| link("/proc/1/cwd")),
    row("init-exe", "follow /proc/1/exe", |_| link("/proc/1/exe")),
    row("init-fd", "list /proc/1/fd", |_| list("/proc/1/fd")),
    row("init-map-files", "list /proc/1/map_files", |_| list("/proc/1/map_files")),
    Row { name: "init-environ", what: "", attempt: Read("/proc/1/environ") },
    Row { name: "init-maps", what: "", attempt: Read("/proc/1/maps") },
    Row { name: "init-stack", what: "", attempt: Read("/proc/1/stack") },
    row("init-mem-read", "open /proc/1/mem", |_| mem(false)),
    row("init-mem-write", "open /proc/1/mem for writing", |_| mem(true)),
    Row { name: "init-oom-score", what: "", attempt: Write("/proc/1/oom_score_adj") },
    row("init-ns", "open the namespaces of process 1", |_| namespaces()),
    row("others-links", "follow links of others' processes", |_| others()),
    row("setns-own", "enter a namespace by its file", setns_own),
    row("setns-init", "enter the namespaces of process 1", setns_init),
    row("pidfd-getfd-init", "take the control socket of process 1", getfd_init),
    row("pidfd-signal-init", "may signal process 1 by a pidfd", |_| signal_init()),
    Row { name: "exe-self", what: "", attempt: Write("/proc/self/exe") },
    Row { name: "exe-init", what: "", attempt: Write("/proc/1/exe") },
    row("terminal-others", "open others' terminals", |_| terminals()),
    row("dirty-pipe", "write a read-only file by a pipe (CVE-2022-0847)", |_| dirty_pipe()),
];

/// A directory or a file that is open must lie on a mount of the jail's.
fn leaks() -> Found {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let known: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').next()).collect();
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return GaveWay("/proc/self/fd cannot be listed".into()) };
    let one = |number: String| {
        let Ok(target) = fs::read_link(format!("/proc/self/fd/{number}")) else { return Held(String::new()) };
        let about = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        let mount = about.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap_or_default().trim();
        match target.is_absolute() && !known.contains(&mount) {
            true => GaveWay(format!("{number} is {}", target.display())),
            false => Held(String::new()),
        }
    };
    all(entries.flatten().map(|entry| one(entry.file_name().to_string_lossy().into_owned())), "there is none")
}

fn outside(path: &str) -> Found {
    match fs::read_link(path) {
        Ok(target) if target.starts_with("/") => Held("inside".into()),
        Ok(target) => GaveWay(format!("it is {}", target.display())),
        Err(error) => GaveWay(error.to_string()),
    }
}

fn link(path: &str) -> Found {
    match fs::metadata(path).and_then(|_| fs::read_link(path)) {
        Ok(target) => GaveWay(format!("it leads to {}", target.display())),
        Err(error) => shut(&error),
    }
}

/// What is in the directory, where anything is.
fn list(path: &str) -> Found {
    match fs::read_dir(path).map(|entries| entries.flatten().count()) {
        Ok(0) => Held("empty".into()),
        Ok(count) => GaveWay(format!("{count} entries")),
        Err(error) => shut(&error),
    }
}

/// Nothing is read or written: what may be opened may be used.
fn mem(write: bool) -> Found {
    match fs::File::options().read(!write).write(write).open("/proc/1/mem") {
        Ok(_) => GaveWay("opened".into()),
        Err(error) => shut(&error),
    }
}

fn namespaces() -> Found {
    let names = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let one = |name: &str| match fs::File::open(format!("/proc/1/ns/{name}")) {
        Ok(_) => GaveWay(format!("{name} is open")),
        Err(error) => shut(&error),
    };
    all(names.map(one), "refused")
}

/// Processes of other users: in a jail the first one and whoever came in by another door.
fn others() -> Found {
    use std::os::unix::fs::MetadataExt;
    let own = rustix::process::getuid().as_raw();
    let Ok(entries) = fs::read_dir("/proc") else { return GaveWay("/proc cannot be listed".into()) };
    let foreign = entries.flatten().map(|entry| entry.path()).filter(|path| {
        let number = path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
        number && fs::metadata(path).is_ok_and(|about| about.uid() != own)
    });
    let links = |process: PathBuf| ["root", "cwd", "exe", "fd/0", "fd/3", "fd/4"].map(|name| process.join(name));
    let one = |path: &Path| match fs::metadata(path) {
        Ok(_) => GaveWay(format!("{} leads somewhere", path.display())),
        Err(_) => Held(String::new()),
    };
    all(foreign.flat_map(links).map(|path| one(&path)), "refused")
}

/// A host name's: to enter one's own changes nothing.
fn setns_own(alone: &Alone) -> Found {
    match fs::File::open("/proc/self/ns/uts") {
        Ok(file) => tried(call(alone, libc::SYS_setns, [number(&file), 0, 0, 0, 0, 0])),
        Err(error) => shut(&error),
    }
}

fn init() -> io::Result<OwnedFd> {
    Ok(pidfd_open(Pid::INIT, PidfdFlags::empty())?)
}

fn setns_init(alone: &Alone) -> Found {
    let all = (libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC) as u64;
    match init() {
        Ok(pidfd) => tried(call(alone, libc::SYS_setns, [number(&pidfd), all, 0, 0, 0, 0])),
        Err(error) => shut(&error),
    }
}

/// Its third descriptor: what is written there, the jailer hears. A copy in a child that ends at once.
fn getfd_init(alone: &Alone) -> Found {
    match init() {
        Ok(pidfd) => tried(call(alone, libc::SYS_pidfd_getfd, [number(&pidfd), 3, 0, 0, 0, 0])),
        Err(error) => shut(&error),
    }
}

/// SIGURG: who has not asked for it does not notice it.
fn signal_init() -> Found {
    let sent = init().and_then(|pidfd| Ok(rustix::process::pidfd_send_signal(pidfd, Signal::URG)?));
    match sent {
        Ok(()) => GaveWay("sent".into()),
        Err(error) => shut(&error),
    }
}

fn number(descriptor: &impl AsRawFd) -> u64 {
    u64::try_from(descriptor.as_raw_fd()).unwrap_or(u64::MAX)
}

fn terminals() -> Found {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    let own = rustix::process::getuid().as_raw();
    let Ok(entries) = fs::read_dir("/dev/pts") else { return Held("there are none".into()) };
    let paths = entries.flatten().map(|entry| entry.path()).filter(|path| {
        path.file_name().is_some_and(|name| name != "ptmx") && fs::metadata(path).is_ok_and(|about| about.uid() != own)
    });
    let one = |path: PathBuf| {
        let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
        match fs::File::options().read(true).write(true).custom_flags(flags).open(&path) {
            Ok(_) => GaveWay(format!("{} is open", path.display())),
            Err(_) => Held(String::new()),
        }
    };
    all(paths.map(one), "there are none that open")
}

/// On a file of one's own, so that a kernel with the hole spoils nothing else.
fn dirty_pipe() -> Found {
    match splice_over() {
        Ok(true) => Held("the file stays as it was".into()),
        Ok(false) => GaveWay("the file was written".into()),
        Err(error) => GaveWay(format!("could not be tried: {error}")),
    }
}

fn splice_over() -> io::Result<bool> {
    use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
    let path = std::env::temp_dir().join(format!(".stockade-probe-{}", std::process::id()));
    fs::write(&path, "stockade")?;
    let file = fs::File::open(&path)?;
    let _ = fs::remove_file(&path);
    let (output, input) = pipe_with(PipeFlags::CLOEXEC)?;
    // Every buffer of the pipe has then been one that may be written to.
    let mut page = [0; 4096];
    for _ in 0..16 {
        rustix::io::write(&input, &page)?;
    }
    for _ in 0..16 {
        rustix::io::read(&output, &mut page)?;
    }
    let mut offset = 0;
    splice(&file, Some(&mut offset), &input, None, 1, SpliceFlags::empty())?;
    rustix::io::write(&input, b"XXX")?;
    let mut text = [0; 8];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut text, 0)?;
    Ok(&text == b"stockade")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_this_process_is_taken_for_a_leak_and_no_kernel_of_ours_has_the_hole() {
        assert!(matches!(leaks(), Held(_)), "{:?}", leaks());
        assert!(matches!(outside("/proc/self/cwd"), Held(_)));
        assert!(matches!(dirty_pipe(), Held(_)), "{:?}", dirty_pipe());
    }
}
