"""What needs a Docker engine: OpenSSH with `docker run` as login shell, and metadataproxy. The engine is Debian's, started
here with directories and a socket of its own and without a network."""
import os
import pathlib
import subprocess
import urllib.error
import urllib.request

from cgroup import Cgroup
from servers import DOCKER_USER, UID, Failed, Peer, Sshd, call, spawn, wait_until

DOCKER, DOCKERD = "/usr/bin/docker", "/usr/sbin/dockerd"
DOCKERSH = """\
#!/bin/sh
run="exec {docker} run --rm --network none --user {uid}:{uid} --env TERM"
case $1 in
  -c) $run -i bench bash -lc "$2" ;;
  *) $run -it bench bash -l ;;
esac
"""
# metadataproxy with the credentials it would have had from STS: only what it has in its cache is measured.
WSGI = """\
import datetime
import dateutil.tz
from metadataproxy import roles
from metadataproxy.routes import proxy
from metadataproxy import app

class Sts:
    def assume_role(self, **_):
        end = datetime.datetime.now(dateutil.tz.tzutc()) + datetime.timedelta(hours=1)
        return {"Credentials": {"AccessKeyId": "ASIA" + 16 * "X", "SecretAccessKey": 40 * "x",
                                "SessionToken": 300 * "x", "Expiration": end}}

roles._sts_client = Sts()
"""


class Dockerd:
    """One engine for both, started when the first of them starts."""

    @staticmethod
    def of(yard):
        yard.docker = yard.docker or Dockerd(yard)
        return yard.docker

    def __init__(self, yard):
        if not os.access(DOCKERD, os.X_OK):
            raise Failed("no Docker engine; on Debian: apt-get install docker.io")
        place, self.log = yard.place, yard.place / "dockerd.log"
        cgroup = Cgroup(yard.run, "dockersh-run")  # what a login costs the engine counts
        self.command = [DOCKER, "--host", f"unix://{place}/docker.sock"]
        argv = [DOCKERD, "--host", f"unix://{place}/docker.sock", "--data-root", place / "docker", "--exec-root",
                place / "docker-run", "--pidfile", place / "docker.pid", "--bridge", "none", "--iptables=false",
                "--ip-forward=false", "--ip-masq=false", "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent",
                f"/{cgroup.name}/containers", "--group", str(UID + 1), "--log-level", "warn"]
        # Process 1 of a namespace: what containerd leaves behind is its to wait for, and ends with it.
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child=TERM", "--mount-proc"]
        self.process = spawn([*unshare, *argv], self.log, cgroup=cgroup)
        wait_until(self.answers, self.process, self.log)
        layer = max((pathlib.Path(yard.image) / "blobs/sha256").iterdir(), key=lambda blob: blob.stat().st_size)
        # This engine knows no zstd, which the image's one layer is packed with.
        call("sh", "-c", 'zstd -dcq "$0" | "$@" import - bench', layer, *self.command)

    def answers(self):
        return subprocess.run([*self.command, "version"], capture_output=True, check=False).returncode == 0


class Dockersh(Sshd):
    user, crowd, holds = DOCKER_USER, [DOCKER_USER], False

    def __init__(self, yard):
        super().__init__(yard, "dockersh-run")

    def argv(self):
        engine = Dockerd.of(self.yard)
        script = DOCKERSH.format(docker=" ".join(engine.command), uid=UID + 1)
        self.yard.write("dockersh", script, 0o755)
        return super().argv()


class Metadataproxy(Peer):
    """Behind gunicorn, as its documentation says. It knows a container by a label, for the engine has no network."""

    path = "latest/meta-data/iam/security-credentials/alice"

    def __init__(self, yard):
        super().__init__(yard, "metadataproxy")

    def argv(self):
        if not (python := self.yard.proxy_python):
            raise Failed("not installed; it needs Python 3.7")
        engine = Dockerd.of(self.yard)
        call(*engine.command, "run", "--detach", "--network", "none", "--label", "io.rancher.container.ip=127.0.0.1/32",
             "--env", "IAM_ROLE=alice", "bench", "sleep", "infinity")
        self.yard.write("bench_wsgi.py", WSGI)
        return [python, "-m", "gunicorn.app.wsgiapp", "--chdir", self.yard.place, "--workers", "2", "--worker-class",
                "gevent", "--keep-alive", "60", "--bind", f"127.0.0.1:{self.port}", "bench_wsgi:app"]

    def answers(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{self.path}", timeout=5) as answer:
                return b"SecretAccessKey" in answer.read()
        except (urllib.error.URLError, OSError):
            return False

    def warm_up(self):
        self.settle()

    def environment(self):
        return {"DOCKER_URL": f"unix://{self.yard.place}/docker.sock", "DEFAULT_ACCOUNT_ID": "123456789012"}
