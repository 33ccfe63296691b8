use std::net::IpAddr;

use jiff::Timestamp;

use super::options::{Options, shorten, word};
use super::public_key::{BadKey, KeyKind, fingerprint};
use super::source::{BadSource, Sources};

/// A key that may prove a user, and under which conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizedKey {
    pub kind: KeyKind,
    /// In SSH wire form: what keys are compared by.
    pub blob: Vec<u8>,
    pub comment: String,
    /// `from=`
    pub from: Option<Sources>,
    /// `expiry-time=`
    pub expires: Option<Timestamp>,
    /// Not `no-pty`, nor `restrict` without `pty`.
    pub terminal: bool,
    /// Of its file; from 1.
    pub line: usize,
}

/// What a file of keys holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorizedKeys {
    pub keys: Vec<AuthorizedKey>,
    /// Lines that are not used: worth a loud word in the log, they are somebody's mistake.
    pub refused: Vec<RefusedLine>,
}

/// A line of a file of keys that is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct RefusedLine {
    pub line: usize,
    pub why: BadLine,
}

/// Why a line is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    #[error("not UTF-8 text")]
    NotText,
    #[error("longer than 16 KiB")]
    TooLong,
    #[error("a quote is not closed")]
    OpenQuote,
    #[error("no key on the line")]
    NoKey,
    #[error("option '{0}' is not honoured here, so the key is not accepted")]
    Option(String),
    #[error("option '{0}' is there twice")]
    Twice(&'static str),
    #[error("option '{0}' needs a value in double quotes")]
    Value(&'static str),
    #[error("expiry-time '{0}' is not YYYYMMDD[HHMM[SS]][Z]")]
    Expiry(String),
    #[error(transparent)]
    Source(#[from] BadSource),
    #[error(transparent)]
    Key(#[from] BadKey),
}

/// Why no key lets the user in: for the audit trail and `check --who`, never for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyNot {
    #[error("no key is listed for the user")]
    NoKeys,
    /// The file of keys was refused or could not be read; says why.
    #[error("{0}")]
    NotRead(String),
    #[error("the key is not one of the {0} listed for the user")]
    Unlisted(usize),
    #[error("the key of line {line} may not be used from {from}, only from {allowed}")]
    Elsewhere { line: usize, from: IpAddr, allowed: String },
    #[error("the key of line {line} expired at {at}")]
    Expired { line: usize, at: Timestamp },
}

const LINE: usize = 16 << 10;

/// Reads a file of keys (sshd(8), "AUTHORIZED_KEYS FILE FORMAT"). Never fails: each line is a key, or refused.
pub fn parse(file: &[u8]) -> AuthorizedKeys {
    let mut found = AuthorizedKeys::default();
    for (number, bytes) in file.split(|b| *b == b'\n').enumerate() {
        let line = number + 1;
        match key(bytes, line) {
            Ok(None) => {}
            Ok(Some(key)) => found.keys.push(key),
            Err(why) => found.refused.push(RefusedLine { line, why }),
        }
    }
    found
}

/// The key with this blob, if it may be used from there and now.
pub fn find<'a>(
    keys: &'a [AuthorizedKey],
    blob: &[u8],
    from: IpAddr,
    now: Timestamp,
) -> Result<&'a AuthorizedKey, WhyNot> {
    let mut why = if keys.is_empty() { WhyNot::NoKeys } else { WhyNot::Unlisted(keys.len()) };
    for key in keys.iter().filter(|key| key.blob == blob) {
        match key.usable(from, now) {
            Ok(()) => return Ok(key),
            Err(reason) => why = reason,
        }
    }
    Err(why)
}

impl AuthorizedKey {
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.blob)
    }

    /// Whether the conditions on the line hold.
    pub fn usable(&self, from: IpAddr, now: Timestamp) -> Result<(), WhyNot> {
        let line = self.line;
        if let Some(sources) = &self.from
            && !sources.allows(from)
        {
            return Err(WhyNot::Elsewhere { line, from, allowed: sources.as_str().to_owned() });
        }
        self.unexpired(now)
    }

    /// Whether `expiry-time=` lies ahead.
    pub fn unexpired(&self, now: Timestamp) -> Result<(), WhyNot> {
        match self.expires {
            Some(at) if now >= at => Err(WhyNot::Expired { line: self.line, at }),
            _ => Ok(()),
        }
    }
}

