use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{ExportError, about, hex, line};
use crate::recording::{Event, Reader};
use crate::session::channel_name;

/// One JSON object a line: the header, every event (of one channel and of the whole session, if one is named), the
/// closing frame. Bytes are `text` where they are UTF-8, else `base64`.
pub fn json<R: Read>(mut reader: Reader<R>, channel: Option<u32>, out: &mut impl Write) -> Result<(), ExportError> {
    let mut put = |value: &Value| out.write_all(line(value)?.as_bytes()).map_err(ExportError::Write);
    put(&header(&reader))?;
    for recorded in reader.by_ref() {
        let recorded = recorded?;
        let number = recorded.event.number();
        if channel.is_some() && number.is_some() && channel != number {
            continue;
        }
        let (name, fields) = fields(&recorded.event);
        let mut object = Map::new();
        object.insert("at".into(), json!(recorded.at.as_micros() as f64 / 1e6));
        object.insert("event".into(), json!(name));
        if let Some(number) = number {
            object.insert("channel".into(), json!(channel_name(number)));
        }
        if let Value::Object(fields) = fields {
            object.extend(fields);
        }
        put(&Value::Object(object))?;
    }
    match reader.closing() {
        None => put(&json!({ "event": "unclosed", "at": reader.length().as_micros() as f64 / 1e6 })),
        Some(closing) => put(&json!({
            "event": "closing",
            "at": reader.length().as_micros() as f64 / 1e6,
            "wall": reader.closed_at().map(|wall| wall.to_string()),
            "reason": closing.reason,
            "exit": closing.exit,
            "lost": closing.lost,
            "events": closing.totals.events,
            "head": hex(&reader.head()),
        })),
    }
}

fn header<R: Read>(reader: &Reader<R>) -> Value {
    let mut header = about(reader);
    header["event"] = json!("header");
    header["started"] = json!(reader.started().to_string());
    header["bulk_after"] = json!(reader.opening().bulk_after);
    header
}

fn bytes(data: &[u8]) -> Value {
    match std::str::from_utf8(data) {
        Ok(text) => json!({ "text": text }),
        Err(_) => json!({ "base64": STANDARD.encode(data) }),
    }
}

fn fields(event: &Event) -> (&'static str, Value) {
    match event {
        Event::Output { data, .. } => ("output", bytes(data)),
        Event::ErrorOutput { data, .. } => ("error_output", bytes(data)),
        Event::Input { data, .. } => ("input", bytes(data)),
        Event::InputRedacted { bytes, why, .. } => ("input_redacted", json!({ "bytes": bytes, "why": why })),
        Event::InputEnd { .. } => ("input_end", json!({})),
        Event::Resize { columns, rows, width, height, .. } => {
            ("resize", json!({ "columns": columns, "rows": rows, "width": width, "height": height }))
        }
        Event::Signal { name, .. } => ("signal", json!({ "name": name })),
        Event::Channel { program, terminal, environment, .. } => {
            let terminal = terminal.as_ref().map(|t| {
                json!({
                    "term": t.term, "columns": t.columns, "rows": t.rows,
                    "width": t.width, "height": t.height, "modes": t.modes,
                })
            });
            ("channel", json!({ "program": program, "terminal": terminal, "environment": environment }))
        }
        Event::KubeStream { stream, .. } => ("kube_stream", super::stream(stream)),
        Event::Exec { exec, .. } => {
            ("exec", json!({ "pid": exec.pid, "path": exec.path, "arguments": exec.arguments }))
        }
        Event::ExitStatus { status, .. } => ("exit_status", json!({ "status": status })),
        Event::ExitSignal { name, .. } => ("exit_signal", json!({ "name": name })),
        Event::Bulk { direction, offset, length, sha256, .. } => (
            "bulk",
            json!({ "direction": direction.as_str(), "offset": offset, "length": length, "sha256": hex(sha256) }),
        ),
        Event::Clock { wall, jump } => ("clock", json!({ "wall_us": wall, "jump_us": jump })),
        Event::Note { text } => ("note", json!({ "text": text })),
        Event::Credential { access_key_id, expires } => {
            ("credential", json!({ "access_key_id": access_key_id, "expires": expires }))
        }
        Event::Detached { .. } => ("detached", json!({})),
        Event::Attached { .. } => ("attached", json!({})),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{export, session};
    use super::*;

    #[test]
    fn golden() {
        let text = export(&session(), |reader, _, out| json(reader, Some(1), out)).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["user"], "alice");
        assert_eq!(lines[0]["started"], "2024-11-14T16:00:00Z");
        let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
        assert_eq!(
            events,
            [
                "header",
                "channel",
                "credential",
                "exec",
                "output",
                "input",
                "output",
                "output",
                "resize",
                "input_redacted",
                "output",
                "output",
                "exit_status",
                "closing",
            ]
        );
        assert_eq!(lines[5], json!({ "at": 1.2, "channel": "c1", "event": "input", "text": "echo ü\r" }));
        assert_eq!(lines[6], json!({ "at": 1.21, "channel": "c1", "event": "output", "base64": "ZWNobyDD" }));
        assert_eq!(lines[13]["reason"], "exit");
        assert_eq!(lines[13]["exit"], 0);
        assert!(!text.chars().any(|c| c != '\n' && c.is_control()), "{text:?}");
    }
}
