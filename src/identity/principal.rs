use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Decoder, Encode};
use serde::{Deserialize, Serialize};

/// A user's name in IAM's exact spelling; also the name of their role, their home and their login in the jail.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(try_from = "String", into = "String")]
pub struct Principal(#[n(0)] String);

/// The name cannot be a principal's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a user name is 1 to 64 of the letters A-Z a-z 0-9 + = , . @ _ - and begins with a letter, a digit or _")]
pub struct NotAPrincipal;

impl Principal {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Principal {
    type Err = NotAPrincipal;

    /// IAM's alphabet, less a leading mark: the name becomes a file name, a line of `/etc/passwd` and an STS session
    /// tag, so `..`, `/`, `:` and NUL must not be possible at all.
    fn from_str(text: &str) -> Result<Self, NotAPrincipal> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b));
        (first && rest && text.len() <= 64).then(|| Self(text.to_owned())).ok_or(NotAPrincipal)
    }
}

/// Checked on receipt: the sender may be captured, and root makes paths of the name.
impl<'b, C> Decode<'b, C> for Principal {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        decoder.str()?.parse().map_err(minicbor::decode::Error::custom)
    }
}

impl TryFrom<String> for Principal {
    type Error = NotAPrincipal;

    fn try_from(text: String) -> Result<Self, NotAPrincipal> {
        text.parse()
    }
}

impl From<Principal> for String {
    fn from(principal: Principal) -> Self {
        principal.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_walk_a_path_or_end_a_line_are_refused() {
        for bad in ["", ".", "..", "a/b", "-rf", ".hidden", "a:b", "a\0b", "a\nb", "ä", &"x".repeat(65)] {
            assert_eq!(bad.parse::<Principal>(), Err(NotAPrincipal), "{bad:?}");
        }
        for good in ["alice", "Alice.B@example.test", "_svc", "a+b=c,d-e", "1st"] {
            assert_eq!(good.parse::<Principal>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_message_cannot_carry_a_name_that_is_not_one() {
        let bytes = minicbor::to_vec("alice".parse::<Principal>().unwrap()).unwrap();
        assert_eq!(minicbor::decode::<Principal>(&bytes).unwrap().as_str(), "alice");
        assert!(minicbor::decode::<Principal>(&minicbor::to_vec("../bob").unwrap()).is_err());
        assert!(serde_json::from_str::<Principal>("\"../bob\"").is_err());
    }
}
