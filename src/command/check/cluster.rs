//! Whether somebody may use a cluster, and by which rule. An admin asks: unlike the jail, this tells a cluster that is
//! not there from one that is not allowed.

use std::collections::{BTreeMap, BTreeSet};

use super::{AWS_DECIDES, DENIED};
use crate::config::{Config, KubeRole, StaticCluster, StaticWay};
use crate::identity::Principal;
use crate::policy::kube::{Rules, Subject, Verdict, is_cluster_name, may_use, others};

/// A cluster by its name, and what the admin says of its tags.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
}

/// `stage=prod`
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Sentences and the exit status.
pub(super) fn explain(
    config: &Config,
    user: &Principal,
    groups: &BTreeSet<String>,
    asked: &Asked,
) -> (Vec<String>, u8) {
    let name = &asked.name;
    let kube = &config.kube;
    if let Some(cluster) = kube.clusters.iter().find(|cluster| cluster.name == *name) {
        let verdict = may_use(rules(config), groups, subject(cluster));
        let mut lines = vec![told(user, name, &verdict)];
        if verdict.allows() {
            lines.push(way(config, user, cluster));
            lines.extend(as_others(config, groups, name));
        }
        let status = if verdict.allows() { 0 } else { DENIED };
        return unless_iam(config, &verdict, lines, status);
    }
    if kube.discover.is_empty() || !is_cluster_name(name) {
        let known: Vec<&str> = kube.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return (vec![format!("There is no cluster '{name}'; the configuration names {known}.")], DENIED);
    }
    let verdict = may_use(rules(config), groups, Subject { name, labels: &asked.labels, shared: false });
    let labels: Vec<String> = asked.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut lines = vec![
        format!("'{name}' is no cluster of the configuration. If EKS has one, which is not asked here, then:"),
        told(user, name, &verdict),
        match labels.as_slice() {
            [] => "That is without tags; --label name=value says one.".to_owned(),
            labels => format!("That is with the tags {}.", labels.join(", ")),
        },
    ];
    if verdict.allows() {
        lines.extend(as_others(config, groups, name));
    }
    let by_label = kube.allow.iter().chain(&kube.deny).any(|rule| !rule.labels.is_empty());
    let status = if verdict.allows() || (by_label && labels.is_empty()) { AWS_DECIDES } else { DENIED };
    unless_iam(config, &verdict, lines, status)
}

/// What a user may use of the configuration's clusters.
pub(super) fn all(config: &Config, groups: &BTreeSet<String>) -> Vec<String> {
    let kube = &config.kube;
    if !kube.is_used() {
        return Vec::new();
    }
    let allowed = |cluster: &&StaticCluster| may_use(rules(config), groups, subject(cluster)).allows();
    let names: Vec<&str> = kube.clusters.iter().filter(allowed).map(|cluster| cluster.name.as_str()).collect();
    let mut lines = vec![match names.as_slice() {
        [] => "They may use no cluster of the configuration.".to_owned(),
        names => format!("They may use the clusters {}.", names.join(", ")),
    }];
    if !kube.discover.is_empty() {
        lines.push("EKS is not asked here; --cluster NAME explains a cluster that it has.".into());
    }
    lines
}

fn rules(config: &Config) -> Rules<'_> {
    Rules { kube: &config.kube, rbac: config.rbac.as_ref() }
}

fn subject(cluster: &StaticCluster) -> Subject<'_> {
    let shared = matches!(cluster.way, StaticWay::Kubeconfig(_));
    Subject { name: &cluster.name, labels: &cluster.labels, shared }
}

fn told(user: &Principal, name: &str, verdict: &Verdict<'_>) -> String {
    let may = if verdict.allows() { "may" } else { "may not" };
    format!("'{user}' {may} use cluster '{name}': {verdict}.")
}

fn way(config: &Config, user: &Principal, cluster: &StaticCluster) -> String {
    match (&cluster.way, &config.kube.role, &config.aws) {
        (StaticWay::Eks { .. }, KubeRole::Separate(role), _) => format!("There they are {}.", role.arn(user)),
        (StaticWay::Eks { .. }, _, Some(aws)) => format!("There they are {}, as in the jail.", aws.role.arn(user)),
        (StaticWay::Eks { .. }, _, None) => "There they are nobody: there is no [aws].".into(),
        (StaticWay::Impersonate(_), ..) => {
            format!("There the bastion says that they are '{user}' in their groups, with a credential of its own.")
        }
        (StaticWay::Kubeconfig(_), ..) => {
            "There everybody is the bastion: only its own audit tells users apart.".into()
        }
    }
}

fn as_others(config: &Config, groups: &BTreeSet<String>, name: &str) -> Vec<String> {
    let list = |patterns: &[crate::identity::Pattern]| {
        patterns.iter().map(|pattern| format!("'{pattern}'")).collect::<Vec<_>>().join(", ")
    };
    let mut lines = Vec::new();
    for rule in others(&config.kube, groups).filter(|rule| rule.clusters.iter().any(|pattern| pattern.matches(name))) {
        match (rule.as_users.as_slice(), rule.as_groups.as_slice()) {
            (users, []) => lines.push(format!("With --as they may be {}.", list(users))),
            ([], groups) => lines.push(format!("With --as-group they may be in {}.", list(groups))),
            (users, groups) => {
                lines.push(format!("With --as they may be {}, and in {} with --as-group.", list(users), list(groups)));
            }
        }
    }
    lines
}

