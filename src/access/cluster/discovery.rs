//! What an API server serves, custom and aggregated resources included: two requests where it can say all at once.

use std::collections::{BTreeMap, BTreeSet};

use kube::client::{APIGroupDiscovery, APIGroupDiscoveryList, APIResourceDiscovery};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::api::{Answer, Api, fault, present};
use crate::access::seam::Fault;
use crate::access::world::Served;

/// What is served, sorted; and the groups whose own servers are away, so that nobody knows all of theirs.
pub(super) type Discovered = (Vec<Served>, BTreeSet<String>);

/// The newest first; a server that knows neither answers with the old lists.
const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                      application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// The two roots of every API server.
const ROOTS: [&str; 2] = ["/api", "/apis"];

/// All resources and subresources; of versions of one resource together.
pub(super) async fn served(api: &Api) -> Result<Discovered, Fault> {
    let mut catalogue = Catalogue::default();
    for root in ROOTS {
        let answer = api.get_as(root, ACCEPT).await?;
        if answer.content_type.contains("as=APIGroupDiscoveryList") {
            let said: APIGroupDiscoveryList = parsed(root, &answer)?;
            said.items.into_iter().for_each(|group| catalogue.group(group));
        } else {
            one_by_one(api, root, &answer, &mut catalogue).await?;
        }
    }
    let (all, stale) = catalogue.all();
    // Levels are written over this list: half an answer would take away what it leaves out.
    if !all.iter().any(|one| one.group.is_empty() && one.resource == "pods") {
        return Err(fault("IncompleteAnswer", "the API server serves no pods: not believed".to_owned(), true));
    }
    Ok((all, stale))
}

#[derive(Default)]
struct Catalogue {
    /// By group, resource, and whether it is in namespaces.
    found: BTreeMap<(String, String, bool), BTreeSet<String>>,
    /// Groups whose server does not answer the API server.
    stale: BTreeSet<String>,
}

impl Catalogue {
    fn group(&mut self, group: APIGroupDiscovery) {
        let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
        for version in group.versions {
            if version.freshness.as_deref() == Some("Stale") {
                self.stale.insert(name.clone());
            }
            version.resources.into_iter().for_each(|resource| self.resource(&name, resource));
        }
    }

    fn resource(&mut self, group: &str, is: APIResourceDiscovery) {
        let Some(name) = is.resource else { return };
        let namespaced = is.scope.as_deref() == Some("Namespaced");
        for below in is.subresources {
            if let Some(below_name) = below.subresource {
                self.add(group, format!("{name}/{below_name}"), namespaced, below.verbs);
            }
        }
        // Some are there for their subresources alone.
        if !is.verbs.is_empty() {
            self.add(group, name, namespaced, is.verbs);
        }
    }

    fn add(&mut self, group: &str, resource: String, namespaced: bool, verbs: Vec<String>) {
        self.found.entry((group.to_owned(), resource, namespaced)).or_default().extend(verbs);
    }

    fn all(self) -> Discovered {
        let served = |((group, resource, namespaced), verbs)| Served { group, resource, namespaced, verbs };
        (self.found.into_iter().map(served).collect(), self.stale)
    }
}

#[derive(Deserialize)]
struct Core {
    versions: Vec<String>,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    versions: Vec<GroupVersion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    group_version: String,
}

#[derive(Deserialize)]
struct Resources {
    resources: Option<Vec<Resource>>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    namespaced: bool,
    verbs: Option<Vec<String>>,
}

/// As servers before 1.26 say it: each version for itself.
async fn one_by_one(api: &Api, root: &str, answer: &Answer, catalogue: &mut Catalogue) -> Result<(), Fault> {
    let versions: Vec<(String, String)> = if root == "/api" {
        let said: Core = parsed(root, answer)?;
        said.versions.into_iter().map(|version| (String::new(), version)).collect()
    } else {
        let said: Groups = parsed(root, answer)?;
        let of = |group: Group| {
            let name = group.name;
            group.versions.into_iter().map(move |version| (name.clone(), version.group_version))
        };
        said.groups.into_iter().flat_map(of).collect()
    };
    for (group, version) in versions {
        let said = match api.get::<Resources>(&format!("{root}/{version}")).await {
            // Its own server is away, and the API server says so in its place.
            Err(fault) if fault.code == "ServiceUnavailable" || fault.code == "503" => None,
            answer => present(answer)?,
        };
        match said {
            Some(said) => said.resources.unwrap_or_default().into_iter().for_each(|resource| {
                catalogue.add(&group, resource.name, resource.namespaced, resource.verbs.unwrap_or_default());
            }),
            None => drop(catalogue.stale.insert(group)),
        }
    }
    Ok(())
}

fn parsed<T: DeserializeOwned>(root: &str, answer: &Answer) -> Result<T, Fault> {
    serde_json::from_slice(&answer.body)
        .map_err(|error| fault("Unreadable", format!("{root} is not what it should be: {error}"), false))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn catalogue(groups: serde_json::Value) -> Catalogue {
        let said: APIGroupDiscoveryList = serde_json::from_value(json!({"items": groups})).unwrap();
        let mut catalogue = Catalogue::default();
        said.items.into_iter().for_each(|group| catalogue.group(group));
        catalogue
    }

    fn lines(served: &[Served]) -> Vec<String> {
        let line = |s: &Served| {
            let verbs: Vec<&str> = s.verbs.iter().map(String::as_str).collect();
            format!("{}/{} {} {}", s.group, s.resource, s.namespaced, verbs.join(","))
        };
        served.iter().map(line).collect()
    }

    #[test]
    fn versions_of_a_resource_are_one_and_subresources_are_their_own() {
        let found = catalogue(json!([
            {"metadata": {"name": "apps"}, "versions": [
                {"version": "v1", "resources": [{"resource": "deployments", "scope": "Namespaced", "verbs": ["get"],
                    "subresources": [{"subresource": "scale", "verbs": ["update"]}]}]},
                {"version": "v1beta1", "resources": [{"resource": "deployments", "scope": "Namespaced",
                    "verbs": ["list"]}]}]},
            {"versions": [{"version": "v1", "resources": [
                {"resource": "nodes", "scope": "Cluster", "verbs": ["get"]},
                {"resource": "virtual", "scope": "Cluster", "subresources": [{"subresource": "x", "verbs": ["get"]}]},
                {}]}]}
        ]));
        assert_eq!(
            lines(&found.all().0),
            [
                "/nodes false get",
                "/virtual/x false get",
                "apps/deployments true get,list",
                "apps/deployments/scale true update"
            ]
        );
    }

    #[test]
    fn a_group_that_cannot_be_asked_is_told_with_what_is_known_of_it() {
        let found = catalogue(json!([{"metadata": {"name": "metrics"}, "versions": [
            {"version": "v1beta1", "freshness": "Stale"},
            {"version": "v1", "freshness": "Current",
                "resources": [{"resource": "pods", "scope": "Namespaced", "verbs": ["get"]}]}]}]));
        let (served, stale) = found.all();
        assert_eq!((lines(&served), stale), (vec!["metrics/pods true get".to_owned()], ["metrics".to_owned()].into()));
        assert_eq!(catalogue(json!([])).all(), (Vec::new(), BTreeSet::new()));
    }
}
