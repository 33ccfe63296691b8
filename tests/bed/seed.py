#!/usr/bin/env python3
"""Fills the bed's AWS: users, groups, SSH keys, two roles for each user, and the users of the bastion and of access.

A user's role is role/bastion/USER. What clusters know is a second one, role/stockade/kube/USER-kube, which may do
nothing in AWS; each cluster that the bed has gets an access entry for it, but where BARRED keeps a user out.

Usage: seed.py OUT       AWS_ENDPOINT_URL names the bed. Written to OUT:
  bastion.env            the bastion's AWS identity, as lines of environment
  access.env             likewise the one of `stockade access`; on clusters it is `stockade-access`
  ssh_alice, ssh_alice.pub   the key that is uploaded for alice
  seed.json              what was made, for tests to read
`bed_aws.py --seed OUT` does the same before it says that it is ready.
"""
import json
import os
import sys

import boto3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ROOT_KEY, ROOT_SECRET = "AKIAROOTOFTHEBED0000", "root-secret-of-the-bed"
ACCOUNT, BASTION, OPERATOR = "123456789012", "stockade-bastion", "stockade-access"
REGION, *_ = REGIONS = ["us-east-1", "eu-west-1"]
PEOPLE = {
    "alice": ["platform-admins", "developers", "on-call"],
    "bob": ["developers"],
    "carol": ["compliance"],
    "dave": [],
}
# Who is not known to which cluster.
BARRED = {"bob": ["pleiades"]}
ROLES = {"bastion": ("/bastion/", ""), "kube": ("/stockade/kube/", "-kube")}
# Below which access makes groups.
GROUP_PATH = "/stockade/"
ASSUME = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def role_arn(kind, name):
    path, suffix = ROLES[kind]
    return f"arn:aws:iam::{ACCOUNT}:role{path}{name}{suffix}"


def allow(actions, **more):
    return {"Effect": "Allow", "Action": actions, **more}


def make_groups(iam, s3):
    for group in sorted({group for groups in PEOPLE.values() for group in groups}):
        iam.create_group(GroupName=group, Path="/bastion/")
        s3.create_bucket(Bucket=group)


def make_bastion(iam):
    """The bastion's user may become users' roles, and read who is who and which clusters there are."""
    iam.create_user(UserName=BASTION)
    iam.put_user_policy(UserName=BASTION, PolicyName="bastion", PolicyDocument=document(
        allow(ASSUME, Resource=[role_arn(kind, "*") for kind in ROLES]),
        allow(["iam:ListGroupsForUser", "iam:ListSSHPublicKeys", "iam:GetSSHPublicKey"], Resource="*"),
        # To say that it may no more than this.
        allow("iam:SimulatePrincipalPolicy", Resource=f"arn:aws:iam::{ACCOUNT}:user/{BASTION}"),
        allow(["eks:ListClusters", "eks:DescribeCluster"], Resource="*")))
    return iam.create_access_key(UserName=BASTION)["AccessKey"]


def make_boundary(iam):
    """The most that a role which access makes may do."""
    iam.create_policy(PolicyName="stockade-boundary", PolicyDocument=document(
        allow("*", Resource="*"), {"Effect": "Deny", "Action": ["iam:*", "sts:AssumeRole"], "Resource": "*"}))


def make_access(iam):
    """The user of `stockade access` reads all of IAM, and writes groups and roles below the paths that are its own. It
    puts nobody into a group, and makes no keys and no policies that others could use."""
    own = [role_arn(kind, "*") for kind in ROLES]
    iam.create_user(UserName=OPERATOR)
    iam.put_user_policy(UserName=OPERATOR, PolicyName="access", PolicyDocument=document(
        # What is not there has no path, so a pattern of paths would make "denied" of "missing".
        allow(["iam:GetAccountAuthorizationDetails", "iam:GetAccountSummary", "iam:GetGroup", "iam:GetRole",
               "iam:ListRoles"], Resource="*"),
        allow(["iam:CreateGroup", "iam:DeleteGroup"], Resource=f"arn:aws:iam::{ACCOUNT}:group{GROUP_PATH}*"),
        allow([f"iam:{action}" for action in (
            "AttachRolePolicy", "CreateRole", "DeleteRole", "DeleteRolePermissionsBoundary", "DeleteRolePolicy",
            "DetachRolePolicy", "ListAttachedRolePolicies", "ListRolePolicies",
            "PutRolePermissionsBoundary", "PutRolePolicy", "TagRole", "UntagRole", "UpdateAssumeRolePolicy",
            "UpdateRole")], Resource=own),
        allow(["eks:ListAccessPolicies", "eks:ListClusters"], Resource="*"),
        allow([f"eks:{action}" for action in (
            "CreateAccessEntry", "DeleteAccessEntry", "DescribeAccessEntry", "DescribeCluster",
            "DisassociateAccessPolicy", "ListAccessEntries", "ListAssociatedAccessPolicies", "TagResource",
            "UntagResource", "UpdateAccessEntry")],
              Resource=[f"arn:aws:eks:*:{ACCOUNT}:{kind}/*" for kind in ("cluster", "access-entry")]),
        allow(["sqs:DeleteMessage", "sqs:ReceiveMessage"], Resource=f"arn:aws:sqs:*:{ACCOUNT}:stockade-*")))
    return iam.create_access_key(UserName=OPERATOR)["AccessKey"]


