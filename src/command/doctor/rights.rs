//! The AWS policies that a configuration needs, and no more: `stockade doctor --print-iam`. docs/kubernetes-setup.md and
//! docs/access.md show those of their own examples.

use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use crate::config::rbac::{MembersFrom, Rbac};
use crate::config::{self, Aws, Kube, KubeRole, RoleTemplate, StaticWay};
use crate::identity::Pattern;

/// Whose policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Whose {
    /// All of these that there are, by name
    All,
    /// The bastion's own identity
    Bastion,
    /// That of `stockade access`, which is another; here [aws], [kube], [rbac] and [users] are enough of a file
    Access,
    /// Each role of `[[kube.discover]]`, by its ARN
    Discovery,
}

const ASSUME: [&str; 3] = ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"];

/// What is printed.
pub(super) fn print(path: &Path, whose: Whose) -> anyhow::Result<String> {
    let printed = match whose {
        Whose::Access => {
            let terms = config::load_access(path)?;
            Needs { aws: needed(terms.aws.as_ref())?, kube: &terms.kube, rbac: Some(&terms.rbac) }.of(whose)?
        }
        _ => {
            let config = config::load(path)?;
            Needs { aws: needed(config.aws.as_ref())?, kube: &config.kube, rbac: config.rbac.as_ref() }.of(whose)?
        }
    };
    Ok(format!("{printed:#}\n"))
}

fn needed(aws: Option<&Aws>) -> anyhow::Result<&Aws> {
    aws.context("there is no [aws] section, so nothing asks AWS and no policy is needed")
}

/// What of a configuration AWS has to do with.
#[derive(Clone, Copy, Debug)]
struct Needs<'c> {
    aws: &'c Aws,
    kube: &'c Kube,
    rbac: Option<&'c Rbac>,
}

