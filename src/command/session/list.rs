use std::io::{self, Write};
use std::process::ExitCode;

use crate::recording::{self, Entry, Store, StoreError, visible};

/// All recordings, oldest first, as a table or as JSON.
pub(super) fn run(store: &Store, json: bool, out: &mut impl Write) -> anyhow::Result<ExitCode> {
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
        super::clock(entry.length),
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
