//! Whom EKS lets in and as whom: access entries, and the rows of aws-auth.

use std::collections::{BTreeMap, BTreeSet};

use crate::access::rows::{Row, rows, user_rows, without_path};
use crate::access::world::{Cluster, Directory, Entry, MARK, Mode, Role};

/// One principal of AWS on one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    pub principal: String,
    /// What says so: `access entry`, `row of aws-auth`.
    pub by: &'static str,
    /// Who it is to the API server; may have `{{SessionName}}` in it.
    pub name: String,
    pub groups: BTreeSet<String>,
    /// EKS's own access policies, which RBAC knows nothing of.
    pub policies: BTreeSet<String>,
    /// Whose it is, as far as a mark or IAM tells it.
    pub user: Option<String>,
    /// Seconds; zero: not known.
    pub created: i64,
}

impl Mapped {
    pub fn object(&self) -> String {
        format!("{} of {}", self.by, self.principal)
    }

    /// IAM keeps a role's name unique whatever its path.
    pub fn role<'a>(&self, directory: &'a Directory) -> Option<&'a Role> {
        directory.roles.get(self.principal.rsplit('/').next()?)
    }
}

/// Everybody whom EKS lets in; empty for a cluster that EKS is not asked about.
pub fn mapped(cluster: &Cluster, directory: &Directory) -> Vec<Mapped> {
    let entry = |(principal, entry): (&String, &Entry)| Mapped {
        principal: principal.clone(),
        by: "access entry",
        name: entry.username.clone(),
        groups: entry.groups.clone(),
        policies: entry.policies.clone(),
        user: entry.tags.get(MARK).cloned().or_else(|| owner(principal, directory)),
        created: entry.created,
    };
    match cluster.mode {
        Mode::Impersonated => Vec::new(),
        Mode::Entries => cluster.entries.iter().map(entry).collect(),
        Mode::AwsAuth => in_rows(cluster, directory),
        Mode::Both => {
            let spelled = |arn: &String| without_path(arn).to_ascii_lowercase();
            let first: BTreeSet<String> = cluster.entries.keys().map(spelled).collect();
            let rest = in_rows(cluster, directory).into_iter().filter(|one| !first.contains(&spelled(&one.principal)));
            cluster.entries.iter().map(entry).chain(rest).collect()
        }
    }
}

/// Whose a principal is that a hand let in: a user of IAM, or one of the roles that access made.
fn owner(principal: &str, directory: &Directory) -> Option<String> {
    if principal.split(':').nth(4) != Some(directory.account.as_str()) {
        return None;
    }
    let name = principal.rsplit('/').next()?;
    if principal.contains(":user/") {
        return directory.users.contains_key(name).then(|| name.to_owned());
    }
    directory.roles.get(name)?.tags.get(MARK).cloned()
}

/// aws-auth has no tags: a row is somebody's whose role or user of IAM it names.
fn in_rows(cluster: &Cluster, directory: &Directory) -> Vec<Mapped> {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    // What cannot be read is told by the plan; EKS then lets nobody in by it either.
    let roles = rows(&text(&cluster.aws_auth.map_roles)).unwrap_or_default();
    let users = user_rows(&text(&cluster.aws_auth.map_users)).unwrap_or_default();
    let mapped = |row: Row| Mapped {
        user: owner(&row.arn, directory),
        principal: row.arn,
        by: "row of aws-auth",
        name: row.username,
        groups: row.groups,
        policies: BTreeSet::new(),
        created: 0,
    };
    roles.into_iter().chain(users).map(mapped).collect()
}

/// Names on a cluster, and whose they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct People {
    by_name: BTreeMap<String, String>,
    by_group: BTreeMap<String, BTreeSet<String>>,
    before: String,
    behind: String,
}

impl People {
    /// `template` has `{user}` once: who users are on clusters of EKS.
    pub fn of(cluster: &Cluster, mapped: &[Mapped], template: &str) -> Self {
        let template = if cluster.mode == Mode::Impersonated { "{user}" } else { template };
        let (before, behind) = template.split_once("{user}").unwrap_or((template, ""));
        let mut people = Self { before: before.into(), behind: behind.into(), ..Self::default() };
        for one in mapped {
            let Some(user) = &one.user else { continue };
            people.by_name.insert(one.name.clone(), user.clone());
            for group in &one.groups {
                people.by_group.entry(group.clone()).or_default().insert(user.clone());
            }
        }
        people
    }

    /// The name of a user there.
    pub fn name(&self, user: &str) -> String {
        format!("{}{user}{}", self.before, self.behind)
    }

    /// Whose name it is: of whom the configuration would map to it, whoever else has it, else of whom EKS maps to it. With
    /// the bare template any name would be somebody's, so there the user must be known.
    pub fn user(&self, name: &str, known: impl Fn(&str) -> bool) -> Option<String> {
        if name.starts_with("system:") {
            return None;
        }
        let spelled = name.strip_prefix(&self.before).and_then(|rest| rest.strip_suffix(&self.behind));
        let bare = self.before.is_empty() && self.behind.is_empty();
        let spelled = spelled.filter(|user| !user.is_empty() && (!bare || known(user))).map(str::to_owned);
        spelled.or_else(|| self.by_name.get(name).cloned())
    }

    /// Users who are in a group of Kubernetes.
    pub fn members(&self, group: &str) -> impl Iterator<Item = &str> {
        self.by_group.get(group).into_iter().flatten().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::report::tests::hyades;
    use crate::access::world::AwsAuth;

    #[test]
    fn rows_of_aws_auth_are_those_of_our_roles() {
        let mut cluster = hyades();
        cluster.mode = Mode::AwsAuth;
        let text = "- rolearn: arn:aws:iam::111122223333:role/alice\n  username: stockade:alice\n  groups: [one, two]\n\
                    - rolearn: arn:aws:iam::111122223333:role/node\n  username: system:node:{{EC2PrivateDNSName}}\n";
        cluster.aws_auth = AwsAuth { map_roles: Some(text.into()), ..AwsAuth::default() };
        let mut directory = Directory { account: "111122223333".into(), ..Directory::default() };
        let role = Role { tags: [(MARK.to_owned(), "alice".to_owned())].into(), ..Role::default() };
        directory.roles.insert("alice".into(), role);
        let rows = mapped(&cluster, &directory);
        assert_eq!(rows.len(), 2);
        let people = People::of(&cluster, &rows, "stockade:{user}");
        assert_eq!(people.members("two").collect::<Vec<_>>(), ["alice"]);
        assert_eq!(people.user("stockade:alice", |_| false).as_deref(), Some("alice"));
        assert_eq!(people.user("stockade:bob", |_| false).as_deref(), Some("bob"));
        assert_eq!(people.user("bob", |_| true), None);
        assert_eq!(people.name("bob"), "stockade:bob");
        cluster.aws_auth.map_roles = Some("{not: [a list".into());
        assert_eq!(mapped(&cluster, &directory), []);
    }

    #[test]
    fn bare_names_are_users_who_are_known() {
        let mut cluster = hyades();
        cluster.mode = Mode::Impersonated;
        let people = People::of(&cluster, &[], "stockade:{user}");
        assert_eq!(people.user("alice", |user| user == "alice").as_deref(), Some("alice"));
        assert_eq!(people.user("ci-robot", |user| user == "alice"), None);
        assert_eq!(people.user("system:admin", |_| true), None);
        assert_eq!(people.name("alice"), "alice");
    }
}
