//! What this process is, and what it could become.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libc::{
    SYS_capset, SYS_ioprio_set, SYS_sched_setscheduler, SYS_setgroups, SYS_setpriority, SYS_setresgid, SYS_setresuid,
};

use super::attempt::Arg::{N, Words};
use super::attempt::Attempt::{Call, Run};
use super::attempt::Found::{self, GaveWay, Held};
use super::attempt::{Row, all, shut};

const fn row(name: &'static str, what: &'static str, check: fn(&crate::sys::clone::Alone) -> Found) -> Row {
    Row { name, what, attempt: Run(check) }
}

pub(super) const ROWS: &[Row] = &[
    row("capabilities", "hold a capability", |_| capabilities()),
    // Version 3, of this process; SYS_ADMIN and SYS_PTRACE.
    Row {
        name: "capset",
        what: "raise capabilities",
        attempt: Call(SYS_capset, &[Words(&[0x2008_0522]), Words(&[0x0028_0000_0028_0000, 0, 0])]),
    },
    Row { name: "setuid-root", what: "become root", attempt: Call(SYS_setresuid, &[N(0), N(0), N(0)]) },
    Row { name: "setgid-root", what: "become group root", attempt: Call(SYS_setresgid, &[N(0), N(0), N(0)]) },
    Row { name: "setgroups", what: "join group root", attempt: Call(SYS_setgroups, &[N(1), Words(&[0])]) },
    row("no-new-privs", "gain rights by an exec", |_| status("NoNewPrivs", "1", "no_new_privs is set")),
    row("seccomp", "be without a filter", |_| status("Seccomp", "2", "filtered")),
    row("seccomp-stacked", "be without the stacked filters", |_| stacked()),
    row("setuid-files", "find files that change who runs them", |_| setuid_files()),
    row("setuid-mounts", "find mounts that let such files count", |_| mounts()),
    row("file-capabilities", "give a file capabilities", |_| attribute("security.capability")),
    row("trusted-attributes", "give a file attributes of an overlay", |_| attribute("trusted.overlay.opaque")),
    row("userns-range", "be root of the first user namespace", |_| range()),
    row("userns-limit", "have user namespaces left", |_| limit()),
    // To the first scheduling class, to the highest priority, to the first class of I/O: a child's own.
    Row {
        name: "real-time",
        what: "run in real time",
        attempt: Call(SYS_sched_setscheduler, &[N(0), N(1), Words(&[1])]),
    },
    Row {
        name: "priority",
        what: "raise the priority",
        attempt: Call(SYS_setpriority, &[N(0), N(0), N(-20_i64 as u64)]),
    },
    Row { name: "io-priority", what: "do I/O in real time", attempt: Call(SYS_ioprio_set, &[N(1), N(0), N(1 << 13)]) },
    row("oom-score", "escape the killer of gluttons", |_| oom_score()),
    row("core-files", "have a core written", |_| cores()),
];

/// A field of this process's status.
fn field(name: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
}

fn status(name: &str, wanted: &str, held: &str) -> Found {
    match field(name) {
        Some(value) if value == wanted => Held(held.to_owned()),
        value => GaveWay(format!("{name} is {}", value.unwrap_or_else(|| "not known".into()))),
    }
}

fn capabilities() -> Found {
    all(["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| status(set, "0000000000000000", "")), "none")
}

/// How many seccomp filters stand over this process.
pub(super) fn filters() -> Option<u32> {
    field("Seccomp_filters")?.parse().ok()
}

fn stacked() -> Found {
    match filters() {
        Some(2..) => Held("all are there".into()),
        count => GaveWay(format!("there are {}", count.unwrap_or(0))),
    }
}

/// Where programs lie; not whole trees, which may be large.
fn setuid_files() -> Found {
    let places =
        ["/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib/openssh", "/usr/libexec", "/usr/local/bin"];
    let files =
        places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten().map(|entry| entry.path());
    let changes = |path: &PathBuf| {
        fs::symlink_metadata(path).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o6000 != 0)
    };
    match files.into_iter().find(changes) {
        Some(path) => GaveWay(format!("{} is one", path.display())),
        None => Held("there are none".into()),
    }
}

fn mounts() -> Found {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fine = |line: &&str| line.split(' ').nth(3).is_some_and(|all| all.split(',').any(|option| option == "nosuid"));
    match text.lines().find(|line| !fine(line)) {
        Some(line) => GaveWay(line.to_owned()),
        None => Held("all are nosuid".into()),
    }
}

/// On a file of one's own. Version 2 of no capability at all, or an `x`.
fn attribute(name: &str) -> Found {
    let path = std::env::temp_dir().join(format!(".stockade-probe-{}", std::process::id()));
    if let Err(error) = fs::write(&path, "") {
        return GaveWay(format!("could not be tried: {error}"));
    }
    let mut value = [0; 20];
    value[3] = 2;
    let value: &[u8] = if name.starts_with("security") { &value } else { b"x" };
    let set = rustix::fs::setxattr(&path, name, value, rustix::fs::XattrFlags::empty());
    let _ = fs::remove_file(&path);
    match set {
        Ok(()) => GaveWay("set".into()),
        Err(rustix::io::Errno::NOTSUP) => Held("unknown here".into()),
        Err(error) => shut(&error.into()),
    }
}

/// A jail's uid 0 is a number without meaning outside.
fn range() -> Found {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let words: Vec<&str> = map.split_whitespace().collect();
    match words.as_slice() {
        ["0", outside, _] if *outside != "0" => Held(format!("uid 0 is {outside} outside")),
        _ => GaveWay(format!("the map of uids is {}", words.join(" "))),
    }
}

/// The second refusal, should the filter's fail.
fn limit() -> Found {
    match fs::read_to_string("/proc/sys/user/max_user_namespaces") {
        Ok(text) if text.trim() == "0" => Held("there may be none".into()),
        Ok(text) => GaveWay(format!("there may be {}", text.trim())),
        Err(error) => GaveWay(error.to_string()),
    }
}

/// Raising it is everybody's; lowering it below what a privileged process set is not. Put back at once.
fn oom_score() -> Found {
    let file = Path::new("/proc/self/oom_score_adj");
    let before = fs::read_to_string(file).unwrap_or_else(|_| "0".into());
    let written = fs::write(file, "-1000");
    let _ = fs::write(file, before.trim());
    match written {
        Ok(()) => GaveWay("escaped".into()),
        Err(error) => shut(&error),
    }
}

fn cores() -> Found {
    use rustix::process::{Resource, getrlimit};
    let maximum = getrlimit(Resource::Core).maximum;
    match maximum {
        Some(0) => Held("the limit is 0".into()),
        _ => GaveWay("the limit may be raised".into()),
    }
}
