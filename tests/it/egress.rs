//! The way out of a jail: what the rules name is reached, and nothing else, with no configuration in the jail.
//!
//! Loopback is never reached, so each test has a network of its own: the parent starts this binary again in a new network
//! and mount namespace, where addresses of a private range, a name server and a hosts file are what the test wants.

mod clients;
mod outage;
mod presets;
mod socks;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::aws::Bed;
use crate::yard::{Plan, Yard, until};

/// The network that the tests' rules name, and one that they do not.
const OURS: &str = "10.213.0.1";
const OTHER: &str = "10.214.0.1";

/// Runs one of the `child_` tests in a world of its own.
fn world(test: &str) {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    // The search list would lead `plain` to a name that a rule allows.
    std::fs::write(at("resolv.conf"), "nameserver 127.0.0.1\nsearch example.test\n").unwrap();
    std::fs::write(at("hosts"), "127.0.0.1 localhost\n169.254.169.254 hosted.example.test\n").unwrap();
    let made = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bed/venv")).status().unwrap();
    assert!(made.success(), "tests/bed/venv failed");
    let prepare = format!(
        "ip link set lo up && ip addr add {OURS}/24 dev lo && ip addr add {OTHER}/24 dev lo && \
         mount --bind {0}/resolv.conf /etc/resolv.conf && mount --bind {0}/hosts /etc/hosts && exec \"$@\"",
        directory.path().display()
    );
    let ran = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", &prepare, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

#[test]
fn alice_reads_her_bucket_and_bob_does_not() {
    world("egress::child_of_the_proof");
}

#[test]
fn what_no_rule_names_is_not_reached() {
    world("egress::child_of_refusals");
}

#[test]
fn a_rule_that_is_taken_away_ends_its_connections() {
    world("egress::child_of_revocation");
}

/// "closed by default": the door is there, lets nobody through, and nothing in the jail points to it.
#[test]
fn without_a_rule_nothing_is_reached() {
    let yard = Yard::new().user("alice").start();
    let ran = yard
        .ssh("alice")
        .run("echo ${HTTPS_PROXY-none} ${no_proxy-none}; curl -sS -x http://127.0.0.1:3128 https://example.com");
    assert_eq!((ran.text().as_str(), ran.code), ("none none", Some(56)), "{}", ran.stderr);
    assert!(ran.stderr.contains("403"), "{}", ran.stderr);
    let refused = yard.audit().wait_for("SK5103W", |_| true);
    assert_eq!(refused["unmapped"]["target"], "example.com:443");
    let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(namespace(yard.role("porter")), namespace(yard.jailer()), "the porter has no network");
}

/// Answers questions for addresses from a table, with no life beyond the question.
fn name_server(table: fn(&str) -> Option<IpAddr>) -> Arc<Mutex<Vec<String>>> {
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut packet = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            let (mut end, mut labels) = (12, Vec::new());
            while packet[end] != 0 {
                let next = end + 1 + usize::from(packet[end]);
                labels.push(String::from_utf8_lossy(&packet[end + 1..next]).to_lowercase());
                end = next;
            }
            let (name, kind) = (labels.join("."), packet[end + 2]);
            assert!(end + 5 <= length);
            let address = match table(&name) {
                Some(IpAddr::V4(four)) if kind == 1 => four.octets().to_vec(),
                Some(IpAddr::V6(six)) if kind == 28 => six.octets().to_vec(),
                _ => Vec::new(),
            };
            seen.lock().unwrap().push(name);
            let mut answer = [&packet[..2], &[0x81, 0x80, 0, 1, 0, u8::from(!address.is_empty()), 0, 0, 0, 0]].concat();
            answer.extend(&packet[12..end + 5]);
            if !address.is_empty() {
                answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0, 0, u8::try_from(address.len()).unwrap()]);
                answer.extend(address);
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    asked
}

