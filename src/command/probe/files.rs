//! Files of the kernel and devices: hidden, read-only or not there.

use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use rustix::fs::{CWD, Dev, FileType, Mode, makedev, mknodat};

use super::attempt::Attempt::{self, List, Open, Read, Run, Write};
use super::attempt::Found::{self, GaveWay, Held};
use super::attempt::{Row, all, shut};

const fn row(name: &'static str, attempt: Attempt) -> Row {
    Row { name, what: "", attempt }
}

const fn run(name: &'static str, what: &'static str, check: fn(&crate::sys::clone::Alone) -> Found) -> Row {
    Row { name, what, attempt: Run(check) }
}

pub(super) const ROWS: &[Row] = &[
    // What a write would set or do on the host.
    row("proc-core-pattern", Write("/proc/sys/kernel/core_pattern")),
    row("proc-modprobe", Write("/proc/sys/kernel/modprobe")),
    row("proc-hostname", Write("/proc/sys/kernel/hostname")),
    row("proc-yama", Write("/proc/sys/kernel/yama/ptrace_scope")),
    row("proc-ns-last-pid", Write("/proc/sys/kernel/ns_last_pid")),
    row("proc-drop-caches", Write("/proc/sys/vm/drop_caches")),
    row("proc-overcommit", Write("/proc/sys/vm/overcommit_memory")),
    row("proc-binfmt-misc", Write("/proc/sys/fs/binfmt_misc/register")),
    row("proc-userns-limit", Write("/proc/sys/user/max_user_namespaces")),
    row("proc-ip-forward", Write("/proc/sys/net/ipv4/ip_forward")),
    row("proc-ping-range", Write("/proc/sys/net/ipv4/ping_group_range")),
    row("proc-low-ports", Write("/proc/sys/net/ipv4/ip_unprivileged_port_start")),
    row("proc-sysrq", Write("/proc/sysrq-trigger")),
    row("proc-irq", Write("/proc/irq/default_smp_affinity")),
    row("proc-mtrr", Write("/proc/mtrr")),
    row("proc-pressure-trigger", Write("/proc/pressure/memory")),
    row("sys-uevent-helper", Write("/sys/kernel/uevent_helper")),
    row("sys-release-agent", Write("/sys/fs/cgroup/release_agent")),
    run("proc-read-only", "parts of /proc that may be written to", |_| read_only()),
    // What tells of the host, or of its other tenants.
    row("proc-kcore", Read("/proc/kcore")),
    row("proc-kmsg", Open("/proc/kmsg")),
    row("proc-kallsyms", Read("/proc/kallsyms")),
    row("proc-keys", Read("/proc/keys")),
    row("proc-key-users", Read("/proc/key-users")),
    row("proc-timer-list", Read("/proc/timer_list")),
    row("proc-sched-debug", Read("/proc/sched_debug")),
    row("proc-latency-stats", Read("/proc/latency_stats")),
    row("proc-kpagecount", Read("/proc/kpagecount")),
    row("proc-kpageflags", Read("/proc/kpageflags")),
    row("proc-kpagecgroup", Read("/proc/kpagecgroup")),
    row("proc-slabinfo", Read("/proc/slabinfo")),
    row("proc-vmallocinfo", Read("/proc/vmallocinfo")),
    row("proc-pagetypeinfo", Read("/proc/pagetypeinfo")),
    row("proc-interrupts", Read("/proc/interrupts")),
    row("proc-softirqs", Read("/proc/softirqs")),
    row("proc-schedstat", Read("/proc/schedstat")),
    row("proc-diskstats", Read("/proc/diskstats")),
    row("proc-pressure", List("/proc/pressure")),
    row("proc-acpi", List("/proc/acpi")),
    row("proc-scsi", List("/proc/scsi")),
    row("sys", List("/sys")),
    run("cgroup-mounted", "a mounted cgroup (CVE-2022-0492)", |_| cgroups()),
    run("cgroup-path", "the host's names of cgroups", |_| cgroup_path()),
    // Devices. A watchdog's is not opened: that starts it.
    row("dev-mem", Open("/dev/mem")),
    row("dev-port", Open("/dev/port")),
    row("dev-kmsg", Open("/dev/kmsg")),
    row("dev-msr", Open("/dev/cpu/0/msr")),
    row("dev-kvm", Open("/dev/kvm")),
    row("dev-fuse", Open("/dev/fuse")),
    row("dev-tun", Open("/dev/net/tun")),
    row("dev-loop-control", Open("/dev/loop-control")),
    row("dev-mapper", Open("/dev/mapper/control")),
    row("dev-userfaultfd", Open("/dev/userfaultfd")),
    row("dev-vsock", Open("/dev/vsock")),
    row("dev-vhost-net", Open("/dev/vhost-net")),
    row("dev-vhost-vsock", Open("/dev/vhost-vsock")),
    row("dev-uinput", Open("/dev/uinput")),
    row("dev-input", Open("/dev/input/event0")),
    row("dev-snapshot", Open("/dev/snapshot")),
    row("dev-console", Open("/dev/console")),
    row("dev-tty0", Open("/dev/tty0")),
    run("dev-disks", "open the host's disks", |_| disks()),
    run("dev-nodes", "devices beyond the harmless ones", |_| nodes()),
    run("mknod-mem", "make a node of the host's memory", |_| made(FileType::CharacterDevice, makedev(1, 1))),
    run("mknod-null", "make a node of the null device", |_| made(FileType::CharacterDevice, makedev(1, 3))),
    run("mknod-disk", "make a node of a disk", |_| made(FileType::BlockDevice, makedev(8, 0))),
    run("mknod-loop", "make a node of a loop device", |_| made(FileType::BlockDevice, makedev(7, 0))),
];

