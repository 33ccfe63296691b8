"""What is measured of a recorder: a full-screen program's output, on its way through it."""
import os
import pathlib
import pty
import shutil
import subprocess
import time

from servers import Failed, last_line

PATIENCE = 120
RECORDERS = {
    "unrecorded": "{program}",
    "script": "script -qc '{program}' {file}",
    "asciinema": "LC_ALL=C.UTF-8 asciinema rec -q --overwrite -c '{program}' {file}",
}


def command(recorder, program, file):
    if recorder != "unrecorded" and not shutil.which(recorder):
        raise Failed(f"not there; on Debian: apt-get install {recorder}")
    return RECORDERS[recorder].format(program=program, file=file)


def remote(recorder):
    """Over SSH, in a terminal: by a program beside the user's own, or by stockade itself."""
    def run(peer, given):
        file = peer.yard.place / f"home-{peer.user}/recorded"
        wanted = command(recorder, f"./client frames -bytes {given.screens}", file)
        argv = peer.ssh("-tt", peer.name, wanted)
        started = time.perf_counter()
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ssh, \
                subprocess.Popen(["wc", "-c"], stdin=ssh.stdout, stdout=subprocess.PIPE) as count:
            ssh.stdout.close()
            shown = int(count.communicate(timeout=PATIENCE)[0])
            took = time.perf_counter() - started
            code, said = ssh.wait(PATIENCE), ssh.stderr.read().decode(errors="replace")
        file.unlink(missing_ok=True)
        return {"over ssh": rate(shown, given, took, code, said)}

    return run


def local(recorder):
    """In a terminal that is drained as fast as it can be."""
    def run(peer, given):
        file = peer.yard.place / "recorded"
        wanted = command(recorder, f"{peer.yard.client} frames -bytes {given.screens}", file)
        started = time.perf_counter()
        child, terminal = pty.fork()
        if child == 0:
            os.execv("/bin/sh", ["sh", "-c", "exec " + wanted if recorder == "script" else wanted])
        shown, last = 0, b""
        try:
            while got := os.read(terminal, 65536):
                shown, last = shown + len(got), got
        except OSError:
            pass  # a terminal's end
        took = time.perf_counter() - started
        os.close(terminal)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        size = pathlib.Path(file).stat().st_size if file.exists() else 0
        file.unlink(missing_ok=True)
        got = {"in a terminal": rate(shown, given, took, code, last[-200:].decode(errors="replace"))}
        return {**got, "bytes kept per byte": size / given.screens} if size else got

    return run


def rate(shown, given, took, code, said):
    # asciinema loses the last bytes now and then.
    if code or shown < given.screens - 65536:
        raise Failed(f"exit status {code}, {shown} of {given.screens} bytes were shown: {last_line(said)}")
    return given.screens / 1e6 / took