/// The issue's proof: "from two jails alice reads her bucket, bob gets AccessDenied, `aws sts get-caller-identity`
/// tells each their own role".
#[test]
#[ignore = "run by its parent"]
fn child_of_the_proof() {
    name_server(|name| name.ends_with(".amazonaws.com").then(|| OURS.parse().unwrap()));
    let bed = Bed::with(&["--tls-at", &format!("{OURS}:443")]);
    let role = "arn:aws:iam::123456789012:role/bastion/{user}";
    let mut plan = Yard::new().config(&format!(
        "aws.region = 'us-east-1'\naws.role = '{role}'\njail.memory = '512MiB'\n\
         [[egress.allow]]\npreset = 'aws'\nregions = ['us-east-1']\ncidrs = ['10.213.0.0/24']"
    ));
    for (name, value) in bed.bastion() {
        plan = plan.env(&name, &value);
    }
    let yard = plan.env("AWS_EC2_METADATA_DISABLED", "true").user("alice").user("bob").start();
    let roots = std::fs::read(bed.path("ca.pem")).unwrap();
    let aws = |user: &str, command: &str| {
        yard.ssh(user).input(roots.clone()).run(&format!("cat > ca.pem; AWS_CA_BUNDLE=~/ca.pem aws {command}"))
    };
    for user in ["alice", "bob"] {
        let arn = aws(user, "sts get-caller-identity --query Arn --output text").ok();
        assert!(arn.starts_with(&format!("arn:aws:sts::123456789012:assumed-role/{user}/")), "{arn}");
    }
    assert_eq!(aws("alice", "s3 cp s3://home-alice/hello.txt -").ok(), "hello alice");
    let denied = aws("bob", "s3api get-object --bucket home-alice --key hello.txt /dev/null");
    assert!(denied.code != Some(0) && denied.stderr.contains("AccessDenied"), "{} {}", denied.text(), denied.stderr);
    let boto3 =
        "import boto3; print(boto3.client('s3').get_object(Bucket='home-alice', Key='hello.txt')['Body'].read())";
    let boto3 = yard.ssh("alice").run(&format!("AWS_CA_BUNDLE=~/ca.pem python3 -c \"{boto3}\""));
    assert_eq!(boto3.ok(), "b'hello alice\\n'");
    // The other way round, so that it is not bob's jail that fails.
    assert_eq!(aws("bob", "s3 cp s3://home-bob/hello.txt -").ok(), "hello bob");

    let opened = yard.audit().wait_for("SK5101I", |event| {
        event["user"]["name"] == "alice" && event["dst_endpoint"]["hostname"].as_str().unwrap().contains("s3.us-east-1")
    });
    assert_eq!((&opened["dst_endpoint"]["port"], &opened["dst_endpoint"]["ip"]), (&443.into(), &OURS.into()));
    let closed = yard.audit().wait_for("SK5102I", |event| event["session"] == opened["session"]);
    let bytes = |name: &str| closed["traffic"][name].as_u64().unwrap();
    assert!(bytes("bytes_out") > 300 && bytes("bytes_in") > 300 && closed["duration"].is_u64(), "{closed}");
}

/// What the tests' bastion lets through to, and the names there are.
fn plan() -> Plan {
    let plan = Yard::new().config(
        "users.groups = { ops = ['alice', 'carol'] }\n[egress]\nidle = '1m'\naddresses = { 'fixed.example.test' = ['10.213.0.1'] }\n\
         [[egress.allow]]\ngroups = ['ops']\nhosts = ['*.example.test', 'localhost']\ncidrs = ['10.213.0.0/24']\n\
         [[egress.allow]]\ngroups = ['ops']\nhosts = ['*.example.test', '10.213.0.1', '10.214.0.1']\nports = [2222, 8080]\n\
         cidrs = ['10.213.0.0/24']\ntls = false",
    );
    plan.user("alice").user("bob").user("carol")
}

fn example(name: &str) -> Option<IpAddr> {
    Some(match name {
        "ok.example.test" | "plain.example.test" => OURS.parse().unwrap(),
        "silent.example.test" => Ipv4Addr::new(10, 213, 0, 9).into(),
        "private.example.test" => OTHER.parse().unwrap(),
        "loopback.example.test" => Ipv4Addr::LOCALHOST.into(),
        "metadata.example.test" => Ipv4Addr::new(169, 254, 169, 254).into(),
        "mapped.example.test" => "::ffff:127.0.0.1".parse().unwrap(),
        "nat64.example.test" => "64:ff9b::7f00:1".parse().unwrap(),
        _ => return None,
    })
}

/// A server that answers when its client is done, with what it heard.
fn echo(at: &str) -> Arc<Mutex<Vec<Vec<u8>>>> {
    let listener = TcpListener::bind(at).unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, all) = (stream.unwrap(), Arc::clone(&all));
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes);
                let _ = stream.write_all(&bytes);
                all.lock().unwrap().push(bytes);
            });
        }
    });
    heard
}

