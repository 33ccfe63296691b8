//! What has no foreseeable end: watches, logs, uploads, exec, port-forward, and how each ends.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::api::Api;
use super::who::impersonating;
use super::yard::{Door, Material, SOON, Yard, cluster};
use crate::audit::KubeStage;
use crate::config::Clocks;
use crate::identity::Pattern;
use crate::privsep::message::{MayBe, Pass, StreamProtocol, WardenToPorter};
use crate::recording::KubeStream;

const WATCH: &str = "GET /clusters/hyades/api/v1/pods?watch=true&x=/stream";
const EXEC: &str = "/clusters/hyades/api/v1/namespaces/default/pods/web/exec?container=c&command=sh&command=-c&tty=true&stdin=true&x=/exec";
const SOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";

async fn expect(stream: &mut (impl AsyncReadExt + Unpin), wanted: &str) {
    let mut got = vec![0; wanted.len()];
    timeout(SOON, stream.read_exact(&mut got)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&got), wanted);
}

/// Whatever else comes, it ends.
async fn ends(stream: &mut (impl AsyncReadExt + Unpin)) {
    let mut rest = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut rest)).await.expect("an end");
}

#[tokio::test]
async fn a_watch_is_passed_on_piece_by_piece() {
    for protocol in ["h2", "http/1.1"] {
        let (api, yard) = (Api::new(&[protocol]).await, Yard::new());
        let door = yard.to(&api);
        let (mut stream, said) = door.begin(WATCH, "").await;
        assert_eq!((said.status, said.headers["transfer-encoding"].as_str()), (200, "chunked"));
        for piece in ["one", "two"] {
            api.pieces.send(Bytes::from(piece)).await.unwrap();
            expect(&mut stream, &format!("3\r\n{piece}\r\n")).await;
        }
        // It breaks off in the middle: the client must not take it for an end.
        api.pieces.send(Bytes::new()).await.unwrap();
        let mut rest = String::new();
        let _ = timeout(SOON, stream.read_to_string(&mut rest)).await.unwrap();
        assert!(!rest.contains("0\r\n\r\n"), "{rest}");
        let told = yard.told().await;
        assert_eq!((told.stage, told.got, told.status), (KubeStage::Panic, 6, 200));
        assert_eq!(told.trouble.as_deref(), Some("the cluster broke off"));
    }
}

#[tokio::test]
async fn an_upload_is_passed_on_before_it_is_whole() {
    for protocol in ["h2", "http/1.1"] {
        let (mut api, yard) = (Api::new(&[protocol]).await, Yard::new());
        let door = yard.to(&api);
        let mut stream = TcpStream::connect(door.address).await.unwrap();
        let head = door.head("POST /clusters/hyades/swallow", "Content-Length: 10\r\nConnection: close\r\n");
        stream.write_all(format!("{head}hello").as_bytes()).await.unwrap();
        timeout(SOON, api.swallowed.wait_for(|got| *got == 5)).await.unwrap().unwrap();
        stream.write_all(b"world").await.unwrap();
        expect(&mut stream, "HTTP/1.1 200 ").await;
        assert_eq!(yard.told().await.sent, 10);
    }
}

#[tokio::test]
async fn clients_may_speak_http_2() {
    let (api, yard) = (Api::new(&["h2"]).await, Yard::new());
    let door = yard.to(&api);
    let stream = TcpStream::connect(door.address).await.unwrap();
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut send, connection) = shaken.unwrap();
    let connection = tokio::spawn(connection);
    let ask = |path: &str| Request::get(format!("http://{}{path}", door.address)).body(Empty::<Bytes>::new()).unwrap();
    let watch = send.send_request(ask("/clusters/hyades/stream")).await.unwrap();
    let other = send.send_request(ask("/clusters/hyades/api")).await.unwrap();
    assert_eq!((watch.status().as_u16(), other.status().as_u16()), (200, 200));
    api.pieces.send(Bytes::from("one")).await.unwrap();
    let mut watch = watch.into_body();
    assert_eq!(watch.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
    let foreign = Request::get("http://evil.example/clusters/hyades/api").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(send.send_request(foreign).await.unwrap().status().as_u16(), 403);
    // The session's end is the connection's, and the watch's.
    yard.gone(&door);
    let end = timeout(SOON, watch.frame()).await.expect("an end");
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
    let _ = timeout(SOON, connection).await.expect("an end");
}

