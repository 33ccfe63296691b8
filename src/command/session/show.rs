use std::io::{self, Write};
use std::process::ExitCode;

use super::Recording;
use crate::recording::{Channel, Closing, Exit, ReadError, State, Store, Summary, Terminal, visible};
use crate::session::channel_name;

/// Header, channels, execs, credentials, notes, totals and the verdict on the chain.
pub(super) fn run(store: &Store, id: &str, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let session = super::find(store, id)?;
    let mut reader = super::open(store, session)?;
    let summary = Summary::of(&mut reader);
    about(&reader, out)?;
    channels(&summary, out)?;
    section(out, "execs (attempts; arguments are the caller's word)", &summary.execs, |(at, number, exec)| {
        let arguments: Vec<String> = exec.arguments.iter().map(|argument| word(argument)).collect();
        format!("{:>9}  {}  {}  {}", super::clock(*at), channel_name(*number), visible(&exec.path), arguments.join(" "))
    })?;
    section(out, "credentials", &summary.credentials, |(at, id, expires)| {
        let expires = jiff::Timestamp::from_second(*expires).map_or("an impossible time".into(), |t| t.to_string());
        format!("{:>9}  {}  expire {expires}", super::clock(*at), visible(id))
    })?;
    section(out, "notes", &summary.notes, |(at, text)| format!("{:>9}  {}", super::clock(*at), visible(text)))?;
    ending(&reader, &summary, out)
}

fn about(reader: &Recording, out: &mut impl Write) -> io::Result<()> {
    let header = reader.header();
    let lines = [
        ("session", reader.session().to_string()),
        ("user", visible(&header.user)),
        ("groups", visible(&header.groups.join(", "))),
        ("from", visible(&header.from)),
        ("key", visible(&header.key)),
        ("client", visible(&header.client)),
        ("image", visible(&header.image)),
        ("role", header.role.as_deref().map_or("none".into(), visible)),
        ("started", reader.started().to_string()),
        ("length", super::clock(reader.length())),
        ("durability", reader.opening().grade.as_str().to_owned()),
    ];
    lines.iter().try_for_each(|(name, value)| writeln!(out, "{name:<11} {value}"))
}

fn channels(summary: &Summary, out: &mut impl Write) -> io::Result<()> {
    let line = |channel: &Channel| {
        let program = channel.program.as_deref().map_or("login shell".into(), visible);
        let terminal =
            channel.terminal.as_ref().map_or("no terminal".into(), |Terminal { term, columns, rows, .. }| {
                format!("{} {columns}x{rows}", visible(term))
            });
        let exit = match &channel.exit {
            None => "no exit recorded".to_owned(),
            Some(Exit::Status(status)) => format!("exit {status}"),
            Some(Exit::Signal(name)) => format!("signal {}", visible(name)),
        };
        format!("{:>9}  {}  {program}  ({terminal}, {exit})", super::clock(channel.opened), channel.name())
    };
    let (streams, channels): (Vec<_>, Vec<_>) = summary.channels.iter().partition(|channel| channel.stream.is_some());
    section(out, "channels", &channels, |channel| line(channel))?;
    section(out, "streams on clusters", &streams, |channel| {
        let audit_id = channel.stream.as_ref().map_or(String::new(), |stream| visible(&stream.audit_id));
        format!("{}  audit {audit_id}", line(channel))
    })
}

fn section<T>(out: &mut impl Write, name: &str, items: &[T], line: impl Fn(&T) -> String) -> io::Result<()> {
    if items.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{name}")?;
    items.iter().try_for_each(|item| writeln!(out, "  {}", line(item)))
}

/// An argument as a shell would need it to be written, if it is not plain.
fn word(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", visible(argument).replace('\'', "'\\''"))
}

/// Totals and the verdict on the chain; a broken one is also the exit code.
fn ending(reader: &Recording, summary: &Summary, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let t = reader.totals();
    writeln!(out, "\n{:<11} {} events in {} frames", "totals", t.events, reader.frames())?;
    let (output, input) = (t.output, t.input);
    writeln!(
        out,
        "{:<11} output {output}, error output {}, input {input} ({} of it redacted)",
        "bytes", t.error_output, t.redacted
    )?;
    if let Some(Closing { reason, exit, .. }) = reader.closing() {
        let exit = exit.map_or(String::new(), |status| format!(", last exit status {status}"));
        writeln!(out, "{:<11} {}{exit}", "end", visible(reason))?;
    }
    writeln!(out, "{:<11} {}", "chain", verdict(reader, summary))?;
    let whole = matches!(summary.fault, None | Some(ReadError::Torn { .. }));
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verdict(reader: &Recording, summary: &Summary) -> String {
    let head: String = reader.head().iter().map(|b| format!("{b:02x}")).collect();
    let lost = reader.closing().and_then(|closing| closing.lost).unwrap_or(0);
    match (&summary.fault, summary.state) {
        (None, State::Closed) => format!("whole and closed; head {head}"),
        (None, State::Recovered) => {
            format!(
                "whole, closed by recovery after a crash; {lost} bytes of an unfinished frame were lost; head {head}"
            )
        }
        (None, State::Unclosed) => {
            "whole so far and unclosed: the session still runs, or has not been recovered yet".to_owned()
        }
        (Some(fault @ ReadError::Torn { .. }), _) => {
            format!("whole but for its end: {fault}; the session still runs, or has not been recovered yet")
        }
        (Some(fault), _) => {
            let cause = std::error::Error::source(fault).map_or(String::new(), |source| format!(": {source}"));
            format!("NOT WHOLE: {fault}{cause}; what is shown here is what comes before")
        }
    }
}
