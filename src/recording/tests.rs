//! The container as a whole: what is written is read, and nothing else is.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::session::{FIRST_STREAM, SessionId};

mod hostile;

pub(super) fn id() -> SessionId {
    "01932c07-a6b1-7c3e-9d2f-0123456789ab".parse().unwrap()
}

pub(super) fn wall(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_731_600_000_000 + millis).unwrap()
}

pub(super) fn boot(millis: u64) -> Duration {
    Duration::from_millis(5_000_000 + millis)
}

pub(super) fn header() -> Header {
    Header {
        user: "alice".into(),
        from: "192.0.2.7:50022".into(),
        key: "SHA256:uNiVztksCsDhcc0u9e8BrrJXVGDdhWBnRTIXSzCTqJ4".into(),
        client: "SSH-2.0-OpenSSH_10.0".into(),
        groups: vec!["ops".into()],
        image: "base".into(),
        role: Some("arn:aws:iam::123456789012:role/bastion/alice".into()),
    }
}

pub(super) fn output(text: &str) -> Event {
    Event::Output { number: 1, data: Bytes::copy_from_slice(text.as_bytes()) }
}

pub(super) fn exec() -> KubeStream {
    KubeStream {
        audit_id: "5a3c".into(),
        cluster: "hyades".into(),
        namespace: "default".into(),
        pod: "web-0".into(),
        container: Some("app".into()),
        subresource: "exec".into(),
        command: vec!["sh".into(), "-i".into()],
        terminal: true,
    }
}

fn everything() -> Vec<Event> {
    let terminal = Terminal { term: "xterm".into(), columns: 80, rows: 24, width: 0, height: 0, modes: vec![(53, 1)] };
    vec![
        Event::Channel {
            number: 1,
            program: None,
            terminal: Some(terminal),
            environment: vec![("LANG".into(), "C.UTF-8".into())],
        },
        Event::Exec { number: 1, exec: Exec { pid: 7, path: "/bin/bash".into(), arguments: vec!["-bash".into()] } },
        output("$ "),
        Event::Input { number: 1, data: Bytes::from_static(b"\xff\x00l") },
        Event::InputRedacted { number: 1, bytes: 9, why: "echo off".into() },
        Event::Resize { number: 1, columns: 120, rows: 50, width: 1, height: 2 },
        Event::Signal { number: 1, name: "INT".into() },
        Event::Channel { number: 2, program: Some("tar c .".into()), terminal: None, environment: vec![] },
        Event::ErrorOutput { number: 2, data: Bytes::from_static(b"tar: oh\n") },
        Event::InputEnd { number: 2 },
        Event::Bulk { number: 2, direction: Direction::Output, offset: BULK_AFTER, length: 77, sha256: [3; 32] },
        Event::Credential { access_key_id: "ASIAEXAMPLE".into(), expires: 1_731_603_600 },
        Event::Note { text: "a note".into() },
        Event::Detached { number: 1 },
        Event::Attached { number: 1 },
        Event::ExitSignal { number: 2, name: "PIPE".into() },
        Event::ExitStatus { number: 1, status: 3 },
        Event::KubeStream { number: FIRST_STREAM, stream: Box::new(exec()) },
        Event::ExitStatus { number: FIRST_STREAM, status: 7 },
    ]
}

/// A recording with a frame for each event, and where each of its frames ends.
fn sample(closed: bool) -> (Vec<u8>, Vec<usize>) {
    let (mut writer, mut file) = Writer::begin(id(), wall(0), boot(0), &header(), Durability::Local);
    let mut ends = vec![file.len()];
    let mut at = 0;
    for event in everything() {
        at += 10;
        writer.push(boot(at), &event);
        file.extend(writer.close_frame(wall(at as i64), boot(at)).unwrap());
        ends.push(file.len());
    }
    if closed {
        file.extend(writer.finish(wall(999), boot(999), "exit"));
        ends.push(file.len());
    }
    (file, ends)
}

/// All events before the first error, and that error.
fn read(file: &[u8]) -> (Vec<Recorded>, Option<ReadError>) {
    let mut events = Vec::new();
    match Reader::open(file) {
        Err(e) => (events, Some(e)),
        Ok(reader) => {
            for recorded in reader {
                match recorded {
                    Ok(recorded) => events.push(recorded),
                    Err(e) => return (events, Some(e)),
                }
            }
            (events, None)
        }
    }
}

