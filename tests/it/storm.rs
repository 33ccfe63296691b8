//! Issue 4, bad input: "a jail that fork-bombs, fills memory, disk, inodes, opens 10,000 sockets to the door, floods the
//! PTY with 1 GB: neighbours keep typing"; and "disk full under a running `yes`".

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::evidence::Small;
use crate::yard::{Terminal, Yard, until, within};

/// Keys that the neighbour presses in a storm.
const KEYS: usize = 100;

/// alice storms, bob is the neighbour.
fn yard(settings: &str) -> Yard {
    Yard::new().user("alice").user("bob").config(settings).start()
}

fn shell(yard: &Yard, user: &str) -> Terminal {
    let mut terminal = yard.ssh(user).terminal();
    terminal.prompt();
    terminal
}

/// The echo of each key comes before the next is pressed; then bob's own programs, home and doors still serve him.
#[track_caller]
fn keeps_typing(bob: &mut Terminal) {
    for _ in 0..KEYS {
        press(bob);
    }
    // Ctrl-U: the line is taken back.
    bob.type_text("\u{15}");
    assert_eq!(bob.shell("echo mine > ~/note; cat ~/note; /bin/echo ran"), "mine\nran");
    let whoami = bob.shell("stockade whoami");
    assert!(whoami.contains("bob"), "{whoami}");
    let token = "curl -sS -o /dev/null -w '%{http_code}' -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
                 http://169.254.169.254/latest/api/token";
    // Typed ahead of the prompt, a line is shown twice.
    let said = bob.shell(token);
    assert!(said.ends_with("200"), "{said}");
}

#[track_caller]
fn press(bob: &mut Terminal) {
    bob.type_text("k");
    bob.wait_for("k");
}

/// When the storm is over, its own user finds nothing broken.
fn is_calm(yard: &Yard, mut storm: Terminal) {
    storm.kill();
    let again = until("a calm session", || Some(yard.ssh("alice").run("echo calm")).filter(|ran| ran.code == Some(0)));
    assert_eq!(again.text(), "calm");
}

#[test]
fn a_fork_bomb_disturbs_nobody() {
    let yard = yard("jail.pids = 64");
    let mut bob = shell(&yard, "bob");
    let mut alice = shell(&yard, "alice");
    alice.enter("bomb() { bomb | bomb & }; bomb");
    alice.wait_for("Resource temporarily unavailable");
    keeps_typing(&mut bob);
    is_calm(&yard, alice);
}

#[test]
fn a_memory_filler_disturbs_nobody() {
    let yard = yard("jail.memory = '64MiB'");
    let mut bob = shell(&yard, "bob");
    let mut alice = shell(&yard, "alice");
    alice.enter("while :; do head -c 1G /dev/zero | tail -c 1G >/dev/null; echo killed ${PIPESTATUS[1]}; done");
    alice.wait_for("killed 137");
    keeps_typing(&mut bob);
    alice.wait_for("killed 137");
    is_calm(&yard, alice);
}

/// The home, the scratch layer and what both have of inodes.
#[test]
fn a_disk_filler_disturbs_nobody() {
    let yard = yard("jail.home_size = '16MiB'");
    let mut bob = shell(&yard, "bob");
    let mut alice = shell(&yard, "alice");
    // A trap, for bash goes on when what Ctrl-C interrupts ends by itself at that moment.
    alice.enter("trap stop=1 INT; while [ -z $stop ]; do for d in ~ /tmp; do head -c 1G /dev/zero > $d/big || echo full $d.; done; done");
    alice.wait_for("full /home/alice\\.");
    alice.wait_for("full /tmp\\.");
    keeps_typing(&mut bob);
    alice.wait_for("full /home/alice\\.");
    alice.type_text("\u{3}");
    alice.prompt();
    alice.shell("rm -f ~/big /tmp/big");
    let files = "fill() { cd $1; i=0; while : 2>/dev/null > f$i; do i=$((i+1)); done; echo $1 took $i.; }";
    alice.shell(files);
    alice.enter("fill ~; fill /tmp; echo both");
    for place in ["/home/alice", "/tmp"] {
        let took = alice.wait_for(&format!("{place} took ([0-9]+)\\."));
        assert!(took[1].parse::<u32>().unwrap() < 40_000, "{place} has no end of files");
    }
    keeps_typing(&mut bob);
    alice.kill();
}

