use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use aws_sdk_eks::Client;
use aws_sdk_eks::operation::create_access_entry::CreateAccessEntryError;
use tokio::time::sleep;

use crate::access::aws::fault;
use crate::access::seam::Fault;
use crate::access::world::{Entry, MARK};
use crate::warden::credentials::jittered;

/// The only kind that EKS's own policies can be given to, and people's.
const STANDARD: &str = "STANDARD";
/// EKS allows twenty policies an entry; whoever has more pages than this is not EKS.
const PAGES: usize = 50;
/// A role that was just made is not everywhere at once; the next cycle goes on after these.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// An entry as EKS has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub entry: Entry,
    /// Of the entry itself: what tags hang on.
    arn: String,
}

/// Where one entry is worked on.
pub(super) struct Desk<'a> {
    pub client: &'a Client,
    pub cluster: &'a str,
    pub principal: &'a str,
}

impl Known {
    pub fn with(mut self, policies: BTreeSet<String>) -> Self {
        self.entry.policies = policies;
        self
    }
}

impl Desk<'_> {
    /// `None`: there is none.
    pub async fn find(&self) -> Result<Option<Known>, Fault> {
        let Some(known) = self.describe().await? else { return Ok(None) };
        let policies = if known.entry.kind == STANDARD { self.policies().await? } else { BTreeSet::new() };
        Ok(Some(known.with(policies)))
    }

    /// Without its policies.
    pub async fn describe(&self) -> Result<Option<Known>, Fault> {
        let asked = self.client.describe_access_entry().cluster_name(self.cluster).principal_arn(self.principal);
        let said = match asked.send().await {
            Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_not_found_exception()) => {
                return Ok(None);
            }
            answer => answer.map_err(|error| fault(&error))?,
        };
        let Some(found) = said.access_entry else { return Ok(None) };
        let entry = Entry {
            username: found.username.unwrap_or_default(),
            groups: found.kubernetes_groups.unwrap_or_default().into_iter().collect(),
            tags: found.tags.unwrap_or_default().into_iter().collect(),
            kind: found.r#type.unwrap_or_default(),
            created: found.created_at.map_or(0, |date| date.secs()),
            policies: BTreeSet::new(),
        };
        Ok(Some(Known { entry, arn: found.access_entry_arn.unwrap_or_default() }))
    }

    async fn policies(&self) -> Result<BTreeSet<String>, Fault> {
        let asked = self.client.list_associated_access_policies().cluster_name(self.cluster);
        let mut pages = asked.principal_arn(self.principal).into_paginator().send();
        let mut all = BTreeSet::new();
        for _ in 0..PAGES {
            match pages.next().await {
                None => break,
                Some(Err(error)) if error.as_service_error().is_some_and(|e| e.is_resource_not_found_exception()) => {
                    break;
                }
                Some(page) => {
                    let policies = page.map_err(|error| fault(&error))?.associated_access_policies.unwrap_or_default();
                    all.extend(policies.into_iter().filter_map(|policy| policy.policy_arn));
                }
            }
        }
        Ok(all)
    }

    pub async fn make(&self, entry: &Entry) -> Result<(), Fault> {
        for pause in PAUSES.into_iter().map(Some).chain([None]) {
            let asked = self
                .client
                .create_access_entry()
                .cluster_name(self.cluster)
                .principal_arn(self.principal)
                .username(&entry.username)
                .set_kubernetes_groups(Some(entry.groups.iter().cloned().collect()))
                .set_tags(Some(entry.tags.clone().into_iter().collect()))
                .r#type(STANDARD);
            let Err(error) = asked.send().await else { return Ok(()) };
            match (error.as_service_error(), pause) {
                (Some(CreateAccessEntryError::ResourceInUseException(_)), _) => return self.go_on(entry).await,
                (Some(CreateAccessEntryError::ResourceLimitExceededException(_)), _) => return Err(self.full()),
                (Some(CreateAccessEntryError::InvalidParameterException(e)), pause)
                    if e.message().is_some_and(|message| message.contains("principal")) =>
                {
                    let Some(pause) = pause else { return Err(Fault { transient: true, ..fault(&error) }) };
                    sleep(jittered(pause)).await;
                }
                _ => return Err(fault(&error)),
            }
        }
        Ok(())
    }

    /// Made by a try whose answer was lost; or it is somebody else's.
    async fn go_on(&self, entry: &Entry) -> Result<(), Fault> {
        match self.find().await? {
            Some(found) if found.entry.kind == entry.kind => self.adapt(&found, &found.entry, entry).await,
            // Gone or of another type: the next plan sees which.
            _ => Err(self.changed()),
        }
    }

    pub async fn alter(&self, was: &Entry, entry: &Entry) -> Result<(), Fault> {
        match self.find().await? {
            Some(found) if found.entry.kind == entry.kind => self.adapt(&found, was, entry).await,
            // EKS changes no type.
            Some(found) => {
                self.is_ours(&found.entry, entry)?;
                self.delete().await?;
                self.make(entry).await
            }
            None => self.make(entry).await,
        }
    }

    /// What is taken away comes before what is given.
    async fn adapt(&self, found: &Known, was: &Entry, entry: &Entry) -> Result<(), Fault> {
        self.is_ours(&found.entry, entry)?;
        for policy in found.entry.policies.difference(&entry.policies) {
            let asked = self.client.disassociate_access_policy().cluster_name(self.cluster);
            match asked.principal_arn(self.principal).policy_arn(policy).send().await {
                Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_not_found_exception()) => {}
                answer => drop(answer.map_err(|error| fault(&error))?),
            }
        }
        if (&found.entry.username, &found.entry.groups) != (&entry.username, &entry.groups) {
            let asked = self.client.update_access_entry().cluster_name(self.cluster).principal_arn(self.principal);
            let groups = entry.groups.iter().cloned().collect();
            let said = asked.username(&entry.username).set_kubernetes_groups(Some(groups)).send().await;
            said.map_err(|error| fault(&error))?;
        }
        self.tag(found, was, entry).await
    }

    async fn tag(&self, found: &Known, was: &Entry, entry: &Entry) -> Result<(), Fault> {
        let gone: Vec<String> = was.tags.keys().filter(|key| !entry.tags.contains_key(*key)).cloned().collect();
        if !gone.is_empty() {
            let asked = self.client.untag_resource().resource_arn(&found.arn).set_tag_keys(Some(gone));
            asked.send().await.map_err(|error| fault(&error))?;
        }
        let new = entry.tags.iter().filter(|(key, value)| found.entry.tags.get(*key) != Some(value));
        let new: HashMap<String, String> = new.map(|(key, value)| (key.clone(), value.clone())).collect();
        if !new.is_empty() {
            let asked = self.client.tag_resource().resource_arn(&found.arn).set_tags(Some(new));
            asked.send().await.map_err(|error| fault(&error))?;
        }
        Ok(())
    }

    pub async fn remove(&self, was: &Entry) -> Result<(), Fault> {
        let Some(found) = self.find().await? else { return Ok(()) };
        self.is_ours(&found.entry, was)?;
        self.delete().await
    }

    async fn delete(&self) -> Result<(), Fault> {
        let asked = self.client.delete_access_entry().cluster_name(self.cluster).principal_arn(self.principal);
        match asked.send().await {
            Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_not_found_exception()) => Ok(()),
            answer => answer.map(drop).map_err(|error| fault(&error)),
        }
    }

    /// What was read may be some cycles old: the mark may have been taken off, or the entry may be another by now.
    fn is_ours(&self, found: &Entry, meant: &Entry) -> Result<(), Fault> {
        match (found.tags.get(MARK), meant.tags.get(MARK)) {
            (Some(has), Some(wants)) if has == wants => Ok(()),
            _ => Err(Fault {
                code: "NotOurs".into(),
                message: format!(
                    "cluster '{}' has an access entry of {} without the tag {MARK}={}; it is left alone until it has it",
                    self.cluster,
                    self.principal,
                    meant.tags.get(MARK).map_or("", String::as_str)
                ),
                transient: false,
            }),
        }
    }

    fn full(&self) -> Fault {
        Fault {
            code: "ResourceLimitExceededException".into(),
            message: format!(
                "cluster '{}' has as many access entries as EKS allows: {} is not let in until some are removed or AWS \
                 raises the quota",
                self.cluster, self.principal
            ),
            transient: false,
        }
    }

    fn changed(&self) -> Fault {
        let message = format!("the access entry of {} was changed while it was worked on", self.principal);
        Fault { code: "ResourceNotFoundException".into(), message, transient: true }
    }
}
