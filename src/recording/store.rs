use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::frame::{self, Closing, TRAILER};
use super::{Header, ReadError, Reader, Totals};
use crate::session::SessionId;

/// The directory of the recordings, held by its descriptor: `<yyyy>/<mm>/<dd>/<session id>.stk`.
#[derive(Debug)]
pub struct Store {
    directory: OwnedFd,
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open the recordings in '{path}'; `--directory` names another place")]
    Open {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot create '{name}'")]
    Create {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("there is no recording '{id}'; `stockade session list` shows them")]
    Unknown { id: String },
    #[error("{count} recordings begin with '{id}'; give more of it")]
    Ambiguous { id: String, count: usize },
    #[error("cannot read '{name}'")]
    Read {
        name: String,
        #[source]
        source: io::Error,
    },
}

/// How a recording ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    /// A crash left it open; a later run of the keeper closed it.
    Recovered,
    /// No closing frame: the session still runs, or nobody has recovered it yet.
    Unclosed,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Recovered => "recovered",
            Self::Unclosed => "unclosed",
        }
    }
}

/// What a listing says of a recording. Only the first and the last frame of a closed one are read: this proves nothing
/// about the frames between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub session: SessionId,
    pub started: Timestamp,
    pub header: Header,
    pub state: State,
    pub reason: Option<String>,
    pub length: Duration,
    pub totals: Totals,
    pub exit: Option<u32>,
    /// Of the file.
    pub size: u64,
}

impl Store {
    /// Opens the directory by name; only before lock-down.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|e| StoreError::Open { path: path.display().to_string(), source: e.into() })?;
        Ok(Self { directory })
    }

    pub fn new(directory: OwnedFd) -> Self {
        Self { directory }
    }

    /// A new, empty file, open for reading and appending. The file's first sync makes its name durable as well on the
    /// journalling file systems (ext4, xfs, btrfs); the day's directories are synced here when they are new.
    pub fn create(&self, session: SessionId) -> Result<File, StoreError> {
        let (days, name) = place(session);
        let failed = |e: Errno| StoreError::Create { name: format!("{}/{name}", days.join("/")), source: e.into() };
        let mut directory = self.beneath(".", DIRECTORY).map_err(failed)?;
        for day in &days {
            directory = match beneath(&directory, day, DIRECTORY) {
                Err(Errno::NOENT) => make_directory(&directory, day),
                other => other,
            }
            .map_err(failed)?;
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        let file = rustix::fs::openat2(&directory, name.as_str(), flags, Mode::from_raw_mode(0o640), resolve);
        Ok(file.map_err(failed)?.into())
    }

    /// An existing recording, to be read.
    pub fn read(&self, session: SessionId) -> Result<File, StoreError> {
        self.existing(session, OFlags::RDONLY)
    }

    /// An existing recording, to be recovered.
    pub fn reopen(&self, session: SessionId) -> Result<File, StoreError> {
        self.existing(session, OFlags::RDWR | OFlags::APPEND)
    }

    fn existing(&self, session: SessionId, flags: OFlags) -> Result<File, StoreError> {
        let (days, name) = place(session);
        let name = format!("{}/{name}", days.join("/"));
        match self.beneath(&name, flags | OFlags::CLOEXEC | OFlags::NONBLOCK) {
            Ok(file) => Ok(file.into()),
            Err(Errno::NOENT) => Err(StoreError::Unknown { id: session.to_string() }),
            Err(e) => Err(StoreError::Read { name, source: e.into() }),
        }
    }

    fn beneath(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        beneath(&self.directory, name, flags)
    }

    /// The ids of all recordings, oldest first.
    pub fn sessions(&self) -> Result<Vec<SessionId>, StoreError> {
        let mut found = Vec::new();
        self.walk(".", DAYS.len(), &mut found)?;
        found.sort_unstable();
        Ok(found)
    }

    /// Collects the recordings below `name`, which is `depth` directories above the files.
    fn walk(&self, name: &str, depth: usize, found: &mut Vec<SessionId>) -> Result<(), StoreError> {
        let failed = |e: Errno| StoreError::Read { name: name.to_owned(), source: e.into() };
        let directory = match self.beneath(name, DIRECTORY) {
            // A symbolic link or a file where a day should be is none of ours.
            Err(Errno::LOOP | Errno::NOTDIR) => return Ok(()),
            other => other.map_err(failed)?,
        };
        for entry in Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(child) = entry.file_name().to_str() else { continue };
            if depth == 0 {
                let id = child.strip_suffix(".stk").and_then(|id| id.parse::<SessionId>().ok());
                // A recording in another day's directory would not be found again by its id.
                found.extend(id.filter(|id| format!("./{}", place(*id).0.join("/")) == name));
            } else if child.bytes().all(|b| b.is_ascii_digit()) {
                self.walk(&format!("{name}/{child}"), depth - 1, found)?;
            }
        }
        Ok(())
    }

    /// The recording whose id begins with `text`, if only one does.
    pub fn find(&self, text: &str) -> Result<SessionId, StoreError> {
        let id = text.to_ascii_lowercase();
        let fits = self.sessions()?.into_iter().filter(|session| session.to_string().starts_with(&id));
        let mut fits: Vec<_> = fits.collect();
        match (fits.len(), fits.pop()) {
            (1, Some(session)) => Ok(session),
            (0, _) => Err(StoreError::Unknown { id: text.to_owned() }),
            (count, _) => Err(StoreError::Ambiguous { id: text.to_owned(), count }),
        }
    }

    /// What a listing says of one recording.
    pub fn entry(&self, session: SessionId) -> Result<Entry, EntryError> {
        let file = self.read(session).map_err(EntryError::Store)?;
        let entry = Entry::read(&file).map_err(EntryError::Read)?;
        if entry.session != session {
            return Err(EntryError::Misplaced(entry.session));
        }
        Ok(entry)
    }

    /// The recordings without a closing frame: at the keeper's start, those that a crash left. One that cannot be read,
    /// or of which not even the opening frame is whole, is among them and keeps nobody from the others.
    pub fn unclosed(&self) -> Result<Vec<SessionId>, StoreError> {
        let closed = |session: &SessionId| {
            let last = self.read(*session).ok().and_then(|file| last_frame(&file).ok()).flatten();
            last.is_some_and(|frame| frame.header.closing.is_some())
        };
        Ok(self.sessions()?.into_iter().filter(|session| !closed(session)).collect())
    }

    /// Takes away the name of a recording that has no whole opening frame; `false` when it has one.
    pub fn discard_unopened(&self, session: SessionId) -> Result<bool, StoreError> {
        if !matches!(Reader::open(BufReader::new(self.read(session)?)), Err(ReadError::Unopened)) {
            return Ok(false);
        }
        let (days, name) = place(session);
        let failed = |e: Errno| StoreError::Read { name: session.to_string(), source: e.into() };
        let directory = self.beneath(&days.join("/"), DIRECTORY).map_err(failed)?;
        rustix::fs::unlinkat(&directory, name.as_str(), AtFlags::empty()).map_err(failed)?;
        Ok(true)
    }
}

