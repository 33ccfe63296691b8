//! `stockade session`: what was recorded, for the one who reviews it.

mod play;
mod show;

use std::io::{self, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};

use crate::recording::{self, Channel, Entry, Reader, Store, StoreError, Summary, visible};
use crate::session::SessionId;

/// See `stockade session --help`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration, which says where the recordings are
    #[arg(long, global = true, value_name = "FILE", default_value = super::CONFIGURATION)]
    config: PathBuf,
    /// Where the recordings are; no configuration is read then
    #[arg(long, global = true, value_name = "DIR")]
    directory: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// All recordings, oldest first
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// What a recording holds, and whether its chain is whole
    Show {
        /// The session's id, or a beginning of it that only one has
        id: String,
    },
    /// Show a channel again as it was shown; space pauses, q ends
    Play(play::Args),
    /// Write a recording to standard output in a format that other tools read
    Export {
        /// The session's id, or a beginning of it that only one has
        id: String,
        #[arg(long, value_enum)]
        format: Format,
        /// The channel (c1, c2, …); the first with a terminal unless named, all of them in `json`
        #[arg(long, value_name = "CHANNEL", value_parser = channel_number)]
        channel: Option<u32>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// asciicast v3, for asciinema's player
    Asciicast,
    /// The lines that were on the screen
    Text,
    /// Every event, one JSON object a line
    Json,
}

/// Runs the verb. A reader that has seen enough and closed the pipe is no error.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let directory = match args.directory {
        Some(directory) => directory,
        None => match super::configuration(&args.config) {
            Ok(config) => config.recording.directory,
            Err(code) => return Ok(code),
        },
    };
    let done = Store::open(&directory).map_err(anyhow::Error::from).and_then(|store| {
        let mut out = BufWriter::new(io::stdout().lock());
        let code = match args.verb {
            Verb::List { json } => list(&store, json, &mut out),
            Verb::Show { id } => show::run(&store, &id, &mut out),
            Verb::Play(args) => play::run(&store, &args, &mut out),
            Verb::Export { id, format, channel } => export(&store, &id, format, channel, &mut out),
        }?;
        out.flush()?;
        Ok(code)
    });
    match done {
        Err(e) if closed_pipe(&e) => Ok(ExitCode::SUCCESS),
        other => other,
    }
}

