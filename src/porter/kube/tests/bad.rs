//! Bad input from the jail, and bad clusters.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::api::{Api, Seen};
use super::yard::{Material, SOON, Yard, cluster};
use crate::audit::KubeStage;
use crate::config::Clocks;

#[tokio::test]
async fn framing_that_two_parsers_read_in_two_ways_does_not_get_through() {
    let (api, yard) = (Api::new(&["http/1.1"]).await, Yard::new());
    let door = yard.to(&api);
    let post = "POST /clusters/hyades/api/v1/pods";
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (headers, body, answers) in [
        ("Content-Length: 5\r\nContent-Length: 6\r\n", "hello", "400"),
        ("Content-Length: 5, 6\r\n", "hello", "400"),
        ("Content-Length: +5\r\n", "hello", "400"),
        ("Content-Length: -1\r\n", "", "400"),
        ("Transfer-Encoding: gzip\r\n", "hello", "400"),
        ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n", "400"),
        ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n", "400"),
        ("X: a\r\n folded\r\n", "", "400"),
        ("X: a\0b\r\n", "", "400"),
    ] {
        let said = door.raw(door.head(post, &format!("{headers}\r\n{body}")).as_bytes()).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {answers} ")), "{headers}: {said}");
    }
    assert!(api.seen().is_empty(), "{:?}", api.seen());
    // Both ways at once: the chunks count, nothing of the length goes on, and what follows is heard by nobody.
    for headers in [format!("Content-Length: 4\r\n{chunked}"), format!("{chunked}Content-Length: 4\r\n")] {
        let inner = door.head("GET /clusters/hyades/smuggled", "Connection: close\r\n");
        let said = door.raw(format!("{}0\r\n\r\n{inner}", door.head(post, &headers)).as_bytes()).await;
        assert_eq!(said.matches("HTTP/1.1 200 ").count(), 1, "{said}");
    }
    let seen = api.seen();
    assert!(seen.len() == 2 && seen.iter().all(|seen| seen.target == "/api/v1/pods"), "{seen:?}");
    let lengths = |seen: &Seen| seen.header("content-length").len() + seen.header("transfer-encoding").len();
    assert!(seen.iter().all(|seen| lengths(seen) <= 1), "{seen:?}");
}

#[tokio::test]
async fn heads_that_are_too_long_or_for_others_are_refused() {
    let (api, yard) = (Api::new(&["http/1.1"]).await, Yard::new());
    let door = yard.to(&api);
    let get = "GET /clusters/hyades/api";
    let long = format!("X: {}\r\n", "a".repeat(1 << 20));
    assert!(door.raw(door.head(get, &long).as_bytes()).await.starts_with("HTTP/1.1 431 "));
    for (request, headers, status) in [
        (get, "Host: evil.example\r\n", 400),
        ("GET http://evil.example/clusters/hyades/api", "", 403),
        ("GET https://127.0.0.1:6443/clusters/hyades/api", "", 403),
        (get, "Origin: http://evil.example\r\n", 403),
        ("GET /clusters/hyades/../pleiades/api", "", 400),
        ("GET /clusters/hyades%2Fapi/x", "", 404),
        ("GET /clusters/hyades/clusters/pleiades/api", "", 400),
        ("GET /clusters/hyades/api/v1/nodes/n/proxy/run/x", "", 403),
        ("GET /clusters/hyades/api/v1/nodes/n/%70roxy/", "", 403),
        ("GET /api", "", 404),
        ("TRACE /clusters/hyades/api", "", 405),
    ] {
        let said = door.ask(request, headers).await;
        assert_eq!(said.status, status, "{request} {headers}: {said:?}");
        said.message();
    }
    assert!(api.seen().is_empty(), "{:?}", api.seen());
}

