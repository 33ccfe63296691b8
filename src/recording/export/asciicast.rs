use std::io::{Read, Write};
use std::time::Duration;

use serde_json::json;

use super::{ExportError, about, line};
use crate::recording::summary::Channel;
use crate::recording::{Event, Reader, Text};

/// One channel as asciicast v3: output, input, sizes, markers for what has no code of its own, exit status.
pub fn asciicast<R: Read>(reader: Reader<R>, channel: &Channel, out: &mut impl Write) -> Result<(), ExportError> {
    let mut cast = Cast { out, last: channel.opened, codes: Default::default() };
    cast.put(&header(&reader, channel))?;
    let mut ended = None;
    let mut end = channel.opened;
    for recorded in reader {
        let recorded = recorded?;
        if recorded.event.number().is_none_or(|number| number == channel.number) && recorded.at >= channel.opened {
            end = recorded.at;
            match &recorded.event {
                Event::ExitStatus { status, .. } => ended = Some(*status),
                Event::ExitSignal { name, .. } => ended = Some(128 + number(name)),
                _ => {}
            }
            cast.event(recorded.at, &recorded.event)?;
        }
    }
    cast.finish(end)?;
    // The exit code comes once and last, whatever the channel's leftovers wrote after it.
    ended.map_or(Ok(()), |status| cast.item(end, "x", &status.to_string()))
}

fn header<R: Read>(reader: &Reader<R>, channel: &Channel) -> serde_json::Value {
    let (columns, rows) = channel.terminal.as_ref().map_or((80, 24), |t| (t.columns, t.rows));
    let mut header = json!({
        "version": 3,
        "term": { "cols": columns, "rows": rows },
        "timestamp": (reader.started() + channel.opened).as_second(),
        "stockade": about(reader),
    });
    header["stockade"]["channel"] = json!(channel.name());
    if let Some(terminal) = &channel.terminal {
        header["term"]["type"] = json!(terminal.term);
    }
    if let Some(program) = &channel.program {
        header["command"] = json!(program);
    }
    if let Some(stream) = &channel.stream {
        header["stockade"]["stream"] = super::stream(stream);
    }
    if !channel.environment.is_empty() {
        header["env"] = channel.environment.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    }
    header
}

struct Cast<'a, W> {
    out: &'a mut W,
    last: Duration,
    /// What is left of cut characters: output, error output, input.
    codes: [Text; 3],
}

impl<W: Write> Cast<'_, W> {
    fn put(&mut self, value: &impl serde::Serialize) -> Result<(), ExportError> {
        self.out.write_all(line(value)?.as_bytes()).map_err(ExportError::Write)
    }

    /// Intervals are exact to the microsecond, so that rounding does not add up.
    fn item(&mut self, at: Duration, code: &str, data: &str) -> Result<(), ExportError> {
        let interval = at.saturating_sub(self.last);
        self.last = self.last.max(at);
        let data = line(&data)?;
        writeln!(
            self.out,
            "[{}.{:06}, \"{code}\", {}]",
            interval.as_secs(),
            interval.subsec_micros(),
            data.trim_end_matches('\n')
        )
        .map_err(ExportError::Write)
    }

    fn bytes(&mut self, at: Duration, stream: usize, data: &[u8]) -> Result<(), ExportError> {
        let Some(text) = self.codes.get_mut(stream) else { return Ok(()) };
        let text = text.push(data);
        if text.is_empty() { Ok(()) } else { self.item(at, CODES.get(stream).unwrap_or(&"o"), &text) }
    }

    fn event(&mut self, at: Duration, event: &Event) -> Result<(), ExportError> {
        let label = match event {
            Event::Output { data, .. } => return self.bytes(at, 0, data),
            Event::ErrorOutput { data, .. } => return self.bytes(at, 1, data),
            Event::Input { data, .. } => return self.bytes(at, 2, data),
            Event::Resize { columns, rows, .. } => return self.item(at, "r", &format!("{columns}x{rows}")),
            Event::Channel { .. } | Event::KubeStream { .. } | Event::ExitStatus { .. } => return Ok(()),
            Event::InputRedacted { bytes, why, .. } => format!("input of {bytes} bytes redacted: {why}"),
            Event::InputEnd { .. } => "end of input".to_owned(),
            Event::Signal { name, .. } => format!("signal {name}"),
            Event::Exec { exec, .. } => format!("exec {}: {}", exec.path, exec.arguments.join(" ")),
            Event::ExitSignal { name, .. } => format!("ended by signal {name}"),
            Event::Bulk { direction, offset, length, sha256, .. } => {
                let hash = super::hex(sha256);
                format!("{} of {length} bytes from {offset} on, SHA-256 {hash}", direction.as_str())
            }
            Event::Clock { jump, .. } => format!("the wall clock jumped by {jump} us"),
            Event::Note { text } => text.clone(),
            Event::Credential { access_key_id, .. } => format!("credentials {access_key_id} issued"),
            Event::Detached { .. } => "detached".to_owned(),
            Event::Attached { .. } => "attached".to_owned(),
        };
        self.item(at, "m", &label)
    }

    fn finish(&mut self, at: Duration) -> Result<(), ExportError> {
        for (stream, code) in CODES.iter().enumerate() {
            if let Some(rest) = self.codes.get_mut(stream).and_then(Text::end) {
                self.item(at, code, &rest)?;
            }
        }
        Ok(())
    }
}

const CODES: [&str; 3] = ["o", "o", "i"];

/// Linux's number of a signal of RFC 4254 section 6.10; 127 for a name that is none.
fn number(name: &str) -> u32 {
    const NAMES: [(&str, u32); 13] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("ABRT", 6),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
    ];
    NAMES.iter().find(|(known, _)| *known == name).map_or(127, |(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{export, session};
    use super::*;

    #[test]
    fn golden() {
        let text = export(&session(), asciicast).unwrap();
        let mut lines = text.lines();
        let header: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        assert_eq!(header["version"], 3);
        assert_eq!(header["term"], json!({ "cols": 80, "rows": 24, "type": "xterm-256color" }));
        assert_eq!(header["timestamp"], 1_731_600_000);
        assert_eq!(header["env"], json!({ "LANG": "C.UTF-8" }));
        assert_eq!(header["stockade"]["user"], "alice");
        assert_eq!(header["stockade"]["channel"], "c1");
        let rest: Vec<&str> = lines.collect();
        assert_eq!(
            rest,
            [
                r#"[0.050000, "m", "credentials ASIAEXAMPLE issued"]"#,
                r#"[0.050000, "m", "exec /bin/bash: -bash"]"#,
                r#"[0.100000, "o", "\u001b]0;t\u0007\u001b[1malice$\u001b[0m "]"#,
                r#"[1.000000, "i", "echo ü\r"]"#,
                r#"[0.010000, "o", "echo "]"#,
                r#"[0.002500, "o", "ü\r\nü\r\n"]"#,
                r#"[0.037500, "r", "100x30"]"#,
                r#"[0.050000, "m", "input of 9 bytes redacted: echo off"]"#,
                r#"[0.100000, "o", "bad �\u009b byte\r\n"]"#,
                r#"[0.300000, "o", "�"]"#,
                r#"[0.000000, "x", "3"]"#,
            ]
        );
    }
}
