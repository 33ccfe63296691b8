//! Issue item "Admission": login grace time, MaxStartups with a share per source, MaxAuthTries, penalties, exempt list;
//! "measured with sources 127.0.0.x and the limits as shipped". The yard exempts 127.0.0.1; whoever comes from another
//! address meets what is shipped.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use serde_json::Value;

use crate::yard::{Output, Yard, keygen, spawn_with, until, within};

/// Below the login grace as shipped: what ends sooner was not ended by it.
const SOON: Duration = Duration::from_secs(20);

pub fn reach(yard: &Yard, source: Ipv4Addr) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddrV4::new(source, 0)).unwrap();
    connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, yard.port())).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream
}

pub fn loopback(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

/// What the bastion says until it hangs up; it must do so soon.
pub fn rest(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("it still listens after {SOON:?}"),
        // It hung up on what it had not read.
        _ => String::from_utf8_lossy(&said).into_owned(),
    }
}

/// The events of a source, a line each.
fn lines(yard: &Yard, source: Ipv4Addr) -> usize {
    yard.audit().events().iter().filter(|event| event["src_endpoint"]["ip"] == source.to_string()).count()
}

pub fn penalised(yard: &Yard, source: Ipv4Addr) -> Option<Value> {
    yard.audit().of("SK1005W").into_iter().find(|event| event["src_endpoint"]["ip"] == source.to_string())
}

/// No role ended, and none would have: the shipped program ends where a test's only says that it panicked.
fn is_unmoved(yard: &Yard) {
    assert!(yard.audit().of("SK8003W").is_empty() && !yard.log().contains("panicked"), "{}", yard.log());
}

/// "PerSourcePenalties": authfail.
#[test]
fn a_source_of_wrong_keys_is_refused_for_a_while_and_no_other() {
    let yard = Yard::new().user("alice").start();
    let stranger = yard.path("stranger");
    keygen(&stranger);
    let (wrong, other) = (loopback(2), "127.0.0.3");
    let mut before = yard.ssh("alice").from("127.0.0.2").input("still here").begin("sleep 4; cat");
    let mut tries = 0;
    while penalised(&yard, wrong).is_none() {
        tries += 1;
        assert!(tries <= 10, "{tries} connections without a penalty");
        let ran = yard.ssh("alice").from("127.0.0.2").key(stranger.clone()).run("true");
        assert_eq!(ran.code, Some(255));
        // The fine is written when the connection has ended.
        within(Duration::from_secs(1), || penalised(&yard, wrong));
    }
    assert!(tries >= 4, "four times 5 s are more than the least, 15 s");
    let event = penalised(&yard, wrong).unwrap();
    assert_eq!(event["unmapped"]["why"], "it offered keys and did not log in");
    assert!((16..=20).contains(&event["unmapped"]["seconds"].as_u64().unwrap()), "{event}");

    let ran = yard.ssh("alice").from("127.0.0.2").arg("-v").run("true");
    assert_eq!(ran.code, Some(255), "the right key comes too late: {}", ran.stderr);
    assert!(ran.stderr.contains("Not allowed at this time"), "{}", ran.stderr);
    assert_eq!(yard.ssh("alice").from(other).run("echo in").ok(), "in");
    let running = before.is_running();
    assert_eq!(before.wait().ok(), "still here", "running connections are not cut (ran on: {running})");

    let over = within(Duration::from_secs(60), || {
        yard.audit().of("SK1006I").into_iter().find(|event| event["src_endpoint"]["ip"] == wrong.to_string())
    });
    assert_eq!(over.expect("no end of the penalty")["unmapped"]["refused"], 1);
    assert_eq!(yard.ssh("alice").from("127.0.0.2").run("echo again").ok(), "again");
}

/// "exempt list"
#[test]
fn an_exempt_source_is_never_penalised() {
    let yard = Yard::new().user("alice").config("ssh.exempt = ['127.0.0.1', '127.9.0.0/16']").start();
    for _ in 0..60 {
        let mut stream = reach(&yard, Ipv4Addr::new(127, 9, 1, 1));
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(rest(stream).starts_with("SSH-2.0-"));
    }
    assert_eq!(yard.ssh("alice").from("127.9.1.1").run("echo in").ok(), "in");
    assert!(yard.audit().of("SK1005W").is_empty());
}

