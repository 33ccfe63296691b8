//! The place an attacker's image is made in and imported.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use crate::image::{Error, Limits, Name, Record, Result, Store};

/// A store, an image in the making, and a victim: a directory beside both.
pub(super) struct Yard {
    place: tempfile::TempDir,
    pub(super) limits: Limits,
}

/// One layer in the making; names go into the header as they are, which no honest tar writer would do.
pub(super) struct Layer(Vec<u8>);

pub(super) enum Packed {
    Tar,
    Gzip,
    Zstd,
}

impl Layer {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn raw(mut self, name: &[u8], kind: EntryType, mode: u32, link: &[u8], content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name);
        old.linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn long(self, name: &[u8]) -> Self {
        self.raw(b"././@LongLink", EntryType::GNULongName, 0o644, b"", &[name, b"\0"].concat())
    }

    pub(super) fn file(self, name: &str, content: &[u8]) -> Self {
        self.raw(name.as_bytes(), EntryType::Regular, 0o644, b"", content)
    }

    pub(super) fn directory(self, name: &str) -> Self {
        self.raw(name.as_bytes(), EntryType::Directory, 0o755, b"", b"")
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(name.as_bytes(), EntryType::Symlink, 0o777, target.as_bytes(), b"")
    }

    pub(super) fn hardlink(self, name: &str, target: &str) -> Self {
        self.raw(name.as_bytes(), EntryType::Link, 0o644, target.as_bytes(), b"")
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn base() -> Name {
    "base".parse().unwrap()
}

impl Yard {
    pub(super) fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("victim")).unwrap();
        fs::write(place.path().join("victim/file"), "untouched").unwrap();
        Self { place, limits: Limits { bytes: 1 << 20, entries: 1000 } }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub(super) fn store(&self) -> Store {
        Store::unfenced(self.path("state/images"))
    }

    pub(super) fn blob(&self, content: &[u8]) -> String {
        let digest = sha256(content);
        fs::create_dir_all(self.path("layout/blobs/sha256")).unwrap();
        fs::write(self.path("layout/blobs/sha256").join(&digest), content).unwrap();
        digest
    }

    /// Writes the layout of these layers; returns the layers' blob digests.
    pub(super) fn layout(&self, layers: &[Vec<u8>], packed: Packed) -> Vec<String> {
        fs::remove_dir_all(self.path("layout")).ok();
        let (mut plain, mut blobs) = (Vec::new(), Vec::new());
        for layer in layers {
            plain.push(format!("sha256:{}", sha256(layer)));
            let bytes = match packed {
                Packed::Tar => layer.clone(),
                Packed::Zstd => zstd::encode_all(&layer[..], 1).unwrap(),
                Packed::Gzip => {
                    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                    gzip.write_all(layer).unwrap();
                    gzip.finish().unwrap()
                }
            };
            blobs.push((self.blob(&bytes), bytes.len()));
        }
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
            "config": { "Env": ["PATH=/bin"], "Cmd": ["/bin/sh"], "WorkingDir": "/", "User": "0" },
            "rootfs": { "type": "layers", "diff_ids": plain },
        })
        .to_string();
        let descriptor = |kind: &str, digest: &str, size| {
            serde_json::json!({ "mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": format!("sha256:{digest}"), "size": size })
        };
        let config_digest = self.blob(config.as_bytes());
        let layers: Vec<_> = blobs.iter().map(|(digest, size)| descriptor("layer.v1.tar", digest, *size)).collect();
        let manifest = serde_json::json!({ "schemaVersion": 2, "layers": layers,
            "config": descriptor("config.v1+json", &config_digest, config.len()) })
        .to_string();
        let manifest_digest = self.blob(manifest.as_bytes());
        let index = serde_json::json!({ "schemaVersion": 2,
            "manifests": [descriptor("manifest.v1+json", &manifest_digest, manifest.len())] });
        fs::write(self.path("layout/index.json"), index.to_string()).unwrap();
        blobs.into_iter().map(|(digest, _)| digest).collect()
    }

    pub(super) fn bring(&self) -> Result<Record> {
        self.store().import(&self.path("layout"), &base(), self.limits, &mut |_| {})
    }

    pub(super) fn import(&self, layers: &[Vec<u8>]) -> Result<Record> {
        self.layout(layers, Packed::Tar);
        let done = self.bring();
        self.is_whole(done.is_ok());
        done
    }

    pub(super) fn refuses(&self, layers: &[Vec<u8>]) -> String {
        told(&self.import(layers).expect_err("a hostile image was taken"))
    }

    /// The victim is untouched, nothing grew beside the store, and a failure left nothing in it.
    pub(super) fn is_whole(&self, imported: bool) {
        let mut around: Vec<_> = fs::read_dir(self.place.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        around.sort();
        assert!(around == ["layout", "state", "victim"] || around == ["archive", "layout", "state", "victim"]);
        let victims: Vec<_> = fs::read_dir(self.path("victim")).unwrap().collect();
        assert_eq!(victims.len(), 1, "something was written beside the image");
        assert_eq!(fs::read(self.path("victim/file")).unwrap(), b"untouched");
        assert_eq!(fs::metadata(self.path("victim/file")).unwrap().nlink(), 1, "a link leads out");
        for entry in fs::read_dir(self.path("state/images")).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(imported || name == "names", "a failed import left {name:?}");
        }
    }

    pub(super) fn root(&self) -> PathBuf {
        self.store().resolve(&base()).unwrap().rootfs
    }
}

pub(super) fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

pub(super) fn names(directory: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().as_bytes().to_vec()).collect();
    names.sort();
    names
}
