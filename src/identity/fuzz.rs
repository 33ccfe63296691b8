//! The law of files of keys.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{KeyKind, authorized_keys};

/// Any file is read, what is refused is said in printable words, and an accepted key is the key its line shows.
pub fn keys(file: &[u8]) {
    let found = authorized_keys::parse(file);
    let lines: Vec<&[u8]> = file.split(|b| *b == b'\n').collect();
    for refused in &found.refused {
        let said = refused.to_string();
        assert!((1..=lines.len()).contains(&refused.line), "{said}");
        assert!(!said.contains(char::is_control) && said.len() < 1000, "{said:?}");
    }
    for key in &found.keys {
        assert_eq!(KeyKind::of_blob(&key.blob).as_ref(), Ok(&key.kind));
        let shown = STANDARD.encode(&key.blob);
        let line = lines.get(key.line - 1).copied().unwrap_or_default();
        assert!(line.windows(shown.len()).any(|part| part == shown.as_bytes()), "{key:?} is not on its line");
        let plain = authorized_keys::parse(format!("{} {shown}", key.kind).as_bytes());
        assert_eq!(plain.keys.first().map(|plain| &plain.blob), Some(&key.blob));
        if let Some(from) = &key.from {
            assert_eq!(from.as_str().parse().as_ref(), Ok(from));
        }
    }
    // What the gate passes on of a client's offer.
    if let Err(why) = KeyKind::of_blob(file) {
        let said = why.to_string();
        assert!(!said.contains(char::is_control) && said.len() < 1000, "{said:?}");
    }
}
