#!/usr/bin/env python3
"""stockade beside what would be used instead, in one run: logins, prompts, streams, credentials, memory, recordings.

In each round every peer of a measurement runs it once, in an order that rotates. A cell is the median over the rounds,
(p95, the bad end), and **the median of the rounds' ratios** to the first column. CPU is that of the server's control
group. Nothing is asserted about time; a measurement that fails says so and the exit status is 1. Started by
tests/bench/run, which takes these options and also makes what is missing.
"""
import argparse
import collections
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys

import idle
import kube
import screen
import sessions
from docker import Dockersh, Metadataproxy
from servers import Failed, Sshd, SshdPam, Stockade, Yard
from table import markdown, notes, summary

PEERS = {"metadataproxy": Metadataproxy, "openssh": Sshd, "openssh+pam": SshdPam, "dockersh-run": Dockersh,
         "stockade": Stockade}
HOSTS = ["openssh", "openssh+pam", "dockersh-run", "stockade"]
CPU = "server CPU"
Row = collections.namedtuple("Row", "name unit rate", defaults=(False,))


class Measurement:
    """What runs on each of its peers in every or every `rarely`th round, and the rows that it fills. With a CPU row `run`
    may say by how many its seconds are divided; `scale` is the row's own. A column that is no server's is `beside` one."""

    def __init__(self, name, peers, run, rows, cpu=None, scale=1, rarely=1, beside="openssh"):
        self.beside = beside
        self.name, self.peers, self.rows, self.cpu, self.scale, self.rarely = name, peers, rows, cpu, scale, rarely
        self.run = run if isinstance(run, dict) else dict.fromkeys(peers, run)
        self.values = collections.defaultdict(lambda: collections.defaultdict(list))
        self.faults = {}

    def on(self, column, peer, given):
        if column in self.faults:
            return
        try:
            if peer.fault:
                raise Failed(peer.fault)
            before = peer.cgroup.cpu()
            got = self.run[column](peer, given)
            got, count = got if isinstance(got, tuple) else (got, 1)
            peer.rest()
            if self.cpu:
                got[self.cpu.name] = (peer.cgroup.cpu() - before) * self.scale / count
        except subprocess.TimeoutExpired as error:
            self.faults[column] = f"not done within {error.timeout:.0f} s"
        except (Failed, OSError, ValueError, KeyError) as error:
            self.faults[column] = str(error) or type(error).__name__
        else:
            for row, value in got.items():
                self.values[row][column].append(value)

    def all_rows(self):
        return [*self.rows, self.cpu] if self.cpu else self.rows


def of_sessions(given):
    login = {"cpu": Row(CPU, "ms"), "scale": 1e3}
    yield Measurement("true", HOSTS, sessions.login, [Row("ssh host true", "ms")], **login)
    rows = [Row("first prompt", "ms"), Row("prompt, exit, closed", "ms")]
    yield Measurement("prompt", HOSTS, sessions.prompt, rows, **login)
    rows = [Row("16-way logins", "1/s", rate=True), Row("one of 16", "ms")]
    yield Measurement("logins", HOSTS, sessions.logins, rows, rarely=2, **login)
    for cipher in sessions.CIPHERS:
        for up in (True, False):
            name, run = sessions.bulk(cipher, up)
            yield Measurement("bulk", HOSTS, run, [Row(name, "MB/s", rate=True)], Row(CPU, "s/GB"), 1e9 / given.bytes, 2)


def of_credentials(_):
    rows = [Row("first, after a login", "ms")]
    yield Measurement("credentials", ["stockade"], sessions.credentials, rows)
    for ways in (1, 16):
        kept = f"{ways} kept"
        rows = [Row(f"p50, {kept}", "ms"), Row(f"p99, {kept}", "ms"), Row(f"requests, {kept}", "1/s", rate=True)]
        yield Measurement("credentials", ["metadataproxy", "stockade"], sessions.door(ways), rows, rarely=2)
    yield Measurement("aws", ["stockade"], sessions.aws, [Row("aws configure list", "ms")], rarely=2)


def of_screens(given):
    columns = [*screen.RECORDERS, "stockade"]
    runs = {name: screen.remote("unrecorded" if name == "stockade" else name) for name in columns}
    yield Measurement("screen", columns, runs, [Row("over ssh", "MB/s", rate=True)], Row(CPU, "s/GB"),
                      1e9 / given.screens, 2)
    runs = {name: screen.local(name) for name in screen.RECORDERS}
    rows = [Row("in a terminal", "MB/s", rate=True), Row("bytes kept per byte", "")]
    yield Measurement("screen", list(runs), runs, rows, rarely=2)


