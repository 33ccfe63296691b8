use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use rustix::fs::OFlags;

use super::digest::Hashed;
use super::{Digest, Error, Result};

/// One image has a manifest, a configuration and at most 127 layers; each blob is an open file here.
const MOST_BLOBS: usize = 512;
/// No honest index, manifest or configuration comes near.
const MOST_DOCUMENT: u64 = 4 << 20;
const MOST_INDEXES: usize = 16;

/// An OCI layout, a directory or a tar, with every file of it open: whoever holds this needs no path any more.
pub(super) struct Layout {
    index: Piece,
    blobs: HashMap<String, Piece>,
}

/// A file, or the part of an archive that is one.
#[derive(Clone)]
struct Piece {
    file: Rc<File>,
    start: u64,
    length: u64,
}

struct PieceReader {
    piece: Piece,
    at: u64,
}

/// What an image consists of.
pub(super) struct Image {
    pub(super) digest: Digest,
    pub(super) configuration: ImageConfiguration,
    pub(super) layers: Vec<LayerBlob>,
}

/// A layer as it lies there, and the digest of what it unpacks to.
pub(super) struct LayerBlob {
    pub(super) blob: Digest,
    pub(super) plain: Digest,
    pub(super) size: u64,
}

impl Layout {
    /// Opens every file of the layout, and reads none of a directory's and only the headers of an archive's.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(Error::file("open", path))?;
        if metadata.is_dir() { Self::directory(path) } else { Self::archive(path) }
    }

    fn directory(path: &Path) -> Result<Self> {
        let missing = |missing| Error::NotALayout { path: path.into(), missing };
        let index = Piece::open(&path.join("index.json"))?.ok_or_else(|| missing("index.json"))?;
        let folder = path.join("blobs/sha256");
        let mut blobs = HashMap::new();
        for entry in std::fs::read_dir(&folder).map_err(|_| missing("blobs/sha256"))? {
            let entry = entry.map_err(Error::file("read", &folder))?;
            let Some(piece) = Piece::open(&entry.path())? else { continue };
            if blobs.len() == MOST_BLOBS {
                return Err(Error::ManyBlobs { path: path.into(), most: MOST_BLOBS });
            }
            blobs.insert(entry.file_name().to_string_lossy().into_owned(), piece);
        }
        Ok(Self { index, blobs })
    }

    fn archive(path: &Path) -> Result<Self> {
        let broken = || Error::file("read as a tar archive", path);
        let whole = Piece::open(path)?.ok_or_else(|| broken()(io::ErrorKind::InvalidInput.into()))?;
        let mut index = None;
        let mut blobs = HashMap::new();
        let mut archive = tar::Archive::new(&*whole.file);
        for entry in archive.entries_with_seek().map_err(broken())? {
            let entry = entry.map_err(broken())?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let piece = Piece { file: whole.file.clone(), start: entry.raw_file_position(), length: entry.size() };
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = name.strip_prefix("./").unwrap_or(&name);
            if name == "index.json" {
                index = Some(piece);
            } else if let Some(digest) = name.strip_prefix("blobs/sha256/") {
                if blobs.len() == MOST_BLOBS {
                    return Err(Error::ManyBlobs { path: path.into(), most: MOST_BLOBS });
                }
                blobs.insert(digest.to_owned(), piece);
            }
        }
        let index = index.ok_or(Error::NotALayout { path: path.into(), missing: "index.json" })?;
        Ok(Self { index, blobs })
    }

    /// Finds the one image of this machine's kind.
    pub(super) fn image(&self) -> Result<Image> {
        let text = self.index.text("index.json")?;
        let index = ImageIndex::from_reader(&*text).map_err(document("index.json"))?;
        let mut found: Vec<Digest> = Vec::new();
        self.manifests(&index, &mut found, &mut 0)?;
        found.sort_unstable();
        found.dedup();
        match found.as_slice() {
            [digest] => self.manifest(*digest),
            _ => Err(Error::Choice { found: found.len(), architecture: architecture() }),
        }
    }

    /// Indexes may hold indexes: `docker save` wraps a platform list that way.
    fn manifests(&self, index: &ImageIndex, found: &mut Vec<Digest>, indexes: &mut usize) -> Result<()> {
        *indexes += 1;
        if *indexes > MOST_INDEXES {
            return Err(Error::DocumentTooLarge { what: "the tree of indexes", most: MOST_DOCUMENT });
        }
        for descriptor in index.manifests() {
            if !fits(descriptor) {
                continue;
            }
            let digest = Digest::of(descriptor.digest())?;
            match descriptor.media_type() {
                MediaType::ImageIndex => self.inner(digest, found, indexes)?,
                MediaType::Other(other) if other.ends_with("manifest.list.v2+json") => {
                    self.inner(digest, found, indexes)?
                }
                // Other platforms' manifests are named by an index and left out of the export.
                _ if descriptor.platform().is_some() && !self.blobs.contains_key(&digest.hex()) => {}
                _ => found.push(digest),
            }
        }
        Ok(())
    }

    fn inner(&self, digest: Digest, found: &mut Vec<Digest>, indexes: &mut usize) -> Result<()> {
        let text = self.document(digest, "an inner index")?;
        let index = ImageIndex::from_reader(&*text).map_err(document("an inner index"))?;
        self.manifests(&index, found, indexes)
    }

    fn manifest(&self, digest: Digest) -> Result<Image> {
        let text = self.document(digest, "the manifest")?;
        let manifest = ImageManifest::from_reader(&*text).map_err(document("the manifest"))?;
        let text = self.document(Digest::of(manifest.config().digest())?, "the configuration")?;
        let configuration = ImageConfiguration::from_reader(&*text).map_err(document("the configuration"))?;
        let plain = configuration.rootfs().diff_ids();
        if plain.len() != manifest.layers().len() {
            return Err(Error::Config(format!("{} diff_ids for {} layers", plain.len(), manifest.layers().len())));
        }
        let layers = manifest.layers().iter().zip(plain).map(|(descriptor, plain)| {
            let blob = Digest::of(descriptor.digest())?;
            Ok(LayerBlob { blob, plain: plain.parse()?, size: self.blob(blob)?.length })
        });
        let layers = layers.collect::<Result<_>>()?;
        Ok(Image { digest, configuration, layers })
    }

    /// A blob's bytes, not verified yet.
    pub(super) fn reader(&self, digest: Digest) -> Result<impl Read + use<>> {
        Ok(self.blob(digest)?.reader())
    }

    fn blob(&self, digest: Digest) -> Result<&Piece> {
        self.blobs.get(&digest.hex()).ok_or(Error::MissingBlob(digest))
    }

    /// A JSON blob, verified before a byte of it is parsed.
    fn document(&self, digest: Digest, what: &'static str) -> Result<Vec<u8>> {
        let text = self.blob(digest)?.text(what)?;
        Hashed::new(&*text).verify(digest)?;
        Ok(text)
    }
}

