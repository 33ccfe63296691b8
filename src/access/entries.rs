//! Whom EKS lets into a cluster, in access entries and in aws-auth alike.

use std::collections::{BTreeMap, BTreeSet};

use super::names::role_of;
use super::rows::{rows, without_path};
use super::world::{Cluster, Entry, MARK, Mode};
use crate::config::Terms;

/// What a person's entry is of.
pub const STANDARD: &str = "STANDARD";

/// What there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    pub ours: BTreeMap<String, Entry>,
    /// ARNs that somebody else let in.
    pub foreign: BTreeSet<String>,
}

/// The sentence, if nobody can say who is let in.
pub fn held(cluster: &Cluster, terms: &Terms) -> Result<Held, String> {
    match cluster.mode {
        Mode::Impersonated => Ok(Held::default()),
        Mode::Entries => {
            // A tag is quickly set: the entry must also be of the role that we would make for that user.
            let is_ours = |arn: &str, entry: &Entry| {
                let made = entry.tags.get(MARK).and_then(|user| role_of(terms.cluster_role()?, user).ok());
                made.is_some_and(|(_, made)| made == arn)
            };
            let (ours, foreign): (Vec<_>, Vec<_>) =
                cluster.entries.iter().partition(|(arn, entry)| is_ours(arn, entry));
            Ok(Held {
                ours: ours.into_iter().map(|(arn, entry)| (arn.clone(), entry.clone())).collect(),
                foreign: foreign.into_iter().map(|(arn, _)| arn.clone()).collect(),
            })
        }
        Mode::AwsAuth => in_aws_auth(cluster.aws_auth.map_roles.as_deref().unwrap_or_default(), terms),
    }
}

/// A row has no mark: ours is one that names a user's role and, as only we call them, that user.
fn in_aws_auth(map_roles: &str, terms: &Terms) -> Result<Held, String> {
    let mut held = Held::default();
    for row in rows(map_roles)? {
        let arn = row.rolearn;
        let template = terms.cluster_role();
        let user = terms.rbac.user_of(&row.username).filter(|user| {
            let made = template.and_then(|template| role_of(template, user).ok());
            made.is_some_and(|(_, made)| without_path(&made) == arn)
        });
        let twice = held.ours.remove(&arn).is_some() || held.foreign.contains(&arn);
        match user {
            Some(user) if !twice => {
                let tags = [(MARK.to_owned(), user.to_owned())].into();
                let (username, kind) = (row.username.clone(), STANDARD.to_owned());
                held.ours.insert(arn, Entry { username, groups: row.groups, tags, kind, ..Entry::default() });
            }
            _ => drop(held.foreign.insert(arn)),
        }
    }
    Ok(held)
}

/// How the entry of a role is called on this cluster.
pub fn key(mode: Mode, arn: &str) -> String {
    match mode {
        Mode::AwsAuth => without_path(arn),
        Mode::Entries | Mode::Impersonated => arn.to_owned(),
    }
}