/// Ends two streams: by the jail's end, or by what a pass does not say any more.
async fn taken_away(to: impl Fn(&Yard, &Api) -> Door, end: impl Fn(&Yard, &Door)) {
    let (mut api, yard) = (Api::new(&["h2", "http/1.1"]).await, Yard::new());
    let door = to(&yard, &api);
    let (mut watch, _) = door.begin(WATCH, "").await;
    api.pieces.send(Bytes::from("one")).await.unwrap();
    expect(&mut watch, "3\r\none\r\n").await;
    let (mut exec, _) =
        door.begin(&format!("GET {EXEC}"), &format!("{SOCKET}Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n")).await;
    let (mut client, mut porter) = kept(&yard).await.1;
    end(&yard, &door);
    ends(&mut watch).await;
    ends(&mut porter).await;
    // The keeper lets the client go when the porter does.
    client.shutdown().await.unwrap();
    drop((client, porter));
    ends(&mut exec).await;
    timeout(SOON, api.ended.wait_for(|count| *count == 2)).await.unwrap().unwrap();
    let told = [yard.told().await, yard.told().await, yard.told().await];
    let ended: Vec<_> = told.iter().filter(|told| told.stage != KubeStage::ResponseStarted).collect();
    assert!(ended.len() == 2 && ended.iter().all(|told| told.trouble.is_some()), "{told:?}");
}

#[tokio::test]
async fn a_sessions_end_ends_its_streams() {
    taken_away(Yard::to, |yard, door| yard.gone(door)).await;
}

#[tokio::test]
async fn a_right_that_is_gone_ends_what_it_allowed() {
    taken_away(Yard::to, |yard, door| yard.pass(door, &["pleiades"])).await;
}

fn hyades(groups: &[&str], may_be: Vec<MayBe>) -> Pass {
    Pass { clusters: vec!["hyades".into()], groups: groups.iter().map(ToString::to_string).collect(), may_be }
}

/// An API server asks who somebody is when a stream begins, and never again.
#[tokio::test]
async fn a_group_that_is_gone_ends_what_began_with_it() {
    let named = |yard: &Yard, api: &Api| yard.to_cluster(impersonating(api));
    taken_away(named, |yard, door| yard.push_pass(door, hyades(&["dev"], vec![]))).await;
}

#[tokio::test]
async fn so_does_a_rule_that_lets_them_be_somebody_else() {
    let rule = |cluster: &str| MayBe {
        clusters: vec![Pattern::new(cluster)],
        users: vec![Pattern::new("bob")],
        groups: vec![],
    };
    let allowed = |yard: &Yard, api: &Api| {
        let door = yard.open("alice");
        let known = cluster("hyades", &api.endpoint(), Material::get().authority.clone());
        yard.push(&WardenToPorter::Cluster(Box::new(known)));
        yard.push_pass(&door, hyades(&["ops"], vec![rule("pleiades"), rule("hy*")]));
        door
    };
    taken_away(allowed, |yard, door| yard.push_pass(door, hyades(&["ops"], vec![rule("pleiades")]))).await;
}

#[tokio::test]
async fn what_is_gained_and_what_the_cluster_was_not_told_end_nothing() {
    let (api, yard) = (Api::new(&["h2"]).await, Yard::new());
    let door = yard.to_cluster(impersonating(&api));
    let (mut watch, _) = door.begin(WATCH, "").await;
    yard.push_pass(&door, hyades(&["dev", "ops", "system:masters"], vec![]));
    while api.last().header("impersonate-group") != ["dev", "ops"] {
        assert_eq!(door.ask("GET /clusters/hyades/api", "").await.status, 200);
    }
    api.pieces.send(Bytes::from("one")).await.unwrap();
    expect(&mut watch, "3\r\none\r\n").await;
    // What was gained and is lost again was said on the same connections.
    yard.push_pass(&door, hyades(&["ops", "system:masters"], vec![]));
    ends(&mut watch).await;
    assert_eq!(door.ask("GET /clusters/hyades/api", "").await.status, 200);
    assert_eq!(api.last().header("impersonate-group"), ["ops"]);
    // A cluster that makes no use of groups.
    let (api, yard) = (Api::new(&["h2"]).await, Yard::new());
    let door = yard.to(&api);
    let (mut watch, _) = door.begin(WATCH, "").await;
    yard.push_pass(&door, hyades(&[], vec![]));
    api.pieces.send(Bytes::from("one")).await.unwrap();
    expect(&mut watch, "3\r\none\r\n").await;
}

