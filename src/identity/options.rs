//! The options in front of a key, and the words of a line.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use super::authorized_keys::BadLine;
use super::source::Sources;

/// The first word and the trimmed rest. White space inside double quotes does not end it.
pub(super) fn word(text: &str) -> Result<(&str, &str), BadLine> {
    let end = outside(text, |c| c == ' ' || c == '\t')?.unwrap_or(text.len());
    let (first, rest) = text.split_at(end);
    Ok((first, rest.trim_start()))
}

/// Where the first of the wanted letters stands outside double quotes. As OpenSSH: `\"` is no quote, wherever it is.
fn outside(text: &str, wanted: impl Fn(char) -> bool) -> Result<Option<usize>, BadLine> {
    let (mut quoted, mut before) = (false, '\0');
    for (at, c) in text.char_indices() {
        if c == '"' && before != '\\' {
            quoted = !quoted;
        } else if !quoted && wanted(c) {
            return Ok(Some(at));
        }
        before = c;
    }
    if quoted { Err(BadLine::OpenQuote) } else { Ok(None) }
}

#[derive(Debug, Default)]
pub(super) struct Options {
    pub from: Option<Sources>,
    pub expires: Option<Timestamp>,
    restricted: bool,
    pty: Option<bool>,
}

impl Options {
    pub fn parse(mut text: &str) -> Result<Self, BadLine> {
        let mut options = Self::default();
        loop {
            let comma = outside(text, |c| c == ',')?;
            options.take(text.get(..comma.unwrap_or(text.len())).unwrap_or_default())?;
            match comma.and_then(|at| text.get(at + 1..)) {
                Some(rest) => text = rest,
                None => return Ok(options),
            }
        }
    }

    pub fn terminal(&self) -> bool {
        self.pty.unwrap_or(!self.restricted)
    }

    /// What forbids more than stockade gives anyway is accepted; what would give more, or run a command, is not.
    fn take(&mut self, option: &str) -> Result<(), BadLine> {
        let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        match (name.to_ascii_lowercase().as_str(), value) {
            ("restrict", None) => self.restricted = true,
            ("pty", None) => self.pty = Some(true),
            ("no-pty", None) => self.pty = Some(false),
            ("no-port-forwarding" | "no-agent-forwarding" | "no-x11-forwarding" | "no-user-rc", None) => {}
            ("from", value) => {
                let sources = unquoted(value).ok_or(BadLine::Value("from"))?.parse()?;
                if self.from.replace(sources).is_some() {
                    return Err(BadLine::Twice("from"));
                }
            }
            ("expiry-time", value) => {
                let text = unquoted(value).ok_or(BadLine::Value("expiry-time"))?;
                let at = expiry(&text).ok_or_else(|| BadLine::Expiry(shorten(&text)))?;
                self.expires = Some(self.expires.map_or(at, |other| other.min(at)));
            }
            _ => return Err(BadLine::Option(shorten(name))),
        }
        Ok(())
    }
}

/// `"value"` with `\"` for a quote in it.
fn unquoted(value: Option<&str>) -> Option<String> {
    let inner = value?.strip_prefix('"')?.strip_suffix('"')?;
    let plain = inner.replace("\\\"", "");
    (!plain.contains('"')).then(|| inner.replace("\\\"", "\""))
}

/// In UTC, with `Z` or without: a locked role has no other time zone.
fn expiry(text: &str) -> Option<Timestamp> {
    let digits = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |at: usize, width: usize| digits.get(at..at + width).map_or(Some(0), |d| d.parse::<i8>().ok());
    let year = digits.get(..4)?.parse().ok()?;
    let date = DateTime::new(year, part(4, 2)?, part(6, 2)?, part(8, 2)?, part(10, 2)?, part(12, 2)?, 0).ok()?;
    Offset::UTC.to_timestamp(date).ok()
}

/// What is shown of a word that somebody else wrote.
pub(super) fn shorten(word: &str) -> String {
    word.chars().take(40).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_times() {
        for (text, wanted) in [
            ("20300102", "2030-01-02T00:00:00Z"),
            ("20300102Z", "2030-01-02T00:00:00Z"),
            ("203001020304", "2030-01-02T03:04:00Z"),
            ("20300102030405Z", "2030-01-02T03:04:05Z"),
        ] {
            assert_eq!(expiry(text), Some(wanted.parse().unwrap()), "{text}");
        }
        for bad in
            ["", "Z", "2030", "20301301", "20300230", "2030010203", "20300102 304", "203001022504", "２０３００１０２"]
        {
            assert_eq!(expiry(bad), None, "{bad}");
        }
    }
}
