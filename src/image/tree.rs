use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, fchmod, fchown, futimens,
    linkat, mkdirat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::place::Place;
use super::{Error, Result};

/// How a directory is walked to: never out of the root, never over a link, whoever planted it.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const COPY: usize = 128 << 10;

/// Owner, permission and time; the mode has no setuid or setgid bit left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
}

/// A root file system in the making.
///
/// Directories stay the unpacking process's own until `finish`: with a read-only or foreign directory it could only go
/// on by a right over all files (CAP_DAC_OVERRIDE), and their times would change with each entry anyway.
pub(super) struct Tree {
    root: OwnedFd,
    directories: BTreeMap<Place, Attributes>,
}

impl Tree {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root, directories: BTreeMap::from([(Place::root(), Attributes::IMPLICIT)]) }
    }

    pub(super) fn directory(&mut self, place: &Place, attributes: Attributes) -> Result<()> {
        if !place.is_root() {
            let (above, name) = place.split();
            let parent = self.make_parent(&above, place)?;
            if kind(&parent, name).map_err(Error::entry(place.bytes(), "look at it"))? != Some(FileType::Directory) {
                self.replace(&parent, place)?;
                mkdirat(&parent, name, Mode::RWXU).map_err(Error::entry(place.bytes(), "make the directory"))?;
            }
        }
        self.directories.insert(place.clone(), attributes);
        Ok(())
    }

    /// Writes a file anew: one that is there already is unlinked first, for another name may lead to it.
    pub(super) fn file(&mut self, place: &Place, attributes: Attributes, from: &mut dyn Read) -> Result<u64> {
        let (parent, name) = self.free(place)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&parent, name, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(file.map_err(Error::entry(place.bytes(), "make the file"))?);
        let count = copy(from, &mut file).map_err(Error::entry(place.bytes(), "write the file"))?;
        attributes.give(&file).map_err(Error::entry(place.bytes(), "set owner, mode and time"))?;
        Ok(count)
    }

    /// A link may say what it likes: it is never followed here, and in a jail it is resolved inside the jail.
    pub(super) fn symlink(&mut self, place: &Place, target: &[u8], attributes: Attributes) -> Result<()> {
        let (parent, name) = self.free(place)?;
        let give = || {
            symlinkat(target, &parent, name)?;
            rustix::fs::chownat(&parent, name, attributes.owner(), attributes.group(), AtFlags::SYMLINK_NOFOLLOW)?;
            utimensat(&parent, name, &attributes.times(), AtFlags::SYMLINK_NOFOLLOW)
        };
        give().map_err(Error::entry(place.bytes(), "make the symlink"))
    }

    /// A second name for a file of the same image; for a symlink it is a second name of the link, not of its target.
    pub(super) fn hardlink(&mut self, place: &Place, target: &Place) -> Result<()> {
        let refuse = |why| Err(Error::refused(place.bytes(), why));
        if place == target || target.is_root() {
            return refuse("it is a hard link to itself or to the root");
        }
        let (target_above, target_name) = target.split();
        let Some(source) = self.parent(&target_above, target)? else {
            return refuse("it is a hard link to what the image does not have");
        };
        match kind(&source, target_name).map_err(Error::entry(target.bytes(), "look at it"))? {
            Some(FileType::RegularFile | FileType::Symlink) => {}
            Some(_) => return refuse("it is a hard link to what is no file"),
            None => return refuse("it is a hard link to what the image does not have"),
        }
        let (parent, name) = self.free(place)?;
        linkat(&source, target_name, &parent, name, AtFlags::empty()).map_err(Error::entry(place.bytes(), "link it"))
    }

    /// Takes away what lower layers put at a place and below it. `kept` is what the present layer wrote itself.
    pub(super) fn wipe(&mut self, place: &Place, kept: &HashSet<Place>) -> Result<()> {
        if place.is_root() {
            return Err(Error::refused(b".wh.", "it is a whiteout of the root"));
        }
        let (above, name) = place.split();
        let Some(parent) = self.parent(&above, place)? else { return Ok(()) };
        self.remove(parent.as_fd(), place, name, kept).map(drop)
    }

    /// Empties a directory of what lower layers put there.
    pub(super) fn wipe_inside(&mut self, place: &Place, kept: &HashSet<Place>) -> Result<()> {
        match self.parent(place, place)? {
            Some(directory) => self.remove_inside(directory.as_fd(), place, kept).map(drop),
            None => Ok(()),
        }
    }

    /// Gives every directory away, the innermost first: no path leads through one already given.
    pub(super) fn finish(self) -> Result<()> {
        for (place, attributes) in self.directories.iter().rev() {
            let doing = "set the directory's owner, mode and time";
            let opened = inside(&self.root, place, OFlags::RDONLY).map_err(Error::entry(place.bytes(), doing))?;
            attributes.give(&opened).map_err(Error::entry(place.bytes(), doing))?;
        }
        Ok(())
    }

    /// The directory an entry goes into, with nothing at the entry's name.
    fn free<'p>(&mut self, place: &'p Place) -> Result<(OwnedFd, &'p [u8])> {
        if place.is_root() {
            return Err(Error::refused(b"/", "the root must be a directory"));
        }
        let parent = self.make_parent(&place.split().0, place)?;
        self.replace(&parent, place)?;
        let name = match place.bytes().iter().rposition(|&byte| byte == b'/') {
            Some(slash) => place.bytes().get(slash + 1..).unwrap_or_default(),
            None => place.bytes(),
        };
        Ok((parent, name))
    }

    fn replace(&mut self, parent: &OwnedFd, place: &Place) -> Result<()> {
        let (_, name) = place.split();
        self.remove(parent.as_fd(), place, name, &HashSet::new()).map(drop)
    }

    /// Nothing if there is no such directory; a link on the way is an error and never a way.
    fn parent(&self, above: &Place, entry: &Place) -> Result<Option<OwnedFd>> {
        match inside(&self.root, above, OFlags::RDONLY) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(unreached(entry, errno)),
        }
    }

    fn make_parent(&mut self, above: &Place, entry: &Place) -> Result<OwnedFd> {
        if let Some(directory) = self.parent(above, entry)? {
            return Ok(directory);
        }
        let (further, name) = above.split();
        let parent = self.make_parent(&further, entry)?;
        mkdirat(&parent, name, Mode::RWXU).map_err(Error::entry(above.bytes(), "make the directory"))?;
        self.directories.insert(above.clone(), Attributes::IMPLICIT);
        inside(&self.root, above, OFlags::RDONLY).map_err(|errno| unreached(entry, errno))
    }

    /// True when nothing is left at the name.
    fn remove(&mut self, parent: BorrowedFd, place: &Place, name: &[u8], kept: &HashSet<Place>) -> Result<bool> {
        let failed = || Error::entry(place.bytes(), "remove what is there");
        match kind(parent, name).map_err(failed())? {
            None => return Ok(true),
            Some(FileType::Directory) => {
                let directory = openat(parent, name, DIRECTORY, Mode::empty()).map_err(failed())?;
                let emptied = self.remove_inside(directory.as_fd(), place, kept)?;
                if !emptied || kept.contains(place) {
                    return Ok(false);
                }
                unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(failed())?;
                self.directories.remove(place);
            }
            Some(_) if kept.contains(place) => return Ok(false),
            Some(_) => unlinkat(parent, name, AtFlags::empty()).map_err(failed())?,
        }
        Ok(true)
    }

    fn remove_inside(&mut self, directory: BorrowedFd, place: &Place, kept: &HashSet<Place>) -> Result<bool> {
        let failed = || Error::entry(place.bytes(), "remove what is in it");
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        let mut emptied = true;
        for name in names {
            emptied &= self.remove(directory, &place.join(&name), &name, kept)?;
        }
        Ok(emptied)
    }
}

