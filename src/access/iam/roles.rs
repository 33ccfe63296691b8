use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_iam::Client;
use aws_sdk_iam::types::Tag;
use serde_json::Value;

use super::read::{document, tags};
use super::{lasting, with_advice};
use crate::access::aws::fault;
use crate::access::change::{Change, Object};
use crate::access::seam::Fault;
use crate::access::world::{MARK, Role};

/// IAM allows 10 attached policies and 10 KiB of inline ones; whoever has more pages than this is not IAM.
const PAGES: usize = 50;

pub(super) async fn carry_out(client: &Client, name: &str, change: &Change) -> Result<(), Fault> {
    let hand = Hand { client, name };
    match (role_of(change.was.as_ref(), name)?, role_of(change.shall_be.as_ref(), name)?) {
        (None, Some(role)) => hand.make(role).await,
        (Some(was), Some(role)) if was.path == role.path => hand.alter_ours(was, role).await,
        // IAM moves no role.
        (Some(was), Some(role)) => {
            hand.remove(was).await?;
            hand.make(role).await
        }
        (Some(was), None) => hand.remove(was).await,
        (None, None) => Ok(()),
    }
}

fn role_of<'a>(object: Option<&'a Object>, name: &str) -> Result<Option<&'a Role>, Fault> {
    match object {
        None => Ok(None),
        Some(Object::IamRole(role)) => Ok(Some(role)),
        Some(_) => Err(lasting("NotARole", format!("the change of IAM role '{name}' is about something else"))),
    }
}

/// At work on one role.
struct Hand<'a> {
    client: &'a Client,
    name: &'a str,
}

