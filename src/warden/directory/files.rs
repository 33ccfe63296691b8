use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::identity::Principal;

type Read = dyn Fn(BorrowedFd<'_>, &Principal) -> Result<Option<String>, String> + Send + Sync;

/// Key files, one a user, in a directory that is held as a descriptor: a locked warden opens nothing by path.
pub struct Files {
    directory: OwnedFd,
    read: Box<Read>,
}

impl Files {
    /// `read` is the strict opener: no symbolic links, right owner and mode; `None` where there is no file.
    pub fn new(
        directory: OwnedFd,
        read: impl Fn(BorrowedFd<'_>, &Principal) -> Result<Option<String>, String> + Send + Sync + 'static,
    ) -> Self {
        Self { directory, read: Box::new(read) }
    }

    /// A file that may not be trusted is a file without keys; log and audit say why.
    pub(super) fn keys(&self, principal: &Principal) -> Result<Option<String>, String> {
        (self.read)(self.directory.as_fd(), principal)
            .inspect_err(|reason| tracing::warn!(%principal, "the key file is not used: {reason}"))
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("directory", &self.directory).finish_non_exhaustive()
    }
}
