//! Which input of a terminal is not kept.

use std::os::fd::AsFd;

use regex::bytes::RegexSet;
use rustix::termios::{LocalModes, tcgetattr};

/// How much of the newest output can be a prompt.
const PROMPT: usize = 512;

/// What is kept of a user's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InputPolicy {
    /// Everything.
    Full,
    /// Everything but what is typed while the terminal does not echo.
    #[default]
    Redacted,
    /// How much, never what.
    None,
}

/// What a terminal does with input, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Echo {
    pub(super) echo: bool,
    pub(super) canonical: bool,
}

impl Echo {
    /// Asks the master; the answer is the slave's.
    pub(super) fn of(master: impl AsFd) -> Self {
        // A terminal that cannot be asked is taken for one that hides.
        let modes = tcgetattr(master).map(|settings| settings.local_modes);
        let has = |mode| modes.is_ok_and(|modes| modes.contains(mode));
        Self { echo: has(LocalModes::ECHO), canonical: modes.is_err() || has(LocalModes::ICANON) }
    }
}

/// One terminal's newest output and whether a secret is being typed.
#[derive(Debug)]
pub(super) struct Redaction {
    policy: InputPolicy,
    prompts: RegexSet,
    line: Vec<u8>,
    secret: bool,
}

impl Redaction {
    pub(super) fn new(policy: InputPolicy, prompts: RegexSet) -> Self {
        Self { policy, prompts, line: Vec::new(), secret: false }
    }

    /// Output went by.
    pub(super) fn shown(&mut self, data: &[u8]) {
        let data = data.get(data.len().saturating_sub(PROMPT)..).unwrap_or_default();
        match data.iter().rposition(|b| *b == b'\n') {
            Some(at) => {
                self.line.clear();
                self.line.extend_from_slice(data.get(at + 1..).unwrap_or_default());
            }
            None => self.line.extend_from_slice(data),
        }
        let excess = self.line.len().saturating_sub(PROMPT);
        self.line.drain(..excess);
    }

    /// Why this input is not to be kept, if it is not.
    ///
    /// The patterns are asked only while nothing is echoed: what is echoed is in the recording anyway, as output.
    pub(super) fn withhold(&mut self, input: &[u8], echo: Echo) -> Option<&'static str> {
        match self.policy {
            InputPolicy::Full => return None,
            InputPolicy::None => return Some("policy"),
            InputPolicy::Redacted => {}
        }
        if !echo.echo && echo.canonical {
            return Some("echo off");
        }
        if !self.secret && (echo.echo || !self.prompts.is_match(&plain(&self.line))) {
            return None;
        }
        // Until the line is sent (CR, LF) or given up (^C, ^D).
        self.secret = !input.iter().any(|b| matches!(b, b'\r' | b'\n' | 3 | 4));
        if !self.secret {
            // The prompt has had its answer; only a new one hides again.
            self.line.clear();
        }
        Some("pattern")
    }
}

/// Text without its colours and cursor movements.
fn plain(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len());
    let mut bytes = line.iter().copied();
    while let Some(b) = bytes.next() {
        match b {
            0x1b => match bytes.next() {
                Some(b'[') => drop(bytes.by_ref().find(|b| (0x40..=0x7e).contains(b))),
                Some(b']') => drop(bytes.by_ref().find(|b| matches!(b, 7 | 0x9c))),
                _ => {}
            },
            // A prompt that is drawn again on the same line is the part after the return.
            b'\r' => out.clear(),
            0..0x20 => {}
            b => out.push(b),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPED: Echo = Echo { echo: true, canonical: true };
    const HIDDEN: Echo = Echo { echo: false, canonical: true };
    const RAW: Echo = Echo { echo: false, canonical: false };

    fn redaction(policy: InputPolicy) -> Redaction {
        Redaction::new(policy, RegexSet::new([crate::keeper::PROMPTS]).unwrap())
    }

    #[test]
    fn echo_off_hides_and_readline_does_not() {
        let mut redaction = redaction(InputPolicy::Redacted);
        assert_eq!(redaction.withhold(b"ls\r", TYPED), None);
        assert_eq!(redaction.withhold(b"ls\r", RAW), None);
        assert_eq!(redaction.withhold(b"hunter2\r", HIDDEN), Some("echo off"));
    }

    #[test]
    fn a_raw_prompt_hides_until_the_line_is_sent() {
        let mut redaction = redaction(InputPolicy::Redacted);
        redaction.shown(b"first line\r\n\x1b[1m[sudo] Password for alice:\x1b[0m ");
        assert_eq!(redaction.withhold(b"h", RAW), Some("pattern"));
        redaction.shown(b"*");
        assert_eq!(redaction.withhold(b"unter2", RAW), Some("pattern"));
        assert_eq!(redaction.withhold(b"\r", RAW), Some("pattern"));
        redaction.shown(b"*\r\n$ ");
        assert_eq!(redaction.withhold(b"ls\r", RAW), None);
    }

    #[test]
    fn policies_without_a_look_at_the_terminal() {
        assert_eq!(redaction(InputPolicy::Full).withhold(b"x", HIDDEN), None);
        assert_eq!(redaction(InputPolicy::None).withhold(b"x", TYPED), Some("policy"));
    }

    #[test]
    fn a_line_is_bounded() {
        let mut redaction = redaction(InputPolicy::Redacted);
        for _ in 0..100 {
            redaction.shown(&[b'x'; 300]);
        }
        assert_eq!(redaction.line.len(), PROMPT);
    }
}
