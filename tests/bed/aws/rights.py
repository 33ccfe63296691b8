"""Who may do what: moto's users, groups and roles, the sessions that STS opened, and `policy` over all of them."""
import collections
import json
import re
from datetime import datetime, timezone
from urllib.parse import unquote

from moto.core import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends

from aws.policy import Request, allowed, says
from aws.signature import Refused

NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
TAG = re.compile(r"[\w .:/=+@-]*")
ROOT = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:root"
# These tell a caller only about itself: AWS answers whatever the policies say.
ALWAYS = {"sts:GetCallerIdentity", "sts:GetSessionToken"}

# Of what AssumeRole was given, what moto forgets; by access key.
Session = collections.namedtuple("Session", "policies tags transitive source issued")
SESSIONS = {}


def iam():
    return iam_backends[DEFAULT_ACCOUNT_ID]["aws"]


def existing(kind, name):
    """The ARN of a role, group or user."""
    found = {"Role": iam().roles, "Group": iam().groups, "User": iam().users}[kind].values()
    return next((one.arn for one in found if one.name == name), None)


def about_role(params):
    """Of a request to IAM about a role: the boundary that it will have, or has."""
    role = next((role for role in iam().roles.values() if role.name == params.get("RoleName")), None)
    boundary = params.get("PermissionsBoundary") or (role and role.permissions_boundary_arn)
    return {"iam:permissionsboundary": boundary} if boundary else {}


def has_members(name):
    group = iam().groups.get(name)
    return group is not None and bool(group.users)


def role_of(arn):
    """In whatever account."""
    account = arn.split(":")[4] if arn.count(":") > 4 else DEFAULT_ACCOUNT_ID
    known = iam_backends[account]["aws"].roles if account in list(iam_backends) else {}
    return next((role for role in known.values() if role.arn == arn), None)


def add_role(account, name, trust, policy):
    """A role of another account, where nobody of the bed's own may make one."""
    there = iam_backends[account]["aws"]
    there.create_role(role_name=name, assume_role_policy_document=json.dumps(trust), path="/", permissions_boundary=None,
                      description="", tags=[], max_session_duration=3600)
    there.put_role_policy(name, "own", json.dumps(policy))


def principal_exists(arn):
    return role_of(arn) is not None or any(user.arn == arn for user in iam().users.values())


def parsed(document):
    if isinstance(document, dict):
        return document
    try:
        return json.loads(document)
    except ValueError:
        return json.loads(unquote(document))


def managed(policy):
    return parsed(next(one.document for one in policy.versions if one.version_id == policy.default_version_id))


def of(holder):
    """The policies of a user, a group or a role."""
    inline = [parsed(text) for text in holder.policies.values()]
    return inline + [managed(policy) for policy in holder.managed_policies.values()]


def own(caller):
    """The caller's own policies, and the ceilings above them."""
    if caller.role is None:
        user = next((user for user in iam().users.values() if user.arn == caller.arn), None)
        if user is None:
            return [], []
        groups = [group for group in iam().groups.values() if user in group.users]
        return [policy for holder in (user, *groups) for policy in of(holder)], []
    role, session = role_of(caller.role.role_arn), SESSIONS.get(caller.role.access_key_id)
    if role is None:
        return [], []
    ceilings = [session.policies] if session and session.policies else []
    if role.permissions_boundary_arn:
        ceilings.append([managed(iam().managed_policies[role.permissions_boundary_arn])])
    return of(role), ceilings


def context(caller, region):
    now = datetime.now(timezone.utc).isoformat()
    keys = {"aws:principalarn": principal(caller), "aws:requestedregion": region, "aws:currenttime": now,
            "aws:principalaccount": DEFAULT_ACCOUNT_ID}
    if caller.role is None:
        return {**keys, "aws:username": caller.arn.rsplit("/", 1)[-1]}
    session = SESSIONS.get(caller.role.access_key_id)
    keys["aws:userid"] = caller.role.user_id
    if session:
        keys["aws:tokenissuetime"] = session.issued
        keys.update({"aws:sourceidentity": session.source} if session.source else {})
        keys.update({f"aws:principaltag/{name.lower()}": value for name, value in session.tags.items()})
    return keys


def principal(caller):
    return caller.role.role_arn if caller.role is not None else caller.arn


def names(caller):
    return frozenset((caller.arn, principal(caller)))


def authorize(caller, pairs, region, resource_policy, extra):
    """Refuses what the policies do not allow. The bed's root may do all."""
    if caller.arn == ROOT:
        return
    identity, ceilings = own(caller)
    for action, resource in pairs:
        if action in ALWAYS:
            continue
        request = Request(action, resource, names(caller), {**context(caller, region), **extra})
        may, why = allowed(request, identity, ceilings, [resource_policy] if resource_policy else [])
        if not may:
            raise denied(caller, action, resource, why)