/// What is short goes in one piece, and so its length is known, though the cluster told none; what takes long does not
/// wait for its end.
#[tokio::test]
async fn a_short_answer_is_one_piece_and_a_slow_one_comes_as_it_comes() {
    for protocol in ["h2", "http/1.1"] {
        let (api, yard) = (Api::new(&[protocol]).await, Yard::new());
        let door = yard.to(&api);
        let said = door.ask("GET /clusters/hyades/parts", "").await;
        assert_eq!(
            (said.headers.get("content-length").map(String::as_str), said.body.as_str()),
            (Some("8"), "in parts")
        );
        assert_eq!(yard.told().await.got, 8);
        let (mut slow, said) = door.begin("GET /clusters/hyades/stream", "").await;
        assert_eq!((said.status, said.headers.get("content-length")), (200, None));
        for piece in ["one", "two"] {
            api.pieces.send(Bytes::from(piece)).await.unwrap();
            expect(&mut slow, &format!("3\r\n{piece}\r\n")).await;
        }
        api.pieces.send(Bytes::new()).await.unwrap();
        ends(&mut slow).await;
        let told = yard.told().await;
        assert_eq!(
            (told.stage, told.got, told.trouble.as_deref()),
            (KubeStage::Panic, 6, Some("the cluster broke off"))
        );
    }
}

/// What the keeper is given: the stream, the client's socket and the porter's.
async fn kept(yard: &Yard) -> ((KubeStream, StreamProtocol), (TcpStream, UnixStream), Vec<u8>) {
    let (stream, from_client, descriptors) = timeout(SOON, yard.streams.lock().await.recv()).await.unwrap().unwrap();
    let [client, porter]: [OwnedFd; 2] = descriptors.try_into().unwrap();
    let client = std::net::TcpStream::from(client);
    let porter = std::os::unix::net::UnixStream::from(porter);
    client.set_nonblocking(true).unwrap();
    porter.set_nonblocking(true).unwrap();
    (stream, (TcpStream::from_std(client).unwrap(), UnixStream::from_std(porter).unwrap()), from_client)
}

#[tokio::test]
async fn exec_is_the_keepers_from_its_101_on() {
    let (api, yard) = (Api::new(&["h2", "http/1.1"]).await, Yard::new());
    let door = yard.to(&api);
    let socket = |protocols: &str| format!("{SOCKET}Sec-WebSocket-Protocol: {protocols}\r\n");
    let spdy = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\nX-Stream-Protocol-Version: v5.channel.k8s.io\r\n\
                X-Stream-Protocol-Version: v4.channel.k8s.io\r\nX-Stream-Protocol-Version: v3.channel.k8s.io\r\n";
    for (method, headers, protocol) in [
        ("GET", socket("v5.channel.k8s.io, v4.channel.k8s.io"), StreamProtocol::WebSocket5),
        ("GET", socket("channel.k8s.io, v4.channel.k8s.io"), StreamProtocol::WebSocket4),
        ("POST", spdy.to_owned(), StreamProtocol::Spdy),
    ] {
        let (mut client, said) = door.begin(&format!("{method} {EXEC}"), &headers).await;
        assert_eq!(said.status, 101, "{said:?}");
        assert!(!said.headers.contains_key("sec-websocket-extensions") && !said.headers.contains_key("set-cookie"));
        let seen = api.last();
        assert!(!seen.http2 && seen.header("sec-websocket-extensions").is_empty(), "{seen:?}");
        let began = yard.told().await;
        assert_eq!(
            (began.stage, began.status, began.command.as_slice()),
            (KubeStage::ResponseStarted, 101, &["sh".into(), "-c".into()][..])
        );
        client.write_all(b"typed").await.unwrap();
        let ((stream, spoken), (mut near, mut far), early) = kept(&yard).await;
        assert_eq!((spoken, stream.pod.as_str(), stream.container.as_deref()), (protocol, "web", Some("c")));
        assert!(stream.terminal && stream.audit_id == began.audit_id, "{stream:?}");
        // What the client sends the keeper reads; the cluster hears only what the keeper passes on, and echoes it.
        expect(&mut near, "typed".get(early.len()..).unwrap()).await;
        far.write_all(b"passed").await.unwrap();
        expect(&mut far, "passed").await;
        near.write_all(b"shown").await.unwrap();
        expect(&mut client, "shown").await;
        far.shutdown().await.unwrap();
        ends(&mut far).await;
        let ended = yard.told().await;
        assert_eq!(
            (ended.stage, ended.audit_id, ended.sent, ended.got),
            (KubeStage::ResponseComplete, began.audit_id, 6, 6)
        );
    }
    let connections: std::collections::HashSet<usize> = api.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections.len(), 3, "an upgraded connection is nobody else's");
}

