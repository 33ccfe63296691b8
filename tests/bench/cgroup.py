"""A control group per server: what all its processes have used and which they are, wherever they hang in the tree."""
import os
import pathlib

ROOT = pathlib.Path("/sys/fs/cgroup")


class Cgroup:
    """Version 2, or version 1's CPU accounting. The server is in `server`, what it starts for others may be beside it."""

    def __init__(self, run, name):
        self.v2 = (ROOT / "cgroup.controllers").exists()
        self.name = f"{run}/{name}"
        self.path = (ROOT if self.v2 else ROOT / "cpuacct") / self.name
        (self.path / "server").mkdir(parents=True, exist_ok=True)
        if self.v2:
            for place in (ROOT, self.path.parent, self.path):
                (place / "cgroup.subtree_control").write_text("+pids +memory +cpu")

    def enter(self):
        """In a child: it and all that it starts are counted."""
        (self.path / "server/cgroup.procs").write_text("0")

    def cpu(self):
        """Seconds."""
        if self.v2:
            return int((self.path / "cpu.stat").read_text().split()[1]) / 1e6
        return int((self.path / "cpuacct.usage").read_text()) / 1e9

    def pids(self):
        found = []
        for place in self.path.rglob("cgroup.procs"):
            try:
                found += map(int, place.read_text().split())
            except OSError:
                continue  # a session's, just gone
        return found

    def cpu_of(self, name):
        """Seconds of the processes whose program begins so."""
        ticks = 0
        for pid in self.pids():
            try:
                if program(pid).startswith(name):
                    ticks += sum(map(int, pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
            except OSError:
                continue
        return ticks / os.sysconf("SC_CLK_TCK")

    def pss(self):
        """KiB of each process, by its program."""
        found = {}
        for pid in self.pids():
            try:
                lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                name = program(pid)
            except OSError:
                continue
            size = next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
            found[name] = found.get(name, 0) + size
        return found


def program(pid):
    """How `ps` shows a process, without what differs between two of its kind."""
    words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    title = words[0]
    if title.startswith(("stockade: ", "sshd: ")):
        return title if title.startswith("stockade") else "sshd"
    name = title.rpartition("/")[2].lstrip("-")
    return " ".join([name, *words[1:2]]) if name.startswith("stockade") else name