/// "opens 10,000 sockets to the door": what they hold is the jail's, and the neighbour's door answers.
#[test]
fn ten_thousand_sockets_disturb_nobody() {
    let yard = yard("");
    let mut bob = shell(&yard, "bob");
    let flood = r#"
import os, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
for _ in range(3):
    if os.fork() == 0:
        break
held = []
for _ in range(2500):
    try:
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(("169.254.169.254", 80))
        held.append(s)
    except OSError as e:
        print("stopped by", e)
        break
print("holds", len(held), "sockets", flush=True)
sys.stdin.read()
"#;
    yard.ssh("alice").input(flood).run("cat > ~/flood.py").ok();
    let mut alice = shell(&yard, "alice");
    alice.enter("python3 ~/flood.py");
    let held: usize = (0..4).map(|_| alice.wait_for("holds ([0-9]+) sockets")[1].parse::<usize>().unwrap()).sum();
    assert_eq!(held, 10_000);
    yard.audit().wait_for("SK6001W", |event| event["unmapped"]["what"] == "connections to this jail's doors");
    keeps_typing(&mut bob);
    // Ctrl-C ends all four.
    alice.type_text("\u{3}");
    alice.prompt();
    let whoami = until("a door without a crowd", || {
        Some(alice.shell("timeout 10 stockade whoami")).filter(|said| said.contains("alice"))
    });
    assert!(whoami.contains("session"), "{whoami}");
    alice.kill();
}

/// "floods the PTY with 1 GB": every byte arrives, and so do the neighbour's. All of it when `STOCKADE_SOAK` is set.
#[test]
fn a_flooded_terminal_disturbs_nobody() {
    let mebibytes: usize = if std::env::var_os("STOCKADE_SOAK").is_some() { 1024 } else { 64 };
    let yard = yard("");
    let mut bob = shell(&yard, "bob");
    let command = format!("head -c {mebibytes}M /dev/zero | tr '\\0' x | fold -w 4095");
    let mut client = yard.ssh("alice").arg("-tt").command(&[&command]);
    let mut flood = client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut shown = flood.stdout.take().unwrap();
    let counted = std::thread::spawn(move || {
        let (mut buffer, mut count) = ([0; 1 << 16], 0);
        while let Ok(got @ 1..) = shown.read(&mut buffer) {
            count += buffer[..got].iter().filter(|byte| **byte == b'x').count();
        }
        count
    });
    yard.audit().wait_for("SK3001I", |event| event["unmapped"]["arguments"][0] == "fold");
    keeps_typing(&mut bob);
    let ended = within(Duration::from_secs(15 * mebibytes as u64), || flood.try_wait().unwrap());
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "the flood has no end, or a bad one");
    assert_eq!(counted.join().unwrap(), mebibytes << 20);
    keeps_typing(&mut bob);
}

/// Debian's stress-ng with what it is linked to, as a tar.
fn stress_ng() -> Vec<u8> {
    let pack = "set -e; s=$(command -v stress-ng); \
                libs=$(ldd \"$s\" | grep -o '/[^ ]*'); \
                tar -ch --transform 's,.*/,stress/,' \"$s\" $libs";
    let packed = Command::new("sh").args(["-c", pack]).output().unwrap();
    assert!(packed.status.success(), "stress-ng is not installed: {}", String::from_utf8_lossy(&packed.stderr));
    packed.stdout
}

