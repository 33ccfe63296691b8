//! The seccomp filters of everything in a jail.
//!
//! Three programs, since one program has one errno, and every loaded one is asked: `reported` turns exec attempts into
//! notifications; `allowed` is the allow list and answers EPERM; `unknown`, loaded last so that its errno wins, answers
//! ENOSYS to clone3 and to calls newer than the list (libraries fall back on ENOSYS, and give up on EPERM).
//!
//! The list is what container engines allow without any capability, less what a shell account has no use for: ptrace and
//! reading other processes' memory, handles to files, personalities, and `sync`, by which one jail could stall all.

use std::collections::BTreeMap;
use std::io;

use libc::{AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, IPPROTO_TCP, IPPROTO_UDP, SOCK_DGRAM, SOCK_STREAM};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare, SeccompCondition as Condition,
    SeccompFilter, SeccompRule as Rule, TargetArch,
};

use crate::sys::seccomp::{ALLOW, CLONE_NEW, Instruction, JUMP_EQUAL, LOAD, NUMBER_AT, RETURN, jump, step, unknown};

/// The filters, compiled once.
#[derive(Debug)]
pub struct Filters {
    pub allowed: Vec<Instruction>,
    pub unknown: Vec<Instruction>,
    pub reported: Vec<Instruction>,
}

const USER_NOTIF: u32 = 0x7FC0_0000;
/// linux/udp.h
const UDP_ENCAP: i32 = 100;

impl Filters {
    pub fn compile() -> io::Result<Self> {
        Ok(Self { allowed: allowed()?, unknown: unknown(), reported: reported() })
    }
}

fn allowed() -> io::Result<Vec<Instruction>> {
    let mut rules: BTreeMap<i64, Vec<Rule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_ioctl, harmless_ioctl()?);
    rules.insert(libc::SYS_socket, local_sockets()?);
    rules.insert(libc::SYS_socketpair, vec![rule(vec![family(AF_UNIX)?])?]);
    rules.insert(libc::SYS_setsockopt, plain_options()?);
    rules.insert(libc::SYS_clone, vec![rule(vec![compare(0, Compare::MaskedEq(CLONE_NEW), 0)?])?]);
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter =
        SeccompFilter::new(rules, refuse, SeccompAction::Allow, TargetArch::x86_64).map_err(io::Error::other)?;
    let program: BpfProgram = filter.try_into().map_err(io::Error::other)?;
    Ok(program.iter().map(|i| Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect())
}

/// All but those that type into, or take over, the terminal that the keeper reads.
fn harmless_ioctl() -> io::Result<Vec<Rule>> {
    // The kernel takes the request as 32 bits: a 64-bit comparison would let through a number with a bit above them.
    let refused = [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSETD, libc::TIOCCONS];
    let refused = refused.into_iter().map(|request| u64::from(request as u32));
    let conditions = refused.map(|request| compare(1, Compare::Ne, request)).collect::<io::Result<_>>()?;
    Ok(vec![rule(conditions)?])
}

/// AF_VSOCK and AF_ALG are not bound to a network namespace; netlink families other than route have had too many holes,
/// and so have the rarer protocols of the internet (SCTP, DCCP, UDP-Lite, MPTCP, L2TP): what a door speaks is TCP.
fn local_sockets() -> io::Result<Vec<Rule>> {
    let mut rules = vec![rule(vec![family(AF_UNIX)?])?, rule(vec![family(AF_NETLINK)?, protocol(0)?])?];
    for internet in [AF_INET, AF_INET6] {
        for (kind, only) in [(SOCK_STREAM, IPPROTO_TCP), (SOCK_DGRAM, IPPROTO_UDP)] {
            for number in [0, only] {
                // Above the type are SOCK_CLOEXEC and SOCK_NONBLOCK.
                let kind = compare(1, Compare::MaskedEq(0xF), u64::from(kind.cast_unsigned()))?;
                rules.push(rule(vec![family(internet)?, kind, protocol(number)?])?);
            }
        }
    }
    Ok(rules)
}

/// No protocols that a socket turns into: the kernel's own TLS and its like, and ESP in UDP. Both had their exploits.
fn plain_options() -> io::Result<Vec<Rule>> {
    let level = |how: Compare, number: i32| compare(1, how, u64::from(number.cast_unsigned()));
    let but = |option: i32| compare(2, Compare::Ne, u64::from(option.cast_unsigned()));
    Ok(vec![
        rule(vec![level(Compare::Ne, IPPROTO_TCP)?, level(Compare::Ne, IPPROTO_UDP)?])?,
        rule(vec![level(Compare::Eq, IPPROTO_TCP)?, but(libc::TCP_ULP)?])?,
        rule(vec![level(Compare::Eq, IPPROTO_UDP)?, but(UDP_ENCAP)?])?,
    ])
}

