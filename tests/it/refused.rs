//! Issue item 2: "Forwarding, agent, X11 and sftp are refused with a plain sentence and an audit event for now", and who
//! is not let in at all.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::yard::{Yard, keygen, spawn_with, until, within};

/// The unmapped field of a refusal.
fn what(event: &serde_json::Value) -> &str {
    event["unmapped"]["what"].as_str().unwrap_or_default()
}

#[test]
fn local_forwarding_is_refused() {
    let yard = Yard::new().user("alice").start();
    let ran = yard.ssh("alice").arg("-W").arg("127.0.0.1:22").input("x").run("");
    assert_ne!(ran.code, Some(0));
    assert!(ran.stderr.contains("forwarding is not offered here"), "{}", ran.stderr);
    let event = yard.audit().wait_for("SK2005W", |event| what(event).contains("127.0.0.1:22"));
    assert_eq!(event["user"]["name"], "alice");
    assert_eq!(event["src_endpoint"]["ip"], "127.0.0.1");
}

#[test]
fn remote_forwarding_is_refused() {
    let yard = Yard::new().user("alice").start();
    let ran = yard.ssh("alice").option("ExitOnForwardFailure=yes").arg("-R").arg("0:127.0.0.1:22").run("true");
    assert_eq!(ran.code, Some(255), "{}", ran.stderr);
    assert!(ran.stderr.contains("remote port forwarding failed"), "{}", ran.stderr);
    yard.audit().wait_for("SK2005W", |event| what(event).contains("listening"));
    // SSH has no words for it, so the next program's standard error brings them; its output stays its own.
    for remote in ["0:127.0.0.1:22".to_owned(), format!("/tmp/socket:{}", yard.path("local").display())] {
        let ran = yard.ssh("alice").arg("-R").arg(&remote).run("printf 'a\\0b'");
        assert_eq!((ran.code, ran.stdout.as_slice()), (Some(0), &b"a\0b"[..]), "{remote}: {}", ran.stderr);
        assert!(ran.stderr.contains("remote forwarding (-R) is not offered here"), "{remote}: {}", ran.stderr);
    }
    yard.audit().wait_for("SK2005W", |event| what(event).contains("the socket /tmp/socket"));
}

#[test]
fn a_socket_is_not_forwarded_either() {
    let yard = Yard::new().user("alice").start();
    let forward = format!("{}:/run/docker.sock", yard.path("local").display());
    let mut client = yard.ssh("alice").arg("-L").arg(&forward).input("").begin("sleep 20");
    let socket = yard.path("local");
    until("the client's socket", || socket.exists().then_some(()));
    let _ = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    yard.audit().wait_for("SK2005W", |event| what(event).contains("/run/docker.sock"));
    client.kill();
    client.wait();
}

#[test]
fn the_agent_is_not_forwarded() {
    let yard = Yard::new().user("alice").start();
    let socket = yard.path("agent");
    let mut agent = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    until("the agent's socket", || socket.exists().then_some(()));
    let ran = yard.ssh("alice").arg("-A").env("SSH_AUTH_SOCK", socket.to_str().unwrap()).run("echo [$SSH_AUTH_SOCK]");
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert_eq!(ran.ok(), "[]");
    assert!(ran.stderr.contains("agent forwarding is not offered here"), "{}", ran.stderr);
    yard.audit().wait_for("SK2005W", |event| what(event).contains("agent"));
}

#[test]
fn x11_is_not_forwarded() {
    let yard = Yard::new().user("alice").start();
    let ran = yard.ssh("alice").arg("-Y").env("DISPLAY", "127.0.0.1:77").run("echo [$DISPLAY]");
    assert_eq!(ran.ok(), "[]");
    assert!(ran.stderr.contains("X11 forwarding is not offered here"), "{}", ran.stderr);
    yard.audit().wait_for("SK2005W", |event| what(event).contains("X11"));
}

