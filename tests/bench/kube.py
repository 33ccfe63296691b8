"""What is measured of clusters: kubectl and single requests through the kube door, and beside it straight to the API server
with each way to have a token there."""
import json
import os
import pathlib
import subprocess
import time

from servers import TESTS, USER, Failed, call, last_line
from sessions import told_by

PATIENCE = 180
CLUSTER, NAMESPACE = "hyades", "team-a"
STATIC, DOOR = "static token", "stockade"
# How login calls them.
PLUGINS = {"aws eks get-token": "aws", "aws-iam-authenticator": "authenticator"}
COLUMNS = [STATIC, *PLUGINS, DOOR]
# The role that login assumes lasts 15 minutes, and so does a token.
FRESH = 8 * 60
# One pod as the API server has it in memory: what etcd does is not the door's.
POD = f"/api/v1/namespaces/{NAMESPACE}/pods/web?resourceVersion=0"
RATE = 1000
ROLES = "stockade: "

PODS = """\
apiVersion: v1
kind: Pod
metadata: {{name: bench, namespace: {namespace}}}
spec:
  nodeName: node-0
  containers:
    - name: app
      image: none.invalid/app
      # Bytes that do not compress, and as many in lines.
      command: [sh, -c, 'head -c {bytes} /dev/urandom >blob; base64 -w 4095 blob | head -c {bytes}; echo; touch done; exec sleep infinity']
"""
# Of the first run the cluster is asked whether it knows the token.
KUBECTL = """
for n in 1 2 3 4 5 6; do
  began=$EPOCHREALTIME; kubectl -n team-a get pods >/dev/null || exit 1; echo $((${EPOCHREALTIME/./} - ${began/./}))
done
"""
TRANSFER = """
timed() { began=$EPOCHREALTIME; "$@" || exit 1; echo $((${EPOCHREALTIME/./} - ${began/./})); }
logs() { [ "$(kubectl -n team-a logs bench | wc -c)" -ge $bytes ]; }
timed kubectl -n team-a cp bench:blob $place/blob
[ "$(stat -c %s $place/blob)" = $bytes ] || exit 1
timed kubectl -n team-a cp $place/blob bench:back
rm $place/blob
timed logs
"""


class Clusters:
    """The bed with its clusters, and the ways of somebody who has no bastion."""

    def __init__(self, yard, cache, size):
        self.place, self.cache, self.bytes = yard.place / "bed", cache, size
        self.client = yard.client
        self.kubeconfigs, self.environment = {}, {}

    def start(self):
        # As Kubernetes has it; a bed's own is shorter.
        flags = "--authentication-token-webhook-cache-ttl 2m0s"
        self.environment = {"XDG_CACHE_HOME": self.cache, "BED_APISERVER_FLAGS": flags}
        said = call(TESTS / "bed/start", self.place, environment=self.environment)
        self.bed = dict(line.removeprefix("export ").split("=", 1) for line in said.splitlines() if "=" in line)
        self.environment = {**self.environment, "PATH": f"{self.bed['BED_BIN']}:/usr/bin:{os.environ['PATH']}"}
        self.endpoint = self.bed[f"BED_{CLUSTER.upper()}"]
        self.ca = self.place / CLUSTER / "pki/ca.crt"
        self.transfers = pathlib.Path("/run/bench")
        self.transfers.mkdir()
        self.make_pod()

    def bastion(self):
        found = (self.place / "aws/bastion.env").read_text().splitlines()
        return {"AWS_ENDPOINT_URL": self.bed["AWS_ENDPOINT_URL"], **dict(line.split("=", 1) for line in found)}

    def make_pod(self):
        file = self.place / "bench.yaml"
        file.write_text(PODS.format(namespace=NAMESPACE, bytes=self.bytes))
        admin = ["kubectl", "--kubeconfig", self.place / CLUSTER / "admin.kubeconfig", "-n", NAMESPACE]
        call(*admin, "apply", "-f", file, environment=self.environment)
        call(*admin, "wait", "--for=condition=Ready", "pod/bench", environment=self.environment)
        deadline = time.monotonic() + PATIENCE
        while subprocess.run([*map(str, admin), "exec", "bench", "--", "test", "-e", "done"], capture_output=True,
                             check=False, env={**os.environ, **self.environment}).returncode:
            if time.monotonic() > deadline:
                raise Failed("the pod with the bytes to copy is not ready")
            time.sleep(0.2)

    def kubeconfig(self, column):
        """Of alice's own role; a new one before its keys end."""
        made, file = self.kubeconfigs.get(column, (-FRESH, None))
        if time.monotonic() - made < FRESH:
            return file
        plugin = PLUGINS.get(column, "authenticator")
        file = pathlib.Path(last_line(call(TESTS / "bed/login", self.place, USER, CLUSTER, plugin,
                                           environment=self.environment)))
        if column == STATIC:
            file = self.with_token(file)
        self.kubeconfigs[column] = (time.monotonic(), file)
        return file

    def with_token(self, file):
        """What its plugin says once, in its place."""
        text = call("kubectl", "--kubeconfig", file, "config", "view", "--raw", "-o", "json", environment=self.environment)
        config = json.loads(text)
        plugin = config["users"][0]["user"].pop("exec")
        environment = {**self.environment, **{one["name"]: one["value"] for one in plugin["env"]}}
        said = json.loads(call(plugin["command"], *plugin["args"], environment=environment))
        config["users"][0]["user"] = {"token": said["status"]["token"]}
        own = file.with_suffix(".static")
        own.write_text(json.dumps(config))
        return own

    def token(self):
        return json.loads(self.kubeconfig(STATIC).read_text())["users"][0]["user"]["token"]

    def here(self, column, script):
        environment = {**os.environ, **self.environment, "KUBECONFIG": str(self.kubeconfig(column))}
        return output(["bash", "-c", script], environment)

    def ask(self, *arguments):
        """The benchmark's client, straight to the API server, over HTTP/2 as kubectl does."""
        token = self.place / "token"
        token.write_text(self.token())
        return told_by([self.client, "get", f"-url={self.endpoint}{POD}", f"-ca={self.ca}", f"-bearer={token}", *arguments])


