//! A recording as something that other tools read. Each export stops at the first fault of the recording and says it.

mod asciicast;
mod json;
mod screen;

use std::io::{self, Read};

pub use asciicast::asciicast;
pub use json::json;
pub use screen::screen;

use serde_json::json;

use super::{KubeStream, ReadError, Reader};

/// Why an export is not whole; what was written before is.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("the export stops early")]
    Read(#[from] ReadError),
    #[error("cannot write the export")]
    Write(#[source] io::Error),
}

/// What a recording is of.
fn about<R: Read>(reader: &Reader<R>) -> serde_json::Value {
    let header = reader.header();
    json!({
        "session": reader.session().to_string(),
        "user": header.user,
        "from": header.from,
        "key": header.key,
        "client": header.client,
        "groups": header.groups,
        "image": header.image,
        "role": header.role,
        "durability": reader.opening().grade.as_str(),
    })
}

fn stream(stream: &KubeStream) -> serde_json::Value {
    json!({
        "audit_id": stream.audit_id,
        "cluster": stream.cluster,
        "namespace": stream.namespace,
        "pod": stream.pod,
        "container": stream.container,
        "subresource": stream.subresource,
        "command": stream.command,
        "terminal": stream.terminal,
    })
}

/// A line of JSON that a terminal can be shown: DEL and the 8-bit controls, which JSON lets stand, become escapes.
fn line(value: &impl serde::Serialize) -> Result<String, ExportError> {
    let json = serde_json::to_string(value).map_err(|e| ExportError::Write(e.into()))?;
    let mut line = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    line.push('\n');
    Ok(line)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::recording::summary::Channel;
    use crate::recording::tests::{boot, header, id, output, wall};
    use crate::recording::{Durability, Event, Exec, Reader, Summary, Terminal, Writer};

    fn record(events: &[(u64, Event)]) -> Vec<u8> {
        let (mut writer, mut file) = Writer::begin(id(), wall(0), boot(0), &header(), Durability::Local);
        for (micros, event) in events {
            let at = boot(0) + std::time::Duration::from_micros(*micros);
            writer.push(at, event);
            file.extend(writer.close_frame(wall((micros / 1000) as i64), at).unwrap());
        }
        file.extend(writer.finish(wall(1900), boot(1900), "exit"));
        file
    }

    fn shell() -> Event {
        let term = "xterm-256color".into();
        let terminal = Some(Terminal { term, columns: 80, rows: 24, width: 0, height: 0, modes: vec![] });
        Event::Channel { number: 1, program: None, terminal, environment: vec![("LANG".into(), "C.UTF-8".into())] }
    }

    fn bytes(data: &'static [u8]) -> Event {
        Event::Output { number: 1, data: Bytes::from_static(data) }
    }

    /// A shell in c1 beside a command in c2.
    pub(super) fn session() -> Vec<u8> {
        let exec = Exec { pid: 2, path: "/bin/bash".into(), arguments: vec!["-bash".into()] };
        record(&[
            (0, shell()),
            (50_000, Event::Credential { access_key_id: "ASIAEXAMPLE".into(), expires: 1_731_603_600 }),
            (100_000, Event::Exec { number: 1, exec }),
            (150_000, Event::Channel { number: 2, program: Some("id".into()), terminal: None, environment: vec![] }),
            (200_000, bytes(b"\x1b]0;t\x07\x1b[1malice$\x1b[0m ")),
            (1_200_000, Event::Input { number: 1, data: Bytes::copy_from_slice("echo ü\r".as_bytes()) }),
            (1_205_000, Event::Output { number: 2, data: Bytes::from_static(b"uid=1\n") }),
            (1_210_000, bytes(b"echo \xc3")),
            (1_212_500, bytes(b"\xbc\r\n\xc3\xbc\r\n")),
            (1_250_000, Event::Resize { number: 1, columns: 100, rows: 30, width: 0, height: 0 }),
            (1_300_000, Event::InputRedacted { number: 1, bytes: 9, why: "echo off".into() }),
            (1_400_000, bytes(b"bad \xff\xc2\x9b byte\r\n")),
            (1_500_000, bytes(b"\xe2\x82")),
            (1_700_000, Event::ExitStatus { number: 1, status: 3 }),
            (1_750_000, Event::ExitStatus { number: 2, status: 0 }),
        ])
    }

    /// A terminal that shows these in c1, and a pipe in c2.
    pub(super) fn with(shown: &[&str]) -> Vec<u8> {
        let mut events = vec![(0, shell())];
        events.extend(shown.iter().enumerate().map(|(n, text)| (n as u64 * 1000, output(text))));
        events.push((90_000, Event::Channel { number: 2, program: None, terminal: None, environment: vec![] }));
        events.push((90_000, Event::Output { number: 2, data: Bytes::from_static(b"one\ntwo\n") }));
        record(&events)
    }

    pub(super) fn export_channel<'f>(
        file: &'f [u8],
        number: u32,
        export: impl FnOnce(Reader<&'f [u8]>, &Channel, &mut Vec<u8>) -> Result<(), ExportError>,
    ) -> Result<String, ExportError> {
        let summary = Summary::of(&mut Reader::open(file)?);
        let channel = summary.channels.iter().find(|channel| channel.number == number).unwrap();
        let mut out = Vec::new();
        export(Reader::open(file)?, channel, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    pub(super) fn export<'f>(
        file: &'f [u8],
        export: impl FnOnce(Reader<&'f [u8]>, &Channel, &mut Vec<u8>) -> Result<(), ExportError>,
    ) -> Result<String, ExportError> {
        export_channel(file, 1, export)
    }
}