#[tokio::test]
async fn only_some_requests_may_upgrade() {
    let (api, yard) = (Api::new(&["http/1.1"]).await, Yard::new());
    let door = yard.to(&api);
    let exec = "/clusters/hyades/api/v1/namespaces/d/pods/p/exec?command=sh";
    let socket =
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA\r\n";
    let offer = |protocols: &str| format!("{socket}Sec-WebSocket-Protocol: {protocols}\r\n");
    let spdy = |rest: &str| format!("Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n{rest}");
    for (request, headers) in [
        ("GET /clusters/hyades/api".to_owned(), offer("v5.channel.k8s.io")),
        ("GET /clusters/hyades/api/v1/namespaces/d/services/s/proxy/x".to_owned(), offer("v5.channel.k8s.io")),
        ("GET /clusters/hyades/apis/x/v1/namespaces/d/pods/p/exec".to_owned(), offer("v5.channel.k8s.io")),
        (format!("GET {exec}"), socket.to_owned()),
        (format!("GET {exec}"), offer("v4.base64.channel.k8s.io, channel.k8s.io")),
        (format!("GET {exec}"), offer("v5.channel.k8s.io").replace("13", "12")),
        (format!("GET {exec}"), offer("v5.channel.k8s.io").replace("Connection: Upgrade", "Connection: close")),
        (format!("GET {exec}"), offer("v5.channel.k8s.io").replace("websocket", "h2c")),
        (format!("POST {exec}"), spdy("")),
        (format!("POST {exec}"), spdy("X-Stream-Protocol-Version: v3.channel.k8s.io\r\n")),
        (format!("GET {exec}"), spdy("X-Stream-Protocol-Version: v4.channel.k8s.io\r\n")),
        (format!("POST {exec}"), spdy("X-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 1\r\n\r\nx")),
    ] {
        let said = door.raw(door.head(&request, &format!("{headers}Connection: close\r\n")).as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 400 "), "{request} {headers}: {said}");
    }
    assert!(api.seen().is_empty(), "{:?}", api.seen());
}

#[tokio::test]
async fn redirects_stay_inside_and_protocols_do_not_change_by_themselves() {
    let (api, yard) = (Api::new(&["http/1.1"]).await, Yard::new());
    let door = yard.to(&api);
    let said = door.ask("GET /clusters/hyades/inside", "").await;
    assert_eq!((said.status, said.headers["location"].as_str()), (307, "/clusters/hyades/api/v1/other"));
    let said = door.ask("GET /clusters/hyades/outside", "").await;
    assert_eq!(said.status, 502);
    assert!(said.message().contains("redirect") && !said.headers.contains_key("location"), "{said:?}");
    let said = door.ask("GET /clusters/hyades/switch", "").await;
    assert_eq!(said.status, 502);
    assert!(said.message().contains("protocol"), "{said:?}");
    // And that connection is not used again.
    let used = api.last().connection;
    assert_eq!(door.ask("GET /clusters/hyades/api", "").await.status, 200);
    assert_ne!(api.last().connection, used);
}

#[tokio::test]
async fn pages_behind_a_proxy_are_in_a_sandbox() {
    let (api, yard) = (Api::new(&["h2"]).await, Yard::new());
    let door = yard.to(&api);
    let said = door.ask("GET /clusters/hyades/api/v1/namespaces/d/services/s/proxy/", "").await;
    assert_eq!((said.status, said.headers["content-security-policy"].as_str()), (200, "sandbox; default-src 'none'"));
    assert!(!door.ask("GET /clusters/hyades/api", "").await.headers.contains_key("content-security-policy"));
}

#[tokio::test]
async fn a_cluster_that_is_not_itself_sees_nothing() {
    let other = Material::make();
    let (api, yard) = (Api::with(&["h2"], &other).await, Yard::new());
    let door = yard.to(&api);
    let said = door.ask("GET /clusters/hyades/api", "").await;
    assert_eq!(said.status, 502);
    assert!(said.message().contains("certificate"), "{said:?}");
    assert!(api.seen().is_empty());
    // The right authority, another name.
    let mut named = cluster("pleiades", &api.endpoint(), other.authority.clone());
    named.server_name = Some("other.example.test".into());
    let said = yard.to_cluster(named).ask("GET /clusters/pleiades/api", "").await;
    assert_eq!(said.status, 502);
    let broken = cluster("broken", &api.endpoint(), "no certificate".into());
    let said = yard.to_cluster(broken).ask("GET /clusters/broken/api", "").await;
    assert_eq!(
        (said.status, said.message().as_str()),
        (503, "the certificate authority of cluster broken cannot be used")
    );
    let nameless = cluster("nameless", "https://api.nowhere.test", Material::get().authority.clone());
    let said = yard.to_cluster(nameless).ask("GET /clusters/nameless/api", "").await;
    assert_eq!((said.status, said.message().contains("no address")), (503, true), "{said:?}");
}

#[tokio::test]
async fn a_cluster_that_is_down_slow_or_torn_is_named() {
    let clocks = Clocks { connect: SOON, answer: Duration::from_millis(300), idle: Duration::ZERO };
    let (api, yard) = (Api::new(&["http/1.1"]).await, Yard::with(clocks));
    let door = yard.to(&api);
    for (path, status) in [("stall", 504), ("break", 502)] {
        let said = door.ask(&format!("GET /clusters/hyades/{path}"), "").await;
        assert_eq!(said.status, status, "{said:?}");
        assert!(said.message().starts_with("cluster hyades "), "{said:?}");
        let told = yard.told().await;
        assert_eq!((told.status, told.stage), (status, KubeStage::Panic));
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let down = cluster("down", &format!("https://{closed}"), Material::get().authority.clone());
    let said = yard.to_cluster(down).ask("GET /clusters/down/api", "").await;
    assert_eq!(said.status, 503);
    assert!(said.message().starts_with("cluster down cannot be reached: it refuses connections"), "{said:?}");
}

#[tokio::test]
async fn an_api_server_that_was_started_again_is_found() {
    for protocol in ["h2", "http/1.1"] {
        let (api, yard) = (Api::new(&[protocol]).await, Yard::new());
        let door = yard.to(&api);
        assert_eq!(door.ask("GET /clusters/hyades/api", "").await.status, 200);
        let (mut watch, _) = door.begin("GET /clusters/hyades/api/v1/pods?watch=1&x=/stream", "").await;
        let address = api.address;
        drop(api);
        let mut rest = Vec::new();
        let _ = timeout(SOON, watch.read_to_end(&mut rest)).await.expect("an end");
        assert!(![200, 0].contains(&door.ask("GET /clusters/hyades/api", "").await.status));
        let api = Api::at(address, &[protocol], Material::get()).await;
        assert_eq!(door.ask("GET /clusters/hyades/api", "").await.status, 200);
        assert_eq!(api.seen().len(), 1);
    }
}
