//! `mount_setattr(2)`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const IDMAP: u64 = 0x0010_0000;

/// What a detached mount becomes before it is attached; always nosuid and nodev.
#[derive(Debug, Default)]
pub struct Attributes<'a> {
    pub read_only: bool,
    /// Owners are shifted as this user namespace maps them.
    pub idmap: Option<BorrowedFd<'a>>,
}

/// Changes the attributes of one mount (not of those below it).
pub fn set_attributes(mount: BorrowedFd<'_>, attributes: &Attributes<'_>) -> io::Result<()> {
    let mut attr = MountAttr { set: NOSUID | NODEV, clear: 0, propagation: 0, userns: 0 };
    if attributes.read_only {
        attr.set |= RDONLY;
    }
    if let Some(userns) = attributes.idmap {
        attr.set |= IDMAP;
        attr.userns = userns.as_raw_fd() as u64;
    }
    // SAFETY: the path is empty and ends with NUL, the structure is the kernel's first version of mount_attr.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
