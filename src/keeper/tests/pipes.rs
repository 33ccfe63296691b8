use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use sha2::{Digest, Sha256};

use super::*;
use crate::recording::Direction;

/// A real program between three pipes.
fn start(rig: &Rig, session: SessionId, script: &str) -> (Child, Gate) {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let input: OwnedFd = child.stdin.take().unwrap().into();
    let output: OwnedFd = child.stdout.take().unwrap().into();
    let error: OwnedFd = child.stderr.take().unwrap().into();
    let (ours, theirs) = pair().unwrap();
    let message = FromJailer::Told(JailerToKeeper::Pipes { session, number: 1 });
    tell(&rig.control, &message, &[input.as_fd(), output.as_fd(), error.as_fd(), theirs.as_fd()]);
    (child, Gate(GateEnd::new(ours).unwrap()))
}

async fn reap(rig: &Rig, session: SessionId, mut child: Child) {
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    rig.ended(session, 1, status.into_raw());
}

async fn send(gate: &Gate, data: &[u8]) {
    for piece in data.chunks(32 << 10) {
        gate.input(piece).await;
    }
    gate.0.send(&FromGate::InputEnd).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn half_close_makes_a_filter_work() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let (child, gate) = start(&rig, session, "cat; echo done >&2; exit 3");
    let sent = pattern(5 << 20);
    let ((), (output, error, last), ()) = tokio::join!(send(&gate, &sent), gate.all(), reap(&rig, session, child));
    assert!(output == sent, "{} of {} bytes", output.len(), sent.len());
    assert_eq!((&error[..], last), (&b"done\n"[..], FromKeeper::Exit(3)));
    let events = rig.close(session).await;
    assert!(output_of(&events) == sent);
    let input = events.iter().filter_map(|event| match event {
        Event::Input { data, .. } => Some(&data[..]),
        _ => None,
    });
    assert!(input.collect::<Vec<_>>().concat() == sent);
    assert!(events.contains(&Event::InputEnd { number: 1 }));
    assert!(events.contains(&Event::ErrorOutput { number: 1, data: Bytes::from_static(b"done\n") }));
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_limit_each_mebibyte_is_its_digest() {
    let rig = rig(Settings { bulk_after: 100_000, ..settings() }).await;
    let session = rig.open().await;
    let (child, gate) = start(&rig, session, "cat");
    let sent = pattern((3 << 20) + 12_345);
    let ((), (output, _, last), ()) = tokio::join!(send(&gate, &sent), gate.all(), reap(&rig, session, child));
    assert!(output == sent && last == FromKeeper::Exit(0));
    let events = rig.close(session).await;
    assert!(output_of(&events) == sent[..100_000]);
    for wanted in [Direction::Input, Direction::Output] {
        let mut at = 100_000;
        for event in &events {
            let Event::Bulk { direction, offset, length, sha256, .. } = event else { continue };
            if *direction == wanted {
                assert_eq!(*offset, at as u64);
                let end = at + usize::try_from(*length).unwrap();
                assert_eq!(sha256[..], Sha256::digest(&sent[at..end])[..]);
                at = end;
            }
        }
        assert_eq!(at, sent.len(), "{wanted:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_closes_its_input_hears_no_more_and_goes_on() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let (child, gate) = start(&rig, session, "exec <&-; sleep 0.3; echo out; kill -9 $$");
    let sent = pattern(1 << 20);
    let ((), (output, _, last), ()) = tokio::join!(send(&gate, &sent), gate.all(), reap(&rig, session, child));
    assert_eq!((&output[..], last), (&b"out\n"[..], FromKeeper::ExitSignal("KILL".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_keeps_the_pipes_does_not_keep_the_channel() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let (child, gate) = start(&rig, session, "sleep 60 & echo out; (sleep 0.1; echo late) & exit 0");
    let ((output, _, last), ()) = tokio::join!(gate.all(), reap(&rig, session, child));
    assert_eq!((&output[..], last), (&b"out\nlate\n"[..], FromKeeper::Exit(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_gets_everything_after_the_exit() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let (child, gate) = start(&rig, session, "head -c 900000 /dev/zero");
    reap(&rig, session, child).await;
    // The closed recording waits for no client, and the client for no recording.
    let events = rig.close(session).await;
    assert_eq!(output_of(&events).len(), 900_000);
    let (output, _, last) = gate.all().await;
    assert_eq!((output.len(), last), (900_000, FromKeeper::Exit(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_input_in_the_policy_there_are_counts() {
    let rig = rig(Settings { input: InputPolicy::None, ..settings() }).await;
    let session = rig.open().await;
    let (child, gate) = start(&rig, session, "cat >/dev/null");
    tokio::join!(send(&gate, b"hush"), gate.all(), reap(&rig, session, child));
    let events = rig.close(session).await;
    assert!(events.contains(&Event::InputRedacted { number: 1, bytes: 4, why: "policy".into() }));
    assert!(!events.iter().any(|event| matches!(event, Event::Input { .. })));
}

/// Not a test of right or wrong: `cargo test --release -- --ignored --nocapture speed` prints MB/s.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn speed_of_a_pipe() {
    for (name, bulk_after) in [("recorded", u64::MAX), ("digested", 0)] {
        let rig = rig(Settings { bulk_after, ..settings() }).await;
        let session = rig.open().await;
        let begun = std::time::Instant::now();
        let (child, gate) = start(&rig, session, "head -c 268435456 /dev/zero");
        let count = async {
            let mut bytes = 0;
            while let FromKeeper::Output(data) = gate.heard().await {
                bytes += data.len();
            }
            bytes
        };
        let (bytes, ()) = tokio::join!(count, reap(&rig, session, child));
        assert_eq!(bytes, 268_435_456);
        println!("{name}: {:.0} MB/s", bytes as f64 / 1e6 / begun.elapsed().as_secs_f64());
    }
}
