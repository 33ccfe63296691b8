use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::child::{RECORD, ROOT, Unpacker, read_record};
use super::layer::Limits;
use super::record::Config;
use super::{Digest, Error, Record, Result};

/// Half-made and half-removed images; one that no living process holds locked is a leftover.
const UNFINISHED: &str = ".unfinished-";
const NAMES: &str = "names";
const LOCK: &str = "lock";

/// The images below one directory.
pub struct Store {
    directory: PathBuf,
    unpacker: Unpacker,
}

/// What people call an image: `base`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

/// An image of the store as it lies there.
#[derive(Debug)]
pub struct Resolved {
    pub digest: Digest,
    pub rootfs: PathBuf,
    pub config: Config,
}

/// An image that cannot be removed for as long as this lives.
#[derive(Debug)]
pub struct Held {
    pub digest: Digest,
    /// The root file system, for `open_tree`: no path is walked again.
    pub rootfs: OwnedFd,
    pub config: Config,
    _lock: File,
}

/// One line of the list.
#[derive(Debug)]
pub struct Listed {
    pub name: Name,
    pub record: Record,
}

/// What a removal took away.
#[derive(Debug, PartialEq, Eq)]
pub enum Removed {
    /// The name alone: the image has another.
    Name,
    Image,
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let sound = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !first || text.len() > 64 || !text.bytes().all(sound) {
            return Err(Error::Name(text.chars().take(80).collect::<String>().escape_debug().to_string()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl Store {
    /// Nothing is touched before the first import.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), unpacker: Unpacker::Fenced("/proc/self/exe".into()) }
    }

    #[cfg(test)]
    pub(super) fn unfenced(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), unpacker: Unpacker::Here }
    }

    /// Unpacks an OCI layout (a directory, or a tar as `docker save` writes it) and gives it a name; a name that meant
    /// another image means this one from now on. The image is there whole or not at all.
    pub fn import(&self, source: &Path, name: &Name, limits: Limits, say: &mut dyn FnMut(&str)) -> Result<Record> {
        self.prepare()?;
        self.sweep();
        let unfinished = Unfinished::new(&self.directory)?;
        let record = self.unpacker.run(source, &unfinished.path, limits, say)?;
        let digest = record.digest()?;
        unfinished.seal(&record)?;
        unfinished.keep_as(&self.home(digest))?;
        self.write_name(name, digest)?;
        Ok(record)
    }

    /// Every name and its image, by name. Empty if nothing was ever imported.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let directory = self.directory.join(NAMES);
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::file("read", &directory)(error)),
        };
        let mut listed = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::file("read", &directory))?;
            let Ok(name) = entry.file_name().to_string_lossy().parse::<Name>() else { continue };
            let record = self.record(self.digest(&name)?)?;
            listed.push(Listed { name, record });
        }
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(listed)
    }

    /// Takes a name away, and its image with the last name; not while a jail stands on it.
    pub fn remove(&self, name: &Name) -> Result<Removed> {
        let digest = self.digest(name)?;
        let path = self.directory.join(NAMES).join(&name.0);
        let mut removed = Removed::Name;
        if self.names_of(digest)? <= 1 {
            let home = self.home(digest);
            if let Some(lock) = open_lock(&home)? {
                rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
                    rustix::io::Errno::WOULDBLOCK => Error::InUse(name.0.clone()),
                    other => Error::file("lock", &home)(other.into()),
                })?;
                // Under its own name a half-removed image could be held again.
                let gone = self.directory.join(format!("{UNFINISHED}{}", digest.hex()));
                std::fs::rename(&home, &gone).map_err(Error::file("remove", &home))?;
                std::fs::remove_file(&path).map_err(Error::file("remove", &path))?;
                std::fs::remove_dir_all(&gone).map_err(Error::file("remove", &gone))?;
                return Ok(Removed::Image);
            }
            removed = Removed::Image;
        }
        std::fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        Ok(removed)
    }

    /// Where a name's image lies and what it asks for.
    pub fn resolve(&self, name: &Name) -> Result<Resolved> {
        let digest = self.digest(name)?;
        let config = self.record(digest)?.config;
        Ok(Resolved { digest, rootfs: self.home(digest).join(ROOT), config })
    }

    /// Resolves a name and keeps its image from being removed.
    pub fn hold(&self, name: &Name) -> Result<Held> {
        let digest = self.digest(name)?;
        let home = self.home(digest);
        let unknown = || Error::Unknown(name.0.clone());
        let lock = open_lock(&home)?.ok_or_else(unknown)?;
        rustix::fs::flock(&lock, FlockOperation::LockShared).map_err(|e| Error::file("lock", &home)(e.into()))?;
        // A removal between the opening and the lock has taken the image away under us.
        let still = open_lock(&home)?.ok_or_else(unknown)?;
        let inode = |file: &File| file.metadata().map(|found| found.ino()).map_err(Error::file("look at", &home));
        if inode(&still)? != inode(&lock)? {
            return Err(unknown());
        }
        let root = home.join(ROOT);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let rootfs = rustix::fs::open(&root, flags, Mode::empty()).map_err(|e| Error::file("open", &root)(e.into()))?;
        Ok(Held { digest, rootfs, config: self.record(digest)?.config, _lock: lock })
    }

    fn home(&self, digest: Digest) -> PathBuf {
        self.directory.join(format!("sha256-{}", digest.hex()))
    }

    fn record(&self, digest: Digest) -> Result<Record> {
        read_record(&self.home(digest).join(RECORD))
    }

    fn digest(&self, name: &Name) -> Result<Digest> {
        let path = self.directory.join(NAMES).join(&name.0);
        let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Unknown(name.0.clone()),
            _ => Error::file("read", &path)(error),
        })?;
        text.trim_end().parse().map_err(|_| Error::Damaged { path })
    }

    fn names_of(&self, digest: Digest) -> Result<usize> {
        Ok(self.list()?.iter().filter(|listed| listed.record.digest().ok() == Some(digest)).count())
    }

    /// Root file systems lie below a directory that nobody else can enter: their modes are the image's business.
    fn prepare(&self) -> Result<()> {
        let failed = || Error::file("make", &self.directory);
        if let Some(above) = self.directory.parent() {
            std::fs::create_dir_all(above).map_err(failed())?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(failed())?;
        std::fs::set_permissions(&self.directory, Permissions::from_mode(0o700)).map_err(failed())?;
        DirBuilder::new().recursive(true).mode(0o700).create(self.directory.join(NAMES)).map_err(failed())
    }

    /// Leftovers are only a waste of space: what cannot be swept now will be at the next import.
    fn sweep(&self) {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            if !entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                continue;
            }
            if let Ok(directory) = File::open(entry.path())
                && rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok()
            {
                std::fs::remove_dir_all(entry.path()).ok();
            }
        }
    }

    fn write_name(&self, name: &Name, digest: Digest) -> Result<()> {
        let names = self.directory.join(NAMES);
        let path = names.join(&name.0);
        // No name begins with a dot, so this is none.
        let fresh = names.join(format!(".{name}"));
        std::fs::write(&fresh, format!("{digest}\n")).map_err(Error::file("write", &fresh))?;
        sync(&fresh)?;
        std::fs::rename(&fresh, &path).map_err(Error::file("write", &path))?;
        sync(&names)
    }
}

