use std::fmt;
use std::io;
use std::path::PathBuf;

use super::Digest;

/// The step that failed. Names out of an image are shown escaped: a terminal reads these lines.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("cannot {doing} {}", path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is no OCI image layout: {missing} is not in it; export one with `docker save` or `skopeo copy ... oci:DIR`", path.display())]
    NotALayout { path: PathBuf, missing: &'static str },
    #[error("{} holds more than {most} blobs; export the one image alone", path.display())]
    ManyBlobs { path: PathBuf, most: usize },
    #[error("`{0}` is no SHA-256 digest: `sha256:` and 64 lower-case hex digits are expected")]
    Digest(String),
    #[error("`{0}` is no image name: 1 to 64 of a-z, 0-9, `.`, `_` and `-`, first a letter or digit")]
    Name(String),
    #[error("the image names the blob {0}, which is not in it: the export is incomplete, make it again")]
    MissingBlob(Digest),
    #[error("blob {expected} is in truth {found}: damaged or exchanged on its way, fetch it again")]
    WrongDigest { expected: Digest, found: Digest },
    #[error("{what} is larger than {most} bytes")]
    DocumentTooLarge { what: &'static str, most: u64 },
    #[error("{what} cannot be read as the OCI image specification has it")]
    Document { what: &'static str, source: oci_spec::OciSpecError },
    #[error("the layout holds {found} images for linux/{architecture}, one is expected; export that one alone")]
    Choice { found: usize, architecture: &'static str },
    #[error("the image's configuration: {0}")]
    Config(String),
    #[error("layer {layer} cannot be read")]
    Layer { layer: Digest, source: io::Error },
    #[error("`{entry}`: {why}; the image is refused")]
    Refused { entry: Shown, why: &'static str },
    #[error("`{entry}`: cannot {doing}")]
    Entry { entry: Shown, doing: &'static str, source: io::Error },
    #[error("the image unpacks to more than {most} {what}; raise the limit with --max-{what} if it is to be trusted")]
    Limit { most: u64, what: &'static str },
    #[error("importing keeps the owners of files, so it needs root: run it with sudo")]
    NeedsRoot,
    #[error("cannot fence the unpacking process in: {step}")]
    Fence { step: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the unpacking process refused the image: {0}")]
    Child(String),
    #[error("no image is named `{0}`; `stockade image list` shows what there is")]
    Unknown(String),
    #[error("image `{0}` is in use by jails; end them or wait, then remove it again")]
    InUse(String),
    #[error("{} is not what this store writes; import the image again", path.display())]
    Damaged { path: PathBuf },
}

/// A name as an image spells it: bytes, not text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown(pub(super) Vec<u8>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 200;
        let head = self.0.get(..LONGEST).unwrap_or(&self.0);
        write!(f, "{}{}", head.escape_ascii(), if head.len() < self.0.len() { "..." } else { "" })
    }
}

impl Error {
    pub(super) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }

    pub(super) fn refused(entry: &[u8], why: &'static str) -> Self {
        Self::Refused { entry: Shown(entry.to_vec()), why }
    }

    pub(super) fn entry<E: Into<io::Error>>(entry: &[u8], doing: &'static str) -> impl FnOnce(E) -> Self {
        let entry = Shown(entry.to_vec());
        move |source| Self::Entry { entry, doing, source: source.into() }
    }
}
