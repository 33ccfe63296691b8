//! Seccomp user notification, from the listener's side.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};

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

/// What a slate takes; the kernel's structure may grow.
const SLATE: usize = 4096;

/// Where the kernel writes each attempt that is received: memory that outlives its receiver. The kernel gives an attempt to
/// one receiver only; when that one dies before it has answered, the next finds here what to answer.
#[derive(Debug)]
pub struct Slate(NonNull<libc::seccomp_notif>);

// SAFETY: it is the one owner of its mapping in this process, and no thread is special to it.
unsafe impl Send for Slate {}

impl Slate {
    /// An empty one. Nobody can make it shorter: a page that is gone would end whoever looks at it.
    pub fn blank() -> io::Result<OwnedFd> {
        let memory = memfd_create("attempt", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&memory, SLATE as u64)?;
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(memory)
    }

    pub fn open(memory: impl AsFd) -> io::Result<Self> {
        let whole = fcntl_get_seals(&memory)?.contains(SealFlags::SHRINK) && fstat(&memory)?.st_size == SLATE as i64;
        if !whole {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let fd = memory.as_fd().as_raw_fd();
        // SAFETY: a new mapping where the kernel likes; the file has and keeps its length.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), SLATE, access, libc::MAP_SHARED, fd, 0) };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(page.cast()).map(Self).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// What was received last, by anybody; it may have been answered long ago.
    pub fn last(&self) -> Attempt {
        // SAFETY: the page is mapped as long as `self` lives, and any bytes are a seccomp_notif.
        let libc::seccomp_notif { id, pid, data, .. } = unsafe { self.0.as_ptr().read_volatile() };
        Attempt { id, pid, call: data.nr, arguments: data.args }
    }
}

impl Drop for Slate {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), SLATE) };
    }
}

/// Wakes the listener on the caller's processor: a hand-over instead of a migration (6.6 and later, else ignored).
pub fn wake_in_place(listener: BorrowedFd<'_>) {
    // SAFETY: the argument is a plain number; on older kernels the call fails and nothing changes.
    unsafe { libc::ioctl(listener.as_raw_fd(), SET_FLAGS, SYNC_WAKE_UP) };
}

/// The next attempt; `ENOENT` when its process was killed meanwhile, `WouldBlock` when none waits, `BrokenPipe` when none
/// will.
pub fn receive(listener: BorrowedFd<'_>, slate: &mut Slate) -> io::Result<Attempt> {
    // The call below waits whatever O_NONBLOCK says, and with it every other jail's execs. An attempt whose process dies
    // after this look does not make it wait: the kernel has counted it.
    let mut ready = [PollFd::from_borrowed_fd(listener, PollFlags::IN)];
    poll(&mut ready, Some(&Timespec::default()))?;
    let [ready] = ready;
    if !ready.revents().contains(PollFlags::IN) {
        let ended = ready.revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
        return Err(if ended { io::ErrorKind::BrokenPipe } else { io::ErrorKind::WouldBlock }.into());
    }
    // SAFETY: all zeroes is a valid seccomp_notif, and the kernel insists on it; the page is mapped and ours.
    unsafe { slate.0.as_ptr().write_volatile(std::mem::zeroed()) };
    // SAFETY: the structure outlives the call and has the kernel's layout.
    if unsafe { libc::ioctl(listener.as_raw_fd(), RECV, slate.0.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(slate.last())
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
