//! A user's file of keys, opened beneath the descriptor of the keys' folder.
//!
//! The one thing in the law that reads beside `load`: the warden and `stockade check` must refuse the same files.

use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2};
use rustix::io::Errno;

use crate::identity::Principal;

/// More than a thousand keys.
const LIMIT: u64 = 256 << 10;
const ROOT: u32 = 0;

/// Why a file of keys is not read. A file that is not there is no error of the host: the user has no keys in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("there is no file of keys for '{0}'")]
    Missing(Principal),
    #[error("the file of keys of '{0}' is a symbolic link, or leads out of its folder; put a plain file there")]
    Leads(Principal),
    #[error("the file of keys of '{0}' is not a plain file")]
    NotPlain(Principal),
    #[error("{what} is owned by uid {uid}; it must be root's: chown root")]
    NotRoots { what: String, uid: u32 },
    #[error("{what} can be written by others (mode {mode:04o}); chmod go-w")]
    WritableByOthers { what: String, mode: u32 },
    #[error("the file of keys of '{user}' has {size} bytes; at most 262144 are read")]
    TooLarge { user: Principal, size: u64 },
    #[error("cannot look at {what}")]
    Look { what: String, source: io::Error },
    #[error("cannot open the file of keys of '{user}'")]
    Open { user: Principal, source: io::Error },
    #[error("cannot read the file of keys of '{user}'")]
    Read { user: Principal, source: io::Error },
}

impl KeyFileError {
    /// The user has no file: not a mistake of anybody's.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing(_))
    }
}

/// Reads the file of a user's keys; `folder` is the descriptor of `users.authorized_keys`.
pub fn read(folder: BorrowedFd<'_>, user: &Principal) -> Result<Vec<u8>, KeyFileError> {
    read_of(folder, user, ROOT)
}

fn read_of(folder: BorrowedFd<'_>, user: &Principal, owner: u32) -> Result<Vec<u8>, KeyFileError> {
    // Whoever writes the folder could link any of root's files into it under a user's name.
    trusted(&look(folder, "the folder of keys")?, owner, "the folder of keys")?;
    let file = open(folder, user)?;
    let what = format!("the file of keys of '{user}'");
    let stat = look(&file, &what)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(KeyFileError::NotPlain(user.clone()));
    }
    trusted(&stat, owner, &what)?;
    let mut bytes = Vec::new();
    let reading = std::fs::File::from(file).take(LIMIT + 1).read_to_end(&mut bytes);
    reading.map_err(|source| KeyFileError::Read { user: user.clone(), source })?;
    let read = bytes.len() as u64;
    if read > LIMIT {
        let size = u64::try_from(stat.st_size).unwrap_or(read).max(read);
        return Err(KeyFileError::TooLarge { user: user.clone(), size });
    }
    Ok(bytes)
}

fn open(folder: BorrowedFd<'_>, user: &Principal) -> Result<OwnedFd, KeyFileError> {
    // NONBLOCK: the open of a FIFO would wait for its writer, and the warden with it.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(folder, user.as_str(), flags, Mode::empty(), resolve).map_err(|errno| match errno {
        Errno::NOENT => KeyFileError::Missing(user.clone()),
        Errno::LOOP | Errno::XDEV => KeyFileError::Leads(user.clone()),
        // A unix socket cannot be opened at all.
        Errno::NXIO => KeyFileError::NotPlain(user.clone()),
        errno => KeyFileError::Open { user: user.clone(), source: errno.into() },
    })
}

fn look(fd: impl std::os::fd::AsFd, what: &str) -> Result<Stat, KeyFileError> {
    fstat(fd).map_err(|errno| KeyFileError::Look { what: what.to_owned(), source: errno.into() })
}

fn trusted(stat: &Stat, owner: u32, what: &str) -> Result<(), KeyFileError> {
    if stat.st_uid != owner {
        return Err(KeyFileError::NotRoots { what: what.to_owned(), uid: stat.st_uid });
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(KeyFileError::WritableByOthers { what: what.to_owned(), mode: stat.st_mode & 0o7777 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn me() -> u32 {
        rustix::process::getuid().as_raw()
    }

    fn alice() -> Principal {
        "alice".parse().unwrap()
    }

    fn said(folder: &tempfile::TempDir) -> String {
        let fd = fs_err::File::open(folder.path()).unwrap().into_file();
        read_of(fd.as_fd(), &alice(), me()).unwrap_err().to_string()
    }

    #[test]
    fn a_plain_file_of_the_owner_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alice");
        fs_err::write(&path, "keys").unwrap();
        fs_err::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let fd = fs_err::File::open(folder.path()).unwrap().into_file();
        assert_eq!(read_of(fd.as_fd(), &alice(), me()).unwrap(), b"keys");
        let error = read_of(fd.as_fd(), &alice(), me() + 1).unwrap_err().to_string();
        assert_eq!(error, format!("the folder of keys is owned by uid {}; it must be root's: chown root", me()));
    }

    #[test]
    fn whatever_somebody_else_could_have_put_there_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alice");
        assert_eq!(said(&folder), "there is no file of keys for 'alice'");
        symlink("/etc/passwd", &path).unwrap();
        assert!(said(&folder).starts_with("the file of keys of 'alice' is a symbolic link"), "{}", said(&folder));
        fs_err::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(said(&folder), "the file of keys of 'alice' is not a plain file");
        fs_err::remove_file(&path).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(said(&folder), "the file of keys of 'alice' is not a plain file");
        fs_err::remove_file(&path).unwrap();
        fs_err::create_dir(&path).unwrap();
        assert_eq!(said(&folder), "the file of keys of 'alice' is not a plain file");
        fs_err::remove_dir(&path).unwrap();
        fs_err::write(&path, vec![b'#'; 262_145]).unwrap();
        fs_err::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(said(&folder), "the file of keys of 'alice' has 262145 bytes; at most 262144 are read");
        fs_err::set_permissions(&path, Permissions::from_mode(0o620)).unwrap();
        assert_eq!(said(&folder), "the file of keys of 'alice' can be written by others (mode 0620); chmod go-w");
        fs_err::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        assert_eq!(said(&folder), "the folder of keys can be written by others (mode 0777); chmod go-w");
    }
}
