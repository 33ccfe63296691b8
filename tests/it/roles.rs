//! Issue item 1: the processes and the boundary between them; `kill -9` of each.

use std::process::Command;
use std::time::Duration;

use crate::yard::{Yard, children, descriptors, signal, status_of, uid, until, with_public_door, within};

pub const ROLES: [&str; 5] = ["keeper", "tally", "porter", "warden", "gate"];
/// Of a bastion with a public kube door.
pub const WITH_PORTAL: [&str; 6] = ["keeper", "tally", "porter", "warden", "gate", "portal"];

fn field(pid: u32, name: &str) -> String {
    let status = status_of(pid).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")).map(str::trim));
    line.unwrap_or_default().to_owned()
}

/// "re-execs of the one binary with their own uids and titles"; "drop everything, then landlock and seccomp, before their
/// runtime starts": as the kernel tells it of every thread.
#[test]
fn every_role_is_its_own_user_behind_its_fence() {
    let yard = with_public_door(Yard::new()).start();
    let mut uids = Vec::new();
    for role in WITH_PORTAL {
        let pid = yard.role(role);
        // A role is fenced a moment after it has its title.
        until(&format!("the fence of {role}"), || (field(pid, "Seccomp") == "2").then_some(()));
        let uid = field(pid, "Uid");
        let ids: Vec<&str> = uid.split_whitespace().collect();
        assert!(ids.iter().all(|id| *id == ids[0] && *id != "0"), "{role}: {uid}");
        assert_eq!(field(pid, "Groups"), "", "{role}");
        uids.push(uid);
        let threads: Vec<u32> = std::fs::read_dir(format!("/proc/{pid}/task"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
            .collect();
        for thread in threads {
            // CAP_SYS_PTRACE is bit 19.
            let capabilities = if role == "tally" { "0000000000080000" } else { "0000000000000000" };
            for set in ["CapEff", "CapPrm", "CapBnd"] {
                assert_eq!(field(thread, set), capabilities, "{role} {thread}: {set}");
            }
            assert_eq!(field(thread, "NoNewPrivs"), "1", "{role} {thread}");
            assert_eq!(field(thread, "Seccomp"), "2", "{role} {thread}");
        }
        let namespace = |name: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        let here = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        if role != "warden" {
            assert_ne!(namespace("net"), here("net"), "{role}: an empty network");
            assert_ne!(namespace("mnt"), here("mnt"), "{role}: an empty root");
            assert_eq!(std::fs::read_dir(format!("/proc/{pid}/root")).unwrap().count(), 0, "{role}: an empty root");
        }
    }
    uids.sort();
    uids.dedup();
    assert_eq!(uids.len(), WITH_PORTAL.len(), "a user each");
    let jailer = yard.jailer();
    assert_eq!(field(jailer, "Threads"), "1", "the jailer has one thread");
}

/// "a test proves from inside each that opening a foreign file, exec and unexpected connect are refused": each role's
/// fence in a process that then tries.
#[test]
fn fences_have_no_holes() {
    // The porter twice: it may connect only where somebody may reach something outside.
    let nowhere = WITH_PORTAL.into_iter().filter(|role| *role != "warden").map(|role| (role, "nowhere"));
    for (role, reach) in nowhere.chain([("warden", "internet"), ("porter", "internet")]) {
        let ran = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "roles::child_tries_its_fence", "--ignored", "--nocapture"])
            .env("ROLE", role)
            .env("REACH", reach)
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success() && out.contains(&format!("{role}: []")), "{role}: {out}{err}");
    }
}

#[test]
#[ignore = "run by its parent"]
fn child_tries_its_fence() {
    use stockade::privsep::Role;
    use stockade::privsep::fence::{self, Reach};
    let name = std::env::var("ROLE").unwrap();
    let role = Role::ALL.into_iter().find(|role| role.to_string() == name).unwrap();
    let reach = if std::env::var("REACH").unwrap() == "internet" { Reach::Internet } else { Reach::Nowhere };
    assert!(!fence::holes(reach).is_empty(), "without a fence there are holes");
    fence::enter(role, reach, &[]).unwrap();
    println!("{role}: {:?}", fence::holes(reach));
}