/// "penalties = false"
#[test]
fn without_penalties_there_are_none() {
    let yard = Yard::new().user("alice").config("ssh.penalties = false").start();
    for _ in 0..30 {
        let mut stream = reach(&yard, loopback(2));
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        rest(stream);
    }
    assert_eq!(yard.ssh("alice").from("127.0.0.2").run("echo in").ok(), "in");
}

/// "Garbage before the version line": not served, fined, and a flood of refused connections is a few lines.
#[test]
fn who_speaks_no_ssh_is_refused_and_fills_no_audit() {
    let yard = Yard::new().user("alice").start();
    let source = loopback(2);
    let noise: [&[u8]; 4] = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &[0; 4096], b"SSH-1.5-old\r\n", &[0xff; 70_000]];
    for (number, noise) in noise.iter().enumerate() {
        let mut stream = reach(&yard, loopback(10 + number as u8));
        let _ = stream.write_all(noise);
        assert!(rest(stream).starts_with("SSH-2.0-stockade\r\n"), "{number}");
    }
    until("a penalty", || {
        let mut stream = reach(&yard, source);
        let _ = stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n");
        rest(stream);
        penalised(&yard, source)
    });
    assert_eq!(penalised(&yard, source).unwrap()["unmapped"]["why"], "it did not speak SSH");
    let before = lines(&yard, source);
    for _ in 0..300 {
        let said = rest(reach(&yard, source));
        assert_eq!(said, "Not allowed at this time\r\n");
    }
    assert_eq!(lines(&yard, source), before, "not one line more");
    is_unmoved(&yard);
    let over = within(Duration::from_secs(60), || yard.audit().of("SK1006I").pop());
    assert!(over.expect("no end of the penalty")["unmapped"]["refused"].as_u64().unwrap() >= 300);
}

/// A flood of what is served and never logs in is told up to a limit and counted beyond it; logins are always told.
#[test]
fn a_flood_of_strangers_is_counted_and_not_listed() {
    let yard = Yard::new().user("alice").start();
    let left_out = |event: &Value| event["message"].as_str().unwrap().contains("lines about connections");
    let mut made = 0;
    // What was left out is told every few seconds.
    until("a count of what was left out", || {
        for _ in 0..100 {
            // Exempt, so that nothing but the audit's own limit holds.
            let mut stream = reach(&yard, loopback(1));
            let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
            rest(stream);
        }
        made += 100;
        yard.audit().of("SK6001W").iter().any(left_out).then_some(())
    });
    let listed = yard.audit().of("SK1001I").len() + yard.audit().of("SK1002W").len();
    assert!(listed < 2 * made, "{listed} lines about {made} connections");
    assert_eq!(yard.ssh("alice").run("echo in").ok(), "in");
    assert_eq!(yard.audit().of("SK1003I").len(), 1);
}

/// "200 half-open connections while another logs in"
#[test]
fn two_hundred_half_open_connections_keep_nobody_out() {
    let yard = Yard::new().user("alice").start();
    let hold = |source: Ipv4Addr, number: usize| {
        let mut stream = reach(&yard, source);
        if number.is_multiple_of(2) {
            let _ = stream.write_all(b"SSH-2.0-half_open\r\n");
        }
        stream
    };
    // All of their shares; then as many sources as there are places, each with one.
    let mut held: Vec<TcpStream> = (0..200).map(|n| hold(Ipv4Addr::new(127, 0, 1, (n / 4) as u8), n)).collect();
    assert_eq!(yard.ssh("alice").from("127.0.0.2").run("echo first").ok(), "first");
    held.extend((0..120).map(|n| hold(Ipv4Addr::new(127, 0, 2, n as u8), n)));
    for _ in 0..3 {
        assert_eq!(yard.ssh("alice").from("127.0.0.2").run("echo in").ok(), "in");
    }
    let displaced = |event: &Value| event["unmapped"]["why"].as_str().is_some_and(|why| why.contains("another source"));
    yard.audit().wait_for("SK1002W", displaced);
    drop(held);
}

/// A source gets its share and no more, and is told so before any key exchange.
#[test]
fn a_source_has_four_places() {
    let yard = Yard::new().user("alice").start();
    let mut held: Vec<TcpStream> = (0..4).map(|_| reach(&yard, loopback(2))).collect();
    for stream in &mut held {
        let mut said = [0; 4];
        stream.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"SSH-");
    }
    assert_eq!(rest(reach(&yard, loopback(2))), "Exceeded MaxStartups\r\n");
    assert_eq!(yard.ssh("alice").from("127.0.0.3").run("echo in").ok(), "in");
}

