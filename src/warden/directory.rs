//! Who has which keys and belongs to which groups: key files, static groups and IAM, behind one question.
//!
//! Knows nothing of what a key or a group is worth: lines of `authorized_keys` go out as they came in. Somebody unknown
//! and somebody without keys are the same answer, found by the same requests and remembered for as long.

mod cache;
mod files;
mod iam;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use self::cache::{Cache, Lives, Need};
pub use self::files::Files;
pub use self::iam::{Iam, People};
use crate::identity::Principal;

/// Where a key was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The user's key file.
    File,
    /// IAM, under this id.
    Iam(String),
}

/// Text in `authorized_keys` syntax, and whose word it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    pub origin: Origin,
    /// A whole file, or one line without options.
    pub text: String,
}

/// What is known of a principal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub keys: Vec<Keys>,
    /// Why keys are missing that were meant to be there.
    pub refused: Vec<String>,
    pub groups: BTreeSet<String>,
    /// IAM does not answer, and this is what it said up to `stale` ago.
    pub stale: bool,
}

/// Why nothing is known. The cause is in the log.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unknown {
    #[error("IAM does not say who '{0}' is, and what it said before is too old to stand")]
    Iam(Principal),
    #[error("too many people are being looked up at one time")]
    Crowd,
}

/// Which of IAM's words count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    pub keys: bool,
    pub groups: bool,
}

/// The seam between the warden and everything that knows people.
pub struct Directory<P> {
    files: Option<Files>,
    groups: BTreeMap<Principal, BTreeSet<String>>,
    iam: Option<(Arc<Cache<P>>, Use)>,
}

impl<P: People> Directory<P> {
    /// `groups` as in the configuration: group to members.
    pub fn new(
        files: Option<Files>,
        groups: &BTreeMap<String, Vec<Principal>>,
        iam: Option<(Arc<Cache<P>>, Use)>,
    ) -> Self {
        let mut of = BTreeMap::<Principal, BTreeSet<String>>::new();
        for (group, members) in groups {
            for member in members {
                of.entry(member.clone()).or_default().insert(group.clone());
            }
        }
        Self { files, groups: of, iam }
    }

    /// Keys and groups of a principal; nobody is known by having none.
    pub async fn look_up(&self, principal: &Principal, need: Need) -> Result<Record, Unknown> {
        let mut record =
            Record { groups: self.groups.get(principal).cloned().unwrap_or_default(), ..Record::default() };
        match self.files.as_ref().map(|files| files.keys(principal)) {
            Some(Ok(Some(text))) => record.keys.push(Keys { origin: Origin::File, text }),
            Some(Err(reason)) => record.refused.push(reason),
            Some(Ok(None)) | None => {}
        }
        if let Some((cache, wanted)) = &self.iam {
            match cache.look_up(principal, need).await {
                Ok((found, stale)) => {
                    record.stale = stale;
                    record.keys.extend(found.keys.iter().filter(|_| wanted.keys).cloned());
                    record.groups.extend(found.groups.iter().filter(|_| wanted.groups).cloned());
                }
                // Somebody may be denied by a group, so without IAM's groups nobody is judged. Keys only add.
                Err(unknown) if wanted.groups => return Err(unknown),
                Err(unknown) => tracing::warn!(%principal, "keys from files only: {unknown}"),
            }
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests;