/// "descriptors passed, never paths": what each role holds, by kind. The weak ones hold no file of the host's.
#[test]
fn weak_roles_hold_no_files() {
    let yard = with_public_door(Yard::new().user("alice")).start();
    yard.ssh("alice").run("true").ok();
    for role in ["gate", "porter", "tally", "portal"] {
        for (fd, target) in descriptors(yard.role(role)) {
            let harmless = ["socket:", "anon_inode:", "pipe:", "/dev/null", "/memfd:"];
            let known = harmless.iter().any(|kind| target.starts_with(kind));
            let log = fd == 2;
            let proc = role == "tally" && target == "/proc";
            assert!(known || log || proc, "{role} holds {fd} -> {target}");
        }
    }
}

/// "gate: running jails and recordings stay whole, it is started again, nobody's PTY is lost ..., so the session ends
/// cleanly after a configurable linger"
#[test]
fn a_killed_gate_leaves_jails_and_recordings_whole() {
    let yard = Yard::new().user("alice").config("ssh.linger = '3s'").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    terminal.enter(
        "echo before; for i in 1 2 3 4 5 6 7 8 9; do echo tick $i > ~/tick; sleep 0.2; done; echo lasted > ~/lasted",
    );
    terminal.wait_for("\nbefore\r\n");
    let others: Vec<u32> = ["keeper", "warden", "porter", "tally"].map(|role| yard.role(role)).to_vec();
    yard.kill("gate");
    assert_eq!(terminal.end(), 255, "the connection is gone");
    let restarted = yard.audit().wait_for("SK8003W", |event| event["unmapped"]["role"] == "gate");
    assert!(restarted["unmapped"]["reason"].as_str().unwrap().contains("0x9"));
    // The new gate serves while the old one's jail goes on.
    let now = yard.ssh("alice").run("cat ~/tick").ok();
    assert!(now.starts_with("tick"), "{now}");
    yard.audit().wait_for("SK2002I", |event| event["unmapped"]["reason"] == "the connection was lost");
    assert_eq!(yard.ssh("alice").run("cat ~/lasted").ok(), "lasted", "the jail outlived its gate");
    assert_eq!(
        others,
        ["keeper", "warden", "porter", "tally"].map(|role| yard.role(role)).to_vec(),
        "nobody else ended"
    );
    let first = yard.sessions()[0]["session"].as_str().unwrap().to_owned();
    let recording = yard.recording(&first).closed();
    assert!(recording.show().contains("whole and closed"), "{}", recording.show());
    assert!(String::from_utf8_lossy(&recording.bytes("output")).contains("before"));
}

/// "warden: started again, doors answer again, jails unharmed"
#[test]
fn a_killed_warden_harms_no_jail() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    terminal.shell("mark=unharmed");
    yard.kill("warden");
    yard.audit().wait_for("SK8003W", |event| event["unmapped"]["role"] == "warden");
    assert_eq!(terminal.shell("echo $mark; stty size"), "unharmed\n24 80");
    let whoami = terminal.shell("stockade whoami --json");
    assert!(whoami.contains("\"alice\""), "{whoami}");
    until("logins again", || (yard.ssh("alice").run("true").code == Some(0)).then_some(()));
    terminal.enter("exit 5");
    assert_eq!(terminal.end(), 5);
    let first = yard.sessions()[0]["session"].as_str().unwrap().to_owned();
    yard.recording(&first).closed();
}

/// What the dead warden opened in audit and recording is closed there, though its jail went meanwhile.
#[test]
fn a_session_that_ends_without_a_warden_is_closed_all_the_same() {
    let yard = Yard::new().user("alice").user("bob").start();
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    let mut bob = yard.ssh("bob").terminal();
    bob.prompt();
    yard.kill_for_a_while("warden");
    bob.enter("exit");
    // Jails take their uids in the order of their making.
    let alices = yard.inits().into_iter().min_by_key(|init| uid(*init)).unwrap();
    signal(alices, "KILL");
    alice.end();
    bob.end();
    for user in ["alice", "bob"] {
        let closed = yard.audit().wait_for("SK2002I", |event| event["user"]["name"] == user);
        yard.recording(closed["session"]["uid"].as_str().unwrap()).closed();
    }
    assert_eq!(yard.audit().of("SK2002I").len(), 2);
    assert!(yard.audit().of("SK2006W").is_empty());
}

