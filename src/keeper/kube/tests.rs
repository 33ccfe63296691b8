//! What clients and clusters send, and what must not be sent.

use bytes::Bytes;

use super::book::Book;
use super::fuzz;
use super::wire::{Decoder, Garbled, Lane, Said, Side};
use crate::keeper::tests::settings;
use crate::privsep::message::StreamProtocol::{self, Spdy, WebSocket4, WebSocket5};
use crate::recording::Event;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame of a client, with a mask, or of a cluster.
pub(in crate::keeper) fn frame(side: Side, first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = if side == Side::Client { 0x80 } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        length @ ..126 => frame.push(mask | length as u8),
        length @ 126..0x1_0000 => {
            frame.push(mask | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(mask | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    if mask == 0 {
        frame.extend(payload);
    } else {
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
    frame
}

/// A message of channel.k8s.io.
pub(in crate::keeper) fn message(lane: u8, data: &[u8]) -> Vec<u8> {
    let side = if matches!(lane, 1..=3) { Side::Cluster } else { Side::Client };
    frame(side, 0x82, &[&[lane], data].concat())
}

pub(in crate::keeper) const TYPES: [&str; 5] = ["stdin", "stdout", "stderr", "error", "resize"];

/// A client that packs its headers without making them shorter.
#[derive(Default)]
pub(in crate::keeper) struct SpdyClient {
    begun: bool,
}

impl SpdyClient {
    fn block(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend((text.len() as u32).to_be_bytes());
            plain.extend(text.bytes());
        }
        self.stored(&plain)
    }

    fn stored(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut block = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            block.extend([0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2]);
        }
        block.push(0);
        block.extend((plain.len() as u16).to_le_bytes());
        block.extend((!(plain.len() as u16)).to_le_bytes());
        block.extend(plain);
        block
    }

    pub(in crate::keeper) fn open(&mut self, stream: u32, kind: &str) -> Vec<u8> {
        let block = self.block(&[("streamtype", kind)]);
        syn(stream, &block)
    }

    fn open_with(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let block = self.block(headers);
        syn(1, &block)
    }

    fn open_stored(&mut self, plain: &[u8]) -> Vec<u8> {
        let block = self.stored(plain);
        syn(1, &block)
    }

    /// All lanes, each the stream of its number.
    pub(in crate::keeper) fn open_all(&mut self) -> Vec<u8> {
        TYPES.iter().zip([1, 3, 5, 7, 9]).flat_map(|(kind, stream)| self.open(stream, kind)).collect()
    }
}

fn syn(stream: u32, block: &[u8]) -> Vec<u8> {
    control(1, 0, &[&stream.to_be_bytes()[..], &[0; 6], block].concat())
}

pub(in crate::keeper) fn control(kind: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80, 3];
    frame.extend(kind.to_be_bytes());
    frame.extend(((payload.len() as u32) | u32::from(flags) << 24).to_be_bytes());
    frame.extend(payload);
    frame
}

pub(in crate::keeper) fn data(stream: u32, fin: bool, data: &[u8]) -> Vec<u8> {
    let mut frame = stream.to_be_bytes().to_vec();
    frame.extend(((data.len() as u32) | u32::from(fin) << 24).to_be_bytes());
    frame.extend(data);
    frame
}

/// What is heard of these, in pieces of so many bytes.
fn heard(protocol: StreamProtocol, talk: &[(Side, Vec<u8>)], cut: usize) -> Result<Vec<Said>, Garbled> {
    let [mut client, mut cluster] = Decoder::pair(protocol);
    let mut said = Vec::new();
    for (side, bytes) in talk {
        let decoder = if *side == Side::Client { &mut client } else { &mut cluster };
        for piece in bytes.chunks(cut) {
            decoder.eat(Bytes::copy_from_slice(piece), &mut said)?;
        }
    }
    let mut all: Vec<Said> = Vec::new();
    for said in said {
        match (all.last_mut(), said) {
            (Some(Said::Data(last, before)), Said::Data(lane, data)) if *last == lane => {
                *before = [&before[..], &data[..]].concat().into();
            }
            (_, said) => all.push(said),
        }
    }
    Ok(all)
}

fn said(lane: Lane, data: &[u8]) -> Said {
    Said::Data(lane, Bytes::copy_from_slice(data))
}

const VERDICT: &[u8] = b"{\"status\":\"Success\"}";

/// Put together it is a size; an API server takes the second part for input.
#[test]
fn input_does_not_hide_in_the_parts_of_a_message() {
    use Side::Client;
    let parts = [(Client, frame(Client, 0x02, b"\x04{\"Width\":8")), (Client, frame(Client, 0x80, b"\0id\n"))];
    for talk in [&parts[..1], &parts[1..]] {
        assert!(heard(WebSocket5, talk, usize::MAX).is_err());
    }
}

#[test]
fn a_conversation_over_websocket() {
    use Side::{Client, Cluster};
    let long = vec![b'x'; 70_000];
    let talk = [
        (Cluster, message(1, b"")),
        (Client, message(4, b"{\"Width\":80,\"Height\":24}")),
        (Client, message(0, b"ls\r")),
        (Cluster, [frame(Cluster, 0x89, b"ping"), message(1, b"ls\r\n")].concat()),
        (Client, frame(Client, 0x8a, b"ping")),
        // As text, as Python sends it.
        (Client, frame(Client, 0x81, b"\0ab")),
        (Cluster, message(2, &long[..300])),
        (Cluster, message(1, &long)),
        (Cluster, message(3, VERDICT)),
        (Client, frame(Client, 0x82, &[255, 0])),
        (Cluster, frame(Cluster, 0x88, b"\x03\xe8")),
        (Client, frame(Client, 0x88, b"\x03\xe8")),
    ];
    let expected = [
        said(Lane::Sizes, b"{\"Width\":80,\"Height\":24}"),
        said(Lane::Input, b"ls\r"),
        said(Lane::Output, b"ls\r\n"),
        said(Lane::Input, b"ab"),
        said(Lane::ErrorOutput, &long[..300]),
        said(Lane::Output, &long),
        said(Lane::Verdict, VERDICT),
        Said::End(Lane::Input),
    ];
    for cut in [1, 2, 3, 7, 1000, usize::MAX] {
        assert_eq!(heard(WebSocket5, &talk, cut).unwrap(), expected, "{cut}");
    }
    let without_end = &expected[..expected.len() - 1];
    assert_eq!(heard(WebSocket4, &talk, 7).unwrap(), without_end, "the end of stdin is a word of v5");
}

#[test]
fn what_no_client_or_cluster_sends_over_websocket() {
    use Side::{Client, Cluster};
    for (what, bytes) in [
        ("reserved bit", (Client, frame(Client, 0xc2, b"\0x"))),
        ("no mask", (Client, frame(Cluster, 0x82, b"\0x"))),
        ("a mask", (Cluster, frame(Client, 0x82, b"\x01x"))),
        ("unknown data frame", (Client, frame(Client, 0x83, b"\0x"))),
        ("unknown control frame", (Client, frame(Client, 0x8b, b""))),
        ("a ping in parts", (Client, frame(Client, 0x09, b""))),
        ("a long ping", (Client, frame(Client, 0x89, &[0; 126]))),
        ("a part of nothing", (Client, frame(Client, 0x80, b"\0x"))),
        ("a message in a message", (Client, [frame(Client, 0x02, b"\0x"), frame(Client, 0x82, b"\0x")].concat())),
        ("after the goodbye", (Client, [frame(Client, 0x88, b""), message(0, b"x")].concat())),
        ("stdout of a client", (Client, frame(Client, 0x82, b"\x01x"))),
        ("stdin of a cluster", (Cluster, frame(Cluster, 0x82, b"\0x"))),
        ("lane five", (Client, frame(Client, 0x82, b"\x05x"))),
        ("the end of a cluster's lane", (Cluster, frame(Cluster, 0x82, b"\xff\x01"))),
        ("the end of the cluster's lane", (Client, frame(Client, 0x82, b"\xff\x01"))),
        ("the end of two lanes", (Client, frame(Client, 0x82, b"\xff\x00\x04"))),
        ("the end of no lane", (Client, frame(Client, 0x82, b"\xff"))),
        ("an impossible length", (Client, [0x82, 0xff].into_iter().chain([0x80; 12]).collect())),
    ] {
        for cut in [1, 3, usize::MAX] {
            assert!(heard(WebSocket5, std::slice::from_ref(&bytes), cut).is_err(), "{what}");
        }
    }
}

fn spdy_talk() -> (Vec<(Side, Vec<u8>)>, Vec<Said>) {
    use Side::{Client, Cluster};
    let mut client = SpdyClient::default();
    let long = vec![b'x'; 70_000];
    let settings = control(4, 0, &[0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 100]);
    let talk = vec![
        (Client, [client.open_all(), control(6, 0, &[0, 0, 0, 1])].concat()),
        (Cluster, [settings, control(2, 0, &[0, 0, 0, 1, 9, 9, 9])].concat()),
        (Client, data(9, false, b"{\"Width\":80,\"Height\":24}")),
        (Client, [data(1, false, b"ls\r"), data(1, true, b"")].concat()),
        (Cluster, [data(3, false, &long), control(9, 0, &[0, 0, 0, 1, 0, 0, 1, 0])].concat()),
        (Cluster, data(5, false, b"oh")),
        (Cluster, [data(7, false, VERDICT), data(7, true, b""), data(3, true, b"")].concat()),
        (Cluster, [control(3, 0, &[0, 0, 0, 1, 0, 0, 0, 5]), control(7, 0, &[0; 8])].concat()),
    ];
    let expected = vec![
        said(Lane::Sizes, b"{\"Width\":80,\"Height\":24}"),
        said(Lane::Input, b"ls\r"),
        Said::End(Lane::Input),
        said(Lane::Output, &long),
        said(Lane::ErrorOutput, b"oh"),
        said(Lane::Verdict, VERDICT),
        Said::End(Lane::Verdict),
        Said::End(Lane::Output),
    ];
    (talk, expected)
}

#[test]
fn a_conversation_over_spdy() {
    let (talk, expected) = spdy_talk();
    for cut in [1, 2, 3, 7, 1000, usize::MAX] {
        assert_eq!(heard(Spdy, &talk, cut).unwrap(), expected, "{cut}");
    }
}

/// What zlib makes of the five blocks, in this order, with the dictionary and one context for all.
#[test]
fn headers_as_zlib_packs_them() {
    let blocks = [
        (1, "78f9e3c6a7c202a62346703a2b294a4dcc851625aca9a08006000000ffff"),
        (3, "c22e555c02cc2e00000000ffff"),
        (5, "c22a054ce729f9a52500000000ffff"),
        (7, "c229073414000000ffff"),
        (9, "c22e072c9a806901000000ffff"),
    ];
    let unhex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    let open: Vec<u8> = blocks.iter().flat_map(|(stream, block)| syn(*stream, &unhex(block))).collect();
    let talk = [
        (Side::Client, [open, data(3, true, b"in"), data(9, false, b"{}")].concat()),
        (Side::Cluster, [data(1, false, b"no"), data(5, false, b"out"), data(7, false, b"err")].concat()),
    ];
    let expected = [
        said(Lane::Input, b"in"),
        Said::End(Lane::Input),
        said(Lane::Sizes, b"{}"),
        said(Lane::Verdict, b"no"),
        said(Lane::Output, b"out"),
        said(Lane::ErrorOutput, b"err"),
    ];
    for cut in [1, 5, usize::MAX] {
        assert_eq!(heard(Spdy, &talk, cut).unwrap(), expected);
    }
}

#[test]
fn what_no_client_or_cluster_sends_over_spdy() {
    use Side::{Client, Cluster};
    let one = |make: fn(&mut SpdyClient) -> Vec<u8>| make(&mut SpdyClient::default());
    let opened = |then: Vec<u8>| [SpdyClient::default().open_all(), then].concat();
    for (what, side, bytes) in [
        ("data of no stream", Client, data(1, false, b"x")),
        ("data of stream zero", Client, opened(data(0, false, b"x"))),
        ("stdout of a client", Client, opened(data(3, false, b"x"))),
        ("a flag of data", Client, opened(vec![0, 0, 0, 1, 2, 0, 0, 1, b'x'])),
        ("version two", Client, vec![0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]),
        ("an unknown frame", Client, control(5, 0, b"")),
        ("a long frame", Client, vec![0x80, 3, 0, 1, 0, 0xff, 0, 0]),
        ("a short SYN_STREAM", Client, control(1, 0, &[0; 9])),
        ("a long RST_STREAM", Client, opened(control(3, 0, &[0, 0, 0, 1, 0, 0, 0, 5, 0]))),
        ("a long PING", Client, control(6, 0, &[0; 5])),
        ("SETTINGS with a rest", Client, control(4, 0, &[0; 5])),
        ("SETTINGS of too many", Client, control(4, 0, &[0xff; 12])),
        ("a reply of a client", Client, opened(control(2, 0, &[0, 0, 0, 1]))),
        ("a stream of the cluster", Cluster, one(|c| c.open(2, "stdout"))),
        ("an even stream", Client, one(|c| c.open(2, "stdin"))),
        ("a stream with the top bit", Client, one(|c| c.open(0x8000_0001, "stdin"))),
        ("no type", Client, one(|c| c.open_with(&[("a", "stdin")]))),
        ("two types", Client, one(|c| c.open_with(&[("streamtype", "error"), ("streamtype", "stdin")]))),
        ("two values", Client, one(|c| c.open(1, "stdin\0stdout"))),
        ("large letters", Client, one(|c| c.open_with(&[("Streamtype", "stdin")]))),
        ("an unknown type", Client, one(|c| c.open(1, "data"))),
        ("two lanes of a type", Client, one(|c| [c.open(1, "stdin"), c.open(3, "stdin")].concat())),
        ("two types of a stream", Client, one(|c| [c.open(1, "stdin"), c.open(1, "error")].concat())),
        ("headers and a rest", Client, one(|c| c.open_stored(b"\0\0\0\0\0\0\0\x01"))),
        ("cut headers", Client, one(|c| c.open_stored(b"\0\0\0\x01\0\0\0\x0astreamtype"))),
        ("too many headers", Client, one(|c| c.open_stored(b"\xff\xff\xff\xff"))),
        ("no zlib", Client, syn(1, b"\x78")),
        ("no dictionary", Client, syn(1, b"\x78\x9c\x01\x00\x00\x00\x00")),
        ("another dictionary", Client, syn(1, b"\x78\xbb\xe3\xc6\xa7\xc3\x00")),
        ("an end of the packing", Client, syn(1, b"\x78\xbb\xe3\xc6\xa7\xc2\x01\x00\x00\xff\xff")),
        ("broken packing", Client, syn(1, b"\x78\xbb\xe3\xc6\xa7\xc2\x07\x00\x00\xff\xff")),
    ] {
        for cut in [1, 3, usize::MAX] {
            assert!(heard(Spdy, &[(side, bytes.clone())], cut).is_err(), "{what}");
        }
    }
    let (mut talk, _) = spdy_talk();
    talk.push((Cluster, data(1, false, b"stdin of a cluster")));
    assert!(heard(Spdy, &talk, 5).is_err());
}

/// A block that grows a thousandfold is not unpacked to its end.
#[test]
fn headers_that_swell() {
    use flate2::{Compress, Compression, FlushCompress};
    let mut packed = Vec::with_capacity(64 << 10);
    let zeros = vec![0; 1 << 20];
    Compress::new(Compression::best(), false).compress_vec(&zeros, &mut packed, FlushCompress::Sync).unwrap();
    let block = [&[0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2][..], &packed].concat();
    assert!(block.len() < 16 << 10);
    assert_eq!(heard(Spdy, &[(Side::Client, syn(1, &block))], 1000), Err(Garbled("headers longer than any")));
}

/// What is recorded of a conversation of the fuzz target's seeds.
fn recorded(talk: &[u8], terminal: bool) -> Vec<Event> {
    let (said, fault) = fuzz::heard(talk, usize::MAX);
    assert_eq!(fault, None);
    let (mut book, mut events) = (Book::new(1, terminal, &settings()), Vec::new());
    said.into_iter().try_for_each(|said| book.write(said, &mut events)).unwrap();
    book.end(&mut events);
    events
}

macro_rules! seed {
    ($name:literal) => {
        &include_bytes!(concat!("../../../tests/fuzz/corpus/kube_streams/", $name))[..]
    };
}

/// client-go 0.36.3 against the kubelet's own server (cri-streaming), and kubectl 1.36.3 against an API server: `cat`,
/// which then ends with 3.
#[test]
fn what_real_peers_say_is_understood() {
    let number = 1;
    let bytes = Bytes::from_static;
    let input = Event::Input { number, data: bytes(b"hello\n") };
    let end = Event::InputEnd { number };
    let size = Event::Resize { number, columns: 132, rows: 43, width: 0, height: 0 };
    let output = Event::Output { number, data: bytes(b"hello\n") };
    let error = Event::ErrorOutput { number, data: bytes(b"oh\n") };
    let screen = Event::Output { number, data: bytes(b"size 132x43\r\nhello\n") };
    let exit = Event::ExitStatus { number, status: 3 };
    for (name, terminal, talk, expected) in [
        ("spdy", false, seed!("client-go-spdy"), vec![&input, &end, &output, &error, &exit]),
        ("spdy -t", true, seed!("client-go-spdy-terminal"), vec![&size, &input, &end, &screen, &exit]),
        ("v4", false, seed!("client-go-websocket"), vec![&input, &output, &error, &exit]),
        ("v4 -t", true, seed!("client-go-websocket-terminal"), vec![&size, &input, &screen, &exit]),
        ("kubectl v5", false, seed!("kubectl-websocket5"), vec![&input, &end, &output, &error, &exit]),
        ("kubectl spdy", false, seed!("kubectl-spdy"), vec![&input, &end, &output, &error, &exit]),
    ] {
        assert_eq!(recorded(talk, terminal).iter().collect::<Vec<_>>(), expected, "{name}");
    }
}

/// `sh`, told to end with 4; and what is not there to be run.
#[test]
fn what_kubectl_says_of_terminals_and_failures() {
    for talk in [seed!("kubectl-websocket5-terminal"), seed!("kubectl-spdy-terminal")] {
        let events = recorded(talk, true);
        assert_eq!(events[0], Event::Resize { number: 1, columns: 132, rows: 43, width: 0, height: 0 });
        assert!(events.contains(&Event::ExitStatus { number: 1, status: 4 }), "{events:?}");
        let typed = |event: &Event| matches!(event, Event::Input { data, .. } if data.ends_with(b"exit 4\r"));
        assert!(events.iter().any(typed), "{events:?}");
    }
    let events = recorded(seed!("kubectl-websocket5-failed"), false);
    assert!(matches!(events.last(), Some(Event::ExitStatus { status: 126, .. })), "{events:?}");
}