#[test]
fn sftp_is_refused_with_a_sentence() {
    let yard = Yard::new().user("alice").start();
    let ran = yard.ssh("alice").arg("-s").run("sftp");
    assert_ne!(ran.code, Some(0));
    assert!(ran.stderr.contains("sftp and other subsystems are not offered here"), "{}", ran.stderr);
    yard.audit().wait_for("SK2005W", |event| what(event).contains("sftp"));
}

/// Research section 7: a wrong key and an unknown user look the same to the client; only the audit tells them apart.
#[test]
fn a_wrong_key_and_an_unknown_user_look_the_same() {
    let yard = Yard::new().user("alice").start();
    let stranger = yard.path("stranger");
    keygen(&stranger);
    let mut said = Vec::new();
    for user in ["alice", "nobody-here", "root", "../alice"] {
        let ran = yard.ssh("alice").key(stranger.clone()).arg("-l").arg(user).run("true");
        assert_eq!(ran.code, Some(255));
        said.push(ran.stderr.replace(user, "USER"));
    }
    assert!(said.iter().all(|one| one.contains("Permission denied (publickey)")), "{said:?}");
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");
    let wrong = yard.audit().wait_for("SK1004W", |event| event["user"]["name"] == "alice");
    let unknown = yard.audit().wait_for("SK1004W", |event| event["user"]["name"] == "nobody-here");
    assert_ne!(wrong["unmapped"]["why"], unknown["unmapped"]["why"]);
    assert!(yard.audit().of("SK1003I").is_empty() && yard.sessions().is_empty());
}

/// "`authorized_keys` syntax per user: `from=`, `expiry-time=`, `restrict` honoured"
#[test]
fn options_of_a_key_are_honoured() {
    let yard = Yard::new().start();
    for (options, enters) in [
        ("from=\"127.0.0.0/8\"", true),
        ("from=\"192.0.2.0/24\"", false),
        ("from=\"!127.0.0.1,127.0.0.0/8\"", false),
        ("expiry-time=\"20991231\"", true),
        ("expiry-time=\"20200101\"", false),
        ("restrict", true),
        ("restrict,pty", true),
    ] {
        yard.authorize("alice", options);
        let ran = yard.ssh("alice").run("true");
        assert_eq!(ran.code == Some(0), enters, "{options}: {}", ran.stderr);
    }
    yard.authorize("alice", "restrict");
    let mut terminal = yard.ssh("alice").terminal();
    terminal.wait_for("your key does not allow a terminal");
    assert_ne!(terminal.end(), 0);
    yard.authorize("alice", "restrict,pty");
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
}

/// "unknown options refuse the key loudly"
#[test]
fn unknown_options_refuse_the_key_loudly() {
    let yard = Yard::new().start();
    for options in ["command=\"/bin/true\"", "permitopen=\"x:1\"", "cert-authority", "no-such-option"] {
        yard.authorize("alice", options);
        let ran = yard.ssh("alice").run("true");
        assert_eq!(ran.code, Some(255), "{options}");
    }
    let log = yard.log();
    assert!(log.contains("permitopen") && log.contains("no-such-option"), "{log}");
}

/// "authorized_keys": a file that others could have written is not read.
#[test]
fn a_file_of_keys_that_others_can_write_is_not_read() {
    use std::os::unix::fs::PermissionsExt;
    let yard = Yard::new().user("alice").start();
    let file = yard.path("keys/alice");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(yard.ssh("alice").run("true").code, Some(255));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(yard.ssh("alice").run("true").code, Some(0));
}

/// Passwords and keyboard-interactive are not even offered.
#[test]
fn only_public_keys_are_offered() {
    let yard = Yard::new().user("alice").start();
    let ran = yard.ssh("alice").option("PubkeyAuthentication=no").run("true");
    assert_eq!(ran.code, Some(255));
    assert!(ran.stderr.contains("Permission denied (publickey)."), "{}", ran.stderr);
}

