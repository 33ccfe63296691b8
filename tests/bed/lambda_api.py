#!/usr/bin/env python3
"""AWS Lambda's Runtime API for one program, which is started as Lambda starts a custom runtime. Never for anything real.

    lambda_api.py BOOTSTRAP [--seconds 60]

Each line of standard input is an event; each line of standard output is {"response": …}, {"error": …} or
{"ended": STATUS}. What the program prints goes to standard error, as it would go to CloudWatch. --seconds is the
function's timeout: the deadline that the program is told, after which it is killed as Lambda does.
"""
import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VERSION = "/2018-06-01/runtime"
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:stockade-access"


class Runtime(BaseHTTPRequestHandler):
    """What the program sees. `server.events` are (id, text) that wait; `server.answers` gets (id, kind, text)."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path != f"{VERSION}/invocation/next":
            return self.answer(404)
        number, text = self.server.events.get()
        deadline = int((time.time() + self.server.seconds) * 1000)
        self.answer(200, text.encode(), {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": number,
            "Lambda-Runtime-Deadline-Ms": str(deadline),
            "Lambda-Runtime-Invoked-Function-Arn": FUNCTION,
        })

    def do_POST(self):
        body = self.body().decode()
        words = self.path.removeprefix(f"{VERSION}/").split("/")
        if words == ["init", "error"]:
            self.server.answers.put((None, "error", body))
        elif len(words) == 3 and words[0] == "invocation" and words[2] in ("response", "error"):
            self.server.answers.put((words[1], words[2], body))
        else:
            return self.answer(404)
        self.answer(202)

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while length := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(length))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, status, body=b"", headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def start(bootstrap, server):
    """The program, in the surroundings that Lambda makes."""
    surroundings = {
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}", "AWS_LAMBDA_FUNCTION_NAME": "stockade-access",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256", "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "LAMBDA_TASK_ROOT": str(bootstrap.parent), "_HANDLER": "bootstrap",
    }
    return subprocess.Popen([bootstrap], env=os.environ | surroundings, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def outcome(program, server, number):
    """What became of one invocation."""
    late = time.time() + server.seconds
    while True:
        try:
            answered, kind, text = server.answers.get(timeout=0.05)
            if answered in (number, None):
                return {kind: json.loads(text or "null")}
        except queue.Empty:
            if time.time() > late:
                program.kill()
            if (status := program.poll()) is not None:
                return {"ended": status}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bootstrap", type=Path)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments = arguments.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Runtime)
    server.daemon_threads = True
    server.events, server.answers, server.seconds = queue.Queue(), queue.Queue(), arguments.seconds
    threading.Thread(target=server.serve_forever, daemon=True).start()
    program = start(arguments.bootstrap.absolute(), server)
    try:
        for line in sys.stdin:
            # Lambda starts a program that ended again, for the next event.
            if program.poll() is not None:
                program = start(arguments.bootstrap.absolute(), server)
            number = str(uuid.uuid4())
            server.events.put((number, line))
            print(json.dumps(outcome(program, server, number)), flush=True)
    finally:
        program.kill()


if __name__ == "__main__":
    main()
