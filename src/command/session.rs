//! `stockade session`: what was recorded, for the one who reviews it.

mod list;
mod play;
mod show;

use std::io::{self, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};

use crate::config;
use crate::recording::{self, Channel, Reader, Store, Summary};
use crate::session::{self, SessionId, channel_name};

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
        /// The channel (c1, c2, …; k1, k2, … are streams on clusters); the first with a terminal unless named, all of them in `json`
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
        None => config::load(&args.config)?.recording.directory,
    };
    let done = Store::open(&directory).map_err(anyhow::Error::from).and_then(|store| {
        let mut out = BufWriter::new(io::stdout().lock());
        let code = match args.verb {
            Verb::List { json } => list::run(&store, json, &mut out),
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
    let known: Vec<String> = summary.channels.iter().map(Channel::name).collect();
    match (number, known.is_empty()) {
        (_, true) => bail!("recording {session} has no channel"),
        (Some(number), _) => {
            bail!("recording {session} has no channel {}; it has {}", channel_name(number), known.join(", "))
        }
        (None, _) => bail!("recording {session} has no channel to show"),
    }
}

fn channel_number(text: &str) -> Result<u32, String> {
    session::channel_number(text)
        .ok_or_else(|| format!("'{text}' is not a channel; they are c1, c2, … and, of streams on clusters, k1, k2, …"))
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
            text(|out| list::run(&store, false, out)),
            "\
ID                                    START                 USER   FROM             LENGTH  STATE   CHANNELS
01932c07-a6b1-7c3e-9d2f-0123456789ab  2024-11-14T16:00:00Z  alice  192.0.2.7:50022  1:15    closed  1
"
        );
        let json: serde_json::Value = serde_json::from_str(&text(|out| list::run(&store, true, out))).unwrap();
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
    fn a_stream_on_a_cluster_is_shown_beside_the_channels() {
        let (_directory, store) = recorded(true);
        let session = SessionId::mint();
        let wall = |s: i64| jiff::Timestamp::from_second(1_731_600_000 + s).unwrap();
        let at = Duration::from_secs;
        let number = session::FIRST_STREAM;
        let stream = Box::new(recording::KubeStream {
            audit_id: "5a3c".into(),
            cluster: "hyades".into(),
            namespace: "web".into(),
            pod: "front-0".into(),
            container: Some("app".into()),
            subresource: "exec".into(),
            command: vec!["sh".into(), "-l".into()],
            terminal: true,
        });
        let header = open(&store, id()).unwrap().header().clone();
        let (mut writer, mut file) = Writer::begin(session, wall(0), at(0), &header, Durability::Local);
        let program = Some("k9s".into());
        writer.push(at(1), &Event::Channel { number: 1, program, terminal: None, environment: vec![] });
        writer.push(at(2), &Event::KubeStream { number, stream });
        writer.push(at(2), &Event::Resize { number, columns: 132, rows: 43, width: 0, height: 0 });
        writer.push(at(3), &Event::Output { number, data: "$ ls\r\n".into() });
        writer.push(at(4), &Event::Resize { number, columns: 100, rows: 30, width: 0, height: 0 });
        writer.push(at(5), &Event::ExitStatus { number, status: 3 });
        file.extend(writer.close_frame(wall(5), at(5)).unwrap());
        file.extend(writer.finish(wall(6), at(6), "exit"));
        store.create(session).unwrap().write_all(&file).unwrap();

        let shown = text(|out| show::run(&store, &session.to_string(), out));
        let expected = "
channels
       1.0s  c1  k9s  (no terminal, no exit recorded)

streams on clusters
       2.0s  k1  exec hyades/web/front-0/app: sh -l  (xterm 132x43, exit 3)  audit 5a3c
";
        assert!(shown.contains(expected), "{shown}");
        assert!(shown.contains("end         exit\n"), "the session did not end with 3: {shown}");
        let number = channel_number("k1").unwrap();
        let cast = text(|out| export(&store, &session.to_string(), Format::Asciicast, Some(number), out));
        let header: serde_json::Value = serde_json::from_str(cast.lines().next().unwrap()).unwrap();
        assert_eq!(header["term"], serde_json::json!({ "cols": 132, "rows": 43, "type": "xterm" }));
        assert_eq!(header["stockade"]["stream"]["pod"], "front-0");
        let rest: Vec<&str> = cast.lines().skip(1).collect();
        assert_eq!(
            rest,
            [
                r#"[0.000000, "r", "132x43"]"#,
                r#"[1.000000, "o", "$ ls\r\n"]"#,
                r#"[1.000000, "r", "100x30"]"#,
                r#"[1.000000, "x", "3"]"#,
            ]
        );
        let error = export(&store, &session.to_string(), Format::Text, Some(number + 1), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().ends_with("has no channel k2; it has c1, k1"), "{error}");
    }

    #[test]
    fn an_unclosed_recording_is_said_so() {
        let (_directory, store) = recorded(false);
        assert!(text(|out| list::run(&store, false, out)).contains("2.0s    unclosed  1"));
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
