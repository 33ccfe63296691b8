use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, flock};

use super::STOCKADE;

/// The image store that all yards share. The image is built and imported once, and kept among the build's own files.
pub fn images() -> &'static Path {
    static IMAGES: OnceLock<PathBuf> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let layout = layout();
        let index = std::fs::read(layout.join("index.json")).unwrap();
        let digest = stockade_digest(&index);
        let images = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("images-{digest}"));
        std::fs::create_dir_all(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let lock = std::fs::File::create(images.with_extension("lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        if !images.join("names/base").exists() {
            let import = Command::new(STOCKADE)
                .args(["image", "import", "--name", "base", "--directory"])
                .args([&images, &layout])
                .output()
                .unwrap();
            assert!(import.status.success(), "the image: {}", String::from_utf8_lossy(&import.stderr));
        }
        images
    })
}

/// `$STOCKADE_IMAGE`, or what `images/build` makes or finds in its cache.
pub fn layout() -> PathBuf {
    if let Some(layout) = std::env::var_os("STOCKADE_IMAGE") {
        return layout.into();
    }
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/build");
    let built = Command::new(build).stderr(Stdio::inherit()).output().unwrap();
    assert!(built.status.success(), "images/build failed");
    String::from_utf8(built.stdout).unwrap().trim().into()
}

fn stockade_digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
