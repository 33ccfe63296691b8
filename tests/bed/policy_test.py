#!/usr/bin/env python3
"""The evaluator of the bed's AWS: what it allows, and that it denies what it does not know."""
import sys
import unittest

sys.dont_write_bytecode = True

from aws.actions import asked, bucket_of  # noqa: E402
from aws.policy import Request, allowed  # noqa: E402

ALICE = "arn:aws:iam::123456789012:role/bastion/alice"
HOME, OTHER = "arn:aws:s3:::home-alice/hello.txt", "arn:aws:s3:::home-bob/hello.txt"


def document(*statements):
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(action="s3:GetObject", resource="*", **more):
    return document({"Effect": "Allow", "Action": action, "Resource": resource, **more})


def deny(action="*", resource="*", **more):
    return document({"Effect": "Deny", "Action": action, "Resource": resource, **more})


def may(identity, action="s3:GetObject", resource=HOME, ceilings=(), policy=(), **context):
    keys = {name.replace("__", ":").lower(): value for name, value in context.items()}
    return allowed(Request(action, resource, frozenset([ALICE]), keys), identity, ceilings, policy)[0]


class Policies(unittest.TestCase):
    def test_what_nothing_allows_is_denied(self):
        self.assertFalse(may([]))
        self.assertFalse(may([document()]))
        self.assertFalse(may([allow("s3:PutObject")]))

    def test_actions_and_resources_have_wildcards(self):
        home = "arn:aws:s3:::home-alice/*"
        self.assertTrue(may([allow("s3:Get*", home)]))
        self.assertTrue(may([allow("S3:getobject", home)]), "actions have no case")
        self.assertTrue(may([allow(["s3:List*", "s3:GetObjec?"], [OTHER, home])]))
        self.assertFalse(may([allow("s3:Get*", home)], resource=OTHER))
        self.assertFalse(may([allow("*", "arn:aws:s3:::HOME-alice/*")]), "resources have")
        self.assertFalse(may([allow("*", "arn:aws:s3:::home.alice/*")]), "a dot is a dot")
        self.assertFalse(may([allow("s3:Get")]), "the whole name")

    def test_not_action_and_not_resource(self):
        but = document({"Effect": "Allow", "NotAction": ["iam:*", "sts:*"], "NotResource": "arn:aws:s3:::home-bob/*"})
        self.assertTrue(may([but]))
        self.assertFalse(may([but], resource=OTHER))
        self.assertFalse(may([but], action="iam:CreateUser"))

    def test_an_explicit_denial_wins_wherever_it_is(self):
        everything = [allow("*")]
        self.assertTrue(may(everything))
        self.assertFalse(may([*everything, deny(resource=HOME)]))
        self.assertFalse(may(everything, ceilings=[[allow("*"), deny("s3:Get*")]]))
        self.assertFalse(may(everything, policy=[deny(Principal="*")]))
        self.assertTrue(may(everything, policy=[deny(Principal={"AWS": ALICE + "x"})]), "about somebody else")

    def test_a_session_policy_only_takes_away(self):
        mine = [allow("s3:*", "arn:aws:s3:::home-alice/*")]
        self.assertTrue(may(mine, ceilings=[[allow("s3:Get*")]]))
        self.assertFalse(may(mine, ceilings=[[allow("s3:List*")]]))
        self.assertFalse(may(mine, ceilings=[[document()]]))
        self.assertFalse(may(mine, resource=OTHER, ceilings=[[allow("*")]]), "it gives nothing")
        self.assertFalse(may(mine, ceilings=[[allow("s3:Get*")], [allow("s3:Put*")]]), "every ceiling must allow")
        self.assertTrue(may(mine, ceilings=[[allow("s3:Put*"), allow("s3:Get*")]]), "of one ceiling, any")

    def test_a_resources_own_policy_may_allow_the_one_that_it_names(self):
        self.assertTrue(may([], policy=[allow(Principal={"AWS": [ALICE]})]))
        self.assertFalse(may([], policy=[allow()]), "it names nobody")
        self.assertFalse(may([], policy=[allow(Principal={"AWS": ALICE})], ceilings=[[allow("s3:List*")]]))
        odd = {"Effect": "Allow", "NotPrincipal": "x", "Action": "*", "Resource": "*"}
        self.assertFalse(may([], policy=[document(odd)]))

    def test_conditions(self):
        def under(operator, key, wanted, **context):
            return may([allow(Condition={operator: {key: wanted}})], **context)

        self.assertTrue(under("StringEquals", "aws:SourceIdentity", "alice", aws__SourceIdentity="alice"))
        self.assertFalse(under("StringEquals", "aws:SourceIdentity", "alice", aws__SourceIdentity="bob"))
        self.assertFalse(under("StringEquals", "aws:SourceIdentity", "alice"), "it is not there")
        self.assertTrue(under("StringNotEquals", "aws:SourceIdentity", ["bob", "carol"]))
        self.assertFalse(under("StringNotEquals", "aws:x", ["a", "b"], aws__x="b"))
        self.assertTrue(under("StringEqualsIfExists", "aws:x", "a"))
        self.assertTrue(under("ForAnyValue:StringLike", "aws:x", "te?m-*", aws__x=["other", "team-a"]))
        self.assertTrue(under("ArnLike", "aws:PrincipalArn", "arn:aws:iam::*:role/bastion/*", aws__PrincipalArn=ALICE))
        self.assertTrue(under("Null", "aws:x", "true"))
        issued = "aws:TokenIssueTime"
        self.assertTrue(under("DateLessThan", issued, "2026-01-02T00:00:00Z", aws__TokenIssueTime="2026-01-01"))
        self.assertFalse(under("DateLessThan", issued, "2026-01-01", aws__TokenIssueTime="2026-01-02"))

    def test_an_unknown_condition_never_allows_and_always_denies(self):
        unknown = {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}
        self.assertFalse(may([allow(Condition=unknown)]))
        self.assertFalse(may([allow(), deny(Condition=unknown)]))

    def test_variables_are_the_callers(self):
        home = allow(resource="arn:aws:s3:::home-${aws:SourceIdentity}/*")
        self.assertTrue(may([home], aws__SourceIdentity="alice"))
        self.assertFalse(may([home], aws__SourceIdentity="bob"))
        self.assertFalse(may([home]), "an unknown one is like nothing")


