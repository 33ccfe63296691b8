//! What the last cycle saw: so that what people changed meanwhile is an event with a time, and so that what is gone is
//! gone since some time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::world::Members;
use crate::audit::Event;

/// In the state's directory.
const FILE: &str = "seen.json";

/// A file, written after each cycle that saw something new.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// `None`: nothing was ever seen, so nobody has joined since.
    pub members: Option<BTreeMap<String, BTreeMap<String, i64>>>,
    /// `plan::Plan::gone`.
    #[serde(default)]
    pub gone: BTreeMap<String, i64>,
    /// What stood in the way.
    #[serde(default)]
    pub problems: BTreeSet<String>,
    /// What could not be read, and why.
    #[serde(default)]
    pub unread: BTreeMap<String, String>,
    /// Since when, in seconds since the epoch.
    #[serde(default)]
    pub unread_since: BTreeMap<String, i64>,
    /// Clusters whose turn could not be had, though there was work, and since when.
    #[serde(default)]
    pub withheld: BTreeMap<String, i64>,
    /// Why a plan was not carried out.
    #[serde(default)]
    pub stopped: Option<String>,
}

/// Why the state's directory is of no use.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    #[error("cannot read what was seen last; if it is lost, move it away: everybody counts as seen before then")]
    Read(#[source] std::io::Error),
    #[error("'{0}' is not what access wrote there; move it away, and everybody counts as seen before")]
    NotOurs(PathBuf, #[source] serde_json::Error),
    #[error("cannot write what was seen into the state's directory")]
    Write(#[source] std::io::Error),
}

impl Memory {
    /// Makes the directory where there is none.
    pub fn load(directory: &Path) -> Result<Self, MemoryError> {
        fs_err::create_dir_all(directory).map_err(MemoryError::Write)?;
        let path = directory.join(FILE);
        match fs_err::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| MemoryError::NotOurs(path, source)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(MemoryError::Read(error)),
        }
    }

    /// What there is, for a verb that changes nothing: what it may not read is unknown to it.
    pub fn peek(directory: &Path) -> Self {
        fs_err::read(directory.join(FILE))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// All of it or nothing, whatever happens meanwhile.
    pub fn save(&self, directory: &Path) -> Result<(), MemoryError> {
        let text = serde_json::to_vec(self).map_err(|error| MemoryError::Write(error.into()))?;
        let fresh = directory.join(format!(".{FILE}"));
        let write = || {
            let mut file = fs_err::File::create(&fresh)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs_err::rename(&fresh, directory.join(FILE))?;
            fs_err::File::open(directory)?.sync_all()
        };
        write().map_err(MemoryError::Write)
    }

    /// Who joined and who left since; learns it.
    pub fn see_members(&mut self, members: &Members, now: i64) -> Vec<Event> {
        let mut seen: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
        let former = self.members.take();
        let mut events = Vec::new();
        for (grant, users) in members {
            let group = grant.to_string();
            let before = former.as_ref().and_then(|former| former.get(&group));
            let row = seen.entry(group.clone()).or_default();
            for user in users {
                let since = before.and_then(|before| before.get(user)).copied();
                // The very first look says nothing about when.
                row.insert(user.clone(), since.unwrap_or(if former.is_some() { now } else { 0 }));
                if since.is_none() && former.is_some() {
                    events.push(Event::MemberJoined { user: user.clone(), group: group.clone() });
                }
            }
        }
        for (group, users) in former.iter().flatten() {
            let now = seen.get(group);
            let left = users.keys().filter(|user| !now.is_some_and(|now| now.contains_key(*user)));
            events.extend(left.map(|user| Event::MemberLeft { user: user.clone(), group: group.clone() }));
        }
        seen.retain(|_, users| !users.is_empty());
        self.members = Some(seen);
        events
    }

    /// What stands in the way now, and what no longer does.
    pub fn see_problems(&mut self, now: BTreeSet<String>) -> Vec<Event> {
        let come = now.difference(&self.problems).map(|what| Event::AccessProblem { what: what.clone() });
        let over = self.problems.difference(&now).map(|what| Event::AccessProblemOver { what: what.clone() });
        let events = come.chain(over).collect();
        self.problems = now;
        events
    }

    /// What cannot be read now, and what can be again.
    pub fn see_unread(&mut self, unread: BTreeMap<String, String>, now: i64) -> Vec<Event> {
        let is_new = |place: &&String| !self.unread.contains_key(*place);
        let come = unread.iter().filter(|(place, _)| is_new(place));
        let come = come.map(|(place, why)| Event::AccessUnread { place: place.clone(), reason: why.clone() });
        let over = self.unread.keys().filter(|place| !unread.contains_key(*place));
        let events = come.chain(over.map(|place| Event::AccessRead { place: place.clone() })).collect();
        let since = |place: &String| self.unread_since.get(place).copied().unwrap_or(now);
        self.unread_since = unread.keys().map(|place| (place.clone(), since(place))).collect();
        self.unread = unread;
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::names::Grant;

    fn members(users: &[&str]) -> Members {
        let grant = Grant { level: "admin".into(), cluster: "hyades".into(), namespace: None };
        [(grant, users.iter().map(|user| (*user).to_owned()).collect())].into()
    }

    fn joined(user: &str) -> Event {
        Event::MemberJoined { user: user.into(), group: "k8s-admin@hyades".into() }
    }

    fn left(user: &str) -> Event {
        Event::MemberLeft { user: user.into(), group: "k8s-admin@hyades".into() }
    }

    #[test]
    fn whoever_comes_and_goes_is_told_once_and_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("access");
        let mut memory = Memory::load(&directory).unwrap();
        assert_eq!(memory.see_members(&members(&["alice"]), 100), [], "who was there before the first look");
        assert_eq!(memory.see_members(&members(&["alice", "bob"]), 200), [joined("bob")]);
        memory.save(&directory).unwrap();
        let mut memory = Memory::load(&directory).unwrap();
        assert_eq!(
            memory.members.as_ref().unwrap()["k8s-admin@hyades"],
            [("alice".into(), 0), ("bob".into(), 200)].into()
        );
        assert_eq!(memory.see_members(&members(&["bob"]), 300), [left("alice")]);
        assert_eq!(memory.see_members(&Members::new(), 400), [left("bob")], "with their group");
        assert_eq!(memory.see_members(&members(&["bob"]), 500), [joined("bob")]);
    }

    #[test]
    fn problems_and_outages_are_told_when_they_begin_and_end() {
        let mut memory = Memory::default();
        let problem = || BTreeSet::from(["x".to_owned()]);
        assert_eq!(memory.see_problems(problem()).len(), 1);
        assert_eq!(memory.see_problems(problem()), []);
        assert_eq!(memory.see_problems(BTreeSet::new()), [Event::AccessProblemOver { what: "x".into() }]);
        let away = |why: &str| BTreeMap::from([("hyades".to_owned(), why.to_owned())]);
        assert_eq!(memory.see_unread(away("a"), 100).len(), 1);
        assert_eq!(memory.see_unread(away("b"), 200), [], "the same outage, in other words");
        assert_eq!(memory.unread_since["hyades"], 100);
        assert_eq!(memory.see_unread(BTreeMap::new(), 300), [Event::AccessRead { place: "hyades".into() }]);
        assert!(memory.unread_since.is_empty());
    }

    #[test]
    fn a_file_that_is_not_ours_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join(FILE), "{\"members\": 7").unwrap();
        assert!(matches!(Memory::load(folder.path()), Err(MemoryError::NotOurs(..))));
    }
}
