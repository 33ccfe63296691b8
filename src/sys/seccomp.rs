//! Installing a seccomp program on the calling thread.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// One instruction of classic BPF.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// Whether execve attempts are reported to whoever holds the returned descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    None,
    /// With WAIT_KILLABLE_RECV: a signal handler of the jailed process cannot make the same attempt be reported twice.
    New,
}

/// Adds a filter; needs no_new_privs. Filters stack, and the last added wins among equal ranks.
pub fn install(program: &[Instruction], listener: Listener) -> io::Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    let flags = match listener {
        Listener::None => 0,
        Listener::New => libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    };
    // SAFETY: the program outlives the call; the kernel copies and verifies it. `Instruction` has sock_filter's layout.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) };
    match (done, listener) {
        (0, Listener::None) => Ok(None),
        (fd, Listener::New) if fd >= 0 => {
            let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
            // SAFETY: the kernel has just made this descriptor for us.
            Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
        }
        _ => Err(io::Error::last_os_error()),
    }
}
