//! Issue 5, item 6: the public kube door itself, as strangers, clients and a scanner see it.

use std::process::Command;

use serde_json::Value;

use crate::laptop::{bastion, holds};
use crate::yard::{Laptop, Yard, certificate, spawn_with, until, with_public_door};

const NAMESPACES: &str = "/clusters/hyades/api/v1/namespaces";

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// The status that a source with this address gets; 000 where it is not heard.
fn knock_from(yard: &Yard, source: &str, token: &str, path: &str) -> String {
    let curl = yard.curl(&["--interface", source, "-H", &bearer(token), "-w", "\n%{http_code}"], path);
    spawn_with(curl, None).wait().text().lines().last().unwrap_or_default().to_owned()
}

/// "no token / wrong token / another's token on one connection"
#[test]
fn who_shows_no_token_learns_nothing() {
    let yard = bastion("1h");
    let (alice, bob) = (yard.token("alice", "hyades"), yard.token("bob", "hyades"));
    let mut bodies = Vec::new();
    for header in ["X: y", "Authorization: Bearer wrong", "Authorization: Basic YTpi", "Authorization: Bearer"] {
        let said = spawn_with(yard.curl(&["-H", header, "-w", "\n%{http_code}"], NAMESPACES), None).wait().ok();
        let (body, status) = said.rsplit_once('\n').unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (status, &body["kind"], &body["reason"]),
            ("401", &"Status".into(), &"Unauthorized".into()),
            "{header}"
        );
        bodies.push(body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    let unknown = yard.curl(&["-H", "X: y", "-w", "%{http_code}"], "/clusters/none/api/v1/namespaces");
    assert!(spawn_with(unknown, None).wait().ok().ends_with("401"));

    // The second request comes over the first one's connection.
    for http in ["--http1.1", "--http2"] {
        let told = ["-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n"];
        let mut curl = yard.curl(&[&[http, "-H", &bearer(&alice)], &told[..]].concat(), NAMESPACES);
        curl.args(["--next", "-sS", http, "--cacert"]).arg(yard.path("ca.pem")).args(["-H", &bearer(&bob)]);
        curl.args(told).arg(format!("https://127.0.0.1:{}{NAMESPACES}", yard.public_port()));
        let said = spawn_with(curl, None).wait().ok();
        assert_eq!(said, "200 1\n401 0", "{http}");
    }
    assert_eq!(yard.knock(&bob).0, 200, "alone it is good");

    let laptop = Laptop::of(&yard, "alice");
    let text = std::fs::read_to_string(laptop.kubeconfig()).unwrap();
    let from = text.find("\nusers:").unwrap();
    let user = "\nusers:\n- name: stockade-hyades\n  user: {token: wrong}\n";
    std::fs::write(laptop.kubeconfig(), format!("{}{user}", &text[..from])).unwrap();
    let refused = laptop.run("hyades", &["get", "namespaces"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("You must be logged in to the server"), "{}", refused.stderr);
}

/// Laptops are strangers until they have shown a token, as ssh's clients are until they have logged in.
#[test]
fn whose_tokens_are_wrong_is_refused_for_a_while() {
    let yard = bastion("1h");
    let token = yard.token("alice", "hyades");
    let knock = |token: &str| knock_from(&yard, "127.0.0.9", token, NAMESPACES);
    assert_eq!(knock(&token), "200");
    until("a penalty", || (knock("wrong") == "000").then_some(()));
    let penalised = yard.audit().wait_for("SK1005W", |_| true);
    assert!(penalised.to_string().contains("127.0.0.9"), "{penalised}");
    assert_eq!(knock(&token), "000", "the good one does not help");
    assert_eq!(yard.knock(&token).0, 200, "another source is not meant");
    assert!(holds(&yard, &token).is_empty());
}

/// The porter's word that a token is good comes another way than its answer: whoever is quicker than that is no stranger.
#[test]
fn who_has_a_token_is_never_taken_for_a_stranger() {
    let yard = bastion("1h");
    let token = yard.token("alice", "hyades");
    for _ in 0..40 {
        // Answered by the door itself, at once.
        assert_eq!(knock_from(&yard, "127.0.0.8", &token, "/clusters/none/api"), "403");
    }
    assert_eq!(knock_from(&yard, "127.0.0.8", "wrong", NAMESPACES), "401");
    let shamed = |event: &Value| event["src_endpoint"]["ip"] == "127.0.0.8";
    yard.audit().wait_for("SK1002W", shamed);
    assert_eq!(yard.audit().of("SK1002W").into_iter().filter(shamed).count(), 1);
    // Each had a connection of its own: the meter is the grant's.
    let told = yard.audit().of("SK5202W").len();
    assert!((10..30).contains(&told), "{told} of 40 refusals are told");
}

/// A certificate lives shorter than a bastion runs.
#[test]
fn a_reload_brings_a_new_certificate() {
    let yard = bastion("1h");
    let token = yard.token("alice", "hyades");
    let served = || {
        let line = "openssl s_client -connect \"$0\" </dev/null 2>/dev/null | openssl x509 -noout -serial";
        let mut openssl = Command::new("bash");
        openssl.args(["-c", line, &format!("127.0.0.1:{}", yard.public_port())]);
        spawn_with(openssl, None).wait().ok()
    };
    let former = served();
    let seen = yard.path("watched").display().to_string();
    let mut watch = yard.curl(&["-N", "-o", &seen, "-H", &bearer(&token)], &format!("{NAMESPACES}?watch=true"));
    let mut watching = watch.spawn().unwrap();
    until("a watch", || std::fs::metadata(&seen).ok().filter(|file| file.len() > 0));
    certificate(&yard.path(""));
    yard.signal("HUP");
    until("the new certificate", || (served() != former).then_some(()));
    assert_eq!(yard.knock(&token).0, 200);
    assert!(watching.try_wait().unwrap().is_none(), "who is there stays");
    watching.kill().unwrap();
    watching.wait().unwrap();
}

/// "h2 and http/1.1, HSTS present"
#[test]
fn both_versions_of_http_are_spoken_and_told_to_stay_with_tls() {
    let yard = bastion("1h");
    let token = yard.token("alice", "hyades");
    for (asked, spoken) in [("--http1.1", "1.1"), ("--http2", "2")] {
        for (token, status) in [(token.as_str(), "200"), ("wrong", "401")] {
            let authorization = bearer(token);
            let told = "%{http_version} %{http_code}";
            let curl = yard.curl(&[asked, "-H", &authorization, "-D", "-", "-o", "/dev/null", "-w", told], NAMESPACES);
            let said = spawn_with(curl, None).wait().ok().to_lowercase();
            assert!(said.contains("strict-transport-security: max-age=31536000"), "{said}");
            assert!(said.ends_with(&format!("{spoken} {status}")), "{said}");
        }
    }
}

/// "TLS 1.3 (1.2 modern suites if configured), checked by a scanner in the tests"
#[test]
fn a_scanner_finds_nothing_old() {
    for (tls12, versions) in [(false, &["TLSv1.3"][..]), (true, &["TLSv1.2", "TLSv1.3"])] {
        let yard = with_public_door(Yard::new()).config(&format!("kube.public.tls12 = {tls12}"));
        let yard = yard.start();
        let mut scan = Command::new("sslscan");
        scan.args(["--no-colour", &format!("127.0.0.1:{}", yard.public_port())]);
        let said = spawn_with(scan, None).wait().ok();
        for version in ["SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3"] {
            let word = if versions.contains(&version) { "enabled" } else { "disabled" };
            let line = said.lines().find(|line| line.starts_with(version)).unwrap_or_default();
            assert!(line.trim_end().ends_with(word), "{version} {word}: {said}");
        }
        let suites: Vec<&str> =
            said.lines().filter(|l| l.starts_with("Accepted") || l.starts_with("Preferred")).collect();
        assert!(!suites.is_empty(), "{said}");
        for suite in suites {
            let modern = suite.contains("GCM") || suite.contains("CHACHA20");
            assert!(modern && (suite.contains("TLSv1.3") || suite.contains("ECDHE")), "{suite}");
        }
        for wanted in ["Session renegotiation not supported", "not vulnerable to heartbleed"] {
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
    }
}