/// Why a recording cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Read(ReadError),
    #[error("the file holds the recording of session {0}")]
    Misplaced(SessionId),
}

impl Entry {
    fn read(file: &File) -> Result<Self, ReadError> {
        let size = file.metadata().map_err(ReadError::Io)?.len();
        let mut start = file;
        start.rewind().map_err(ReadError::Io)?;
        let mut reader = Reader::open(BufReader::new(file))?;
        let (session, started, header) = (reader.session(), reader.started(), reader.header().clone());
        let last = last_frame(file).map_err(ReadError::Io)?.filter(|frame| frame.header.recording == session);
        let (closing, length) = match last.map(|frame| (frame.header.closing, frame.header.end)) {
            Some((Some(closing), end)) => (closing, Duration::from_micros(end)),
            // Nothing sums up an unclosed recording: read it all. A torn tail is no surprise, it may be growing.
            _ => {
                start.rewind().map_err(ReadError::Io)?;
                reader = Reader::open(BufReader::new(file))?;
                match reader.by_ref().find_map(Result::err) {
                    None | Some(ReadError::Torn { .. }) => {}
                    Some(e) => return Err(e),
                }
                let totals = reader.totals().clone();
                let (state, reason, exit) = (State::Unclosed, None, None);
                let length = reader.length();
                return Ok(Self { session, started, header, state, reason, length, totals, exit, size });
            }
        };
        let state = if closing.recovered() { State::Recovered } else { State::Closed };
        let Closing { reason, totals, exit, .. } = closing;
        Ok(Self { session, started, header, state, reason: Some(reason), length, totals, exit, size })
    }
}

