//! Whom EKS lets into a cluster, in access entries and in aws-auth alike.

use std::collections::{BTreeMap, BTreeSet};

use super::names::role_of;
use super::roles;
use super::rows::{Row, rows, user_rows, without_path};
use super::world::{Cluster, Directory, Entry, MARK, Mode};
use crate::config::Terms;

/// What a person's entry is of.
pub const STANDARD: &str = "STANDARD";

/// What there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    pub ours: BTreeMap<String, Entry>,
    /// In the order of their ARNs.
    pub foreign: Vec<Other>,
}

/// Whom another hand let in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Other {
    pub arn: String,
    pub username: String,
    pub groups: BTreeSet<String>,
    /// Where that is said: `an access entry`.
    pub by: &'static str,
}

impl Other {
    fn of_entry((arn, entry): (&String, &Entry)) -> Self {
        let (username, groups) = (entry.username.clone(), entry.groups.clone());
        Self { arn: arn.clone(), username, groups, by: "an access entry" }
    }

    fn of_row(row: Row) -> Self {
        Self { arn: row.arn, username: row.username, groups: row.groups, by: "a row of mapRoles in aws-auth" }
    }
}

/// Users of IAM themselves, whom access never lets in. The sentence, if nobody can say which.
pub fn users_of_iam(cluster: &Cluster) -> Result<Vec<Other>, String> {
    let rows = user_rows(cluster.aws_auth.map_users.as_deref().unwrap_or_default())?;
    Ok(rows.into_iter().map(|row| Other { by: "a row of mapUsers in aws-auth", ..Other::of_row(row) }).collect())
}

impl Held {
    pub fn has_foreign(&self, arn: &str) -> bool {
        self.foreign.binary_search_by(|other| other.arn.as_str().cmp(arn)).is_ok()
    }
}

/// The sentence, if nobody can say who is let in.
pub fn held(cluster: &Cluster, terms: &Terms) -> Result<Held, String> {
    match cluster.mode {
        Mode::Impersonated => Ok(Held::default()),
        Mode::Entries | Mode::Both => {
            // A tag is quickly set: the entry must also be of the role that we would make for that user.
            let is_ours = |arn: &str, entry: &Entry| {
                let made = entry.tags.get(MARK).and_then(|user| role_of(terms.cluster_role()?, user).ok());
                made.is_some_and(|(_, made)| made == arn)
            };
            let (ours, foreign): (Vec<_>, Vec<_>) =
                cluster.entries.iter().partition(|(arn, entry)| is_ours(arn, entry));
            Ok(Held {
                ours: ours.into_iter().map(|(arn, entry)| (arn.clone(), entry.clone())).collect(),
                foreign: foreign.into_iter().map(Other::of_entry).collect(),
            })
        }
        Mode::AwsAuth => in_aws_auth(cluster.aws_auth.map_roles.as_deref().unwrap_or_default(), terms),
    }
}

/// A row has no mark: ours is one that names a user's role and, as only we call them, that user.
fn in_aws_auth(map_roles: &str, terms: &Terms) -> Result<Held, String> {
    let mut held = Held::default();
    for row in rows(map_roles)? {
        let user = terms.rbac.user_of(&row.username);
        let user = user.filter(|user| made_for(user, terms).is_some_and(|made| made == row.arn)).map(str::to_owned);
        let twice = held.ours.remove(&row.arn).is_some() || held.foreign.iter().any(|other| other.arn == row.arn);
        match user {
            Some(user) if !twice => drop(held.ours.insert(row.arn.clone(), entry_of(row, user))),
            _ => held.foreign.push(Other::of_row(row)),
        }
    }
    held.foreign.sort();
    Ok(held)
}

/// As if the row were an entry of this user's.
fn entry_of(row: Row, user: String) -> Entry {
    let (tags, kind) = ([(MARK.to_owned(), user)].into(), STANDARD.to_owned());
    Entry { username: row.username, groups: row.groups, tags, kind, ..Entry::default() }
}

/// Whether this is the role of the user who is called so.
pub fn is_own(arn: &str, username: &str, terms: &Terms) -> bool {
    let made = terms.rbac.user_of(username).and_then(|user| made_for(user, terms));
    made.is_some_and(|made| made.eq_ignore_ascii_case(&without_path(arn)))
}

/// The role that clusters know a user by, as aws-auth spells it.
fn made_for(user: &str, terms: &Terms) -> Option<String> {
    let (_, arn) = role_of(terms.cluster_role()?, user).ok()?;
    Some(without_path(&arn))
}

/// What aws-auth says beside access entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Beside {
    /// Rows of roles that are ours, by whose they are: nothing but an entry shall let them in, whatever such a row says.
    pub ours: BTreeMap<String, Entry>,
    pub foreign: Vec<Other>,
}

/// A row is ours that names the role of one of `users`, who have it by us, or that is as we would have written it. The
/// sentence, if nobody can say who is in there: then EKS lets nobody in by it either.
pub fn beside(cluster: &Cluster, users: &BTreeSet<&str>, terms: &Terms) -> Result<Beside, String> {
    let mut beside = Beside::default();
    if cluster.mode != Mode::Both {
        return Ok(beside);
    }
    let made = users.iter().filter_map(|user| Some((made_for(user, terms)?.to_ascii_lowercase(), *user)));
    let made: BTreeMap<String, &str> = made.collect();
    for row in rows(cluster.aws_auth.map_roles.as_deref().unwrap_or_default())? {
        // Neither IAM nor the authenticator minds the case.
        let is = |made: &String| made.eq_ignore_ascii_case(&row.arn);
        let named = terms.rbac.user_of(&row.username).filter(|user| made_for(user, terms).as_ref().is_some_and(is));
        let user = made.get(&row.arn.to_ascii_lowercase()).copied().or(named);
        match user.and_then(|user| Some((made_for(user, terms)?, user.to_owned()))) {
            Some((arn, user)) => drop(beside.ours.insert(arn, entry_of(row, user))),
            None => beside.foreign.push(Other::of_row(row)),
        }
    }
    Ok(beside)
}

/// Users whose roles clusters may know because access made them.
pub fn users<'a>(directory: &'a Directory, terms: &Terms) -> BTreeSet<&'a str> {
    let known = |name: &str, user: &str| {
        let made = terms.cluster_role().and_then(|template| role_of(template, user).ok());
        made.is_some_and(|(made, _)| made == name)
    };
    let ours = directory.roles.iter().filter(|(name, role)| roles::is_ours(name, role, terms));
    let users = ours.filter_map(|(name, role)| Some((name, role.tags.get(MARK)?.as_str())));
    users.filter(|(name, user)| known(name, user)).map(|(_, user)| user).collect()
}

/// The row of a role, whoever wrote it.
pub fn row_of(cluster: &Cluster, role: &str) -> Option<Entry> {
    let rows = rows(cluster.aws_auth.map_roles.as_deref().unwrap_or_default()).ok()?;
    let Row { username, groups, .. } = rows.into_iter().find(|row| row.arn.eq_ignore_ascii_case(role))?;
    Some(Entry { username, groups, ..Entry::default() })
}

/// How the entry of a role is called on this cluster.
pub fn key(mode: Mode, arn: &str) -> String {
    match mode {
        Mode::AwsAuth => without_path(arn),
        Mode::Entries | Mode::Both | Mode::Impersonated => arn.to_owned(),
    }
}
