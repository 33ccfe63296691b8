//! `mapRoles` of the ConfigMap aws-auth: our rows are changed, every other byte stays.
//!
//! A row is ours by the ARN of a role that is: no other row may name one, and a mark in the text would not outlive the
//! tools that write it anew. What is changed is the row that was planned with; anything else is a conflict.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::access::rows::without_path;
use crate::access::world::Entry;

/// Why a text is left alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("its mapRoles is no YAML list of rows, by line {line}; mend it by hand")]
    Form { line: u64 },
    #[error("its mapRoles is not written as one row after the other, each after a dash; write it so by hand")]
    Shape,
    #[error("the row of {0} was changed since it was read")]
    Changed(String),
}

/// User name and groups of a row.
type Said = (String, BTreeSet<String>);

/// The text with the row of a role added, changed or taken out; equal to what it was where nothing is to be done.
pub fn edit(text: Option<&str>, role: &str, was: Option<&Entry>, shall_be: Option<&Entry>) -> Result<String, Refused> {
    let (text, role) = (text.unwrap_or_default(), without_path(role));
    let rows = parsed(text)?;
    let of_role = |row: &Value| arn(row).is_some_and(|arn| arn.eq_ignore_ascii_case(&role));
    let places: Vec<usize> = rows.iter().enumerate().filter(|(_, row)| of_role(row)).map(|(at, _)| at).collect();
    let there: Vec<Said> = places.iter().filter_map(|at| rows.get(*at)).map(said).collect();
    let one = |entry: Option<&Entry>| entry.map(|entry| (entry.username.clone(), entry.groups.clone()));
    if there.iter().eq(one(shall_be).iter()) {
        return Ok(text.to_owned());
    }
    // The authenticator hears one of several: whichever was read, all of them go.
    match one(was) {
        Some(was) if there.contains(&was) => {}
        None if there.is_empty() => {}
        _ => return Err(Refused::Changed(role)),
    }
    let edited = Sheet::of(text, &rows)?.with(&places, shall_be.map(|entry| (role.as_str(), entry)));
    let wanted = wanted(&rows, &places, shall_be.map(|entry| row(&role, entry)));
    match parsed(&edited)? == wanted {
        true => Ok(edited),
        false => Err(Refused::Shape),
    }
}

/// What the edited text must say.
fn wanted(rows: &[Value], places: &[usize], new: Option<Value>) -> Vec<Value> {
    let mut new = new;
    let mut wanted = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        match places.contains(&at) {
            true => wanted.extend(new.take()),
            false => wanted.push(row.clone()),
        }
    }
    wanted.extend(new);
    wanted
}

fn parsed(text: &str) -> Result<Vec<Value>, Refused> {
    if text.lines().all(is_trivial) {
        return Ok(Vec::new());
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: 32, max_aliases: 0, max_anchors: 0, max_nodes: 500_000 },
        with_snippet: false,
    };
    let rows: Option<Vec<Value>> = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| Refused::Form { line: error.location().map_or(1, |place| place.line()) })?;
    let rows = rows.unwrap_or_default();
    match rows.iter().all(Value::is_object) {
        true => Ok(rows),
        false => Err(Refused::Form { line: 1 }),
    }
}

fn is_trivial(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// A field by its name, whose case the authenticator does not mind.
fn field<'r>(row: &'r Value, name: &str) -> Option<&'r Value> {
    row.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn arn(row: &Value) -> Option<&str> {
    field(row, "rolearn")?.as_str()
}

fn said(row: &Value) -> Said {
    let groups = field(row, "groups").and_then(Value::as_array).into_iter().flatten();
    let username = field(row, "username").and_then(Value::as_str).unwrap_or_default();
    (username.to_owned(), groups.filter_map(Value::as_str).map(str::to_owned).collect())
}

fn row(role: &str, entry: &Entry) -> Value {
    json!({"rolearn": role, "username": entry.username, "groups": entry.groups})
}

/// A text as lines: those of each row, and those between them.
struct Sheet<'t> {
    /// Before the first row.
    head: Vec<&'t str>,
    rows: Vec<Lines<'t>>,
    /// Spaces before each dash.
    indent: usize,
}

struct Lines<'t> {
    row: Vec<&'t str>,
    /// Comments and empty lines after it: they may be about the next one, and stay when it goes.
    after: Vec<&'t str>,
}

impl Lines<'_> {
    fn say(&mut self, row: &Value) -> bool {
        let is_so =
            |lines: &[&str]| parsed(&lines.concat()).is_ok_and(|parsed| parsed.as_slice() == std::slice::from_ref(row));
        // What looks like a comment is a part of the row where that ends with a text of many lines.
        if !is_so(&self.row) {
            self.row.append(&mut self.after);
        }
        is_so(&self.row)
    }
}

impl<'t> Sheet<'t> {
    /// Refused unless each row is found to be what the parser says it is.
    fn of(text: &'t str, rows: &[Value]) -> Result<Self, Refused> {
        // An empty list is the one that may be in brackets.
        let text = if rows.is_empty() && text.trim() == "[]" { "" } else { text };
        let mut sheet = Self { head: Vec::new(), rows: Vec::new(), indent: 0 };
        for line in text.split_inclusive('\n') {
            let indent = line.len() - line.trim_start_matches(' ').len();
            let is_dash = matches!(line.trim_end().get(indent..), Some(rest) if rest == "-" || rest.starts_with("- "));
            if is_dash && (sheet.rows.is_empty() || indent == sheet.indent) {
                sheet.indent = indent;
                sheet.rows.push(Lines { row: vec![line], after: Vec::new() });
                continue;
            }
            match sheet.rows.last_mut() {
                None => sheet.head.push(line),
                Some(last) if is_trivial(line) => last.after.push(line),
                Some(last) => {
                    last.row.append(&mut last.after);
                    last.row.push(line);
                }
            }
        }
        match sheet.says(rows) {
            true => Ok(sheet),
            false => Err(Refused::Shape),
        }
    }

    fn says(&mut self, rows: &[Value]) -> bool {
        let head = self.head.iter().all(|line| is_trivial(line) || line.trim_end() == "---");
        head && self.rows.len() == rows.len() && self.rows.iter_mut().zip(rows).all(|(lines, row)| lines.say(row))
    }

    /// The first of these places has the new row, the others go; without a place it comes last.
    fn with(&self, places: &[usize], new: Option<(&str, &Entry)>) -> String {
        let mut new = new.map(|(role, entry)| self.written(role, entry));
        let mut text = self.head.concat();
        for (at, lines) in self.rows.iter().enumerate() {
            if !places.contains(&at) {
                text.push_str(&lines.row.concat());
            } else if let Some(new) = new.take() {
                text.push_str(&new);
            }
            text.push_str(&lines.after.concat());
        }
        if let Some(new) = new {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&new);
        }
        text
    }

    fn written(&self, role: &str, entry: &Entry) -> String {
        let indent = " ".repeat(self.indent);
        // JSON's strings are YAML's too.
        let quoted = |text: &str| Value::from(text).to_string();
        let mut row = format!("{indent}- rolearn: {}\n{indent}  username: {}\n", quoted(role), quoted(&entry.username));
        row.push_str(&format!("{indent}  groups:{}\n", if entry.groups.is_empty() { " []" } else { "" }));
        entry.groups.iter().for_each(|group| row.push_str(&format!("{indent}  - {}\n", quoted(group))));
        row
    }
}

#[cfg(test)]
mod tests;