def of_clusters(_):
    kubectl = {column: kube.kubectl(column) for column in kube.COLUMNS}
    rows = [Row("kubectl get pods, first", "ms"), Row("kubectl get pods", "ms")]
    yield Measurement("kubectl", kube.COLUMNS, kubectl, rows, beside="stockade")
    both = [kube.STATIC, kube.DOOR]
    rows = [Row("GET, kept: p50", "us"), Row("GET, kept: p95", "us"), Row("the door's share of p50", "us")]
    yield Measurement("kubeget", both, {column: kube.ask(column) for column in both}, rows, beside="stockade")
    rows = [Row(name, "MB/s", rate=True) for name in ("kubectl cp, out", "kubectl cp, in", "kubectl logs")]
    rows.append(Row("all roles' CPU for them", "s/GB"))
    runs = {column: kube.transfer(column) for column in both}
    yield Measurement("kubecp", both, runs, rows, rarely=2, beside="stockade")
    rows = [Row(f"audited, {kube.RATE}/s asked", "1/s", rate=True), Row("p99 of them", "ms"), Row("keeper, of a core", ""),
            Row("porter, of a core", "")]
    yield Measurement("kubeaudit", [kube.DOOR], kube.audit, rows, rarely=2, beside="stockade")


TABLES = {"session": of_sessions, "credentials": of_credentials, "full-screen output": of_screens,
          "clusters": of_clusters}
KUBE = ["kubectl", "kubeget", "kubecp", "kubeaudit"]
NAMES = ["true", "prompt", "logins", "bulk", "credentials", "aws", "screen", "idle", *KUBE, "access"]


