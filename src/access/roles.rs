//! The roles of each user in IAM: the one that a jail gets, and the one that clusters know.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::membership::Membership;
use super::names::role_of;
use super::plan::Problem;
use super::world::{Directory, MARK, Role};

use crate::config::{KubeRole, RoleTemplate, Terms};

/// The name of the one inline policy of the role that clusters know.
pub const INLINE: &str = "stockade";
const DEFAULT_SESSION: u64 = 3600;

/// What becomes of users in IAM.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roles {
    /// What should be there, by name.
    pub wanted: BTreeMap<String, Role>,
    /// The ARN of each user whom EKS may let in; nobody else is bound there.
    pub arns: BTreeMap<String, String>,
    pub problems: Vec<Problem>,
}

/// One role of one user.
struct Claim<'t> {
    user: &'t str,
    name: String,
    arn: String,
    /// Clusters know it.
    to_clusters: bool,
    /// And it is the user's in a jail.
    in_jails: bool,
    template: &'t RoleTemplate,
    /// Of somebody who gets nothing now: it is kept, not made.
    kept: bool,
}

pub fn roles(directory: &Directory, membership: &Membership, terms: &Terms) -> Roles {
    let mut roles = Roles::default();
    let live: BTreeSet<&str> = membership.live.values().flatten().map(String::as_str).collect();
    let mut claims = Vec::new();
    for user in &live {
        roles.claim(user, false, terms, &mut claims);
    }
    for user in membership.waiting.iter().map(String::as_str).filter(|user| !live.contains(user)) {
        // What is wrong with the name of somebody who gets nothing is no news.
        Roles::default().claim(user, true, terms, &mut claims);
    }
    let claimed: BTreeSet<(&str, &str)> = claims.iter().map(|claim| (claim.name.as_str(), claim.user)).collect();
    // What is removed frees its name, and its place in the quota.
    let stays = |(name, role): &(&String, &Role)| {
        let user = role.tags.get(MARK).map(String::as_str).unwrap_or_default();
        claimed.contains(&(name.as_str(), user)) || !is_ours(name, role, terms)
    };
    let names = names(directory.roles.iter().filter(stays).map(|(name, _)| name));
    roles.refuse_twins(&mut claims, directory, &names);
    let most = directory.quotas.roles.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
    let mut room = most.map(|most| most.saturating_sub(names.len()));
    for claim in &claims {
        roles.settle(claim, directory, &names, &mut room, terms);
    }
    roles
}

/// IAM takes names that differ in case alone for one.
fn names<'n>(all: impl Iterator<Item = &'n String>) -> BTreeMap<String, String> {
    all.map(|name| (name.to_ascii_lowercase(), name.clone())).collect()
}

fn templates(terms: &Terms) -> Vec<(&RoleTemplate, bool, bool)> {
    let aws = terms.aws.iter().map(|aws| &aws.role);
    match &terms.kube.role {
        KubeRole::None => aws.map(|role| (role, false, true)).collect(),
        KubeRole::Same => aws.map(|role| (role, true, true)).collect(),
        KubeRole::Separate(second) => aws.map(|role| (role, false, true)).chain([(second, true, false)]).collect(),
    }
}

/// Whether a role of this name and path is what the configuration makes for the user on its mark.
pub fn is_ours(name: &str, role: &Role, terms: &Terms) -> bool {
    let Some(user) = role.tags.get(MARK) else { return false };
    templates(terms)
        .into_iter()
        .any(|(template, ..)| role_of(template, user).is_ok_and(|(made, arn)| made == name && path(&arn) == role.path))
}

/// `/bastion/` of `arn:aws:iam::123456789012:role/bastion/alice`.
fn path(arn: &str) -> String {
    let resource = arn.split_once(":role/").map(|(_, resource)| resource).unwrap_or_default();
    match resource.rsplit_once('/') {
        Some((path, _)) => format!("/{path}/"),
        None => "/".to_owned(),
    }
}

