//! What the set-up runs, carried in the binary: how the jail's image is built, the AWS emulator and the
//! clusters; where it lies in the checkout.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fs_err as fs;
use sha2::{Digest, Sha256};

macro_rules! carried {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $name)))),*]
    };
}

const CARRIED: &[(&str, &[u8])] = carried![
    "images/build",
    "images/packages",
    "images/trim",
    "images/files/etc/bash.bashrc",
    "images/files/etc/hostname",
    "images/files/etc/hosts",
    "images/files/etc/nsswitch.conf",
    "images/files/etc/skel/.profile",
    "images/files/etc/profile",
    "images/files/etc/ssh/ssh_config.d/stockade.conf",
    "images/files/usr/share/stockade/prompt.bash",
    "images/tools/build",
    "images/tools/aws-iam-authenticator/go.mod",
    "images/tools/aws-iam-authenticator/go.sum",
    "images/tools/helm/go.mod",
    "images/tools/helm/go.sum",
    "images/tools/inventory/bom.go",
    "images/tools/inventory/go.mod",
    "images/tools/inventory/go.sum",
    "images/tools/inventory/licences.go",
    "images/tools/inventory/main.go",
    "images/tools/k9s/go.mod",
    "images/tools/k9s/go.sum",
    "images/tools/kubectl/go.mod",
    "images/tools/kubectl/go.sum",
    "tests/bed/aws/actions.py",
    "tests/bed/aws/eks.py",
    "tests/bed/aws/pages.py",
    "tests/bed/aws/policy.py",
    "tests/bed/aws/proxy.py",
    "tests/bed/aws/rights.py",
    "tests/bed/aws/signature.py",
    "tests/bed/aws/simulate.py",
    "tests/bed/bed_aws.py",
    "tests/bed/build",
    "tests/bed/certificates.py",
    "tests/bed/conf/audit-policy.yaml",
    "tests/bed/conf/objects.yaml",
    "tests/bed/requirements.txt",
    "tests/bed/seed.py",
    "tests/bed/start",
    "tests/bed/stop",
    "tests/bed/tools/etcd/go.mod",
    "tests/bed/tools/etcd/go.sum",
    "tests/bed/tools/kube/go.mod",
    "tests/bed/tools/kube/go.sum",
    "tests/bed/tools/node/container.go",
    "tests/bed/tools/node/go.mod",
    "tests/bed/tools/node/go.sum",
    "tests/bed/tools/node/main.go",
    "tests/bed/tools/node/pods.go",
    "tests/bed/tools/node/streams.go",
    "tests/bed/venv",
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
    let found = CARRIED.iter().find(|(name, _)| *name == "tests/bed/requirements.txt");
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
    fn nothing_that_they_are_made_of_is_left_behind() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
        for folder in ["images/files", "images/tools", "tests/bed/aws", "tests/bed/conf", "tests/bed/tools"] {
            for file in files(&checkout.join(folder)) {
                let name = file.strip_prefix(checkout).unwrap();
                let carried = CARRIED.iter().any(|(carried, _)| Path::new(carried) == name);
                assert!(carried, "{} is not carried", name.display());
            }
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
        assert_eq!([mode("images/build"), mode("images/packages"), mode("tests/bed/venv")], [0o755, 0o644, 0o755]);
        assert!(!place.join("old").exists());
    }
}
