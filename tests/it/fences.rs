//! "A test proves from inside each that opening a foreign file, exec and unexpected connect are refused": the living roles,
//! with all that they hold, made to try it themselves.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};

use crate::roles::WITH_PORTAL;
use crate::yard::{Yard, descriptors, spawn_with, uid, with_public_door};

/// What each thread was answered, by the call's name.
type Answers = BTreeMap<String, BTreeMap<String, i64>>;

const REFUSED: [i64; 2] = [-(libc::EPERM as i64), -(libc::EACCES as i64)];

/// `once`: by one thread alone.
pub fn injector(pid: u32, once: bool) -> Command {
    let venv = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bed/venv");
    let python = String::from_utf8(Command::new(venv).output().unwrap().stdout).unwrap();
    let mut command = Command::new(python.trim());
    command.args([concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/inject.py"), &pid.to_string()]);
    command.args(once.then_some("once"));
    command
}

fn inject(pid: u32, calls: &[Value]) -> Answers {
    let ran = spawn_with(injector(pid, false), Some(serde_json::to_vec(calls).unwrap())).wait();
    serde_json::from_str(&ran.ok()).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
}

#[track_caller]
fn all_refused(role: &str, answers: &Answers) {
    assert!(!answers.is_empty(), "{role} has no thread");
    let holes: Vec<_> =
        answers.iter().flat_map(|(thread, calls)| calls.iter().map(move |call| (thread, call))).collect();
    let holes: Vec<_> = holes.into_iter().filter(|(_, (_, answer))| !REFUSED.contains(answer)).collect();
    assert!(holes.is_empty(), "{role} was not refused: {holes:?}");
}

#[track_caller]
fn all_allowed(role: &str, answers: &Answers) {
    let calls: Vec<_> = answers.values().flat_map(|calls| calls.iter()).collect();
    assert!(!calls.is_empty() && calls.iter().all(|(_, answer)| **answer >= 0), "{role}: {calls:?}");
}

const HERE: i64 = libc::AT_FDCWD as i64;
const READ: i64 = libc::O_RDONLY as i64;

fn opens(name: &str, at: i64, path: &str, flags: i64) -> Value {
    json!([name, libc::SYS_openat, at, path, flags, 0o600])
}

/// What no role may do. A NULL is as good as an argument where the call itself is refused.
fn forbidden() -> Vec<Value> {
    use libc::*;
    let socket = |name: &str, family: i32, kind: i32| json!([name, SYS_socket, family, kind, 0]);
    vec![
        opens("open /", HERE, "/", READ),
        opens("open .", HERE, ".", READ),
        json!(["open by its old name", SYS_open, "/", READ, 0]),
        json!(["create", SYS_creat, "/tmp/x", 0o600]),
        json!(["execve", SYS_execve, "/proc/self/exe", 0, 0]),
        json!(["execveat", SYS_execveat, HERE, "/bin/sh", 0, 0, 0]),
        json!(["execute what it holds", SYS_execveat, 3, "", 0, 0, AT_EMPTY_PATH]),
        socket("unix", AF_UNIX, SOCK_STREAM),
        socket("netlink", AF_NETLINK, SOCK_RAW),
        socket("packet", AF_PACKET, SOCK_RAW),
        socket("vsock", AF_VSOCK, SOCK_STREAM),
        socket("alg", AF_ALG, SOCK_SEQPACKET),
        json!(["listen", SYS_listen, 3, 1]),
        json!(["fork", SYS_fork]),
        json!(["unshare", SYS_unshare, CLONE_NEWUSER]),
        json!(["setns", SYS_setns, 3, 0]),
        json!(["ptrace", SYS_ptrace, PTRACE_ATTACH, 1, 0, 0]),
        json!(["write to another's memory", SYS_process_vm_writev, 1, 0, 0, 0, 0, 0]),
        json!(["kill", SYS_kill, 1, 0]),
        json!(["pidfd_open", SYS_pidfd_open, 1, 0]),
        json!(["pidfd_getfd", SYS_pidfd_getfd, 3, 0, 0]),
        json!(["setuid", SYS_setuid, 0]),
        json!(["mount", SYS_mount, 0, 0, 0, 0, 0]),
        json!(["chmod", SYS_fchmodat, HERE, "/", 0o777]),
        json!(["chroot", SYS_chroot, "/"]),
        json!(["symlink", SYS_symlinkat, "/", HERE, "x"]),
        json!(["bpf", SYS_bpf, 0, 0, 0]),
        json!(["io_uring", SYS_io_uring_setup, 1, 0]),
        json!(["userfaultfd", SYS_userfaultfd, 0]),
        json!(["keyctl", SYS_keyctl, 0, 0]),
        json!(["another filter", SYS_seccomp, 1, 0, 0]),
    ]
}

#[test]
fn living_roles_are_refused_what_is_not_theirs() {
    let yard = with_public_door(Yard::new().user("alice")).start();
    yard.ssh("alice").run("true").ok();
    for role in WITH_PORTAL {
        let pid = yard.role(role);
        // It is the role itself that answers.
        let own = inject(pid, &[json!(["getuid", libc::SYS_getuid])]);
        assert!(own.values().all(|calls| calls["getuid"] == i64::from(uid(pid))), "{role}: {own:?}");
        all_refused(role, &inject(pid, &forbidden()));
        if role != "warden" {
            let internet = |name: &str, family: i32| json!([name, libc::SYS_socket, family, libc::SOCK_STREAM, 0]);
            let calls = [
                internet("inet", libc::AF_INET),
                internet("inet6", libc::AF_INET6),
                json!(["connect", libc::SYS_connect, -1, 0, 0]),
                json!(["bind", libc::SYS_bind, -1, 0, 0]),
            ];
            all_refused(role, &inject(pid, &calls));
        }
        assert_eq!(yard.role(role), pid, "{role} lives on");
    }
    assert_eq!(yard.ssh("alice").run("echo all alive").ok(), "all alive");
    assert!(yard.audit().of("SK8003W").is_empty());
}

/// What a role holds a directory for ends at that directory, whatever lies in it.
#[test]
fn grants_end_at_their_directory() {
    let yard = Yard::new().user("alice").start();
    yard.ssh("alice").run("true").ok();
    // Nothing but the fence is in the way.
    let outside = yard.path("outside");
    std::fs::write(&outside, "").unwrap();
    for (path, mode) in [(yard.path("."), 0o755), (outside.clone(), 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    for (role, directory, inside, flags) in
        [("keeper", "recordings", "by-hand", libc::O_RDWR | libc::O_CREAT), ("warden", "keys", "alice", libc::O_RDONLY)]
    {
        let (pid, path) = (yard.role(role), yard.path(directory));
        let held = descriptors(pid).into_iter().find(|(_, target)| *target == path.display().to_string());
        let at = i64::from(held.unwrap_or_else(|| panic!("{role} does not hold {directory}")).0);
        all_allowed(role, &inject(pid, &[opens("what is its own", at, inside, flags.into())]));

        std::os::unix::fs::symlink(&outside, path.join("link")).unwrap();
        std::os::unix::fs::symlink("../outside", path.join("link-up")).unwrap();
        let mut calls = vec![
            opens("up", at, "..", READ),
            opens("a foreign file", at, "../outside", READ),
            opens("writing it", at, "../outside", libc::O_WRONLY.into()),
            opens("through a link", at, "link-up", READ),
            json!(["execute what it wrote", libc::SYS_execveat, at, inside, 0, 0, 0]),
            json!(["chmod", libc::SYS_fchmodat, at, inside, 0o4777]),
            json!(["mknod", libc::SYS_mknodat, at, "node", libc::S_IFCHR, 0]),
        ];
        if role == "warden" {
            // Alone in the host's root: the others do not even find the path.
            calls.extend([
                opens("a foreign file by its path", HERE, outside.to_str().unwrap(), READ),
                opens("through an absolute link", at, "link", READ),
                opens("passwd", HERE, "/etc/passwd", READ),
                opens("writing its own", at, inside, libc::O_WRONLY.into()),
                opens("creating", at, "bob", (libc::O_WRONLY | libc::O_CREAT).into()),
            ]);
        }
        all_refused(role, &inject(pid, &calls));
        for link in ["link", "link-up"] {
            std::fs::remove_file(path.join(link)).unwrap();
        }
    }
    std::fs::remove_file(yard.path("recordings/by-hand")).unwrap();
    assert_eq!(yard.ssh("alice").run("echo fine").ok(), "fine");
}

/// The warden alone has the internet, and may not listen there.
#[test]
fn the_warden_may_connect_and_not_be_connected_to() {
    let yard = Yard::new().user("alice").start();
    let pid = yard.role("warden");
    let kind = i64::from(libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK);
    let made = inject(pid, &[json!(["socket", libc::SYS_socket, libc::AF_INET, kind, 0])]);
    all_allowed("warden", &made);
    let socket = made.values().next().unwrap()["socket"];
    // sockaddr_in: AF_INET, any port, 127.0.0.1.
    let address = [2, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let calls = [json!(["bind", libc::SYS_bind, socket, address, 16]), json!(["listen", libc::SYS_listen, socket, 1])];
    all_refused("warden", &inject(pid, &calls));
    all_allowed("warden", &inject(pid, &[json!(["close", libc::SYS_close, socket])]));
}