/// A warden's restart does not let a connection without rights in: what it does not know must log in again.
#[test]
fn a_connection_of_a_former_warden_opens_nothing_new() {
    let yard = Yard::new().user("alice").start();
    let path = format!("ControlPath={}", yard.path("mux").display());
    let mut master = yard.ssh("alice").option("ControlMaster=yes").option(&path).input("").begin("sleep 30");
    until("the master's socket", || yard.path("mux").exists().then_some(()));
    yard.ssh("alice").option(&path).run("true").ok();
    yard.kill("warden");
    yard.audit().wait_for("SK8003W", |_| true);
    // It is refused, and the client then logs in anew by itself.
    assert_eq!(yard.ssh("alice").option(&path).option("ControlMaster=no").run("echo in").text(), "in");
    assert_eq!(yard.audit().of("SK1003I").len(), 2);
    master.kill();
    master.wait();
}

/// "keeper: sessions end, recordings are recovered to the last durable byte and say so"
#[test]
fn a_killed_keeper_ends_sessions_and_recovers_their_recordings() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    assert_eq!(terminal.shell("echo seen by the user"), "seen by the user");
    let shown = terminal.all();
    yard.kill("keeper");
    assert_eq!(terminal.end(), 254);
    terminal.wait_for("the recording has ended");
    let recovered = yard.audit().wait_for("SK2006W", |_| true);
    let session = recovered["session"]["uid"].as_str().unwrap().to_owned();
    let recording = yard.recording(&session).closed();
    let output = recording.bytes("output");
    assert!(output.len() >= shown.len(), "all that was shown was on stable storage first");
    assert!(output.starts_with(&shown), "{:?}", String::from_utf8_lossy(&output));
    let entry = yard.sessions().into_iter().find(|one| one["session"] == *session).unwrap();
    assert_eq!((&entry["state"], &entry["reason"]), (&"recovered".into(), &"recovered".into()), "{entry}");
    let closing = recording.of("closing").pop().unwrap();
    assert!(closing["reason"].as_str().unwrap().contains("recover"), "{closing}");
    assert!(recording.show().contains("closed by recovery after a crash"), "{}", recording.show());
    let restarted = yard.audit().wait_for("SK8003W", |event| event["unmapped"]["role"] == "keeper");
    assert!(restarted["unmapped"]["reason"].as_str().unwrap().contains("0x9"), "{restarted}");
    yard.audit().wait_for("SK2002I", |event| event["session"]["uid"] == *session);
    until("logins again", || (yard.ssh("alice").run("true").code == Some(0)).then_some(()));
}

/// A dead porter is started again and opens the same doors.
#[test]
fn a_killed_porters_doors_answer_again() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    assert!(terminal.shell("stockade whoami").contains("alice"));
    yard.kill("porter");
    yard.audit().wait_for("SK8003W", |event| event["unmapped"]["role"] == "porter");
    assert!(terminal.shell("stockade whoami").contains("alice"), "the door waits for its new porter");
}

/// A dead tally is started again; an exec meanwhile waits, and is recorded.
#[test]
fn a_killed_tally_misses_no_exec() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    yard.kill("tally");
    assert_eq!(terminal.shell("/bin/echo after tally"), "after tally");
    yard.audit().wait_for("SK3001I", |event| {
        event["unmapped"]["arguments"].as_array().is_some_and(|all| all.iter().any(|one| one == "tally"))
    });
    terminal.enter("exit");
    assert_eq!(terminal.end(), 0);
}

/// "jailer: every jail is gone, leftovers are swept at the next start"
#[test]
fn a_killed_jailer_takes_all_with_it() {
    let yard = Yard::new().user("alice").user("bob").start();
    let mut one = yard.ssh("alice").terminal();
    one.prompt();
    one.shell("echo kept > ~/note; sync; sleep 1000 & echo");
    let mut two = yard.ssh("bob").terminal();
    two.prompt();
    yard.kill("jailer");
    let processes = || yard.leftovers().into_iter().filter(|left| left.starts_with("process")).collect::<Vec<_>>();
    let gone = within(Duration::from_secs(5), || processes().is_empty().then_some(()));
    assert!(gone.is_some(), "{:?}", processes());
    one.end();
    two.end();
    yard.restart();
    let swept = within(Duration::from_secs(5), || {
        yard.leftovers().iter().all(|left| left.starts_with("process")).then_some(())
    });
    assert!(swept.is_some(), "{:?}", yard.leftovers());
    assert_eq!(yard.ssh("alice").run("cat ~/note").ok(), "kept");
    // A keeper that sees the jailer gone closes them itself; one that is killed with it leaves them to the next.
    until("both recordings are closed", || {
        let closed = yard.sessions().iter().filter(|one| one["state"] != "unclosed").count();
        (closed == 3).then_some(())
    });
}