impl Needs<'_> {
    fn of(self, whose: Whose) -> anyhow::Result<Value> {
        let access = self.rbac.map(|rbac| self.access(rbac));
        Ok(match whose {
            Whose::Bastion => self.bastion(),
            Whose::Access => access.context("there is no [rbac] section, so `stockade access` does nothing")?,
            Whose::Discovery => {
                let roles = self.discovery();
                if roles.is_empty() {
                    bail!("no [[kube.discover]] names a role; the bastion looks for clusters with its own identity");
                }
                roles.into()
            }
            Whose::All => {
                let mut all = Map::from_iter([("bastion".to_owned(), self.bastion())]);
                all.extend(access.map(|policy| ("access".to_owned(), policy)));
                let roles = Some(self.discovery()).filter(|roles| !roles.is_empty());
                all.extend(roles.map(|roles| ("discovery".to_owned(), roles.into())));
                all.into()
            }
        })
    }

    /// Becomes users' roles, reads who is who, looks for clusters, and has the simulator say that it may no more.
    fn bastion(self) -> Value {
        let mut reads = Vec::new();
        if self.aws.groups_from_iam {
            reads.push("iam:ListGroupsForUser");
        }
        if self.aws.keys_from_iam {
            reads.extend(["iam:GetSSHPublicKey", "iam:ListSSHPublicKeys"]);
        }
        if self.rbac.is_some_and(|rbac| matches!(rbac.members, MembersFrom::Tag(_))) {
            reads.push("iam:GetUser");
        }
        let own = self.rbac.map_or(&[][..], |rbac| &rbac.bastion);
        let roles: Vec<String> = own.iter().filter(|arn| arn.contains(":role/")).cloned().collect();
        policy([
            allow("BecomeUsers", &ASSUME, self.roles(self.has_eks())),
            allow("BecomeDiscovery", &["sts:AssumeRole"], self.discovery().into_iter().map(|(role, _)| role).collect()),
            allow("KnowUsers", &reads, vec![self.iam("user/*")]),
            self.list_clusters(),
            allow("DescribeClusters", &["eks:DescribeCluster"], self.found_here("cluster")),
            allow("AskWhatItMay", &["iam:SimulatePrincipalPolicy"], own.to_vec()),
            allow("KnowItself", &["iam:GetRole"], roles),
        ])
    }

    /// Writes groups, roles, and access entries, each only below what is its own.
    fn access(self, rbac: &Rbac) -> Value {
        // What is not there has no path, so a pattern of paths would make "denied" of "missing".
        let reads = ["GetAccountAuthorizationDetails", "GetAccountSummary", "GetGroup", "GetRole", "ListRoles"];
        let groups = match rbac.members {
            MembersFrom::Iam => vec![self.iam(&format!("group{}*", rbac.group_path))],
            MembersFrom::Tag(_) | MembersFrom::File => Vec::new(),
        };
        let makes = ["AttachRolePolicy", "CreateRole", "PutRolePermissionsBoundary", "PutRolePolicy"];
        let mut making = allow("MakeRolesWithinTheBoundary", &iam(&makes), self.roles(true));
        if let (Some(boundary), Some(making)) = (&rbac.boundary, &mut making) {
            making["Condition"] = json!({ "StringEquals": { "iam:PermissionsBoundary": boundary } });
        }
        let keeps = [
            "DeleteRole",
            "DeleteRolePolicy",
            "DetachRolePolicy",
            "ListAttachedRolePolicies",
            "ListRolePolicies",
            "TagRole",
            "UntagRole",
            "UpdateAssumeRolePolicy",
            "UpdateRole",
        ];
        let entries = [
            "eks:CreateAccessEntry",
            "eks:DeleteAccessEntry",
            "eks:DescribeAccessEntry",
            "eks:DescribeCluster",
            "eks:DisassociateAccessPolicy",
            "eks:ListAccessEntries",
            "eks:ListAssociatedAccessPolicies",
            "eks:TagResource",
            "eks:UntagResource",
            "eks:UpdateAccessEntry",
        ];
        let clusters: Vec<_> =
            ["cluster", "access-entry"].into_iter().flat_map(|kind| self.everywhere_here(kind)).collect();
        // EKS's own policies are of no account.
        let policies = if clusters.is_empty() { Vec::new() } else { vec!["*".to_owned()] };
        let queue = rbac.queue.as_deref().and_then(|url| queue(url, self.aws.role.partition()));
        policy([
            allow("Read", &iam(&reads), vec!["*".to_owned()]),
            allow("Groups", &["iam:CreateGroup", "iam:DeleteGroup"], groups),
            making,
            allow("KeepRoles", &iam(&keeps), self.roles(true)),
            self.list_clusters(),
            allow("ListPolicies", &["eks:ListAccessPolicies"], policies),
            allow("Entries", &entries, clusters),
            allow("BecomeDiscovery", &["sts:AssumeRole"], self.discovery().into_iter().map(|(role, _)| role).collect()),
            allow("Events", &["sqs:DeleteMessage", "sqs:ReceiveMessage"], queue.into_iter().collect()),
        ])
    }

    /// Of each role that is assumed to look into another account.
    fn discovery(self) -> Map<String, Value> {
        let roles = self.kube.discover.iter().filter_map(|place| Some((place.role.as_deref()?, &place.regions)));
        let mut policies = Map::new();
        for (role, regions) in roles {
            let account = role.split(':').nth(4).unwrap_or_default();
            let clusters = regions.iter().map(|region| self.eks(region, account, "cluster/*")).collect();
            let may = [
                allow("ListClusters", &["eks:ListClusters"], vec!["*".to_owned()]),
                allow("DescribeClusters", &["eks:DescribeCluster"], clusters),
            ];
            policies.insert(role.to_owned(), policy(may));
        }
        policies
    }

    /// Users' roles: that of the metadata door, and `to_clusters` that which clusters know.
    fn roles(self, to_clusters: bool) -> Vec<String> {
        let any = |role: &RoleTemplate| role.as_str().replace("{user}", "*");
        let mut roles = vec![any(&self.aws.role)];
        if let KubeRole::Separate(role) = &self.kube.role
            && to_clusters
            && !Pattern::new(&roles[0]).matches(&any(role))
        {
            roles.push(any(role));
        }
        roles
    }

    fn has_eks(self) -> bool {
        let own = self.kube.clusters.iter().any(|cluster| matches!(cluster.way, StaticWay::Eks { .. }));
        own || !self.kube.discover.is_empty()
    }

    /// EKS lists all clusters or none.
    fn list_clusters(self) -> Option<Value> {
        let looks = self.kube.discover.iter().any(|place| place.role.is_none());
        allow("ListClusters", &["eks:ListClusters"], if looks { vec!["*".to_owned()] } else { Vec::new() })
    }

    /// Where the own identity looks.
    fn found_here(self, kind: &str) -> Vec<String> {
        let own = self.kube.discover.iter().filter(|place| place.role.is_none()).flat_map(|place| &place.regions);
        own.map(|region| self.eks(region, &self.aws.account, &format!("{kind}/*"))).collect()
    }

    /// And the clusters that the file names.
    fn everywhere_here(self, kind: &str) -> Vec<String> {
        let mut all = self.found_here(kind);
        for cluster in &self.kube.clusters {
            if let StaticWay::Eks { region, cluster } = &cluster.way {
                let whole = format!("{kind}/{cluster}{}", if kind == "cluster" { "" } else { "/*" });
                all.push(self.eks(region, &self.aws.account, &whole));
            }
        }
        all
    }

    fn iam(self, resource: &str) -> String {
        format!("arn:{}:iam::{}:{resource}", self.aws.role.partition(), self.aws.account)
    }

    fn eks(self, region: &str, account: &str, resource: &str) -> String {
        format!("arn:{}:eks:{region}:{account}:{resource}", self.aws.role.partition())
    }
}

fn policy<const N: usize>(statements: [Option<Value>; N]) -> Value {
    let statements: Vec<Value> = statements.into_iter().flatten().collect();
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// Nothing, where nothing is asked for or there is nothing to ask it of.
fn allow<A: AsRef<str>>(sid: &str, actions: &[A], resources: Vec<String>) -> Option<Value> {
    let actions: Vec<&str> = actions.iter().map(AsRef::as_ref).collect();
    let is_needed = !actions.is_empty() && !resources.is_empty();
    is_needed.then(|| json!({ "Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources }))
}

fn iam(actions: &[&str]) -> Vec<String> {
    actions.iter().map(|action| format!("iam:{action}")).collect()
}

/// `https://sqs.us-east-1.amazonaws.com/123456789012/stockade-access`
fn queue(url: &str, partition: &str) -> Option<String> {
    let (host, path) = url.strip_prefix("https://")?.split_once('/')?;
    let (account, name) = path.split_once('/')?;
    let region = host.strip_prefix("sqs.")?.split('.').next()?;
    Some(format!("arn:{partition}:sqs:{region}:{account}:{name}"))
}

#[cfg(test)]
mod tests;
