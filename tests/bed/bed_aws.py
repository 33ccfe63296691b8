#!/usr/bin/env python3
"""The bed's AWS: moto in this process, behind what it lacks for a bastion's tests. Never for anything real.

Put in front of moto, before it sees a request:
  - SigV4 is checked, in the Authorization header and in a presigned query, for every key that moto issued; any other
    key is refused, but for the root key of the bed (seed.py)
  - temporary keys expire and need their own session token
  - AssumeRole is held to the role's trust policy, to MaxSessionDuration, to the 1 hour of a chained role, to the
    alphabets of names and tags; its SourceIdentity is given back
  - GetCallerIdentity names its caller, presigned too, and answers JSON where that is accepted, as STS does
  - IAM's lists are cut into pages and obey PathPrefix, GetAccountAuthorizationDetails too, which has no
    MaxSessionDuration, as in AWS; a group with users is not deleted
  - every request is held to the policies of the user and its groups or of the role, to the session policies, to a
    permissions boundary, and in S3 to the bucket's policy: aws/policy.py says how far; so are IAM's simulations
  - EKS has the clusters of --clusters, with addresses, tags, authentication modes and access entries
  - one JSON line for each request goes to the trail
--proxy leads programs that know only AWS's own host names here.

Controls for tests, on the same port:
  GET  /bed/trail                     the last requests, one JSON line each
  POST /bed/sts  {"mode": "throttle"} likewise /bed/iam, /bed/eks, /bed/sqs: ok, throttle, third (every third request
                                      is throttled), refuse, expired, down, slow, hang, nonsense, redirect, html (a page,
                                      200), empty (200), cut (half an answer, then nothing more); "seconds": how slow;
                                      "after": how many requests are answered before; "lifetime": what AssumeRole's keys
                                      really live
  POST /bed/expire {"key": "ASIA…"}   the key's life ends now
  POST /bed/account {"account": "210987654321", "role": "NAME", "trust": {…}, "policy": {…}, "clusters": […]}
                                      an account of somebody else's, with a role and what EKS has there
  POST /bed/eks  {"add": {…}}         a cluster more, as in --clusters; {"remove": "NAME"}: one less (in
                                      one "region"); {"limit": "NAME", "entries": 3}: how many access entries it may have
"""
import argparse
import collections
import io
import ipaddress
import json
import os
import re
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as xml
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qsl, urlencode

sys.dont_write_bytecode = True  # no __pycache__ in a checkout
os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "false")

from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from moto.core import DEFAULT_ACCOUNT_ID  # noqa: E402
from moto.iam.models import iam_backends  # noqa: E402
from moto.moto_server.werkzeug_app import (  # noqa: E402
    DomainDispatcherApplication, MotoRequestHandler, create_backend_app)
from werkzeug.serving import make_server  # noqa: E402

from aws import proxy, rights, simulate  # noqa: E402
from aws.actions import asked, bucket_of  # noqa: E402
from aws.eks import Eks  # noqa: E402
from aws.pages import PAGED, one_page  # noqa: E402
from aws.signature import Refused, Signature, caller_of  # noqa: E402
from seed import seed  # noqa: E402

