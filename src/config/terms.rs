//! What `access` must know of the file, on a machine that may be no bastion.

use std::collections::{BTreeMap, BTreeSet};

use super::kube::{Kube, KubeRole};
use super::rbac::Rbac;
use super::types::{Aws, Config, RoleTemplate};
use crate::identity::Principal;

/// On what terms groups are access: `[aws]`, `[kube]`, `[rbac]` and `[users] groups`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// SHA-256 of the file, in hex.
    pub digest: String,
    pub aws: Option<Aws>,
    pub kube: Kube,
    pub rbac: Rbac,
    /// `[users] groups`.
    pub groups: BTreeMap<String, BTreeSet<Principal>>,
}

impl Terms {
    /// Those of a bastion's configuration; `None` without `[rbac]`.
    pub fn of(config: &Config) -> Option<Self> {
        let (digest, aws, kube) = (config.digest.clone(), config.aws.clone(), config.kube.clone());
        Some(Self { digest, aws, kube, rbac: config.rbac.clone()?, groups: config.users.groups.clone() })
    }

    /// The role that clusters know.
    pub fn cluster_role(&self) -> Option<&RoleTemplate> {
        match &self.kube.role {
            KubeRole::None => None,
            KubeRole::Separate(template) => Some(template),
            KubeRole::Same => self.aws.as_ref().map(|aws| &aws.role),
        }
    }
}
