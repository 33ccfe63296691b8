use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_iam::Client;
use aws_sdk_iam::operation::get_account_authorization_details::GetAccountAuthorizationDetailsOutput as Details;
use aws_sdk_iam::primitives::DateTime;
use aws_sdk_iam::types::{EntityType, GroupDetail, PolicyDetail, RoleDetail, SummaryKeyType, Tag, UserDetail};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::lasting;
use crate::access::aws::fault;
use crate::access::seam::Fault;
use crate::access::world::{Directory, Group, Quotas, Role, User};

/// As many as IAM takes; it may answer with fewer.
const ITEMS: i32 = 1000;
/// Whoever has more pages than this is not IAM.
const PAGES: usize = 20_000;
/// What IAM means where it says nothing.
const SESSION: i32 = 3600;

/// All of it or nothing: what is missing here would be taken away from people.
pub(super) async fn directory(client: &Client, account: &str) -> Result<Directory, Fault> {
    let (details, sessions, quotas) = tokio::join!(details(client), sessions(client), quotas(client));
    let (Gathered { mut directory, memberships, accounts }, sessions) = (details?, sessions?);
    if let Some(other) = accounts.iter().find(|found| *found != account) {
        let message = format!(
            "the credentials are of account {other}, the configuration is of {account}; nothing is read or changed"
        );
        return Err(lasting("WrongAccount", message));
    }
    if directory.users.is_empty() && directory.roles.is_empty() {
        // Whoever asks is one of them.
        let message = "IAM says that there are no users and no roles; that is not believed".into();
        return Err(Fault { code: "EmptyDirectory".into(), message, transient: true });
    }
    for (user, group) in memberships {
        // A group that is gone since the page with its members.
        if let Some(group) = directory.groups.get_mut(&group) {
            group.members.insert(user);
        }
    }
    for (name, role) in &mut directory.roles {
        role.longest_session = sessions.get(name).copied().unwrap_or(SESSION);
    }
    Ok(Directory { account: account.to_owned(), quotas, ..directory })
}

#[derive(Default)]
struct Gathered {
    directory: Directory,
    /// User and group: groups may come on a later page than their members.
    memberships: Vec<(String, String)>,
    accounts: BTreeSet<String>,
}

async fn details(client: &Client) -> Result<Gathered, Fault> {
    let kinds = vec![EntityType::User, EntityType::Group, EntityType::Role];
    let asked = client.get_account_authorization_details().set_filter(Some(kinds)).max_items(ITEMS);
    let mut pages = asked.into_paginator().send();
    let mut all = Gathered::default();
    for _ in 0..PAGES {
        match pages.next().await {
            None => return Ok(all),
            Some(page) => all.take(page.map_err(|error| fault(&error))?)?,
        }
    }
    Err(incomplete("its pages have no end"))
}

/// How long the sessions of each role may be.
async fn sessions(client: &Client) -> Result<BTreeMap<String, i32>, Fault> {
    let mut pages = client.list_roles().max_items(ITEMS).into_paginator().send();
    let mut all = BTreeMap::new();
    for _ in 0..PAGES {
        let Some(page) = pages.next().await else { return Ok(all) };
        let page = page.map_err(|error| fault(&error))?;
        if page.is_truncated() && page.marker().is_none_or(str::is_empty) {
            return Err(incomplete("a page of roles does not say where the next one is"));
        }
        let sessions = page.roles.into_iter().filter_map(|role| Some((role.role_name, role.max_session_duration?)));
        all.extend(sessions);
    }
    Err(incomplete("its roles have no end"))
}

/// For a warning before IAM is full; access works without.
async fn quotas(client: &Client) -> Quotas {
    let said = match client.get_account_summary().send().await {
        Ok(said) => said.summary_map.unwrap_or_default(),
        Err(error) => {
            let refused = fault(&error);
            tracing::warn!(code = refused.code, "IAM does not tell its quotas: {}", refused.message);
            return Quotas::default();
        }
    };
    let of = |key| said.get(&key).and_then(|most| u32::try_from(*most).ok());
    Quotas {
        groups: of(SummaryKeyType::GroupsQuota),
        roles: of(SummaryKeyType::RolesQuota),
        groups_per_user: of(SummaryKeyType::GroupsPerUserQuota),
    }
}

impl Gathered {
    fn take(&mut self, page: Details) -> Result<(), Fault> {
        if page.is_truncated && page.marker.as_deref().is_none_or(str::is_empty) {
            return Err(incomplete("a page does not say where the next one is"));
        }
        for detail in page.user_detail_list.unwrap_or_default() {
            self.user(detail)?;
        }
        for detail in page.group_detail_list.unwrap_or_default() {
            self.group(detail)?;
        }
        for detail in page.role_detail_list.unwrap_or_default() {
            self.role(detail)?;
        }
        Ok(())
    }

