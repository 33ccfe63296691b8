use std::cell::Cell;
use std::collections::HashSet;
use std::io::{self, Read};
use std::rc::Rc;

use tar::{Entry, EntryType};

use super::place::Place;
use super::tree::{Attributes, Tree};
use super::{Error, Record, Result};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// aufs's own notes, which old engines let into layers.
const AUFS: &[u8] = b".wh..wh.";
/// A jail's users are 0 to 65535; what lies beyond would belong to another jail.
const OWNERS: u64 = 65536;
const SET_ID: u32 = 0o6000;
const MOST_NAMES: usize = 100;

/// How much an image may unpack to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub bytes: u64,
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 8 << 30, entries: 500_000 }
    }
}

/// What may still be unpacked, shared by the reader that inflates and the writer that fills sparse files.
#[derive(Clone)]
pub(super) struct Budget {
    limits: Limits,
    bytes: Rc<Cell<u64>>,
    entries: Rc<Cell<u64>>,
}

/// Ends a stream that unpacks to more than the image may.
pub(super) struct Limited<R> {
    inner: R,
    budget: Budget,
}

impl Budget {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, bytes: Rc::new(Cell::new(0)), entries: Rc::new(Cell::new(0)) }
    }

    pub(super) fn limit<R: Read>(&self, inner: R) -> Limited<R> {
        Limited { inner, budget: self.clone() }
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries.get()
    }

    fn one_more_entry(&self) -> Result<()> {
        self.entries.set(self.entries.get() + 1);
        if self.entries.get() > self.limits.entries {
            return Err(Error::Limit { most: self.limits.entries, what: "entries" });
        }
        Ok(())
    }

    /// The limit itself if that is why a stream ended early: the reader can only say so as an I/O error.
    pub(super) fn exceeded(&self) -> Option<Error> {
        (self.bytes.get() > self.limits.bytes).then_some(Error::Limit { most: self.limits.bytes, what: "bytes" })
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.budget.bytes.set(self.budget.bytes.get().saturating_add(count as u64));
        if self.budget.bytes.get() > self.budget.limits.bytes {
            return Err(io::Error::other("the image's size limit is reached"));
        }
        Ok(count)
    }
}

/// Lays one layer over what is in the tree.
pub(super) fn lay(from: impl Read, tree: &mut Tree, budget: &Budget, record: &mut Record) -> Result<()> {
    let mut layer = Layer { tree, budget, record, written: HashSet::new() };
    let mut archive = tar::Archive::new(from);
    for entry in archive.entries().map_err(Error::entry(b"", "read the layer"))? {
        let mut entry = entry.map_err(Error::entry(b"", "read the layer"))?;
        budget.one_more_entry()?;
        layer.entry(&mut entry)?;
    }
    Ok(())
}

struct Layer<'t> {
    tree: &'t mut Tree,
    budget: &'t Budget,
    record: &'t mut Record,
    /// What this layer wrote: its own whiteouts mean the layers below, in whatever order they come.
    written: HashSet<Place>,
}

