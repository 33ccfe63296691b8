use zeroize::Zeroizing;

use super::Known;
use crate::config::{Entry, Kube, KubeconfigEntry, NotUsable, Proof, StaticCluster, StaticWay, entry};
use crate::privsep::message::{Cluster, Credential, Way};

/// A cluster of the file that cannot be used, though it could when the configuration was checked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cluster '{cluster}' of the configuration is left out: {why}")]
pub struct Unusable {
    pub cluster: String,
    pub why: String,
}

/// The clusters of the file; `texts` are those of its kubeconfig files, in their order.
pub fn stated(kube: &Kube, texts: &[Zeroizing<String>]) -> (Vec<Known>, Vec<Unusable>) {
    let (mut known, mut unusable) = (Vec::new(), Vec::new());
    for cluster in &kube.clusters {
        match usable(cluster, kube, texts) {
            Ok(usable) => known.push(Known { cluster: usable, labels: cluster.labels.clone() }),
            Err(why) => unusable.push(Unusable { cluster: cluster.name.clone(), why }),
        }
    }
    (known, unusable)
}

fn usable(cluster: &StaticCluster, kube: &Kube, texts: &[Zeroizing<String>]) -> Result<Cluster, String> {
    let said = cluster.way.entry().map(|said| read(said, kube, texts)).transpose()?;
    let (endpoint, authority, server_name) = match &said {
        Some(said) => (said.endpoint.clone(), said.authority.clone(), said.server_name.clone()),
        None => (None, None, None),
    };
    let way = match (&cluster.way, said.map(|said| credential(said.proof))) {
        (StaticWay::Eks { region, cluster }, _) => Way::Eks { region: region.clone(), cluster: cluster.clone() },
        (StaticWay::Impersonate(_), Some(credential)) => Way::Impersonate(credential),
        (StaticWay::Kubeconfig(_), Some(credential)) => Way::Shared(credential),
        (_, None) => return Err("its kubeconfig has no credential".into()),
    };
    Ok(Cluster {
        name: cluster.name.clone(),
        endpoint: cluster.endpoint.clone().or(endpoint).ok_or("it has no endpoint")?,
        authority: cluster.authority.clone().or(authority).ok_or("it has no authority")?,
        server_name: cluster.server_name.clone().or(server_name),
        way,
    })
}

fn read(said: &KubeconfigEntry, kube: &Kube, texts: &[Zeroizing<String>]) -> Result<Entry, String> {
    let place = kube.kubeconfigs().iter().position(|file| *file == said.file);
    let text = place.and_then(|place| texts.get(place)).ok_or("its kubeconfig is missing")?;
    entry(text, said.context.as_deref()).map_err(|refused: NotUsable| format!("'{}': {refused}", said.file.display()))
}

fn credential(proof: Proof) -> Credential {
    match proof {
        Proof::Token(token) => Credential::Token(token),
        Proof::Certificate { chain, key } => Credential::Certificate { chain, key },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "current-context: one
clusters: [{name: a, cluster: {server: 'https://a.test:6443', certificate-authority-data: LS0tLS1CRUdJTiBYLS0tLS0=}}]
contexts: [{name: one, context: {cluster: a, user: u}}, {name: two, context: {cluster: a, user: exec}}]
users: [{name: u, user: {token: the-secret}}, {name: exec, user: {exec: {command: aws}}}]
";

    fn cluster(name: &str, context: Option<&str>) -> StaticCluster {
        let entry = KubeconfigEntry { file: "/k".into(), context: context.map(str::to_owned) };
        StaticCluster {
            name: name.into(),
            labels: [("stage".to_owned(), name.to_owned())].into(),
            endpoint: None,
            authority: None,
            server_name: Some("other.test".into()),
            way: StaticWay::Impersonate(entry),
        }
    }

    #[test]
    fn a_kubeconfig_says_what_the_configuration_does_not() {
        let kube = Kube { clusters: vec![cluster("a", None), cluster("b", Some("two"))], ..Kube::default() };
        let (known, unusable) = stated(&kube, &[TEXT.to_owned().into()]);
        let [Known { cluster, labels }] = known.as_slice() else { panic!("{known:?}") };
        assert_eq!((cluster.endpoint.as_str(), labels["stage"].as_str()), ("https://a.test:6443", "a"));
        assert_eq!(cluster.server_name.as_deref(), Some("other.test"));
        assert!(matches!(&cluster.way, Way::Impersonate(Credential::Token(token)) if token.expose() == "the-secret"));
        assert!(!format!("{known:?}").contains("the-secret"));
        assert_eq!(
            unusable[0].to_string(),
            "cluster 'b' of the configuration is left out: '/k': user 'exec' runs a program for its credential (exec)"
        );
        assert_eq!(stated(&kube, &[]).0.len(), 0);
    }
}
