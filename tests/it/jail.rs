//! Issue item 3: the native jail, looked at from inside and from outside.

use crate::yard::{Yard, status_of, until};

/// One field of /proc/PID/status as the program in the jail sees it.
fn status(yard: &Yard, field: &str) -> String {
    yard.ssh("alice").run(&format!("grep '^{field}:' /proc/self/status | cut -f2-")).ok()
}

/// "The user is their own name", in a home of their own, with a uid that is nobody's outside.
#[test]
fn the_user_is_their_own_name() {
    let yard = Yard::new().user("alice").user("bob").start();
    for user in ["alice", "bob"] {
        let said = yard.ssh(user).run("id -un; id -gn; id -u; pwd; echo ~; stat -c %U:%a ~; hostname").ok();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(&lines[..6], [user, user, "1000", &format!("/home/{user}"), &format!("/home/{user}"), lines[5]]);
        assert!(lines[5].starts_with(&format!("{user}:7")), "{said}");
        assert!(!lines[6].is_empty());
    }
    assert_eq!(yard.ssh("alice").run("id -G").ok(), "1000");
}

/// "no capabilities, no_new_privs, stacked seccomp"
#[test]
fn nothing_is_left_to_gain() {
    let yard = Yard::new().user("alice").start();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(&yard, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(&yard, "NoNewPrivs"), "1");
    assert_eq!(status(&yard, "Seccomp"), "2");
    let filters: u32 = status(&yard, "Seccomp_filters").parse().unwrap();
    assert!(filters >= 2, "stacked: {filters}");
    let setuid = yard.ssh("alice").run("find / -xdev -perm /6000 2>/dev/null").text();
    assert_eq!(setuid, "", "setuid and setgid files");
}

/// "no network": nothing but lo, and nothing beyond it answers, at once and not after a timeout.
#[test]
fn there_is_no_network_but_doors() {
    let yard = Yard::new().user("alice").start();
    let devices = yard.ssh("alice").run("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").ok();
    assert_eq!(devices, "lo");
    let started = std::time::Instant::now();
    for address in ["1.1.1.1/443", "10.0.0.1/22", "192.168.0.1/80"] {
        let ran = yard.ssh("alice").run(&format!("exec 3<>/dev/tcp/{address}"));
        assert_ne!(ran.code, Some(0));
        assert!(ran.stderr.contains("unreachable"), "{}", ran.stderr);
    }
    assert!(started.elapsed().as_secs() < 15);
    let ran = yard.ssh("alice").run(&format!("exec 3<>/dev/tcp/127.0.0.1/{}", yard.port()));
    assert!(ran.stderr.contains("refused"), "the host's lo: {}", ran.stderr);
}

/// "all namespaces": each is another than the host's.
#[test]
fn every_namespace_is_the_jails_own() {
    let yard = Yard::new().user("alice").start();
    let jail = yard.ssh("alice").run("cd /proc/self/ns && for n in *; do readlink $n; done").ok();
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let host = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        let host = host.to_str().unwrap();
        assert!(jail.contains(&format!("{name}:[")) && !jail.lines().any(|one| one == host), "{name}: {jail}");
    }
}

