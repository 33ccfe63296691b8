//! "Clients in this tests: OpenSSH (Debian's), paramiko."

use std::process::Command;

use crate::yard::{Output, Yard, spawn_with};

/// Runs Python with `client` connected as alice.
fn paramiko(yard: &Yard, body: &str) -> Output {
    let venv = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bed/venv");
    let python = String::from_utf8(Command::new(venv).output().unwrap().stdout).unwrap();
    let script = format!(
        "import paramiko, sys, socket\n\
         client = paramiko.SSHClient()\n\
         client.load_host_keys({known:?})\n\
         key = paramiko.Ed25519Key.from_private_key_file({key:?})\n\
         def connect(user='alice'):\n    client.connect('127.0.0.1', {port}, user, pkey=key, look_for_keys=False, allow_agent=False)\n\
         {body}",
        known = yard.path("known_hosts"),
        key = yard.path("alice"),
        port = yard.port(),
    );
    let mut command = Command::new(python.trim());
    command.args(["-c", &script]);
    spawn_with(command, None).wait()
}

#[test]
fn paramiko_runs_commands() {
    let yard = Yard::new().user("alice").start();
    let ran = paramiko(
        &yard,
        "connect()\n\
         i, o, e = client.exec_command('cat; echo err >&2; exit 3')\n\
         i.write('x' * 200000); i.channel.shutdown_write()\n\
         print(len(o.read()), e.read(), o.channel.recv_exit_status())\n\
         i, o, e = client.exec_command('id -un')\n\
         print(o.read())\n",
    );
    assert_eq!(ran.ok(), "200000 b'err\\n' 3\nb'alice\\n'");
}

/// Several keys, the right one last. paramiko's usual transport asks for the service anew before each key, which russh
/// leaves unanswered; the one made for servers that do not expect that has no such need. But it begins to wait after it has
/// asked: an answer that comes first is lost on it, and so it may ask again.
#[test]
fn paramiko_tries_one_key_after_the_other() {
    let yard = Yard::new().user("alice").start();
    crate::yard::keygen(&yard.path("other"));
    let ran = paramiko(
        &yard,
        &format!(
            "for left in range(5, -1, -1):\n    \
                 try:\n        \
                     client.connect('127.0.0.1', {}, 'alice', key_filename=[{:?}, {:?}], look_for_keys=False, \
                         allow_agent=False, auth_timeout=5, transport_factory=paramiko.ServiceRequestingTransport)\n        \
                     break\n    \
                 except paramiko.AuthenticationException as error:\n        \
                     if not left or str(error) != 'Authentication timeout.': raise\n\
             print(client.exec_command('echo in')[1].read().decode())\n",
            yard.port(),
            yard.path("other"),
            yard.path("alice"),
        ),
    );
    assert_eq!(ran.ok(), "in", "{}", ran.stderr);
}

#[test]
fn paramiko_has_a_shell() {
    let yard = Yard::new().user("alice").start();
    let ran = paramiko(
        &yard,
        "connect()\n\
         c = client.invoke_shell('vt100', 90, 20)\n\
         c.settimeout(20)\n\
         def until(mark):\n    \
             all = b''\n    \
             while mark not in all: all += c.recv(4096)\n    \
             return all\n\
         c.send('echo $TERM $(stty size) $((40+2))\\r')\n\
         print(b'vt100 20 90 42' in until(b' 42'))\n\
         c.resize_pty(100, 30)\n\
         c.send('stty size; echo $((80+1))\\r')\n\
         print(b'30 100' in until(b'81'))\n\
         c.send('exit 6\\r')\n\
         print(c.recv_exit_status())\n",
    );
    assert_eq!(ran.ok(), "True\nTrue\n6");
}

/// "sftp [is] refused", "forwarding": as another client sees it.
#[test]
fn paramiko_is_refused_what_everybody_is() {
    let yard = Yard::new().user("alice").start();
    let ran = paramiko(
        &yard,
        "connect()\n\
         t = client.get_transport()\n\
         for what in ('sftp', 'direct', 'listen', 'bob'):\n    \
             try:\n        \
                 if what == 'sftp': client.open_sftp()\n        \
                 elif what == 'direct': t.open_channel('direct-tcpip', ('127.0.0.1', 22), ('127.0.0.1', 1))\n        \
                 elif what == 'listen': t.request_port_forward('127.0.0.1', 0)\n        \
                 else: connect('bob')\n        \
                 print(what, 'POSSIBLE')\n    \
             except (paramiko.SSHException, EOFError, OSError) as e: print(what, type(e).__name__)\n",
    );
    let said = ran.ok();
    assert!(!said.contains("POSSIBLE") && said.lines().count() == 4, "{said}");
    assert!(said.contains("direct ChannelException") && said.contains("bob AuthenticationException"), "{said}");
}