/// "Debian's stress-ng is run in a jail while neighbours type": processors, memory, forks, disk, sockets, terminals,
/// and system calls with arguments that nobody means.
#[test]
fn stress_ng_disturbs_nobody() {
    let yard = yard("jail.home_size = '192MiB'\njail.memory = '256MiB'\njail.pids = 128");
    let mut bob = shell(&yard, "bob");
    yard.ssh("alice").input(stress_ng()).run("tar -x -C ~").ok();
    let stress = "cd ~/stress && ./ld-linux-x86-64.so.2 --library-path . ./stress-ng --temp-path /tmp --timeout 15 \
                  --cpu 1 --vm 1 --vm-bytes 400M --fork 2 --switch 1 --hdd 1 --hdd-bytes 8M --sock 1 --pty 1 \
                  --enosys 1 --sysbadaddr 1 --procfs 1 --dev 1 --futex 1 --mmap 1 --metrics-brief 2>&1";
    let mut storm = yard.ssh("alice").begin(stress);
    yard.audit().wait_for("SK3001I", |event| {
        event["unmapped"]["arguments"].as_array().is_some_and(|all| all.iter().any(|one| one == "--sysbadaddr"))
    });
    let mut pressed = 0;
    while storm.is_running() {
        press(&mut bob);
        pressed += 1;
    }
    assert!(pressed >= KEYS, "only {pressed} keys in the whole storm");
    bob.type_text("\u{15}");
    let said = storm.wait();
    assert!(said.text().contains("sysbadaddr") && said.text().contains("bogo ops"), "{said:?}");
    keeps_typing(&mut bob);
    assert_eq!(yard.ssh("alice").run("echo calm").ok(), "calm");
}

/// "disk full under a running `yes` (session ends with a sentence, the recording verifies, service returns with space)"
#[test]
fn a_disk_that_fills_under_yes_ends_it() {
    let small = Small::new();
    let yard = yard(&small.config());
    let mut bob = shell(&yard, "bob");
    let flood = yard.ssh("alice").arg("-tt").begin("yes");
    yard.audit().wait_for("SK3001I", |event| event["unmapped"]["arguments"][0] == "yes");
    for _ in 0..20 {
        press(&mut bob);
    }
    small.fill(30);
    let ended = flood.wait();
    assert_eq!(ended.code, Some(254), "{}", ended.stderr);
    let tail = ended.stdout.len().saturating_sub(2000);
    let last = String::from_utf8_lossy(&ended.stdout[tail..]).into_owned() + &ended.stderr;
    assert!(last.contains("the bastion's disk is full"), "{last}");
    returns(&yard, &small);
}

/// The flood itself takes all of the disk: noise, which no recording makes smaller.
#[test]
fn a_flood_that_fills_the_disk_ends_itself() {
    let small = Small::new();
    let yard = yard(&small.config());
    let mut bob = shell(&yard, "bob");
    let flood = yard.ssh("alice").arg("-tt").begin("base64 -w 4000 /dev/urandom");
    yard.audit().wait_for("SK3001I", |event| event["unmapped"]["arguments"][0] == "base64");
    for _ in 0..20 {
        press(&mut bob);
    }
    let ended = flood.wait();
    assert_eq!(ended.code, Some(254), "{}", ended.stderr);
    // "under pressure the biggest recent writer ends first": bob goes on.
    press(&mut bob);
    returns(&yard, &small);
}

/// Each of alice's recordings is whole and closed, and with space there are sessions again.
fn returns(yard: &Yard, small: &Small) {
    let closed = yard.audit().wait_for("SK2002I", |_| true);
    assert!(closed["unmapped"]["reason"].as_str().unwrap().contains("recording"), "{closed}");
    let session = closed["session"]["uid"].as_str().unwrap();
    let recording = small.recording(session).closed();
    assert!(recording.show().contains("whole and closed"), "{}", recording.show());
    small.fill(0);
    small.remove(&recording);
    until("sessions again", || (yard.ssh("alice").run("true").code == Some(0)).then_some(()));
}

/// Reading what a process executes wants the lock of its memory map, which its threads can hold: that is the matter of its
/// own jail, and bob's programs start meanwhile.
#[test]
fn a_held_memory_map_holds_up_nobody_else() {
    let yard = Yard::new().user("alice").user("bob").config("jail.cpu = 1.0\njail.memory = '1GiB'").start();
    let hold = yard.path("hold");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/hold.c");
    let built = std::process::Command::new("cc").args(["-O1", "-static", "-pthread", source, "-o"]).arg(&hold).status();
    assert!(built.unwrap().success());
    let program = std::fs::read(&hold).unwrap();
    yard.ssh("alice").input(program).run("cat > hold; chmod +x hold").ok();
    let mut alice = yard.ssh("alice").terminal_of("./hold 150 8 150");
    alice.wait_for("held");
    for _ in 0..40 {
        assert_eq!(yard.ssh("bob").run("true").code, Some(0));
    }
    assert!(alice.is_running(), "forty of bob's take less than alice's 150 seconds");
    alice.kill();
}
