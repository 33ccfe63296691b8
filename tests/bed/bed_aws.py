#!/usr/bin/env python3
"""The bed's AWS: moto in this process, behind what it lacks for a bastion's tests. Never for anything real.

Put in front of moto, before it sees a request:
  - SigV4 is checked, in the Authorization header and in a presigned query, for every key that moto issued; any other
    key is refused, but for the root key of the bed (seed.py)
  - temporary keys expire and need their own session token
  - AssumeRole is held to the role's trust policy (who, and which of AssumeRole, TagSession, SetSourceIdentity; of its
    conditions only sts:SourceIdentity), to MaxSessionDuration, to the 1 hour of a chained role, to the alphabets of
    names and tags; its SourceIdentity is given back
  - GetCallerIdentity names its caller, presigned too, and answers JSON where that is accepted, as STS does
  - IAM's lists are cut into pages and obey PathPrefix
  - a bucket's policy is held to where it denies all but one aws:PrincipalArn
  - one JSON line for each request goes to the trail
Not enforced: identity policies, session policies, any other Resource.

Controls for tests, on the same port:
  GET  /bed/trail                     the last requests, one JSON line each
  POST /bed/sts  {"mode": "throttle"} likewise /bed/iam: ok, throttle, refuse, expired, down, slow, hang, nonsense,
                                      redirect, html (a page, 200), empty (200), cut (half an answer, then nothing more);
                                      "seconds": how slow; "lifetime": what AssumeRole's keys really live
  POST /bed/expire {"key": "ASIA…"}   the key's life ends now
"""
import argparse
import collections
import hashlib
import hmac
import io
import ipaddress
import json
import os
import re
import signal
import ssl
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as xml
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qsl, quote, urlencode

sys.dont_write_bytecode = True  # no __pycache__ in a checkout
os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "false")

from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from moto.core import DEFAULT_ACCOUNT_ID  # noqa: E402
from moto.iam.models import iam_backends  # noqa: E402
from moto.moto_server.werkzeug_app import (  # noqa: E402
    DomainDispatcherApplication, MotoRequestHandler, create_backend_app)
from moto.sts.models import sts_backends  # noqa: E402
from werkzeug.serving import make_server  # noqa: E402

from seed import ROOT_KEY, ROOT_SECRET, seed  # noqa: E402

NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
TAG = re.compile(r"[\w .:/=+@-]*")
INVALID = "The security token included in the request is invalid."
WRONG = ("The request signature we calculated does not match the signature you provided. "
         "Check your AWS Secret Access Key and signing method.")
# What each of IAM's lists pages by.
PAGED = {"ListGroups": "Groups", "GetGroup": "Users", "ListGroupsForUser": "Groups", "ListUsers": "Users",
         "ListRoles": "Roles", "ListSSHPublicKeys": "SSHPublicKeys", "ListRoleTags": "Tags", "ListUserTags": "Tags"}


class Refused(Exception):
    def __init__(self, status, code, message):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


Caller = collections.namedtuple("Caller", "secret token expires arn role")