class Front:
    def __init__(self, app, trail, eks, page):
        self.app, self.trail, self.eks, self.page = app, trail, eks, page
        self.lock, self.recent, self.moods = threading.Lock(), collections.deque(maxlen=10000), {}
        self.policies, self.others = {}, {}

    def __call__(self, environ, start_response):
        chunked = environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked" or environ.get("wsgi.input_terminated")
        stream = environ["wsgi.input"]
        body = stream.read() if chunked else stream.read(int(environ.get("CONTENT_LENGTH") or 0))
        if environ["RAW_URI"].startswith("/bed/"):
            return self.control(environ, body, start_response)
        return self.aws(environ, body, start_response)

    def control(self, environ, body, start_response):
        verb, wanted = environ["RAW_URI"].removeprefix("/bed/"), json.loads(body or b"{}")
        out = b""
        if verb == "trail":
            out = "".join(line + "\n" for line in list(self.recent)).encode()
        elif verb == "expire":
            caller_of(wanted["key"]).role.expiration = datetime(2000, 1, 1)
        elif verb in ("sts", "iam", "sqs") or verb == "eks" and "mode" in wanted:
            self.moods[verb] = wanted
        elif verb == "eks":
            self.eks.change(wanted)
        elif verb == "account":
            self.others[wanted["account"]] = there = Eks(None, wanted["account"], self.page)
            rights.add_role(wanted["account"], wanted["role"], wanted["trust"], wanted["policy"])
            for cluster in wanted["clusters"]:
                there.change({"add": cluster})
        elif verb == "trap":
            self.note({"trap": True})
        else:
            start_response("404 Not Found", [("Content-Length", "0")])
            return []
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(out)))])
        return [out]

    def note(self, line):
        text = json.dumps(line)
        with self.lock:
            self.recent.append(text)
            if self.trail:
                self.trail.write(text + "\n")
                self.trail.flush()

    def aws(self, environ, body, start_response):
        started, status = time.time(), []
        line = {"time": datetime.now(timezone.utc).isoformat(), "method": environ["REQUEST_METHOD"],
                "path": environ["RAW_URI"].split("?")[0], "agent": environ.get("HTTP_USER_AGENT", "")[:80]}

        def answer(head, headers, exc_info=None):
            status.append(int(str(head).split()[0]))
            return start_response(head, headers, exc_info)

        try:
            return self.answered(environ, body, line, answer)
        except Refused as refused:
            line["refused"] = refused.code
            return refuse(environ, refused, answer)
        finally:
            line["status"], line["ms"] = status[-1] if status else None, round((time.time() - started) * 1000, 1)
            self.note(line)

    def answered(self, environ, body, line, answer):
        params = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
        if "form" in environ.get("CONTENT_TYPE", ""):
            params.update(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
        signature = Signature(environ)
        environ["bed.service"] = signature.service
        action = params.get("Action") or environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        line.update(service=signature.service, region=signature.region, action=action, key=signature.key,
                    presigned=signature.presigned)
        if signature.service in ("sts", "iam"):
            line["params"] = {key: value for key, value in params.items() if not key.lower().startswith("x-amz-")}
        caller = signature.check(environ, body)
        line["principal"] = caller.arn
        mood = self.moods.get(signature.service, {})
        odd = self.mood(mood, environ, answer)
        if odd is not None:
            return odd
        self.authorize(environ, signature, action, params, body, caller)
        if action == "DeleteGroup" and rights.has_members(params.get("GroupName")):
            raise Refused(409, "DeleteConflict", "Cannot delete entity, must remove users from group first.")
        if action == "AssumeRole":
            if mood.get("lifetime"):
                body = urlencode({**params, "DurationSeconds": mood["lifetime"]}).encode()
                environ["CONTENT_LENGTH"] = str(len(body))
        environ["wsgi.input"] = io.BytesIO(body)
        if signature.service == "s3" and environ["REQUEST_METHOD"] == "PUT" and "policy" in params:
            # moto would read it as a denial to everybody.
            self.policies[bucket_of(environ)[0]] = json.loads(body)
            return send(answer, "204 No Content", [], b"")
        if signature.service == "eks":
            path = environ["RAW_URI"].split("?")[0]
            query = parse_qsl(environ.get("QUERY_STRING", ""))
            params["tagKeys"] = [value for key, value in query if key == "tagKeys"]
            eks = self.others.get(caller.arn.split(":")[4], self.eks)
            status, document = eks.answer(environ["REQUEST_METHOD"], path, params, body, signature.region)
            return send(answer, f"{status} EKS", [("Content-Type", "application/json")], json.dumps(document).encode())
        if action == "GetCallerIdentity":
            return caller_identity(environ, caller, answer)
        if action == "AssumeRole":
            return self.assumed(environ, params, caller, answer)
        if action == "SimulatePrincipalPolicy":
            return send(answer, "200 OK", [("Content-Type", "text/xml")], simulate.answer(params))
        if signature.service == "iam" and action in PAGED:
            return self.paged(environ, action, params, answer)
        return self.app(environ, answer)

    def authorize(self, environ, signature, action, params, body, caller):
        if action == "AssumeRole":
            rights.may_assume(params, caller, signature.region)
            return
        pairs = asked(signature.service, action, environ, params, body, DEFAULT_ACCOUNT_ID, signature.region,
                      rights.existing)
        policy = self.policies.get(bucket_of(environ)[0]) if signature.service == "s3" else None
        extra = {"s3:prefix": params["prefix"]} if "prefix" in params else {}
        if signature.service == "iam":
            extra.update(rights.about_role(params))
        rights.authorize(caller, pairs, signature.region, policy, extra)

    def mood(self, mood, environ, answer):
        """What the tests asked this service to do instead of its work."""
        mode = mood.get("mode", "ok")
        with self.lock:
            asked = mood["asked"] = mood.get("asked", 0) + 1
        if asked <= mood.get("after", 0):
            return None
        if mode == "throttle" or mode == "third" and asked % 3 == 0:
            raise Refused(400, "Throttling", "Rate exceeded")
        if mode == "refuse":
            raise Refused(403, "AccessDenied", "refused by the bed")
        if mode == "expired":
            raise Refused(403, "ExpiredToken", "The security token included in the request is expired")
        if mode in ("slow", "hang"):
            time.sleep(float(mood.get("seconds", 30)))
        if mode == "down":
            return send(answer, "503 Service Unavailable", [("Content-Type", "text/html")], b"<html>down</html>")
        if mode == "nonsense":
            return send(answer, "200 OK", [("Content-Type", "text/xml")], b"<AssumeRoleResponse><")
        if mode == "html":
            page = b"<html><body>Sign in to the Wi-Fi</body></html>"
            return send(answer, "200 OK", [("Content-Type", "text/html")], page)
        if mode == "empty":
            return send(answer, "200 OK", [("Content-Type", "text/xml")], b"")
        if mode == "cut":
            answer("200 OK", [("Content-Type", "text/xml"), ("Content-Length", "5000"), ("Connection", "close")])
            return [b"<AssumeRoleResponse><AssumeRoleResult><Credentials>"]
        if mode == "redirect":
            trap = f"http://{environ['HTTP_HOST']}/bed/trap"
            return send(answer, "307 Temporary Redirect", [("Location", trap)], b"")
        return None

    def run(self, environ):
        got = []
        out = b"".join(self.app(environ, lambda status, headers, exc_info=None: got.extend((status, headers))))
        return got[0], got[1], out

    def assumed(self, environ, params, caller, answer):
        status, headers, out = self.run(environ)
        key = re.search(rb"<AccessKeyId>([^<]+)<", out)
        if key:
            rights.opened(key[1].decode(), params, caller)
        if params.get("SourceIdentity"):
            given = f"<SourceIdentity>{params['SourceIdentity']}</SourceIdentity></AssumeRoleResult>".encode()
            out = out.replace(b"</AssumeRoleResult>", given)
        return send(answer, status, headers, out)

    def paged(self, environ, action, params, answer):
        # Where moto knows pages itself, it shall not cut.
        whole = {**{key: value for key, value in params.items() if key != "Marker"}, "MaxItems": "1000"}
        body = urlencode(whole).encode()
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))
        status, headers, out = self.run(environ)
        if status.startswith("200"):
            out = one_page(out, action, params, self.page)
        return send(answer, status, headers, out)


