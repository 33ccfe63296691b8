use std::fs;
use std::path::Path;

/// Processes, cgroups, mounts and loop devices of the bastion with this state directory.
pub fn of(state: &Path, owns: impl Fn(u32) -> bool) -> Vec<String> {
    let mut left = Vec::new();
    let instance = stockade::loader::instance(state);
    for pid in pids() {
        let Some(status) = status_of(pid) else { continue };
        if owns(uid(pid)) {
            left.push(format!("process {pid} {}", field(&status, "Name").unwrap_or_default()));
        }
    }
    let cgroup = format!("stockade-{instance}");
    for root in [
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup/pids",
        "/sys/fs/cgroup/memory",
        "/sys/fs/cgroup/cpu",
    ] {
        // The bastion's own directory may stay; a jail's may not.
        for entry in fs::read_dir(Path::new(root).join(&cgroup)).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(format!("cgroup {}", entry.path().display()));
            }
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = |line: &&str| line.contains(&instance) || line.contains(&*state.to_string_lossy());
    left.extend(mounts.lines().filter(ours).map(|line| format!("mount {line}")));
    for device in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let file = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        if file.starts_with(&*state.to_string_lossy()) {
            left.push(format!("loop device {:?} of {}", device.file_name(), file.trim()));
        }
    }
    left
}

/// The role's process among the jailer's children.
pub fn role_of(jailer: u32, role: &str) -> Option<u32> {
    children(jailer).into_iter().find(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(format!("stockade: {role} [").as_bytes())
    })
}

pub fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether a process is not stopped and in the foreground of its terminal.
pub fn has_its_terminal(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name in brackets: state, ppid, pgrp, session, tty_nr, tpgid.
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    let fields: Vec<&str> = rest.split(' ').collect();
    matches!(fields.as_slice(), [state, _, group, _, _, foreground, ..] if *state != "T" && group == foreground)
}

/// The real uid; nobody's where there is no such process.
pub fn uid(pid: u32) -> u32 {
    let status = status_of(pid).unwrap_or_default();
    let uid = field(&status, "Uid").and_then(|uids| uids.split_whitespace().next()?.parse().ok());
    uid.unwrap_or(u32::MAX)
}

/// /proc/PID/status.
pub fn status_of(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/status")).ok()
}

pub fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

pub fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// What a process holds open, by number.
pub fn descriptors(pid: u32) -> Vec<(u32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let target = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, target.to_string_lossy().into_owned()))
    };
    entries.filter_map(target).collect()
}