impl Attributes {
    /// A directory that no entry tells of.
    const IMPLICIT: Self = Self { mode: 0o755, uid: 0, gid: 0, mtime: 0 };

    /// The owner first: giving a file away is a change the kernel answers by clearing mode bits.
    fn give(&self, to: impl AsFd) -> rustix::io::Result<()> {
        fchown(&to, self.owner(), self.group())?;
        fchmod(&to, Mode::from_raw_mode(self.mode))?;
        futimens(&to, &self.times())
    }

    fn owner(&self) -> Option<Uid> {
        Some(Uid::from_raw(self.uid))
    }

    fn group(&self) -> Option<Gid> {
        Some(Gid::from_raw(self.gid))
    }

    fn times(&self) -> Timestamps {
        let time = Timespec { tv_sec: self.mtime, tv_nsec: 0 };
        Timestamps { last_access: time, last_modification: time }
    }
}

fn inside(root: &OwnedFd, place: &Place, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path: &[u8] = if place.is_root() { b"." } else { place.bytes() };
    // Not NOFOLLOW: with it a link at the end is told as "no directory", without it NO_SYMLINKS tells it as a link.
    openat2(root, path, flags | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), INSIDE)
}

fn unreached(entry: &Place, errno: Errno) -> Error {
    match errno {
        Errno::LOOP => Error::refused(entry.bytes(), "its path goes through a symbolic link"),
        Errno::NOTDIR => Error::refused(entry.bytes(), "its path goes through what is no directory"),
        Errno::XDEV => Error::refused(entry.bytes(), "its path leaves the file system"),
        _ => Error::entry(entry.bytes(), "reach its directory")(errno),
    }
}

fn kind(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<Option<FileType>> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(FileType::from_raw_mode(found.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn copy(from: &mut dyn Read, to: &mut File) -> io::Result<u64> {
    let mut buffer = vec![0; COPY];
    let mut total = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(buffer.get(..count).unwrap_or_default())?;
        total += count as u64;
    }
}
