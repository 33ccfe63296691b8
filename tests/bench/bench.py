#!/usr/bin/env python3
"""stockade beside OpenSSH, in one run: logins, prompts, streams, credentials, and what they cost the server.

In each round every peer runs each measurement once, in an order that rotates. A ratio is the median over the rounds of
stockade's value by OpenSSH's of the same round; CPU is the mean of all rounds, for the kernel tells ended children's in
ticks. p95 is the bad end: of a rate, the low one. Nothing is asserted about time; a measurement that fails says so and
the exit status is 1. Started by tests/bench/run, which takes these options and also makes what is missing.
"""
import argparse
import collections
import json
import os
import pathlib
import pty
import re
import select
import signal
import statistics
import subprocess
import sys
import time

from servers import Failed, Yard, last_line

FLOOR, OURS, CPU = "openssh", "stockade", "  server CPU"
PATIENCE = 60  # seconds for one run
CIPHERS = {"aes256": "aes256-gcm@openssh.com", "chacha20": "chacha20-poly1305@openssh.com"}
Row = collections.namedtuple("Row", "name unit rate mean", defaults=(False, False))


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


def bulk(cipher, up):
    """A stream in one direction, timed from the program's start there to the end of ssh, and counted at its far end."""
    name = f"exec {'in' if up else 'out'}, {cipher}"

    def run(peer, options):
        remote = "echo go >&2; " + ("wc -c" if up else f"head -c {options.bytes} /dev/zero")
        argv = peer.ssh("-c", CIPHERS[cipher], peer.name, remote)
        source = ["head", "-c", str(options.bytes), "/dev/zero"] if up else ["true"]
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
        if ssh.returncode or counted != options.bytes:
            raise Failed(f"exit status {ssh.returncode}, {counted} of {options.bytes} bytes arrived")
        return {name: options.bytes / 1e6 / took}

    return name, run


# The first GET is what an SDK's three requests take together, right after the login.
CREDENTIALS = r"""
set -eu
metadata=http://169.254.169.254/latest said= token= role= urls=()
ask() { said=$(curl -sf -w ' %{time_total}' "$@"); echo "first ${said##* }"; said=${said% *}; }
ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' $metadata/api/token; token=$said
ask -H "X-aws-ec2-metadata-token: $token" $metadata/meta-data/iam/security-credentials/; role=$said
credentials=$metadata/meta-data/iam/security-credentials/$role
ask -H "X-aws-ec2-metadata-token: $token" $credentials
case $said in *SecretAccessKey*) ;; *) echo "no credentials: $said" >&2; exit 1 ;; esac
for _ in {1..21}; do urls+=(-o /dev/null "$credentials"); done
curl -sf -w 'cached %{time_total}\n' -H "X-aws-ec2-metadata-token: $token" "${urls[@]}"
"""


def credentials(peer, _):
    """The metadata door: the first answer, and one that is there already on an open connection."""
    done = subprocess.run(peer.ssh(peer.name, "bash", "-s"), input=CREDENTIALS, capture_output=True, text=True,
                          timeout=PATIENCE, check=False)
    if done.returncode:
        raise Failed(f"exit status {done.returncode}: {last_line(done.stderr)}")
    told = collections.defaultdict(list)
    for line in done.stdout.splitlines():
        kind, seconds = line.split()
        told[kind].append(float(seconds) * 1e3)
    # The first of the cached opened the connection.
    return {"credentials, first": sum(told["first"]), "credentials, cached": statistics.median(told["cached"][1:])}


def aws(peer, _):
    """A program that finds them with no configuration."""
    script = "began=$EPOCHREALTIME; aws configure list; echo $((${EPOCHREALTIME/./} - ${began/./}))"
    done = subprocess.run(peer.ssh(peer.name, script), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=PATIENCE, check=False)
    if done.returncode or not re.search("(iam|container)-role", done.stdout):
        raise Failed(f"exit status {done.returncode}, no role's key: {last_line(done.stderr)}")
    return {"aws configure list": int(last_line(done.stdout)) / 1e3}


