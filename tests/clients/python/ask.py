"""The arguments that every SSH client of these tests takes."""

import argparse


def options():
    parser = argparse.ArgumentParser(description="One program or shell on 127.0.0.1, as `ssh` runs it.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--known-hosts", required=True)
    parser.add_argument("--rekey", type=int, default=0, help="bytes after which keys are changed")
    parser.add_argument("--pty", action="store_true", help="ask for a terminal of 80 columns and 24 rows")
    parser.add_argument("--signal", help="sent when the first output has come")
    parser.add_argument("command", nargs="?")
    return parser.parse_args()
