//! What clients ask for, cut to what may be passed on. Every byte here is hostile.

use russh::{Pty, Sig};

use crate::identity::Pattern;
use crate::privsep::message::{Size, Terminal};

/// The longest user name that is passed on.
const LONGEST_USER: usize = 320;

/// A key of RSA's 16384 bits, the most that OpenSSH makes, is a quarter of this.
pub const LONGEST_KEY: usize = 8 * 1024;

/// The longest command that is passed on.
const LONGEST_COMMAND: usize = 64 * 1024;

/// The longest value of a variable, and how many there may be: together they stay below a packet.
const LONGEST_VALUE: usize = 1024;
const MOST_VARIABLES: usize = 32;

/// The longest piece of a client's text in an event.
const LONGEST_QUOTE: usize = 200;

pub fn user(text: &str) -> String {
    cut(text, LONGEST_USER).to_owned()
}

/// A client's text for an event.
pub fn quote(text: &str) -> String {
    cut(text, LONGEST_QUOTE).to_owned()
}

fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

pub fn command(bytes: &[u8]) -> Result<String, &'static str> {
    if bytes.len() > LONGEST_COMMAND {
        return Err("the command is longer than 64 KiB; send it as input to a shell");
    }
    if bytes.contains(&0) {
        return Err("the command has a NUL byte in it");
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| "the command is not UTF-8")
}

pub fn terminal(term: &str, size: Size, modes: &[(Pty, u32)]) -> Terminal {
    // A name is looked up as a file below /usr/share/terminfo.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"+-._".contains(&b);
    let named = !term.is_empty() && term.len() <= 64 && term.bytes().all(plain) && !term.starts_with('.');
    Terminal {
        term: if named { term } else { "dumb" }.to_owned(),
        size,
        // russh leaves an end mark where it did not know an opcode.
        modes: modes.iter().map(|(mode, value)| (*mode as u8, *value)).filter(|(mode, _)| *mode != 0).collect(),
    }
}

pub fn size(columns: u32, rows: u32, width: u32, height: u32) -> Size {
    let [columns, rows, width, height] = [columns, rows, width, height].map(|n| u16::try_from(n).unwrap_or(u16::MAX));
    Size { columns, rows, width, height }
}

/// Adds a variable if its name is allowed and both are fit for an environment. A later value replaces an earlier one.
pub fn variable(environment: &mut Vec<(String, String)>, allowed: &[Pattern], name: &str, value: &str) -> bool {
    let fit = !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && value.len() <= LONGEST_VALUE
        && !value.contains('\0');
    if !fit || !(name == "TERM" || allowed.iter().any(|pattern| pattern.matches(name))) {
        return false;
    }
    if let Some((_, old)) = environment.iter_mut().find(|(known, _)| known == name) {
        *old = value.to_owned();
        return true;
    }
    if environment.len() >= MOST_VARIABLES {
        return false;
    }
    environment.push((name.to_owned(), value.to_owned()));
    true
}

/// The signal's name, if it is one of RFC 4254 section 6.10.
pub fn signal(signal: &Sig) -> Option<&'static str> {
    Some(match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) if name == "USR2" => "USR2",
        Sig::Custom(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_allowed_variables_pass() {
        let allowed = ["LANG", "LC_*", "P?"].map(Pattern::new);
        let mut environment = Vec::new();
        for (name, value, passes) in [
            ("LANG", "C.UTF-8", true),
            ("LC_ALL", "C", true),
            ("LC_", "", true),
            ("TERM", "xterm", true),
            ("LANG", "de", true),
            ("PS", "1", true),
            ("LANGUAGE", "de", false),
            ("PS1", "$", false),
            ("", "x", false),
            ("LD_PRELOAD", "/x", false),
            ("LC_A\0B", "C", false),
            ("LC_A=B", "C", false),
            ("LC_X", "a\0b", false),
        ] {
            assert_eq!(variable(&mut environment, &allowed, name, value), passes, "{name}");
        }
        assert_eq!(environment.first().unwrap().1, "de");
        assert_eq!(environment.len(), 5);
    }

    #[test]
    fn a_terminal_is_never_a_path() {
        for bad in ["../../etc/passwd", "", "x y", ".", "a/b", &"x".repeat(65)] {
            assert_eq!(terminal(bad, Size::default(), &[]).term, "dumb");
        }
        let modes = [(Pty::VINTR, 3), (Pty::TTY_OP_END, 0)];
        let terminal = terminal("xterm-256color", Size::default(), &modes);
        assert_eq!((terminal.term.as_str(), terminal.modes), ("xterm-256color", vec![(1, 3)]));
    }

    proptest! {
        #[test]
        fn any_user_name_is_cut_to_its_length(text in "\\PC{0,400}") {
            prop_assert!(user(&text).len() <= LONGEST_USER);
            prop_assert!(text.starts_with(&user(&text)));
        }

        #[test]
        fn any_command_is_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(text) = command(&bytes) {
                prop_assert_eq!(text.as_bytes(), &bytes[..]);
                prop_assert!(!text.contains('\0'));
            }
        }
    }
}
