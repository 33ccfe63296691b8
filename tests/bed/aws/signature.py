"""SigV4: whose request it is, in the Authorization header or in a presigned query."""
import collections
import hashlib
import hmac
import re
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qsl, quote

from moto.core import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.sts.models import sts_backends

from seed import ROOT_KEY, ROOT_SECRET

INVALID = "The security token included in the request is invalid."
WRONG = ("The request signature we calculated does not match the signature you provided. "
         "Check your AWS Secret Access Key and signing method.")


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
            scope, names = low.get("x-amz-credential", ""), low.get("x-amz-signedheaders", "")
            self.signature = low["x-amz-signature"]
            self.date, self.token = low.get("x-amz-date", ""), low.get("x-amz-security-token")
            self.life = int(low.get("x-amz-expires") or 900)
        elif authorization.startswith("AWS4-HMAC-SHA256 "):
            parts = dict(part.strip().split("=", 1) for part in authorization[17:].split(",") if "=" in part)
            scope, names = parts.get("Credential", ""), parts.get("SignedHeaders", "")
            self.signature, self.life = parts.get("Signature", ""), 900
            self.date, self.token = environ.get("HTTP_X_AMZ_DATE", ""), environ.get("HTTP_X_AMZ_SECURITY_TOKEN")
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
            what = "The provided 'x-amz-content-sha256' header does not match what was computed."
            raise Refused(400, "XAmzContentSHA256Mismatch", what)
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