def denied(caller, action, resource, why):
    # The services whose protocol is JSON have another name for it.
    code = "AccessDenied" if action.split(":")[0] in ("s3", "sts", "iam") else "AccessDeniedException"
    what = f"User: {caller.arn} is not authorized to perform: {action} on resource: {resource} because {why}"
    return Refused(403, code, what)


def numbered(params, name):
    """The members of a list in the query protocol."""
    return [value for key, value in params.items() if re.fullmatch(name, key)]


def tags(params):
    numbers = [key.split(".")[2] for key in params if re.fullmatch(r"Tags\.member\.\d+\.Key", key)]
    return {params[f"Tags.member.{n}.Key"]: params.get(f"Tags.member.{n}.Value", "") for n in numbers}


def may_assume(params, caller, region):
    """Holds AssumeRole to what AWS would say."""
    arn = params.get("RoleArn", "")
    role = role_of(arn)
    if role is None or not trusts(role, params, caller, region):
        raise denied(caller, "sts:AssumeRole", arn, "its trust policy does not allow it")
    invalid = [f"'{params.get(name)}' at '{name}'" for name in ("RoleSessionName", "SourceIdentity")
               if name in params and not NAME.fullmatch(params[name])]
    given = numbered(params, r"Tags\.member\.\d+\.(Key|Value)")
    invalid += [f"tag '{value}'" for value in given if not TAG.fullmatch(value)]
    seconds = int(params.get("DurationSeconds", 3600))
    if not 900 <= seconds <= 43200:
        invalid.append(f"'{seconds}' at 'durationSeconds'")
    if invalid:
        values = "; ".join(invalid)
        raise wrong(f"{len(invalid)} validation error detected: Value {values} failed to satisfy constraint")
    asked = "The requested DurationSeconds exceeds the "
    if caller.role is not None and seconds > 3600:
        raise wrong(asked + "1 hour session limit for roles assumed by role chaining.")
    if seconds > int(role.max_session_duration or 3600):
        raise wrong(asked + "MaxSessionDuration set for this role.")
    if len(params.get("Policy", "")) > 2048:
        raise Refused(400, "PackedPolicyTooLarge", "Packed size of session policy exceeds the limit")
    session_policies(params)


def wrong(message):
    return Refused(400, "ValidationError", message)


def session_policies(params):
    try:
        given = [json.loads(params["Policy"])] if params.get("Policy") else []
    except ValueError:
        raise Refused(400, "MalformedPolicyDocument", "The policy is not in the valid JSON format.") from None
    arns = numbered(params, r"PolicyArns\.member\.\d+\.arn")
    return given + [managed(iam().managed_policies[arn]) for arn in arns if arn in iam().managed_policies]


def account_of(arn):
    return arn.split(":")[4]


def trusts(role, params, caller, region):
    """Whether the trust policy allows all that the call needs; if it trusts the account, the caller's own must too."""
    needed = {"sts:AssumeRole"}
    needed |= {"sts:TagSession"} if tags(params) else set()
    needed |= {"sts:SetSourceIdentity"} if "SourceIdentity" in params else set()
    keys = {**context(caller, region), "sts:rolesessionname": params.get("RoleSessionName", "")}
    keys |= {"sts:sourceidentity": params["SourceIdentity"]} if "SourceIdentity" in params else {}
    keys |= {f"aws:requesttag/{name.lower()}": value for name, value in tags(params).items()}
    trust, (identity, ceilings) = [parsed(role.assume_role_policy_document)], own(caller)
    for action in needed:
        request = Request(action, role.arn, names(caller), keys)
        # Across accounts the caller's own policies must allow it too.
        if account_of(role.arn) != account_of(caller.arn) and not allowed(request, identity, ceilings)[0]:
            return False
        by_account = request._replace(principals=names(caller) | {ROOT})
        if "Deny" in (says(trust, by_account), says(identity, request)) or says(trust, by_account) != "Allow":
            return False
        if says(trust, request) != "Allow" and not allowed(request, identity, ceilings)[0]:
            return False
    return True


def opened(key, params, caller):
    """Keeps of a new session what its policies will ask for."""
    before = SESSIONS.get(caller.role.access_key_id) if caller.role is not None else None
    kept = {name: value for name, value in before.tags.items() if name in before.transitive} if before else {}
    transitive = set(numbered(params, r"TransitiveTagKeys\.member\.\d+")) | set(kept)
    source = params.get("SourceIdentity") or (before.source if before else None)
    issued = datetime.now(timezone.utc).isoformat()
    SESSIONS[key] = Session(session_policies(params), {**tags(params), **kept}, transitive, source, issued)