/// The recipe's list of what must be refused inside.
#[test]
fn the_kernels_doors_are_shut() {
    let yard = Yard::new().user("alice").start();
    for command in [
        "mount -t tmpfs none /mnt",
        "mount --bind /tmp /mnt",
        "umount /proc",
        "unshare -U true",
        "unshare -Ur true",
        "unshare -n true",
        "unshare -m true",
        "mknod /tmp/null c 1 3",
        "mknod ~/null c 1 3",
        "dmesg",
        "chroot / true",
        "cat /proc/kcore | head -c 1 | grep -q .",
        "cat /proc/1/environ",
        "ls /proc/1/root/",
        "ls /proc/1/fd/",
        "readlink /proc/1/exe",
        "cat /proc/1/maps | grep -q .",
        "kill -9 1",
        "echo h > /proc/sysrq-trigger",
        "echo x > /proc/sys/kernel/hostname",
        "echo 1 > /proc/sys/vm/drop_caches",
        "echo x > /proc/sys/kernel/core_pattern",
        "hostname other",
        "nsenter -t 1 -m true",
        "su -c true",
        "date -s 2020-01-01",
        "chown root /tmp",
        "ls /sys/kernel",
        "cat /dev/mem",
        "ls /dev/kmsg",
        "losetup -a | grep -q .",
        "ip link add dummy0 type dummy",
    ] {
        let ran = yard.ssh("alice").run(&format!("{command} && echo POSSIBLE"));
        assert!(!ran.text().contains("POSSIBLE"), "{command}: {}{}", ran.text(), ran.stderr);
    }
}

/// "masks", "No /sys at all": what there is of /proc and /dev.
#[test]
fn proc_and_dev_are_masked() {
    let yard = Yard::new().user("alice").start();
    assert_eq!(yard.ssh("alice").run("ls -A /sys 2>/dev/null | wc -l").ok(), "0");
    for file in ["kcore", "keys", "timer_list", "kallsyms", "kmsg"] {
        let ran = yard.ssh("alice").run(&format!("head -c 10 /proc/{file} 2>/dev/null | wc -c"));
        assert_eq!(ran.ok(), "0", "/proc/{file}");
    }
    for directory in ["bus", "fs", "irq", "sys", "sysrq-trigger"] {
        if !std::path::Path::new("/proc").join(directory).exists() {
            continue;
        }
        let options = yard.ssh("alice").run(&format!("grep ' /proc/{directory} ' /proc/self/mounts | cut -d' ' -f4"));
        assert!(options.ok().split(',').any(|one| one == "ro"), "/proc/{directory}: {}", options.text());
    }
    let nodes = yard.ssh("alice").run("ls /dev").ok();
    for node in nodes.split_whitespace() {
        let known = [
            "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero",
        ];
        assert!(known.contains(&node), "/dev/{node}");
    }
    let processes = yard.ssh("alice").run("ls -d /proc/[0-9]* | wc -l").ok();
    assert!(processes.parse::<u32>().unwrap() < 10, "only the jail's own: {processes}");
}

/// "idmapped read-only image, overlay with size limit": writes go to a layer that ends with the jail and has its limit.
#[test]
fn the_image_is_below_and_scratch_is_limited() {
    let yard = Yard::new().user("alice").start();
    assert_eq!(yard.ssh("alice").run("stat -c '%U %G' / /etc /usr/bin | sort -u").ok(), "root root");
    for path in ["/x", "/etc/passwd", "/usr/bin/x", "/usr/bin/stockade"] {
        let ran = yard.ssh("alice").run(&format!("echo x >> {path}"));
        assert_ne!(ran.code, Some(0), "{path}");
    }
    let full = yard.ssh("alice").run("head -c 64M /dev/zero > /tmp/big; stat -c %s /tmp/big");
    assert!(full.stderr.contains("No space left on device"), "{}", full.stderr);
    assert!(full.ok().parse::<u64>().unwrap() <= 16 << 20);
    assert_eq!(yard.ssh("alice").run("ls -A /tmp").ok(), "", "the next jail begins clean");
    let many = yard
        .ssh("alice")
        .run("cd /tmp && i=0; while [ $i -lt 40000 ]; do : > $i || break; i=$((i+1)); done 2>/dev/null; echo $i");
    assert!(many.ok().parse::<u32>().unwrap() < 40_000, "inodes have a limit");
    let shm = yard.ssh("alice").run("head -c 256M /dev/zero > /dev/shm/x");
    assert_ne!(shm.code, Some(0), "/dev/shm has a limit");
}

