//! This program's own file, which is the `stockade` command in every jail: the same for as long as the jailer lives, even
//! when an upgrade gives its name to another.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fs_err as fs;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};

use super::fault::{Fault, Step};

/// Where it lies, in the jailer's run directory.
pub fn place(run: &str) -> String {
    format!("{run}/stockade")
}

/// Holds the file at its place.
pub fn hold(own: &Path, run: &str) -> Result<(), Fault> {
    let place = place(run);
    fs::write(&place, "").step("make a place for the program")?;
    mount_bind(own, &*place).step("hold the program")
}

/// To be asked for before each jail: the kernel attaches nothing that has lost its last name, so then a copy is held.
pub fn keep(run: &str) -> Result<(), Fault> {
    let place = place(run);
    let held = fs::metadata(&place).step("look at the program")?;
    // Empty: a former try came only half way.
    if held.nlink() > 0 && held.len() > 0 {
        return Ok(());
    }
    let copy = copy(run);
    fs::copy("/proc/self/exe", &copy).step("copy the program")?;
    // Nothing can be attached upon it, either.
    let _ = unmount(&*place, UnmountFlags::DETACH);
    mount_bind(&*copy, &*place).step("hold the program's copy")?;
    // /run is often mounted noexec.
    mount_remount(&*place, MountFlags::BIND, c"").step("make the program's copy executable")
}

/// Lets go of it, and of the copy.
pub fn release(run: &str) {
    let place = place(run);
    while unmount(&*place, UnmountFlags::DETACH).is_ok() {}
    for file in [place, copy(run)] {
        let _ = fs::remove_file(file);
    }
}

fn copy(run: &str) -> String {
    format!("{run}/stockade.copy")
}