class Measurement:
    """What runs once a round on each of its peers, the rows that it fills, its CPU row with the scale from seconds."""

    def __init__(self, name, run, rows, alone=False, cpu=None):
        self.name, self.run, self.rows, self.alone, self.cpu = name, run, rows, alone, cpu
        self.values = collections.defaultdict(lambda: collections.defaultdict(list))
        self.faults = {}

    def on(self, peer, options):
        if peer.name in self.faults or (self.alone and peer.name != OURS):
            return
        try:
            if peer.fault:
                raise Failed(peer.fault)
            before = peer.cpu()
            got = self.run(peer, options)
            peer.rest()
            if self.cpu:
                got[self.cpu[0].name] = (peer.cpu() - before) * self.cpu[1]
        except subprocess.TimeoutExpired as error:
            self.faults[peer.name] = f"not done within {error.timeout:.0f} s"
        except (Failed, OSError, ValueError, statistics.StatisticsError) as error:
            self.faults[peer.name] = str(error) or type(error).__name__
        else:
            for row, value in got.items():
                self.values[row][peer.name].append(value)

    def all_rows(self):
        return [*self.rows, self.cpu[0]] if self.cpu else self.rows


def measurements(options):
    per_login, per_gigabyte = 1e3, 1e9 / options.bytes
    found = [
        Measurement("true", login, [Row("ssh host true", "ms")], cpu=(Row(CPU, "ms", mean=True), per_login)),
        Measurement("prompt", prompt, [Row("first prompt", "ms"), Row("prompt, exit, closed", "ms")],
                    cpu=(Row(CPU, "ms", mean=True), per_login)),
    ]
    for cipher in CIPHERS:
        for up in (True, False):
            name, run = bulk(cipher, up)
            found.append(Measurement("bulk", run, [Row(name, "MB/s", rate=True)],
                                     cpu=(Row(CPU, "s/GB", mean=True), per_gigabyte)))
    answers = [Row("credentials, first", "ms"), Row("credentials, cached", "ms")]
    found.append(Measurement("credentials", credentials, answers, alone=True))
    found.append(Measurement("aws", aws, [Row("aws configure list", "ms")], alone=True))
    return [one for one in found if options.only in (None, one.name)]


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


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def summary(measurement, row, peers):
    """One line of the table as a value: what each peer's runs make, and its ratio to OpenSSH."""
    cells, values = {}, measurement.values[row.name]
    for peer in peers:
        own, floor = values[peer.name], values[FLOOR]
        if peer.name in measurement.faults:
            cells[peer.name] = {"failed": measurement.faults[peer.name], "n": len(own)}
        elif own:
            middle = statistics.fmean(own) if row.mean else statistics.median(own)
            cell = {"n": len(own), "mean" if row.mean else "median": middle, "values": own}
            if not row.mean:
                cell["p95"] = percentile(own, 0.05 if row.rate else 0.95)
            if peer.name != FLOOR and floor and FLOOR not in measurement.faults:
                rounds = [mine / theirs for mine, theirs in zip(own, floor) if theirs]
                cell["ratio"] = middle / statistics.fmean(floor) if row.mean else statistics.median(rounds)
            cells[peer.name] = cell
    return {"measurement": measurement.name, "name": row.name, "unit": row.unit,
            "better": "more" if row.rate else "less", "peers": cells}


def number(value):
    return "" if value is None else f"{value:.0f}" if value >= 1000 else f"{value:.3g}" if value < 1 else f"{value:.1f}"


