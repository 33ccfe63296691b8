//! The arrows of src/lib.rs: a room may name only the rooms below it. Read from the `crate::` paths of the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const LAW: &[&str] = &["config", "identity", "policy", "session"];
const LEDGER: &[&str] = &["privsep", "audit", "recording", "image"];
const PROCESSES: &[&str] = &["jailer", "loader", "gate", "warden", "porter", "keeper", "tally", "access"];
/// Who may name `sys`, where every unsafe line is.
const NEAR_THE_FLOOR: &[&str] = &["jailer", "keeper", "tally", "privsep", "loader", "command"];

/// What crosses the arrows all the same, and why it may.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("loader", "jailer", "the loader makes the jailer's plan, a value"),
    ("privsep", "audit", "a message carries an event"),
    ("privsep", "recording", "a message carries a recording's header, an exec and a stream"),
    ("audit", "privsep", "an event names a role"),
    ("access", "warden", "AWS's clients and the look for clusters, of which each process makes its own"),
];

#[derive(Debug)]
struct Line {
    room: String,
    names: String,
    place: String,
}

#[test]
fn rooms_name_only_the_rooms_below() {
    let wrong: Vec<String> = lines().iter().filter_map(judge).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_exception_is_still_used() {
    let used: BTreeSet<(String, String)> = lines().into_iter().map(|line| (line.room, line.names)).collect();
    for (room, names, _) in EXCEPTIONS {
        assert!(
            used.contains(&((*room).into(), (*names).into())),
            "{room} no longer names {names}: take it off the list"
        );
    }
}

/// "Unsafe code lives in `sys/` alone."
#[test]
fn only_the_floor_is_unsafe() {
    for file in files(&source()) {
        let text = fs::read_to_string(&file).unwrap();
        let inside = file.starts_with(source().join("sys"));
        let allows = text.contains("allow(unsafe_code)");
        assert!(inside || !allows || file.ends_with("src/lib.rs"), "{} allows unsafe code", file.display());
    }
}

/// The sentence that says which way to go.
fn judge(line: &Line) -> Option<String> {
    let (room, names) = (line.room.as_str(), line.names.as_str());
    let excepted = EXCEPTIONS.iter().any(|(from, to, _)| *from == room && *to == names);
    if room == names || excepted || matches!(room, "main" | "lib" | "fuzz") {
        return None;
    }
    let way = match names {
        "sys" if NEAR_THE_FLOOR.contains(&room) => return None,
        "sys" => "only rooms that speak to the kernel name sys",
        "cli" if room != "main" => "the command line is above everything",
        "command" if room != "cli" => "only cli names command",
        _ if room == "cli" || room == "command" => return None,
        _ if LAW.contains(&names) => return None,
        _ if LAW.contains(&room) => "the law is pure: pass it values",
        _ if LEDGER.contains(&names) && PROCESSES.contains(&room) => return None,
        _ if LEDGER.contains(&names) => "what is written down stands side by side",
        _ if PROCESSES.contains(&names) && PROCESSES.contains(&room) => {
            "processes know each other by privsep messages only"
        }
        _ if PROCESSES.contains(&names) => "a process is above",
        _ => "no arrow goes there",
    };
    Some(format!("{}: {room} may not name {names}: {way}", line.place))
}

fn lines() -> Vec<Line> {
    let mut found = Vec::new();
    for file in files(&source()) {
        let relative = file.strip_prefix(source()).unwrap();
        let room =
            relative.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&file).unwrap();
        // Tests beside the code may use what they like.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        if relative.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs") {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            let place = format!("src/{}:{}", relative.display(), number + 1);
            for names in named(line) {
                found.push(Line { room: room.clone(), names, place: place.clone() });
            }
        }
    }
    found
}

/// The rooms after `crate::` in a line, in braces or not.
fn named(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap();
    let mut names = Vec::new();
    for after in code.split("crate::").skip(1) {
        let word = |text: &str| text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>();
        match after.strip_prefix('{') {
            // `use crate::{a, b::c}`: depth 0 only.
            Some(list) => {
                let mut depth = 0;
                let mut start = true;
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        ' ' => {}
                        _ if start => {
                            names.push(word(&list[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
            None => names.push(word(after)),
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn source() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}
