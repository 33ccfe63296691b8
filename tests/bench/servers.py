"""The peers and what they stand on: keys, configurations, an AWS bed, and servers on loopback ports.

Runs in mount and PID namespaces of its own (see run), so users in /etc/passwd, a /run and every process are private.
"""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

from cgroup import Cgroup

TESTS = pathlib.Path(__file__).resolve().parent.parent
USER, UID = "alice", 64210
DOCKER_USER = "bob"  # whose login shell is `docker run`
# A user has 20 jails at most: 500 sessions are those of 25 users.
CROWD = [f"{USER}{number}" for number in range(1, 26)]
# Not the ranges that the tests use: both may run at once.
ROLES = {"gate": 64201, "warden": 64202, "porter": 64203, "keeper": 64204, "tally": 64205}
UID_BASE = 0x78000000
START = 180  # seconds until a server must answer
REST = 15  # seconds until a session must have left nothing behind

SSH_CONFIG = """\
Host {names}
  HostName 127.0.0.1
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
MaxStartups 1000
"""
STOCKADE_TOML = """\
[listen]
ssh = ["127.0.0.1:{port}"]

[ssh]
host_keys = ["{place}/host"]
max_startups = "1000:30:1000"
exempt = ["127.0.0.1"]

[users]
authorized_keys = "{place}/keys"

[aws]
region = "us-east-1"
account = "123456789012"
role = "arn:aws:iam::123456789012:role/bastion/{{user}}"

[jail]
uid_base = {uid_base}
max_jails = 600
scratch_size = "512MiB"

[recording]
directory = "{place}/recordings"

[audit]
file = "{place}/audit/audit.jsonl"

[state]
directory = "{place}/state"

[roles]
{roles}
"""
KUBE_TOML = """\

[kube]
role = "arn:aws:iam::123456789012:role/stockade/kube/{{user}}-kube"

[[kube.cluster]]
name = "hyades"
way = "eks"
endpoint = "{endpoint}"
ca = "{ca}"

[[kube.allow]]
groups = ["*"]
clusters = ["*"]
"""
# A role for each of the crowd, made as the bed makes its own people's.
MORE_PEOPLE = """\
import sys, boto3, seed
root = {"aws_access_key_id": seed.ROOT_KEY, "aws_secret_access_key": seed.ROOT_SECRET, "region_name": seed.REGION}
iam = boto3.client("iam", endpoint_url=sys.argv[1], **root)
for name in sys.argv[2:]:
    seed.make_person(iam, name, [])
"""


class Failed(Exception):
    """What went wrong, in one line."""