/// Goes through the door by hand: the status line of a CONNECT, and what comes back for what is said then.
const CLIENT: &str = r#"
import socket, sys
def door(target, method="CONNECT"):
    s = socket.create_connection(("127.0.0.1", 3128), timeout=30)
    s.sendall(f"{method} {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        part = s.recv(1)
        if not part: break
        head += part
    return s, head.decode().split("\r\n")[0].removeprefix("HTTP/1.1 ")
def say(target, data):
    s, status = door(target)
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    heard = b""
    try:
        while part := s.recv(65536): heard += part
    except ConnectionResetError:
        heard += b"(reset)"
    return status + " " + repr(heard)
"#;

fn python(yard: &Yard, user: &str, lines: &str) -> String {
    yard.ssh(user).input(format!("{CLIENT}{lines}\n")).run("python3 -").ok()
}

#[test]
#[ignore = "run by its parent"]
fn child_of_refusals() {
    let asked = name_server(example);
    let (tls, plain) = (echo(&format!("{OURS}:443")), echo(&format!("{OURS}:2222")));
    let yard = plan().start();
    assert_eq!(
        yard.ssh("alice").run("echo $HTTPS_PROXY $https_proxy $ALL_PROXY $all_proxy ${HTTP_PROXY-none}").ok(),
        "http://127.0.0.1:3128 http://127.0.0.1:3128 socks5h://127.0.0.1:3128 socks5h://127.0.0.1:3128 none"
    );
    let none = yard.ssh("bob").run("echo ${HTTPS_PROXY-none} ${ALL_PROXY-none} ${NO_PROXY-none}").ok();
    assert_eq!(none, "none none none", "a rule of another group");
    let status = |user: &str, target: &str| python(&yard, user, &format!("print(door('{target}')[1])"));
    assert_eq!(status("alice", "ok.example.test:443"), "200 OK");
    assert_eq!(status("alice", "fixed.example.test:443"), "200 OK");
    assert_eq!(status("bob", "ok.example.test:443"), "403 no rule lets you through to ok.example.test:443");
    for (target, wanted) in [
        ("unlisted.test:443", "no rule lets you through"),
        ("ok.example.test:80", "no rule lets you through"),
        ("plain:443", "no rule lets you through"),
        ("127.0.0.1:443", "no rule lets you through"),
        ("10.214.0.1:2222", "10.214.0.1: a private address"),
        ("private.example.test:443", "10.214.0.1: a private address"),
        ("loopback.example.test:443", "127.0.0.1: it is loopback"),
        ("localhost:443", "127.0.0.1: it is loopback"),
        ("metadata.example.test:443", "169.254.169.254: it is link-local"),
        ("hosted.example.test:443", "169.254.169.254: it is link-local"),
        ("mapped.example.test:443", "::ffff:127.0.0.1: it is loopback"),
        ("nat64.example.test:443", "64:ff9b::7f00:1: it is loopback"),
    ] {
        let said = status("alice", target);
        assert!(said.starts_with("403 ") && said.contains(wanted), "{target}: {said}");
    }
    assert!(status("alice", "nowhere.example.test:443").starts_with("502 "));
    assert!(!asked.lock().unwrap().iter().any(|name| name.contains("unlisted") || name == "plain.example.test"));
    refused_in_tls(&yard, &tls);
    passed_on(&yard, &plain);
    flooded(&yard);
}

/// After the 200: what is not TLS, or TLS with another name, or with none.
fn refused_in_tls(yard: &Yard, heard: &Mutex<Vec<Vec<u8>>>) {
    let said = python(yard, "alice", "print(say('ok.example.test:443', b'SSH-2.0-x\\r\\n'))");
    assert!(said.starts_with("200 OK b'"), "{said}");
    let other = "curl -sS --max-time 20 --connect-to other.test:443:ok.example.test:443 https://other.test/";
    let other = yard.ssh("alice").run(other);
    assert_eq!(other.code, Some(35), "{} {}", other.text(), other.stderr);
    let nameless = "import ssl\ns, status = door('ok.example.test:443')\nc = ssl._create_unverified_context()\n\
                    c.check_hostname = False\ntry:\n    c.wrap_socket(s)\nexcept ssl.SSLError as e:\n    print(e.reason)";
    assert_eq!(python(yard, "alice", nameless), "TLSV1_ALERT_ACCESS_DENIED");
    for reason in ["it is not TLS", "TLS names another host: other.test", "TLS names no host"] {
        let event = yard.audit().wait_for("SK5103W", |event| event["unmapped"]["reason"] == reason);
        assert_eq!(event["unmapped"]["target"], "ok.example.test:443");
    }
    let heard = heard.lock().unwrap();
    assert!(heard.iter().all(Vec::is_empty), "something was passed on: {heard:?}");
    assert!(yard.audit().of("SK5101I").is_empty(), "nothing went through");
}

/// Without TLS where the rule says so: bytes both ways, an end of one direction, and the count.
fn passed_on(yard: &Yard, heard: &Mutex<Vec<Vec<u8>>>) {
    for target in ["plain.example.test:2222", "10.213.0.1:2222"] {
        let big = format!("d = b'x' * 3000000\nr = say('{target}', d)\nprint(r == '200 OK ' + repr(d))");
        assert_eq!(python(yard, "alice", &big), "True");
        let host = target.split(':').next().unwrap();
        let closed: Value = yard.audit().wait_for("SK5102I", |event| event["dst_endpoint"]["hostname"] == host);
        let traffic = &closed["traffic"];
        assert_eq!((&traffic["bytes_out"], &traffic["bytes_in"]), (&3_000_000.into(), &3_000_000.into()), "{closed}");
        assert_eq!(closed["unmapped"]["reason"], "both sides were done");
    }
    assert_eq!(heard.lock().unwrap().len(), 2);
}

/// One jail takes all the places it has and asks for more without end: it waits alone.
fn flooded(yard: &Yard) {
    let flood = "import threading\nheld = []\ndef ask():\n    while True:\n        try: held.append(door('ok.example.test:443')[0])\n\
                 \x20       except OSError: pass\nfor _ in range(40): threading.Thread(target=ask).start()";
    let mut flood = yard.ssh("alice").input(format!("{CLIENT}{flood}\n")).begin("exec python3 -");
    yard.audit().wait_for("SK6001W", |event| {
        event["unmapped"]["what"].as_str().unwrap().contains("connections through this jail's egress door")
    });
    assert_eq!(python(yard, "carol", "print(door('ok.example.test:443')[1])"), "200 OK");
    assert!(flood.is_running());
    flood.kill();
}

/// SIGHUP: what is no longer allowed ends, though it was; without any rule the porter has no network.
#[test]
#[ignore = "run by its parent"]
fn child_of_revocation() {
    name_server(example);
    echo(&format!("{OURS}:2222"));
    let yard = plan().start();
    let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    yard.ssh("alice").input(CLIENT).run("cat > client.py").ok();
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    let status = "python3 -c 'from client import *; print(door(\"plain.example.test:2222\")[1])'";
    // A new porter knows no rules and a new warden no groups.
    for role in ["porter", "warden"] {
        yard.kill(role);
        until(&format!("a way out after the {role}'s death"), || (alice.shell(status) == "200 OK").then_some(()));
    }
    let porter = yard.role("porter");
    assert_eq!(namespace(porter), namespace(yard.jailer()));
    alice.enter(
        "python3 -c 'from client import *; s, r = door(\"plain.example.test:2222\"); print(r); print(s.recv(1))'",
    );
    alice.wait_for("200 OK\r\n");
    let open = || yard.audit().of("SK5101I").len() - yard.audit().of("SK5102I").len();
    until("an open connection in the audit", || (open() == 1).then_some(()));
    yard.configure("[egress]\nallow = [{ groups = ['ops'], hosts = ['ok.example.test'], cidrs = ['10.213.0.0/24'] }]");
    yard.signal("HUP");
    alice.wait_for("b''\r\n");
    yard.audit().wait_for("SK5102I", |event| event["unmapped"]["reason"] == "the rule that allowed it is gone");
    alice.prompt();
    assert!(alice.shell(status).starts_with("403 "));
    assert_eq!(yard.role("porter"), porter);

    yard.configure("[egress]\nallow = []");
    yard.signal("HUP");
    let next = until("another porter", || Some(yard.role("porter")).filter(|next| *next != porter));
    assert_ne!(namespace(next), namespace(yard.jailer()));
    assert!(alice.shell(status).contains("403 "), "the door waits for its new porter");
    assert!(alice.shell("stockade whoami").contains("alice"));
}