/// "limits on v1 and v2 cgroups": processes.
#[test]
fn a_fork_bomb_stays_in_its_jail() {
    let yard = Yard::new().user("alice").user("bob").config("jail.pids = 40").start();
    let bomb =
        yard.ssh("alice").run("for i in $(seq 100); do sleep 30 & done 2>/tmp/e; grep -c . /tmp/e; jobs -r | wc -l");
    assert!(bomb.stderr.contains("Resource temporarily unavailable") || bomb.code != Some(0), "{bomb:?}");
    assert_eq!(yard.ssh("bob").run("echo fine").ok(), "fine");
}

/// "limits": memory.
#[test]
fn a_glutton_is_killed_in_its_jail() {
    let yard = Yard::new().user("alice").config("jail.memory = '64MiB'").start();
    let glutton =
        yard.ssh("alice").run("head -c 200M /dev/zero | tail -c 200M > /dev/null; echo status ${PIPESTATUS[1]}");
    assert_eq!(glutton.ok(), "status 137", "{}", glutton.stderr);
    assert_eq!(yard.ssh("alice").run("echo fine").ok(), "fine");
}

/// "limits": processor time. A fifth of a processor takes about five times as long as the work does.
#[test]
fn a_busy_jail_is_throttled() {
    let yard = Yard::new().user("alice").config("jail.cpu = 0.2").start();
    // User time over wall time, in percent.
    let ran = yard.ssh("alice").run("TIMEFORMAT='%R %U %S'; time (i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done)");
    let numbers: Vec<f64> = ran.stderr.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let share = (numbers[1] + numbers[2]) / numbers[0];
    assert!(share < 0.4, "{share} of a processor: {}", ran.stderr);
}

/// "the home ... with a size limit, ... shared by that user's jails"; nobody else sees it.
#[test]
fn a_home_is_its_users_and_has_an_end() {
    let yard = Yard::new().user("alice").user("bob").start();
    yard.ssh("alice").run("echo kept > ~/note; mkdir ~/d; ln -s /etc ~/d/link; chmod 600 ~/note").ok();
    assert_eq!(
        yard.ssh("alice").run("cat ~/note; stat -c %U ~/note").ok(),
        "kept\nalice",
        "from one session to the next"
    );
    assert_eq!(yard.ssh("bob").run("ls -A ~; ls /home").ok(), "bob");
    let full = yard.ssh("alice").run("head -c 100M /dev/zero > ~/big; stat -c %s ~/big; rm ~/big");
    assert!(full.stderr.contains("No space left on device"), "{}", full.stderr);
    assert!(full.text().parse::<u64>().unwrap() < 32 << 20);
    for option in ["nosuid", "nodev"] {
        let options = yard.ssh("alice").run("grep ' /home/alice ' /proc/self/mounts | cut -d' ' -f4").ok();
        assert!(options.split(',').any(|one| one == option), "{options}");
    }
}

/// "shared by that user's jails": two at the same time see each other's files, not each other's processes or /tmp.
#[test]
fn two_jails_of_one_user_share_only_the_home() {
    let yard = Yard::new().user("alice").start();
    let mut one = yard.ssh("alice").terminal();
    one.prompt();
    let mut two = yard.ssh("alice").terminal();
    two.prompt();
    one.shell("echo hello > ~/shared; echo hidden > /tmp/hidden; sleep 777 & echo");
    assert_eq!(two.shell("cat ~/shared; ls /tmp; ps -e | grep -c [s]leep"), "hello\n0");
    two.shell("echo back > ~/shared");
    assert_eq!(one.shell("cat ~/shared"), "back");
    two.enter("exit");
    assert_eq!(two.end(), 0);
    assert_eq!(one.shell("cat ~/shared"), "back", "the home stays while one jail has it");
}

/// "or ephemeral by configuration"
#[test]
fn an_ephemeral_home_goes_with_its_jail() {
    let yard = Yard::new().user("alice").config("jail.home = 'ephemeral'").start();
    assert_eq!(yard.ssh("alice").run("echo x > ~/note; cat ~/note").ok(), "x");
    assert_eq!(yard.ssh("alice").run("ls ~; stat -c %U ~").ok(), "alice");
}