/// "slow-loris before the version line", and after it: the grace is for the whole login, whatever trickles in.
#[test]
fn one_byte_at_a_time_is_too_slow() {
    let yard = Yard::new().user("alice").config("ssh.login_grace = '2s'").start();
    let kexinit = [&b"SSH-2.0-slow\r\n"[..], &[0, 0, 4, 0, 8, 20], &[7; 200]].concat();
    let drips = [vec![b'x'; 200], b"SSH-2.0-".iter().copied().chain([b'x'; 200]).collect(), kexinit];
    std::thread::scope(|scope| {
        for (number, drip) in drips.iter().enumerate() {
            let mut stream = reach(&yard, loopback(2 + number as u8));
            scope.spawn(move || {
                // The first write after the end is still taken, the next one is not.
                let cut = drip.iter().any(|byte| {
                    std::thread::sleep(Duration::from_millis(50));
                    stream.write_all(&[*byte]).is_err()
                });
                assert!(cut, "{number}: served to its last byte");
            });
        }
    });
    for number in 0..drips.len() {
        let source = loopback(2 + number as u8).to_string();
        yard.audit().wait_for("SK1002W", |event| {
            event["src_endpoint"]["ip"] == source.as_str()
                && event["unmapped"]["why"].as_str().unwrap().contains("in time")
        });
    }
    assert_eq!(yard.ssh("alice").run("echo in").ok(), "in");
}

/// "oversized packets", before anything is encrypted.
#[test]
fn lengths_that_no_packet_has_end_the_connection() {
    let yard = Yard::new().user("alice").start();
    for (number, length) in [0, 1, 3, 35_001, 262_200, 0x7fff_ffff, u32::MAX].into_iter().enumerate() {
        let mut stream = reach(&yard, loopback(10 + number as u8));
        let mut packet = b"SSH-2.0-odd\r\n".to_vec();
        packet.extend(length.to_be_bytes());
        packet.resize(packet.len() + (length.min(300_000) as usize).max(64), 0xa5);
        let _ = stream.write_all(&packet);
        rest(stream);
    }
    assert_eq!(yard.ssh("alice").run("echo in").ok(), "in");
    is_unmoved(&yard);
}

/// "MaxAuthTries": six keys, as shipped.
#[test]
fn six_keys_are_tried_and_no_more() {
    let yard = Yard::new().user("alice").start();
    let mut ssh = yard.ssh("alice").from("127.0.0.2").key(yard.path("k0"));
    for number in 0..9 {
        keygen(&yard.path(&format!("k{number}")));
        if number > 0 {
            ssh = ssh.arg("-i").arg(yard.path(&format!("k{number}")).to_str().unwrap());
        }
    }
    let ran = ssh.run("true");
    assert_eq!(ran.code, Some(255));
    assert!(ran.stderr.contains("Too many authentication"), "{}", ran.stderr);
    assert_eq!(yard.audit().of("SK1004W").len(), 6);
}

/// Python with paramiko's own hands on the wire: `open_transport()` is a connection after its key exchange.
fn paramiko(yard: &Yard, body: &str) -> Output {
    let venv = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bed/venv");
    let python = String::from_utf8(Command::new(venv).output().unwrap().stdout).unwrap();
    let script = format!(
        "import paramiko, socket, statistics, threading, time\n\
         wrong = paramiko.Ed25519Key.from_private_key_file({wrong:?})\n\
         def open_transport():\n    \
             t = paramiko.Transport(('127.0.0.1', {port}))\n    \
             t.start_client(timeout=20)\n    \
             return t\n\
         def attempt(t, user):\n    \
             started = time.monotonic()\n    \
             try: t.auth_publickey(user, wrong)\n    \
             except paramiko.AuthenticationException as e: return time.monotonic() - started, str(e)\n    \
             except (paramiko.SSHException, EOFError) as e: return None, type(e).__name__\n    \
             return None, 'let in'\n\
         {body}",
        wrong = yard.path("wrong"),
        port = yard.port(),
    );
    keygen(&yard.path("wrong"));
    let mut command = Command::new(python.trim());
    command.args(["-c", &script]);
    spawn_with(command, None).wait()
}

