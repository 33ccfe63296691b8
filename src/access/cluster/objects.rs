//! RBAC in Kubernetes' words and in ours.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1 as rbac;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

use super::api::{encoded, fault};
use crate::access::change::{Object, Target};
use crate::access::seam::Fault;
use crate::access::world::{Binding, Rbac, Rule, Rules, Subject};

pub(super) const GROUP: &str = "rbac.authorization.k8s.io";
pub(super) const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Where an object is.
pub(super) struct Spot {
    pub collection: String,
    pub object: String,
    pub namespace: Option<String>,
    pub name: String,
}

impl Spot {
    /// `None`: not in a cluster's RBAC.
    pub(super) fn of(target: &Target) -> Option<Self> {
        let (namespace, kind, name) = match target {
            Target::ClusterRole { name, .. } => (None, "clusterroles", name),
            Target::ClusterRoleBinding { name, .. } => (None, "clusterrolebindings", name),
            Target::Role { namespace, name, .. } => (Some(namespace), "roles", name),
            Target::RoleBinding { namespace, name, .. } => (Some(namespace), "rolebindings", name),
            Target::Group(_) | Target::IamRole(_) | Target::Entry { .. } | Target::Row { .. } => return None,
        };
        let collection = match namespace {
            Some(namespace) => format!("{RBAC}/namespaces/{}/{kind}", encoded(namespace)),
            None => format!("{RBAC}/{kind}"),
        };
        let object = format!("{collection}/{}", encoded(name));
        Some(Self { collection, object, namespace: namespace.cloned(), name: name.clone() })
    }
}

/// What is sent: nothing in it but what shall be, so that labels, owners and finalizers that somebody added go.
pub(super) fn body(target: &Target, spot: &Spot, shall_be: &Object, version: Option<String>) -> Result<Value, Fault> {
    let metadata = ObjectMeta {
        name: Some(spot.name.clone()),
        namespace: spot.namespace.clone(),
        labels: Some(shall_be.labels()),
        resource_version: version,
        ..ObjectMeta::default()
    };
    match (target, shall_be) {
        (Target::ClusterRole { .. }, Object::Rules(rules)) => {
            json(rbac::ClusterRole { aggregation_rule: None, metadata, rules: policy(rules) })
        }
        (Target::Role { .. }, Object::Rules(rules)) => json(rbac::Role { metadata, rules: policy(rules) }),
        (Target::ClusterRoleBinding { .. }, Object::Binding(binding)) => {
            json(rbac::ClusterRoleBinding { metadata, role_ref: role_ref(binding), subjects: subjects(binding) })
        }
        (Target::RoleBinding { .. }, Object::Binding(binding)) => {
            json(rbac::RoleBinding { metadata, role_ref: role_ref(binding), subjects: subjects(binding) })
        }
        _ => Err(fault("Unusable", format!("{target} cannot be that"), false)),
    }
}

pub(super) fn json(object: impl Serialize) -> Result<Value, Fault> {
    serde_json::to_value(object).map_err(|error| fault("Unusable", error.to_string(), false))
}

fn policy(rules: &Rules) -> Option<Vec<rbac::PolicyRule>> {
    let list = |set: &BTreeSet<String>| (!set.is_empty()).then(|| set.iter().cloned().collect());
    let rule = |rule: &Rule| rbac::PolicyRule {
        api_groups: list(&rule.groups),
        non_resource_urls: list(&rule.urls),
        resource_names: list(&rule.names),
        resources: list(&rule.resources),
        verbs: rule.verbs.iter().cloned().collect(),
    };
    Some(rules.rules.iter().map(rule).collect())
}

fn role_ref(binding: &Binding) -> rbac::RoleRef {
    let (kind, name) = binding.role.clone();
    rbac::RoleRef { api_group: Some(GROUP.to_owned()), kind, name }
}

fn subjects(binding: &Binding) -> Option<Vec<rbac::Subject>> {
    let named = |kind: &str, name: &str| rbac::Subject {
        api_group: Some(GROUP.to_owned()),
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: None,
    };
    let subject = |subject: &Subject| match subject {
        Subject::User(name) => named("User", name),
        Subject::Group(name) => named("Group", name),
        Subject::ServiceAccount(namespace, name) => rbac::Subject {
            api_group: None,
            kind: "ServiceAccount".to_owned(),
            name: name.clone(),
            namespace: Some(namespace.clone()),
        },
    };
    Some(binding.subjects.iter().map(subject).collect())
}

