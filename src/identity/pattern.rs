use std::fmt;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Text with `*` (any run of letters) and `?` (any one letter), matched whole.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Pattern(#[n(0)] String);

impl Pattern {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Linear in the text for each `*`: a hostile pattern costs at most the product of the two lengths.
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text): (Vec<char>, Vec<char>) = (self.0.chars().collect(), text.chars().collect());
        let (mut p, mut t) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            match pattern.get(p) {
                Some('*') => {
                    star = Some((p, t));
                    p += 1;
                }
                Some(&c) if c == '?' || text.get(t) == Some(&c) => (p, t) = (p + 1, t + 1),
                _ => match star {
                    Some((at, taken)) => {
                        star = Some((at, taken + 1));
                        (p, t) = (at + 1, taken + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern.iter().skip(p).all(|&c| c == '*')
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "ops"),
            ("k8s-*@hyades", "k8s-admin@hyades"),
            ("a?c", "abc"),
            ("LC_*", "LC_ALL"),
            ("", ""),
        ] {
            assert!(Pattern::new(pattern).matches(text), "{pattern} {text}");
        }
        for (pattern, text) in [("ops", "Ops"), ("a?c", "ac"), ("LC_*", "XLC_ALL"), ("", "a"), ("a*b", "acbd")] {
            assert!(!Pattern::new(pattern).matches(text), "{pattern} {text}");
        }
        assert!(!Pattern::new("a*".repeat(200) + "b").matches(&"a".repeat(2000)));
    }
}