def caller_identity(environ, caller, answer):
    account = caller.arn.split(":")[4]
    user = next((user.id for user in iam_backends[account]["aws"].users.values() if user.arn == caller.arn), account)
    user = caller.role.user_id if caller.role is not None else user
    request = os.urandom(16).hex()
    if "json" in environ.get("HTTP_ACCEPT", ""):
        kind, text = "application/json", json.dumps({"GetCallerIdentityResponse": {
            "GetCallerIdentityResult": {"Account": account, "Arn": caller.arn, "UserId": user},
            "ResponseMetadata": {"RequestId": request}}})
    else:
        kind, text = "text/xml", (
            '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
            f"<Arn>{caller.arn}</Arn><UserId>{user}</UserId><Account>{account}</Account></GetCallerIdentityResult>"
            f"<ResponseMetadata><RequestId>{request}</RequestId></ResponseMetadata></GetCallerIdentityResponse>")
    return send(answer, "200 OK", [("Content-Type", kind), ("x-amzn-RequestId", request)], text.encode())


def refuse(environ, refused, answer):
    kind = "application/x-amz-json-1.1"
    if "json" in environ.get("HTTP_ACCEPT", ""):
        kind = "application/json"
        text = json.dumps({"Error": {"Code": refused.code, "Message": refused.message, "Type": "Sender"}})
    elif speaks_json(environ):
        text = json.dumps({"__type": refused.code, "message": refused.message})
    else:
        kind, tree = "text/xml", xml.Element("ErrorResponse")
        error = xml.SubElement(tree, "Error")
        for name, value in (("Type", "Sender"), ("Code", refused.code), ("Message", refused.message)):
            xml.SubElement(error, name).text = value
        xml.SubElement(tree, "RequestId").text = "bed"
        text = xml.tostring(tree, encoding="unicode")
    headers = [("Content-Type", kind), ("x-amzn-errortype", refused.code)]
    return send(answer, f"{refused.status} Refused", headers, text.encode())


def speaks_json(environ):
    named = environ.get("bed.service") == "eks" or environ.get("HTTP_X_AMZ_TARGET")
    return bool(named) or "json" in environ.get("CONTENT_TYPE", "")


