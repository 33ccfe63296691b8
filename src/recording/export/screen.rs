use std::io::{Read, Write};

use avt::observer::Transcript;
use avt::parser::Function;
use avt::{Observation, Observer, Operation, ScreenKind, Terminal};

use super::ExportError;
use crate::recording::summary::Channel;
use crate::recording::{Drawing, Event, Reader};

/// One channel as the lines that were on its screen, in order; of a full-screen program its last screen.
pub fn screen<R: Read>(reader: Reader<R>, channel: &Channel, out: &mut impl Write) -> Result<(), ExportError> {
    let (columns, rows) = channel.terminal.as_ref().map_or((80, 24), |t| (t.columns, t.rows));
    let (columns, rows) = size(columns, rows);
    let mut terminal = Terminal::new(columns, rows)
        .map_err(|e| ExportError::Write(std::io::Error::new(std::io::ErrorKind::InvalidInput, e)))?;
    let mut lines = Transcript::new();
    let mut full = FullScreen::default();
    let mut drawing = Drawing::new();
    let mut write =
        |text: Vec<String>| text.iter().try_for_each(|line| writeln!(out, "{line}")).map_err(ExportError::Write);
    for recorded in reader {
        let recorded = match recorded {
            Ok(recorded) => recorded,
            Err(e) => {
                write(lines.finish(&terminal))?;
                return Err(e.into());
            }
        };
        if recorded.event.number() != Some(channel.number) {
            continue;
        }
        match recorded.event {
            Event::Output { data, .. } | Event::ErrorOutput { data, .. } => {
                let mut text = drawing.filter(&data);
                if channel.terminal.is_none() {
                    // No terminal driver added the carriage returns.
                    text = text.replace('\n', "\r\n");
                }
                let (done, ()) = terminal.feed_with(&text, (&mut lines, &mut full));
                write(done)?;
                write(std::mem::take(&mut full.left))?;
            }
            Event::Resize { columns, rows, .. } => {
                let (columns, rows) = size(columns, rows);
                write(terminal.resize_with(columns, rows, &mut lines))?;
            }
            _ => {}
        }
    }
    let unfinished = match terminal.active_screen_kind() {
        ScreenKind::Alternate => text(&terminal),
        ScreenKind::Primary => Vec::new(),
    };
    write(lines.finish(&terminal))?;
    write(unfinished)
}

/// A client may claim any size, and a screen takes memory.
fn size(columns: u16, rows: u16) -> (usize, usize) {
    (usize::from(columns.clamp(1, 1000)), usize::from(rows.clamp(1, 500)))
}

/// The last screen of a full-screen program, taken at the moment when it gives the terminal back.
#[derive(Debug, Default)]
struct FullScreen {
    now: Vec<String>,
    left: Vec<String>,
}

impl Observer for FullScreen {
    type Output = ();

    fn before(&mut self, context: &mut Observation<'_>, operation: &Operation) {
        let leaves = matches!(operation, Operation::Function(Function::Decrst(_) | Function::Ris));
        if leaves && context.terminal().active_screen_kind() == ScreenKind::Alternate {
            self.now = text(context.terminal());
        }
    }

    fn after(&mut self, context: &mut Observation<'_>, _: &Operation) {
        if context.terminal().active_screen_kind() == ScreenKind::Primary {
            self.left.append(&mut self.now);
        }
    }

    fn end(&mut self, _: &mut Observation<'_>) {}
}

/// The lines of the screen that is shown, without the empty ones below.
fn text(terminal: &Terminal) -> Vec<String> {
    let mut lines: Vec<String> = terminal.screen().text().iter().map(|line| line.trim_end().to_owned()).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::tests::{export, session, with};
    use super::*;

    fn shown(file: &[u8]) -> String {
        export(file, screen).unwrap()
    }

    #[test]
    fn golden() {
        assert_eq!(shown(&session()), "alice$ echo ü\nü\nbad \u{fffd}\u{fffd} byte\n");
    }

    #[test]
    fn a_full_screen_program_leaves_its_last_screen() {
        let file = with(&["$ less\r\n\x1b[?1049h\x1b[Hfirst", "\x1b[2J\x1b[Hlast\r\n~\x1b[?1049l", "$ \r\n"]);
        assert_eq!(shown(&file), "last\n~\n$ less\n$\n");
        let file = with(&["$ k9s\r\n\x1b[?1049h\x1b[2J\x1b[Hpods"]);
        assert_eq!(shown(&file), "$ k9s\npods\n");
    }

    #[test]
    fn a_pipe_has_lines_and_no_staircase() {
        let file = with(&[]);
        assert_eq!(export_number(&file, 2), "one\ntwo\n");
    }

    fn export_number(file: &[u8], number: u32) -> String {
        super::super::tests::export_channel(file, number, screen).unwrap()
    }

    #[test]
    fn a_torn_recording_is_shown_to_its_last_whole_frame() {
        let file = session();
        let mut out = Vec::new();
        let mut reader = Reader::open(&file[..]).unwrap();
        let summary = crate::recording::Summary::of(&mut reader);
        let channel = summary.main_channel().unwrap();
        let torn = Reader::open(&file[..file.len() - 5]).unwrap();
        assert!(matches!(screen(torn, channel, &mut out), Err(ExportError::Read(_))));
        assert!(String::from_utf8(out).unwrap().starts_with("alice$ echo"));
    }
}
