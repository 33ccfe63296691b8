"""The peers and what they stand on: keys, configurations, an AWS bed, sshd and stockade on loopback ports.

Runs in mount and PID namespaces of its own (see run), so a user in /etc/passwd, a /run and every process are private.
"""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

TESTS = pathlib.Path(__file__).resolve().parent.parent
USER, UID = "alice", 64210
# Not the ranges that the tests use: both may run at once.
ROLES = {"gate": 64201, "warden": 64202, "porter": 64203, "keeper": 64204, "tally": 64205}
UID_BASE = 0x78000000
START = 60  # seconds until a server must answer
REST = 15  # seconds until a session must have left nothing behind

SSH_CONFIG = """\
Host {names}
  HostName 127.0.0.1
  User {user}
  IdentityFile {place}/id
  IdentitiesOnly yes
  IdentityAgent none
  BatchMode yes
  GlobalKnownHostsFile /dev/null
  UserKnownHostsFile {place}/known_hosts
  StrictHostKeyChecking yes
  # What both have: the client's own first choice costs OpenSSH another 70 ms.
  KexAlgorithms curve25519-sha256
  LogLevel ERROR
"""
SSHD_CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {place}/host
AuthorizedKeysFile {place}/keys/%u
# The keys lie below /tmp, which everybody can write to.
StrictModes no
PidFile none
UsePAM {pam}
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
"""
STOCKADE_TOML = """\
[listen]
ssh = ["127.0.0.1:{port}"]

[ssh]
host_keys = ["{place}/host"]

[users]
authorized_keys = "{place}/keys"

[aws]
region = "us-east-1"
account = "123456789012"
role = "arn:aws:iam::123456789012:role/bastion/{{user}}"

[jail]
uid_base = {uid_base}
max_jails = 100

[recording]
directory = "{place}/recordings"

[audit]
file = "{place}/audit/audit.jsonl"

[state]
directory = "{place}/state"

[roles]
{roles}
"""


class Failed(Exception):
    """What went wrong, in one line."""


class Yard:
    """One directory with everything in it, and the servers."""

    def __init__(self, place, binary, image, bed_python, names):
        self.place, self.binary, self.image, self.bed_python = pathlib.Path(place), binary, image, bed_python
        self.bed = None
        self.peers = [Stockade(self) if name == "stockade" else Sshd(self, name, "pam" in name) for name in names]

    def __enter__(self):
        try:
            self.lay_out()
            for peer in self.peers:
                peer.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for peer in self.peers:
            peer.stop()
        if self.bed:
            end(self.bed)

    def lay_out(self):
        self.place.chmod(0o711)  # alice's home is in it
        for name in ("id", "host"):
            call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", self.place / name)
        (self.place / "keys").mkdir(mode=0o755)
        shutil.copy(self.place / "id.pub", self.place / "keys" / USER)
        lend_user(self.place)
        call("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
        os.mkdir("/run/sshd", 0o755)
        key = " ".join((self.place / "host.pub").read_text().split()[:2])
        names = [peer.name for peer in self.peers]
        config = SSH_CONFIG.format(names=" ".join(names), user=USER, place=self.place)
        self.write("known_hosts", "".join(f"[127.0.0.1]:{peer.port} {key}\n" for peer in self.peers))
        self.write("ssh_config", "".join(f"Host {peer.name}\n  Port {peer.port}\n" for peer in self.peers) + config)

    def write(self, name, text):
        path = self.place / name
        path.write_text(text)
        return path

    def start_bed(self):
        """Starts the AWS emulator; its environment for the bastion."""
        out, ready = self.place / "bed", self.place / "bed.ready"
        # Stands for a service elsewhere: it must not take the processor from a login.
        program = [self.bed_python, "-B", TESTS / "bed/bed_aws.py", "--seed", out, "--ready-file", ready]
        self.bed = spawn(["nice", "-n", "19", *program], self.place / "bed.log")
        wait_until(lambda: ready.exists() and json.loads(ready.read_text() or "null"), self.bed, self.place / "bed.log")
        return dict(line.split("=", 1) for line in (out / "bastion.env").read_text().splitlines())


class Peer:
    """A server and its processes."""

    def __init__(self, yard, name):
        self.yard, self.name, self.port = yard, name, free_port()
        self.log = yard.place / f"{name}.log"
        self.process = self.fault = None
        self.at_rest = 0

    def start(self):
        """A peer that does not start is a row of failures, not the end of the run."""
        try:
            self.process = spawn(self.argv(), self.log, self.environment())
            wait_until(self.greets, self.process, self.log)
            self.warm_up()
        except (Failed, OSError, subprocess.SubprocessError) as error:
            self.fault = f"not up: {error}"

    def stop(self):
        if self.process:
            end(self.process)

    def environment(self):
        return {}

    def ssh(self, *arguments):
        return ["ssh", "-F", str(self.yard.place / "ssh_config"), *arguments]

    def greets(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def warm_up(self):
        """The first login fills caches and makes a home; it is not measured."""
        for _ in range(2):
            done = subprocess.run(self.ssh(self.name, "echo", "up"), stdin=subprocess.DEVNULL, capture_output=True,
                                  text=True, timeout=START, check=False)
            if done.stdout != "up\n":
                raise Failed(f"the first login failed: {last_line(done.stderr) or done.returncode}; {tail(self.log)}")
        self.settle()

    def settle(self):
        """Learns how many processes the server has when nobody is there: a number that lasts."""
        since = time.monotonic()
        while time.monotonic() < since + 1:
            if (now := len(tree(self.process.pid))) != self.at_rest:
                self.at_rest, since = now, time.monotonic()
            time.sleep(0.02)

    def rest(self):
        """Waits until a session has left nothing behind, so that its end is not the next one's burden."""
        deadline = time.monotonic() + REST
        while (left := len(tree(self.process.pid)) - self.at_rest) != 0:
            if time.monotonic() > deadline:
                self.at_rest += left
                raise Failed(f"{REST} s after the session its server has {left:+} processes")
            time.sleep(0.002)

    def cpu(self):
        """Seconds that the server and its ended children have used. A child counts when it is waited for."""
        return sum(map(process_cpu, tree(self.process.pid)))


