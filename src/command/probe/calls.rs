//! Namespaces, mounts and other processes. A child makes each call: what it gains goes with it.

use libc::{
    SYS_chroot, SYS_clone, SYS_clone3, SYS_fsconfig, SYS_fsmount, SYS_fsopen, SYS_fspick, SYS_kcmp, SYS_kill,
    SYS_migrate_pages, SYS_mount, SYS_mount_setattr, SYS_move_mount, SYS_move_pages, SYS_open_tree, SYS_pidfd_getfd,
    SYS_pivot_root, SYS_prlimit64, SYS_process_madvise, SYS_process_vm_readv, SYS_process_vm_writev, SYS_ptrace,
    SYS_setns, SYS_umount2, SYS_unshare,
};

use super::attempt::Arg::{N, Room, Text, Words};
use super::attempt::Attempt::Call;
use super::attempt::Row;

const NO_DESCRIPTOR: u64 = u64::MAX;
/// `AT_FDCWD`
const HERE: u64 = libc::AT_FDCWD as u64;
/// A bit above those the kernel reads: a filter that compares all 64 would be passed with it.
const HIGH: u64 = 1 << 32;
const USER: u64 = libc::CLONE_NEWUSER as u64;
const CHILD: u64 = libc::SIGCHLD as u64;
/// Two propagations at once: rights are asked for first, and then there is no such change.
const NO_PROPAGATION: u64 = libc::MS_SHARED | libc::MS_PRIVATE;

const fn unshare(name: &'static str, what: &'static str, flags: &'static [super::attempt::Arg]) -> Row {
    Row { name, what, attempt: Call(SYS_unshare, flags) }
}

const fn row(name: &'static str, what: &'static str, number: i64, arguments: &'static [super::attempt::Arg]) -> Row {
    Row { name, what, attempt: Call(number, arguments) }
}