class Yard:
    """One directory with everything in it, and the servers."""

    def __init__(self, given, makers):
        self.place, self.binary, self.image = pathlib.Path(given.place), given.binary, given.image
        self.bed_python, self.proxy_python, self.client = given.bed, given.proxy, given.client
        self.run = self.place.name
        self.clusters = None
        self.bed = self.docker = None
        self.peers = [make(self) for make in makers]

    def __enter__(self):
        try:
            self.lay_out()
            if self.clusters:
                self.clusters.start()
            for peer in self.peers:
                peer.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for peer in self.peers:
            peer.stop()
        for process in (self.docker and self.docker.process, self.bed):
            if process:
                end(process)

    def lay_out(self):
        self.place.chmod(0o711)  # homes are in it
        for name in ("id", "host"):
            call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", self.place / name)
        (self.place / "keys").mkdir(mode=0o755)
        for user in (USER, DOCKER_USER, *CROWD):
            shutil.copy(self.place / "id.pub", self.place / "keys" / user)
        lend_users(self.place, {USER: "/bin/bash", DOCKER_USER: self.place / "dockersh"})
        call("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
        os.mkdir("/run/sshd", 0o755)
        key = " ".join((self.place / "host.pub").read_text().split()[:2])
        self.write("known_hosts", "".join(f"[127.0.0.1]:{peer.port} {key}\n" for peer in self.peers))
        hosts = "".join(f"Host {peer.name}\n  Port {peer.port}\n  User {peer.user}\n" for peer in self.peers)
        names = " ".join(peer.name for peer in self.peers)
        self.write("ssh_config", hosts + SSH_CONFIG.format(names=names, place=self.place))

    def write(self, name, text, mode=0o644):
        path = self.place / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def start_bed(self):
        """Starts the AWS emulator, where the clusters have none; its environment for the bastion."""
        found = self.clusters.bastion() if self.clusters else self.start_aws()
        call(self.bed_python, "-B", "-c", MORE_PEOPLE, found["AWS_ENDPOINT_URL"], *CROWD, cwd=TESTS / "bed")
        return found

    def start_aws(self):
        out, ready = self.place / "bed", self.place / "bed.ready"
        # Stands for a service elsewhere: it must not take the processor from a login.
        program = [self.bed_python, "-B", TESTS / "bed/bed_aws.py", "--seed", out, "--ready-file", ready]
        self.bed = spawn(["nice", "-n", "19", *program], self.place / "bed.log")
        wait_until(lambda: ready.exists() and json.loads(ready.read_text() or "null"), self.bed, self.place / "bed.log")
        return dict(line.split("=", 1) for line in (out / "bastion.env").read_text().splitlines())


class Peer:
    """A server, and its processes in a control group."""

    user = USER
    crowd = [USER]  # who log in when many do
    holds = True  # whether its sessions have a home to put a program in

    def __init__(self, yard, name):
        self.yard, self.name, self.port = yard, name, free_port()
        self.log = yard.place / f"{name}.log"
        self.cgroup = Cgroup(yard.run, name)
        self.process = self.fault = None
        self.at_rest = 0

    def start(self):
        """A peer that does not start is a row of failures, not the end of the run."""
        try:
            self.process = spawn(self.argv(), self.log, self.environment(), self.cgroup)
            wait_until(self.answers, self.process, self.log)
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

    def client(self, verb, *arguments):
        """The benchmark's own client, from outside."""
        place = self.yard.place
        return [self.yard.client, verb, f"-port={self.port}", f"-users={','.join(self.crowd)}", f"-key={place}/id",
                f"-host={place}/host.pub", *arguments]

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def warm_up(self):
        """The first logins fill caches and make a home; they are not measured."""
        if self.holds:
            with open(self.yard.client, "rb") as client:
                self.first("cat >client && chmod 755 client", client)
        self.first("true", subprocess.DEVNULL)
        self.settle()

    def first(self, command, source):
        done = subprocess.run(self.ssh(self.name, command), stdin=source, capture_output=True, timeout=START, check=False)
        if done.returncode:
            why = last_line(done.stderr.decode(errors="replace")) or done.returncode
            raise Failed(f"the first login failed: {why}; {tail(self.log)}")

    def settle(self):
        """Learns how many processes the server has when nobody is there: a number that lasts."""
        since = time.monotonic()
        while time.monotonic() < since + 1:
            if (now := len(self.cgroup.pids())) != self.at_rest:
                self.at_rest, since = now, time.monotonic()
            time.sleep(0.02)

    def rest(self):
        """Waits until a session has left nothing behind, so that its end is not the next one's burden."""
        deadline = time.monotonic() + REST
        while (left := len(self.cgroup.pids()) - self.at_rest) > 0:
            if time.monotonic() > deadline:
                self.at_rest += left
                raise Failed(f"{REST} s after the session its server has {left:+} processes")
            time.sleep(0.002)


class Sshd(Peer):
    """The machine's own OpenSSH, with a shell on the host."""

    def __init__(self, yard, name="openssh", pam="no"):
        super().__init__(yard, name)
        self.pam = pam

    def argv(self):
        config = SSHD_CONFIG.format(port=self.port, place=self.yard.place, pam=self.pam)
        config = self.yard.write(f"{self.name}.conf", config)
        # Process 1 of a namespace: no session outlives it.
        return ["unshare", "--pid", "--fork", "--kill-child", shutil.which("sshd"), "-D", "-e", "-f", config]

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()


class SshdPam(Sshd):
    """As Debian ships it."""

    def __init__(self, yard):
        super().__init__(yard, "openssh+pam", "yes")


class Stockade(Peer):
    crowd = CROWD

    def __init__(self, yard):
        super().__init__(yard, "stockade")

    def argv(self):
        place = self.yard.place
        images = place / "state/images"
        images.mkdir(parents=True)
        call(self.yard.binary, "image", "import", self.yard.image, "--directory", images)
        roles = "\n".join(f'{role} = "{uid}:{uid}"' for role, uid in ROLES.items())
        config = STOCKADE_TOML.format(port=self.port, place=place, uid_base=UID_BASE, roles=roles)
        if clusters := self.yard.clusters:
            config += KUBE_TOML.format(endpoint=clusters.endpoint, ca=clusters.ca)
        return [self.yard.binary, "serve", "--config", self.yard.write("stockade.toml", config)]

    def environment(self):
        return self.yard.start_bed()

    def warm_up(self):
        """What IAM says of a user is asked at the first login and then known for a while."""
        for user in CROWD:
            self.crowd = [user]
            done = subprocess.run(self.client("idle"), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=START, check=False)
            if done.returncode:
                raise Failed(f"the first login of {user} failed: {last_line(done.stderr)}; {tail(self.log)}")
        self.crowd = CROWD
        super().warm_up()


def lend_users(place, shells):
    """Users for sshd, in this mount namespace only."""
    lines = {"passwd": [], "group": [], "shadow": []}
    for uid, (user, shell) in enumerate(shells.items(), UID):
        home = place / f"home-{user}"
        home.mkdir(mode=0o755)
        os.chown(home, uid, uid)
        lines["passwd"].append(f"{user}:x:{uid}:{uid}::{home}:{shell}")
        lines["group"].append(f"{user}:x:{uid}:")
        lines["shadow"].append(f"{user}:*:19000:0:99999:7:::")
    for name, new in lines.items():
        real, copy = pathlib.Path("/etc", name), place / name
        others = [old for old in real.read_text().splitlines() if old.partition(":")[0] not in shells]
        copy.touch(mode=0o640 if name == "shadow" else 0o644)
        copy.write_text("\n".join([*others, *new, ""]))
        call("mount", "--bind", copy, real)


def spawn(argv, log, environment=None, cgroup=None):
    with open(log, "ab") as out:
        return subprocess.Popen(list(map(str, argv)), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                env={**os.environ, **(environment or {})}, preexec_fn=cgroup and cgroup.enter)


def call(*argv, cwd=None, environment=None):
    environment = {**os.environ, **(environment or {})}
    program = shutil.which(str(argv[0]), path=environment["PATH"]) or argv[0]
    done = subprocess.run(list(map(str, [program, *argv[1:]])), capture_output=True, text=True, check=False, cwd=cwd,
                          env=environment)
    if done.returncode:
        raise Failed(f"{pathlib.Path(argv[0]).name} {argv[1]}: {last_line(done.stderr) or done.returncode}")
    return done.stdout


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
