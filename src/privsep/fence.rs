//! The fence around a role: landlock and seccomp, entered before its runtime starts and never left.
//!
//! Both say the same twice over: no file but beneath the descriptors it holds, no exec, no connection out (the warden
//! excepted, and the porter where somebody may reach something outside). The calls a role does not need answer EPERM.

use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use super::Role;
use crate::sys::allow::{AllowList, If};
use crate::sys::seccomp::{CLONE_NEW, Listener, install, unknown};

/// What a role may do beneath a descriptor it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    Read,
    Write,
}

/// Where a role's own connections may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Nowhere,
    /// TCP, and UDP for names. Never a unix socket, never a listener.
    Internet,
}

/// Why a role stands without a fence, and so does not start.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    #[error("cannot hide this process's memory")]
    Dumpable(#[source] rustix::io::Errno),
    #[error("cannot build the landlock rules")]
    Landlock(#[from] RulesetError),
    #[error("this kernel has no landlock; boot it with landlock in lsm=")]
    NoLandlock,
    #[error("cannot build the list of system calls")]
    Calls(#[source] std::io::Error),
    #[error("cannot install the list of system calls")]
    Seccomp(#[source] std::io::Error),
}

/// Closes the fence around this process. It must have one thread still: landlock binds the calling thread and its children.
pub fn enter(role: Role, reach: Reach, beneath: &[(BorrowedFd<'_>, May)]) -> Result<(), FenceError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(FenceError::Dumpable)?;
    // A landlocked process may not read the memory of one that is not, whatever its capabilities; tally has an empty root
    // and no call that opens or connects.
    if role != Role::Tally {
        landlock(reach, beneath)?;
    }
    // Threads, and nothing that has a namespace of its own.
    let mut calls = AllowList::of(EVERYBODY.iter().chain(own(role)).chain(outward(reach)))
        .only(libc::SYS_clone, [vec![If::Masked(0, CLONE_NEW, 0)]]);
    if reach == Reach::Internet {
        calls = calls.only(libc::SYS_socket, internet());
    }
    let program = calls.compile().map_err(FenceError::Calls)?;
    // First, for the list has no call to install another: the list lets clone3 through, and this one says ENOSYS.
    install(&unknown(), Listener::None).map_err(FenceError::Seccomp)?;
    install(&program, Listener::None).map_err(FenceError::Seccomp)?;
    Ok(())
}

fn landlock(reach: Reach, beneath: &[(BorrowedFd<'_>, May)]) -> Result<(), FenceError> {
    let abi = ABI::V6;
    // Older kernels know less; what they know is enforced, and seccomp says the rest again.
    let mut rules =
        Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(AccessFs::from_all(abi))?;
    let net: BitFlags<AccessNet> = match reach {
        Reach::Internet => AccessNet::BindTcp.into(),
        Reach::Nowhere => AccessNet::from_all(abi),
    };
    rules = rules.handle_access(net)?.scope(Scope::from_all(abi))?;
    let mut rules = rules.create()?;
    for (directory, may) in beneath {
        let access = match may {
            May::Read => AccessFs::ReadFile | AccessFs::ReadDir,
            May::Write => AccessFs::from_all(abi) & !AccessFs::Execute,
        };
        rules = rules.add_rule(PathBeneath::new(directory, access))?;
    }
    if rules.restrict_self()?.ruleset == RulesetStatus::NotEnforced {
        return Err(FenceError::NoLandlock);
    }
    Ok(())
}

/// A UDP socket needs a port of its own to ask for names from; landlock lets no TCP socket have one.
fn outward(reach: Reach) -> &'static [i64] {
    match reach {
        Reach::Internet => &[libc::SYS_connect, libc::SYS_bind],
        Reach::Nowhere => &[],
    }
}

/// Landlock does not mediate a unix socket's path, and one of them is the engine's; nothing raw, nothing of ICMP.
fn internet() -> Vec<Vec<If>> {
    let number = i32::cast_unsigned;
    let flags = number(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK);
    let mut ways = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for (kind, own) in [(libc::SOCK_STREAM, libc::IPPROTO_TCP), (libc::SOCK_DGRAM, libc::IPPROTO_UDP)] {
            for protocol in [0, own] {
                let kind = If::Masked(1, !flags, number(kind));
                ways.push(vec![If::Is(0, number(family)), kind, If::Is(2, number(protocol))]);
            }
        }
    }
    ways
}

/// Tries from inside what must not work; the names of what worked all the same.
pub fn holes(reach: Reach) -> Vec<&'static str> {
    let refused = |e: &std::io::Error| matches!(e.raw_os_error(), Some(libc::EPERM | libc::EACCES));
    let mut holes = Vec::new();
    if !std::fs::File::open("/").is_err_and(|e| refused(&e)) {
        holes.push("it can open a file");
    }
    if !std::process::Command::new("/proc/self/exe").arg("--version").spawn().is_err_and(|e| refused(&e)) {
        holes.push("it can execute a program");
    }
    let connect = std::net::TcpStream::connect(("127.0.0.1", 9));
    if reach == Reach::Nowhere && !connect.is_err_and(|e| refused(&e)) {
        holes.push("it can connect");
    }
    if !std::net::TcpListener::bind(("127.0.0.1", 0)).is_err_and(|e| refused(&e)) {
        holes.push("it can listen");
    }
    if !std::os::unix::net::UnixStream::connect("/run/none").is_err_and(|e| refused(&e)) {
        holes.push("it can connect to a unix socket");
    }
    holes
}

fn own(role: Role) -> &'static [i64] {
    use libc::*;
    match role {
        Role::Gate | Role::Portal | Role::Porter => &[SYS_accept, SYS_accept4],
        Role::Keeper => &[
            SYS_openat,
            SYS_openat2,
            SYS_mkdirat,
            SYS_fallocate,
            SYS_fdatasync,
            SYS_fsync,
            SYS_ftruncate,
            SYS_pwrite64,
            SYS_fstatfs,
            SYS_getdents64,
            SYS_lseek,
            SYS_flock,
            SYS_unlinkat,
            SYS_renameat2,
            SYS_linkat,
        ],
        Role::Warden => &[SYS_openat, SYS_openat2, SYS_lseek, SYS_getdents64],
        Role::Tally => &[SYS_process_vm_readv],
    }
}

#[rustfmt::skip]
const EVERYBODY: &[i64] = &{
    use libc::*;
    [
        SYS_brk, SYS_clock_getres, SYS_clock_gettime, SYS_clock_nanosleep, SYS_clone3, SYS_close, SYS_dup,
        SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_epoll_wait, SYS_eventfd2, SYS_exit,
        SYS_exit_group, SYS_fcntl, SYS_fstat, SYS_futex, SYS_getpeername, SYS_getpid, SYS_getrandom, SYS_getsockname,
        SYS_getsockopt, SYS_gettid, SYS_gettimeofday, SYS_getuid, SYS_ioctl, SYS_madvise, SYS_membarrier, SYS_mmap,
        SYS_mprotect, SYS_mremap, SYS_munmap, SYS_nanosleep, SYS_newfstatat, SYS_pipe2, SYS_poll, SYS_ppoll, SYS_pread64, SYS_prctl,
        SYS_prlimit64, SYS_read, SYS_readv, SYS_recvfrom, SYS_recvmsg, SYS_restart_syscall, SYS_rseq, SYS_rt_sigaction,
        SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sched_getaffinity, SYS_sched_yield, SYS_sendmsg, SYS_sendto,
        SYS_set_robust_list, SYS_setsockopt, SYS_shutdown, SYS_sigaltstack, SYS_socketpair, SYS_statx, SYS_tgkill,
        SYS_uname, SYS_write, SYS_writev,
    ]
};