fn key(bytes: &[u8], line: usize) -> Result<Option<AuthorizedKey>, BadLine> {
    if bytes.len() > LINE {
        return Err(BadLine::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| BadLine::NotText)?.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let (first, rest) = word(text)?;
    let (options, kind, rest) = match KeyKind::of_name(first) {
        Some(kind) => (Options::default(), kind, rest),
        None => {
            let (name, after) = word(rest)?;
            // Without a key behind it, the first word was meant to be one: ssh-dss, a certificate, a private key.
            if name.is_empty() {
                return Err(BadLine::NoKey);
            }
            let Some(kind) = KeyKind::of_name(name) else {
                let meant = if looks_like_base64(name) { first } else { name };
                return Err(BadKey::Type(shorten(meant)).into());
            };
            (Options::parse(first)?, kind, after)
        }
    };
    let (base64, comment) = word(rest)?;
    if base64.is_empty() {
        return Err(BadLine::NoKey);
    }
    let blob = kind.decode(base64)?;
    let terminal = options.terminal();
    let Options { from, expires, .. } = options;
    Ok(Some(AuthorizedKey { kind, blob, comment: comment.to_owned(), from, expires, terminal, line }))
}

fn looks_like_base64(word: &str) -> bool {
    word.starts_with("AAAA")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB";
    const OTHER: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIAICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC";

    fn one(line: &str) -> AuthorizedKey {
        let found = parse(line.as_bytes());
        assert_eq!((found.keys.len(), found.refused.as_slice()), (1, &[][..]), "{line}");
        found.keys.into_iter().next().unwrap()
    }

    fn refused(line: &str) -> String {
        let found = parse(line.as_bytes());
        assert_eq!((found.keys.len(), found.refused.len()), (0, 1), "{line}");
        found.refused[0].why.to_string()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_plain_line() {
        let key = one(&format!("  ssh-ed25519 {ED} alice at home\r"));
        assert_eq!((key.kind, key.comment.as_str(), key.line), (KeyKind::Ed25519, "alice at home", 1));
        assert!(key.terminal && key.from.is_none() && key.expires.is_none());
        assert_eq!(key.fingerprint(), "SHA256:RXm/ruZ0eTzRXKwi1AQEDynB0VgHQ2ac9KPSFdf/YnA");
        assert_eq!(parse(b"# nothing\n\n  \n\t# here\n"), AuthorizedKeys::default());
    }

    #[test]
    fn options_that_are_honoured() {
        let key = one(&format!(
            "from=\"192.0.2.0/24, !192.0.2.66\",EXPIRY-TIME=\"20300102\",no-X11-forwarding ssh-ed25519 {ED}"
        ));
        assert!(key.from.unwrap().allows("192.0.2.1".parse().unwrap()));
        assert_eq!(key.expires, Some(at("2030-01-02T00:00:00Z")));
        for (options, terminal) in [
            ("no-pty", false),
            ("restrict", false),
            ("restrict,pty", true),
            ("pty,restrict", true),
            ("no-port-forwarding,no-agent-forwarding,no-user-rc", true),
        ] {
            assert_eq!(one(&format!("{options} ssh-ed25519 {ED}")).terminal, terminal, "{options}");
        }
    }

    #[test]
    fn any_other_option_refuses_the_key() {
        for option in [
            "command=\"id, really\"",
            "environment=\"A=b\"",
            "permitopen=\"a:1\"",
            "cert-authority",
            "principals=\"alice\"",
            "tunnel=\"0\"",
            "verify-required",
            "no-touch-required",
            "agent-forwarding",
            "no-pty=\"no\"",
            "nonsense",
            "",
        ] {
            let name = option.split('=').next().unwrap();
            let said = format!("option '{name}' is not honoured here, so the key is not accepted");
            assert_eq!(refused(&format!("restrict,{option},no-pty ssh-ed25519 {ED}")), said);
        }
    }

    #[test]
    fn lines_that_are_no_keys_say_why() {
        for (line, said) in [
            ("ssh-ed25519", "no key on the line"),
            ("restrict ssh-ed25519", "no key on the line"),
            ("ssh-ed25519 !!!!", "the key is not base64"),
            ("ssh-ed25519 AAAA", "the key is cut short or damaged"),
            ("ssh-dss AAAAB3NzaC1kc3M= old", "keys of type 'ssh-dss' are not accepted"),
            (
                "ssh-ed25519-cert-v01@openssh.com AAAAIHNz x",
                "keys of type 'ssh-ed25519-cert-v01@openssh.com' are not accepted",
            ),
            ("from=\"* ssh-ed25519 AAAA", "a quote is not closed"),
            ("from=* ssh-ed25519 AAAA", "option 'from' needs a value in double quotes"),
            ("from ssh-ed25519 AAAA", "option 'from' needs a value in double quotes"),
            ("from=\"*\",from=\"*\" ssh-ed25519 AAAA", "option 'from' is there twice"),
            (
                "from=\"host\" ssh-ed25519 AAAA",
                "from= has 'host', which is not an address, a network or a pattern of one; names are not looked up",
            ),
            ("expiry-time=\"2030-01-02\" ssh-ed25519 AAAA", "expiry-time '2030-01-02' is not YYYYMMDD[HHMM[SS]][Z]"),
        ] {
            assert_eq!(refused(line), said, "{line}");
        }
        assert_eq!(refused(&format!("ssh-rsa {ED}")), "the line says 'ssh-rsa', but the key is of type 'ssh-ed25519'");
        assert_eq!(parse(b"\n\xff\n").refused[0].to_string(), "line 2: not UTF-8 text");
        assert_eq!(refused(&"x".repeat(LINE + 1)), "longer than 16 KiB");
        assert_eq!(parse(&[b'"'; 100]).refused.len(), 1);
    }

    #[test]
    fn a_bad_line_does_not_hide_the_next() {
        let file = format!("command=\"x\" ssh-ed25519 {ED}\nssh-ed25519 {OTHER} b\n");
        let found = parse(file.as_bytes());
        assert_eq!((found.keys.len(), found.refused.len(), found.keys[0].line), (1, 1, 2));
    }

    #[test]
    fn the_earliest_expiry_holds() {
        let twice = one(&format!("expiry-time=\"203101010000\",expiry-time=\"20300101\" ssh-ed25519 {ED}"));
        assert_eq!(twice.expires, Some(at("2030-01-01T00:00:00Z")));
    }

    #[test]
    fn a_key_is_found_by_its_blob_and_its_conditions() {
        let file =
            format!("from=\"192.0.2.0/24\" ssh-ed25519 {ED}\nexpiry-time=\"20300101\" ssh-ed25519 {OTHER} {ED}\n");
        let keys = parse(file.as_bytes()).keys;
        let (near, far) = ("192.0.2.1".parse().unwrap(), "198.51.100.1".parse().unwrap());
        let (before, after) = (at("2029-12-31T23:59:59Z"), at("2030-01-01T00:00:00Z"));
        let said = |blob: &[u8], from, now| find(&keys, blob, from, now).map(|k| k.line).map_err(|w| w.to_string());
        assert_eq!(said(&keys[0].blob, near, after), Ok(1));
        assert_eq!(said(&keys[1].blob, far, before), Ok(2));
        assert_eq!(
            said(&keys[0].blob, far, before),
            Err("the key of line 1 may not be used from 198.51.100.1, only from 192.0.2.0/24".into())
        );
        assert_eq!(said(&keys[1].blob, near, after), Err("the key of line 2 expired at 2030-01-01T00:00:00Z".into()));
        assert_eq!(said(b"x", near, after), Err("the key is not one of the 2 listed for the user".into()));
        assert_eq!(find(&[], b"x", near, after), Err(WhyNot::NoKeys));
    }

    #[test]
    fn the_same_key_on_two_lines_needs_one_that_holds() {
        let file = format!("from=\"192.0.2.1\" ssh-ed25519 {ED}\nssh-ed25519 {ED}\n");
        let keys = parse(file.as_bytes()).keys;
        let now = at("2030-01-01T00:00:00Z");
        assert_eq!(find(&keys, &keys[0].blob, "198.51.100.1".parse().unwrap(), now).unwrap().line, 2);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn nor_do_options(options in "[a-z=\",\\\\ !*/0-9.:-]{0,40}", name in "(from|expiry-time|restrict)?") {
            let _ = parse(format!("{name}={options} ssh-ed25519 {ED}").as_bytes());
        }
    }
}
