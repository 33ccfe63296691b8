//! Issue 5, "Kube door": exec, attach, port-forward, cp and debug of the jail's kubectl, over WebSocket and over SPDY.
//!
//! `kubectl cp` passes 1 GiB each way instead of 64 MiB when `STOCKADE_SOAK` is set.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use crate::kube::{bastion, plan, start};
use crate::yard::{Clusters, Terminal, Yard, until};

/// What makes kubectl speak the one and the other.
pub const PROTOCOLS: [(&str, &str); 2] = [
    ("WebSocket", "export KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true KUBECTL_PORT_FORWARD_WEBSOCKETS=true; "),
    ("SPDY", "export KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false KUBECTL_PORT_FORWARD_WEBSOCKETS=false; "),
];

/// kubectl of bob's on hyades, in a terminal of his.
fn terminal(yard: &Yard, protocol: &str, namespace: &str, line: &str) -> Terminal {
    yard.ssh("bob").terminal_of(&format!("{protocol}exec kubectl -n {namespace} {line}"))
}

#[test]
fn exec_has_an_exit_code_an_end_of_input_and_a_terminal() {
    let clusters = Clusters::start();
    let namespace = clusters.hyades().namespace("exec");
    let yard = bastion(clusters);
    for (name, protocol) in PROTOCOLS {
        let exec = |rest: &str| format!("{protocol}kubectl -n {namespace} exec {rest}");
        let exit = yard.ssh("bob").run(&exec("web -c app -- sh -c 'echo out; echo err >&2; exit 7'"));
        assert_eq!((exit.code, exit.text().as_str()), (Some(7), "out"), "{name}");
        assert!(exit.stderr.starts_with("err\n"), "{name}: {}", exit.stderr);
        let count = yard.ssh("bob").input(vec![0; 1_000_000]).run(&exec("-i web -c app -- wc -c"));
        assert_eq!(count.ok(), "1000000", "{name}");
        let mut shell = terminal(&yard, protocol, &namespace, "exec -it web -c app -- bash --norc");
        shell.prompt();
        until("the size", || (shell.shell("stty size") == "24 80").then_some(()));
        shell.resize(111, 33);
        until("the new size", || (shell.shell("stty size") == "33 111").then_some(()));
        shell.enter("exit 9");
        assert_eq!(shell.end(), 9, "{name}");
        let missing = yard.ssh("bob").run(&exec("web -c app -- no-such-program"));
        assert!(missing.code.is_some_and(|code| code != 0) && !missing.stderr.is_empty(), "{missing:?}");
    }
}

#[test]
fn a_container_is_attached() {
    let clusters = Clusters::start();
    let namespace = clusters.hyades().namespace("attach");
    let yard = bastion(clusters);
    for (name, protocol) in PROTOCOLS {
        let mut attached = terminal(&yard, protocol, &namespace, "attach -it web -c shell");
        attached.wait_for("command prompt");
        attached.enter("");
        attached.prompt();
        assert_eq!(attached.shell("echo $((6 * 7))"), "42", "{name}");
    }
}

/// Both ways at once, more than any buffer between.
#[test]
fn ports_are_forwarded_both_ways() {
    let clusters = Clusters::start();
    let yard = bastion(clusters);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 65536];
                while let Ok(got @ 1..) = stream.read(&mut buffer) {
                    stream.write_all(&buffer[..got]).unwrap();
                }
            });
        }
    });
    for (name, protocol) in PROTOCOLS {
        let mut bob = yard.ssh("bob").terminal();
        bob.prompt();
        bob.shell(&format!("{protocol}{{ kubectl -n team-a port-forward web 7000:{port} > forward 2>&1 & }}"));
        until("a forwarded port", || bob.shell("cat forward").contains("Forwarding from 127.0.0.1:7000").then_some(()));
        bob.shell("head -c 8M /dev/urandom > sent; exec 3<>/dev/tcp/127.0.0.1/7000; (cat sent >&3 &)");
        // The server echoes, and does not end.
        let compared = bob.shell("head -c 8M <&3 | cmp - sent && echo the same");
        assert!(compared.ends_with("the same"), "{name}: {compared}");
        let again = bob.shell("exec 4<>/dev/tcp/127.0.0.1/7000; echo ag''ain >&4; head -1 <&4");
        assert!(again.ends_with("again"), "{name}: {again}");
        bob.shell("kill %1; wait 2>/dev/null");
    }
}

