//! Roles and RoleBindings of all namespaces, whatever the admin of one of them fills it with.
//!
//! They are listed as a whole, foreign ones too: what stands in our place, and what others may do, is told. Where that is
//! too much, each namespace is listed by itself with its share; one that has more is crowded: of it, what has a name of
//! ours is asked for one by one. So nobody keeps a right by hiding its binding among others.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Namespace;
use serde::de::DeserializeOwned;

use super::api::{Api, encoded, is_too_much};
use super::objects::RBAC;
use crate::access::names::Grant;
use crate::access::seam::Fault;

/// The share of a namespace, in bytes as the API server writes them.
const LEAST_SHARE: usize = 256 << 10;
const MOST_SHARE: usize = 8 << 20;

/// What access calls its objects on a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    pub cluster: &'a str,
    pub levels: &'a [String],
}

impl Names<'_> {
    /// Of Roles and RoleBindings.
    fn inside(self, namespace: &str) -> impl Iterator<Item = String> {
        let both = move |level: &String| {
            let grants = [Grant::of_cluster(level, self.cluster), Grant::of_namespace(level, self.cluster, namespace)];
            grants.map(|grant| grant.to_string())
        };
        self.levels.iter().flat_map(both)
    }
}

/// What there is of a kind.
pub(super) struct Everywhere<T> {
    pub items: Vec<T>,
    /// Namespaces of which only what has a name of ours is there.
    pub crowded: BTreeSet<String>,
}

impl Api {
    /// `roles` or `rolebindings`.
    pub(super) async fn everywhere<T: DeserializeOwned>(
        &self,
        kind: &str,
        ours: Names<'_>,
    ) -> Result<Everywhere<T>, Fault> {
        match self.list_within(&format!("{RBAC}/{kind}"), self.longest_list).await {
            Err(fault) if is_too_much(&fault) => self.each(kind, ours).await,
            list => Ok(Everywhere { items: list?, crowded: BTreeSet::new() }),
        }
    }

    async fn each<T: DeserializeOwned>(&self, kind: &str, ours: Names<'_>) -> Result<Everywhere<T>, Fault> {
        let spaces = self.list::<Namespace>("/api/v1/namespaces").await?;
        let share = (self.longest_list / spaces.len().max(1)).clamp(LEAST_SHARE, MOST_SHARE);
        let mut all = Everywhere { items: Vec::new(), crowded: BTreeSet::new() };
        for name in spaces.into_iter().filter_map(|space| space.metadata.name) {
            let collection = format!("{RBAC}/namespaces/{}/{kind}", encoded(&name));
            match self.list_within(&collection, share).await {
                Err(fault) if is_too_much(&fault) => {
                    for our in ours.inside(&name) {
                        all.items.extend(self.find(&format!("{collection}/{}", encoded(&our))).await?);
                    }
                    all.crowded.insert(name);
                }
                list => all.items.extend(list?),
            }
        }
        Ok(all)
    }
}