/// The frame that ends where the file ends, if there is one.
fn last_frame(mut file: &File) -> io::Result<Option<frame::Frame>> {
    let size = file.seek(SeekFrom::End(0))?;
    let Some(at) = size.checked_sub(TRAILER as u64) else { return Ok(None) };
    file.seek(SeekFrom::Start(at))?;
    let mut length = [0; 4];
    file.read_exact(&mut length)?;
    let Some(begin) = size.checked_sub(u64::from(u32::from_le_bytes(length))) else { return Ok(None) };
    file.seek(SeekFrom::Start(begin))?;
    match frame::next(&mut BufReader::new(file)) {
        Ok(frame) => Ok(frame.filter(|frame| begin.saturating_add(frame.size) == size)),
        Err(frame::Fault::Io(e)) => Err(e),
        Err(_) => Ok(None),
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The directories of a day.
const DAYS: [&str; 3] = ["%Y", "%m", "%d"];

/// The directories and the name of a recording: the day (UTC) at which its id was minted, so the id alone finds it.
fn place(session: SessionId) -> ([String; 3], String) {
    let [a, b, c, d, e, f, ..] = *session.as_bytes();
    let minted = i64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    let minted = Timestamp::from_millisecond(minted).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC);
    (DAYS.map(|part| minted.strftime(part).to_string()), format!("{session}.stk"))
}

fn beneath(directory: &OwnedFd, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve)
}

/// Another session may be making the same day at the same moment.
fn make_directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o750)) {
        Ok(()) => rustix::fs::fsync(parent)?,
        Err(Errno::EXIST) => {}
        Err(e) => return Err(e),
    }
    beneath(parent, name, DIRECTORY)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::{boot, header, id, output, wall};
    use super::super::{Durability, Writer};
    use super::*;

    fn record(store: &Store, session: SessionId, closed: bool) -> File {
        let mut file = store.create(session).unwrap();
        let (mut writer, bytes) = Writer::begin(session, wall(0), boot(0), &header(), Durability::Local);
        file.write_all(&bytes).unwrap();
        writer.push(boot(1500), &output("hello"));
        file.write_all(&writer.close_frame(wall(1500), boot(1500)).unwrap()).unwrap();
        if closed {
            file.write_all(&writer.finish(wall(2000), boot(2000), "exit")).unwrap();
        }
        file
    }

    fn other() -> SessionId {
        "01932c07-a6b1-7c3e-9d2f-ffffffffffff".parse().unwrap()
    }

    #[test]
    fn recordings_lie_by_the_day_of_their_id_and_are_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        record(&store, id(), true);
        record(&store, other(), false);
        let path = directory.path().join(format!("2024/11/14/{}.stk", id()));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7137, 0);
        assert_eq!(store.sessions().unwrap(), [id(), other()]);
        assert_eq!(store.unclosed().unwrap(), [other()]);
        assert!(matches!(store.create(id()), Err(StoreError::Create { .. })));

        let entry = store.entry(id()).unwrap();
        assert_eq!((entry.state, entry.length, entry.started), (State::Closed, Duration::from_secs(2), wall(0)));
        assert_eq!(entry.totals.output, 5);
        let entry = store.entry(other()).unwrap();
        assert_eq!((entry.state, entry.length), (State::Unclosed, Duration::from_millis(1500)));

        let file = store.reopen(other()).unwrap();
        super::super::recover(&file, wall(9000), boot(1)).unwrap().unwrap();
        assert_eq!(store.entry(other()).unwrap().state, State::Recovered);
        assert!(store.unclosed().unwrap().is_empty());
    }

    #[test]
    fn a_prefix_must_be_unique() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        record(&store, id(), true);
        record(&store, other(), true);
        assert_eq!(store.find("01932c07-a6b1-7c3e-9d2f-F").unwrap(), other());
        assert!(matches!(store.find("01932c"), Err(StoreError::Ambiguous { count: 2, .. })));
        assert!(matches!(store.find("77"), Err(StoreError::Unknown { .. })));
        assert!(matches!(store.read(SessionId::mint()), Err(StoreError::Unknown { .. })));
    }

    #[test]
    fn links_and_strangers_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), directory.path().join("2024")).unwrap();
        assert!(matches!(store.create(id()), Err(StoreError::Create { .. })));
        assert!(store.sessions().unwrap().is_empty());
        assert_eq!(elsewhere.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_never_opened_is_discarded_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        record(&store, id(), false);
        store.create(other()).unwrap().write_all(b"STK").unwrap();
        assert_eq!(store.unclosed().unwrap(), [id(), other()]);
        assert!(matches!(store.entry(other()), Err(EntryError::Read(ReadError::Unopened))));
        assert!(!store.discard_unopened(id()).unwrap());
        assert!(store.discard_unopened(other()).unwrap());
        assert_eq!(store.sessions().unwrap(), [id()]);
    }

    #[test]
    fn a_file_under_another_id_is_said_so() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        record(&store, id(), true);
        let day = directory.path().join("2024/11/14");
        std::fs::copy(day.join(format!("{}.stk", id())), day.join(format!("{}.stk", other()))).unwrap();
        assert!(matches!(store.entry(other()), Err(EntryError::Misplaced(found)) if found == id()));
    }
}