/// Whether a file reads as a whole recording with its end.
fn intact(file: &[u8]) -> bool {
    let Ok(mut reader) = Reader::open(file) else { return false };
    reader.by_ref().all(|recorded| recorded.is_ok()) && reader.closing().is_some()
}

fn disk(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn content(mut file: &std::fs::File) -> Vec<u8> {
    use std::io::{Read, Seek};
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn every_event_comes_back_at_its_time() {
    let (file, _) = sample(true);
    let mut reader = Reader::open(&file[..]).unwrap();
    assert_eq!((reader.session(), reader.header(), reader.started()), (id(), &header(), wall(0)));
    assert_eq!(reader.opening().grade, Durability::Local);
    let events: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
    assert_eq!(events.iter().map(|r| r.event.clone()).collect::<Vec<_>>(), everything());
    for (n, recorded) in events.iter().enumerate() {
        assert_eq!(recorded.at, Duration::from_millis(10 * (n as u64 + 1)));
    }
    let closing = reader.closing().unwrap();
    assert_eq!((closing.reason.as_str(), closing.exit, closing.lost), ("exit", Some(3), None));
    assert_eq!(
        closing.totals,
        Totals { events: 19, channels: 2, output: 79, error_output: 8, input: 12, redacted: 9, execs: 1 }
    );
    assert_eq!(reader.length(), Duration::from_millis(999));
    assert_eq!(reader.closed_at(), Some(wall(999)));
}

#[test]
fn the_same_events_give_the_same_bytes() {
    assert_eq!(sample(true).0, sample(true).0);
}

#[test]
fn events_of_one_commit_share_a_frame_and_a_flood_makes_several() {
    let (mut writer, mut file) = Writer::begin(id(), wall(0), boot(0), &header(), Durability::Relaxed);
    assert_eq!(writer.close_frame(wall(1), boot(1)), None);
    writer.push(boot(1), &output("a"));
    writer.push(boot(2), &output("b"));
    // Time that goes back counts as the last time.
    writer.push(boot(0), &output("c"));
    file.extend(writer.close_frame(wall(3), boot(3)).unwrap());
    let flood: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    writer.push(boot(4), &Event::Output { number: 1, data: flood.clone().into() });
    assert!(writer.pending() > 0);
    file.extend(writer.finish(wall(5), boot(5), "exit"));
    let mut reader = Reader::open(&file[..]).unwrap();
    let events: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
    assert_eq!(events[2].at, Duration::from_millis(2));
    let bytes: Vec<u8> = events[3..]
        .iter()
        .flat_map(|r| match &r.event {
            Event::Output { data, .. } => data.to_vec(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(bytes, flood);
    assert!(reader.frames() > 6, "{}", reader.frames());
}

#[test]
fn a_jump_of_the_wall_clock_is_an_event() {
    let (mut writer, mut file) = Writer::begin(id(), wall(0), boot(0), &header(), Durability::Local);
    writer.push(boot(10), &output("a"));
    file.extend(writer.close_frame(wall(900), boot(10)).unwrap());
    writer.push(boot(20), &output("b"));
    let back = wall(20).checked_sub(SignedDuration::from_hours(1)).unwrap();
    file.extend(writer.finish(back, boot(20), "exit"));
    let (events, error) = read(&file);
    assert!(error.is_none());
    let jumps: Vec<_> = events.iter().filter(|r| matches!(r.event, Event::Clock { .. })).collect();
    assert_eq!(jumps.len(), 1);
    assert_eq!(jumps[0].event, Event::Clock { wall: back.as_microsecond(), jump: -3_600_000_000 - 890_000 },);
}

#[test]
fn an_event_longer_than_any_link_carries_leaves_a_note() {
    let (mut writer, mut file) = Writer::begin(id(), wall(0), boot(0), &header(), Durability::Local);
    writer.push(boot(1), &Event::Note { text: "x".repeat(300 << 10) });
    file.extend(writer.finish(wall(1), boot(1), &"because ".repeat(1000)));
    let (events, error) = read(&file);
    assert!(error.is_none(), "{error:?}");
    let Event::Note { text } = &events[0].event else { panic!("{events:?}") };
    assert!(text.contains("too long"), "{text}");
}

#[test]
fn cut_anywhere_in_the_last_frames_the_whole_ones_are_kept() {
    for closed in [false, true] {
        let (file, ends) = sample(closed);
        let first = ends[ends.len() - 4];
        for cut in first..file.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let keep = ends[whole - 1];
            let kept = (whole - 1).min(everything().len());
            let on_disk = disk(&file[..cut]);
            let found = recover(&on_disk, wall(5000), boot(7)).unwrap().unwrap();
            assert_eq!((found.events, found.lost), (kept as u64, (cut - keep) as u64), "cut at {cut}");
            let mended = content(&on_disk);
            assert_eq!(mended[..keep], file[..keep], "cut at {cut}");
            let mut reader = Reader::open(&mended[..]).unwrap();
            assert_eq!(reader.by_ref().map(Result::unwrap).count(), kept);
            let closing = reader.closing().unwrap();
            assert!(closing.recovered());
            assert_eq!(closing.lost, Some((cut - keep) as u64));
            assert_eq!(reader.closed_at(), Some(wall(5000)));
            // A second run finds nothing to do.
            assert_eq!(recover(&on_disk, wall(6000), boot(8)).unwrap(), None);
            assert_eq!(content(&on_disk), mended);
        }
    }
}

#[test]
fn a_cut_before_the_first_event_is_said_so() {
    let (file, ends) = sample(true);
    for cut in 0..ends[0] {
        assert!(matches!(Reader::open(&file[..cut]).map(drop), Err(ReadError::Unopened)), "cut at {cut}");
        let refused = recover(&disk(&file[..cut]), wall(0), boot(0));
        assert!(matches!(refused, Err(RecoverError::Read(ReadError::Unopened))), "cut at {cut}");
    }
}

#[test]
fn zeros_and_garbage_after_the_last_whole_frame_are_a_torn_tail() {
    let (file, ends) = sample(false);
    for cut in [ends[ends.len() - 2], ends[ends.len() - 2] + 1, ends[ends.len() - 2] + 40, file.len() - 1, file.len()] {
        for tail in [vec![0; 5000], vec![0x5a; 777], vec![0; 3]] {
            let torn = [&file[..cut], &tail].concat();
            let (events, error) = read(&torn);
            assert!(error.is_some());
            if tail.iter().all(|b| *b == 0) && ends.contains(&cut) {
                assert!(matches!(error, Some(ReadError::Torn { lost, .. }) if lost == tail.len() as u64));
            }
            let on_disk = disk(&torn);
            let found = recover(&on_disk, wall(1), boot(1)).unwrap().unwrap();
            assert_eq!(found.events, events.len() as u64);
            assert!(intact(&content(&on_disk)));
        }
    }
}

#[test]
fn recovery_does_not_cut_before_a_whole_frame() {
    let (file, ends) = sample(false);
    for byte in ends[2]..ends[3] {
        let mut bad = file.clone();
        bad[byte] ^= 0x10;
        let on_disk = disk(&bad);
        match recover(&on_disk, wall(1), boot(1)) {
            Err(RecoverError::Beyond { offset, found }) => {
                assert_eq!((offset, found), (ends[2] as u64, ends[3] as u64));
            }
            // A signature's length, or a key in the header, is a newer version's mark.
            Err(RecoverError::Read(ReadError::Newer { .. })) => {}
            other => panic!("byte {byte}: {other:?}"),
        }
        assert_eq!(content(&on_disk), bad);
    }
}

/// The figures in `mod.rs`; run with `--nocapture` to see them.
#[test]
fn a_key_press_costs_what_the_documentation_says() {
    let (mut writer, opening) = Writer::begin(id(), wall(0), boot(0), &header(), Durability::Local);
    let mut sizes = Vec::new();
    for n in 1..=1000u64 {
        let at = boot(n * 1_800);
        writer.push(at, &output("l"));
        sizes.push(writer.close_frame(wall(n as i64 * 1_800), at).unwrap().len());
    }
    writer.push(boot(2_000_000), &Event::Input { number: 1, data: Bytes::from_static(b"l") });
    writer.push(boot(2_000_001), &output("l"));
    let both = writer.close_frame(wall(2_000_001), boot(2_000_001)).unwrap().len();
    let closing = writer.finish(wall(2_000_002), boot(2_000_002), "exit").len();
    println!("opening {}, key {}..{}, input and echo {both}, closing {closing}", opening.len(), sizes[0], sizes[999]);
    assert!(sizes.iter().all(|size| (100..160).contains(size)));
}
