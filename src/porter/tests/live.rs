use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net as unix;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::{Fresh, PorterError, Settings, Start, serve};
use super::{SECRET_KEY, TOKEN, alice, grant, refusal};
use crate::audit::Event;
use crate::config::{EgressLimits, EgressRule};
use crate::identity::Pattern;
use crate::identity::Secret;
use crate::privsep::Role;
use crate::privsep::link::{Link, encode, pair, send_packet};
use crate::privsep::message::{FromJailer, JailerToPorter, Message, PorterToKeeper, Silence, WardenToPorter};
use crate::session::SessionId;

/// The test as jailer, warden and keeper of one porter.
struct Yard {
    jailer: OwnedFd,
    warden: OwnedFd,
    keeper: Link<Silence, PorterToKeeper>,
    porter: JoinHandle<Result<(), PorterError>>,
}

struct Doors {
    session: SessionId,
    tcp: Vec<SocketAddr>,
    control: std::path::PathBuf,
    egress: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Yard {
    fn new() -> Self {
        let ((jailer, control), (warden, wardens), (keeper, keepers)) =
            (pair().unwrap(), pair().unwrap(), pair().unwrap());
        let control = Link::new(control).unwrap();
        let (settings, fresh) = (Settings::default(), Fresh::default());
        let porter = tokio::spawn(serve(Start { control, settings, fresh, reload: Box::new(|_| None) }));
        let yard = Self { jailer, warden, keeper: Link::new(keeper).unwrap(), porter };
        yard.tell(&FromJailer::Peer(Role::Warden), &[wardens.as_fd()]);
        yard.tell(&FromJailer::Peer(Role::Keeper), &[keepers.as_fd()]);
        yard
    }

    fn tell(&self, message: &FromJailer<JailerToPorter>, descriptors: &[BorrowedFd<'_>]) {
        send_packet(self.jailer.as_fd(), &encode(message), descriptors).unwrap();
    }

    fn push(&self, message: &impl Message) {
        send_packet(self.warden.as_fd(), &encode(message), &[]).unwrap();
    }

    fn issue(&self, session: SessionId) {
        let now = jiff::Timestamp::now().as_second();
        self.push(&WardenToPorter::Issued { session, grant: Box::new(grant(now, 60)) });
    }

    fn open(&self) -> Doors {
        let session = SessionId::mint();
        let sockets: Vec<_> = (0..5).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("control");
        let unix = unix::UnixListener::bind(&control).unwrap();
        let mut descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        descriptors.push(unix.as_fd());
        let egress = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        descriptors.push(egress.as_fd());
        let kube = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        descriptors.push(kube.as_fd());
        let token = Secret::new(TOKEN.into());
        self.tell(&FromJailer::Told(JailerToPorter::Doors { session, user: alice(), token }), &descriptors);
        let tcp = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
        Doors { session, tcp, control, egress: egress.local_addr().unwrap(), _folder: folder }
    }

    /// The next of its kind; what else is told meanwhile is passed over.
    async fn refusal(&self) -> Event {
        loop {
            let event = self.event().await;
            if matches!(&event, Event::EgressRefused { reason, .. } if !reason.contains("not known yet")) {
                return event;
            }
        }
    }

    async fn limit(&self) -> Event {
        loop {
            let event = self.event().await;
            if matches!(event, Event::LimitHit { .. }) {
                return event;
            }
        }
    }

    async fn event(&self) -> Event {
        let (message, _) = timeout(Duration::from_secs(5), self.keeper.recv()).await.unwrap().unwrap();
        let PorterToKeeper::Event(event) = message else { panic!() };
        event
    }
}

/// One request on a connection of its own; the whole answer.
async fn ask(door: SocketAddr, request: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(door).await.unwrap();
    let text = format!("{request} HTTP/1.1\r\nHost: {door}\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn imds_v2_from_token_to_credentials() {
    let yard = Yard::new();
    let doors = yard.open();
    yard.issue(doors.session);
    // Metadata over IPv4 and over IPv6 are the same door: a token of one is good at the other.
    let answer = ask(doors.tcp[0], "PUT /latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 300\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("x-aws-ec2-metadata-token-ttl-seconds: 300\r\n") && answer.contains("server: EC2ws\r\n"));
    let header = format!("X-aws-ec2-metadata-token: {}\r\n", body(&answer));
    let role = ask(doors.tcp[1], "GET /latest/meta-data/iam/security-credentials/", &header).await;
    assert_eq!(body(&role), "alice");
    let document = ask(doors.tcp[0], "GET /latest/meta-data/iam/security-credentials/alice", &header).await;
    assert!(document.contains(SECRET_KEY) && document.contains("content-type: text/plain\r\n"), "{document}");
    // Another jail does not know the token.
    let others = yard.open();
    yard.issue(others.session);
    let answer = ask(others.tcp[0], "GET /latest/meta-data/instance-id", &header).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let Event::DoorRefused { session, door, request, status } = yard.event().await else { panic!() };
    assert_eq!((session, door.as_str(), status), (others.session, "metadata", 401));
    assert_eq!(request, "GET /latest/meta-data/instance-id");
}

#[tokio::test]
async fn a_first_call_waits_for_the_first_push_and_no_longer() {
    let yard = Yard::new();
    let doors = yard.open();
    let header = format!("Authorization: {TOKEN}\r\n");
    let began = Instant::now();
    let answer = ask(doors.tcp[3], "GET /v1/credentials", &header).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && body(&answer).contains("\"code\""), "{answer}");
    assert!((Duration::from_millis(850)..Duration::from_millis(1900)).contains(&began.elapsed()));
    let door = doors.tcp[3];
    let waiting = tokio::spawn(async move { ask(door, "GET /v1/credentials", &header).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    yard.issue(doors.session);
    assert!(waiting.await.unwrap().contains(SECRET_KEY));
    yard.push(&WardenToPorter::Refused { session: doors.session, refusal: refusal("Throttling", true) });
    let answer = ask(doors.tcp[4], "GET /v1/credentials", &format!("Authorization: {TOKEN}\r\n")).await;
    assert!(answer.contains(SECRET_KEY), "what was issued stays good: {answer}");
}

#[tokio::test]
async fn a_push_may_come_before_the_doors() {
    let yard = Yard::new();
    // The yard's session is minted in `open`, so the order on the wire is made by hand.
    let session = SessionId::mint();
    yard.issue(session);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let sockets: Vec<_> = (0..8).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let token = Secret::new(TOKEN.into());
    yard.tell(&FromJailer::Told(JailerToPorter::Doors { session, user: alice(), token }), &descriptors);
    let door = sockets[2].local_addr().unwrap();
    let answer = ask(door, "GET /v1/credentials", &format!("Authorization: {TOKEN}\r\n")).await;
    assert!(answer.contains("123456789012"), "{answer}");
}

#[tokio::test]
async fn the_control_door_answers_whoami() {
    let yard = Yard::new();
    let doors = yard.open();
    yard.issue(doors.session);
    let mut stream = tokio::net::UnixStream::connect(&doors.control).await.unwrap();
    stream.write_all(b"GET /whoami HTTP/1.1\r\nHost: stockade\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let said: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!((&said["user"], &said["session"]), (&"alice".into(), &doors.session.to_string().into()));
}

#[tokio::test]
async fn a_jail_that_floods_its_doors_is_alone_with_it() {
    let yard = Yard::new();
    let (loud, quiet) = (yard.open(), yard.open());
    yard.issue(quiet.session);
    let mut held = Vec::new();
    for number in 0..300 {
        held.push(TcpStream::connect(loud.tcp[number % 5]).await.unwrap());
    }
    let Event::LimitHit { session, .. } = yard.event().await else { panic!() };
    assert_eq!(session, Some(loud.session));
    let began = Instant::now();
    let answer = ask(quiet.tcp[2], "GET /v1/credentials", &format!("Authorization: {TOKEN}\r\n")).await;
    assert!(answer.contains(SECRET_KEY) && began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    // And its own doors open again as soon as it lets go.
    drop(held);
    let answer = timeout(Duration::from_secs(5), async {
        loop {
            let mut stream = TcpStream::connect(loud.tcp[2]).await.unwrap();
            let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
            let mut answer = String::new();
            if stream.read_to_string(&mut answer).await.is_ok() && !answer.is_empty() {
                return answer;
            }
        }
    });
    assert!(answer.await.unwrap().starts_with("HTTP/1.0 404 "));
}

#[tokio::test]
async fn hostile_http_is_answered_or_closed() {
    let yard = Yard::new();
    let doors = yard.open();
    let long = format!("x: {}\r\n", "a".repeat(20_000));
    let answer = ask(doors.tcp[2], "GET /v1/credentials", &long).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let big = format!("Content-Length: 2000\r\n\r\n{}", "a".repeat(2000));
    let answer = ask(doors.tcp[2], "POST /v1/credentials", &big).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    for junk in [&b"\x16\x03\x01\x02\0"[..], b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(doors.tcp[0]).await.unwrap();
        stream.write_all(junk).await.unwrap();
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(3), stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "), "{junk:?}");
    }
}

#[tokio::test]
async fn what_is_gone_is_closed_and_the_jailers_end_is_the_porters() {
    let yard = Yard::new();
    let doors = yard.open();
    yard.issue(doors.session);
    let mut open = TcpStream::connect(doors.tcp[0]).await.unwrap();
    assert!(ask(doors.tcp[0], "GET /", "").await.starts_with("HTTP/1.1 401 "));
    yard.tell(&FromJailer::Told(JailerToPorter::Gone { session: doors.session }), &[]);
    let mut nothing = Vec::new();
    let _ = timeout(Duration::from_secs(5), open.read_to_end(&mut nothing)).await.unwrap();
    assert!(nothing.is_empty() && TcpStream::connect(doors.tcp[0]).await.is_err());
    drop(yard.jailer);
    assert!(yard.porter.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_new_warden_and_a_new_keeper_take_over() {
    let mut yard = Yard::new();
    let doors = yard.open();
    let (warden, wardens) = pair().unwrap();
    let (keeper, keepers) = pair().unwrap();
    yard.warden = warden;
    yard.keeper = Link::new(keeper).unwrap();
    assert!(ask(doors.tcp[0], "GET /", "").await.starts_with("HTTP/1.1 401 "));
    yard.tell(&FromJailer::Peer(Role::Warden), &[wardens.as_fd()]);
    yard.tell(&FromJailer::Peer(Role::Keeper), &[keepers.as_fd()]);
    yard.issue(doors.session);
    let answer = ask(doors.tcp[2], "GET /v1/credentials", &format!("Authorization: {TOKEN}\r\n")).await;
    assert!(answer.contains(SECRET_KEY), "{answer}");
    assert!(matches!(yard.event().await, Event::DoorRefused { status: 401, .. }), "kept for the next keeper");
}

async fn connect(door: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(door).await.unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn allow(session: SessionId, hosts: &[&str]) -> WardenToPorter {
    let hosts = hosts.iter().copied().map(Pattern::new).collect();
    let cidrs = vec!["0.0.0.0/0".parse().unwrap()];
    let rule = EgressRule { hosts, preset: None, regions: vec![], ports: vec![443, 80], cidrs, tls: true };
    let limits = EgressLimits { connections: 4, bytes: 1 << 20, idle: 60 };
    WardenToPorter::Egress { session, rules: vec![rule], limits }
}

#[tokio::test]
async fn the_egress_door_refuses_with_a_sentence() {
    let yard = Yard::new();
    let doors = yard.open();
    let answer = connect(doors.egress, "CONNECT a.test:443").await;
    assert!(answer.starts_with("HTTP/1.1 503 your rules are not known yet"), "{answer}");
    yard.push(&allow(doors.session, &["a.test", "localhost", "127.0.0.1"]));
    for (request, wanted) in [
        ("GET http://a.test/", "405 this door takes CONNECT only"),
        ("CONNECT b.test:443", "403 no rule lets you through to b.test:443"),
        ("CONNECT a.test:22", "403 no rule lets you through to a.test:22"),
        ("CONNECT a.test", "400 "),
        ("CONNECT 2130706433:443", "400 "),
        ("CONNECT 127.0.0.1:443", "403 127.0.0.1:443 leads to 127.0.0.1: it is loopback"),
        ("CONNECT localhost:443", "403 localhost:443 leads to 127.0.0.1: it is loopback"),
        ("CONNECT a.test:443", "502 a.test:443 has no address"),
    ] {
        let answer = loop {
            // The push and the first request go different ways.
            let answer = connect(doors.egress, request).await;
            if !answer.contains("not known yet") {
                break answer;
            }
        };
        assert!(answer.starts_with(&format!("HTTP/1.1 {wanted}")), "{request}: {answer}");
        let Event::EgressRefused { session, user, .. } = yard.refusal().await else { panic!() };
        assert_eq!((session, user.as_str()), (doors.session, "alice"));
    }
    // A jail that holds all its places waits alone.
    let held: Vec<_> = many(doors.egress).await;
    let Event::LimitHit { session, .. } = yard.limit().await else { panic!() };
    assert_eq!(session, Some(doors.session));
    let others = yard.open();
    yard.push(&allow(others.session, &[]));
    assert!(connect(others.egress, "CONNECT a.test:443").await.starts_with("HTTP/1.1 403 "));
    drop(held);
}

/// A greeting and a request in SOCKS; all that is answered until the door closes.
async fn socks(door: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(door).await.unwrap();
    stream.write_all(&[&[5, 1, 0][..], request].concat()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_egress_door_refuses_in_socks_by_one_number() {
    let yard = Yard::new();
    let doors = yard.open();
    let named = |name: &str, port: u16| {
        let length = u8::try_from(name.len()).unwrap();
        [&[5, 1, 0, 3, length][..], name.as_bytes(), &port.to_be_bytes()].concat()
    };
    let number = async |request: &[u8]| {
        let answer = socks(doors.egress, request).await;
        assert_eq!((&answer[..2], &answer[4..]), (&[5, 0][..], &[0, 1, 0, 0, 0, 0, 0, 0][..]), "{answer:?}");
        answer[3]
    };
    assert_eq!(number(&named("a.test", 443)).await, 1, "the rules are not known yet");
    yard.push(&allow(doors.session, &["a.test", "localhost", "127.0.0.1"]));
    // The push and the first request go different ways.
    while number(&named("b.test", 443)).await == 1 {}
    for denied in [
        named("b.test", 443),
        named("a.test", 22),
        named("127.0.0.1", 443),
        named("localhost", 443),
        named("a.test", 443),
        named(&"a".repeat(255), 443),
        named("", 443),
        [&[5, 1, 0, 1, 127, 0, 0, 1][..], &[1, 187]].concat(),
        [&[5, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1][..], &[1, 187]].concat(),
    ] {
        assert_eq!(number(&denied).await, 2, "{denied:?}");
    }
    assert_eq!(number(&[5, 2, 0, 1, 10, 0, 0, 1, 0, 80]).await, 7);
    assert_eq!(number(&[5, 1, 0, 9, 10, 0, 0, 1, 0, 80]).await, 8);
    let Event::EgressRefused { session, user, .. } = yard.refusal().await else { panic!() };
    assert_eq!((session, user.as_str()), (doors.session, "alice"));
}

async fn many(door: SocketAddr) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(TcpStream::connect(door).await.unwrap());
    }
    held
}