def send(answer, status, headers, out):
    others = [(name, value) for name, value in headers if name.lower() != "content-length"]
    answer(status, [*others, ("Content-Length", str(len(out)))])
    return [out]


class Handler(MotoRequestHandler):
    protocol_version = "HTTP/1.1"

    def make_environ(self):
        environ = super().make_environ()
        # As it came: the signature is over the path before anybody decodes it.
        environ["RAW_URI"] = self.path if self.path.startswith("/") else "/"
        return environ

    def log_request(self, *_):
        pass


def tls(root, host):
    """A certificate for this host, and its root for clients to trust."""
    key, start = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc) - timedelta(hours=1)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "the bed")])
    aws = ["*.amazonaws.com", "*.s3.amazonaws.com", "*.us-east-1.amazonaws.com", "*.s3.us-east-1.amazonaws.com",
           "*.eu-west-1.amazonaws.com", "*.eu-central-1.amazonaws.com", "*.ap-south-1.amazonaws.com"]
    names = [x509.DNSName(name) for name in ["localhost", "bed.example.test", *aws]]
    names.append(x509.IPAddress(ipaddress.ip_address(host)))
    certificate = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
                   .serial_number(x509.random_serial_number())
                   .not_valid_before(start).not_valid_after(start + timedelta(days=2))
                   .add_extension(x509.SubjectAlternativeName(names), critical=False).sign(key, hashes.SHA256()))
    public = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with open(root, "wb") as file:
        file.write(public)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as both:
        both.write(private + public)
        both.flush()
        context.load_cert_chain(both.name)
    return context


def end_with_stdin():
    """The bed ends with whoever holds the other end of its stdin, however that one ends."""
    while os.read(0, 4096):
        pass
    os._exit(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one; printed, and written to --ready-file")
    parser.add_argument("--tls", metavar="CA",
                        help="a second port speaks TLS, by a certificate made now; this file gets its root")
    parser.add_argument("--tls-at", metavar="HOST:PORT", default="", help="where that port is; any free one by default")
    parser.add_argument("--seed", metavar="OUT", help="fill the bed as seed.py does")
    parser.add_argument("--ready-file",
                        help='written once all is up: {"endpoint": …, "port": …, "tls_port": …, "proxy_port": …}')
    parser.add_argument("--trail", help="a file for one JSON line a request")
    parser.add_argument("--page", type=int, default=100,
                        help="the most items of one page of IAM or EKS; small for tests of paging")
    parser.add_argument("--proxy", type=int, metavar="PORT",
                        help="a CONNECT proxy from *.amazonaws.com to the TLS port; 0: any free one")
    parser.add_argument("--clusters", metavar="FILE", help="EKS's clusters: aws/eks.py says how they are written")
    parser.add_argument("--end-with-stdin", action="store_true", help="end when stdin is closed")
    args = parser.parse_args()

    # pylint: disable=consider-using-with
    trail = open(args.trail, "a", encoding="utf-8") if args.trail else None
    eks = Eks(args.clusters, DEFAULT_ACCOUNT_ID, args.page)
    front = Front(DomainDispatcherApplication(create_backend_app), trail, eks, args.page)
    server = make_server(args.host, args.port, front, threaded=True, request_handler=Handler)
    servers, ready = [server], {"endpoint": f"http://{args.host}:{server.port}", "port": server.port}
    os.environ["MOTO_PORT"] = str(server.port)
    if args.tls:
        host, _, port = args.tls_at.rpartition(":")
        host, port = host or args.host, int(port or 0)
        context = tls(args.tls, host)
        servers.append(make_server(host, port, front, threaded=True, request_handler=Handler, ssl_context=context))
        ready["tls_port"] = servers[1].port
    if args.proxy is not None:
        listener = socket.create_server((args.host, args.proxy))
        ready["proxy_port"] = listener.getsockname()[1]
        target = servers[-1].server_address[:2]
        threading.Thread(target=proxy.serve, args=(listener, target), daemon=True).start()
    for one in servers:
        threading.Thread(target=one.serve_forever, daemon=True).start()
    if args.seed:
        seed(ready["endpoint"], args.seed)
    if args.ready_file:
        with open(args.ready_file + ".new", "w", encoding="ascii") as file:
            json.dump(ready, file)
        os.replace(args.ready_file + ".new", args.ready_file)
    print(json.dumps(ready), flush=True)
    if args.end_with_stdin:
        end_with_stdin()
    signal.pause()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
