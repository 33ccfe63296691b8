//! Writes the man pages and the shells' completions, made from the command line's own types, into a directory. A program
//! of its own, so that the one that is shipped carries none of it: `cargo run --example manual -- DIRECTORY`.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap_complete::Shell;
use clap_mangen::Man;
use fs_err as fs;
use stockade::session::exit::EXITS;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: manual DIRECTORY")?);
    pages(&directory.join("man"))?;
    completions(&directory.join("completions"))
}

/// stockade.1, and one page for each verb.
fn pages(directory: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(directory)?;
    let mut command = stockade::cli::command_line().disable_help_subcommand(true);
    command.build();
    page(directory, &command, &all_of(&command))
}

/// The page of a command, then those of its verbs.
fn page(directory: &Path, command: &clap::Command, all: &[String]) -> Result<(), Box<dyn Error>> {
    let name = title(command);
    let mut text = Vec::new();
    let source = format!("stockade {}", env!("CARGO_PKG_VERSION"));
    Man::new(command.clone()).title(&name).date(date()?).source(source).manual("stockade").render(&mut text)?;
    text.extend(statuses(&name.replace('-', " ")).into_bytes());
    text.extend(see_also(&name, all).into_bytes());
    fs::write(directory.join(format!("{name}.1")), text)?;
    shown(command).try_for_each(|verb| page(directory, verb, all))
}

/// When the source was written: equal sources give equal pages.
fn date() -> Result<String, Box<dyn Error>> {
    let seconds = std::env::var("SOURCE_DATE_EPOCH").unwrap_or_default().parse().unwrap_or(0);
    Ok(jiff::Timestamp::from_second(seconds)?.strftime("%Y-%m-%d").to_string())
}

/// `stockade-session-list`
fn title(command: &clap::Command) -> String {
    command.get_display_name().unwrap_or(command.get_name()).to_owned()
}

fn shown(command: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
}

fn all_of(command: &clap::Command) -> Vec<String> {
    std::iter::once(title(command)).chain(shown(command).flat_map(all_of)).collect()
}

/// What a verb may end with; everything, on the page of the whole.
fn statuses(verb: &str) -> String {
    let mut text = ".SH \"EXIT STATUS\"\n.TP\n0\nDone, and nothing is wrong.\n".to_owned();
    for exit in EXITS {
        // `stockade check --who` is on the page of `stockade check`.
        let own = exit.of == verb || exit.of.strip_prefix(verb).is_some_and(|rest| rest.starts_with(" --"));
        if own || exit.of == "every verb" || verb == "stockade" {
            let of =
                if exit.of == "every verb" || own { String::new() } else { format!("\\fI{}\\fR: ", escaped(exit.of)) };
            let meaning: Vec<_> = exit.meaning.iter().map(|line| line.trim()).collect();
            text.push_str(&format!(".TP\n{}\n{of}{}\n", exit.status, escaped(&meaning.join(" "))));
        }
    }
    text
}

/// The family, nearest first: the whole, and who shares the first verb.
fn see_also(name: &str, all: &[String]) -> String {
    let family = |other: &&String| {
        let verb = |name: &str| name.splitn(3, '-').nth(1).map(str::to_owned);
        *other != name && (name == "stockade" || *other == "stockade" || verb(other) == verb(name))
    };
    let pages: Vec<String> = all.iter().filter(family).map(|other| format!("\\fB{}\\fR(1)", escaped(other))).collect();
    format!(".SH \"SEE ALSO\"\n{}\n", pages.join(",\n"))
}

/// As roff takes it: a hyphen is a minus, and nothing at a line's beginning is a request.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

fn completions(directory: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(directory)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut stockade::cli::command_line(), "stockade", directory)?;
    }
    Ok(())
}
