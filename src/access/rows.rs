//! Who is in aws-auth, as far as a plan must know; `cluster` writes it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A row of `mapRoles` or of `mapUsers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Of a role without its path, or it fits nobody; of a user with it.
    #[serde(rename = "rolearn")]
    pub arn: String,
    pub username: String,
    pub groups: BTreeSet<String>,
}

/// The rows of `mapRoles` in their order; the sentence if the text is not what EKS reads.
pub fn rows(map_roles: &str) -> Result<Vec<Row>, String> {
    read(map_roles, "rolearn")
}

/// Those of `mapUsers`.
pub fn user_rows(map_users: &str) -> Result<Vec<Row>, String> {
    read(map_users, "userarn")
}

fn read(text: &str, arn: &str) -> Result<Vec<Row>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: 32, max_aliases: 0, max_anchors: 0, max_nodes: 200_000 },
    };
    let said: Option<Vec<BTreeMap<String, Value>>> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())?;
    said.unwrap_or_default().into_iter().map(|fields| row(fields, arn)).collect()
}

/// The authenticator does not mind the case of a field's name.
fn row(fields: BTreeMap<String, Value>, arn: &str) -> Result<Row, String> {
    let known = fields.into_iter().filter(|(_, value)| !value.is_null()).filter_map(|(name, value)| {
        let name = match name.to_ascii_lowercase() {
            name if name == arn => "rolearn".to_owned(),
            name if name == "username" || name == "groups" => name,
            _ => return None,
        };
        Some((name, value))
    });
    serde_json::from_value(Value::Object(known.collect())).map_err(|error| format!("a row of it: {error}"))
}

/// How aws-auth spells a role: `arn:aws:iam::123456789012:role/bastion/alice` is `…:role/alice` there.
pub fn without_path(arn: &str) -> String {
    match (arn.split_once(":role/"), arn.rsplit_once('/')) {
        (Some((before, _)), Some((_, name))) => format!("{before}:role/{name}"),
        _ => arn.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_what_the_authenticator_reads() {
        let alice = Row { arn: "a".into(), username: "u".into(), groups: ["g".to_owned()].into() };
        for text in [
            "- rolearn: a\n  username: u\n  groups: [g]\n",
            "# people\n- {roleARN: a, UserName: u, GROUPS: [g], more: 1, userarn: x}\n",
        ] {
            assert_eq!(rows(text).unwrap(), [alice.clone()], "{text}");
        }
        assert_eq!(user_rows("- {userarn: a, username: u, groups: [g], rolearn: x}").unwrap(), [alice]);
        for text in ["", " \n", "# nobody\n", "[]", "- groups:\n"] {
            assert!(rows(text).unwrap().iter().all(|row| *row == Row::default()), "{text}");
        }
        for text in ["{", "- a", "x: y", "- groups: g", "- username: [a]", "- &a {}\n- *a\n"] {
            assert!(rows(text).is_err(), "{text}");
        }
    }
}