/// "nested user namespaces refused twice", "AF_VSOCK and AF_ALG refused", "TIOCSTI refused", by the calls themselves.
#[test]
fn calls_that_reach_past_the_jail_are_refused() {
    let yard = Yard::new().user("alice").start();
    let python = r#"
import socket, os, fcntl, ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def tried(name, run):
    try:
        run()
        print(name, "POSSIBLE")
    except OSError as e:
        print(name, errno.errorcode[e.errno])
def call(number, *args):
    if libc.syscall(number, *args) == -1:
        raise OSError(ctypes.get_errno(), "")
tried("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))
tried("alg", lambda: socket.socket(38, socket.SOCK_SEQPACKET))
tried("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
tried("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
tried("netlink-audit", lambda: socket.socket(16, socket.SOCK_RAW, 9))
tried("userns", lambda: call(272, 0x10000000))
tried("userns-high-bits", lambda: call(272, ctypes.c_ulong(0x10000000 | 1 << 32)))
tried("clone-userns", lambda: call(56, 0x10000011, 0, 0, 0, 0))
tried("keyctl", lambda: call(250, 0, 0))
tried("add_key", lambda: call(248, b"user", b"x", b"y", 1, -3))
tried("bpf", lambda: call(321, 0, 0, 0))
tried("perf", lambda: call(298, 0, 0, 0, 0, 0))
tried("userfaultfd", lambda: call(323, 0))
tried("io_uring", lambda: call(425, 1, ctypes.create_string_buffer(256)))
tried("open_by_handle", lambda: call(304, -1, ctypes.create_string_buffer(64), 0))
tried("kexec", lambda: call(246, 0, 0, 0, 0))
tried("init_module", lambda: call(175, 0, 0, 0))
tried("pivot_root", lambda: call(155, b".", b"."))
tried("open_tree", lambda: call(428, -100, b"/", 1))
tried("fsopen", lambda: call(430, b"tmpfs", 0))
tried("setns", lambda: call(308, 0, 0))
tried("ptrace-init", lambda: call(101, 16, 1, 0, 0))
tried("reboot", lambda: call(169, 0, 0, 0, 0))
tried("sync", lambda: call(162))
tried("personality", lambda: call(135, 0x0040000))
try:
    tty = os.open("/dev/tty", os.O_RDWR)
    tried("TIOCSTI", lambda: fcntl.ioctl(tty, 0x5412, b"x"))
    tried("TIOCLINUX", lambda: fcntl.ioctl(tty, 0x541C, b"\x06"))
    tried("TIOCSETD", lambda: fcntl.ioctl(tty, 0x5423, b"\x02\0\0\0"))
    tried("TIOCCONS", lambda: fcntl.ioctl(tty, 0x541D))
except OSError as e:
    print("no tty", e)
"#;
    yard.ssh("alice").input(python).run("cat > ~/try.py").ok();
    if yard.ssh("alice").run("command -v python3").code != Some(0) {
        panic!("the image has no python3 to try system calls with");
    }
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    let said = terminal.shell("python3 ~/try.py");
    assert!(said.lines().count() >= 28, "{said}");
    let possible: Vec<&str> =
        said.lines().filter(|line| line.contains("POSSIBLE") || line.contains("EFAULT")).collect();
    assert!(possible.is_empty(), "{said}");
}

/// "init exec'd from a sealed memfd, foreign uid for init": seen from outside.
#[test]
fn process_one_is_nobody_from_a_memfd() {
    let yard = Yard::new().user("alice").start();
    let mut client = yard.ssh("alice").input("").begin("echo here; sleep 30");
    yard.audit().wait_for("SK2003I", |_| true);
    let init = until("the jail's process 1", || {
        crate::yard::children(yard.jailer()).into_iter().find(|pid| {
            let status = status_of(*pid).unwrap_or_default();
            status
                .lines()
                .any(|line| line.starts_with("NSpid:") && line.split_whitespace().count() == 3 && line.ends_with("\t1"))
                && std::fs::read_link(format!("/proc/{pid}/exe"))
                    .is_ok_and(|exe| exe.to_string_lossy().contains("memfd:"))
        })
    });
    let status = status_of(init).unwrap();
    let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    let foreign = yard.uid_base()..yard.uid_base() + 8 * 65_536;
    let uids: Vec<u32> = uid.split_whitespace().skip(1).map(|one| one.parse().unwrap()).collect();
    assert!(uids.iter().all(|uid| foreign.contains(uid) && (uid - yard.uid_base()) % 65_536 != 1000), "{uid}");
    for (field, value) in [("CapEff", "0000000000000000"), ("CapBnd", "0000000000000000"), ("NoNewPrivs", "1")] {
        assert!(status.lines().any(|line| line == format!("{field}:\t{value}")), "{field}: {status}");
    }
    let exe = std::fs::read_link(format!("/proc/{init}/exe")).unwrap();
    assert!(exe.to_string_lossy().contains("memfd:"), "{exe:?}");
    let seen = yard.ssh("alice").run("cat /proc/1/cmdline | tr '\\0' ' '").ok();
    assert!(!seen.contains("serve") && !seen.contains("--config"), "the jailer's command line is seen: {seen}");
    client.kill();
    client.wait();
}

/// "The jail has the `stockade` command (the same binary, read-only)"
#[test]
fn the_jail_has_the_stockade_command() {
    let yard = Yard::new().user("alice").start();
    let ran = yard.ssh("alice").run("command stockade whoami --json");
    let whoami: serde_json::Value = serde_json::from_str(&ran.ok()).unwrap();
    assert_eq!(whoami["user"], "alice");
    let session = yard.audit().wait_for("SK2001I", |_| true)["session"]["uid"].clone();
    assert_eq!(whoami["session"], session);
}

/// "limits": no more jails than configured; the next one is refused with a sentence and an event.
#[test]
fn there_are_only_so_many_jails() {
    let yard = Yard::new().user("alice").user("bob").config("jail.max_jails = 1").start();
    let mut one = yard.ssh("alice").terminal();
    one.prompt();
    let two = yard.ssh("bob").run("true");
    assert_eq!(two.code, Some(253), "{}", two.stderr);
    assert!(two.stderr.contains("no jail could be made"), "{}", two.stderr);
    yard.audit().wait_for("SK6001W", |event| event["unmapped"]["what"].as_str().unwrap().contains("jails"));
    one.enter("exit");
    assert_eq!(one.end(), 0);
    until("the place is free again", || (yard.ssh("bob").run("true").code == Some(0)).then_some(()));
}

/// One user does not take all places.
#[test]
fn one_user_has_only_so_many_jails() {
    let yard = Yard::new().user("alice").user("bob").config("jail.max_jails = 1").start();
    let mut one = yard.ssh("alice").terminal();
    one.prompt();
    let two = yard.ssh("alice").run("true");
    assert_eq!(two.code, Some(253), "{}", two.stderr);
    assert!(two.stderr.contains("as many sessions as one user may"), "{}", two.stderr);
    let event = yard.audit().wait_for("SK6001W", |_| true);
    assert!(event["message"].as_str().unwrap().contains("alice has 1 jails"), "{event}");
    // Whoever goes on trying does not fill the audit.
    assert_eq!(yard.ssh("alice").run("true").code, Some(253));
    yard.audit().wait_for("SK1003I", |_| yard.audit().of("SK1003I").len() == 3);
    assert_eq!(yard.audit().of("SK6001W").len(), 1);
    assert_eq!(one.shell("echo goes on"), "goes on");
}