def caller_of(key):
    """Whose key it is."""
    if key == ROOT_KEY:
        return Caller(ROOT_SECRET, None, None, f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:root", None)
    for account in list(sts_backends):
        for role in list(sts_backends[account]["aws"].assumed_roles):
            if role.access_key_id == key:
                return Caller(role.secret_access_key, role.session_token, role.expiration, role.arn, role)
    for account in list(iam_backends):
        for user in list(iam_backends[account]["aws"].users.values()):
            for access in user.access_keys:
                if access.access_key_id == key and access.status == "Active":
                    return Caller(access.secret_access_key, None, None, user.arn, None)
    raise Refused(403, "InvalidClientTokenId", INVALID)


def encode(text):
    return quote(text, safe="-_.~")


def sign(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def header(environ, name):
    if name in ("content-type", "content-length"):
        return environ.get(name.upper().replace("-", "_"), "")
    return environ.get("HTTP_" + name.upper().replace("-", "_"), "")


class Signature:
    """A request's SigV4 signature, from its header or from its query."""

    def __init__(self, environ):
        self.path, _, query = environ["RAW_URI"].partition("?")
        self.params = parse_qsl(query, keep_blank_values=True)
        low = {key.lower(): value for key, value in self.params}
        self.presigned = "x-amz-signature" in low
        authorization = environ.get("HTTP_AUTHORIZATION", "")
        if self.presigned:
            scope, names, self.signature = low.get("x-amz-credential", ""), low.get("x-amz-signedheaders", ""), low["x-amz-signature"]
            self.date, self.token = low.get("x-amz-date", ""), low.get("x-amz-security-token")
            self.life = int(low.get("x-amz-expires") or 900)
        elif authorization.startswith("AWS4-HMAC-SHA256 "):
            parts = dict(part.strip().split("=", 1) for part in authorization[17:].split(",") if "=" in part)
            scope, names, self.signature = (parts.get(name, "") for name in ("Credential", "SignedHeaders", "Signature"))
            self.date, self.token, self.life = environ.get("HTTP_X_AMZ_DATE", ""), environ.get("HTTP_X_AMZ_SECURITY_TOKEN"), 900
        else:
            raise Refused(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
        if scope.count("/") != 4:
            raise Refused(400, "IncompleteSignature", "Credential must have exactly 5 slash-delimited elements")
        self.key, self.day, self.region, self.service, _ = scope.split("/")
        self.names = names.split(";")

    def check(self, environ, body):
        """The caller, if all is in order."""
        caller = caller_of(self.key)
        self.check_time()
        if caller.token != (self.token or None):
            raise Refused(403, "InvalidClientTokenId", INVALID)
        if caller.expires and datetime.now(timezone.utc) > caller.expires.replace(tzinfo=timezone.utc):
            raise Refused(403, "ExpiredToken", "The security token included in the request is expired")
        digest = environ.get("HTTP_X_AMZ_CONTENT_SHA256") or (
            "UNSIGNED-PAYLOAD" if self.presigned and self.service == "s3" else hashlib.sha256(body).hexdigest())
        if re.fullmatch(r"[0-9a-f]{64}", digest) and digest != hashlib.sha256(body).hexdigest():
            raise Refused(400, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.")
        if not hmac.compare_digest(self.expected(environ, caller.secret, digest), self.signature):
            raise Refused(403, "SignatureDoesNotMatch", WRONG)
        return caller

    def check_time(self):
        try:
            signed = datetime.strptime(self.date, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
        except ValueError:
            raise Refused(400, "IncompleteSignature", "Date must be in ISO-8601 'basic format'") from None
        # STS takes a presigned request for 15 minutes whatever X-Amz-Expires says.
        life = max(self.life, 900) if self.service == "sts" else self.life
        now = datetime.now(timezone.utc)
        if not signed - timedelta(minutes=5) <= now <= signed + timedelta(seconds=life):
            raise Refused(403, "SignatureDoesNotMatch", f"Signature expired: {self.date} is now earlier than allowed")

    def expected(self, environ, secret, digest):
        path = self.path if self.service == "s3" else quote(self.path, safe="/-_.~")
        query = "&".join(sorted(f"{encode(k)}={encode(v)}" for k, v in self.params if k.lower() != "x-amz-signature"))
        headers = "".join(f"{name}:{' '.join(header(environ, name).split())}\n" for name in self.names)
        request = "\n".join([environ["REQUEST_METHOD"], path, query, headers, ";".join(self.names), digest])
        scope = [self.day, self.region, self.service, "aws4_request"]
        text = f"AWS4-HMAC-SHA256\n{self.date}\n{'/'.join(scope)}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = b"AWS4" + secret.encode()
        for word in scope:
            key = sign(key, word)
        return sign(key, text).hex()


def numbered(params, name):
    """The members of a list in the query protocol."""
    return [value for key, value in params.items() if re.fullmatch(name, key)]


def may_assume(params, caller):
    """Holds AssumeRole to what AWS would say."""
    arn = params.get("RoleArn", "")
    found = re.fullmatch(r"arn:aws:iam::(\d{12}):role/(?:.*/)?[^/]+", arn)
    roles = iam_backends[found[1]]["aws"].roles.values() if found else []
    role = next((role for role in roles if role.arn == arn), None)
    if role is None or not trusts(role, params, caller):
        raise Refused(403, "AccessDenied", f"User: {caller.arn} is not authorized to perform: sts:AssumeRole on resource: {arn}")
    invalid = [f"'{params.get(name)}' at '{name}'" for name in ("RoleSessionName", "SourceIdentity")
               if name in params and not NAME.fullmatch(params[name])]
    invalid += [f"tag '{value}'" for value in numbered(params, r"Tags\.member\.\d+\.(Key|Value)") if not TAG.fullmatch(value)]
    seconds = int(params.get("DurationSeconds", 3600))
    if not 900 <= seconds <= 43200:
        invalid.append(f"'{seconds}' at 'durationSeconds'")
    if invalid:
        raise Refused(400, "ValidationError", f"{len(invalid)} validation error detected: Value {'; '.join(invalid)} failed to satisfy constraint")
    if caller.role is not None and seconds > 3600:
        raise Refused(400, "ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
    if seconds > int(role.max_session_duration or 3600):
        raise Refused(400, "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
    if len(params.get("Policy", "")) > 2048:
        raise Refused(400, "PackedPolicyTooLarge", "Packed size of session policy exceeds the limit")
    try:
        json.loads(params.get("Policy") or "{}")
    except ValueError:
        raise Refused(400, "MalformedPolicyDocument", "The policy is not in the valid JSON format.") from None


def trusts(role, params, caller):
    """Whether the role's trust policy names this caller and each action that the call needs."""
    needed = {"sts:AssumeRole"}
    needed |= {"sts:TagSession"} if numbered(params, r"Tags\.member\..*") else set()
    needed |= {"sts:SetSourceIdentity"} if "SourceIdentity" in params else set()
    names = {caller.arn}
    if caller.role is not None:
        names.add(caller.role.role_arn)
    document = role.assume_role_policy_document
    statements = (json.loads(document) if isinstance(document, str) else document)["Statement"]
    allowed = set()
    for statement in statements if isinstance(statements, list) else [statements]:
        trusted = as_list((statement.get("Principal") or {}).get("AWS"))
        wanted = statement.get("Condition", {}).get("StringEquals", {}).get("sts:SourceIdentity")
        if statement.get("Effect") == "Allow" and names & set(trusted) and wanted in (None, params.get("SourceIdentity")):
            allowed |= set(as_list(statement.get("Action")))
    return needed <= allowed


def bucket_of(environ):
    name = re.match(r"(.+)\.s3[.-]", environ.get("HTTP_HOST", ""))
    return name[1] if name else environ["RAW_URI"].split("?")[0].split("/")[1]


def may_touch(policy, caller):
    """Holds S3 to the denials of a bucket's policy, of the one kind that seed.py writes."""
    arn = caller.role.role_arn if caller.role is not None else caller.arn
    for statement in policy.get("Statement", []):
        but = statement.get("Condition", {}).get("StringNotEquals", {}).get("aws:PrincipalArn")
        if statement["Effect"] == "Deny" and but and arn not in as_list(but):
            raise Refused(403, "AccessDenied", f"User: {caller.arn} is not authorized: an explicit deny in a resource-based policy")


def as_list(value):
    return value if isinstance(value, list) else [] if value is None else [value]


class Front:
    def __init__(self, app, trail, page):
        self.app, self.trail, self.page = app, trail, page
        self.lock, self.recent, self.moods = threading.Lock(), collections.deque(maxlen=10000), {}
        self.policies = {}

    def __call__(self, environ, start_response):
        chunked = environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked" or environ.get("wsgi.input_terminated")
        stream = environ["wsgi.input"]
        body = stream.read() if chunked else stream.read(int(environ.get("CONTENT_LENGTH") or 0))
        if environ["RAW_URI"].startswith("/bed/"):
            return self.control(environ, body, start_response)
        return self.aws(environ, body, start_response)

    def control(self, environ, body, start_response):
        verb, asked = environ["RAW_URI"].removeprefix("/bed/"), json.loads(body or b"{}")
        out = b""
        if verb == "trail":
            out = "".join(line + "\n" for line in list(self.recent)).encode()
        elif verb == "expire":
            caller_of(asked["key"]).role.expiration = datetime(2000, 1, 1)
        elif verb in ("sts", "iam"):
            self.moods[verb] = asked
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
        action = params.get("Action") or environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        line.update(service=signature.service, region=signature.region, action=action, key=signature.key, presigned=signature.presigned)
        if signature.service in ("sts", "iam"):
            line["params"] = {key: value for key, value in params.items() if not key.lower().startswith("x-amz-")}
        caller = signature.check(environ, body)
        line["principal"] = caller.arn
        mood = self.moods.get(signature.service, {})
        odd = self.mood(mood, environ, answer)
        if odd is not None:
            return odd
        if action == "AssumeRole":
            may_assume(params, caller)
            if mood.get("lifetime"):
                body = urlencode({**params, "DurationSeconds": mood["lifetime"]}).encode()
                environ["CONTENT_LENGTH"] = str(len(body))
        environ["wsgi.input"] = io.BytesIO(body)
        if signature.service == "s3":
            bucket = bucket_of(environ)
            may_touch(self.policies.get(bucket, {}), caller)
            # moto would read it as a denial to everybody.
            if environ["REQUEST_METHOD"] == "PUT" and "policy" in params:
                self.policies[bucket] = json.loads(body)
                return send(answer, "204 No Content", [], b"")
        if action == "GetCallerIdentity":
            return caller_identity(environ, caller, answer)
        if action == "AssumeRole" and params.get("SourceIdentity"):
            return self.with_source_identity(environ, params["SourceIdentity"], answer)
        if signature.service == "iam" and action in PAGED:
            return self.paged(environ, action, params, answer)
        return self.app(environ, answer)

    def mood(self, mood, environ, answer):
        """What the tests asked this service to do instead of its work."""
        mode = mood.get("mode", "ok")
        if mode == "throttle":
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
            return send(answer, "200 OK", [("Content-Type", "text/html")], b"<html><body>Sign in to the Wi-Fi</body></html>")
        if mode == "empty":
            return send(answer, "200 OK", [("Content-Type", "text/xml")], b"")
        if mode == "cut":
            answer("200 OK", [("Content-Type", "text/xml"), ("Content-Length", "5000"), ("Connection", "close")])
            return [b"<AssumeRoleResponse><AssumeRoleResult><Credentials>"]
        if mode == "redirect":
            return send(answer, "307 Temporary Redirect", [("Location", f"http://{environ['HTTP_HOST']}/bed/trap")], b"")
        return None

    def run(self, environ):
        got = []
        out = b"".join(self.app(environ, lambda status, headers, exc_info=None: got.extend((status, headers))))
        return got[0], got[1], out

    def with_source_identity(self, environ, identity, answer):
        status, headers, out = self.run(environ)
        given = f"<SourceIdentity>{identity}</SourceIdentity></AssumeRoleResult>".encode()
        return send(answer, status, headers, out.replace(b"</AssumeRoleResult>", given))

    def paged(self, environ, action, params, answer):
        status, headers, out = self.run(environ)
        if status.startswith("200"):
            out = one_page(out, action, params, self.page)
        return send(answer, status, headers, out)


def one_page(out, action, params, page):
    xml.register_namespace("", "https://iam.amazonaws.com/doc/2010-05-08/")
    tree = xml.fromstring(out)
    result = next(element for element in tree.iter() if element.tag.endswith(action + "Result"))
    space = result.tag[:result.tag.index("}") + 1] if "}" in result.tag else ""
    items = result.find(space + PAGED[action])
    if items is None:
        return out
    for item in list(items):
        path = item.find(space + "Path")
        if path is not None and not path.text.startswith(params.get("PathPrefix", "/")):
            items.remove(item)
    members, start = list(items), int(params.get("Marker", "page-0").removeprefix("page-"))
    end = start + min(int(params.get("MaxItems", page)), page)
    for item in members[:start] + members[end:]:
        items.remove(item)
    for name in ("IsTruncated", "Marker"):
        for old in result.findall(space + name):
            result.remove(old)
    xml.SubElement(result, space + "IsTruncated").text = str(end < len(members)).lower()
    if end < len(members):
        xml.SubElement(result, space + "Marker").text = f"page-{end}"
    return xml.tostring(tree)


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
        kind, text = "application/json", json.dumps({"Error": {"Code": refused.code, "Message": refused.message, "Type": "Sender"}})
    elif environ.get("HTTP_X_AMZ_TARGET") or "json" in environ.get("CONTENT_TYPE", ""):
        text = json.dumps({"__type": refused.code, "message": refused.message})
    else:
        kind, tree = "text/xml", xml.Element("ErrorResponse")
        error = xml.SubElement(tree, "Error")
        for name, value in (("Type", "Sender"), ("Code", refused.code), ("Message", refused.message)):
            xml.SubElement(error, name).text = value
        xml.SubElement(tree, "RequestId").text = "bed"
        text = xml.tostring(tree, encoding="unicode")
    return send(answer, f"{refused.status} Refused", [("Content-Type", kind), ("x-amzn-errortype", refused.code)], text.encode())


def send(answer, status, headers, out):
    answer(status, [(name, value) for name, value in headers if name.lower() != "content-length"] + [("Content-Length", str(len(out)))])
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
    aws = ["*.amazonaws.com", "*.s3.amazonaws.com", "*.us-east-1.amazonaws.com", "*.s3.us-east-1.amazonaws.com"]
    names = [x509.DNSName(name) for name in ["localhost", "bed.example.test", *aws]] + [x509.IPAddress(ipaddress.ip_address(host))]
    certificate = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
                   .serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(start + timedelta(days=2))
                   .add_extension(x509.SubjectAlternativeName(names), critical=False).sign(key, hashes.SHA256()))
    public = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
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
    parser.add_argument("--tls", metavar="CA", help="a second port speaks TLS, by a certificate made now; this file gets its root")
    parser.add_argument("--tls-at", metavar="HOST:PORT", default="", help="where that port is; any free one by default")
    parser.add_argument("--seed", metavar="OUT", help="fill the bed as seed.py does")
    parser.add_argument("--ready-file", help="written once all is up: {\"endpoint\": …, \"port\": …, \"tls_port\": …}")
    parser.add_argument("--trail", help="a file for one JSON line a request")
    parser.add_argument("--page", type=int, default=100, help="the most items of one IAM page; small for tests of paging")
    parser.add_argument("--end-with-stdin", action="store_true", help="end when stdin is closed")
    args = parser.parse_args()

    # pylint: disable=consider-using-with
    trail = open(args.trail, "a", encoding="utf-8") if args.trail else None
    front = Front(DomainDispatcherApplication(create_backend_app), trail, args.page)
    server = make_server(args.host, args.port, front, threaded=True, request_handler=Handler)
    servers, ready = [server], {"endpoint": f"http://{args.host}:{server.port}", "port": server.port}
    os.environ["MOTO_PORT"] = str(server.port)
    if args.tls:
        host, _, port = args.tls_at.rpartition(":")
        host, port = host or args.host, int(port or 0)
        servers.append(make_server(host, port, front, threaded=True, request_handler=Handler, ssl_context=tls(args.tls, host)))
        ready["tls_port"] = servers[1].port
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
