//! Signals as something to poll.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: sigemptyset makes the zeroed set a valid one; the numbers are checked by sigaddset.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// Blocks these signals and gives a descriptor that becomes readable when one is pending.
pub fn descriptor(signals: &[i32]) -> io::Result<OwnedFd> {
    let set = set_of(signals);
    // SAFETY: `set` is valid; the former mask is not asked for.
    if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `set` is valid; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next pending signal of `descriptor`.
pub fn next(descriptor: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    // SAFETY: all zeroes is a valid signalfd_siginfo.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    // SAFETY: writes at most the size of the structure.
    let got = unsafe { libc::read(descriptor.as_raw_fd(), (&raw mut info).cast(), size_of_val(&info)) };
    if got >= 0 {
        return Ok(i32::try_from(info.ssi_signo).ok().filter(|s| *s > 0));
    }
    match io::Error::last_os_error() {
        e if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        e => Err(e),
    }
}

/// Of Linux, real-time signals included.
const LAST: libc::c_int = 64;

/// Words of the kernel's `struct sigaction`: handler, flags, restorer, mask.
const KERNEL_SIGACTION: usize = 4;

/// In a child that is about to execute something: every signal unblocked and back to its default.
pub fn reset() -> io::Result<()> {
    let none = set_of(&[]);
    // SAFETY: `none` is valid.
    if unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // What is ignored stays ignored across execve: SIGPIPE by Rust, and by whoever started the bastion maybe SIGINT, which
    // no program in a jail would hear then. The kernel is asked itself: C libraries keep 32 to 34 for their threads and
    // refuse to touch them.
    for number in 1..=LAST {
        let default = [0_u64; KERNEL_SIGACTION];
        // SAFETY: all zeroes is SIG_DFL with no flags, and runs no code of ours; the former action is not asked for. KILL
        // and STOP say no.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    Ok(())
}
