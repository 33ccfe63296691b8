//! Changes of RBAC, each of one object, and of rows in aws-auth.

use k8s_openapi::api::rbac::v1::RoleRef;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Api, conflict, fault};
use super::aws_auth::{self, Refused};
use super::objects::{Spot, body};
use crate::access::change::{Change, Object, Target};
use crate::access::seam::Fault;
use crate::access::world::{Entry, LABEL, LABELLED};

const AWS_AUTH: &str = "/api/v1/namespaces/kube-system/configmaps/aws-auth";
const CONFIG_MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";
/// Others write aws-auth too: node groups that come and go.
const TRIES: usize = 3;

/// An object as it is just now.
#[derive(Deserialize)]
struct Fresh {
    metadata: ObjectMeta,
    #[serde(rename = "roleRef")]
    role: Option<RoleRef>,
}

impl Fresh {
    fn is_ours(&self) -> bool {
        let labels = self.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(LABEL)).is_some_and(|by| by == LABELLED)
    }

    fn version(&self) -> &str {
        self.metadata.resource_version.as_deref().unwrap_or_default()
    }
}

impl Api {
    /// Of the four kinds of RBAC.
    pub async fn carry_out(&self, change: &Change) -> Result<(), Fault> {
        let target = &change.target;
        let elsewhere = || fault("Unusable", format!("{target} is not in a cluster's RBAC"), false);
        let spot = Spot::of(target).ok_or_else(elsewhere)?;
        match (&change.was, &change.shall_be) {
            (None, Some(object)) => self.make(target, &spot, object).await,
            (Some(_), Some(object)) => self.put_right(change, &spot, object).await,
            (Some(_), None) => match self.fresh(change, &spot).await? {
                Some((value, fresh)) => self.remove(&spot, value, &fresh).await,
                None => Ok(()),
            },
            (None, None) => Ok(()),
        }
    }

    async fn make(&self, target: &Target, spot: &Spot, object: &Object) -> Result<(), Fault> {
        self.create::<_, Value>(&spot.collection, &body(target, spot, object, None)?).await.map(drop)
    }

    async fn put_right(&self, change: &Change, spot: &Spot, object: &Object) -> Result<(), Fault> {
        let target = &change.target;
        let gone = || conflict(format!("{target} was removed since it was read"));
        let (value, fresh) = self.fresh(change, spot).await?.ok_or_else(gone)?;
        if let (Object::Binding(binding), Some(role)) = (object, &fresh.role)
            && (&binding.role.0, &binding.role.1) != (&role.kind, &role.name)
        {
            self.remove(spot, value, &fresh).await?;
            return self.make(target, spot, object).await;
        }
        let sent = body(target, spot, object, Some(fresh.version().to_owned()))?;
        self.replace::<_, Value>(&spot.object, &sent).await.map(drop)
    }

    /// The object, if it is ours and as it was planned with.
    async fn fresh(&self, change: &Change, spot: &Spot) -> Result<Option<(Value, Fresh)>, Fault> {
        let target = &change.target;
        let Some(value) = self.find::<Value>(&spot.object).await? else { return Ok(None) };
        let fresh = Fresh::deserialize(&value);
        let fresh = fresh.map_err(|error| fault("Unreadable", format!("{target}: {error}"), false))?;
        if !fresh.is_ours() {
            let what = format!("{target} has no label {LABEL}={LABELLED}: it is left alone");
            return Err(fault("Foreign", what, false));
        }
        // What goes, goes whatever was done to it since: else a hand that keeps changing it would keep it.
        if change.shall_be.is_some() && !change.version.is_empty() && change.version != fresh.version() {
            return Err(conflict(format!("{target} was changed since it was read")));
        }
        Ok(Some((value, fresh)))
    }

    async fn remove(&self, spot: &Spot, mut value: Value, fresh: &Fresh) -> Result<(), Fault> {
        let mut version = fresh.version().to_owned();
        // A finalizer would keep it, and what it grants, for as long as its owner likes.
        if fresh.metadata.finalizers.as_ref().is_some_and(|names| !names.is_empty()) {
            value["metadata"]["finalizers"] = json!([]);
            let freed: Fresh = self.replace(&spot.object, &value).await?;
            version = freed.version().to_owned();
        }
        self.delete(&spot.object, fresh.metadata.uid.clone(), &version).await
    }

    /// A user's row of aws-auth.
    pub async fn carry_out_row(&self, change: &Change) -> Result<(), Fault> {
        let (Target::Entry { role, .. } | Target::Row { role, .. }) = &change.target else {
            return Err(fault("Unusable", format!("{} is no row of aws-auth", change.target), false));
        };
        let (was, shall_be) = (entry(change.was.as_ref()), entry(change.shall_be.as_ref()));
        let mut last = Ok(());
        for _ in 0..TRIES {
            last = self.rewrite(role, was, shall_be).await;
            if !last.as_ref().is_err_and(|fault| matches!(fault.code.as_str(), "Conflict" | "AlreadyExists")) {
                break;
            }
        }
        last
    }

    async fn rewrite(&self, role: &str, was: Option<&Entry>, shall_be: Option<&Entry>) -> Result<(), Fault> {
        let found = self.find::<Value>(AWS_AUTH).await?;
        let text = found.as_ref().and_then(|map| map["data"]["mapRoles"].as_str());
        let edited = aws_auth::edit(text, role, was, shall_be).map_err(|refused| match refused {
            Refused::Changed(_) => conflict(format!("aws-auth: {refused}")),
            other => fault("AwsAuth", format!("aws-auth is left alone: {other}"), false),
        })?;
        if edited == text.unwrap_or_default() {
            return Ok(());
        }
        let Some(mut map) = found else {
            let metadata = json!({"name": "aws-auth", "namespace": "kube-system"});
            let map =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"mapRoles": edited}});
            return self.create::<_, Value>(CONFIG_MAPS, &map).await.map(drop);
        };
        let data = map.as_object_mut().map(|map| map.entry("data").or_insert_with(|| json!({})));
        match data.and_then(Value::as_object_mut) {
            Some(data) => drop(data.insert("mapRoles".to_owned(), edited.into())),
            None => return Err(fault("Unreadable", "aws-auth has no data".to_owned(), false)),
        }
        self.replace::<_, Value>(AWS_AUTH, &map).await.map(drop)
    }
}

fn entry(object: Option<&Object>) -> Option<&Entry> {
    match object {
        Some(Object::Entry(entry)) => Some(entry),
        _ => None,
    }
}