/// "`kubectl cp` of 1 GiB both ways with equal hashes"
#[test]
fn soak_copies_files_both_ways() {
    let soak = std::env::var_os("STOCKADE_SOAK").is_some();
    let mebibytes = if soak { 1024 } else { 64 };
    let clusters = Clusters::start();
    let namespace = clusters.hyades().namespace("copy");
    let yard = start(plan(clusters).config("jail.home_size = '3GiB'"));
    let mut protocols = PROTOCOLS.to_vec();
    protocols.truncate(if soak { 1 } else { 2 });
    for (name, protocol) in protocols {
        // Over SPDY a busy node may close before all is read, without any bastion too: what kubectl has --retries for.
        let line = format!(
            "{protocol}set -e; head -c {mebibytes}M /dev/urandom > there; kubectl config set-context --current \
             --namespace {namespace} >&2; kubectl cp -c app there web:copied-{name}; \
             kubectl exec web -c app -- sha256sum copied-{name}; kubectl cp --retries 5 -c app web:copied-{name} back; \
             sha256sum there; sha256sum back; kubectl exec web -c app -- rm copied-{name}"
        );
        let ran = yard.ssh("bob").begin(&line).wait_at_most(Duration::from_secs(900)).ok();
        let hashes: Vec<&str> = ran.lines().filter_map(|line| line.split_once("  ")).map(|(hash, _)| hash).collect();
        assert!(hashes.len() == 3 && hashes.iter().all(|hash| hash.len() == 64 && *hash == hashes[0]), "{name}: {ran}");
    }
}

#[test]
fn a_debug_container_joins_a_pod() {
    let clusters = Clusters::start();
    let cluster = clusters.hyades();
    let namespace = cluster.namespace("debug");
    let yard = bastion(clusters);
    for (name, protocol) in PROTOCOLS {
        let container = name.to_lowercase();
        let mut debug = yard.ssh("alice").terminal_of(&format!(
            "{protocol}exec kubectl -n {namespace} debug web -it --image=none.invalid/tools -c {container} -- bash"
        ));
        debug.wait_for("command prompt");
        debug.enter("");
        debug.prompt();
        assert_eq!(debug.shell("echo $((6 * 7))"), "42", "{name}");
        let asked = yard.audit().wait_for("SK5201I", |event| {
            let asked = &event["unmapped"]["kubernetes"];
            asked["objectRef"]["subresource"] == "ephemeralcontainers"
                && asked["objectRef"]["namespace"] == *namespace
                && asked["requestObject"].to_string().contains(&format!("\"{container}\""))
        });
        let body = asked["unmapped"]["kubernetes"]["requestObject"]["spec"]["ephemeralContainers"].to_string();
        assert!(body.contains("none.invalid/tools") && body.contains("\"bash\""), "{body}");
    }
}

/// "an exec idle past every default time-out survives (clocks configurable, shortened in CI)"
#[test]
fn an_exec_may_be_idle() {
    let clusters = Clusters::start();
    let namespace = clusters.hyades().namespace("idle");
    let yard = start(plan(clusters).config("kube.clocks = { connect = '1s', answer = '1s' }"));
    let mut shells = PROTOCOLS.map(|(_, protocol)| {
        let mut shell = terminal(&yard, protocol, &namespace, "exec -it web -c app -- bash --norc");
        shell.prompt();
        shell
    });
    // Five times as long as any clock of the door; the state waited for is that of a clock.
    let began = std::time::Instant::now();
    until("five idle seconds", || (began.elapsed() > Duration::from_secs(5)).then_some(()));
    for shell in &mut shells {
        assert_eq!(shell.shell("echo $((6 * 7))"), "42");
    }
}

/// An idle clock that is set does end what is idle, and says so.
#[test]
fn an_idle_clock_ends_a_stream() {
    let clusters = Clusters::start();
    let namespace = clusters.hyades().namespace("clock");
    let yard = start(plan(clusters).config("kube.clocks = { idle = '2s' }"));
    for (_, protocol) in PROTOCOLS {
        let mut shell = terminal(&yard, protocol, &namespace, "exec -it web -c app -- bash --norc");
        shell.prompt();
        // Over SPDY kubectl takes the end of a stream for one without a fault.
        shell.end();
        let opened = yard.audit().of("SK5203I").pop().unwrap();
        yard.audit().wait_for("SK5204I", |event| event["api"]["request"] == opened["api"]["request"]);
        yard.audit().wait_for("SK5201I", |event| {
            event["api"]["request"] == opened["api"]["request"] && event["unmapped"]["trouble"] == "idle for too long"
        });
    }
}
