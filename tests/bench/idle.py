"""What is measured of sessions in which nothing happens: memory, by whose it is, and what opening them costs."""
import json
import pathlib
import select
import signal
import subprocess
import time

from servers import Failed, last_line

PATIENCE = 180
KERNEL = ("SUnreclaim", "KernelStack", "PageTables", "SecPageTables", "Percpu")


def idle(peer, count):
    """Opens shells in terminals on 8 ways; KiB a session over all processes, and what the kernel has more."""
    before, kernel, free, used = peer.cgroup.pss(), meminfo(*KERNEL), meminfo("MemAvailable"), peer.cgroup.cpu()
    argv = peer.client("idle", f"-count={count}", "-ways=8")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        try:
            if not select.select([client.stdout], [], [], PATIENCE)[0]:
                raise Failed(f"{count} sessions were not there within {PATIENCE} s")
            line = client.stdout.readline()
            if not line:
                raise Failed(last_line(client.stderr.read().decode(errors="replace")))
            opening = peer.cgroup.cpu() - used
            time.sleep(3)  # what a login leaves to be done has been done
            after, own = peer.cgroup.pss(), client_pss(client.pid)
            kernel, free = meminfo(*KERNEL) - kernel, free - meminfo("MemAvailable")
        finally:
            client.stdin.close()
            try:
                client.wait(30)
            except subprocess.TimeoutExpired:
                client.send_signal(signal.SIGKILL)
    grown = {name: (after[name] - before.get(name, 0)) / count for name in after}
    peer.rest()
    rows = {"PSS with nobody there": sum(before.values()), "PSS a session, all processes": sum(grown.values()), "of it bash": grown.pop("bash", 0),
            "kernel: slab, stacks, tables": kernel / count, "machine: MemAvailable": (free - own) / count,
            "CPU to open one": opening * 1e3 / count, "time to open one": json.loads(line)["took"] * 1e3 / count}
    return rows, listed(grown), listed({name: size / 1024 for name, size in before.items()})


def listed(sizes):
    found = sorted(((size, name) for name, size in sizes.items() if abs(size) >= 0.5), reverse=True)
    return ", ".join(f"{name} {size:.0f}" for size, name in found)


def client_pss(pid):
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def meminfo(*names):
    lines = (line.split() for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
    return sum(int(words[1]) for words in lines if words[0].rstrip(":") in names)