def size(text):
    number, unit = text.rstrip("KMGiB"), text.lstrip("0123456789")
    return int(number) * {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[unit]


def count(text):
    if (value := int(text)) < 1:
        raise ValueError("at least one")
    return value


def among(known):
    def some(text):
        if unknown := set(text.split(",")) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
        return text.split(",")
    return some


def options():
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=count, default=8, metavar="N", help="the long ones run in every second [8]")
    parser.add_argument("--only", type=among(NAMES), default=NAMES, metavar="NAME,...", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--peers", type=among(PEERS), default=list(PEERS), metavar="NAME,...",
                        help=f"of {', '.join(PEERS)}")
    parser.add_argument("--bytes", type=size, default=256 << 20, metavar="SIZE", help="of one bulk stream [256MiB]")
    parser.add_argument("--screens", type=size, default=32 << 20, metavar="SIZE", help="of full-screen output [32MiB]")
    parser.add_argument("--copied", type=size, default=256 << 20, metavar="SIZE", help="by kubectl cp and logs [256MiB]")
    parser.add_argument("--seconds", type=count, default=4, metavar="N", help="of 16-way logins, credentials, audit [4]")
    parser.add_argument("--idle", type=count, default=500, metavar="N", help="sessions; OpenSSH 200 at most [500]")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="everything measured, too")
    parser.add_argument("--binary", help="the stockade to measure [cargo build --release, the static musl one]")
    parser.add_argument("--image", help="the jail's OCI layout [images/build]")
    for hidden in ("--place", "--bed", "--cache", "--client", "--proxy", "--figures"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(chosen, yard, given):
    servers = {peer.name: peer for peer in yard.peers}
    for number in range(given.rounds):
        for measurement in (one for one in chosen if number % one.rarely == 0):
            turn = number // measurement.rarely % max(1, len(measurement.peers))
            for column in measurement.peers[turn:] + measurement.peers[:turn]:
                # As a program that records runs beside the user's own on OpenSSH's host.
                measurement.on(column, servers.get(column) or servers[measurement.beside], given)
            said(f"round {number + 1} of {given.rounds}: {measurement.name:<12}")


def said(text):
    if sys.stderr.isatty():
        print(f"\r{text}", end="", file=sys.stderr, flush=True)


def measure_idle(yard, given):
    """Once each: hundreds of sessions are their own repetition. Whose memory it is comes below each server's rows."""
    peers = [peer for peer in yard.peers if peer.name in ("openssh", "openssh+pam", "stockade")]
    units = {"CPU to open one": "ms", "time to open one": "ms"}
    found, notes_ = Measurement("idle", [peer.name for peer in peers], None, []), []
    for peer in peers:
        number = given.idle if peer.name == "stockade" else min(200, given.idle)
        try:
            if peer.fault:
                raise Failed(peer.fault)
            rows, each, nobody = idle.idle(peer, number)
        except (Failed, OSError, subprocess.SubprocessError, ValueError) as error:
            found.faults[peer.name] = str(error)
            continue
        found.rows = [Row(name, units.get(name, "KiB")) for name in rows]
        for name, value in rows.items():
            found.values[name][peer.name].append(value)
        notes_.append(f"idle, {peer.name}, {number} sessions: KiB each: {each}; MiB with nobody there: {nobody}")
    return found, notes_


def read_access(given):
    """What `run` had cargo measure: cycles over 1,000 people and 20 clusters with 100 namespaces each, simulated."""
    found = Measurement("access", ["stockade"], None, [
        Row("cycle without a change", "s"), Row("requests in it", ""), Row("first cycle", "s"), Row("changes in it", ""),
        Row("told, to the cluster", "s"), Row("most memory, simulation included", "MiB")])
    try:
        got = json.loads(pathlib.Path(given.figures).read_text())
    except (OSError, ValueError):
        found.faults["stockade"] = "cargo test printed no figures"
        return found
    values = [got["quiet_cycle_seconds"], [got["quiet_cycle_calls"]], [got["first_cycle_seconds"]],
              [got["first_cycle_changes"]], [got["told_seconds"]], [got["peak_mib"]]]
    for row, seen in zip(found.rows, values):
        found.values[row.name]["stockade"] = seen
    return found


def machine():
    models = re.findall(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return {"cores": len(os.sched_getaffinity(0)), "processor": models[0] if models else "?",
            "kernel": os.uname().release, "load": os.getloadavg()[0]}


def report(about, tables, remarks, given):
    load = f"load {about['load']:.1f} to {os.getloadavg()[0]:.1f}"
    print(f"\n{about['cores']} x {about['processor']}, Linux {about['kernel']}, {load}\n")
    everything = []
    for title, found in tables.items():
        lines = [summary(one, row) for one in found for row in one.all_rows()]
        columns = dict.fromkeys(peer for one in found for peer in one.peers)
        if lines:
            markdown(title, list(columns), lines)
        everything += lines
    for line in [*remarks, *notes(everything)]:
        print(line)
    if given.json:
        given.json.write_text(json.dumps({"machine": about, "binary": given.binary, "rounds": given.rounds,
                                          "bytes": given.bytes, "lines": everything}, indent=1) + "\n")
    return 1 if any(one.faults for found in tables.values() for one in found) else 0


def main():
    given = options()
    if given.check:
        print(*given.only)
        return 0  # run's question: are the options good, and what is there to be made?
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tables = {title: [one for one in make(given) if one.name in given.only] for title, make in TABLES.items()}
    for one in (one for found in tables.values() for one in found):
        there = [*given.peers, *(screen.RECORDERS if "openssh" in given.peers else []),
                 *(kube.COLUMNS if "stockade" in given.peers else [])]
        one.peers = [peer for peer in one.peers if peer in there]
    wanted = {peer for found in tables.values() for one in found for peer in one.peers}
    wanted |= {"openssh"} if wanted & set(screen.RECORDERS) else set()
    wanted |= {"stockade"} if wanted & set(kube.COLUMNS) else set()
    wanted |= {"openssh", "openssh+pam", "stockade"} & set(given.peers) if "idle" in given.only else set()
    yard = Yard(given, [make for name, make in PEERS.items() if name in wanted])
    if "stockade" in wanted and set(KUBE) & set(given.only):
        yard.clusters = kube.Clusters(yard, given.cache, given.copied)
    with yard:
        about = machine()
        remarks = []
        every = [one for found in tables.values() for one in found]
        if "idle" in given.only:
            # First, while no role holds memory that streams have left it.
            found, remarks = measure_idle(yard, given)
            tables[f"idle, {given.idle} sessions"] = [found]
        measure(every, yard, given)
        if "access" in given.only:
            tables["access"] = [read_access(given)]
        return report(about, tables, remarks, given)


if __name__ == "__main__":
    sys.exit(main())
