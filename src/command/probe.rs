//! `stockade probe`, inside a jail: tries every way out that is known, and says what held.
//!
//! Nothing here may harm a host where it is let through: a call is given arguments that are refused after the question
//! of rights is settled, a file is opened and not written, a namespace goes with the process that made it.

mod attempt;
mod calls;
mod descriptors;
mod files;
mod kernel;
mod network;
mod rights;
mod sockets;

use std::process::ExitCode;

use serde::Serialize;

use attempt::{Found, Row};

use crate::session::exit::NOT_A_JAIL;
use crate::sys::clone::Alone;

/// Try every way out of this jail that is known, and say what held. Exits with 1 if anything gave way, and with 2
/// outside of a jail
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Try even where this is no jail; nothing is changed, but this host's own watchers may take it for an attack
    #[arg(long)]
    anyway: bool,
}

/// One line of the answer. The names are stable.
#[derive(Debug, Serialize)]
struct Line {
    check: &'static str,
    held: bool,
    tried: String,
    found: String,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if !args.anyway
        && let Err(error) = super::door::connect()
    {
        eprintln!("stockade: {error}; `--anyway` tries the same things here");
        return Ok(ExitCode::from(NOT_A_JAIL));
    }
    let alone = Alone::prove()?;
    let mut gave_way = Vec::new();
    let mut count = 0;
    for row in rows() {
        let line = judge(&alone, row);
        if args.json {
            println!("{}", serde_json::to_string(&line)?);
        } else {
            println!("{}", show(&line));
        }
        count += 1;
        if !line.held {
            gave_way.push(line.check);
        }
    }
    if gave_way.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("stockade: {} of {count} checks gave way: {}", gave_way.len(), gave_way.join(", "));
    Ok(ExitCode::FAILURE)
}

/// Every check, in the order of printing.
fn rows() -> impl Iterator<Item = &'static Row> {
    [calls::ROWS, kernel::ROWS, sockets::ROWS, network::ROWS, descriptors::ROWS, files::ROWS, rights::ROWS]
        .into_iter()
        .flatten()
}

fn judge(alone: &Alone, row: &'static Row) -> Line {
    let (held, found) = match row.attempt.run(alone) {
        Found::Held(found) => (true, found),
        Found::GaveWay(found) => (false, found),
    };
    // A path or a name may be anybody's text.
    let found = found.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    Line { check: row.name, held, tried: row.tried(), found }
}

fn show(line: &Line) -> String {
    let state = if line.held { "held" } else { "GAVE WAY" };
    format!("{state:<8}  {:<24} {}: {}", line.check, line.tried, line.found)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_stable_words_and_each_is_one_check() {
        let names: Vec<&str> = rows().map(|row| row.name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        let fit = |name: &&str| name.len() <= 24 && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        assert!(names.iter().all(fit), "{names:?}");
        assert!(names.len() >= 150, "{}", names.len());
    }

    #[test]
    fn outside_a_jail_nothing_is_tried() {
        assert!(super::super::door::connect().unwrap_err().to_string().contains("not the inside of a jail"));
    }

    #[test]
    fn what_gave_way_is_seen_at_the_beginning_of_its_line() {
        let mut line = Line { check: "bpf", held: false, tried: "bpf()".into(), found: "done".into() };
        assert_eq!(show(&line), "GAVE WAY  bpf                      bpf(): done");
        line.held = true;
        assert!(show(&line).starts_with("held "));
    }
}
