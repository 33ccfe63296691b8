"""A CONNECT proxy that leads AWS's own host names to the bed, and refuses all others.

So a program that knows no endpoint but https://sts.REGION.amazonaws.com works unchanged: HTTPS_PROXY names this proxy,
and the bed's root is the one that it trusts.
"""
import re
import socket
import threading

AWS = re.compile(r"[a-z0-9.-]+\.amazonaws\.com:443")
REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"
HEAD = 16384


def serve(listener, target):
    while True:
        client, _ = listener.accept()
        threading.Thread(target=one, args=(client, target), daemon=True).start()


def one(client, target):
    with client:
        head = b""
        while b"\r\n\r\n" not in head:
            part = client.recv(4096)
            if not part or len(head) > HEAD:
                return
            head += part
        verb, host, *_ = head.split(b"\r\n", 1)[0].decode(errors="replace").split() + ["", ""]
        if verb != "CONNECT" or not AWS.fullmatch(host):
            client.sendall(REFUSED)
            return
        with socket.create_connection(target) as upstream:
            client.sendall(OPEN)
            back = threading.Thread(target=pump, args=(upstream, client), daemon=True)
            back.start()
            pump(client, upstream)
            back.join()


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for end, how in ((source, socket.SHUT_RD), (sink, socket.SHUT_WR)):
            try:
                end.shutdown(how)
            except OSError:
                pass
