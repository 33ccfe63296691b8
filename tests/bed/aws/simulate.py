"""IAM's policy simulator, which moto lacks: the bed's own evaluator over what a user or a role has."""
import re
import xml.etree.ElementTree as xml

from aws import rights
from aws.policy import Request, allowed
from aws.signature import Refused


def answer(params):
    """SimulatePrincipalPolicy's answer, as XML."""
    source = params.get("PolicySourceArn", "")
    identity, ceilings = held(source)
    resources = members(params, "ResourceArns") or ["*"]
    tree = xml.Element("SimulatePrincipalPolicyResponse", xmlns="https://iam.amazonaws.com/doc/2010-05-08/")
    result = xml.SubElement(tree, "SimulatePrincipalPolicyResult")
    xml.SubElement(result, "IsTruncated").text = "false"
    results = xml.SubElement(result, "EvaluationResults")
    for action in members(params, "ActionNames"):
        verdicts = {resource: decided(Request(action, resource, frozenset((source,)), {}), identity, ceilings)
                    for resource in resources}
        one = xml.SubElement(results, "member")
        xml.SubElement(one, "EvalActionName").text = action
        xml.SubElement(one, "EvalResourceName").text = resources[0]
        xml.SubElement(one, "EvalDecision").text = verdicts[resources[0]]
        specific = xml.SubElement(one, "ResourceSpecificResults")
        for resource, verdict in verdicts.items():
            about = xml.SubElement(specific, "member")
            xml.SubElement(about, "EvalResourceName").text = resource
            xml.SubElement(about, "EvalResourceDecision").text = verdict
    return xml.tostring(tree)


def decided(request, identity, ceilings):
    may, why = allowed(request, identity, ceilings)
    return "allowed" if may else "explicitDeny" if "explicit" in why else "implicitDeny"


def held(arn):
    """The policies of a user or a role, and the ceilings above them."""
    role = rights.role_of(arn)
    if role is not None:
        boundary = role.permissions_boundary_arn
        return rights.of(role), [[rights.managed(rights.iam().managed_policies[boundary])]] if boundary else []
    user = next((user for user in rights.iam().users.values() if user.arn == arn), None)
    if user is None:
        raise Refused(404, "NoSuchEntity", f"Invalid Entity Arn: {arn}")
    groups = [group for group in rights.iam().groups.values() if user in group.users]
    return [policy for holder in (user, *groups) for policy in rights.of(holder)], []


def members(params, name):
    found = {int(key.rsplit(".", 1)[1]): value for key, value in params.items()
             if re.fullmatch(name + r"\.member\.\d+", key)}
    return [found[number] for number in sorted(found)]
