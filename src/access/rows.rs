//! Who is in aws-auth, as far as a plan must know; `cluster` writes it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A row of `mapRoles`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Without the role's path, or it fits nobody.
    #[serde(default)]
    pub rolearn: String,
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub groups: BTreeSet<String>,
}

/// The rows in their order; the sentence if the text is not what EKS reads.
pub fn rows(map_roles: &str) -> Result<Vec<Row>, String> {
    if map_roles.trim().is_empty() {
        return Ok(Vec::new());
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: 32, max_aliases: 0, max_anchors: 0, max_nodes: 200_000 },
    };
    serde_saphyr::from_str_with_options(map_roles, options).map_err(|error| error.to_string())
}

/// How aws-auth spells a role: `arn:aws:iam::123456789012:role/bastion/alice` is `…:role/alice` there.
pub fn without_path(arn: &str) -> String {
    match (arn.split_once(":role/"), arn.rsplit_once('/')) {
        (Some((before, _)), Some((_, name))) => format!("{before}:role/{name}"),
        _ => arn.to_owned(),
    }
}
