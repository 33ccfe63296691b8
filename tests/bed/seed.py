#!/usr/bin/env python3
"""Fills the bed's AWS: users, groups, SSH keys, a role for each user, and the bastion's own user.

Usage: seed.py OUT       AWS_ENDPOINT_URL names the bed. Written to OUT:
  bastion.env            the bastion's AWS identity, as lines of environment
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
ACCOUNT, REGION, BASTION = "123456789012", "us-east-1", "stockade-bastion"
PEOPLE = {
    "alice": ["platform-admins", "developers", "on-call"],
    "bob": ["developers"],
    "carol": ["compliance"],
    "dave": [],
}


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(actions, **more):
    return {"Effect": "Allow", "Action": actions, **more}


def make_groups(iam, s3):
    for group in sorted({group for groups in PEOPLE.values() for group in groups}):
        iam.create_group(GroupName=group, Path="/bastion/")
        s3.create_bucket(Bucket=group)


def make_bastion(iam):
    """The bastion's user may become a user's role and read who is who; it may change nothing."""
    iam.create_user(UserName=BASTION)
    iam.put_user_policy(UserName=BASTION, PolicyName="bastion", PolicyDocument=document(
        allow(["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"], Resource=f"arn:aws:iam::{ACCOUNT}:role/bastion/*"),
        allow(["iam:ListGroupsForUser", "iam:ListSSHPublicKeys", "iam:GetSSHPublicKey"], Resource="*")))
    return iam.create_access_key(UserName=BASTION)["AccessKey"]


def make_person(iam, name, groups):
    iam.create_user(UserName=name, Path="/bastion/")
    for group in groups:
        iam.add_user_to_group(GroupName=group, UserName=name)
    iam.create_role(
        RoleName=name, Path="/bastion/", MaxSessionDuration=3600,
        AssumeRolePolicyDocument=document(allow(
            ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"],
            Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:user/{BASTION}"},
            Condition={"StringEquals": {"sts:SourceIdentity": name}})))
    iam.put_role_policy(RoleName=name, PolicyName="from-groups", PolicyDocument=document(
        allow(["s3:ListAllMyBuckets", "s3:ListBucket", "s3:GetObject"], Resource="*")))


def make_home(s3, name):
    """A bucket that only the person's own role may touch, as the bucket's policy says."""
    bucket = f"home-{name}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="hello.txt", Body=f"hello {name}\n".encode())
    s3.put_bucket_policy(Bucket=bucket, Policy=document({
        "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"StringNotEquals": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/bastion/{name}"}}}))


def make_ssh_key(iam, name, path=None):
    """An RSA key, the only kind that IAM takes; kept at `path` if it shall be used."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    if path:
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        write(path, private.decode(), 0o600)
        write(path + ".pub", f"{public} {name}\n")
    return iam.upload_ssh_public_key(UserName=name, SSHPublicKeyBody=public)["SSHPublicKey"]["SSHPublicKeyId"]


def write(path, text, mode=0o644):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="ascii") as file:
        file.write(text)


def seed(endpoint, out):
    os.makedirs(out, exist_ok=True)
    root = {"aws_access_key_id": ROOT_KEY, "aws_secret_access_key": ROOT_SECRET, "region_name": REGION, "endpoint_url": endpoint}
    iam, s3 = boto3.client("iam", **root), boto3.client("s3", **root)
    make_groups(iam, s3)
    access = make_bastion(iam)
    for name, groups in PEOPLE.items():
        make_person(iam, name, groups)
        make_home(s3, name)
    active = make_ssh_key(iam, "alice", os.path.join(out, "ssh_alice"))
    inactive = make_ssh_key(iam, "alice", os.path.join(out, "ssh_alice_inactive"))
    iam.update_ssh_public_key(UserName="alice", SSHPublicKeyId=inactive, Status="Inactive")
    write(os.path.join(out, "bastion.env"), "".join(f"{key}={value}\n" for key, value in {
        "AWS_ACCESS_KEY_ID": access["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": access["SecretAccessKey"],
        "AWS_REGION": REGION, "AWS_ENDPOINT_URL": endpoint}.items()), 0o600)
    write(os.path.join(out, "seed.json"), json.dumps({
        "account": ACCOUNT, "region": REGION, "role": f"arn:aws:iam::{ACCOUNT}:role/bastion/{{user}}", "people": PEOPLE,
        "ssh_keys": {"alice": {"active": active, "inactive": inactive}}}, indent=1))


if __name__ == "__main__":
    seed(os.environ["AWS_ENDPOINT_URL"], sys.argv[1])
