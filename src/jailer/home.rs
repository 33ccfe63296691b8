//! Homes: an ext4 image per user, on a loop device, mounted once and shared by that user's jails.
//!
//! The image is made from a template of ours and only ever written through the file system, so its metadata is ours. No
//! path inside a home is ever followed here.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use fs_err as fs;
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat, open};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::fault::{Fault, Step};
use crate::identity::Principal;
use crate::sys::loop_device;

/// The empty home that new ones are copied from; not a principal's name, so nobody's home.
pub const TEMPLATE: &str = ".template.ext4";

/// How long a home stays mounted after its last jail: the next login need not wait for the disk.
const IDLE: Duration = Duration::from_secs(300);

/// The mounted homes.
#[derive(Debug)]
pub struct Homes {
    images: PathBuf,
    mounts: PathBuf,
    mounted: BTreeMap<Principal, Mounted>,
}

#[derive(Debug)]
struct Mounted {
    jails: u32,
    idle_since: Option<Instant>,
}

impl Homes {
    /// `images`: the folder of the images; `run`: a private folder of the jailer's for the mount points.
    pub fn new(images: &str, run: &str) -> Self {
        Self { images: images.into(), mounts: PathBuf::from(run).join("homes"), mounted: BTreeMap::new() }
    }

    /// Where the user's home is mounted, once more in use.
    pub fn take(&mut self, user: &Principal) -> Result<String, Fault> {
        let place = self.mounts.join(user.as_str());
        if !self.mounted.contains_key(user) {
            self.mount(user, &place)?;
            self.mounted.insert(user.clone(), Mounted { jails: 0, idle_since: None });
        }
        if let Some(home) = self.mounted.get_mut(user) {
            home.jails += 1;
            home.idle_since = None;
        }
        place.into_os_string().into_string().map_err(|_| Fault::new("name the home", "its path is not UTF-8"))
    }

    /// One jail less uses it.
    pub fn release(&mut self, user: &Principal) {
        if let Some(home) = self.mounted.get_mut(user) {
            home.jails = home.jails.saturating_sub(1);
            if home.jails == 0 {
                home.idle_since = Some(Instant::now());
            }
        }
    }

    /// Unmounts what has been idle long enough.
    pub fn tidy(&mut self) {
        let mounts = &self.mounts;
        self.mounted.retain(|user, home| {
            let idle = home.idle_since.is_some_and(|since| since.elapsed() >= IDLE);
            !idle || unmount(mounts.join(user.as_str()), UnmountFlags::empty()).is_err()
        });
    }

    /// Unmounts all, at the end.
    pub fn close(&mut self) {
        for user in std::mem::take(&mut self.mounted).into_keys() {
            let _ = unmount(self.mounts.join(user.as_str()), UnmountFlags::DETACH);
        }
    }

    fn mount(&self, user: &Principal, place: &PathBuf) -> Result<(), Fault> {
        let image = self.images.join(format!("{user}.ext4"));
        if !image.exists() {
            self.create(&image)?;
        }
        check(&image)?;
        let (device, name) = attach(&image)?;
        fs::create_dir_all(place).step("make the home's mount point")?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
        mount(&*name, place, "ext4", flags, None).step("mount the home")?;
        drop(device);
        Ok(())
    }

    /// A sparse copy of the template, whole or not there.
    fn create(&self, image: &PathBuf) -> Result<(), Fault> {
        let part = image.with_extension("new");
        copy_sparse(&self.images.join(TEMPLATE), &part).step("make the home's image")?;
        fs::rename(&part, image).step("name the home's image")
    }
}

/// Copies only what is written of a file; the rest stays a hole.
fn copy_sparse(from: &PathBuf, to: &PathBuf) -> std::io::Result<()> {
    use rustix::fs::{SeekFrom, seek};
    let (source, target) = (std::fs::File::open(from)?, std::fs::File::create(to)?);
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let mut at = 0;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(start) = seek(&source, SeekFrom::Data(at)) {
        let end = seek(&source, SeekFrom::Hole(start))?;
        at = start;
        while at < end {
            let want = usize::try_from((end - at).min(1 << 20)).map_err(std::io::Error::other)?;
            let Some(part) = buffer.get_mut(..want) else { break };
            source.read_exact_at(part, at)?;
            target.write_all_at(part, at)?;
            at += want as u64;
        }
    }
    target.sync_all()
}

/// Runs `e2fsck` on an image that was not unmounted; the kernel replays a journal by itself, this is for worse.
fn check(image: &PathBuf) -> Result<(), Fault> {
    // The superblock is 1024 bytes in: s_state at 0x3A, where bit 0 is "cleanly unmounted" and bit 1 "has errors".
    let mut state = [0; 2];
    let file = std::fs::File::open(image).step("open the home's image")?;
    file.read_exact_at(&mut state, 1024 + 0x3A).step("read the home's image")?;
    if u16::from_le_bytes(state) == 1 {
        return Ok(());
    }
    let status =
        Command::new("e2fsck").arg("-p").arg(image).env_clear().env("PATH", SBIN).status().step("run e2fsck")?;
    // 0: clean, 1: mended; the rest means that a person must look.
    match status.code() {
        Some(0 | 1) => Ok(()),
        _ => Err(Fault::new("mount the home", format!("e2fsck -p {} failed with {status}", image.display()))),
    }
}

pub const SBIN: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// A loop device with the image on it. The device frees itself when its mount is gone.
fn attach(image: &PathBuf) -> Result<(OwnedFd, String), Fault> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = open(image, flags, Mode::empty()).step("open the home's image")?;
    let control =
        open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step("open /dev/loop-control")?;
    // Another process may take the free device first: then ask again.
    for _ in 0..32 {
        let number = loop_device::free_number(control.as_fd()).step("find a free loop device")?;
        let name = format!("/dev/loop{number}");
        let _ = mknodat(CWD, &*name, FileType::BlockDevice, Mode::from_raw_mode(0o660), makedev(7, number));
        let device = open(&*name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step("open a loop device")?;
        match loop_device::configure(device.as_fd(), file.as_fd()) {
            Ok(()) => return Ok((device, name)),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
            Err(e) => return Err(Fault { step: "attach the home's image to a loop device", error: e }),
        }
    }
    Err(Fault::new("find a free loop device", "others took each one first"))
}