#[tokio::test]
async fn port_forward_goes_straight_through_and_is_counted() {
    let (api, yard) = (Api::new(&["h2", "http/1.1"]).await, Yard::new());
    let door = yard.to(&api);
    let forward = "GET /clusters/hyades/api/v1/namespaces/default/pods/web/portforward";
    let headers = format!("{SOCKET}Sec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io\r\n");
    let (mut stream, said) = door.begin(forward, &headers).await;
    assert_eq!((said.status, said.headers["sec-websocket-protocol"].as_str()), (101, "SPDY/3.1+portforward.k8s.io"));
    let much = "x".repeat(300_000);
    let (mut from, mut to) = stream.split();
    let (sent, ()) = tokio::join!(to.write_all(much.as_bytes()), expect(&mut from, &much));
    sent.unwrap();
    stream.shutdown().await.unwrap();
    ends(&mut stream).await;
    let (began, ended) = (yard.told().await, yard.told().await);
    assert_eq!((began.stage, ended.stage), (KubeStage::ResponseStarted, KubeStage::ResponseComplete));
    assert_eq!((ended.sent, ended.got), (300_000, 300_000));
}

#[tokio::test]
async fn a_refusal_of_the_clusters_to_upgrade_is_an_answer() {
    let (api, yard) = (Api::new(&["http/1.1"]).await, Yard::new());
    let door = yard.to(&api);
    let attach = "POST /clusters/hyades/api/v1/namespaces/default/pods/web/attach?x=/unknown";
    let headers = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
    let (_, said) = door.begin(attach, headers).await;
    assert_eq!(said.status, 401);
    assert_eq!(yard.told().await.status, 401);
}

#[tokio::test]
async fn what_is_idle_ends_by_its_clock_and_only_by_it() {
    let clocks = Clocks { connect: SOON, answer: SOON, idle: Duration::from_millis(200) };
    let (api, yard) = (Api::new(&["h2"]).await, Yard::with(clocks));
    let door = yard.to(&api);
    let (mut stream, _) = door.begin("GET /clusters/hyades/api/v1/watch/stream", "").await;
    ends(&mut stream).await;
    assert_eq!(yard.told().await.trouble.as_deref(), Some("idle for too long"));
}

/// An API server lets a connection have 100 streams, and watches do not end.
#[tokio::test]
async fn a_connection_without_room_is_not_waited_for() {
    let (api, yard) = (Api::new(&["h2"]).await, Yard::new());
    let door = yard.to(&api);
    let mut watches = Vec::new();
    for _ in 0..150 {
        watches.push(door.begin(WATCH, "").await.0);
    }
    let used = || api.seen().iter().map(|seen| seen.connection).collect::<BTreeSet<_>>();
    assert_eq!(used().len(), 2);
    drop(watches);
    assert_eq!(door.ask("GET /clusters/hyades/api", "").await.status, 200);
    assert_eq!(used().len(), 2);
}
