//! New processes from a process with one thread.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

/// Proof that this process has one thread: after `clone` only the calling thread exists in the child, and a lock held by
/// another (malloc's, the log's) would stay held for ever. Not `Send`, so it cannot reach a second thread.
#[derive(Debug)]
pub struct Alone(PhantomData<*const ()>);

impl Alone {
    /// Fails in a process that has started threads; whoever holds the proof must not start any.
    pub fn prove() -> io::Result<Self> {
        let threads = std::fs::read_dir("/proc/self/task")?.count();
        if threads != 1 {
            return Err(io::Error::other(format!("the jailer must have one thread, it has {threads}")));
        }
        Ok(Self(PhantomData))
    }
}

/// Which side of `clone` this is.
#[derive(Debug)]
pub enum Cloned {
    Child,
    Parent { pid: Pid, pidfd: OwnedFd },
}

/// `CLONE_*` for `clone`.
pub mod flags {
    pub const NEW_NAMESPACES: u64 =
        (libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64;
    pub const NEW_USER: u64 = libc::CLONE_NEWUSER as u64;
    pub(super) const INTO_CGROUP: u64 = 0x2_0000_0000;
}

/// `clone3` without a shared address space: a fork, with a descriptor of the child.
///
/// `cgroup`: the version 2 cgroup the child is born in; unlike a write to `cgroup.procs` this takes no global lock.
pub fn clone(_alone: &Alone, flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all zeroes is a valid clone_args.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags | libc::CLONE_PIDFD as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        arguments.flags |= flags::INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the arguments outlive the call; no stack and no CLONE_VM, so the child runs on its own copy of this
    // stack; `_alone` says that no other thread held a lock.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    match i32::try_from(pid) {
        Ok(0) => Ok(Cloned::Child),
        Ok(pid) if pid > 0 => {
            let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("clone3 gave no process id"))?;
            // SAFETY: the kernel has put a new descriptor there, owned by nobody else.
            Ok(Cloned::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives up namespaces of the calling process (which is alone, so no thread is left behind in the old ones).
pub fn unshare(_alone: &Alone, what: rustix::thread::UnshareFlags) -> io::Result<()> {
    // SAFETY: without FILES no descriptor table is unshared from under another thread; there is none anyway.
    Ok(unsafe { rustix::thread::unshare_unsafe(what) }?)
}

/// Ends a child without running anything of the parent's: no destructors, no `atexit`.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(status) }
}
