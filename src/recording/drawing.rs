//! A recording is hostile to the terminal that replays it. What passes here can draw and nothing else: no clipboard, no
//! title, no question that the terminal would answer into the reviewer's shell, no mode that changes what keys send.

/// Longer sequences than these draw nothing that anybody uses.
const LONGEST: usize = 64;

/// A count above this is not a screen's: terminals have hung on `CSI 99999999 b`.
const LARGEST: u32 = 9999;

/// Private modes that draw: reverse video, origin, wrap, cursor, alternate screens, margins, synchronized output.
const PRIVATE_MODES: [u32; 11] = [5, 6, 7, 12, 25, 47, 69, 1047, 1048, 1049, 2026];

/// The filter's place in the stream; sequences and characters may be split anywhere between two calls.
#[derive(Debug, Default)]
pub struct Drawing {
    state: State,
    sequence: Vec<u8>,
    text: super::Text,
    /// What was passed last switched to the alternate screen.
    alternate: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    Escape,
    /// ESC and intermediates.
    Designate,
    Csi,
    /// A CSI sequence that is not to be passed.
    Skip,
    /// OSC, DCS, SOS, PM, APC.
    String,
    /// ESC inside a string: the string has ended, whatever follows.
    StringEscape,
}

impl Drawing {
    pub fn new() -> Self {
        Self::default()
    }

    /// What of `bytes` may be written to a terminal: valid UTF-8, whole sequences, drawing only.
    pub fn filter(&mut self, bytes: &[u8]) -> String {
        let text = self.text.push(bytes);
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            self.step(c, &mut out);
        }
        out
    }

    /// Gives the terminal back: colours, cursor, margins, modes, character sets, and the screen that it had before.
    pub fn restore(&self) -> String {
        // Outside the alternate screen 1049 would move the cursor to where it was saved last.
        let leave = if self.alternate { "\x1b[?1049l" } else { "" };
        // Origin mode is left to the soft reset: to switch it off by itself moves the cursor.
        format!(
            "\x1b[?2026l{leave}\x1b[!p\x1b[?5l\x1b[?69l\x1b7\x1b[r\x1b8\x1b[?7h\x1b[?25h\x1b[20l\x1b[0 q\
             \x1b(B\x1b)0\x0f\x1b[0m"
        )
    }

    fn step(&mut self, c: char, out: &mut String) {
        match (c, self.state) {
            // CAN and SUB abort any sequence.
            ('\x18' | '\x1a', _) => self.state = State::Ground,
            ('\x1b', State::String) => self.state = State::StringEscape,
            ('\x1b', _) => self.begin(State::Escape),
            ('\x07', State::String) => self.state = State::Ground,
            (_, State::String) => {}
            ('\\', State::StringEscape) => self.state = State::Ground,
            (_, State::StringEscape) => {
                self.begin(State::Escape);
                self.escape(c, out);
            }
            // C0 inside a sequence is obeyed at once and the sequence goes on.
            ('\0'..='\x1f' | '\x7f', _) => control(c, out),
            // 8-bit controls: xterm obeys U+009B. To swallow what follows could hide text, so only the control goes.
            ('\u{80}'..='\u{9f}', _) => out.push(char::REPLACEMENT_CHARACTER),
            (_, State::Ground) => out.push(c),
            (_, State::Escape) => self.escape(c, out),
            (_, State::Designate) => self.designate(c, out),
            (_, State::Csi) => self.csi(c, out),
            (_, State::Skip) => {
                if matches!(c, '@'..='~') {
                    self.state = State::Ground;
                }
            }
        }
    }

    fn begin(&mut self, state: State) {
        self.state = state;
        self.sequence.clear();
    }

    fn escape(&mut self, c: char, out: &mut String) {
        self.state = State::Ground;
        match c {
            '[' => self.begin(State::Csi),
            ']' | 'P' | 'X' | '^' | '_' => self.begin(State::String),
            ' '..='/' => {
                self.state = State::Designate;
                self.sequence.push(c as u8);
            }
            '7' | '8' | 'D' | 'E' | 'H' | 'M' => {
                out.push('\x1b');
                out.push(c);
            }
            // RIS also empties the scrollback and forgets the reviewer's settings: reset softly and clear the screen.
            'c' => {
                self.alternate = false;
                out.push_str("\x1b[!p\x1b[?1049l\x1b[2J\x1b[H");
            }
            _ => {}
        }
    }

    fn designate(&mut self, c: char, out: &mut String) {
        if matches!(c, ' '..='/') {
            self.sequence.push(c as u8);
            if self.sequence.len() > LONGEST {
                self.state = State::Skip;
            }
            return;
        }
        self.state = State::Ground;
        let passes = match self.sequence[..] {
            [set @ (b'(' | b')')] => matches!(c, '0' | 'A' | 'B').then_some(set),
            [b'#'] => matches!(c, '3'..='6' | '8').then_some(b'#'),
            _ => None,
        };
        if let Some(intermediate) = passes {
            out.extend(['\x1b', char::from(intermediate), c]);
        }
    }

    fn csi(&mut self, c: char, out: &mut String) {
        match u8::try_from(c) {
            Ok(byte @ 0x20..=0x3f) if self.sequence.len() < LONGEST => self.sequence.push(byte),
            Ok(0x20..=0x3f) => self.state = State::Skip,
            Ok(end @ 0x40..=0x7e) => {
                self.state = State::Ground;
                if let Some(sequence) = drawing(&self.sequence, end) {
                    if switches_screen(&sequence) {
                        self.alternate = end == b'h';
                    }
                    out.push_str(&sequence);
                }
            }
            // Not ASCII: no terminal agrees with another what this is; the character is shown.
            _ => {
                self.state = State::Ground;
                out.push(c);
            }
        }
    }
}