/// A group in IAM can open what is closed, and close what is open.
fn unless_iam(config: &Config, verdict: &Verdict<'_>, mut lines: Vec<String>, status: u8) -> (Vec<String>, u8) {
    let kube = &config.kube;
    let turned = match verdict {
        Verdict::Allowed { .. } | Verdict::Granted { .. } => !kube.deny.is_empty(),
        Verdict::NotAllowed { rules, by_group } => *rules > 0 || *by_group,
        Verdict::Denied { .. } => false,
    };
    if !turned || !config.aws.as_ref().is_some_and(|aws| aws.groups_from_iam) {
        return (lines, status);
    }
    lines.push("IAM decides, and is not asked here: the rules are looked at again at login, with IAM's groups.".into());
    (lines, AWS_DECIDES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ClusterRule, Discover, Kube, KubeconfigEntry};
    use crate::identity::Pattern;

    fn config(aws: bool) -> Config {
        let aws =
            if aws { "[aws]\nregion = 'us-east-1'\nrole = 'arn:aws:iam::123456789012:role/{user}'\n" } else { "" };
        let mut config = super::super::tests::config(aws);
        let rule = |group: &str, labels: &[(&str, &str)]| ClusterRule {
            groups: vec![Pattern::new(group)],
            clusters: vec![Pattern::new("*")],
            labels: labels.iter().map(|(name, is)| ((*name).to_owned(), Pattern::new(*is))).collect(),
        };
        let cluster = |name: &str, way| StaticCluster {
            name: name.into(),
            labels: [("stage".to_owned(), name.to_owned())].into(),
            endpoint: None,
            authority: None,
            server_name: None,
            way,
        };
        let entry = || KubeconfigEntry { file: "/k".into(), context: None };
        config.kube = Kube {
            clusters: vec![
                cluster("dev", StaticWay::Eks { region: "us-east-1".into(), cluster: "dev".into() }),
                cluster("prod", StaticWay::Impersonate(entry())),
            ],
            allow: vec![rule("ops", &[]), rule("*", &[("stage", "play")])],
            deny: vec![rule("*", &[("stage", "prod")])],
            ..config.kube
        };
        config
    }

    fn said(config: &Config, group: &str, name: &str, labels: &[(&str, &str)]) -> (String, u8) {
        let labels = labels.iter().map(|(name, is)| ((*name).to_owned(), (*is).to_owned())).collect();
        let asked = Asked { name: name.into(), labels };
        let (lines, status) = explain(config, &"alice".parse().unwrap(), &[group.to_owned()].into(), &asked);
        (lines.join("\n"), status)
    }

    #[test]
    fn a_cluster_of_the_file_is_decided_here() {
        let here = config(false);
        assert_eq!(
            said(&here, "ops", "prod", &[]),
            (
                "'alice' may not use cluster 'prod': [[kube.deny]] number 1 is for groups '*' and clusters '*' with \
                 stage = 'prod'."
                    .into(),
                1
            )
        );
        assert_eq!(
            said(&here, "dev", "dev", &[]),
            ("'alice' may not use cluster 'dev': none of the 2 [[kube.allow]] is for them and this cluster.".into(), 1)
        );
        assert_eq!(
            said(&here, "ops", "none", &[]),
            ("There is no cluster 'none'; the configuration names dev, prod.".into(), 1)
        );
        let (lines, status) = said(&config(true), "ops", "dev", &[]);
        assert_eq!(status, 3);
        assert_eq!(
            lines,
            "'alice' may use cluster 'dev': [[kube.allow]] number 1 is for groups 'ops' and clusters '*'.\n\
             There they are arn:aws:iam::123456789012:role/alice-kube.\n\
             IAM decides, and is not asked here: the rules are looked at again at login, with IAM's groups."
        );
        assert_eq!(said(&config(true), "dev", "prod", &[]).1, 1, "a denial stands");
    }

    #[test]
    fn a_group_that_is_named_for_it_needs_no_rule() {
        let mut here = config(false);
        here.rbac = Some(crate::policy::kube::tests::rbac(&["user"]));
        let granted = "'alice' may use cluster 'dev': group 'k8s-user@dev' is access to it, by [rbac].";
        let (lines, status) = said(&here, "k8s-user@dev", "dev", &[]);
        assert_eq!((lines.lines().next(), status), (Some(granted), 0));
        let deny = "'alice' may not use cluster 'prod': [[kube.deny]] number 1";
        assert!(said(&here, "k8s-user@prod", "prod", &[]).0.starts_with(deny), "a denial stands");
        assert_eq!(all(&here, &["k8s-user@dev@web".to_owned()].into()), ["They may use the clusters dev."]);
        assert!(said(&here, "k8s-boss@dev", "dev", &[]).0.ends_with(
            "none of the 2 [[kube.allow]] is for them and this cluster, and no group of theirs is access to it by its name."
        ));
        let (mut asks, rbac) = (config(true), here.rbac);
        (asks.rbac, asks.kube.allow) = (rbac, vec![]);
        assert_eq!(said(&asks, "dev", "dev", &[]).1, 3, "a group in IAM could open it");
    }

    #[test]
    fn a_cluster_of_eks_by_the_tags_that_are_given() {
        let place = Discover { role: None, regions: vec![], tags: BTreeMap::new(), trusted: true };
        let mut config = config(false);
        config.kube.discover = vec![place];
        let (lines, status) = said(&config, "dev", "found", &[("stage", "play")]);
        assert_eq!(status, 3);
        assert!(lines.ends_with(
            "'alice' may use cluster 'found': [[kube.allow]] number 2 is for groups '*' and clusters '*' with stage = \
             'play'.\nThat is with the tags stage=play."
        ));
        assert_eq!(said(&config, "ops", "found", &[("stage", "prod")]).1, 1);
        assert_eq!(said(&config, "dev", "found", &[]).1, 3, "tags may open it");
        assert_eq!(said(&config, "ops", "a/b", &[]).1, 1, "EKS has none of such a name");
        assert_eq!(all(&config, &["ops".to_owned()].into())[0], "They may use the clusters dev.");
    }
}
