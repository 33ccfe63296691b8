//! docs/codes.md says of every exit status and every code what to do about it; here it is held to the program.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use stockade::privsep::{Accusation, Role};
use stockade::session::exit::EXITS;

#[test]
fn every_audit_code_is_on_the_page() {
    let printed = Command::new(env!("CARGO_BIN_EXE_stockade")).args(["audit", "codes"]).output().unwrap().stdout;
    let printed = String::from_utf8(printed).unwrap();
    // CODE NAME CLASS MEANING, in columns.
    let said: BTreeMap<String, Vec<String>> = printed.lines().skip(1).map(|line| columns(line, 4)).collect();
    let page: Vec<Vec<String>> = rows().into_iter().filter(|row| row[0].starts_with("SK")).collect();
    let shown = page.iter().map(|row| (row[0].clone(), row[1..4].to_vec())).collect::<BTreeMap<_, _>>();
    assert_eq!(shown, said, "docs/codes.md differs from `stockade audit codes`");
    assert_eq!(page.len(), said.len(), "a code is on the page twice");
    for row in page.iter().filter(|row| !row[0].ends_with('I')) {
        assert!(row[4].len() > 10, "{}: what is to be done about it?", row[0]);
    }
}

#[test]
fn every_exit_status_is_on_the_page() {
    let key = |of: &str, status: u8| (of.to_owned(), status.to_string());
    let meaning = |lines: &[&str]| lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    let said: BTreeMap<_, _> = EXITS.iter().map(|exit| (key(exit.of, exit.status), meaning(exit.meaning))).collect();
    assert_eq!(said.len(), EXITS.len(), "one verb gives two meanings to a status");
    let page: Vec<Vec<String>> = rows().into_iter().filter(|row| row.len() == 4 && row[0] != "of").collect();
    let shown: BTreeMap<_, _> = page.iter().map(|row| ((row[0].clone(), row[1].clone()), row[2].clone())).collect();
    assert_eq!(shown, said, "docs/codes.md differs from src/session/exit.rs");
    assert_eq!(page.len(), EXITS.len(), "a status is on the page twice");
    assert!(page.iter().all(|row| row[3].len() > 10), "what is to be done about each?");
}

/// The processes' own statuses: 40 and the role's number.
#[test]
fn accusations_are_on_the_page() {
    let text = page();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let statuses = Role::ALL.map(|role| Accusation { role, what: "x" }.status());
    let [first, .., last] = statuses;
    assert!(
        text.contains(&format!(
            "ends with {first} to {last} accuses another: {first} is the keeper, then tally, porter"
        ))
    );
    assert!(statuses.is_sorted(), "{statuses:?} is not the order that the page says");
}

/// No status is made up anywhere else: a number for one is in src/session/exit.rs, or it is not on the page.
#[test]
fn no_other_file_has_an_exit_status_of_its_own() {
    let mut wrong = Vec::new();
    let number = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    for file in sources(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path()) {
        for (index, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let made = ["ExitCode::from(", "process::exit("].iter().any(|way| line.split(way).skip(1).any(number));
            if made {
                wrong.push(format!("{}:{}: {}", file.display(), index + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "name these in src/session/exit.rs:\n{}", wrong.join("\n"));
}

/// What the page speaks of beside them is there, too.
#[test]
fn the_page_names_verbs_that_there_are() {
    let command = stockade::cli::command_line();
    let verbs: BTreeSet<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    let text = page();
    let named = text.split("`stockade ").skip(1).filter_map(|rest| rest.split([' ', '`', '\n']).next());
    let named: BTreeSet<&str> = named.filter(|verb| !verb.is_empty()).collect();
    assert!(named.len() > 3, "{named:?}");
    assert!(named.is_subset(&verbs), "{:?} is no verb", named.difference(&verbs).collect::<Vec<_>>());
}

fn columns(line: &str, count: usize) -> (String, Vec<String>) {
    let mut words = line.split_whitespace();
    let code = words.next().unwrap().to_owned();
    let mut cells: Vec<String> = words.by_ref().take(count - 2).map(str::to_owned).collect();
    cells.push(words.collect::<Vec<_>>().join(" "));
    (code, cells)
}

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/codes.md")).unwrap()
}

/// The cells of every line of a table.
fn rows() -> Vec<Vec<String>> {
    let page = page();
    let lines = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    lines.map(|line| line.split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

fn sources(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}