def there(peer, script):
    return output(peer.ssh(peer.name, "bash", "-s"), None, f"kubectl config use-context {CLUSTER} >&2 || exit 1\n{script}")


def output(argv, environment, script=""):
    done = subprocess.run(list(map(str, argv)), input=script, env=environment, capture_output=True, text=True,
                          timeout=PATIENCE, check=False)
    if done.returncode:
        raise Failed(f"exit status {done.returncode}: {last_line(done.stderr)}")
    return [int(line) for line in done.stdout.split()]


def kubectl(column):
    """`kubectl get pods`: the first of a session, and one of the next five."""
    def run(peer, _):
        took = there(peer, KUBECTL) if column == DOOR else peer.yard.clusters.here(column, KUBECTL)
        first, *others = took
        return {"kubectl get pods, first": first / 1e3, "kubectl get pods": sorted(others)[len(others) // 2] / 1e3}

    return run


def ask(column):
    """One pod, again and again on one connection; with the door, between two such runs without it."""
    asked = ["-count=1000"]

    def run(peer, _):
        clusters = peer.yard.clusters
        direct = clusters.ask(*asked)
        if column == STATIC:
            return {"GET, kept: p50": direct["p50"] * 1e3, "GET, kept: p95": direct["p95"] * 1e3}
        told = through(peer, *asked)
        direct = (direct["p50"] + clusters.ask(*asked)["p50"]) / 2
        return {"GET, kept: p50": told["p50"] * 1e3, "GET, kept: p95": told["p95"] * 1e3,
                "the door's share of p50": (told["p50"] - direct) * 1e3}

    return run


def through(peer, *arguments):
    return told_by(peer.ssh(peer.name, "./client", "get", f"'-url=http://127.0.0.1:6443/clusters/{CLUSTER}{POD}'", *arguments))


def transfer(column):
    """kubectl cp from a pod and into it, and kubectl logs: bytes that do not compress, to memory."""
    def run(peer, given):
        clusters = peer.yard.clusters
        place = "/tmp" if column == DOOR else clusters.transfers
        script = f"bytes={given.copied} place={place}\n{TRANSFER}"
        used = peer.cgroup.cpu_of(ROLES)
        took = there(peer, script) if column == DOOR else clusters.here(column, script)
        got = {name: given.copied / one for name, one in zip(["kubectl cp, out", "kubectl cp, in", "kubectl logs"], took)}
        if column == DOOR:
            got["all roles' CPU for them"] = (peer.cgroup.cpu_of(ROLES) - used) * 1e9 / (given.copied * len(got))
        return got

    return run


def audit(peer, given):
    """Requests that are each an event, so many a second, on 16 ways: whether they are kept up with, and what it takes."""
    roles = ["stockade: keeper", "stockade: porter"]
    file = peer.yard.place / "audit/audit.jsonl"
    begin, size = [peer.cgroup.cpu_of(role) for role in roles], file.stat().st_size
    told = through(peer, "-ways=16", f"-rate={RATE}", f"-count={RATE * given.seconds}")
    peer.rest()
    keeper, porter = (peer.cgroup.cpu_of(role) - used for role, used in zip(roles, begin))
    with open(file, "rb") as trail:
        trail.seek(size)
        events = sum(b'"bench/1"' in line for line in trail)
    if events < told["count"]:
        raise Failed(f"{events} events for {told['count']:.0f} requests")
    seconds = told["count"] / told["rate"]
    return {f"audited, {RATE}/s asked": told["rate"], "p99 of them": told["p99"], "keeper, of a core": keeper / seconds,
            "porter, of a core": porter / seconds}
