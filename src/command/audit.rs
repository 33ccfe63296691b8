//! `stockade audit`.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::audit::Event;

/// See `stockade audit --help`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Print every event's code, name, OCSF class and meaning
    Codes,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Codes => match io::stdout().write_all(codes().as_bytes()) {
            // `stockade audit codes | head` has read enough.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            done => Ok(done.map(|()| ExitCode::SUCCESS)?),
        },
    }
}

fn codes() -> String {
    let mut table = format!("{:<8} {:<21} {:<5} {}\n", "CODE", "NAME", "CLASS", "MEANING");
    let mut rows: Vec<_> = Event::CODES.iter().collect();
    rows.sort_by_key(|row| row.code);
    for row in rows {
        let meaning: Vec<_> = row.meaning.iter().map(|line| line.trim()).collect();
        let (code, name, class) = (row.code, row.name, row.class as u32);
        table.push_str(&format!("{code:<8} {name:<21} {class:<5} {}\n", meaning.join(" ")));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_comes_from_the_doc_comments() {
        let table = codes();
        assert!(table.contains("SK1003I  LoginAccepted         3002  A user was let in.\n"), "{table}");
        assert_eq!(table.lines().count(), Event::CODES.len() + 1);
    }
}
