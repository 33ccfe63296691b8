"""EKS, which moto plays without addresses and without access entries: the clusters that the bed's file names, and who
may enter them. Access entries are written for aws-iam-authenticator, as its DynamicFile.
"""
import json
import os
import re
import threading
import time
from base64 import b64encode
from urllib.parse import unquote

from aws.rights import principal_exists
from aws.signature import Refused

# What EKS keeps for itself.
RESERVED = ("system:", "eks:", "aws:", "amazon:", "iam:")
# https://docs.aws.amazon.com/eks/latest/userguide/access-policy-permissions.html, the first ones of it
POLICIES = [f"AmazonEKS{name}Policy" for name in ("Admin", "AdminView", "ClusterAdmin", "Edit", "View")]
ROUTE = re.compile(r"/clusters/([^/]+)/access-entries(?:/([^/]+))?(/access-policies(?:/(.+))?)?")


def invalid(message):
    return Refused(400, "InvalidParameterException", message)


def missing(message):
    return Refused(404, "ResourceNotFoundException", message)


class Eks:
    """`file` is a list of {"name", "region", "endpoint", "ca": FILE, "tags": {…}, "access_map": FILE or nothing,
    "mode": "API_AND_CONFIG_MAP" if not said}. Clusters of one name in two regions are two.
    """

    def __init__(self, file, account, page):
        self.account, self.page, self.lock = account, page, threading.Lock()
        # By region and name; the entries by their principal's ARN.
        self.clusters, self.entries, self.limits = {}, {}, {}
        if file:
            with open(file, encoding="utf-8") as text:
                for cluster in json.load(text):
                    self.add(cluster)

    def add(self, cluster):
        at = cluster["region"], cluster["name"]
        self.clusters[at] = {"created": time.time(), "mode": "API_AND_CONFIG_MAP", **cluster}
        self.entries[at] = {}
        self.write(at)

    def change(self, asked):
        """What a test wants: a cluster more, or one less, or fewer access entries than EKS allows."""
        with self.lock:
            if "add" in asked:
                self.add(asked["add"])
            for at in [at for at in self.clusters if at[1] == asked.get("remove")]:
                if at[0] == asked.get("region", at[0]):
                    del self.clusters[at], self.entries[at]
            if "limit" in asked:
                self.limits[asked["limit"]] = asked["entries"]

    def answer(self, method, path, query, body, region):
        """A status and a document."""
        asked = json.loads(body or b"{}")
        with self.lock:
            if path == "/clusters" and method == "GET":
                return 200, self.cut("clusters", sorted(name for there, name in self.clusters if there == region), query)
            if path == "/access-policies" and method == "GET":
                policies = [{"name": name, "arn": f"arn:aws:eks::aws:cluster-access-policy/{name}"} for name in POLICIES]
                return 200, self.cut("accessPolicies", policies, query)
            if path.startswith("/tags/"):
                return 200, self.tagged(method, unquote(path.removeprefix("/tags/")), query, asked, region)
            at = region, path.split("/")[2] if path.startswith("/clusters/") else ""
            if at not in self.clusters:
                raise missing(f"No cluster found for name: {at[1]}.")
            if method == "GET" and path == f"/clusters/{at[1]}":
                return 200, {"cluster": self.described(self.clusters[at])}
            route = ROUTE.fullmatch(path)
            if not route:
                raise Refused(400, "InvalidRequestException", f"the bed does not play {method} {path}")
            if self.clusters[at]["mode"] == "CONFIG_MAP":
                raise Refused(400, "InvalidRequestException", "The cluster's authentication mode must be set to one of "
                              "[API, API_AND_CONFIG_MAP] to perform this operation.")
            arn, policy = (part and unquote(part) for part in (route[2], route[4]))
            if arn is None:
                return self.listed_or_made(method, at, query, asked)
            if route[3]:
                return self.policies(method, at, arn, policy, query, asked)
            return self.entry(method, at, arn, asked)

    def tagged(self, method, arn, query, asked, region):
        """Of a cluster or an access entry: what it has, or how that changes."""
        found = [cluster for (there, name), cluster in self.clusters.items()
                 if there == region and arn.endswith(f":cluster/{name}")]
        found += [entry for entries in self.entries.values() for entry in entries.values()
                  if entry["accessEntryArn"] == arn]
        if not found:
            raise missing(f"No resource found for {arn}")
        tags = found[0].setdefault("tags", {})
        if method == "POST":
            tags.update(asked["tags"])
        if method == "DELETE":
            for key in query["tagKeys"]:
                tags.pop(key, None)
        return {"tags": tags} if method == "GET" else {}

    def described(self, cluster):
        with open(cluster["ca"], "rb") as file:
            ca = b64encode(file.read()).decode()
        return {
            "name": cluster["name"], "arn": f"arn:aws:eks:{cluster['region']}:{self.account}:cluster/{cluster['name']}",
            "createdAt": cluster["created"], "version": "1.36", "platformVersion": "eks.1", "status": "ACTIVE",
            "endpoint": cluster["endpoint"], "certificateAuthority": {"data": ca}, "tags": cluster.get("tags", {}),
            "roleArn": f"arn:aws:iam::{self.account}:role/eks",
            "resourcesVpcConfig": {"subnetIds": [], "securityGroupIds": []},
            "accessConfig": {"authenticationMode": cluster["mode"]}}

    def listed_or_made(self, method, at, query, asked):
        entries = self.entries[at]
        if method == "GET":
            policy = query.get("associatedPolicyArn")
            there = (arn for arn, entry in entries.items() if policy is None or policy in entry["policies"])
            return 200, self.cut("accessEntries", sorted(there), query)
        arn, groups = asked.get("principalArn", ""), asked.get("kubernetesGroups", [])
        if arn in entries:
            raise Refused(409, "ResourceInUseException", "The access entry is already in use on this cluster.")
        if not principal_exists(arn):
            raise invalid("The specified principalArn is invalid: invalid principal.")
        if len(entries) >= self.limits.get(at[1], 1500):
            raise Refused(400, "ResourceLimitExceededException", "Cluster has reached the limit of access entries.")
        self.check(asked)
        now, (kind, name) = time.time(), (arn.split(":")[5].split("/")[0], arn.rsplit("/", 1)[-1])
        assumed = f"arn:aws:sts::{self.account}:assumed-role/{name}/{{{{SessionName}}}}"
        place = f"arn:aws:eks:{at[0]}:{self.account}:access-entry/{at[1]}/{kind}/{self.account}/{name}"
        entries[arn] = {
            "clusterName": at[1], "principalArn": arn, "kubernetesGroups": groups,
            "accessEntryArn": f"{place}/{os.urandom(8).hex()}",
            "createdAt": now, "modifiedAt": now, "tags": asked.get("tags", {}), "type": asked.get("type", "STANDARD"),
            "username": asked.get("username") or (assumed if kind == "role" else arn), "policies": {}}
        return self.written(at, arn)

    @staticmethod
    def check(asked):
        """https://docs.aws.amazon.com/eks/latest/userguide/creating-access-entries.html"""
        if any(group.startswith(RESERVED) for group in asked.get("kubernetesGroups", [])):
            raise invalid("The kubernetes group name is invalid, it cannot start with a reserved prefix")
        username = asked.get("username") or ""
        if username.startswith(RESERVED) or re.search(r"^[^:]*\{\{SessionName", username):
            raise invalid("The username has a reserved prefix, or {{SessionName}} without a colon before it")

    def entry(self, method, at, arn, asked):
        found = self.found(at, arn)
        if method == "DELETE":
            del self.entries[at][arn]
            self.write(at)
            return 200, {}
        if method == "POST":
            self.check(asked)
            found.update({key: asked[key] for key in ("kubernetesGroups", "username") if key in asked})
            found["modifiedAt"] = time.time()
        return self.written(at, arn)

    def found(self, at, arn):
        if arn not in self.entries[at]:
            raise missing("The specified principalArn could not be found.")
        return self.entries[at][arn]

    def written(self, at, arn):
        self.write(at)
        entry = self.entries[at][arn]
        return 200, {"accessEntry": {key: value for key, value in entry.items() if key != "policies"}}

    def policies(self, method, at, arn, policy, query, asked):
        """Kept, not enforced: EKS has its own authorizer for them."""
        held = self.found(at, arn)["policies"]
        base, now = {"clusterName": at[1], "principalArn": arn}, time.time()
        if method == "POST":
            one = {key: asked[key] for key in ("policyArn", "accessScope")}
            held[one["policyArn"]] = {**one, "associatedAt": now, "modifiedAt": now}
            return 200, {**base, "associatedAccessPolicy": held[one["policyArn"]]}
        if method == "DELETE":
            if held.pop(policy, None) is None:
                raise missing(f"{policy} is not associated")
            return 200, {}
        return 200, {**base, **self.cut("associatedAccessPolicies", list(held.values()), query)}

    def write(self, at):
        place = self.clusters[at].get("access_map")
        if not place:
            return
        roles, users = [], []
        for arn, entry in self.entries[at].items():
            one = {"username": entry["username"], "groups": entry["kubernetesGroups"]}
            if ":role/" in arn:
                # STS keeps no path in the ARN of an assumed role.
                roles.append({"rolearn": f"arn:aws:iam::{self.account}:role/{arn.rsplit('/', 1)[-1]}", **one})
            else:
                users.append({"userarn": arn, **one})
        with open(place + ".new", "w", encoding="utf-8") as file:
            json.dump({"mapRoles": roles, "mapUsers": users, "mapAccounts": []}, file)
        os.replace(place + ".new", place)

    def cut(self, name, items, query):
        start, most = int(query.get("nextToken", 0)), min(int(query.get("maxResults", self.page)), self.page)
        page = {name: items[start:start + most]}
        return {**page, "nextToken": str(start + most)} if start + most < len(items) else page