pub(super) fn cluster_role(is: rbac::ClusterRole) -> (ObjectMeta, Rules) {
    let aggregated = is.aggregation_rule.is_some();
    (is.metadata, Rules { rules: rules(is.rules), aggregated })
}

pub(super) fn role(is: rbac::Role) -> (ObjectMeta, Rules) {
    (is.metadata, Rules { rules: rules(is.rules), aggregated: false })
}

pub(super) fn cluster_role_binding(is: rbac::ClusterRoleBinding) -> (ObjectMeta, Binding) {
    (is.metadata, binding(is.role_ref, is.subjects))
}

pub(super) fn role_binding(is: rbac::RoleBinding) -> (ObjectMeta, Binding) {
    (is.metadata, binding(is.role_ref, is.subjects))
}

fn rules(rules: Option<Vec<rbac::PolicyRule>>) -> Vec<Rule> {
    let set = |list: Option<Vec<String>>| list.unwrap_or_default().into_iter().collect();
    let rule = |rule: rbac::PolicyRule| Rule {
        verbs: rule.verbs.into_iter().collect(),
        groups: set(rule.api_groups),
        resources: set(rule.resources),
        names: set(rule.resource_names),
        urls: set(rule.non_resource_urls),
    };
    rules.unwrap_or_default().into_iter().map(rule).collect()
}

fn binding(role: rbac::RoleRef, subjects: Option<Vec<rbac::Subject>>) -> Binding {
    // The API server takes these three kinds and no other.
    let subject = |subject: rbac::Subject| match subject.kind.as_str() {
        "User" => Some(Subject::User(subject.name)),
        "Group" => Some(Subject::Group(subject.name)),
        "ServiceAccount" => Some(Subject::ServiceAccount(subject.namespace.unwrap_or_default(), subject.name)),
        _ => None,
    };
    Binding {
        role: (role.kind, role.name),
        subjects: subjects.unwrap_or_default().into_iter().filter_map(subject).collect(),
    }
}

/// An object with its marks, and what it is called.
pub(super) fn held<T>((metadata, is): (ObjectMeta, T)) -> ((String, String), Rbac<T>) {
    let created = created(&metadata);
    let name = (metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default());
    let labels: BTreeMap<String, String> = metadata.labels.unwrap_or_default();
    (name, Rbac { is, labels, created, version: metadata.resource_version.unwrap_or_default() })
}

pub(super) fn created(metadata: &ObjectMeta) -> i64 {
    metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
        names.map(str::to_owned).into()
    }

    #[test]
    fn an_object_is_read_as_it_was_written() {
        let rules = Rules {
            rules: vec![
                Rule {
                    verbs: set(["get"]),
                    groups: set(["", "apps"]),
                    resources: set(["pods/log"]),
                    ..Rule::default()
                },
                Rule { verbs: set(["get"]), urls: set(["/healthz"]), ..Rule::default() },
            ],
            aggregated: false,
        };
        let target = Target::ClusterRole { cluster: "hyades".into(), name: "k8s-user@hyades:namespaces".into() };
        let spot = Spot::of(&target).unwrap();
        assert_eq!(spot.object, format!("{RBAC}/clusterroles/k8s%2Duser%40hyades%3Anamespaces"));
        let sent = body(&target, &spot, &Object::Rules(rules.clone()), Some("7".into())).unwrap();
        let (name, read) = held(cluster_role(serde_json::from_value(sent).unwrap()));
        assert_eq!((name.1.as_str(), read.is_ours(), read.version.as_str()), (spot.name.as_str(), true, "7"));
        assert_eq!(read.is, rules);
    }

    #[test]
    fn a_binding_keeps_every_kind_of_subject() {
        let who = [
            Subject::User("stockade:alice".into()),
            Subject::Group("ops".into()),
            Subject::ServiceAccount("a".into(), "b".into()),
        ];
        let binding = Binding { role: ("Role".into(), "r".into()), subjects: who.into() };
        let target = Target::RoleBinding { cluster: "hyades".into(), namespace: "taurus".into(), name: "b".into() };
        let spot = Spot::of(&target).unwrap();
        let sent = body(&target, &spot, &Object::Binding(binding.clone()), None).unwrap();
        let (name, read) = held(role_binding(serde_json::from_value(sent).unwrap()));
        assert_eq!((name, read.is), (("taurus".into(), "b".into()), binding));
        assert!(body(&target, &spot, &Object::Group, None).is_err());
    }
}