/// "oversized packets", once all is encrypted: the length is in the clear or is not, and neither moves the bastion.
#[test]
fn nonsense_after_the_key_exchange_ends_the_connection() {
    let yard = Yard::new().user("alice").start();
    let ran = paramiko(
        &yard,
        "for length in (b'\\0\\0\\0\\0', b'\\0\\0\\0\\1', b'\\0\\0\\x88\\xb9', b'\\x7f\\xff\\xff\\xff', b'\\xff\\xff\\xff\\xff'):\n    \
             t = open_transport()\n    \
             t.sock.sendall(length + b'\\xa5' * 40000)\n    \
             t.join(20)\n    \
             print(t.is_alive())\n",
    );
    assert_eq!(ran.ok(), ["False"; 5].join("\n"), "{}", ran.stderr);
    assert_eq!(yard.ssh("alice").run("echo in").ok(), "in");
    is_unmoved(&yard);
}

/// "a user name with `/`, `..`, NUL, 300 characters", control characters and no UTF-8: refused as anybody is, and each
/// stays inside its own line of the audit.
#[test]
fn names_that_nobody_has_are_refused_and_stay_in_their_line() {
    let yard = Yard::new().user("alice").start();
    let ran = paramiko(
        &yard,
        "for user in ('../alice', '/etc/passwd', 'alice/', '.', 'alice\\0', 'x' * 300, 'y' * 4000, 'a\\n{\"message\":\"forged\"}', \
         '\\x1b]0;owned\\x07', '\\u202ealice', '', ' ', 'alice ', 'ALICE', b'\\xff\\xfealice'):\n    \
             t = open_transport()\n    \
             print(attempt(t, user)[1])\n    \
             t.close()\n",
    );
    let said: Vec<String> = ran.ok().lines().map(str::to_owned).collect();
    assert_eq!(said.len(), 15, "{said:?}");
    assert!(said[..14].iter().all(|one| *one == said[0] && one.contains("Authentication failed")), "{said:?}");
    assert_ne!(said[14], "let in");
    let refused = |name: &str| yard.audit().wait_for("SK1004W", |event| event["user"]["name"] == name);
    for name in
        ["../alice", "alice\0", "a\n{\"message\":\"forged\"}", "\u{1b}]0;owned\u{7}", "\u{202e}alice", &"x".repeat(300)]
    {
        refused(name);
    }
    let names: Vec<Value> = yard.audit().of("SK1004W").iter().map(|event| event["user"]["name"].clone()).collect();
    assert!(names.iter().all(|name| name.as_str().unwrap().len() <= 320), "cut to what can be a name");
    let text = std::fs::read_to_string(yard.path("audit/audit.jsonl")).unwrap();
    assert!(text.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')));
    assert!(yard.audit().events().iter().all(|event| event["message"] != "forged"));
    assert!(yard.audit().of("SK1003I").is_empty());
    assert_eq!(yard.ssh("alice").run("echo in").ok(), "in");
    is_unmoved(&yard);
}

/// "unknown user vs wrong key (same answer, same time)": each answer is held back for a second, which is longer than
/// anybody's keys take to look up.
#[test]
fn an_unknown_user_is_refused_like_a_wrong_key_and_as_slowly() {
    let yard = Yard::new().user("alice").start();
    let ran = paramiko(
        &yard,
        "took, said = {'alice': [], 'nobody-here': []}, set()\n\
         def tries():\n    \
             for user in ('alice', 'nobody-here') * 3:\n        \
                 t = open_transport()\n        \
                 seconds, words = attempt(t, user)\n        \
                 took[user].append(seconds); said.add(words)\n        \
                 t.close()\n\
         threads = [threading.Thread(target=tries) for _ in range(4)]\n\
         [t.start() for t in threads]; [t.join() for t in threads]\n\
         print(len(said), min(map(min, took.values())) > 0.9, \
         abs(statistics.median(took['alice']) - statistics.median(took['nobody-here'])) < 0.5, len(took['alice']))\n",
    );
    assert_eq!(ran.ok(), "1 True True 12", "{}", ran.stderr);
}

/// "a key file writable by others"
#[test]
fn a_file_of_keys_that_others_can_write_is_told_aloud_and_harms_only_its_user() {
    let yard = Yard::new().user("alice").user("bob").start();
    let file = yard.path("keys/alice");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o646)).unwrap();
    assert_eq!(yard.ssh("alice").run("true").code, Some(255));
    assert_eq!(yard.ssh("bob").run("echo in").ok(), "in");
    let event = yard.audit().wait_for("SK1004W", |event| event["user"]["name"] == "alice");
    assert!(event["unmapped"]["why"].as_str().unwrap().contains("can be written by others"), "{event}");
    assert!(yard.log().contains("can be written by others"), "{}", yard.log());
}
