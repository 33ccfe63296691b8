//! What the set-up runs, carried in the binary: how the jail's image is built, and the AWS emulator.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fs_err as fs;
use sha2::{Digest, Sha256};

macro_rules! carried {
    ($($place:literal from $source:literal),* $(,)?) => {
        &[$(($place, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $source)))),*]
    };
}

const CARRIED: &[(&str, &[u8])] = carried![
    "images/build" from "images/build",
    "images/packages" from "images/packages",
    "images/trim" from "images/trim",
    "images/files/etc/bash.bashrc" from "images/files/etc/bash.bashrc",
    "images/files/etc/hostname" from "images/files/etc/hostname",
    "images/files/etc/hosts" from "images/files/etc/hosts",
    "images/files/etc/nsswitch.conf" from "images/files/etc/nsswitch.conf",
    "images/files/etc/skel/.profile" from "images/files/etc/skel/.profile",
    "images/files/etc/profile" from "images/files/etc/profile",
    "bed/bed_aws.py" from "tests/bed/bed_aws.py",
    "bed/requirements.txt" from "tests/bed/requirements.txt",
    "bed/seed.py" from "tests/bed/seed.py",
    "bed/venv" from "tests/bed/venv",
];

/// Writes all of it, and nothing else, below `place`.
pub(super) fn write(place: &Path) -> anyhow::Result<()> {
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    for (name, bytes) in CARRIED {
        let file = place.join(name);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&file, bytes)?;
        let program = bytes.starts_with(b"#!");
        fs::set_permissions(&file, std::fs::Permissions::from_mode(if program { 0o755 } else { 0o644 }))?;
    }
    Ok(())
}

/// By which the emulator's environment is cached.
pub(super) fn requirements_digest() -> String {
    let found = CARRIED.iter().find(|(name, _)| *name == "bed/requirements.txt");
    hex(&Sha256::digest(found.map_or(&[][..], |(_, bytes)| bytes)))
}

/// Changes with everything that an image is built from.
pub(super) fn image_digest() -> String {
    let parts = CARRIED.iter().filter(|(name, _)| name.starts_with("images/"));
    let mut digest = Sha256::new();
    for (name, bytes) in parts {
        digest.update(Sha256::digest(name.as_bytes()));
        digest.update(Sha256::digest(bytes));
    }
    hex(&digest.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Vec<std::path::PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn nothing_that_goes_into_an_image_is_left_behind() {
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/files");
        for file in files(&images) {
            let name = Path::new("images/files").join(file.strip_prefix(&images).unwrap());
            assert!(CARRIED.iter().any(|(carried, _)| Path::new(carried) == name), "{} is not carried", name.display());
        }
    }

    #[test]
    fn scripts_can_be_run_and_what_lay_there_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("material");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("old"), "").unwrap();
        write(&place).unwrap();
        let mode = |name: &str| fs::metadata(place.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode("images/build"), mode("images/packages"), mode("bed/venv")], [0o755, 0o644, 0o755]);
        assert!(!place.join("old").exists());
    }
}
