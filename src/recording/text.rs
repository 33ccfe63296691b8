/// Bytes of a stream as text: a character that two reads cut is carried over, what is no UTF-8 becomes U+FFFD.
#[derive(Debug, Default)]
pub struct Text {
    carried: Vec<u8>,
}

impl Text {
    pub fn push(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.carried);
        all.extend_from_slice(bytes);
        let mut text = String::with_capacity(all.len());
        let mut rest = &all[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    return text;
                }
                Err(e) => {
                    let (valid, invalid) = rest.split_at_checked(e.valid_up_to()).unwrap_or((&[], rest));
                    text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    let Some(length) = e.error_len() else {
                        self.carried = invalid.to_vec();
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = invalid.get(length..).unwrap_or_default();
                }
            }
        }
    }

    /// What is left of a character that never became whole.
    pub fn end(&mut self) -> Option<String> {
        let carried = std::mem::take(&mut self.carried);
        (!carried.is_empty()).then(|| char::REPLACEMENT_CHARACTER.to_string())
    }
}

/// Text from outside, for one line of a terminal: what could move the cursor or more is shown as an escape.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() => out.extend(c.escape_default()),
            // Marks that turn the direction of what follows.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.extend(c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_cut_in_two_arrives_whole() {
        let mut text = Text::default();
        let crab = "🦀".as_bytes();
        assert_eq!(text.push(&[b"a", &crab[..1]].concat()), "a");
        assert_eq!(text.push(&crab[1..3]), "");
        assert_eq!(text.push(&[&crab[3..], b"b\xff\xc3"].concat()), "🦀b\u{fffd}");
        assert_eq!(text.push(b"x"), "\u{fffd}x");
        assert_eq!(text.end(), None);
        text.push(b"\xe2\x82");
        assert_eq!(text.end().as_deref(), Some("\u{fffd}"));
    }

    #[test]
    fn nothing_visible_moves_a_cursor() {
        assert_eq!(visible("a\x1b[2Jb\u{9b}c\nd\u{202e}e"), "a\\u{1b}[2Jb\\u{9b}c\\nd\\u{202e}e");
    }
}
