//! Seccomp user notification, from the listener's side.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

const RECV: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
const SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;
const ID_VALID: libc::Ioctl = 0x4008_2102_u32 as libc::Ioctl;
const SET_FLAGS: libc::Ioctl = 0x4008_2104_u32 as libc::Ioctl;
const SYNC_WAKE_UP: libc::c_ulong = 1;

/// A system call that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub id: u64,
    /// As the listener's pid namespace numbers it.
    pub pid: u32,
    pub call: i32,
    pub arguments: [u64; 6],
}

/// Wakes the listener on the caller's processor: a hand-over instead of a migration (6.6 and later, else ignored).
pub fn wake_in_place(listener: BorrowedFd<'_>) {
    // SAFETY: the argument is a plain number; on older kernels the call fails and nothing changes.
    unsafe { libc::ioctl(listener.as_raw_fd(), SET_FLAGS, SYNC_WAKE_UP) };
}

/// The next attempt; `ENOENT` when its process was killed meanwhile, `WouldBlock` when none waits, `BrokenPipe` when none
/// will.
pub fn receive(listener: BorrowedFd<'_>) -> io::Result<Attempt> {
    // The call below waits whatever O_NONBLOCK says, and with it every other jail's execs. An attempt whose process dies
    // after this look does not make it wait: the kernel has counted it.
    let mut ready = [PollFd::from_borrowed_fd(listener, PollFlags::IN)];
    poll(&mut ready, Some(&Timespec::default()))?;
    let [ready] = ready;
    if !ready.revents().contains(PollFlags::IN) {
        let ended = ready.revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
        return Err(if ended { io::ErrorKind::BrokenPipe } else { io::ErrorKind::WouldBlock }.into());
    }
    // SAFETY: all zeroes is a valid seccomp_notif, and the kernel insists on it.
    let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the structure outlives the call and has the kernel's layout.
    if unsafe { libc::ioctl(listener.as_raw_fd(), RECV, &raw mut notification) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let libc::seccomp_notif { id, pid, data, .. } = notification;
    Ok(Attempt { id, pid, call: data.nr, arguments: data.args })
}

/// Whether the attempt still waits: only then what was read of its process was really its own memory.
pub fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one u64.
    unsafe { libc::ioctl(listener.as_raw_fd(), ID_VALID, &raw const id) == 0 }
}

/// Lets the system call go on as if there were no filter.
pub fn go_on(listener: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    let response =
        libc::seccomp_notif_resp { id, val: 0, error: 0, flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 };
    // SAFETY: the structure outlives the call and has the kernel's layout.
    if unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const response) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