/// A directory that is gone again unless it is kept.
struct Unfinished {
    path: PathBuf,
    lock: File,
}

impl Unfinished {
    fn new(directory: &Path) -> Result<Self> {
        let path = directory.join(format!("{UNFINISHED}{}", uuid::Uuid::now_v7()));
        DirBuilder::new().mode(0o700).create(&path).map_err(Error::file("make", &path))?;
        let lock = File::open(&path).map_err(Error::file("open", &path))?;
        let unfinished = Self { path, lock };
        rustix::fs::flock(&unfinished.lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| Error::file("lock", &unfinished.path)(errno.into()))?;
        Ok(unfinished)
    }

    /// Puts the record in again as this process's own file, and the lock beside it.
    fn seal(&self, record: &Record) -> Result<()> {
        let path = self.path.join(RECORD);
        let text = serde_json::to_vec(record).map_err(|error| Error::file("write", &path)(error.into()))?;
        std::fs::remove_file(&path).and_then(|()| std::fs::write(&path, text)).map_err(Error::file("write", &path))?;
        let path = self.path.join(LOCK);
        File::create(&path).map(drop).map_err(Error::file("make", &path))
    }

    /// Every byte is on stable storage before the name is: a crash leaves the whole image or a leftover.
    fn keep_as(&self, home: &Path) -> Result<()> {
        rustix::fs::syncfs(&self.lock).map_err(|errno| Error::file("sync", &self.path)(errno.into()))?;
        match std::fs::rename(&self.path, home) {
            // The same image was there already; it is as good, and jails may stand on it.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                return Ok(());
            }
            renamed => renamed.map_err(Error::file("name", home))?,
        }
        home.parent().map_or(Ok(()), sync)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Kept, it is no longer here; and what cannot be removed is swept at the next import.
        std::fs::remove_dir_all(&self.path).ok();
    }
}

fn open_lock(home: &Path) -> Result<Option<File>> {
    match File::open(home.join(LOCK)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("open", home)(error)),
    }
}

fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::file("sync", path))
}