/// "MaxAuthTries": the connection ends after so many keys.
#[test]
fn a_client_has_so_many_tries() {
    let yard = Yard::new().user("alice").config("ssh.max_auth_tries = 3").start();
    let mut ssh = yard.ssh("alice").key(yard.path("k0"));
    for number in 0..6 {
        keygen(&yard.path(&format!("k{number}")));
        if number > 0 {
            ssh = ssh.arg("-i").arg(yard.path(&format!("k{number}")).to_str().unwrap());
        }
    }
    let ran = ssh.run("true");
    assert_eq!(ran.code, Some(255));
    assert!(ran.stderr.contains("Too many authentication"), "{}", ran.stderr);
}

/// "Login deadline"
#[test]
fn a_client_that_says_nothing_is_cut_off() {
    use std::io::Read;
    let yard = Yard::new().user("alice").config("ssh.login_grace = '1s'").start();
    let mut silent = std::net::TcpStream::connect(("127.0.0.1", yard.port())).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut all = Vec::new();
    assert!(silent.read_to_end(&mut all).is_ok(), "the connection stays open");
    yard.audit().wait_for("SK1002W", |_| true);
}

/// "MaxStartups": one source may hold so many connections that have not logged in.
#[test]
fn one_source_does_not_take_all_places() {
    use std::io::Read;
    let yard = Yard::new().user("alice").config("ssh.max_startups_per_source = 2\nssh.exempt = []").start();
    let open = || {
        let stream = std::net::TcpStream::connect(("127.0.0.1", yard.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    };
    // The yard's own first look at the port has held a place.
    yard.audit().wait_for("SK1002W", |event| event["message"].as_str().unwrap().contains("Disconnected"));
    let greeted = |stream: &mut std::net::TcpStream| {
        let mut said = [0; 4];
        stream.read_exact(&mut said).is_ok() && said == *b"SSH-"
    };
    let (mut one, mut two) = (open(), open());
    assert!(within(Duration::from_secs(5), || greeted(&mut one).then_some(())).is_some());
    assert!(greeted(&mut two));
    let mut three = open();
    assert!(!greeted(&mut three), "a third is served");
    drop(one);
    drop(two);
    assert!(within(Duration::from_secs(10), || greeted(&mut open()).then_some(())).is_some());
    assert_eq!(yard.ssh("alice").run("true").code, Some(0));
}

/// "Algorithm sets `modern` (default) and `pq`": a client without post-quantum key exchange is only served by the first.
#[test]
fn pq_wants_a_post_quantum_exchange() {
    let old = "KexAlgorithms=curve25519-sha256";
    let modern = Yard::new().user("alice").start();
    assert_eq!(modern.ssh("alice").option(old).run("true").code, Some(0));
    let pq = Yard::new().user("alice").config("ssh.algorithms = 'pq'").start();
    let ran = pq.ssh("alice").option(old).run("true");
    assert_eq!(ran.code, Some(255));
    assert!(ran.stderr.contains("no matching key exchange method"), "{}", ran.stderr);
    for old in ["diffie-hellman-group14-sha1", "diffie-hellman-group14-sha256", "ecdh-sha2-nistp256"] {
        let ran = modern.ssh("alice").option(&format!("KexAlgorithms={old}")).run("true");
        assert_eq!(ran.code, Some(255), "{old}");
    }
    for weak in ["aes128-cbc", "3des-cbc"] {
        assert_eq!(modern.ssh("alice").option(&format!("Ciphers={weak}")).run("true").code, Some(255), "{weak}");
    }
}

/// The host key is the configured one: a client that knows another one refuses.
#[test]
fn the_host_is_who_it_says() {
    let yard = Yard::new().user("alice").start();
    let mut scan = Command::new("ssh-keyscan");
    scan.args(["-p", &yard.port().to_string(), "127.0.0.1"]);
    let scanned = spawn_with(scan, None).wait();
    let public = std::fs::read_to_string(yard.path("host_ed25519.pub")).unwrap();
    let key = public.split_whitespace().nth(1).unwrap();
    assert!(scanned.text().contains(key), "{}", scanned.text());
}
