//! A system call tried for its answer alone, in a process that makes it and ends.

use std::arch::asm;
use std::io;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::clone::Alone;

/// A call that does not answer is ended by SIGALRM after so many seconds.
const DEADLINE: libc::c_uint = 10;

/// How the call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Done,
    Refused(i32),
    /// The process was killed by this signal, as seccomp does it.
    Killed(i32),
}

/// Makes one call of the native ABI (or of x32, which is a bit of the number).
///
/// Arguments are plain numbers, addresses too: what the kernel writes, it writes into a copy of this process that never
/// touches its memory again, so no number can make this unsound. Whether it harms the host is for the caller to know.
pub fn call(alone: &Alone, number: i64, arguments: [u64; 6]) -> io::Result<Ended> {
    let [a, b, c, d, e, f] = arguments;
    let Some(child) = fork(alone)? else {
        // SAFETY: runs in a child of one thread. From the call on, only registers are used, up to exit_group.
        unsafe {
            libc::alarm(DEADLINE);
            asm!(
                "syscall",
                "xor edi, edi", "test rax, rax", "jns 2f", "neg rax", "mov edi, eax",
                "2:", "mov eax, 231", "syscall", "ud2",
                in("rax") number, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
                options(noreturn)
            )
        }
    };
    wait(child)
}

/// Makes one call without arguments of the 32-bit ABI.
pub fn call_i386(alone: &Alone, number: u32) -> io::Result<Ended> {
    let Some(child) = fork(alone)? else {
        // SAFETY: as above; a kernel without this ABI answers with SIGSEGV.
        unsafe {
            libc::alarm(DEADLINE);
            asm!(
                "int 0x80",
                "xor edi, edi", "test eax, eax", "jns 2f", "neg eax", "mov edi, eax",
                "2:", "mov eax, 231", "syscall", "ud2",
                in("eax") number, options(noreturn)
            )
        }
    };
    wait(child)
}

/// `fork` and not `clone3`, which a jail refuses. `None` in the child.
fn fork(_alone: &Alone) -> io::Result<Option<Pid>> {
    // SAFETY: `_alone` says that no other thread holds a lock.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        pid => Pid::from_raw(pid).map(Some).ok_or_else(|| io::Error::other("fork gave no process id")),
    }
}

fn wait(child: Pid) -> io::Result<Ended> {
    let status = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(child), WaitIdOptions::EXITED))?;
    let status = status.ok_or_else(|| io::Error::other("the child is lost"))?;
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => Ended::Done,
        (Some(errno), _) => Ended::Refused(errno),
        (None, Some(signal)) => Ended::Killed(signal),
        (None, None) => return Err(io::Error::other("the child neither ended nor was killed")),
    })
}
