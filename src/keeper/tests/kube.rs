//! Streams on clusters: the porter, the client and the cluster are the test.

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::keeper::kube::tests::{SpdyClient, data, frame, message};
use crate::keeper::kube::wire::Side;
use crate::privsep::message::{FIRST_STREAM, PorterToKeeper, StreamProtocol};
use crate::recording::{Direction, KubeStream};

const SUCCESS: &[u8] = b"{\"metadata\":{},\"status\":\"Success\"}";
const SEVEN: &[u8] = b"{\"status\":\"Failure\",\"reason\":\"NonZeroExitCode\",\"details\":{\"causes\":[\
    {\"reason\":\"ExitCode\",\"message\":\"7\"}]}}";

pub(super) struct Porter(OwnedFd);

pub(super) fn porter(rig: &Rig) -> Porter {
    let (ours, theirs) = pair().unwrap();
    tell(&rig.control, &FromJailer::Peer(Role::Porter), &[theirs.as_fd()]);
    Porter(ours)
}

/// A stream, and what is spoken on it.
type About = (StreamProtocol, KubeStream);

pub(super) fn about(protocol: StreamProtocol, terminal: bool) -> About {
    let stream = KubeStream {
        audit_id: "5a3c".into(),
        cluster: "hyades".into(),
        namespace: "default".into(),
        pod: "web-0".into(),
        container: None,
        subresource: "exec".into(),
        command: vec!["sh".into()],
        terminal,
    };
    (protocol, stream)
}

/// The far ends of a stream.
pub(super) struct Far {
    pub(super) client: UnixStream,
    pub(super) cluster: UnixStream,
}

impl Porter {
    pub(super) fn stream(&self, session: SessionId, number: u32, about: About, early: &[u8]) -> Far {
        let (client, near_client) = std::os::unix::net::UnixStream::pair().unwrap();
        let (cluster, near_cluster) = std::os::unix::net::UnixStream::pair().unwrap();
        let ((protocol, stream), from_client) = (about, early.to_vec());
        let message = PorterToKeeper::Stream { session, number, stream: Box::new(stream), from_client, protocol };
        send_packet(self.0.as_fd(), &encode(&message), &[near_client.as_fd(), near_cluster.as_fd()]).unwrap();
        let far = |end: std::os::unix::net::UnixStream| {
            end.set_nonblocking(true).unwrap();
            UnixStream::from_std(end).unwrap()
        };
        Far { client: far(client), cluster: far(cluster) }
    }
}

pub(super) async fn read(from: &mut UnixStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    timeout(PATIENCE, from.read_exact(&mut got)).await.expect("nothing comes").unwrap();
    assert!(got == expected, "{:?} is not {:?}", String::from_utf8_lossy(&got), String::from_utf8_lossy(expected));
}

/// Reads until the end; an end by force counts too.
pub(super) async fn ended(from: &mut UnixStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, from.read_to_end(&mut rest)).await.expect("it does not end");
    rest
}

async fn said(far: &mut Far, side: Side, bytes: &[u8]) {
    let (from, to) = match side {
        Side::Client => (&mut far.client, &mut far.cluster),
        Side::Cluster => (&mut far.cluster, &mut far.client),
    };
    from.write_all(bytes).await.unwrap();
    read(to, bytes).await;
}