fn closed_pipe(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    kinds.into_iter().any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

type Recording = Reader<BufReader<std::fs::File>>;

/// The recording that an id, or the beginning of one, means.
fn find(store: &Store, id: &str) -> anyhow::Result<SessionId> {
    match id.parse() {
        Ok(session) => Ok(session),
        Err(_) => Ok(store.find(id)?),
    }
}

fn open(store: &Store, session: SessionId) -> anyhow::Result<Recording> {
    let file = store.read(session)?;
    let reader = Reader::open(BufReader::new(file)).with_context(|| format!("cannot read recording {session}"))?;
    if reader.session() != session {
        bail!("the file of recording {session} holds that of {}", reader.session());
    }
    Ok(reader)
}

/// What the recording holds, and the channel that was asked for or is meant.
fn choose(store: &Store, session: SessionId, number: Option<u32>) -> anyhow::Result<Channel> {
    let summary = Summary::of(&mut open(store, session)?);
    let channel = match number {
        None => summary.main_channel(),
        Some(number) => summary.channels.iter().find(|channel| channel.number == number),
    };
    if let Some(channel) = channel {
        return Ok(channel.clone());
    }
    let known: Vec<String> = summary.channels.iter().map(|channel| format!("c{}", channel.number)).collect();
    match (number, known.is_empty()) {
        (_, true) => bail!("recording {session} has no channel"),
        (Some(number), _) => bail!("recording {session} has no channel c{number}; it has {}", known.join(", ")),
        (None, _) => bail!("recording {session} has no channel to show"),
    }
}

fn channel_number(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix('c').unwrap_or(text);
    number.parse().map_err(|_| format!("'{text}' is not a channel; they are c1, c2, …"))
}

fn list(store: &Store, json: bool, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mut rows = vec![["ID", "START", "USER", "FROM", "LENGTH", "STATE", "CHANNELS"].map(str::to_owned)];
    let mut code = ExitCode::SUCCESS;
    for session in store.sessions()? {
        match store.entry(session) {
            Ok(entry) if json => writeln!(out, "{}", listed(&entry))?,
            Ok(entry) => rows.push(row(&entry)),
            // It was taken away since.
            Err(recording::EntryError::Store(StoreError::Unknown { .. })) => {}
            Err(e) => {
                code = ExitCode::FAILURE;
                eprintln!("stockade: recording {session}: {:#}", anyhow::Error::from(e));
            }
        }
    }
    if !json {
        table(&rows, out)?;
    }
    Ok(code)
}

fn row(entry: &Entry) -> [String; 7] {
    [
        entry.session.to_string(),
        format!("{:.0}", entry.started),
        visible(&entry.header.user),
        visible(&entry.header.from),
        clock(entry.length),
        entry.state.as_str().to_owned(),
        entry.totals.channels.to_string(),
    ]
}

fn listed(entry: &Entry) -> serde_json::Value {
    serde_json::json!({
        "session": entry.session.to_string(),
        "started": entry.started.to_string(),
        "user": entry.header.user,
        "from": entry.header.from,
        "seconds": entry.length.as_secs_f64(),
        "state": entry.state.as_str(),
        "reason": entry.reason,
        "exit": entry.exit,
        "channels": entry.totals.channels,
        "execs": entry.totals.execs,
        "events": entry.totals.events,
        "input": entry.totals.input,
        "output": entry.totals.output.saturating_add(entry.totals.error_output),
        "size": entry.size,
    })
}

/// Columns as wide as their widest cell, the last as it is.
fn table(rows: &[[String; 7]], out: &mut impl Write) -> io::Result<()> {
    let mut widths = [0; 7];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// `1:02:03`, or `2:03`; below a minute with its tenths.
fn clock(time: Duration) -> String {
    let (hours, minutes, seconds) = (time.as_secs() / 3600, time.as_secs() / 60 % 60, time.as_secs() % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}.{}s", time.subsec_millis() / 100),
        (0, _) => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

fn export(
    store: &Store,
    id: &str,
    format: Format,
    number: Option<u32>,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let session = find(store, id)?;
    if let Format::Json = format {
        if number.is_some() {
            choose(store, session, number)?;
        }
        recording::json(open(store, session)?, number, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let channel = choose(store, session, number)?;
    let reader = open(store, session)?;
    match format {
        Format::Asciicast => recording::asciicast(reader, &channel, out)?,
        Format::Text | Format::Json => recording::screen(reader, &channel, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Durability, Event, Exec, Header, Writer};

    fn id() -> SessionId {
        "01932c07-a6b1-7c3e-9d2f-0123456789ab".parse().unwrap()
    }

    fn recorded(closed: bool) -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let wall = |s: i64| jiff::Timestamp::from_second(1_731_600_000 + s).unwrap();
        let at = Duration::from_secs;
        let header = Header {
            user: "alice".into(),
            from: "192.0.2.7:50022".into(),
            key: "SHA256:abc".into(),
            client: "SSH-2.0-evil\x1b[2J".into(),
            groups: vec!["ops".into(), "dev".into()],
            image: "base".into(),
            role: None,
        };
        let (mut writer, mut file) = Writer::begin(id(), wall(0), at(0), &header, Durability::Local);
        let program = Some("uname -a".into());
        writer.push(at(1), &Event::Channel { number: 1, program, terminal: None, environment: vec![] });
        let arguments = ["uname", "-a", "it's"].map(str::to_owned).to_vec();
        writer.push(at(1), &Event::Exec { number: 1, exec: Exec { pid: 2, path: "/bin/uname".into(), arguments } });
        writer.push(at(2), &Event::Output { number: 1, data: "Linux\n".into() });
        writer.push(at(2), &Event::ExitStatus { number: 1, status: 0 });
        file.extend(writer.close_frame(wall(2), at(2)).unwrap());
        if closed {
            file.extend(writer.finish(wall(75), at(75), "exit"));
        }
        store.create(id()).unwrap().write_all(&file).unwrap();
        (directory, store)
    }

    fn text(run: impl FnOnce(&mut Vec<u8>) -> anyhow::Result<ExitCode>) -> String {
        let mut out = Vec::new();
        run(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_list_is_a_table() {
        let (_directory, store) = recorded(true);
        assert_eq!(
            text(|out| list(&store, false, out)),
            "\
ID                                    START                 USER   FROM             LENGTH  STATE   CHANNELS
01932c07-a6b1-7c3e-9d2f-0123456789ab  2024-11-14T16:00:00Z  alice  192.0.2.7:50022  1:15    closed  1
"
        );
        let json: serde_json::Value = serde_json::from_str(&text(|out| list(&store, true, out))).unwrap();
        assert_eq!((&json["user"], &json["seconds"]), (&"alice".into(), &75.0.into()));
    }

    #[test]
    fn show_says_it_all_and_obeys_nothing() {
        let (_directory, store) = recorded(true);
        let shown = text(|out| show::run(&store, "01932c", out));
        let (before, head) = shown.split_once("head ").unwrap();
        assert_eq!(head.trim_end().len(), 64);
        assert_eq!(
            before,
            "\
session     01932c07-a6b1-7c3e-9d2f-0123456789ab
user        alice
groups      ops, dev
from        192.0.2.7:50022
key         SHA256:abc
client      SSH-2.0-evil\\u{1b}[2J
image       base
role        none
started     2024-11-14T16:00:00Z
length      1:15
durability  local

channels
       1.0s  c1  uname -a  (no terminal, exit 0)

execs (attempts; arguments are the caller's word)
       1.0s  c1  /bin/uname  uname -a 'it'\\''s'

totals      4 events in 3 frames
bytes       output 6, error output 0, input 0 (0 of it redacted)
end         exit, last exit status 0
chain       whole and closed; "
        );
    }

    #[test]
    fn an_unclosed_recording_is_said_so() {
        let (_directory, store) = recorded(false);
        assert!(text(|out| list(&store, false, out)).contains("2.0s    unclosed  1"));
        assert!(text(|out| show::run(&store, "01932c", out)).contains("whole so far and unclosed"));
    }

    #[test]
    fn what_is_not_there_is_a_clear_error() {
        let (_directory, store) = recorded(true);
        let mut out = Vec::new();
        let error = show::run(&store, "0200", &mut out).unwrap_err();
        assert_eq!(error.to_string(), "there is no recording '0200'; `stockade session list` shows them");
        let error = show::run(&store, &SessionId::mint().to_string(), &mut out).unwrap_err();
        assert!(error.to_string().starts_with("there is no recording"));
        let error = export(&store, "01932c", Format::Text, Some(4), &mut out).unwrap_err();
        assert!(error.to_string().ends_with("has no channel c4; it has c1"), "{error}");
        assert!(closed_pipe(&anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("x")));
    }
}