impl Hand<'_> {
    async fn make(&self, role: &Role) -> Result<(), Fault> {
        let asked = self
            .client
            .create_role()
            .role_name(self.name)
            .path(&role.path)
            .assume_role_policy_document(role.trust.to_string())
            .set_permissions_boundary(role.boundary.clone())
            .set_max_session_duration((role.longest_session > 0).then_some(role.longest_session))
            .set_tags(Some(listed(&role.tags)?))
            .description("made and kept by stockade access");
        match asked.send().await {
            Ok(_) => {
                let bare = Role { inline: BTreeMap::new(), attached: BTreeSet::new(), ..role.clone() };
                self.alter(&bare, role).await
            }
            Err(error) if error.as_service_error().is_some_and(|e| e.is_entity_already_exists_exception()) => {
                self.go_on(role).await
            }
            Err(error) => Err(with_advice(fault(&error))),
        }
    }

    /// Made by a try whose answer was lost; or it is somebody else's.
    async fn go_on(&self, role: &Role) -> Result<(), Fault> {
        let Some(found) = self.find().await? else { return Err(self.gone()) };
        self.is_ours(&found, role)?;
        if found.path != role.path {
            let message =
                format!("IAM role '{}' is there under {}, not {}; delete it", self.name, found.path, role.path);
            return Err(lasting("EntityAlreadyExists", message));
        }
        self.alter(&Role { inline: self.inline().await?, attached: self.attached().await?, ..found }, role).await
    }

    async fn alter_ours(&self, was: &Role, role: &Role) -> Result<(), Fault> {
        let Some(found) = self.find().await? else { return Err(self.gone()) };
        self.is_ours(&found, role)?;
        self.alter(was, role).await
    }

    /// What is taken away comes before what is given, and who may use the role before what the role may.
    async fn alter(&self, was: &Role, role: &Role) -> Result<(), Fault> {
        if was.trust != role.trust {
            let asked = self.client.update_assume_role_policy().role_name(self.name);
            asked.policy_document(role.trust.to_string()).send().await.map_err(|error| fault(&error))?;
        }
        if let Some(boundary) = role.boundary.as_ref().filter(|_| was.boundary != role.boundary) {
            let asked = self.client.put_role_permissions_boundary().role_name(self.name);
            asked.permissions_boundary(boundary).send().await.map_err(|error| fault(&error))?;
        }
        self.strip(was, role).await?;
        self.equip(was, role).await?;
        if was.boundary.is_some() && role.boundary.is_none() {
            let asked = self.client.delete_role_permissions_boundary().role_name(self.name);
            asked.send().await.map_err(|error| fault(&error))?;
        }
        if was.longest_session != role.longest_session && role.longest_session > 0 {
            let asked = self.client.update_role().role_name(self.name);
            asked.max_session_duration(role.longest_session).send().await.map_err(|error| fault(&error))?;
        }
        self.tag(was, role).await
    }

    async fn strip(&self, was: &Role, role: &Role) -> Result<(), Fault> {
        for policy in was.inline.keys().filter(|policy| !role.inline.contains_key(*policy)) {
            let asked = self.client.delete_role_policy().role_name(self.name).policy_name(policy);
            match asked.send().await {
                Err(error) if error.as_service_error().is_some_and(|e| e.is_no_such_entity_exception()) => {}
                answer => drop(answer.map_err(|error| fault(&error))?),
            }
        }
        for arn in was.attached.difference(&role.attached) {
            match self.client.detach_role_policy().role_name(self.name).policy_arn(arn).send().await {
                Err(error) if error.as_service_error().is_some_and(|e| e.is_no_such_entity_exception()) => {}
                answer => drop(answer.map_err(|error| fault(&error))?),
            }
        }
        Ok(())
    }

    async fn equip(&self, was: &Role, role: &Role) -> Result<(), Fault> {
        for (policy, document) in
            role.inline.iter().filter(|(policy, document)| was.inline.get(*policy) != Some(document))
        {
            let asked = self.client.put_role_policy().role_name(self.name).policy_name(policy);
            let said = asked.policy_document(document.to_string()).send().await;
            said.map_err(|error| with_advice(fault(&error)))?;
        }
        for arn in role.attached.difference(&was.attached) {
            let said = self.client.attach_role_policy().role_name(self.name).policy_arn(arn).send().await;
            said.map_err(|error| with_advice(fault(&error)))?;
        }
        Ok(())
    }

    async fn tag(&self, was: &Role, role: &Role) -> Result<(), Fault> {
        let gone: Vec<String> = was.tags.keys().filter(|key| !role.tags.contains_key(*key)).cloned().collect();
        if !gone.is_empty() {
            let asked = self.client.untag_role().role_name(self.name).set_tag_keys(Some(gone));
            asked.send().await.map_err(|error| fault(&error))?;
        }
        let mut new = role.tags.clone();
        new.retain(|key, value| was.tags.get(key) != Some(value));
        if !new.is_empty() {
            let asked = self.client.tag_role().role_name(self.name).set_tags(Some(listed(&new)?));
            asked.send().await.map_err(|error| fault(&error))?;
        }
        Ok(())
    }

    /// Its policies first: IAM deletes no role that has some, and a role without any is worth nothing meanwhile.
    async fn remove(&self, was: &Role) -> Result<(), Fault> {
        let Some(found) = self.find().await? else { return Ok(()) };
        self.is_ours(&found, was)?;
        self.strip(was, &Role::default()).await?;
        match self.delete().await {
            // Somebody gave it more since it was read.
            Err(fault) if fault.code == "DeleteConflict" => {
                let now = Role { inline: self.inline().await?, attached: self.attached().await?, ..Role::default() };
                self.strip(&now, &Role::default()).await?;
                self.delete().await
            }
            answer => answer,
        }
    }

    async fn delete(&self) -> Result<(), Fault> {
        match self.client.delete_role().role_name(self.name).send().await {
            Err(error) if error.as_service_error().is_some_and(|e| e.is_no_such_entity_exception()) => Ok(()),
            answer => answer.map(drop).map_err(|error| fault(&error)),
        }
    }

    /// The role as it is now, but for its policies.
    async fn find(&self) -> Result<Option<Role>, Fault> {
        let said = match self.client.get_role().role_name(self.name).send().await {
            Err(error) if error.as_service_error().is_some_and(|e| e.is_no_such_entity_exception()) => return Ok(None),
            answer => answer.map_err(|error| fault(&error))?,
        };
        Ok(said.role.map(|role| Role {
            path: role.path,
            trust: document(&role.assume_role_policy_document.unwrap_or_default()),
            boundary: role.permissions_boundary.and_then(|boundary| boundary.permissions_boundary_arn),
            tags: tags(role.tags),
            longest_session: role.max_session_duration.unwrap_or_default(),
            ..Role::default()
        }))
    }

    /// Names alone: what they say is written anew.
    async fn inline(&self) -> Result<BTreeMap<String, Value>, Fault> {
        let mut pages = self.client.list_role_policies().role_name(self.name).into_paginator().send();
        let mut all = BTreeMap::new();
        for _ in 0..PAGES {
            let Some(page) = pages.next().await else { break };
            all.extend(page.map_err(|error| fault(&error))?.policy_names.into_iter().map(|name| (name, Value::Null)));
        }
        Ok(all)
    }

    async fn attached(&self) -> Result<BTreeSet<String>, Fault> {
        let mut pages = self.client.list_attached_role_policies().role_name(self.name).into_paginator().send();
        let mut all = BTreeSet::new();
        for _ in 0..PAGES {
            let Some(page) = pages.next().await else { break };
            let policies = page.map_err(|error| fault(&error))?.attached_policies.unwrap_or_default();
            all.extend(policies.into_iter().filter_map(|policy| policy.policy_arn));
        }
        Ok(all)
    }

    /// The mark may have been taken off since the directory was read: then somebody else answers for the role now.
    fn is_ours(&self, found: &Role, meant: &Role) -> Result<(), Fault> {
        match (found.tags.get(MARK), meant.tags.get(MARK)) {
            (Some(has), Some(wants)) if has == wants => Ok(()),
            _ => Err(lasting(
                "NotOurs",
                format!(
                    "IAM role '{}' is there without the tag {MARK}={}; it is left alone until it has it",
                    self.name,
                    meant.tags.get(MARK).map_or("", String::as_str)
                ),
            )),
        }
    }

    fn gone(&self) -> Fault {
        let message = format!("IAM role '{}' has gone while it was worked on", self.name);
        Fault { code: "NoSuchEntity".into(), message, transient: true }
    }
}

fn listed(tags: &BTreeMap<String, String>) -> Result<Vec<Tag>, Fault> {
    let tag = |(key, value): (&String, &String)| {
        Tag::builder().key(key).value(value).build().map_err(|error| lasting("InvalidTag", error.to_string()))
    };
    tags.iter().map(tag).collect()
}
