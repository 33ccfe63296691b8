//! Who is in which group, whether that counts or not.

use std::collections::BTreeSet;

use crate::access::membership::{is_ours, membership};
use crate::access::names::Grant;
use crate::access::world::{Members, Seen, World};
use crate::config::Terms;
use crate::config::rbac::MembersFrom;

/// Everything that the source of memberships says, of clusters and namespaces that are not there as well.
pub fn said(world: &World, terms: &Terms) -> Members {
    let mut said = Members::new();
    let mut add = |name: &str, users: BTreeSet<String>| {
        if let Ok(grant) = name.parse::<Grant>()
            && !users.is_empty()
        {
            said.entry(grant).or_default().extend(users);
        }
    };
    match &terms.rbac.members {
        MembersFrom::Iam => {
            let ours = world.directory.groups.iter().filter(|(_, group)| is_ours(group, terms));
            ours.for_each(|(name, group)| add(name, group.members.clone()));
        }
        MembersFrom::Tag(key) => {
            for (user, about) in &world.directory.users {
                let value = about.tags.get(key).map(String::as_str).unwrap_or_default();
                value.split([' ', '+']).for_each(|name| add(name, [user.clone()].into()));
            }
        }
        MembersFrom::File => {
            for (name, users) in &terms.groups {
                add(name, users.iter().map(|user| user.as_str().to_owned()).collect());
            }
        }
    }
    said
}

/// Who should have what: what counts, and of clusters that cannot be read what is said.
pub fn members(world: &World, terms: &Terms) -> Members {
    let mut members = membership(world, terms).live;
    let away = |grant: &Grant| matches!(world.clusters.get(&grant.cluster), Some(Seen::Away(_)));
    members.extend(said(world, terms).into_iter().filter(|(grant, _)| away(grant)));
    members
}