class Actions(unittest.TestCase):
    def request(self, service, method, uri, params=None, body=b"", action="", **headers):
        environ = {"REQUEST_METHOD": method, "RAW_URI": uri, **headers}
        return asked(service, action, environ, params or {}, body, "123456789012", "us-east-1")

    def test_s3(self):
        for method, uri, params, action, resource in [
                ("GET", "/", {}, "ListAllMyBuckets", "*"),
                ("GET", "/b?list-type=2", {}, "ListBucket", "arn:aws:s3:::b"),
                ("GET", "/b/?versions", {"versions": ""}, "ListBucketVersions", "arn:aws:s3:::b"),
                ("PUT", "/b?policy", {"policy": ""}, "PutBucketPolicy", "arn:aws:s3:::b"),
                ("HEAD", "/b/a%20c/d", {}, "GetObject", "arn:aws:s3:::b/a c/d"),
                ("POST", "/b/k?uploads", {"uploads": ""}, "PutObject", "arn:aws:s3:::b/k"),
                ("DELETE", "/b/k", {"versionId": "1"}, "DeleteObjectVersion", "arn:aws:s3:::b/k"),
                ("PUT", "/b/k?retention", {"retention": ""}, "PutObjectRetention", "arn:aws:s3:::b/k")]:
            self.assertEqual(self.request("s3", method, uri, params), [("s3:" + action, resource)], uri)
        copied = self.request("s3", "PUT", "/b/k", HTTP_X_AMZ_COPY_SOURCE="/from/there")
        self.assertEqual(copied, [("s3:PutObject", "arn:aws:s3:::b/k"), ("s3:GetObject", "arn:aws:s3:::from/there")])
        self.assertEqual(bucket_of({"HTTP_HOST": "b.s3.us-east-1.amazonaws.com", "RAW_URI": "/k?x"}), ("b", "k"))

    def test_the_others(self):
        cluster = "arn:aws:eks:us-east-1:123456789012:cluster/hyades"
        self.assertEqual(self.request("eks", "GET", "/clusters/hyades"), [("eks:DescribeCluster", cluster)])
        self.assertEqual(self.request("eks", "GET", "/clusters"), [("eks:ListClusters", "*")])
        self.assertEqual(self.request("eks", "PUT", "/clusters/hyades/x")[0][0], "eks:?")
        uri = "/clusters/hyades/access-entries/arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fp%2Fr"
        entry = "arn:aws:eks:us-east-1:123456789012:access-entry/hyades/role/123456789012/r/0"
        self.assertEqual(self.request("eks", "DELETE", uri), [("eks:DeleteAccessEntry", entry)])
        tagged = self.request("eks", "POST", "/tags/arn%3Aaws%3Aeks%3Ax")
        self.assertEqual(tagged, [("eks:TagResource", "arn:aws:eks:x")])
        url = b'{"QueueUrl": "http://127.0.0.1/123456789012/q"}'
        queue = self.request("sqs", "POST", "/", body=url, action="DeleteMessageBatch")
        self.assertEqual(queue, [("sqs:DeleteMessage", "arn:aws:sqs:us-east-1:123456789012:q")])
        role = self.request("iam", "POST", "/", {"RoleName": "r", "Path": "/p/"}, action="CreateRole")
        self.assertEqual(role, [("iam:CreateRole", "arn:aws:iam::123456789012:role/p/r")])
        both = self.request("iam", "POST", "/", {"GroupName": "g", "UserName": "u"}, action="AddUserToGroup")
        self.assertEqual(both, [("iam:AddUserToGroup", "arn:aws:iam::123456789012:group/g")])
        kms = self.request("kms", "POST", "/", body=b'{"KeyId": "arn:aws:kms:x"}', action="Sign")
        self.assertEqual(kms, [("kms:Sign", "arn:aws:kms:x")])


if __name__ == "__main__":
    unittest.main()