/// The same for what was recorded: all that the user was shown is there, and list, show and audit say what happened.
#[test]
fn recordings_of_a_killed_jailer_are_recovered_and_say_so() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    assert_eq!(terminal.shell("seq 500 | tail -1; echo seen by the user"), "500\nseen by the user");
    let shown = terminal.all();
    // A keeper that were quick enough to see the jailer's end would close the recording itself.
    signal(yard.role("keeper"), "STOP");
    yard.kill("jailer");
    terminal.end();
    assert_eq!(yard.sessions()[0]["state"], "unclosed");
    yard.restart();
    let recovered = yard.audit().wait_for("SK2006W", |_| true);
    let session = recovered["session"]["uid"].as_str().unwrap().to_owned();
    let recording = yard.recording(&session).closed();
    let output = recording.bytes("output");
    assert!(output.starts_with(&shown), "{:?}", String::from_utf8_lossy(&output));
    let entry = yard.sessions().remove(0);
    assert_eq!((&entry["state"], &entry["reason"]), (&"recovered".into(), &"recovered".into()), "{entry}");
    assert!(recording.show().contains("closed by recovery after a crash"), "{}", recording.show());
    assert!(recording.export("asciicast").contains("seen by the user"));
    let totals = recording.of("closing").pop().unwrap();
    assert_eq!(recovered["unmapped"]["events"], totals["events"], "{recovered} {totals}");
    assert_eq!(yard.audit().of("SK8001I").len(), 2, "both starts");
    let numbers: Vec<u64> =
        yard.audit().events().iter().map(|event| event["metadata"]["sequence"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

/// "Durable before shown", in the midst of a flood: whatever reached the client is in the recovered recording.
#[test]
fn what_was_seen_of_a_flood_is_recovered() {
    for role in ["keeper", "jailer"] {
        let yard = Yard::new().user("alice").start();
        let client = yard.ssh("alice").begin("while :; do seq 20000; sleep 0.02; done");
        let session = until("a session", || yard.sessions().pop())["session"].as_str().unwrap().to_owned();
        let size = || yard.recording(&session).files().iter().map(|file| file.metadata().unwrap().len()).sum::<u64>();
        let recording = yard.recording(&session);
        until("some of the flood", || (recording.bytes("output").len() > 1 << 20).then_some(()));
        yard.kill(role);
        let seen = client.wait();
        assert!(seen.code != Some(0) && seen.stdout.len() > 100_000, "{role}: {:?} {}", seen.code, seen.stdout.len());
        if role == "jailer" {
            yard.restart();
        }
        let recording = yard.recording(&session).closed();
        let output = recording.bytes("output");
        let (kept, shown) = (output.len(), seen.stdout.len());
        assert!(output.starts_with(&seen.stdout), "{role}: {kept} bytes kept, {shown} shown");
        assert!(size() < 64 << 20, "what was reserved beyond the end is given back");
    }
}

/// "PDEATHSIG again after the uid change": no role outlives the jailer.
#[test]
fn roles_die_with_the_jailer() {
    let yard = Yard::new().user("alice").start();
    let roles = ROLES.map(|role| yard.role(role));
    yard.kill("jailer");
    for (role, pid) in ROLES.iter().zip(roles) {
        let gone = within(Duration::from_secs(5), || {
            let status = status_of(pid).unwrap_or_default();
            (status.is_empty() || status.contains("State:\tZ")).then_some(())
        });
        assert!(gone.is_some(), "{role} lives on");
    }
}

/// A role that dies again and again is started again, with pauses, and the bastion goes on.
#[test]
fn a_role_that_keeps_dying_is_started_with_pauses() {
    let yard = Yard::new().user("alice").start();
    for _ in 0..3 {
        yard.kill("gate");
    }
    until("logins again", || (yard.ssh("alice").run("true").code == Some(0)).then_some(()));
    assert_eq!(yard.audit().of("SK8003W").len(), 3);
}

/// SIGTERM with sessions open: they end, their recordings are closed, nothing is left (the yard looks when it is dropped).
#[test]
fn sigterm_closes_what_is_open() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    terminal.shell("sleep 1000 & echo");
    assert!(!children(yard.jailer()).is_empty());
    let status = yard.stop().unwrap();
    assert_eq!(status.code(), Some(0), "{}", yard.log());
    terminal.end();
    assert_eq!(yard.sessions()[0]["state"], "closed");
    assert!(yard.audit().of("SK2002I").len() == 1 && yard.audit().of("SK8002I").len() == 1);
    let left = within(Duration::from_secs(5), || yard.leftovers().is_empty().then_some(()));
    assert!(left.is_some(), "{:?}", yard.leftovers());
}

/// Where each role has its link to the jailer.
const CONTROL: u32 = 3;

/// The kernel's table of unix sockets, a line each: the bytes that wait to be read, the inode, the other end's.
pub fn sockets() -> Vec<(u64, u64, u64)> {
    let listed = Command::new("ss").args(["-xanH"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at)?.parse().ok();
        Some((number(2)?, number(5)?, number(7)?))
    };
    listed.lines().filter_map(line).collect()
}

pub fn inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Which socket of one role has its other end in another role, by the kernel's word.
pub fn link(yard: &Yard, from: &str, to: &str) -> u32 {
    let of = |role: &str| descriptors(yard.role(role)).into_iter().filter_map(|(fd, t)| Some((fd, inode(&t)?)));
    until(&format!("a link from {from} to {to}"), || {
        let peers: std::collections::HashMap<u64, u64> =
            sockets().into_iter().map(|(_, own, peer)| (own, peer)).collect();
        let theirs: Vec<u64> = of(to).map(|(_, inode)| inode).collect();
        let found = of(from).find(|(_, inode)| peers.get(inode).is_some_and(|peer| theirs.contains(peer)));
        found.map(|(fd, _)| fd)
    })
}

/// "an unknown or out-of-phase message ends the sender": whoever hears it, the living sender is ended, one event says so,
/// and the bastion serves again.
#[test]
fn whoever_breaks_the_protocol_is_ended() {
    let yard = with_public_door(Yard::new().user("alice")).start();
    let breaches = |role: &str| {
        let events = yard.audit().of("SK8004E");
        events.iter().filter(|event| event["unmapped"]["role"] == role).count()
    };
    let mut broken = std::collections::HashMap::<&str, usize>::new();
    for (from, to) in [
        ("gate", "jailer"),
        ("gate", "warden"),
        ("gate", "keeper"),
        ("porter", "keeper"),
        ("porter", "warden"),
        ("tally", "keeper"),
        ("warden", "gate"),
        ("warden", "porter"),
        ("warden", "keeper"),
        ("keeper", "gate"),
        ("keeper", "porter"),
        ("keeper", "tally"),
        ("keeper", "warden"),
        ("portal", "jailer"),
        ("portal", "keeper"),
        ("portal", "porter"),
        ("porter", "portal"),
        ("keeper", "portal"),
    ] {
        until(&format!("logins before {from} speaks to {to}"), || {
            (yard.ssh("alice").run("true").code == Some(0)).then_some(())
        });
        let roles = WITH_PORTAL.map(|role| yard.role(role));
        let sender = yard.role(from);
        let fd = if to == "jailer" { CONTROL } else { link(&yard, from, to) };
        // It may be ended before all its threads have spoken.
        say_garbage(sender, fd);
        let ended = within(Duration::from_secs(10), || (status_of(sender).is_none()).then_some(()));
        assert!(ended.is_some(), "{from} spoke nonsense to {to} and lives");
        until(&format!("logins after {from} spoke to {to}"), || {
            (yard.ssh("alice").run("true").code == Some(0)).then_some(())
        });
        let expected = broken.entry(from).or_default();
        *expected += 1;
        yard.audit().wait_for("SK8004E", |_| breaches(from) >= *expected);
        assert_eq!(breaches(from), *expected, "{from} to {to}: {:#?}", yard.audit().of("SK8004E"));
        let accuses = matches!((from, to), ("warden", _) | ("keeper", "gate" | "porter" | "tally" | "portal"))
            || matches!((from, to), ("porter", "portal") | ("portal", "porter"));
        for (role, before) in WITH_PORTAL.iter().zip(roles) {
            let stays = *role != from && !(*role == to && accuses);
            assert_eq!(yard.role(role) == before, stays, "{role}, after {from} spoke to {to}");
        }
    }
    assert_eq!(yard.audit().of("SK8004E").len(), 18);
}

/// `\xff`, which begins no message, by one of its own threads.
fn say_garbage(pid: u32, fd: u32) {
    let call = serde_json::json!([["say", libc::SYS_write, fd, [0xff], 1]]);
    crate::yard::spawn_with(crate::fences::injector(pid, true), Some(call.to_string().into())).wait();
}
