"""What a request asks for, as IAM's actions and the ARNs of what they are about.

S3, IAM, STS, EKS and SQS are known exactly. Of any other service the action is known where the protocol names it, and its
resource where an ARN stands in the request; else "*", which only a policy about "*" allows.
"""
import json
import re
from urllib.parse import unquote

# Of a bucket and of an object, by the query's part: what is done to it; without one: Get, Put or Delete and this.
BUCKET = {"policy": "BucketPolicy", "acl": "BucketAcl", "tagging": "BucketTagging", "versioning": "BucketVersioning",
          "location": "BucketLocation", "object-lock": "BucketObjectLockConfiguration", "cors": "BucketCORS",
          "encryption": "EncryptionConfiguration", "lifecycle": "LifecycleConfiguration"}
OBJECT = {"acl": "ObjectAcl", "tagging": "ObjectTagging", "retention": "ObjectRetention",
          "legal-hold": "ObjectLegalHold"}
VERBS = {"GET": "Get", "HEAD": "Get", "PUT": "Put", "POST": "Put", "DELETE": "Delete"}

EKS = [
    ("GET", r"/access-policies", "ListAccessPolicies"), ("GET", r"/clusters", "ListClusters"), ("GET", r"/clusters/[^/]+", "DescribeCluster"),
    ("GET", r"/clusters/[^/]+/access-entries", "ListAccessEntries"),
    ("POST", r"/clusters/[^/]+/access-entries", "CreateAccessEntry"),
    ("GET", r"/clusters/[^/]+/access-entries/[^/]+", "DescribeAccessEntry"),
    ("POST", r"/clusters/[^/]+/access-entries/[^/]+", "UpdateAccessEntry"),
    ("DELETE", r"/clusters/[^/]+/access-entries/[^/]+", "DeleteAccessEntry"),
    ("GET", r"/clusters/[^/]+/access-entries/[^/]+/access-policies", "ListAssociatedAccessPolicies"),
    ("POST", r"/clusters/[^/]+/access-entries/[^/]+/access-policies", "AssociateAccessPolicy"),
    ("DELETE", r"/clusters/[^/]+/access-entries/[^/]+/access-policies/[^/]+", "DisassociateAccessPolicy"),
    ("GET", r"/tags/.+", "ListTagsForResource"), ("POST", r"/tags/.+", "TagResource"),
    ("DELETE", r"/tags/.+", "UntagResource"),
]


def asked(service, action, environ, params, body, account, region, existing=lambda kind, name: None):
    """Pairs of an action and a resource: all of them must be allowed. `existing` knows the ARN of what is in IAM."""
    method, path = environ["REQUEST_METHOD"], environ["RAW_URI"].split("?")[0]
    if service == "s3":
        return s3(method, environ, params)
    if service == "eks":
        return [eks(method, path, account, region)]
    if service == "sqs":
        return [sqs(action, region, body)]
    if service == "sts":
        return [(f"sts:{action}", params.get("RoleArn", "*"))]
    if service == "iam":
        # What is made is judged by where it shall be, also if another of the name is elsewhere.
        made = action in ("CreateGroup", "CreateRole", "CreateUser")
        return [(f"iam:{action}", iam(params, account, (lambda kind, name: None) if made else existing))]
    return [(f"{service}:{action or '?'}", any_arn(params, body))]


def bucket_of(environ):
    """The bucket and the key, whichever way the bucket is named."""
    named = re.match(r"(.+)\.s3[.-]", environ.get("HTTP_HOST", ""))
    path = unquote(environ["RAW_URI"].split("?")[0]).removeprefix("/")
    return (named[1], path) if named else (path.partition("/")[0], path.partition("/")[2])


def s3(method, environ, params):
    bucket, key = bucket_of(environ)
    if not bucket:
        return [("s3:ListAllMyBuckets", "*")]
    here = f"arn:aws:s3:::{bucket}"
    if not key:
        return [s3_bucket(method, here, params)]
    pairs = [("s3:" + s3_object(method, params), f"{here}/{key}")]
    source = unquote(environ.get("HTTP_X_AMZ_COPY_SOURCE", "")).removeprefix("/").split("?")[0]
    return pairs + ([("s3:GetObject", f"arn:aws:s3:::{source}")] if source else [])


def s3_bucket(method, here, params):
    part = next((name for name in BUCKET if name in params), None)
    if part:
        return f"s3:{VERBS[method]}{BUCKET[part]}", here
    if method in ("GET", "HEAD"):
        lists = {"versions": "ListBucketVersions", "uploads": "ListBucketMultipartUploads"}
        return "s3:" + next((action for name, action in lists.items() if name in params), "ListBucket"), here
    if method == "POST" and "delete" in params:
        return "s3:DeleteObject", here + "/*"
    return ("s3:CreateBucket" if method == "PUT" else "s3:DeleteBucket" if method == "DELETE" else "s3:PutObject"), here


def s3_object(method, params):
    part = next((name for name in OBJECT if name in params), None)
    if part:
        return VERBS[method] + OBJECT[part]
    if "uploadId" in params and method in ("GET", "DELETE"):
        return "ListMultipartUploadParts" if method == "GET" else "AbortMultipartUpload"
    return VERBS[method] + "Object" + ("Version" if "versionId" in params and method != "PUT" else "")


def eks(method, path, account, region):
    action = next((action for verb, pattern, action in EKS if verb == method and re.fullmatch(pattern, path)), "?")
    if path.startswith("/tags/"):
        return f"eks:{action}", unquote(path.removeprefix("/tags/"))
    parts, here = path.split("/"), f"arn:aws:eks:{region}:{account}"
    if len(parts) > 4:
        kind, *_, name = unquote(parts[4]).rpartition(":")[2].split("/")
        # What EKS adds at the end nobody knows before.
        return f"eks:{action}", f"{here}:access-entry/{parts[2]}/{kind}/{account}/{name}/0"
    return f"eks:{action}", f"{here}:cluster/{parts[2]}" if len(parts) > 2 else "*"


def sqs(action, region, body):
    try:
        url = str(json.loads(body or b"{}").get("QueueUrl", ""))
    except ValueError:
        url = ""
    *_, account, name = ["", "", *url.split("/")]
    return f"sqs:{action.removesuffix('Batch')}", f"arn:aws:sqs:{region}:{account}:{name}" if name else "*"


def iam(params, account, existing):
    """The first that is named: who adds a user to a group changes the group."""
    for kind in ("Role", "Group", "User"):
        name = params.get(f"{kind}Name")
        if name:
            return existing(kind, name) or f"arn:aws:iam::{account}:{kind.lower()}{params.get('Path', '/')}{name}"
    return params.get("PolicyArn") or params.get("PolicySourceArn", "*")


def any_arn(params, body):
    try:
        fields = json.loads(body or b"{}")
    except ValueError:
        fields = params
    fields = fields if isinstance(fields, dict) else {}
    return next((value for value in fields.values() if isinstance(value, str) and value.startswith("arn:")), "*")