fn control(c: char, out: &mut String) {
    // Not BEL, which disturbs, nor ENQ, which is answered.
    if matches!(c, '\x08'..='\x0f') {
        out.push(c);
    }
}

/// The control sequence as it may be passed.
fn drawing(sequence: &[u8], end: u8) -> Option<String> {
    let text = std::str::from_utf8(sequence).ok()?;
    let (private, rest) = match text.strip_prefix('?') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let split = rest.find(|c: char| !matches!(c, '0'..='9' | ';' | ':')).unwrap_or(rest.len());
    let (parameters, intermediates) = rest.split_at_checked(split)?;
    let numbers: Vec<u32> =
        parameters.split([';', ':']).map(|n| n.parse().unwrap_or(u32::from(!n.is_empty()))).collect();
    let small = parameters.split([';', ':']).all(|n| n.is_empty() || n.parse::<u32>().is_ok_and(|n| n <= LARGEST));
    let final_ = char::from(end);
    let whole = || Some(format!("\x1b[{text}{final_}"));
    match (private, intermediates, final_) {
        _ if !small => None,
        (true, "", 'h' | 'l') => {
            let modes: Vec<String> =
                numbers.iter().filter(|mode| PRIVATE_MODES.contains(mode)).map(u32::to_string).collect();
            (!modes.is_empty()).then(|| format!("\x1b[?{}{final_}", modes.join(";")))
        }
        (true, "", 'J' | 'K') => whole(),
        (true, ..) => None,
        // Insert mode and new-line mode.
        (false, "", 'h' | 'l') => numbers.iter().all(|mode| matches!(mode, 4 | 20)).then(whole)?,
        // With more parameters `T` starts mouse tracking.
        (false, "", 'T') => (numbers.len() == 1).then(whole)?,
        (false, "", 'A'..='M' | 'P' | 'S' | 'X' | 'Z' | '@' | '`' | 'a' | 'b' | 'd' | 'e' | 'f' | 'g' | 'm' | 'r') => {
            whole()
        }
        (false, "", 's' | 'u') => whole(),
        (false, " ", 'q') | (false, "!", 'p') => whole(),
        _ => None,
    }
}

