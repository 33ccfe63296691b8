"""What is measured of sessions: logins, prompts, streams, credentials. Each takes a peer and gives its rows' values."""
import json
import os
import pty
import re
import select
import signal
import subprocess
import time

from servers import Failed, last_line

PATIENCE = 60  # seconds for one run
CIPHERS = {"aes256": "aes256-gcm@openssh.com", "chacha20": "chacha20-poly1305@openssh.com"}


def login(peer, _):
    """ssh host true"""
    started = time.perf_counter()
    done = subprocess.run(peer.ssh(peer.name, "true"), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=PATIENCE, check=False)
    took = time.perf_counter() - started
    if done.returncode:
        raise Failed(f"exit status {done.returncode}: {last_line(done.stderr)}")
    return {"ssh host true": took * 1e3}


def prompt(peer, _):
    """A shell in a real terminal, until it can be typed at, and until it has ended."""
    argv = peer.ssh("-tt", peer.name)
    started = time.perf_counter()
    child, terminal = pty.fork()
    if child == 0:
        try:
            os.execvp(argv[0], argv)
        finally:
            os._exit(127)
    try:
        read_until(terminal, b"$ ")
        shown = time.perf_counter()
        os.write(terminal, b"exit\r")
        read_until(terminal, None)
    finally:
        os.close(terminal)
        status = reap(child)
    if status:
        raise Failed(f"ssh ended with {status}")
    return {"first prompt": (shown - started) * 1e3, "prompt, exit, closed": (time.perf_counter() - started) * 1e3}


def logins(peer, given):
    """Connect, `true`, close on 16 ways at one time, by the benchmark's own client: ssh's start would be most of it."""
    told = told_by(peer.client("logins", "-ways=16", f"-seconds={given.seconds}"))
    return {"16-way logins": told["rate"], "one of 16": told["p50"]}, told["count"]


def bulk(cipher, up):
    """A stream in one direction, timed from the program's start there to the end of ssh, and counted at its far end."""
    name = f"exec {'in' if up else 'out'}, {cipher}"

    def run(peer, given):
        remote = "echo go >&2; " + ("wc -c" if up else f"head -c {given.bytes} /dev/zero")
        argv = peer.ssh("-c", CIPHERS[cipher], peer.name, remote)
        source = ["head", "-c", str(given.bytes), "/dev/zero"] if up else ["true"]
        counter = ["cat"] if up else ["wc", "-c"]
        pipe = {"stdout": subprocess.PIPE}
        with subprocess.Popen(source, **pipe) as feed, \
                subprocess.Popen(argv, stdin=feed.stdout, stderr=subprocess.PIPE, **pipe) as ssh, \
                subprocess.Popen(counter, stdin=ssh.stdout, **pipe) as count:
            try:
                feed.stdout.close()
                ssh.stdout.close()
                read_until(ssh.stderr.fileno(), b"go\n")
                started = time.perf_counter()
                ssh.wait(PATIENCE)
                took = time.perf_counter() - started
                counted = int(count.communicate(timeout=PATIENCE)[0] or -1)
            finally:
                for process in (feed, ssh, count):
                    process.kill()
        if ssh.returncode or counted != given.bytes:
            raise Failed(f"exit status {ssh.returncode}, {counted} of {given.bytes} bytes arrived")
        return {name: given.bytes / 1e6 / took}

    return name, run


# What an SDK's three requests take together, right after the login.
CREDENTIALS = r"""
set -eu
metadata=http://169.254.169.254/latest said=
ask() { said=$(curl -sf -w ' %{time_total}' "$@"); echo "${said##* }"; said=${said% *}; }
ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' $metadata/api/token; token=$said
ask -H "X-aws-ec2-metadata-token: $token" $metadata/meta-data/iam/security-credentials/; role=$said
ask -H "X-aws-ec2-metadata-token: $token" $metadata/meta-data/iam/security-credentials/$role
case $said in *SecretAccessKey*) ;; *) echo "no credentials: $said" >&2; exit 1 ;; esac
"""


def credentials(peer, _):
    """An SDK's first answer."""
    done = subprocess.run(peer.ssh(peer.name, "bash", "-s"), input=CREDENTIALS, capture_output=True, text=True,
                          timeout=PATIENCE, check=False)
    if done.returncode:
        raise Failed(f"exit status {done.returncode}: {last_line(done.stderr)}")
    return {"first, after a login": sum(map(float, done.stdout.split())) * 1e3}


def aws(peer, _):
    """A program that finds them with no configuration."""
    script = "began=$EPOCHREALTIME; aws configure list; echo $((${EPOCHREALTIME/./} - ${began/./}))"
    done = subprocess.run(peer.ssh(peer.name, script), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=PATIENCE, check=False)
    if done.returncode or not re.search("(iam|container)-role", done.stdout):
        raise Failed(f"exit status {done.returncode}, no role's key: {last_line(done.stderr)}")
    return {"aws configure list": int(last_line(done.stdout)) / 1e3}


def door(ways):
    """Credentials that are there already, on kept connections: from a jail, and from beside metadataproxy."""
    kept = f"{ways} kept"

    def run(peer, given):
        asked = ["door", f"-ways={ways}", f"-seconds={given.seconds}"]
        if peer.name == "metadataproxy":
            told = told_by([peer.yard.client, *asked, f"-url=127.0.0.1:{peer.port}/{peer.path}"])
        else:
            path = f"latest/meta-data/iam/security-credentials/{peer.user}"
            told = told_by(peer.ssh(peer.name, "./client", *asked, "-token", f"-url=169.254.169.254:80/{path}"))
        return {f"p50, {kept}": told["p50"], f"p99, {kept}": told["p99"], f"requests, {kept}": told["rate"]}

    return run


def told_by(argv):
    """What the benchmark's own client has measured."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        raise Failed(f"exit status {done.returncode}: {last_line(done.stderr)}")
    return json.loads(done.stdout)


def read_until(descriptor, wanted):
    """Reads until something is there, or until the end if nothing is wanted."""
    seen, deadline = b"", time.monotonic() + PATIENCE
    while wanted is None or wanted not in seen:
        if not select.select([descriptor], [], [], max(0, deadline - time.monotonic()))[0]:
            raise Failed(f"{wanted or 'the end'} was not seen within {PATIENCE} s, but {seen[-200:]}")
        try:
            got = os.read(descriptor, 65536)
        except OSError:  # a terminal's end
            got = b""
        if not got and wanted is None:
            return
        if not got:
            raise Failed(f"it ended before {wanted} with {last_line(seen.decode(errors='replace'))!r}")
        seen += got


def reap(child):
    """The exit status of a child that has seen its terminal close."""
    deadline = time.monotonic() + 5
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.0005)
    return os.waitstatus_to_exitcode(ended[1])
