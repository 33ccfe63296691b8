//! A cluster as it is: all of its RBAC, ours or not, since rights are made of both.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace as Space};

use super::api::Api;
use super::discovery;
use super::objects::{RBAC, cluster_role, cluster_role_binding, created, held, role, role_binding};
use super::spaces::Names;
use crate::access::seam::Fault;
use crate::access::world::{AwsAuth, Cluster, Mode, Namespace};

const AWS_AUTH: &str = "/api/v1/namespaces/kube-system/configmaps/aws-auth";

impl Api {
    /// Entries of EKS are not read here.
    pub async fn read(&self, mode: Mode, place: String, ours: Names<'_>) -> Result<Cluster, Fault> {
        let kinds = ["clusterroles", "clusterrolebindings"].map(|kind| format!("{RBAC}/{kind}"));
        let (namespaces, (served, stale), cluster_roles, roles, cluster_bindings, bindings, aws_auth) = tokio::try_join!(
            self.list::<Space>("/api/v1/namespaces"),
            discovery::served(self),
            self.list(&kinds[0]),
            self.everywhere("roles", ours),
            self.list(&kinds[1]),
            self.everywhere("rolebindings", ours),
            self.aws_auth(mode),
        )?;
        Ok(Cluster {
            mode,
            place,
            namespaces: namespaces.into_iter().map(namespace).collect(),
            served,
            stale,
            cluster_roles: cluster_roles.into_iter().map(cluster_role).map(held).map(of_cluster).collect(),
            roles: roles.items.into_iter().map(role).map(held).collect(),
            cluster_bindings: cluster_bindings
                .into_iter()
                .map(cluster_role_binding)
                .map(held)
                .map(of_cluster)
                .collect(),
            bindings: bindings.items.into_iter().map(role_binding).map(held).collect(),
            crowded: &roles.crowded | &bindings.crowded,
            entries: BTreeMap::new(),
            aws_auth,
        })
    }

    async fn aws_auth(&self, mode: Mode) -> Result<AwsAuth, Fault> {
        let found = match mode {
            Mode::Entries | Mode::Impersonated => return Ok(AwsAuth::default()),
            Mode::AwsAuth => self.find::<ConfigMap>(AWS_AUTH).await?,
            Mode::Both => match self.find::<ConfigMap>(AWS_AUTH).await {
                // It does not hold up the entries, which come first.
                Err(fault) if fault.code == "Forbidden" => {
                    return Ok(AwsAuth { unread: Some(fault.to_string()), ..AwsAuth::default() });
                }
                found => found?,
            },
        };
        let Some(map) = found else { return Ok(AwsAuth::default()) };
        let mut data: BTreeMap<String, String> = map.data.unwrap_or_default();
        let version = map.metadata.resource_version.unwrap_or_default();
        Ok(AwsAuth { map_roles: data.remove("mapRoles"), map_users: data.remove("mapUsers"), version, unread: None })
    }
}

/// Nothing but a name says which one it is.
fn of_cluster<T>(((_, name), is): ((String, String), T)) -> (String, T) {
    (name, is)
}

fn namespace(space: Space) -> (String, Namespace) {
    let created = created(&space.metadata);
    let terminating = space.metadata.deletion_timestamp.is_some();
    let labels = space.metadata.labels.unwrap_or_default();
    (space.metadata.name.unwrap_or_default(), Namespace { labels, created, terminating })
}