fn switches_screen(sequence: &str) -> bool {
    let modes = sequence.strip_prefix("\x1b[?").and_then(|rest| rest.strip_suffix(['h', 'l']));
    modes.is_some_and(|modes| modes.split(';').any(|mode| matches!(mode, "47" | "1047" | "1049")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> String {
        Drawing::new().filter(text.as_bytes())
    }

    #[test]
    fn what_draws_passes() {
        for text in [
            "plain\r\n\ttext\x08",
            "größe 字 🦀",
            "\x1b[1;31mred\x1b[0m\x1b[38;2;1;2;3m\x1b[4:3m",
            "\x1b[2J\x1b[H\x1b[10;20H\x1b[K\x1b[3@\x1b[2P\x1b[5L",
            "\x1b[?1049h\x1b[?25l\x1b[1;24r\x1b[?25h\x1b[?1049l",
            "\x1b7\x1b8\x1bM\x1bD\x1b(0lqk\x1b(B\x0e\x0f",
            "\x1b[2 q\x1b[!p\x1b[s\x1b[u\x1b#8",
        ] {
            assert_eq!(filter(text), text);
        }
    }

    #[test]
    fn what_does_more_than_draw_is_taken_out() {
        for bad in [
            "\x1b]52;c;cm0gLXJmIC8K\x07",
            "\x1b]52;c;cm0gLXJmIC8K\x1b\\",
            "\x1b]0;title\x07",
            "\x1b]8;;https://example.test\x1b\\",
            "\x1bP$q\"p\x1b\\",
            "\x1bP+q544e\x1b\\",
            "\x1b_Gi=1;AAAA\x1b\\",
            "\x1b^pm\x1b\\",
            "\x1bXsos\x1b\\",
            "\x1b[c",
            "\x1b[>c",
            "\x1b[=c",
            "\x1b[6n",
            "\x1b[?6n",
            "\x1b[?996n",
            "\x1b[>q",
            "\x1b[?2026$p",
            "\x1b[x",
            "\x1bZ",
            "\x05",
            "\x07",
            "\x1b[21t",
            "\x1b[14t",
            "\x1b[?u",
            "\x1b[>1u",
            "\x1b[>4;2m",
            "\x1b[?1000h\x1b[?1006h\x1b[?2004h\x1b[?1004h\x1b[?1h\x1b[?9001h",
            "\x1b=\x1b>",
            "\x1b[5i\x1b[4i",
            "\x1b[1;1;1;1;1T",
            "\x1b[1;1;1;1;1;1*y",
            "\x1b%@",
            "\x1b[99999999b",
            "\x1b[2;1;99999999999999999999m",
            "\x1b]unfinished then \x18",
        ] {
            assert_eq!(filter(&format!("a{bad}b")), "ab", "{bad:?}");
        }
    }

    #[test]
    fn of_mixed_modes_only_the_drawing_ones_pass() {
        assert_eq!(filter("\x1b[?1049;1000;25h"), "\x1b[?1049;25h");
    }

    #[test]
    fn eight_bit_controls_show_as_replacement_and_hide_nothing() {
        assert_eq!(filter("a\u{9b}5nb\u{9d}52;c;x"), "a\u{fffd}5nb\u{fffd}52;c;x");
        assert_eq!(Drawing::new().filter(b"a\x9b5n"), "a\u{fffd}5n");
    }

    #[test]
    fn an_escape_inside_a_string_ends_it() {
        assert_eq!(filter("\x1b]0;x\x1b[31mred"), "\x1b[31mred");
        assert_eq!(filter("\x1b]0;x\x1b]52;c;y\x07z"), "z");
    }

    #[test]
    fn the_alternate_screen_is_left_only_when_it_was_entered() {
        let mut drawing = Drawing::new();
        for (text, left) in [("$ ", false), ("\x1b[?25;1049h", true), ("\x1b[?1049l", false), ("\x1b[?47h\x1bc", false)]
        {
            drawing.filter(text.as_bytes());
            assert_eq!(drawing.restore().contains("1049l"), left, "{text:?}");
        }
    }

    proptest! {
        /// However the stream is cut, the same comes out, and all of it is drawing.
        #[test]
        fn cuts_change_nothing(
            parts in proptest::collection::vec(prop_oneof![
                Just(b"\x1b".to_vec()), Just(b"[".to_vec()), Just(b"]".to_vec()), Just(b"\x1b[".to_vec()),
                Just(b"?".to_vec()), Just(b"c".to_vec()), Just(b"6n".to_vec()), Just(b"\x9b".to_vec()),
                Just("\u{9b}".as_bytes().to_vec()), Just(b"\x07".to_vec()), Just(b"\x1b\\".to_vec()),
                proptest::collection::vec(any::<u8>(), 0..8),
            ], 0..40),
        ) {
            let whole: Vec<u8> = parts.concat();
            let at_once = Drawing::new().filter(&whole);
            let mut drawing = Drawing::new();
            let split: String = parts.iter().map(|part| drawing.filter(part)).collect();
            prop_assert_eq!(&at_once, &split);
            let mut bytes = Drawing::new();
            let single: String = whole.iter().map(|byte| bytes.filter(&[*byte])).collect();
            prop_assert_eq!(&at_once, &single);
            // What passed once passes again unchanged.
            prop_assert_eq!(filter(&at_once), at_once);
        }
    }
}