/// The audit lines of a code, as soon as there are so many.
async fn lines(rig: &Rig, code: &str, count: usize) -> Vec<serde_json::Value> {
    let there = async {
        loop {
            let text = std::fs::read_to_string(rig.dir.path().join("audit.jsonl")).unwrap_or_default();
            let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            let lines: Vec<_> = lines.filter(|line| line["metadata"]["event_code"] == code).collect();
            if lines.len() >= count {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, there).await.expect("it is not in the audit trail")
}

fn kinds(events: &[Event]) -> Vec<&Event> {
    events.iter().filter(|event| event.number() == Some(FIRST_STREAM)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_shown_before_it_is_durable() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let mut far = porter(&rig).stream(session, FIRST_STREAM, about(StreamProtocol::WebSocket5, true), b"");
    for n in 1..20 {
        said(&mut far, Side::Cluster, &message(1, format!("line {n}\r\n").as_bytes())).await;
        let shown = recorded(rig.dir.path(), session).0;
        let last = Event::Output { number: FIRST_STREAM, data: format!("line {n}\r\n").into() };
        assert_eq!(shown.last().map(|recorded| &recorded.event), Some(&last));
    }
}

/// Says the same over each protocol: what happens in `kubectl exec`.
fn talk(protocol: StreamProtocol, terminal: bool) -> Vec<(Side, Vec<u8>)> {
    use Side::{Client, Cluster};
    let size = b"{\"Width\":80,\"Height\":24}\n";
    let mut talk = match protocol {
        StreamProtocol::Spdy => vec![
            (Client, SpdyClient::default().open_all()),
            (Client, data(1, false, b"sent")),
            (Cluster, data(3, false, b"out")),
            (Cluster, data(5, false, b"err")),
            (Client, data(1, true, b"")),
            (Cluster, data(7, true, SEVEN)),
        ],
        _ => vec![
            (Cluster, message(1, b"")),
            (Client, message(0, b"sent")),
            (Cluster, message(1, b"out")),
            (Cluster, message(2, b"err")),
            (Client, frame(Client, 0x89, b"")),
            (Cluster, message(3, SEVEN)),
        ],
    };
    if protocol == StreamProtocol::WebSocket5 {
        talk.insert(4, (Client, frame(Client, 0x82, &[255, 0])));
    }
    if terminal {
        let resize = if protocol == StreamProtocol::Spdy { data(9, false, size) } else { message(4, size) };
        talk.insert(1, (Client, resize));
    }
    talk
}

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_with_and_without_a_terminal() {
    for protocol in [StreamProtocol::WebSocket4, StreamProtocol::WebSocket5, StreamProtocol::Spdy] {
        for terminal in [false, true] {
            let rig = rig(settings()).await;
            let session = rig.open().await;
            let mut far = porter(&rig).stream(session, FIRST_STREAM, about(protocol, terminal), b"");
            let talk = talk(protocol, terminal);
            let bytes = |wanted| talk.iter().filter(|(side, _)| *side == wanted).map(|(_, b)| b.len()).sum::<usize>();
            for (side, bytes) in &talk {
                said(&mut far, *side, bytes).await;
            }
            far.cluster.shutdown().await.unwrap();
            assert!(ended(&mut far.client).await.is_empty());
            drop(far.client);
            let closed = lines(&rig, "SK5204I", 1).await;
            let told = &closed[0]["unmapped"];
            assert_eq!((&told["stream"], &told["exit"]), (&"k1".into(), &7.into()), "{told}");
            assert_eq!(closed[0]["traffic"]["bytes_out"], bytes(Side::Client));
            assert_eq!(closed[0]["traffic"]["bytes_in"], bytes(Side::Cluster));
            assert_eq!(lines(&rig, "SK5203I", 1).await[0]["unmapped"]["pod"], "web-0");
            let events = rig.close(session).await;
            let number = FIRST_STREAM;
            let mut expected = vec![
                Event::Input { number, data: Bytes::from_static(b"sent") },
                Event::Output { number, data: Bytes::from_static(b"out") },
                Event::ErrorOutput { number, data: Bytes::from_static(b"err") },
                Event::ExitStatus { number, status: 7 },
            ];
            if terminal {
                expected.insert(0, Event::Resize { number, columns: 80, rows: 24, width: 0, height: 0 });
            }
            if protocol != StreamProtocol::WebSocket4 {
                expected.insert(expected.len() - 1, Event::InputEnd { number });
            }
            let events = kinds(&events);
            assert!(matches!(events[0], Event::KubeStream { stream, .. } if stream.terminal == terminal));
            assert_eq!(events[1..], expected.iter().collect::<Vec<_>>(), "{protocol:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_already_comes_first() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let input = message(0, b"typed ahead");
    let about = about(StreamProtocol::WebSocket4, false);
    let mut far = porter(&rig).stream(session, FIRST_STREAM, about, &input[..5]);
    far.client.write_all(&input[5..]).await.unwrap();
    read(&mut far.cluster, &input).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_each_way_are_the_same_and_digested() {
    const HALF: usize = 50 << 20;
    const WHOLE: usize = 1 << 20;
    let rig = rig(Settings { bulk_after: WHOLE as u64, ..settings() }).await;
    let session = rig.open().await;
    let far = porter(&rig).stream(session, FIRST_STREAM, about(StreamProtocol::WebSocket5, false), b"");
    let (mut client_in, mut client_out) = far.client.into_split();
    let (mut cluster_in, mut cluster_out) = far.cluster.into_split();
    let sent = pattern(HALF);
    let framed = |lane| -> Vec<u8> { sent.chunks(32 << 10).flat_map(|piece| message(lane, piece)).collect() };
    let (up, down) = (framed(0), framed(1));
    let read = async |from: &mut tokio::net::unix::OwnedReadHalf, all: &[u8]| {
        let mut got = vec![0; all.len()];
        from.read_exact(&mut got).await.unwrap();
        assert!(got == all);
    };
    let all = async {
        tokio::join!(
            async { client_out.write_all(&up).await.unwrap() },
            async { cluster_out.write_all(&down).await.unwrap() },
            read(&mut cluster_in, &up),
            read(&mut client_in, &down),
        )
    };
    timeout(PATIENCE * 6, all).await.unwrap();
    drop((cluster_in, cluster_out, client_in, client_out));
    lines(&rig, "SK5204I", 1).await;
    let events = rig.close(session).await;
    assert!(output_of(&events) == sent[..WHOLE]);
    for wanted in [Direction::Input, Direction::Output] {
        let mut at = WHOLE;
        for event in &events {
            let Event::Bulk { direction, offset, length, sha256, .. } = event else { continue };
            if *direction == wanted {
                let end = at + usize::try_from(*length).unwrap();
                assert_eq!((*offset, &sha256[..]), (at as u64, &Sha256::digest(&sent[at..end])[..]));
                at = end;
            }
        }
        assert_eq!(at, HALF, "{wanted:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_not_forwarded_and_ends_it() {
    let garbled = [
        (Side::Client, frame(Side::Cluster, 0x82, b"\0rm -rf /")),
        (Side::Cluster, frame(Side::Cluster, 0xc2, b"\x01compressed")),
    ];
    for (side, bytes) in garbled {
        let rig = rig(settings()).await;
        let session = rig.open().await;
        let mut far = porter(&rig).stream(session, FIRST_STREAM, about(StreamProtocol::WebSocket5, true), b"");
        said(&mut far, Side::Client, &message(0, b"ls\r")).await;
        let from = if side == Side::Client { &mut far.client } else { &mut far.cluster };
        from.write_all(&bytes).await.unwrap();
        assert!(ended(&mut far.client).await.is_empty() && ended(&mut far.cluster).await.is_empty());
        let closed = lines(&rig, "SK5204I", 1).await;
        assert_eq!(closed[0]["status_id"], 2, "{}", closed[0]);
        let events = rig.close(session).await;
        let cut = |event: &Event| matches!(event, Event::Note { text } if text.starts_with("k1 was cut: the cl"));
        assert!(events.iter().any(cut), "{events:?}");
        assert!(!format!("{events:?}").contains("rm -rf"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_takes_its_streams_along() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let mut far = porter(&rig).stream(session, FIRST_STREAM, about(StreamProtocol::WebSocket5, true), b"");
    said(&mut far, Side::Client, &message(0, b"sleep 1000\r")).await;
    let begun = std::time::Instant::now();
    rig.warden.send(&WardenToKeeper::Close { session, reason: "exit".into() }).await.unwrap();
    ended(&mut far.client).await;
    ended(&mut far.cluster).await;
    let closed = lines(&rig, "SK5204I", 1).await;
    assert_eq!(closed[0]["unmapped"]["reason"], "the session ended");
    assert!(begun.elapsed() < PATIENCE);
    let events = rig.close(session).await;
    assert!(events.iter().any(|event| matches!(event, Event::Input { .. })));
    let mut late = porter(&rig).stream(session, FIRST_STREAM, about(StreamProtocol::WebSocket5, true), b"");
    ended(&mut late.client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_that_leaves_ends_it() {
    for leaver in [Side::Client, Side::Cluster] {
        let rig = rig(settings()).await;
        let session = rig.open().await;
        let far = porter(&rig).stream(session, FIRST_STREAM, about(StreamProtocol::WebSocket5, false), b"");
        let (leaves, mut stays) = match leaver {
            Side::Client => (far.client, far.cluster),
            Side::Cluster => (far.cluster, far.client),
        };
        drop(leaves);
        ended(&mut stays).await;
        drop(stays);
        let closed = lines(&rig, "SK5204I", 1).await;
        assert!(closed[0]["unmapped"]["exit"].is_null());
        rig.close(session).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_holds_back_its_own_stream_alone() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let porter = porter(&rig);
    let mut slow = porter.stream(session, FIRST_STREAM, about(StreamProtocol::WebSocket5, false), b"");
    let mut other = porter.stream(session, FIRST_STREAM + 1, about(StreamProtocol::WebSocket5, false), b"");
    let flood = message(1, &vec![b'x'; 32 << 10]);
    let stuck = async { while timeout(Duration::from_millis(300), slow.cluster.write_all(&flood)).await.is_ok() {} };
    timeout(PATIENCE, stuck).await.expect("the keeper takes it all");
    said(&mut other, Side::Cluster, &message(1, b"still here")).await;
    said(&mut other, Side::Client, &message(0, b"me too")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_recording_and_who_has_enough() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let porter = porter(&rig);
    let ws = || about(StreamProtocol::WebSocket5, false);
    let mut stranger = porter.stream(SessionId::mint(), FIRST_STREAM, ws(), b"");
    ended(&mut stranger.client).await;
    ended(&mut stranger.cluster).await;
    // Twice the same number: a porter that was started again does not know better.
    let mut fars: Vec<Far> = (0..64).map(|_| porter.stream(session, FIRST_STREAM, ws(), b"")).collect();
    for far in &mut fars {
        said(far, Side::Cluster, &message(1, b"x")).await;
    }
    let mut refused = porter.stream(session, FIRST_STREAM, ws(), b"");
    ended(&mut refused.client).await;
    lines(&rig, "SK6001W", 1).await;
    drop(fars);
    lines(&rig, "SK5204I", 64).await;
    let mut far = porter.stream(session, FIRST_STREAM, ws(), b"");
    said(&mut far, Side::Cluster, &message(1, b"y")).await;
    let events = rig.close(session).await;
    let numbers = events.iter().filter_map(|event| match event {
        Event::KubeStream { number, .. } => Some(*number),
        _ => None,
    });
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (FIRST_STREAM..FIRST_STREAM + 65).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channels_number_is_a_breach() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let mut far = porter(&rig).stream(session, 1, about(StreamProtocol::Spdy, false), b"");
    ended(&mut far.client).await;
    assert!(matches!(rig.heard().await, KeeperToWarden::Breach(Role::Porter)));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_prompt_input_is_counted_and_not_kept() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let mut far = porter(&rig).stream(session, FIRST_STREAM, about(StreamProtocol::WebSocket5, true), b"");
    said(&mut far, Side::Cluster, &message(1, b"Password: ")).await;
    said(&mut far, Side::Client, &message(0, b"hunter2\r")).await;
    said(&mut far, Side::Cluster, &message(1, b"\r\n$ ")).await;
    said(&mut far, Side::Client, &message(0, b"ls\r")).await;
    let events = rig.close(session).await;
    assert!(events.contains(&Event::InputRedacted { number: FIRST_STREAM, bytes: 8, why: "pattern".into() }));
    assert!(events.contains(&Event::Input { number: FIRST_STREAM, data: Bytes::from_static(b"ls\r") }));
    assert!(!format!("{events:?}").contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_that_failed_says_why() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let mut far = porter(&rig).stream(session, FIRST_STREAM, about(StreamProtocol::WebSocket5, true), b"");
    let failed = b"{\"status\":\"Failure\",\"message\":\"sh: not found\",\"reason\":\"InternalError\"}";
    said(&mut far, Side::Cluster, &message(3, failed)).await;
    said(&mut far, Side::Cluster, &message(3, SUCCESS)).await;
    drop(far);
    lines(&rig, "SK5204I", 1).await;
    let events = rig.close(session).await;
    assert!(events.contains(&Event::Note { text: "k1: sh: not found".into() }), "{events:?}");
    assert!(!events.iter().any(|event| matches!(event, Event::ExitStatus { .. })));
}
