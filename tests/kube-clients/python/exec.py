"""exec.py NAMESPACE POD CONTAINER tty|no-tty stdin|none COMMAND...   with the Python client; the status is the command's."""
import sys

from kubernetes import client, config
from kubernetes.stream import stream

config.load_kube_config()
namespace, pod, container, tty, stdin, *command = sys.argv[1:]
channel = stream(
    client.CoreV1Api().connect_get_namespaced_pod_exec, pod, namespace, container=container, command=command,
    stdin=stdin == "stdin", stdout=True, stderr=True, tty=tty == "tty", _preload_content=False,
)  # fmt: skip
if stdin == "stdin":
    channel.write_stdin(sys.stdin.readline())
while channel.is_open():
    channel.update(timeout=1)
    sys.stdout.write(channel.read_stdout(timeout=0) if channel.peek_stdout() else "")
    sys.stderr.write(channel.read_stderr(timeout=0) if channel.peek_stderr() else "")
sys.exit(channel.returncode)