/// Where a part of /proc is its own mount it must say `ro`.
fn read_only() -> Found {
    let text = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let one = |part: &str| {
        let path = format!("/proc/{part}");
        if !std::path::Path::new(&path).exists() {
            return Held(String::new());
        }
        let fields = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mut options =
            fields.filter(|line| line.get(1) == Some(&path.as_str())).filter_map(|line| line.get(3).copied());
        match options.next_back().is_some_and(|options| options.split(',').any(|option| option == "ro")) {
            true => Held(String::new()),
            false => GaveWay(format!("{path} is not mounted read-only")),
        }
    };
    all(["bus", "fs", "irq", "sys", "sysrq-trigger"].map(one), "read-only")
}

fn cgroups() -> Found {
    let text = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    match text.lines().find(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup"))) {
        Some(line) => GaveWay(line.to_owned()),
        None => Held("none".into()),
    }
}

/// In a cgroup namespace every path begins at the jail's own cgroup.
fn cgroup_path() -> Found {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match text.lines().find(|line| !line.ends_with(":/")) {
        Some(line) => GaveWay(line.to_owned()),
        None => Held("hidden".into()),
    }
}

/// Those that the kernel itself names.
fn disks() -> Found {
    let text = std::fs::read_to_string("/proc/partitions").unwrap_or_default();
    let names = text.lines().skip(2).filter_map(|line| line.split_whitespace().nth(3));
    let common = ["sda", "vda", "xvda", "nvme0n1", "mmcblk0", "loop0", "ram0", "dm-0", "sr0"];
    let one = |name: &str| match std::fs::File::open(format!("/dev/{name}")) {
        Ok(_) => GaveWay(format!("/dev/{name} is open")),
        Err(error) => shut(&error),
    };
    all(names.chain(common).map(one), "not there")
}

fn nodes() -> Found {
    const HARMLESS: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
    let Ok(entries) = std::fs::read_dir("/dev") else { return Held("there is no /dev".into()) };
    let device = |path: &PathBuf| {
        std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_char_device() || m.file_type().is_block_device())
    };
    let strange = |path: &PathBuf| !path.file_name().is_some_and(|name| HARMLESS.iter().any(|known| name == *known));
    match entries.flatten().map(|entry| entry.path()).find(|path| strange(path) && device(path)) {
        Some(path) => GaveWay(format!("{} is there", path.display())),
        None => Held("none".into()),
    }
}

/// A node that could be made is removed without having been opened.
fn made(kind: FileType, number: Dev) -> Found {
    let name = format!(".stockade-probe-{}", std::process::id());
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_dir());
    let places = [Some(std::env::temp_dir()), Some("/dev/shm".into()), home].into_iter().flatten();
    let one = |place: PathBuf| {
        let path = place.join(&name);
        match mknodat(CWD, &path, kind, Mode::RUSR, number) {
            Ok(()) => {
                let _ = std::fs::remove_file(&path);
                GaveWay(format!("made in {}", place.display()))
            }
            Err(error) => shut(&error.into()),
        }
    };
    all(places.map(one), "refused")
}
