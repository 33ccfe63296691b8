//! Becoming another program.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Executes the file behind a descriptor with `descriptors` at 0, 1, 2, … and no others; returns only on failure, and
/// then the places of this process's descriptors are lost. Needs no `/proc`, as `fexecve` would.
pub fn exec_with(
    file: BorrowedFd<'_>,
    descriptors: &[BorrowedFd<'_>],
    arguments: &[CString],
    environment: &[CString],
) -> io::Error {
    let Ok(place) = RawFd::try_from(descriptors.len()) else { return io::ErrorKind::InvalidInput.into() };
    let all: Vec<BorrowedFd<'_>> = descriptors.iter().copied().chain([file]).collect();
    if let Err(error) = arrange(&all) {
        return error;
    }
    // SAFETY: `arrange` has just put the file at this place; it shall not stay open in the new program.
    unsafe { libc::fcntl(place, libc::F_SETFD, libc::FD_CLOEXEC) };
    exec(place, c"", arguments, environment, libc::AT_EMPTY_PATH)
}

/// Executes a path; returns only on failure.
pub fn exec_path(path: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    exec(libc::AT_FDCWD, path, arguments, environment, 0)
}

fn exec(at: RawFd, path: &CStr, arguments: &[CString], environment: &[CString], flags: i32) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end with null and point at strings that live until the call fails.
    unsafe { libc::syscall(libc::SYS_execveat, at, path.as_ptr(), argv.as_ptr(), envp.as_ptr(), flags) };
    io::Error::last_os_error()
}

/// Closes every descriptor from `first` on, except those that `keep` names.
///
/// For a child just before it executes something: nothing of this process may use the closed descriptors again.
fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the caller is about to execute another program; the descriptors' owners never run again.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Puts descriptors at 0, 1, 2, … in this order, inherited by what is executed, and closes all others.
fn arrange(descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let first_free = RawFd::try_from(descriptors.len()).map_err(io::Error::other)? + 16;
    let mut above = Vec::with_capacity(descriptors.len());
    for descriptor in descriptors {
        // SAFETY: duplicates a borrowed, open descriptor, above the places about to be taken.
        let copy = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, first_free) };
        if copy < 0 {
            return Err(io::Error::last_os_error());
        }
        above.push(copy);
    }
    for (place, copy) in (0..).zip(&above) {
        // SAFETY: whoever owned `place` in the parent does not run in this child, which executes something next.
        if unsafe { libc::dup2(*copy, place) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    close_from(u32::try_from(descriptors.len()).map_err(io::Error::other)?)
}

/// The descriptor that the parent left at a fixed place for this process.
///
/// Call it once per place, at the start of `main`, before anything else could own it.
pub fn inherited(place: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only asks whether the place is open.
    if unsafe { libc::fcntl(place, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open, and by this program's convention owned by nobody yet.
    let descriptor = unsafe { OwnedFd::from_raw_fd(place) };
    rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC)?;
    Ok(descriptor)
}

/// Marks every descriptor from `first` on to be closed by the next exec.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: closes nothing now.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
