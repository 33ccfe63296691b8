//! Clusters: who users are there, whether they are found, whether anybody may use one.

use super::Check;
use crate::config::{Aws, Config, Kube, KubeRole};
use crate::privsep::message::Refusal;
use crate::warden::authority::{Authority, Surroundings};
use crate::warden::clusters::{Cloud, Eks, Place, places};

const NAME: &str = "clusters";

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let kube = &config.kube;
    if !kube.is_used() {
        return Vec::new();
    }
    let mut checks = vec![role(config), rules(kube, config.rbac.is_some())];
    checks.extend(strangers(kube));
    if let Some(aws) = config.aws.as_ref().filter(|_| !kube.discover.is_empty()) {
        checks.extend(found(aws, kube));
    }
    checks
}

/// Who users are on EKS.
fn role(config: &Config) -> Check {
    const NAME: &str = "kube-role";
    match (&config.kube.role, &config.aws) {
        (KubeRole::Same, _) => Check::warn(
            NAME,
            "kube_role = \"same\": keys from a jail's metadata door are their user on every EKS cluster, from anywhere, past \
             the kube door and its audit; make a second role per user, map that one on the clusters, and take kube_role \
             out of [kube]",
        ),
        (KubeRole::Separate(role), Some(aws)) => {
            Check::ok(NAME, format!("users are {} on EKS; map {} on no cluster", role.as_str(), aws.role.as_str()))
        }
        _ => Check::ok(NAME, "no [aws]: no cluster takes a user's own token"),
    }
}

fn rules(kube: &Kube, by_group: bool) -> Check {
    const NAME: &str = "kube-rules";
    match (kube.allow.len(), kube.deny.len()) {
        (0, deny) if by_group => Check::ok(NAME, format!("groups k8s-LEVEL@CLUSTER open clusters, {deny} deny")),
        (0, _) => Check::warn(NAME, "no [[kube.allow]]: nobody may use any cluster; add one"),
        (allow, deny) => Check::ok(NAME, format!("{allow} allow, {deny} deny")),
    }
}

/// Rules by labels see no tag of an account that is not trusted.
fn strangers(kube: &Kube) -> Option<Check> {
    let by_label = kube.allow.iter().chain(&kube.deny).any(|rule| !rule.labels.is_empty());
    let untrusted = kube.discover.iter().find(|discover| !discover.trusted && by_label)?;
    let whose = untrusted.role.as_deref().unwrap_or("the bastion's own identity");
    Some(Check::warn(
        "kube-labels",
        format!(
            "clusters found with {whose} have no labels, so no rule by label is for them, no deny either; name them in \
             `clusters`, or say trusted = true if only you can tag there"
        ),
    ))
}

/// Looks once everywhere, as the bastion will.
fn found(aws: &Aws, kube: &Kube) -> Vec<Check> {
    let asked = || -> Result<Vec<Check>, String> {
        let surroundings = Surroundings::read().map_err(|error| error.to_string())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(async {
            let authority = Authority::connect(&aws.region, &surroundings).await.map_err(|error| error.to_string())?;
            let eks = Eks::new(authority);
            let mut checks = Vec::new();
            for place in places(&kube.discover) {
                let answer = eks.names(&place, None).await;
                checks.push(told(&place, answer.map(|page| page.names.len())));
            }
            Ok(checks)
        })
    };
    asked().unwrap_or_else(|why| vec![Check::fail(NAME, why)])
}

fn told(place: &Place, answer: Result<usize, Refusal>) -> Check {
    match (answer, &place.role) {
        (Ok(0), _) => Check::warn(NAME, format!("EKS has no cluster there ({place}); is the region right?")),
        (Ok(count), _) => Check::ok(NAME, format!("{count} or more there ({place})")),
        (Err(refusal), None) => Check::warn(
            NAME,
            format!(
                "{}: {} ({place}); the bastion's identity needs eks:ListClusters and eks:DescribeCluster",
                refusal.code, refusal.message
            ),
        ),
        (Err(refusal), Some(role)) => Check::warn(
            NAME,
            format!(
                "{}: {} ({place}); {role} must be there, trust the bastion's identity, and allow eks:ListClusters and \
                 eks:DescribeCluster",
                refusal.code, refusal.message
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::config::{ClusterRule, Discover};
    use crate::identity::Pattern;

    #[test]
    fn what_is_missing_or_costs_something_is_told() {
        let kube = Kube::default();
        assert_eq!(rules(&kube, false).state, State::Warn);
        assert_eq!(rules(&kube, true).state, State::Ok);
        assert!(strangers(&kube).is_none());
        let rule = ClusterRule {
            groups: vec![Pattern::new("*")],
            clusters: vec![Pattern::new("*")],
            labels: [("stage".to_owned(), Pattern::new("prod"))].into(),
        };
        let place = Discover { role: None, regions: vec![], tags: Default::default(), trusted: false };
        let kube = Kube { allow: vec![rule.clone()], deny: vec![rule], discover: vec![place], ..kube };
        assert_eq!(rules(&kube, false).text, "1 allow, 1 deny");
        assert!(strangers(&kube).unwrap().text.contains("no deny either"));
        let place = Place { role: Some("arn:x".into()), region: "us-east-1".into() };
        let refusal = Refusal { code: "AccessDenied".into(), message: "no".into(), transient: false };
        assert!(
            told(&place, Err(refusal)).text.starts_with("AccessDenied: no (arn:x in us-east-1); arn:x must be there")
        );
        assert_eq!(told(&place, Ok(0)).state, State::Warn);
    }
}