pub(super) const ROWS: &[Row] = &[
    unshare("unshare-user", "make a user namespace", &[N(USER)]),
    unshare("unshare-mount", "make a mount namespace", &[N(libc::CLONE_NEWNS as u64)]),
    unshare("unshare-pid", "make a pid namespace", &[N(libc::CLONE_NEWPID as u64)]),
    unshare("unshare-net", "make a network namespace", &[N(libc::CLONE_NEWNET as u64)]),
    unshare("unshare-ipc", "make an ipc namespace", &[N(libc::CLONE_NEWIPC as u64)]),
    unshare("unshare-uts", "make a uts namespace", &[N(libc::CLONE_NEWUTS as u64)]),
    unshare("unshare-cgroup", "make a cgroup namespace", &[N(libc::CLONE_NEWCGROUP as u64)]),
    unshare("unshare-time", "make a time namespace", &[N(0x80)]),
    unshare("unshare-user-net", "make a user and a network namespace", &[N(USER | libc::CLONE_NEWNET as u64)]),
    unshare("unshare-high-bits", "make a user namespace, bit 32 set", &[N(USER | HIGH)]),
    // The grandchild ends as the child does.
    row("clone-user", "clone into a user namespace", SYS_clone, &[N(USER | CHILD)]),
    row("clone-mount", "clone into a mount namespace", SYS_clone, &[N(libc::CLONE_NEWNS as u64 | CHILD)]),
    row("clone-net", "clone into a network namespace", SYS_clone, &[N(libc::CLONE_NEWNET as u64 | CHILD)]),
    row("clone-high-bits", "clone into a user namespace, bit 32 set", SYS_clone, &[N(USER | CHILD | HIGH)]),
    row("clone3-user", "clone3 into a user namespace", SYS_clone3, &[Words(&[USER, 0, 0, 0, CHILD, 0, 0, 0]), N(64)]),
    row(
        "clone3-plain",
        "clone3, whose flags no filter sees",
        SYS_clone3,
        &[Words(&[0, 0, 0, 0, CHILD, 0, 0, 0]), N(64)],
    ),
    row("setns-nothing", "enter a namespace without naming one", SYS_setns, &[N(NO_DESCRIPTOR), N(0)]),
    row("mount", "change a mount's propagation", SYS_mount, &[N(0), Text(c"/"), N(0), N(NO_PROPAGATION), N(0)]),
    row("mount-proc", "mount a proc nowhere", SYS_mount, &[Text(c"proc"), Text(c"/proc/self/status"), Text(c"proc")]),
    // The root of a process does not expire.
    row("umount", "unmount /", SYS_umount2, &[Text(c"/"), N(libc::MNT_EXPIRE as u64)]),
    row("pivot-root", "pivot_root from / to /", SYS_pivot_root, &[Text(c"/"), Text(c"/")]),
    row("chroot", "chroot to /", SYS_chroot, &[Text(c"/")]),
    row("open-tree", "open_tree: a copy of a mount", SYS_open_tree, &[N(HERE), Text(c"/"), N(1)]),
    row("fsopen", "fsopen a tmpfs", SYS_fsopen, &[Text(c"tmpfs"), N(0)]),
    row("fsopen-ext4", "fsopen an ext4", SYS_fsopen, &[Text(c"ext4"), N(0)]),
    row("fspick", "fspick /", SYS_fspick, &[N(HERE), Text(c"/"), N(0)]),
    row("fsconfig", "fsconfig (CVE-2022-0185)", SYS_fsconfig, &[N(NO_DESCRIPTOR), N(1), Text(c"x"), Text(c"x"), N(0)]),
    row("fsmount", "fsmount", SYS_fsmount, &[N(NO_DESCRIPTOR), N(0), N(0)]),
    row(
        "move-mount",
        "move_mount",
        SYS_move_mount,
        &[N(NO_DESCRIPTOR), Text(c""), N(NO_DESCRIPTOR), Text(c""), N(u64::MAX)],
    ),
    // No attribute is set and none is cleared.
    row(
        "mount-setattr",
        "mount_setattr of /",
        SYS_mount_setattr,
        &[N(HERE), Text(c"/"), N(0), Words(&[0, 0, 0, 0]), N(32)],
    ),
    row("statmount", "statmount", 457, &[N(1), N(1), N(0), N(0)]),
    row("listmount", "listmount", 458, &[N(1), N(1), N(0), N(0)]),
    // A tracer that ends lets go, and PTRACE_SEIZE stops nobody.
    row("ptrace-init", "trace process 1", SYS_ptrace, &[N(0x4206), N(1), N(0), N(0)]),
    row("ptrace-me", "be traced", SYS_ptrace, &[N(0)]),
    row(
        "process-vm-readv",
        "read another process's memory",
        SYS_process_vm_readv,
        &[N(1), N(1), N(1), N(1), N(1), N(0)],
    ),
    row("process-vm-writev", "write another's memory", SYS_process_vm_writev, &[N(1), N(1), N(1), N(1), N(1), N(0)]),
    row(
        "process-madvise",
        "advise on another's memory",
        SYS_process_madvise,
        &[N(NO_DESCRIPTOR), N(1), N(1), N(0), N(0)],
    ),
    row("move-pages", "move the memory of process 1", SYS_move_pages, &[N(1), N(0), N(0), N(0), N(0), N(0xFF)]),
    row("migrate-pages", "migrate the memory of process 1", SYS_migrate_pages, &[N(1), N(0), N(1), N(1)]),
    row("kcmp", "compare kernel objects with process 1", SYS_kcmp, &[N(1), N(1), N(0), N(0), N(0)]),
    row("pidfd-getfd", "take a descriptor without a process", SYS_pidfd_getfd, &[N(NO_DESCRIPTOR), N(3), N(0)]),
    // Signal 0 only asks.
    row("kill-init", "may signal process 1", SYS_kill, &[N(1), N(0)]),
    row(
        "prlimit-init",
        "read the limits of process 1",
        SYS_prlimit64,
        &[N(1), N(libc::RLIMIT_CORE as u64), N(0), Room],
    ),
];
