//! Rows as a table for people, or as CSV for their spreadsheets.

use jiff::Timestamp;

use crate::recording::visible;

/// A heading and rows of as many cells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sheet {
    pub head: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

impl Sheet {
    /// Columns as wide as their widest cell, the last as it is; nothing that a terminal obeys.
    pub fn table(&self) -> String {
        let head: Vec<String> = self.head.iter().map(|cell| cell.to_uppercase()).collect();
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(|cell| shown(cell)).collect()).collect();
        let mut widths = vec![0; head.len()];
        for row in rows.iter().chain([&head]) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let line = |row: &Vec<String>| {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            format!("{}\n", cells.join("  ").trim_end())
        };
        [&head].into_iter().chain(&rows).map(line).collect()
    }

    /// RFC 4180. A cell that a spreadsheet would run as a formula begins with an apostrophe.
    pub fn csv(&self) -> String {
        let head: Vec<String> = self.head.iter().map(|cell| cell.to_lowercase().replace(' ', "_")).collect();
        let line = |row: &Vec<String>| {
            let cells: Vec<String> = row.iter().map(|cell| field(cell)).collect();
            format!("{}\r\n", cells.join(","))
        };
        [&head].into_iter().chain(&self.rows).map(line).collect()
    }
}

fn shown(cell: &str) -> String {
    if cell.is_empty() { "-".into() } else { visible(cell) }
}

/// IAM allows a user to be called `=cmd`, `+1`, `@sum` or `-1`; some programs take the full-width signs as well, and
/// strip what is blank before they look.
fn field(cell: &str) -> String {
    let first = cell.trim_start_matches(|c: char| c.is_whitespace() || c.is_control()).chars().next();
    let formula = first.is_some_and(|c| "=+-@|＝＋－＠".contains(c)) || cell.starts_with(['\t', '\r', '\n']);
    let text = if formula { format!("'{cell}") } else { cell.to_owned() };
    let quoted = formula || text.contains(['"', ',', '\r', '\n']);
    if quoted { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// RFC 3339 in UTC; empty: not known.
pub fn time(seconds: Option<i64>) -> String {
    seconds.and_then(|at| Timestamp::from_second(at).ok()).map(|at| at.to_string()).unwrap_or_default()
}

/// The day of it.
pub fn day(seconds: Option<i64>) -> String {
    time(seconds).chars().take_while(|c| *c != 'T').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(cells: &[&str]) -> Sheet {
        Sheet { head: vec!["user", "last used"], rows: vec![cells.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    #[test]
    fn cells_with_commas_quotes_and_lines_are_quoted() {
        assert_eq!(sheet(&["a,b", "say \"no\""]).csv(), "user,last_used\r\n\"a,b\",\"say \"\"no\"\"\"\r\n");
        assert_eq!(sheet(&["one\r\ntwo", ""]).csv(), "user,last_used\r\n\"one\r\ntwo\",\r\n");
        assert_eq!(sheet(&["alice", "2026-11-21T00:00:00Z"]).csv(), "user,last_used\r\nalice,2026-11-21T00:00:00Z\r\n");
    }

    #[test]
    fn no_cell_is_a_formula() {
        for bad in ["=1+1", "+1", "-1", "@sum", "\t=1", "\r=1", " =1", "|calc", "＝1", "\n=1"] {
            let csv = sheet(&[bad, ""]).csv();
            assert!(csv.contains(&format!("\"'{bad}\"")), "{csv:?}");
        }
        assert_eq!(sheet(&["a=1", "b-c"]).csv(), "user,last_used\r\na=1,b-c\r\n");
    }

    #[test]
    fn a_table_has_even_columns_and_no_escapes() {
        let table = Sheet { rows: vec![vec!["al\u{1b}[2J".into(), String::new()]], ..sheet(&[]) }.table();
        assert_eq!(table, "USER         LAST USED\nal\\u{1b}[2J  -\n");
    }

    #[test]
    fn times() {
        assert_eq!(time(Some(1_763_683_200)), "2025-11-21T00:00:00Z");
        assert_eq!(day(Some(1_763_683_200)), "2025-11-21");
        assert_eq!((time(None), day(Some(i64::MAX))), (String::new(), String::new()));
    }
}
