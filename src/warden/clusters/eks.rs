use std::collections::HashMap;

use aws_sdk_eks::Client;
use aws_sdk_eks::types::ClusterStatus;
use tokio::sync::Mutex;

use super::{Cloud, Described, Page, Place};
use crate::privsep::message::Refusal;
use crate::warden::authority::{Authority, refusal_of};

/// EKS itself, asked by the bastion's identity.
#[derive(Debug)]
pub struct Eks {
    authority: Authority,
    /// Kept, for each holds the credentials of its role.
    clients: Mutex<HashMap<Place, Client>>,
}

impl Eks {
    pub fn new(authority: Authority) -> Self {
        Self { authority, clients: Mutex::default() }
    }

    async fn client(&self, place: &Place) -> Client {
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(place) {
            return client.clone();
        }
        let client = self.authority.eks(place.role.as_deref(), &place.region).await;
        clients.insert(place.clone(), client.clone());
        client
    }
}

impl Cloud for Eks {
    async fn names(&self, place: &Place, after: Option<String>) -> Result<Page, Refusal> {
        let asked = self.client(place).await.list_clusters().set_next_token(after).send().await;
        let said = asked.map_err(|error| refusal_of(&error))?;
        Ok(Page { next: said.next_token().map(str::to_owned), names: said.clusters.unwrap_or_default() })
    }

    async fn describe(&self, place: &Place, name: &str) -> Result<Option<Described>, Refusal> {
        let said = match self.client(place).await.describe_cluster().name(name).send().await {
            // Deleted since it was listed.
            Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_not_found_exception()) => {
                return Ok(None);
            }
            answer => answer.map_err(|error| refusal_of(&error))?,
        };
        Ok(said.cluster.map(|cluster| Described {
            // An update goes on under a cluster that answers.
            is_up: matches!(cluster.status, Some(ClusterStatus::Active | ClusterStatus::Updating)),
            arn: cluster.arn.unwrap_or_default(),
            endpoint: cluster.endpoint.unwrap_or_default(),
            authority: cluster.certificate_authority.and_then(|authority| authority.data).unwrap_or_default(),
            tags: cluster.tags.unwrap_or_default().into_iter().collect(),
        }))
    }
}
