//! The same door in the words of SOCKS 5: what CONNECT reaches is reached, nothing else is, and the audit is one.

use serde_json::Value;

use super::{CLIENT, OURS, echo, example, name_server, plan, world};
use crate::yard::Yard;

#[test]
fn socks_is_the_same_door() {
    world("egress::socks::child_of_socks");
}

/// A request by hand: the reply's number, and then what comes back for what is said.
const SOCKS: &str = r#"
def ask(host, port=443, command=1, kind=None, methods=b"\1\0"):
    s = socket.create_connection(("127.0.0.1", 3128), timeout=30)
    address = None
    for family in (socket.AF_INET, socket.AF_INET6):
        try: address = address or socket.inet_pton(family, host)
        except (OSError, ValueError): pass
    at = {4: b"\1", 16: b"\4"}[len(address)] + address if address else bytes([3, len(host)]) + host.encode()
    if kind: at = bytes([kind]) + at[1:]
    s.sendall(b"\5" + methods)
    method = s.recv(2, socket.MSG_WAITALL)
    if method != b"\5\0": return s, method
    s.sendall(bytes([5, command, 0]) + at + port.to_bytes(2, "big"))
    reply = s.recv(10, socket.MSG_WAITALL)
    assert reply[:1] + reply[2:] == b"\5\0\1\0\0\0\0\0\0", reply
    if reply[1]: assert s.recv(1) == b"", "it stays open"
    return s, reply[1]
def tell(host, port, data):
    s, number = ask(host, port)
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    heard = b""
    try:
        while part := s.recv(65536): heard += part
    except ConnectionResetError: pass
    return number, heard
"#;

fn python(yard: &Yard, user: &str, line: &str) -> String {
    yard.ssh(user).input(format!("{CLIENT}{SOCKS}{line}\n")).run("python3 -").ok()
}

#[test]
#[ignore = "run by its parent"]
fn child_of_socks() {
    let asked = name_server(example);
    let (tls, clear) = (echo(&format!("{OURS}:443")), echo(&format!("{OURS}:2222")));
    let yard = plan().start();
    // These first: of refusals the audit tells ten.
    told(&yard);
    numbers(&yard);
    assert!(!asked.lock().unwrap().iter().any(|name| name.contains("unlisted")), "what is denied is not looked for");

    let big = "d = b'x' * 3000000\nprint(tell('plain.example.test', 2222, d) == (0, d))";
    assert_eq!(python(&yard, "alice", big), "True");
    let closed: Value = yard.audit().wait_for("SK5102I", |e| e["dst_endpoint"]["hostname"] == "plain.example.test");
    let traffic = &closed["traffic"];
    assert_eq!((&traffic["bytes_out"], &traffic["bytes_in"]), (&3_000_000.into(), &3_000_000.into()), "{closed}");
    assert_eq!((&closed["dst_endpoint"]["ip"], &closed["user"]["name"]), (&OURS.into(), &"alice".into()));
    assert_eq!(clear.lock().unwrap().iter().map(Vec::len).sum::<usize>(), 3_000_000);
    assert!(tls.lock().unwrap().iter().all(Vec::is_empty), "something was passed on");
}

/// Refusals as CONNECT's, and the check of what TLS names.
fn told(yard: &Yard) {
    let refusal = |reason: &str| {
        let event = yard.audit().wait_for("SK5103W", |event| event["unmapped"]["reason"] == reason);
        event["unmapped"]["target"].as_str().unwrap().to_owned()
    };
    assert_eq!(python(yard, "alice", "print(ask('unlisted.test')[1])"), "2");
    assert_eq!(refusal("no rule lets you through to unlisted.test:443"), "unlisted.test:443");
    assert_eq!(python(yard, "alice", "print(ask('loopback.example.test')[1])"), "2");
    assert_eq!(refusal("loopback.example.test:443 leads to 127.0.0.1: it is loopback"), "loopback.example.test:443");
    assert_eq!(python(yard, "alice", "print(ask('10.213.0.1', 2222, command=2)[1])"), "7");
    assert_eq!(refusal("this door takes CONNECT only, neither BIND nor UDP"), "BIND 10.213.0.1:2222");
    assert_eq!(python(yard, "alice", "print(tell('ok.example.test', 443, b'SSH-2.0-x\\r\\n'))"), "(0, b'')");
    assert_eq!(refusal("it is not TLS"), "ok.example.test:443");
    let other =
        "curl -sS --socks5-hostname 127.0.0.1:3128 --connect-to other.test:443:ok.example.test:443 https://other.test/";
    let other = yard.ssh("alice").run(other);
    assert_eq!(other.code, Some(35), "{} {}", other.text(), other.stderr);
    assert_eq!(refusal("TLS names another host: other.test"), "ok.example.test:443");
}

/// One number for all that is missing or denied, in whatever form it is asked for.
fn numbers(yard: &Yard) {
    let number = |user: &str, words: &str| python(yard, user, &format!("print(ask({words})[1])"));
    assert_eq!(number("alice", "'OK.example.test.'"), "0");
    assert_eq!(number("alice", "'10.213.0.1', 2222"), "0");
    assert_eq!(number("bob", "'ok.example.test'"), "2", "a rule of another group");
    let refused = "for at in [('ok.example.test', 80), ('nowhere.example.test', 443), ('private.example.test', 443), \
                   ('localhost', 443), ('metadata.example.test', 443), ('hosted.example.test', 443), \
                   ('mapped.example.test', 443), ('nat64.example.test', 443), ('127.0.0.1', 443), \
                   ('169.254.169.254', 80), ('10.214.0.1', 2222), ('::1', 443), ('::ffff:127.0.0.1', 443), \
                   ('::ffff:10.213.0.1', 2222), ('64:ff9b::7f00:1', 443), ('fd00:ec2::254', 80), ('2130706433', 443), \
                   ('a' * 255, 443), ('', 443), ('a\\0.example.test', 443), ('ok.example.test:443', 443), \
                   ('ok.example.test', 0)]:\n    s, number = ask(*at)\n    if number != 2: print(at, number)";
    assert_eq!(python(yard, "alice", refused), "");
    assert_eq!(number("alice", "'silent.example.test'"), "4", "allowed, and nobody there");
    assert_eq!(number("alice", "'10.213.0.1', 2222, command=3"), "7");
    assert_eq!(number("alice", "'10.213.0.1', 2222, kind=2"), "8");
    assert_eq!(number("alice", "'ok.example.test', methods=b'\\1\\2'"), "b'\\x05\\xff'", "a password is not asked for");
}