    fn user(&mut self, detail: UserDetail) -> Result<(), Fault> {
        let name = self.named(detail.user_name, detail.arn)?;
        let groups = detail.group_list.unwrap_or_default();
        self.memberships.extend(groups.into_iter().map(|group| (name.clone(), group)));
        let user = User {
            path: detail.path.unwrap_or_default(),
            tags: tags(detail.tags),
            created: seconds(detail.create_date.as_ref()),
        };
        self.directory.users.insert(name, user);
        Ok(())
    }

    fn group(&mut self, detail: GroupDetail) -> Result<(), Fault> {
        let name = self.named(detail.group_name, detail.arn)?;
        let created = seconds(detail.create_date.as_ref());
        let group = Group { path: detail.path.unwrap_or_default(), members: BTreeSet::new(), created };
        self.directory.groups.insert(name, group);
        Ok(())
    }

    fn role(&mut self, detail: RoleDetail) -> Result<(), Fault> {
        let name = self.named(detail.role_name, detail.arn)?;
        let attached = detail.attached_managed_policies.unwrap_or_default();
        let role = Role {
            path: detail.path.unwrap_or_default(),
            trust: document(&detail.assume_role_policy_document.unwrap_or_default()),
            inline: inline(detail.role_policy_list.unwrap_or_default()),
            attached: attached.into_iter().filter_map(|policy| policy.policy_arn).collect(),
            boundary: detail.permissions_boundary.and_then(|boundary| boundary.permissions_boundary_arn),
            tags: tags(detail.tags),
            longest_session: SESSION,
            created: seconds(detail.create_date.as_ref()),
            last_used: detail.role_last_used.and_then(|used| used.last_used_date).map(|date| date.secs()),
        };
        self.directory.roles.insert(name, role);
        Ok(())
    }

    fn named(&mut self, name: Option<String>, arn: Option<String>) -> Result<String, Fault> {
        let account = arn.as_deref().and_then(|arn| arn.split(':').nth(4)).map(str::to_owned);
        self.accounts.extend(account);
        name.filter(|name| !name.is_empty()).ok_or_else(|| incomplete("something has no name"))
    }
}

fn inline(policies: Vec<PolicyDetail>) -> BTreeMap<String, Value> {
    let one = |policy: PolicyDetail| Some((policy.policy_name?, document(&policy.policy_document.unwrap_or_default())));
    policies.into_iter().filter_map(one).collect()
}

pub(super) fn tags(tags: Option<Vec<Tag>>) -> BTreeMap<String, String> {
    tags.unwrap_or_default().into_iter().map(|tag| (tag.key, tag.value)).collect()
}

/// A policy, which IAM percent-encodes. What is no JSON stays text, which equals no policy of ours.
pub(super) fn document(text: &str) -> Value {
    let plain = match text.trim_start().starts_with('{') {
        true => text.into(),
        false => percent_decode_str(text).decode_utf8_lossy(),
    };
    serde_json::from_str(&plain).unwrap_or_else(|_| Value::String(plain.into_owned()))
}

fn seconds(date: Option<&DateTime>) -> i64 {
    date.map_or(0, DateTime::secs)
}

fn incomplete(what: &str) -> Fault {
    let message = format!("IAM's answer is not whole: {what}; nothing is planned from a part");
    Fault { code: "IncompleteAnswer".into(), message, transient: true }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn policies_are_compared_by_what_they_say() {
        let policy = json!({ "Version": "2012-10-17", "Statement": [{ "Resource": "a+b%c d/ü" }] });
        let encoded =
            |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        for text in [policy.to_string(), serde_json::to_string_pretty(&policy).unwrap()] {
            assert_eq!(document(&encoded(&text)), policy);
            assert_eq!(document(&text), policy);
        }
        assert_eq!(document("%7Bnot json"), Value::String("{not json".into()));
        assert_eq!(document(""), Value::String(String::new()));
        let deep = format!("{}{}", "{\"a\":".repeat(5000), "}".repeat(5000));
        assert!(document(&encoded(&deep)).is_string());
    }

    #[test]
    fn an_answer_that_is_not_whole_is_none() {
        let cut = Details::builder().is_truncated(true).build();
        assert_eq!(Gathered::default().take(cut).unwrap_err().code, "IncompleteAnswer");
        let unnamed = Details::builder().user_detail_list(UserDetail::builder().build()).build();
        assert_eq!(Gathered::default().take(unnamed).unwrap_err().code, "IncompleteAnswer");
    }

    proptest::proptest! {
        #[test]
        fn any_document_is_read(text in ".*") {
            document(&text);
        }
    }
}