impl Layer<'_> {
    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<()> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = entry.path_bytes().into_owned();
        let place = Place::parse(&path)?;
        let (above, name) = place.split();
        if name.starts_with(WHITEOUT) {
            return self.whiteout(&path, &above, name);
        }
        match kind {
            // Before POSIX a directory was a file whose name ends in a slash.
            EntryType::Regular if path.ends_with(b"/") => self.directory(entry, &place)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.file(entry, &place)?,
            EntryType::Directory => self.directory(entry, &place)?,
            EntryType::Symlink => self.symlink(entry, &place)?,
            EntryType::Link => self.hardlink(entry, &place)?,
            _ if place.bytes().starts_with(b"dev/") => {
                self.record.devices_left_out += 1;
                return Ok(());
            }
            EntryType::Char | EntryType::Block => return Err(Error::refused(&path, "it is a device node")),
            EntryType::Fifo => return Err(Error::refused(&path, "it is a named pipe")),
            _ => return Err(Error::refused(&path, "it is of a kind no image needs")),
        }
        self.written.insert(place);
        Ok(())
    }

    fn whiteout(&mut self, path: &[u8], above: &Place, name: &[u8]) -> Result<()> {
        if name == OPAQUE {
            return self.tree.wipe_inside(above, &self.written);
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        match name.strip_prefix(WHITEOUT).unwrap_or_default() {
            // `.wh...` would take away the directory above.
            b"" | b"." | b".." => Err(Error::refused(path, "it is a whiteout of no name")),
            gone => self.tree.wipe(&above.join(gone), &self.written),
        }
    }

    fn file<R: Read>(&mut self, entry: &mut Entry<'_, R>, place: &Place) -> Result<()> {
        let attributes = self.attributes(entry, place)?;
        // Counted again on its way to the disk: a sparse file's holes never pass the layer's own reader.
        let unpacked = Budget::new(self.budget.limits);
        unpacked.bytes.set(self.record.bytes);
        let written = self.tree.file(place, attributes, &mut unpacked.limit(entry));
        if let Some(limit) = unpacked.exceeded() {
            return Err(limit);
        }
        self.record.bytes += written?;
        Ok(())
    }

    fn directory<R: Read>(&mut self, entry: &mut Entry<'_, R>, place: &Place) -> Result<()> {
        let attributes = self.attributes(entry, place)?;
        self.tree.directory(place, attributes)
    }

    fn symlink<R: Read>(&mut self, entry: &mut Entry<'_, R>, place: &Place) -> Result<()> {
        let attributes = self.attributes(entry, place)?;
        let target = link_target(entry, place)?;
        self.tree.symlink(place, &target, attributes)
    }

    /// Its owner and mode are the file's own.
    fn hardlink<R: Read>(&mut self, entry: &mut Entry<'_, R>, place: &Place) -> Result<()> {
        let target = Place::parse(&link_target(entry, place)?)?;
        self.tree.hardlink(place, &target)
    }

    fn attributes<R: Read>(&mut self, entry: &mut Entry<'_, R>, place: &Place) -> Result<Attributes> {
        self.count_extended(entry, place)?;
        let header = entry.header();
        let broken = || Error::entry(place.bytes(), "read its header");
        let owner = |id: io::Result<u64>| match id.map_err(broken())? {
            id if id < OWNERS => u32::try_from(id).map_err(|_| Error::refused(place.bytes(), "no such owner")),
            _ => Err(Error::refused(place.bytes(), "its owner or group is above 65535")),
        };
        let (uid, gid) = (owner(header.uid())?, owner(header.gid())?);
        let mode = header.mode().map_err(broken())?;
        let mtime = i64::try_from(header.mtime().map_err(broken())?).unwrap_or_default();
        let directory = header.entry_type().is_dir();
        // A symlink's mode means nothing and is 0777 by custom.
        if mode & SET_ID != 0 && !header.entry_type().is_symlink() {
            self.record.privileged += 1;
            if self.record.privileged_names.len() < MOST_NAMES {
                self.record.privileged_names.push(place.bytes().escape_ascii().to_string());
            }
        }
        let sticky = if directory { 0o1000 } else { 0 };
        Ok(Attributes { mode: mode & (0o777 | sticky), uid, gid, mtime })
    }

    /// Capabilities of files are setuid by another name; nothing of the kind is unpacked.
    fn count_extended<R: Read>(&mut self, entry: &mut Entry<'_, R>, place: &Place) -> Result<()> {
        let extensions = entry.pax_extensions().map_err(Error::entry(place.bytes(), "read its extended header"))?;
        let attributes = extensions.into_iter().flatten().flatten().filter(|extension| {
            let key = extension.key_bytes();
            key.starts_with(b"SCHILY.xattr.") || key.starts_with(b"LIBARCHIVE.xattr.")
        });
        self.record.attributes_dropped += attributes.count() as u64;
        Ok(())
    }
}

fn link_target<R: Read>(entry: &Entry<'_, R>, place: &Place) -> Result<Vec<u8>> {
    match entry.link_name_bytes() {
        Some(target) if !target.is_empty() && !target.contains(&0) => Ok(target.into_owned()),
        _ => Err(Error::refused(place.bytes(), "it is a link to no name")),
    }
}
