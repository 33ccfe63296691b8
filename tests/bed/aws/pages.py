"""IAM's lists in pages, which moto answers whole: what AWS tells of each item, a few at a time."""
import xml.etree.ElementTree as xml

# What each of IAM's lists pages by.
PAGED = {"ListGroups": ["Groups"], "GetGroup": ["Users"], "ListGroupsForUser": ["Groups"], "ListUsers": ["Users"],
         "ListRoles": ["Roles"], "ListSSHPublicKeys": ["SSHPublicKeys"], "ListRoleTags": ["Tags"],
         "ListUserTags": ["Tags"], "ListRolePolicies": ["PolicyNames"],
         "ListAttachedRolePolicies": ["AttachedPolicies"],
         "GetAccountAuthorizationDetails": ["UserDetailList", "GroupDetailList", "RoleDetailList", "Policies"]}
# What AWS does not tell of each, and moto does.
HIDDEN = {"ListRoles": ["Tags", "PermissionsBoundary", "RoleLastUsed"],
          "GetAccountAuthorizationDetails": ["MaxSessionDuration", "Description"]}


def one_page(out, action, params, page):
    """A part of one list, or of all lists of the details: such a page can end with users and begin with groups."""
    xml.register_namespace("", "https://iam.amazonaws.com/doc/2010-05-08/")
    tree = xml.fromstring(out)
    result = next(element for element in tree.iter() if element.tag.endswith(action + "Result"))
    space = result.tag[:result.tag.index("}") + 1] if "}" in result.tag else ""
    lists = [found for name in PAGED[action] if (found := result.find(space + name)) is not None]
    for items in lists:
        for item in list(items):
            path = item.find(space + "Path")
            if path is not None and not path.text.startswith(params.get("PathPrefix", "/")):
                items.remove(item)
            for hidden in [part for name in HIDDEN.get(action, ()) for part in item.findall(space + name)]:
                item.remove(hidden)
    members = [(items, item) for items in lists for item in items]
    start = int(params.get("Marker", "page-0").removeprefix("page-"))
    end = start + min(int(params.get("MaxItems", page)), page)
    for items, item in members[:start] + members[end:]:
        items.remove(item)
    for name in ("IsTruncated", "Marker"):
        for old in result.findall(space + name):
            result.remove(old)
    xml.SubElement(result, space + "IsTruncated").text = str(end < len(members)).lower()
    if end < len(members):
        xml.SubElement(result, space + "Marker").text = f"page-{end}"
    return xml.tostring(tree)