def make_person(iam, name, groups):
    iam.create_user(UserName=name, Path="/bastion/")
    for group in groups:
        iam.add_user_to_group(GroupName=group, UserName=name)
    for kind, (path, suffix) in ROLES.items():
        iam.create_role(
            RoleName=name + suffix, Path=path, MaxSessionDuration=3600,
            AssumeRolePolicyDocument=document(allow(
                ASSUME, Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:user/{BASTION}"},
                Condition={"StringEquals": {"sts:SourceIdentity": name}})))
    buckets = [f"home-{name}", *groups]
    iam.put_role_policy(RoleName=name, PolicyName="from-groups", PolicyDocument=document(
        allow("s3:ListAllMyBuckets", Resource="*"),
        allow("s3:ListBucket", Resource=[f"arn:aws:s3:::{bucket}" for bucket in buckets]),
        allow("s3:GetObject", Resource=[f"arn:aws:s3:::{bucket}/*" for bucket in buckets])))


def make_entries(eks):
    """In each cluster: the session's name is in the user's, so every line of the cluster's audit log has it."""
    for page in eks.get_paginator("list_clusters").paginate():
        for cluster in page["clusters"]:
            if eks.describe_cluster(name=cluster)["cluster"]["accessConfig"]["authenticationMode"] == "CONFIG_MAP":
                continue
            eks.create_access_entry(
                clusterName=cluster, principalArn=f"arn:aws:iam::{ACCOUNT}:user/{OPERATOR}", username=OPERATOR,
                kubernetesGroups=[OPERATOR])
            for name, groups in PEOPLE.items():
                if groups and cluster not in BARRED.get(name, []):
                    eks.create_access_entry(
                        clusterName=cluster, principalArn=role_arn("kube", name),
                        username=f"stockade:{name}:{{{{SessionName}}}}",
                        kubernetesGroups=[f"stockade:{group}" for group in groups])


def make_home(s3, name):
    """A bucket that only the person's own role may touch, whatever the other roles' policies say."""
    bucket = f"home-{name}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="hello.txt", Body=f"hello {name}\n".encode())
    s3.put_bucket_policy(Bucket=bucket, Policy=document({
        "Effect": "Deny", "Principal": "*", "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"StringNotEquals": {"aws:PrincipalArn": role_arn("bastion", name)}}}))


def make_ssh_key(iam, name, path=None):
    """An RSA key, the only kind that IAM takes; kept at `path` if it shall be used."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    if path:
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        write(path, private.decode(), 0o600)
        write(path + ".pub", f"{public} {name}\n")
    return iam.upload_ssh_public_key(UserName=name, SSHPublicKeyBody=public)["SSHPublicKey"]["SSHPublicKeyId"]


def write(path, text, mode=0o644):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="ascii") as file:
        file.write(text)


def seed(endpoint, out):
    os.makedirs(out, exist_ok=True)
    root = {"aws_access_key_id": ROOT_KEY, "aws_secret_access_key": ROOT_SECRET, "region_name": REGION,
            "endpoint_url": endpoint}
    iam, s3 = boto3.client("iam", **root), boto3.client("s3", **root)
    make_groups(iam, s3)
    keys = {"bastion": make_bastion(iam), "access": make_access(iam)}
    make_boundary(iam)
    for name, groups in PEOPLE.items():
        make_person(iam, name, groups)
        make_home(s3, name)
    for region in REGIONS:
        make_entries(boto3.client("eks", **{**root, "region_name": region}))
    active = make_ssh_key(iam, "alice", os.path.join(out, "ssh_alice"))
    inactive = make_ssh_key(iam, "alice", os.path.join(out, "ssh_alice_inactive"))
    iam.update_ssh_public_key(UserName="alice", SSHPublicKeyId=inactive, Status="Inactive")
    for name, key in keys.items():
        write(os.path.join(out, f"{name}.env"), "".join(f"{variable}={value}\n" for variable, value in {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
            "AWS_REGION": REGION, "AWS_ENDPOINT_URL": endpoint}.items()), 0o600)
    write(os.path.join(out, "seed.json"), json.dumps({
        "account": ACCOUNT, "region": REGION, "role": role_arn("bastion", "{user}"),
        "kube_role": role_arn("kube", "{user}"), "people": PEOPLE,
        "ssh_keys": {"alice": {"active": active, "inactive": inactive}}}, indent=1))


if __name__ == "__main__":
    seed(os.environ["AWS_ENDPOINT_URL"], sys.argv[1])