def table(lines, peers):
    """The table, and below it a line for each failure and each stall."""
    head = f"{'':<22} {'':<5}"
    below = f"{'measurement':<22} {'unit':<5}"
    for peer in peers:
        wide = 20 if peer.name == FLOOR else 27
        head += f" | {peer.name:<{wide}}"
        below += f" | {'median':>7} {'p95':>7} {'n':>4}" + ("" if peer.name == FLOOR else f" {'ratio':>6}")
    print(head.rstrip(), below, "-" * len(below), sep="\n")
    for line in lines:
        text = f"{line['name']:<22} {line['unit']:<5}"
        for peer in peers:
            text += " | " + written(line["peers"].get(peer.name), peer.name == FLOOR)
        print(text.rstrip())
    for note in notes(lines):
        print(note)


def written(cell, floor):
    if cell is None:
        return f"{'-':>7} {'':>12}" + ("" if floor else " " * 7)
    if "failed" in cell:
        return f"{'FAILED':>7} {'':>7} {cell['n']:>4}" + ("" if floor else " " * 7)
    text = f"{number(cell.get('median', cell.get('mean'))):>7} {number(cell.get('p95')):>7} {cell['n']:>4}"
    return text if floor else f"{text} {format(cell['ratio'], '.2f') if 'ratio' in cell else '':>6}"


def notes(lines):
    said = {}
    for line in lines:
        for peer, cell in line["peers"].items():
            if "failed" in cell:
                # One fault is one note, however many rows it fills.
                said.setdefault(f"{peer}: {cell['failed']}", f"FAILED, {line['name']}: ")
            elif line["name"] == "ssh host true" and peer == OURS and cell.get("ratio", 0) > 1:
                why = "look for delayed acknowledgements, Nagle and russh's rejection delay"
                said[f"{cell['ratio']:.2f} x OpenSSH's time for {line['name']}: {why}"] = "stall? "
    return [where + what for what, where in said.items()]


def machine():
    models = re.findall(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return {"cores": len(os.sched_getaffinity(0)), "processor": models[0] if models else "?",
            "kernel": os.uname().release, "load": os.getloadavg()[0]}


def size(text):
    number_, unit = text.rstrip("KMGiB"), text.lstrip("0123456789")
    return int(number_) * {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[unit]


def count(text):
    if (value := int(text)) < 1:
        raise ValueError("at least one")
    return value


def options():
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=count, default=10, metavar="N", help="[10]")
    parser.add_argument("--only", choices=["true", "prompt", "bulk", "credentials", "aws"], help="this one alone")
    parser.add_argument("--bytes", type=size, default=256 << 20, metavar="SIZE", help="of one bulk stream [256MiB]")
    parser.add_argument("--pam", action="store_true", help="a third peer: OpenSSH with UsePAM yes")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="everything measured, too")
    parser.add_argument("--binary", help="the stockade to measure [cargo build --release]")
    parser.add_argument("--image", help="the jail's OCI layout [images/build]")
    for hidden in ("--place", "--bed"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(chosen, peers, given):
    for one_round in range(given.rounds):
        for measurement in chosen:
            turn = one_round % len(peers)
            for peer in peers[turn:] + peers[:turn]:
                measurement.on(peer, given)
        if sys.stderr.isatty():
            print(f"\rround {one_round + 1} of {given.rounds}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)


def main():
    given = options()
    if given.check:
        return 0  # run's question: are the options good?
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = [FLOOR, *(["openssh+pam"] if given.pam else []), OURS]
    chosen = measurements(given)
    with Yard(given.place, given.binary, given.image, given.bed, names) as yard:
        about = machine()
        measure(chosen, yard.peers, given)
        lines = [summary(one, row, yard.peers) for one in chosen for row in one.all_rows()]
        load = f"load {about['load']:.1f} to {os.getloadavg()[0]:.1f}"
        print(f"{about['cores']} x {about['processor']}, Linux {about['kernel']}, {load}\n")
        table(lines, yard.peers)
    if given.json:
        given.json.write_text(json.dumps({"machine": about, "binary": given.binary, "rounds": given.rounds,
                                          "bytes": given.bytes, "lines": lines}, indent=1) + "\n")
    return 1 if any(one.faults for one in chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