fn family(number: i32) -> io::Result<Condition> {
    compare(0, Compare::Eq, u64::from(number.cast_unsigned()))
}

fn protocol(number: i32) -> io::Result<Condition> {
    compare(2, Compare::Eq, u64::from(number.cast_unsigned()))
}

fn compare(argument: u8, how: Compare, value: u64) -> io::Result<Condition> {
    Condition::new(argument, Length::Dword, how, value).map_err(io::Error::other)
}

fn rule(conditions: Vec<Condition>) -> io::Result<Rule> {
    Rule::new(conditions).map_err(io::Error::other)
}

fn reported() -> Vec<Instruction> {
    vec![
        step(LOAD, NUMBER_AT),
        jump(JUMP_EQUAL, libc::SYS_execve as u32, 1, 0),
        jump(JUMP_EQUAL, libc::SYS_execveat as u32, 0, 1),
        step(RETURN, USER_NOTIF),
        step(RETURN, ALLOW),
    ]
}

/// Whether a jail lets a call through, if only with some arguments.
pub fn allows(call: i64) -> bool {
    use libc::{SYS_clone, SYS_ioctl, SYS_setsockopt, SYS_socket, SYS_socketpair};
    ALLOWED.contains(&call) || [SYS_clone, SYS_ioctl, SYS_setsockopt, SYS_socket, SYS_socketpair].contains(&call)
}

