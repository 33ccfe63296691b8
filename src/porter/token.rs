use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::rand::{GetRandomFlags, getrandom};
use subtle::{Choice, ConstantTimeEq};

/// The most session tokens a jail holds; the oldest goes first, and every SDK asks again after a 401.
const MOST: usize = 256;

const LENGTH: usize = 32;

/// The IMDSv2 session tokens of one jail: random, so a token of another jail is just unknown here.
#[derive(Default)]
pub struct Tokens(Mutex<VecDeque<Issued>>);

struct Issued {
    bytes: [u8; LENGTH],
    /// Seconds since the epoch.
    ends: i64,
}

impl Tokens {
    /// A new token good for `ttl` seconds; `None` when the kernel gives no random bytes.
    pub fn issue(&self, ttl: i64, now: i64) -> Option<String> {
        let mut bytes = [0; LENGTH];
        if getrandom(&mut bytes, GetRandomFlags::empty()) != Ok(LENGTH) {
            return None;
        }
        let mut issued = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        issued.retain(|token| token.ends > now);
        if issued.len() >= MOST {
            issued.pop_front();
        }
        issued.push_back(Issued { bytes, ends: now.saturating_add(ttl) });
        Some(STANDARD.encode(bytes))
    }

    /// Whether a token is of this jail and has not ended. Looks at all of them, so that time tells nothing.
    pub fn knows(&self, offered: &[u8], now: i64) -> bool {
        let Ok(offered) = STANDARD.decode(offered) else { return false };
        let issued = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = issued.iter().fold(Choice::from(0), |found, token| {
            found | (token.bytes.ct_eq(&offered) & Choice::from(u8::from(token.ends > now)))
        });
        found.into()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_and_belongs_to_one_jail() {
        let (ours, theirs) = (Tokens::default(), Tokens::default());
        let token = ours.issue(60, 1000).unwrap();
        assert!(ours.knows(token.as_bytes(), 1059));
        assert!(!ours.knows(token.as_bytes(), 1060));
        assert!(!theirs.knows(token.as_bytes(), 1001));
        for bad in ["", "AAAA", "not base64", &token[1..]] {
            assert!(!ours.knows(bad.as_bytes(), 1001), "{bad}");
        }
        assert_eq!(format!("{ours:?}"), "<secret>");
    }

    #[test]
    fn a_flood_of_tokens_takes_no_room() {
        let tokens = Tokens::default();
        let first = tokens.issue(21_600, 0).unwrap();
        for _ in 0..MOST {
            tokens.issue(21_600, 0);
        }
        assert_eq!(tokens.0.lock().unwrap().len(), MOST);
        assert!(!tokens.knows(first.as_bytes(), 1));
    }
}
