"""What IAM's policies say of one request.

Effect, Action, NotAction, Resource, NotResource with * and ?, Principal, policy variables, and the conditions in
TESTS. An explicit denial wins, and what nothing allows is denied. What is not known here (NotPrincipal, another
condition) never allows and always denies.
"""
import re
from datetime import datetime, timezone
from typing import NamedTuple


class Request(NamedTuple):
    action: str
    resource: str
    # Every ARN by which a policy may name the caller.
    principals: frozenset = frozenset()
    # Of the condition keys, in lower case.
    context: dict = {}


def allowed(request, identity, ceilings=(), resource=()):
    """Whether a request may be made, and why not.

    `identity`: the policies of the user, its groups or the role. `ceilings`: session policies and permissions
    boundaries, each a list of policies of which one must allow. `resource`: the policies of what is asked for, which
    may allow by themselves within one account.
    """
    for policies in (identity, resource, *ceilings):
        if says(policies, request) == "Deny":
            return False, "an explicit deny"
    if "Allow" not in (says(identity, request), says(resource, request, named=True)):
        return False, "no policy allows it"
    if any(says(policies, request) != "Allow" for policies in ceilings):
        return False, "no session policy or boundary allows it"
    return True, ""


def says(policies, request, named=False):
    """Deny, Allow or nothing; `named`: only by statements that have a Principal."""
    verdicts = set()
    for policy in policies:
        for statement in as_list(policy.get("Statement")):
            if (not named or "Principal" in statement) and applies(statement, request):
                verdicts.add(statement["Effect"])
    return "Deny" if "Deny" in verdicts else "Allow" if "Allow" in verdicts else None


def applies(statement, request):
    denies = statement.get("Effect") == "Deny"
    if "NotPrincipal" in statement:
        return denies
    if "Principal" in statement and not is_principal(statement["Principal"], request.principals):
        return False
    if not one_of(statement, "Action", request.action.lower(), lambda pattern: pattern.lower()):
        return False
    # A trust policy has no Resource: it is about its own role.
    about = "Resource" in statement or "NotResource" in statement
    if about and not one_of(statement, "Resource", request.resource, lambda pattern: filled(pattern, request.context)):
        return False
    return all(
        holds(operator, key, as_list(wanted), request.context, denies)
        for operator, keys in statement.get("Condition", {}).items() for key, wanted in keys.items())


def one_of(statement, name, value, prepare):
    """Whether a value is among the statement's `name`, or outside its Not-`name`."""
    patterns = [prepare(pattern) for pattern in as_list(statement.get(name, statement.get("Not" + name)))]
    return any(like(pattern, value) for pattern in patterns) == (name in statement)


def is_principal(principal, names):
    named = as_list(principal.get("AWS")) if isinstance(principal, dict) else as_list(principal)
    return "*" in named or bool(names & set(named))


def like(pattern, value):
    if pattern is None:
        return False
    expression = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern)
    return re.fullmatch(expression, value, re.DOTALL) is not None


def filled(pattern, context):
    """A pattern with its policy variables replaced; nothing if one is unknown."""
    known = {name.lower(): as_list(context.get(name.lower())) for name in re.findall(r"\$\{([^}]+)\}", pattern)}
    if not all(known.values()):
        return None
    return re.sub(r"\$\{([^}]+)\}", lambda found: known[found[1].lower()][0], pattern)


def at(text):
    found = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


# By the operator without its Not, IfExists and ForAnyValue.
TESTS = {
    "StringEquals": lambda wanted, found: wanted == found,
    "StringLike": like,
    "ArnEquals": like,
    "ArnLike": like,
    "Bool": lambda wanted, found: str(wanted).lower() == str(found).lower(),
    "DateLessThan": lambda wanted, found: at(found) < at(wanted),
    "DateGreaterThan": lambda wanted, found: at(found) > at(wanted),
}


def holds(operator, key, wanted, context, denies):
    plain = operator.removeprefix("ForAnyValue:").removesuffix("IfExists")
    negated, plain = "Not" in plain, plain.replace("Not", "")
    found = as_list(context.get(key.lower()))
    if plain == "Null":
        return (not found) == (str(wanted[0]).lower() == "true")
    if plain not in TESTS:
        return denies
    if not found:
        # A condition on what is not there holds only where it asks for something else.
        return negated or operator.endswith("IfExists")
    test = TESTS[plain]
    wanted = [filled(value, context) if isinstance(value, str) else value for value in wanted]
    return any(value is not None and test(value, one) for value in wanted for one in found) != negated


def as_list(value):
    return value if isinstance(value, list) else [] if value is None else [value]
