//! Installing a seccomp program on the calling thread.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// One instruction of classic BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// The first call number that the list does not know (6.18's last is 468).
pub const FIRST_UNKNOWN: u32 = 469;

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
pub const CLONE_NEW: u32 = 0x7E02_0000;

// BPF, linux/bpf_common.h and linux/seccomp.h.
pub const LOAD: u16 = 0x20;
pub const JUMP_EQUAL: u16 = 0x15;
pub const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
pub const RETURN: u16 = 0x06;
pub const ARCH_AT: u32 = 4;
pub const NUMBER_AT: u32 = 0;
pub const AUDIT_ARCH_X86_64: u32 = 0xC000_003E;
/// The bit that marks calls of the x32 ABI, the same calls under other numbers.
pub const X32: u32 = 0x4000_0000;
pub const ALLOW: u32 = 0x7FFF_0000;
pub const KILL_PROCESS: u32 = 0x8000_0000;
pub const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;

pub const fn step(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

pub const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// Kills foreign ABIs; answers ENOSYS to clone3, whose flags no filter can see, and to calls that no list here knows:
/// libraries fall back on ENOSYS, and give up on EPERM. To be loaded last, so that its errno wins.
pub fn unknown() -> Vec<Instruction> {
    vec![
        step(LOAD, ARCH_AT),
        jump(JUMP_EQUAL, AUDIT_ARCH_X86_64, 1, 0),
        step(RETURN, KILL_PROCESS),
        step(LOAD, NUMBER_AT),
        jump(JUMP_GREATER_OR_EQUAL, X32, 2, 0),
        jump(JUMP_GREATER_OR_EQUAL, FIRST_UNKNOWN, 2, 0),
        jump(JUMP_EQUAL, libc::SYS_clone3 as u32, 1, 2),
        step(RETURN, KILL_PROCESS),
        step(RETURN, ENOSYS),
        step(RETURN, ALLOW),
    ]
}
