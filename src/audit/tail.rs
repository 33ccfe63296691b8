//! The end of an audit file as a crash may have left it.

use serde_json::Value;

/// How much of a file's end is read: more than two of the longest lines.
pub(super) const WINDOW: u64 = 1024 * 1024;

/// Where a writer goes on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// The sequence number of the newest event that can be read.
    pub(super) sequence: u64,
    /// The last line has no newline.
    pub(super) torn: bool,
}

impl Tail {
    /// Reads the last bytes of a file.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let sequence = bytes.rsplit(|b| *b == b'\n').find_map(sequence).unwrap_or(0);
        Self { sequence, torn: bytes.last().is_some_and(|b| *b != b'\n') }
    }
}

fn sequence(line: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Value>(line).ok()?.pointer("/metadata/sequence")?.as_u64()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: &str = r#"{"metadata":{"sequence":41}}"#;
    const TWO: &str = r#"{"metadata":{"sequence":42}}"#;

    #[test]
    fn the_newest_readable_line_counts() {
        assert_eq!(Tail::of(b""), Tail { sequence: 0, torn: false });
        assert_eq!(Tail::of(format!("{ONE}\n{TWO}\n").as_bytes()), Tail { sequence: 42, torn: false });
        assert_eq!(Tail::of(format!("{ONE}\n{TWO}").as_bytes()), Tail { sequence: 42, torn: true });
        assert_eq!(Tail::of(format!("{ONE}\n{}", &TWO[..20]).as_bytes()), Tail { sequence: 41, torn: true });
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_end(bytes: Vec<u8>) {
            Tail::of(&bytes);
        }
    }
}