impl Roles {
    fn claim<'t>(&mut self, user: &'t str, kept: bool, terms: &'t Terms, claims: &mut Vec<Claim<'t>>) {
        for (template, to_clusters, in_jails) in templates(terms) {
            match role_of(template, user) {
                Ok((name, arn)) => claims.push(Claim { user, name, arn, to_clusters, in_jails, template, kept }),
                Err(why) => self.problem(user, format!("{why}: this user gets no role")),
            }
        }
    }

    /// One name for the roles of two users: whose it is already keeps it, otherwise nobody gets it.
    fn refuse_twins(&mut self, claims: &mut Vec<Claim<'_>>, directory: &Directory, names: &BTreeMap<String, String>) {
        let mut by_name: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for claim in claims.iter() {
            by_name.entry(claim.name.to_ascii_lowercase()).or_default().push(claim.user);
        }
        by_name.retain(|_, users| users.len() > 1);
        let owner = |name: &String| directory.roles.get(names.get(name)?)?.tags.get(MARK);
        for (name, users) in &by_name {
            let what =
                format!("the roles of '{}' would both be called '{name}': rename one user", users.join("' and '"));
            for user in users.iter().filter(|user| owner(name).is_none_or(|owner| owner != *user)) {
                self.problem(user, what.clone());
            }
        }
        claims.retain(|claim| {
            let name = claim.name.to_ascii_lowercase();
            !by_name.contains_key(&name) || owner(&name).is_some_and(|owner| owner == claim.user)
        });
    }

    fn settle(
        &mut self,
        claim: &Claim<'_>,
        directory: &Directory,
        names: &BTreeMap<String, String>,
        room: &mut Option<usize>,
        terms: &Terms,
    ) {
        let held = names.get(&claim.name.to_ascii_lowercase());
        let role = held.and_then(|name| directory.roles.get(name).map(|role| (name, role)));
        if let Some(why) = role.and_then(|(name, role)| in_the_way(claim, name, role)) {
            return self.problem(&claim.name, why);
        }
        if role.is_none() {
            match room {
                _ if claim.kept => return,
                Some(0) => {
                    let most = directory.quotas.roles.unwrap_or_default();
                    return self.problem(&claim.name, format!("not made: the account has its {most} roles already"));
                }
                Some(left) => *left -= 1,
                None => {}
            }
        }
        self.wanted.insert(claim.name.clone(), shall_be(claim, role.map(|(_, role)| role), terms));
        if claim.to_clusters && !claim.kept {
            self.arns.insert(claim.user.to_owned(), claim.arn.clone());
        }
    }

    fn problem(&mut self, subject: &str, what: String) {
        self.problems.push(Problem { cluster: None, subject: subject.escape_debug().to_string(), what });
    }
}

/// Why the role of this name is not the one that is claimed.
fn in_the_way(claim: &Claim<'_>, name: &str, role: &Role) -> Option<String> {
    let user = claim.user;
    let whose = role.tags.get(MARK);
    if name != claim.name {
        return Some(format!("'{name}' is there, and IAM takes the two names for one: left, rename it"));
    }
    match whose {
        None => Some(format!(
            "a role of this name was not made by access: left, and {user} gets nothing by it; tag it {MARK}={user} to \
             hand it over"
        )),
        Some(other) if other != user => Some(format!("it carries the mark of '{}': left", other.escape_debug())),
        Some(_) if role.path != path(&claim.arn) => Some(format!(
            "it is below {}, not {}, and IAM never moves one: left, and {user} gets nothing by it; remove it by hand",
            role.path,
            path(&claim.arn)
        )),
        Some(_) => None,
    }
}

fn shall_be(claim: &Claim<'_>, held: Option<&Role>, terms: &Terms) -> Role {
    let mut role = held.cloned().unwrap_or_default();
    role.path = path(&claim.arn);
    let wanted = trust(&terms.rbac.bastion, claim.user);
    if !same_policy(&role.trust, &wanted) {
        role.trust = wanted;
    }
    // What a user may do in AWS is for admins to attach; the role of clusters is for nothing else.
    if !claim.in_jails {
        let policy = &terms.rbac.role_policy;
        role.attached.clear();
        role.inline.retain(|name, held| name == INLINE && same_policy(held, policy));
        role.inline.entry(INLINE.to_owned()).or_insert_with(|| policy.clone());
    }
    if terms.rbac.boundary.is_some() {
        role.boundary.clone_from(&terms.rbac.boundary);
    }
    role.tags.extend(terms.rbac.role_tags.clone());
    role.tags.insert(MARK.to_owned(), claim.user.to_owned());
    let session = terms.aws.as_ref().filter(|aws| aws.role == *claim.template).map(|aws| aws.duration.as_secs());
    let session = session.unwrap_or(DEFAULT_SESSION).max(DEFAULT_SESSION);
    role.longest_session = i32::try_from(session).unwrap_or(3600);
    role
}

/// Only the bastion, only as this user, and only within a session that it has recorded.
fn trust(bastion: &[String], user: &str) -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": { "AWS": bastion },
            "Action": ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"],
            "Condition": {
                "StringEquals": { "sts:SourceIdentity": user },
                "Null": { "aws:RequestTag/stockade:session": "false" },
            },
        }],
    })
}

/// IAM spells a list of one as it likes, and the order in one means nothing.
pub fn same_policy(one: &Value, other: &Value) -> bool {
    plain(one) == plain(other)
}

fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(plain).collect();
            items.sort_by_cached_key(Value::to_string);
            items.dedup();
            match items.as_slice() {
                [one] => one.clone(),
                _ => Value::Array(items),
            }
        }
        other => other.clone(),
    }
}
