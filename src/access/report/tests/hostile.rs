//! Files and words from anywhere.

use proptest::prelude::*;

use crate::access::report::history::{Wanted, joined, read};
use crate::access::report::question::parse;
use crate::access::report::review::Review;
use crate::access::report::sheet::Sheet;

/// The records of a CSV file, by the letter of RFC 4180.
fn records(csv: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut letters = csv.chars().peekable();
    while let Some(c) = letters.next() {
        match c {
            '"' if quoted && letters.peek() == Some(&'"') => cell.extend(letters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut cell)),
            '\r' if !quoted && letters.next_if_eq(&'\n').is_some() => {
                record.push(std::mem::take(&mut cell));
                records.push(std::mem::take(&mut record));
            }
            c => cell.push(c),
        }
    }
    records
}

proptest! {
    #[test]
    fn any_words_are_a_resource_or_none(text in "\\PC{0,40}") {
        if let Some((group, resource)) = parse(&text) {
            prop_assert!(!resource.is_empty() && group.as_deref() != Some(""));
        }
    }

    #[test]
    fn any_text_is_a_review_or_none(text in "\\PC{0,200}") {
        prop_assert!(Review::parse(&text).is_err());
    }

    #[test]
    fn any_bytes_are_a_history(bytes: Vec<u8>) {
        joined(&read(&bytes[..], &Wanted::default()).unwrap());
    }

    #[test]
    fn what_is_written_as_csv_is_read_again(cells in prop::collection::vec(any::<String>(), 2)) {
        let csv = Sheet { head: vec!["one", "two"], rows: vec![cells.clone()] }.csv();
        let read = records(&csv);
        prop_assert_eq!(read.len(), 2);
        for (read, cell) in read[1].iter().zip(&cells) {
            prop_assert!(read == cell || read.strip_prefix('\'') == Some(cell));
            prop_assert!(!read.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']));
        }
    }
}
