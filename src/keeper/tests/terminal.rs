use std::io::Read;
use std::time::Instant;

use rustix::termios::tcgetwinsize;

use super::*;
use crate::privsep::message::Size;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_is_in_the_file_and_a_key_and_its_echo_share_a_frame() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let (_slave, gate) = rig.terminal(session, 1);
    for (n, key) in b"hello".iter().enumerate() {
        gate.input(&[*key]).await;
        assert_eq!(gate.heard().await, FromKeeper::Output(Bytes::copy_from_slice(&[*key])));
        let (events, _) = recorded(rig.dir.path(), session);
        assert_eq!(events.len(), 2 * (n + 1), "both are there when the echo is shown");
        let [.., input, output] = &events[..] else { panic!() };
        assert!(matches!(&input.event, Event::Input { data, .. } if data[..] == [*key]));
        assert!(matches!(&output.event, Event::Output { data, .. } if data[..] == [*key]));
        assert_eq!(input.offset, output.offset, "one frame, one fdatasync");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_before_the_end_is_shown_and_recorded() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let (mut slave, gate) = rig.terminal(session, 1);
    slave.raw();
    let sent = pattern(3 << 20);
    let writer = tokio::task::spawn_blocking({
        let sent = sent.clone();
        move || slave.write(&sent)
    });
    let reading = async {
        // The program ends at once after its last write; the slave is closed with it.
        writer.await.unwrap();
        rig.ended(session, 1, 7 << 8);
    };
    let ((output, _, last), ()) = tokio::join!(gate.all(), reading);
    assert_eq!(last, FromKeeper::Exit(7));
    assert!(output == sent, "{} of {} bytes", output.len(), sent.len());
    let events = rig.close(session).await;
    assert!(output_of(&events) == sent);
    assert!(matches!(events.last(), Some(Event::ExitStatus { number: 1, status: 7 })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_process_does_not_keep_the_channel() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let (mut slave, gate) = rig.terminal(session, 1);
    slave.write(b"last words");
    rig.ended(session, 1, 9);
    let (output, _, last) = gate.all().await;
    assert_eq!((&output[..], last), (&b"last words"[..], FromKeeper::ExitSignal("KILL".into())));
    assert!(gate.0.recv().await.is_err(), "the stream is closed");
    // The master is closed: whoever is left in the jail is hung up.
    hung_up(&mut slave).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_flood_does_not_keep_the_channel() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let (mut slave, gate) = rig.terminal(session, 1);
    slave.raw();
    let flood = std::thread::spawn(move || while slave.0.write_all(&[b'y'; 4096]).is_ok() {});
    let FromKeeper::Output(_) = gate.heard().await else { panic!() };
    rig.ended(session, 1, 0);
    assert_eq!(gate.all().await.2, FromKeeper::Exit(0));
    flood.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_input_is_counted_and_not_kept() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let (mut slave, gate) = rig.terminal(session, 1);
    slave.echo(false);
    gate.input(b"hunter2\n").await;
    let mut line = [0; 8];
    slave.0.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"hunter2\n", "the program has it all the same");
    slave.raw();
    slave.write(b"Password: ");
    assert_eq!(gate.heard().await, FromKeeper::Output(Bytes::from_static(b"Password: ")));
    gate.input(b"secret\r").await;
    gate.input(b"open").await;
    let mut rest = [0; 11];
    slave.0.read_exact(&mut rest).unwrap();
    drop(slave);
    rig.ended(session, 1, 0);
    gate.all().await;
    let events = rig.close(session).await;
    let inputs: Vec<_> = events.into_iter().filter(|e| !matches!(e, Event::Output { .. })).collect();
    let redacted = |bytes, why: &str| Event::InputRedacted { number: 1, bytes, why: why.into() };
    let [first, second, third, Event::ExitStatus { .. }] = &inputs[..] else { panic!("{inputs:?}") };
    assert_eq!((first, second), (&redacted(8, "echo off"), &redacted(7, "pattern")));
    assert_eq!(third, &Event::Input { number: 1, data: Bytes::from_static(b"open") });
    let file = std::fs::read(file_of(rig.dir.path(), session)).unwrap();
    assert!(!file.windows(6).any(|bytes| bytes == b"hunter"));
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_nobody_reads_stalls_only_itself_and_none_is_lost() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let (mut slave, gate) = rig.terminal(session, 1);
    let (_other, typing) = rig.terminal(session, 2);
    slave.raw();
    let sent = pattern(200 << 10);
    for piece in sent.chunks(32 << 10) {
        gate.input(piece).await;
    }
    let size = Size { columns: 132, rows: 50, width: 0, height: 0 };
    gate.0.send(&FromGate::Resize(size)).await.unwrap();
    gate.0.send(&FromGate::Signal("INT".into())).await.unwrap();
    let heard = rig.heard().await;
    assert!(matches!(heard, KeeperToWarden::Signal { number: 1, signal: 2, .. }), "not behind the input: {heard:?}");
    assert_eq!(tcgetwinsize(&slave.0).unwrap().ws_col, 132);
    typing.input(b"k").await;
    assert_eq!(typing.heard().await, FromKeeper::Output(Bytes::from_static(b"k")));
    let read = tokio::task::spawn_blocking(move || {
        let mut got = vec![0; 200 << 10];
        slave.0.read_exact(&mut got).unwrap();
        got
    });
    assert!(read.await.unwrap() == sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_stops_its_program_and_nobody_else() {
    let rig = rig(settings()).await;
    let (slow, fast) = (rig.open().await, rig.open().await);
    let (mut slave, _silent) = rig.terminal(slow, 1);
    let (_quick, gate) = rig.terminal(fast, 1);
    slave.raw();
    let written = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = written.clone();
    std::thread::spawn(move || {
        while slave.0.write_all(&[b'y'; 4096]).is_ok() {
            count.fetch_add(4096, std::sync::atomic::Ordering::Relaxed);
        }
    });
    // Until it has stood still for as long as another session's twenty keys take.
    let (mut before, mut still) = (0, 0);
    while still < 20 {
        gate.input(b"k").await;
        gate.heard().await;
        let taken = written.load(std::sync::atomic::Ordering::Relaxed);
        assert!(taken < 4 << 20, "{taken} bytes taken from a program whose output nobody reads");
        still = if taken == before && taken > 0 { still + 1 } else { 0 };
        before = taken;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gate_the_recording_goes_on() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let (mut slave, gate) = rig.terminal(session, 1);
    slave.raw();
    slave.write(b"seen");
    gate.heard().await;
    drop(gate);
    let sent = pattern(2 << 20);
    let (mut slave, copy) = (slave, sent.clone());
    tokio::task::spawn_blocking(move || slave.write(&copy)).await.unwrap();
    rig.ended(session, 1, 0);
    let events = rig.close(session).await;
    assert!(output_of(&events) == [b"seen", &sent[..]].concat());
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Detached { number: 1 })).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn relaxed_shows_first_and_writes_within_a_second() {
    let rig = rig(Settings { durability: Durability::Relaxed, ..settings() }).await;
    let session = rig.open().await;
    let (mut slave, gate) = rig.terminal(session, 1);
    slave.write(b"quick");
    gate.heard().await;
    assert!(recorded(rig.dir.path(), session).0.is_empty());
    let written = async {
        while recorded(rig.dir.path(), session).0.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, written).await.expect("without another event it is written all the same");
    assert_eq!(recorded(rig.dir.path(), session).0.len(), 1);
}

/// Not a test of right or wrong: `cargo test -- --ignored --nocapture cost` prints what a key press costs.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn cost_of_a_key() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let (_slave, gate) = rig.terminal(session, 1);
    let size = || std::fs::metadata(file_of(rig.dir.path(), session)).unwrap().len();
    let before = size();
    let mut took = Vec::new();
    for _ in 0..500 {
        let begun = Instant::now();
        gate.input(b"k").await;
        gate.heard().await;
        took.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    took.sort();
    let (events, _) = recorded(rig.dir.path(), session);
    let frames = events.iter().map(|event| event.offset).collect::<std::collections::HashSet<_>>().len();
    let (middle, late) = (took[250], took[494]);
    println!("{} bytes and {} fdatasyncs a key", (size() - before) / 500, frames as f64 / 500.0);
    println!("from key to echo: p50 {middle:?}, p99 {late:?}");
}
