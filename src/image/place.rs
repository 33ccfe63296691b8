use super::{Error, Result};

/// Deeper than any image goes; it bounds the recursion and the open directories of a removal.
const DEEPEST: usize = 128;
const LONGEST_NAME: usize = 255;
const LONGEST_PATH: usize = 4096;

/// Where in a root file system an entry goes: relative, no `.`, no `..`, no empty part. Empty is the root itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place(Vec<u8>);

impl Place {
    /// An absolute path is taken as relative, as every unpacker does; one that climbs is refused, even when it would
    /// come down inside again.
    pub(super) fn parse(path: &[u8]) -> Result<Self> {
        let refuse = |why| Err(Error::refused(path, why));
        if path.contains(&0) {
            return refuse("its name holds a NUL byte");
        }
        let mut clean = Vec::with_capacity(path.len());
        let mut depth = 0;
        for part in path.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return refuse("its path leaves the image"),
                _ if part.len() > LONGEST_NAME => return refuse("its name is longer than 255 bytes"),
                _ => {}
            }
            if !clean.is_empty() {
                clean.push(b'/');
            }
            clean.extend_from_slice(part);
            depth += 1;
        }
        if depth > DEEPEST || clean.len() >= LONGEST_PATH {
            return refuse("its path is too deep or too long");
        }
        Ok(Self(clean))
    }

    pub(super) fn root() -> Self {
        Self(Vec::new())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory it is in, and its name there.
    pub(super) fn split(&self) -> (Place, &[u8]) {
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => {
                let (above, name) = self.0.split_at(slash);
                (Self(above.to_vec()), name.strip_prefix(b"/").unwrap_or(name))
            }
            None => (Self(Vec::new()), &self.0),
        }
    }

    /// One name further down; the name is a single part already.
    pub(super) fn join(&self, name: &[u8]) -> Self {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Self(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn absolute_is_relative_and_climbing_is_refused() {
        assert_eq!(Place::parse(b"/etc//./passwd").unwrap().bytes(), b"etc/passwd");
        assert!(Place::parse(b"./").unwrap().is_root());
        for climbing in [&b".."[..], b"../x", b"a/../../x", b"a/..", b"/.."] {
            assert!(Place::parse(climbing).is_err());
        }
    }

    proptest! {
        #[test]
        fn a_place_never_climbs(
            path in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..80),
        ) {
            if let Ok(place) = Place::parse(&path) {
                prop_assert!(!place.bytes().starts_with(b"/"));
                prop_assert!(place.bytes().split(|&b| b == b'/').all(|part| part != b".." && part != b"."));
                let (above, name) = place.split();
                prop_assert_eq!(above.join(name), place.clone());
            }
        }
    }
}