class Sshd(Peer):
    def __init__(self, yard, name, pam):
        super().__init__(yard, name)
        self.pam = "yes" if pam else "no"

    def argv(self):
        config = SSHD_CONFIG.format(port=self.port, place=self.yard.place, pam=self.pam)
        config = self.yard.write(f"{self.name}.conf", config)
        # Process 1 of a namespace, for sshd's monitor does not wait for the process that carries the stream: here it
        # becomes the listener's child, and its CPU is counted.
        return ["unshare", "--pid", "--fork", "--kill-child", shutil.which("sshd"), "-D", "-e", "-f", config]

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()


class Stockade(Peer):
    def __init__(self, yard):
        super().__init__(yard, "stockade")

    def argv(self):
        place = self.yard.place
        images = place / "state/images"
        images.mkdir(parents=True)
        call(self.yard.binary, "image", "import", self.yard.image, "--directory", images)
        roles = "\n".join(f'{role} = "{uid}:{uid}"' for role, uid in ROLES.items())
        config = STOCKADE_TOML.format(port=self.port, place=place, uid_base=UID_BASE, roles=roles)
        return [self.yard.binary, "serve", "--config", self.yard.write("stockade.toml", config)]

    def environment(self):
        return self.yard.start_bed()


def lend_user(place):
    """A user for sshd, in this mount namespace only."""
    home = place / "home"
    home.mkdir(mode=0o755)
    os.chown(home, UID, UID)
    lines = {"passwd": f"{USER}:x:{UID}:{UID}::{home}:/bin/bash", "group": f"{USER}:x:{UID}:",
             "shadow": f"{USER}:*:19000:0:99999:7:::"}
    for name, line in lines.items():
        real, copy = pathlib.Path("/etc", name), place / name
        others = [old for old in real.read_text().splitlines() if not old.startswith(f"{USER}:")]
        copy.touch(mode=0o640 if name == "shadow" else 0o644)
        copy.write_text("\n".join([*others, line, ""]))
        call("mount", "--bind", copy, real)


def spawn(argv, log, environment=None):
    with open(log, "ab") as out:
        return subprocess.Popen(list(map(str, argv)), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                env={**os.environ, **(environment or {})})


def call(*argv):
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{pathlib.Path(argv[0]).name} {argv[1]}: {last_line(done.stderr) or done.returncode}")


def end(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until(state, process, log):
    deadline = time.monotonic() + START
    while not state():
        if process.poll() is not None:
            raise Failed(f"it ended with {process.returncode}: {tail(log)}")
        if time.monotonic() > deadline:
            raise Failed(f"no answer within {START} s: {tail(log)}")
        time.sleep(0.02)


def last_line(text):
    return ([""] + [line.strip() for line in text.splitlines() if line.strip()])[-1]


def tail(log):
    return " | ".join(line for line in log.read_text(errors="replace").splitlines()[-3:] if line) or "its log is empty"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stat_fields(pid):
    # The name in parentheses may hold anything; fields are counted from behind it.
    return pathlib.Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()


def tree(root):
    """The pids of a process and of all below it."""
    children = {}
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit():
                children.setdefault(int(stat_fields(entry)[1]), []).append(int(entry))
        except OSError:
            continue  # ended meanwhile
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def process_cpu(pid):
    try:
        fields = stat_fields(pid)
        # Its own time by its clock, to the nanosecond; of ended children the kernel tells ticks.
        return time.clock_gettime((~pid << 3) | 2) + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return 0.0