/// "signals": OpenSSH's client sends none, so they are sent by hand.
#[test]
fn a_signal_reaches_the_program() {
    let yard = Yard::new().user("alice").start();
    let ran = paramiko(
        &yard,
        "connect()\n\
         c = client.get_transport().open_session()\n\
         c.settimeout(20)\n\
         c.exec_command('trap \"echo got it; exit 5\" USR1; echo ready; while :; do sleep 0.05; done')\n\
         print(c.recv(100))\n\
         m = paramiko.Message()\n\
         m.add_byte(b'\\x62'); m.add_int(c.remote_chanid); m.add_string('signal'); m.add_boolean(False); m.add_string('USR1')\n\
         client.get_transport()._send_user_message(m)\n\
         print(c.recv(100), c.recv_exit_status())\n",
    );
    assert_eq!(ran.ok(), "b'ready\\n'\nb'got it\\n' 5", "{}", ran.stderr);
}

/// "rekey under load"
#[test]
fn keys_are_changed_under_load() {
    let yard = Yard::new().user("alice").start();
    let ran = paramiko(
        &yard,
        "connect()\n\
         t = client.get_transport()\n\
         i, o, e = client.exec_command('head -c 30000000 /dev/zero')\n\
         n = 0\n\
         for part in range(6):\n    \
             n += len(o.read(4000000)); t.renegotiate_keys()\n\
         n += len(o.read())\n\
         print(n, o.channel.recv_exit_status())\n",
    );
    assert_eq!(ran.ok(), "30000000 0", "{}", ran.stderr);
    let sent = vec![7; 20 << 20];
    let ran = yard.ssh("alice").option("RekeyLimit=1M").input(sent).run("cat | sha256sum; head -c 20M /dev/zero");
    assert_eq!((ran.code, ran.stdout.len()), (Some(0), 68 + (20 << 20)), "{}", ran.stderr);
}

/// A probe with a key longer than the boundary's messages once cost every login until a restart: the gate's message to
/// the warden did not fit, and the link was given up.
#[test]
fn an_endless_key_costs_nobody_the_gate() {
    let yard = Yard::new().user("alice").start();
    for (algorithm, length) in
        [("rsa-sha2-512", 140_000), ("rsa-sha2-512", 220_000), ("sk-ssh-ed25519@openssh.com", 220_000)]
    {
        let ran = paramiko(
            &yard,
            &format!(
                "from paramiko.common import cMSG_SERVICE_REQUEST, cMSG_USERAUTH_REQUEST\n\
                 import struct\n\
                 s = lambda b: struct.pack('>I', len(b)) + b\n\
                 rsa = s(b'ssh-rsa') + s(b'\\x01\\x00\\x01') + s(b'\\x7f' + b'\\xff' * {length})\n\
                 sk = s(b'sk-ssh-ed25519@openssh.com') + s(b'k' * 32) + s(b'a' * {length})\n\
                 t = paramiko.Transport(socket.create_connection(('127.0.0.1', {port})))\n\
                 t.start_client(timeout=20)\n\
                 m = paramiko.Message(); m.add_byte(cMSG_SERVICE_REQUEST); m.add_string('ssh-userauth'); t._send_message(m)\n\
                 m = paramiko.Message(); m.add_byte(cMSG_USERAUTH_REQUEST)\n\
                 for word in ('alice', 'ssh-connection', 'publickey'): m.add_string(word)\n\
                 m.add_boolean(False); m.add_string('{algorithm}'); m.add_string(rsa if 'rsa' in '{algorithm}' else sk)\n\
                 t._send_message(m)\n\
                 t.sock.settimeout(5)\n\
                 print('sent')\n\
                 t.close()\n",
                port = yard.port(),
            ),
        );
        assert_eq!(ran.ok(), "sent");
        assert_eq!(yard.ssh("alice").run("echo in").ok(), "in");
    }
    assert!(yard.audit().of("SK8003W").is_empty(), "a role was started again: {}", yard.log());
}

/// What a client sends past its windows, russh hands over all the same: the gate does not hold it on many channels at once.
#[test]
fn a_client_that_ignores_its_windows_is_cut() {
    let yard = Yard::new().user("alice").start();
    let ran = paramiko(
        &yard,
        "import time\n\
         from paramiko.message import Message\n\
         connect()\n\
         transport = client.get_transport()\n\
         channels = [transport.open_session() for _ in range(3)]\n\
         for channel in channels:\n    \
             for _ in range(30 * 32):\n        \
                 message = Message()\n        \
                 message.add_byte(b'\\x5e')\n        \
                 message.add_int(channel.remote_chanid)\n        \
                 message.add_string(b'x' * 32768)\n        \
                 transport._send_user_message(message)\n\
         end = time.time() + 20\n\
         while not any(channel.closed for channel in channels) and time.time() < end: time.sleep(0.05)\n\
         print(any(channel.closed for channel in channels))\n",
    );
    assert_eq!(ran.ok(), "True");
    assert!(yard.log().contains("its client sent past its window"), "{}", yard.log());
    assert_eq!(yard.ssh("alice").run("id -un").ok(), "alice");
}