impl Piece {
    /// Nothing if it is not a plain file; a link is not followed, so a layout cannot lend out the host's files.
    fn open(path: &Path) -> Result<Option<Self>> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
        let file = match options.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("open", path)(error)),
        };
        let metadata = file.metadata().map_err(Error::file("open", path))?;
        Ok(metadata.is_file().then(|| Self { file: Rc::new(file), start: 0, length: metadata.len() }))
    }

    fn reader(&self) -> PieceReader {
        PieceReader { piece: self.clone(), at: 0 }
    }

    fn text(&self, what: &'static str) -> Result<Vec<u8>> {
        if self.length > MOST_DOCUMENT {
            return Err(Error::DocumentTooLarge { what, most: MOST_DOCUMENT });
        }
        let mut text = Vec::new();
        self.reader().take(MOST_DOCUMENT).read_to_end(&mut text).map_err(Error::file("read", what))?;
        Ok(text)
    }
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.piece.length.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let Some(buffer) = buffer.get_mut(..wanted) else { return Ok(0) };
        let count = self.piece.file.read_at(buffer, self.piece.start.saturating_add(self.at))?;
        self.at += count as u64;
        Ok(count)
    }
}

fn fits(descriptor: &Descriptor) -> bool {
    let Some(platform) = descriptor.platform() else { return true };
    platform.os().to_string() == "linux" && platform.architecture().to_string() == architecture()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn document(what: &'static str) -> impl FnOnce(oci_spec::OciSpecError) -> Error {
    move |source| Error::Document { what, source }
}
