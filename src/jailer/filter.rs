//! The seccomp filters of everything in a jail.
//!
//! Three programs, since one program has one errno, and every loaded one is asked: `reported` turns exec attempts into
//! notifications; `allowed` is the allow list and answers EPERM; `unknown`, loaded last so that its errno wins, answers
//! ENOSYS to clone3 and to calls newer than the list (libraries fall back on ENOSYS, and give up on EPERM).
//!
//! The list is what container engines allow without any capability, less what a shell account has no use for: ptrace and
//! reading other processes' memory, handles to files, personalities, and `sync`, by which one jail could stall all.

use std::io;

use libc::{AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, IPPROTO_TCP, IPPROTO_UDP, SOCK_DGRAM, SOCK_STREAM};

use crate::sys::allow::{AllowList, If};
use crate::sys::seccomp::{ALLOW, CLONE_NEW, Instruction, JUMP_EQUAL, LOAD, NUMBER_AT, RETURN, jump, step, unknown};

/// The filters, compiled once.
#[derive(Debug)]
pub struct Filters {
    pub of_init: Vec<Instruction>,
    pub allowed: Vec<Instruction>,
    pub unknown: Vec<Instruction>,
    pub reported: Vec<Instruction>,
}

const USER_NOTIF: u32 = 0x7FC0_0000;
/// linux/udp.h
const UDP_ENCAP: i32 = 100;

impl Filters {
    pub fn compile() -> io::Result<Self> {
        Ok(Self {
            of_init: AllowList::of(OF_INIT).compile()?,
            allowed: allowed()?,
            unknown: unknown(),
            reported: reported(),
        })
    }
}

fn allowed() -> io::Result<Vec<Instruction>> {
    AllowList::of(ALLOWED)
        .only(libc::SYS_ioctl, [harmless_ioctl()])
        .only(libc::SYS_socket, local_sockets())
        .only(libc::SYS_socketpair, [vec![family(AF_UNIX)]])
        .only(libc::SYS_setsockopt, plain_options())
        .only(libc::SYS_clone, [vec![If::Masked(0, CLONE_NEW, 0)]])
        .compile()
}

/// All but those that type into, or take over, the terminal that the keeper reads.
fn harmless_ioctl() -> Vec<If> {
    let refused = [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSETD, libc::TIOCCONS];
    refused.into_iter().map(|request| If::IsNot(1, request as u32)).collect()
}

/// AF_VSOCK and AF_ALG are not bound to a network namespace; netlink families other than route have had too many holes,
/// and so have the rarer protocols of the internet (SCTP, DCCP, UDP-Lite, MPTCP, L2TP): what a door speaks is TCP.
fn local_sockets() -> Vec<Vec<If>> {
    let mut ways = vec![vec![family(AF_UNIX)], vec![family(AF_NETLINK), is(2, 0)]];
    for internet in [AF_INET, AF_INET6] {
        for (kind, only) in [(SOCK_STREAM, IPPROTO_TCP), (SOCK_DGRAM, IPPROTO_UDP)] {
            // Above the type are SOCK_CLOEXEC and SOCK_NONBLOCK.
            let kind = If::Masked(1, 0xF, kind.cast_unsigned());
            ways.extend([0, only].map(|protocol| vec![family(internet), kind, is(2, protocol)]));
        }
    }
    ways
}

/// No protocols that a socket turns into: the kernel's own TLS and its like, and ESP in UDP. Both had their exploits.
fn plain_options() -> [Vec<If>; 3] {
    let but = |option: i32| If::IsNot(2, option.cast_unsigned());
    let not_of = |level: i32| If::IsNot(1, level.cast_unsigned());
    [
        vec![not_of(IPPROTO_TCP), not_of(IPPROTO_UDP)],
        vec![is(1, IPPROTO_TCP), but(libc::TCP_ULP)],
        vec![is(1, IPPROTO_UDP), but(UDP_ENCAP)],
    ]
}

fn family(number: i32) -> If {
    is(0, number)
}

fn is(argument: u8, number: i32) -> If {
    If::Is(argument, number.cast_unsigned())
}

/// Process 1: to take its place and be executed, to set its signals, to say that it runs, to wait.
const OF_INIT: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup2,
    libc::SYS_execveat,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_prctl,
    libc::SYS_read,
    libc::SYS_rt_sigaction,
    libc::SYS_seccomp,
    libc::SYS_sendmsg,
    libc::SYS_write,
];

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