#[rustfmt::skip]
const ALLOWED: &[i64] = &{
    use libc::*;
    [
        SYS_accept, SYS_accept4, SYS_access, SYS_alarm, SYS_arch_prctl, SYS_bind, SYS_brk, SYS_capget,
        SYS_capset, SYS_chdir, SYS_chmod, SYS_chown, SYS_clock_getres, SYS_clock_gettime, SYS_clock_nanosleep, SYS_close,
        SYS_close_range, SYS_connect, SYS_copy_file_range, SYS_creat, SYS_dup, SYS_dup2, SYS_dup3, SYS_epoll_create,
        SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_epoll_wait, SYS_eventfd, SYS_eventfd2,
        SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group, SYS_faccessat, SYS_faccessat2, SYS_fadvise64, SYS_fallocate,
        SYS_fchdir, SYS_fchmod, SYS_fchmodat, SYS_fchmodat2, SYS_fchown, SYS_fchownat, SYS_fcntl, SYS_fdatasync,
        SYS_fgetxattr, SYS_flistxattr, SYS_flock, SYS_fork, SYS_fremovexattr, SYS_fsetxattr, SYS_fstat, SYS_fstatfs,
        SYS_fsync, SYS_ftruncate, SYS_futex, SYS_futex_waitv, SYS_futimesat, SYS_getcpu, SYS_getcwd, SYS_getdents,
        SYS_getdents64, SYS_getegid, SYS_geteuid, SYS_getgid, SYS_getgroups, SYS_getitimer, SYS_getpeername,
        SYS_getpgid, SYS_getpgrp, SYS_getpid, SYS_getppid, SYS_getpriority, SYS_getrandom, SYS_getresgid,
        SYS_getresuid, SYS_getrlimit, SYS_get_robust_list, SYS_getrusage, SYS_getsid, SYS_getsockname,
        SYS_getsockopt, SYS_get_thread_area, SYS_gettid, SYS_gettimeofday, SYS_getuid, SYS_getxattr,
        SYS_inotify_add_watch, SYS_inotify_init, SYS_inotify_init1, SYS_inotify_rm_watch, SYS_ioprio_get,
        SYS_ioprio_set, SYS_kill, SYS_landlock_add_rule, SYS_landlock_create_ruleset, SYS_landlock_restrict_self,
        SYS_lchown, SYS_lgetxattr, SYS_link, SYS_linkat, SYS_listen, SYS_listxattr, SYS_llistxattr, SYS_lremovexattr,
        SYS_lseek, SYS_lsetxattr, SYS_lstat, SYS_madvise, SYS_membarrier, SYS_memfd_create, SYS_mincore, SYS_mkdir,
        SYS_mkdirat, SYS_mknod, SYS_mknodat, SYS_mlock, SYS_mlock2, SYS_mlockall, SYS_mmap, SYS_mprotect,
        SYS_mq_getsetattr, SYS_mq_notify, SYS_mq_open, SYS_mq_timedreceive, SYS_mq_timedsend, SYS_mq_unlink,
        SYS_mremap, SYS_msgctl, SYS_msgget, SYS_msgrcv, SYS_msgsnd, SYS_msync, SYS_munlock, SYS_munlockall,
        SYS_munmap, SYS_nanosleep, SYS_newfstatat, SYS_open, SYS_openat, SYS_openat2, SYS_pause, SYS_pidfd_open,
        SYS_pidfd_send_signal, SYS_pipe, SYS_pipe2, SYS_pkey_alloc, SYS_pkey_free, SYS_pkey_mprotect, SYS_poll,
        SYS_ppoll, SYS_prctl, SYS_pread64, SYS_preadv, SYS_preadv2, SYS_prlimit64, SYS_process_mrelease, SYS_pselect6,
        SYS_pwrite64, SYS_pwritev, SYS_pwritev2, SYS_read, SYS_readahead, SYS_readlink, SYS_readlinkat, SYS_readv,
        SYS_recvfrom, SYS_recvmmsg, SYS_recvmsg, SYS_remap_file_pages, SYS_removexattr, SYS_rename, SYS_renameat,
        SYS_renameat2, SYS_restart_syscall, SYS_rmdir, SYS_rseq, SYS_rt_sigaction, SYS_rt_sigpending,
        SYS_rt_sigprocmask, SYS_rt_sigqueueinfo, SYS_rt_sigreturn, SYS_rt_sigsuspend, SYS_rt_sigtimedwait,
        SYS_rt_tgsigqueueinfo, SYS_sched_getaffinity, SYS_sched_getattr, SYS_sched_getparam,
        SYS_sched_get_priority_max, SYS_sched_get_priority_min, SYS_sched_getscheduler, SYS_sched_rr_get_interval,
        SYS_sched_setaffinity, SYS_sched_setattr, SYS_sched_setparam, SYS_sched_setscheduler, SYS_sched_yield,
        SYS_seccomp, SYS_select, SYS_semctl, SYS_semget, SYS_semop, SYS_semtimedop, SYS_sendfile, SYS_sendmmsg,
        SYS_sendmsg, SYS_sendto, SYS_setfsgid, SYS_setfsuid, SYS_setgid, SYS_setgroups, SYS_setitimer, SYS_setpgid,
        SYS_setpriority, SYS_setregid, SYS_setresgid, SYS_setresuid, SYS_setreuid, SYS_setrlimit, SYS_set_robust_list,
        SYS_setsid, SYS_set_thread_area, SYS_set_tid_address, SYS_setuid, SYS_setxattr, SYS_shmat,
        SYS_shmctl, SYS_shmdt, SYS_shmget, SYS_shutdown, SYS_sigaltstack, SYS_signalfd, SYS_signalfd4,
        SYS_splice, SYS_stat, SYS_statfs, SYS_statx, SYS_symlink, SYS_symlinkat, SYS_sync_file_range, SYS_sysinfo,
        SYS_tee, SYS_tgkill, SYS_time, SYS_timer_create, SYS_timer_delete, SYS_timer_getoverrun, SYS_timer_gettime,
        SYS_timer_settime, SYS_timerfd_create, SYS_timerfd_gettime, SYS_timerfd_settime, SYS_times, SYS_tkill,
        SYS_truncate, SYS_umask, SYS_uname, SYS_unlink, SYS_unlinkat, SYS_utime, SYS_utimensat, SYS_utimes, SYS_vfork,
        SYS_vmsplice, SYS_wait4, SYS_waitid, SYS_write, SYS_writev,
    ]
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::seccomp::FIRST_UNKNOWN;

    #[test]
    fn the_filters_compile_and_fit() {
        let filters = Filters::compile().unwrap();
        assert!(filters.allowed.len() < 4096);
        assert!(ALLOWED.iter().all(|call| *call < i64::from(FIRST_UNKNOWN)));
    }

    #[test]
    fn what_reaches_the_host_is_not_on_the_list() {
        for call in [
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_userfaultfd,
            libc::SYS_perf_event_open,
            libc::SYS_open_by_handle_at,
            libc::SYS_name_to_handle_at,
            libc::SYS_sync,
            libc::SYS_syncfs,
            libc::SYS_personality,
            libc::SYS_clone3,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
        ] {
            assert!(!ALLOWED.contains(&call), "{call}");
        }
    }
}
