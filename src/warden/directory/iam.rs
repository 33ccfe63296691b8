use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use aws_sdk_iam::Client;
use aws_sdk_iam::types::{EncodingType, StatusType};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::task::{JoinError, JoinSet};

use super::{Keys, Origin, Record};
use crate::config::rbac::{MembersFrom, Rbac};
use crate::identity::Principal;
use crate::policy::kube::{counts, is_of_access};
use crate::privsep::message::Refusal;
use crate::warden::authority::refusal_of;

/// IAM allows five keys and ten groups for each user unless asked for more; whoever answers with more pages than this
/// is not IAM.
const PAGES: usize = 50;
const KEYS: usize = 100;

/// Who knows people and can be asked over a network: IAM, or a test's script. Nobody unknown: an empty record.
pub trait People: Send + Sync + 'static {
    fn find(&self, principal: &Principal) -> impl Future<Output = Result<Record, Refusal>> + Send;
}

/// Users of the bastion's own AWS account.
#[derive(Clone, Debug)]
pub struct Iam {
    client: Client,
    rbac: Arc<RwLock<Option<Rbac>>>,
}

impl Iam {
    pub fn new(client: Client) -> Self {
        Self { client, rbac: Arc::default() }
    }

    /// From now on groups that are access to clusters count where `[rbac]` says that they are: below its path, or in a tag
    /// of users. The names in a tag are no other groups: whoever may tag users must not put them into any.
    pub fn heed(&self, rbac: Option<Rbac>) {
        *self.rbac.write().unwrap_or_else(PoisonError::into_inner) = rbac;
    }

    fn rbac(&self) -> Option<Rbac> {
        self.rbac.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn tagged(&self, user: &Principal) -> Result<BTreeSet<String>, Refusal> {
        let Some(MembersFrom::Tag(tag)) = self.rbac().map(|rbac| rbac.members) else { return Ok(BTreeSet::new()) };
        let said = match self.client.get_user().user_name(user.as_str()).send().await {
            Err(error) if error.as_service_error().is_some_and(|e| e.is_no_such_entity_exception()) => {
                return Ok(BTreeSet::new());
            }
            answer => answer.map_err(|error| refusal_of(&error))?,
        };
        let own = said.user().filter(|known| known.user_name() == user.as_str());
        let tags = own.map(aws_sdk_iam::types::User::tags).unwrap_or_default().iter();
        Ok(tags.filter(|known| known.key() == tag).flat_map(|known| access(known.value())).collect())
    }

    async fn keys(&self, user: &Principal) -> Result<Vec<Keys>, Refusal> {
        let mut asked = JoinSet::new();
        for id in self.active_keys(user).await? {
            let (iam, user) = (self.clone(), user.clone());
            asked.spawn(async move { iam.key(&user, id).await });
        }
        let mut keys = Vec::with_capacity(asked.len());
        while let Some(said) = asked.join_next().await {
            keys.extend(said.map_err(|error| lost(&error))??);
        }
        keys.sort_by(|a: &Keys, b| a.text.cmp(&b.text));
        Ok(keys)
    }

    async fn active_keys(&self, user: &Principal) -> Result<Vec<String>, Refusal> {
        let mut pages = self.client.list_ssh_public_keys().user_name(user.as_str()).into_paginator().send();
        let mut ids = Vec::new();
        for _ in 0..PAGES {
            let page = match pages.next().await {
                None => break,
                Some(Err(error)) if error.as_service_error().is_some_and(|e| e.is_no_such_entity_exception()) => break,
                Some(answer) => answer.map_err(|error| refusal_of(&error))?,
            };
            // IAM finds users whatever the case of their letters; a principal is one spelling only.
            let own = page.ssh_public_keys().iter().filter(|key| key.user_name() == user.as_str());
            ids.extend(
                own.filter(|key| *key.status() == StatusType::Active).map(|key| key.ssh_public_key_id().to_owned()),
            );
        }
        ids.truncate(KEYS);
        Ok(ids)
    }

    async fn key(&self, user: &Principal, id: String) -> Result<Option<Keys>, Refusal> {
        let asked = self.client.get_ssh_public_key().user_name(user.as_str()).ssh_public_key_id(&id);
        let said = match asked.encoding(EncodingType::Ssh).send().await {
            // Deleted since it was listed.
            Err(error) if error.as_service_error().is_some_and(|e| e.is_no_such_entity_exception()) => return Ok(None),
            answer => answer.map_err(|error| refusal_of(&error))?,
        };
        let key =
            said.ssh_public_key().filter(|key| *key.status() == StatusType::Active && key.user_name() == user.as_str());
        let line = key.and_then(|key| bare_line(key.ssh_public_key_body()));
        if line.is_none() {
            tracing::warn!(principal = %user, key = id, "a key in IAM is not one line of an SSH public key; it is not used");
        }
        Ok(line.map(|text| Keys { origin: Origin::Iam(id), text }))
    }

    async fn groups(&self, user: &Principal) -> Result<BTreeSet<String>, Refusal> {
        let mut pages = self.client.list_groups_for_user().user_name(user.as_str()).into_paginator().send();
        let (mut groups, rbac) = (BTreeSet::new(), self.rbac());
        for _ in 0..PAGES {
            let page = match pages.next().await {
                None => break,
                Some(Err(error)) if error.as_service_error().is_some_and(|e| e.is_no_such_entity_exception()) => break,
                Some(answer) => answer.map_err(|error| refusal_of(&error))?,
            };
            let counted = page.groups().iter().filter(|group| counts(rbac.as_ref(), group.group_name(), group.path()));
            groups.extend(counted.map(|group| group.group_name().to_owned()));
        }
        Ok(groups)
    }
}

impl People for Iam {
    async fn find(&self, principal: &Principal) -> Result<Record, Refusal> {
        let (keys, groups, tagged) = tokio::join!(self.keys(principal), self.groups(principal), self.tagged(principal));
        let groups = groups?.into_iter().chain(tagged?).collect();
        Ok(Record { keys: keys?, groups, ..Record::default() })
    }
}

/// The names in a tag that are access to clusters. IAM allows no comma there.
fn access(value: &str) -> impl Iterator<Item = String> {
    let names = value.split([' ', '+']).filter(|name| is_of_access(name));
    names.map(str::to_owned)
}

fn lost(error: &JoinError) -> Refusal {
    Refusal { code: "InternalFailure".into(), message: format!("a request was lost: {error}"), transient: true }
}

/// Type and key, and nothing else: what was uploaded to IAM must not bring options or a second line with it.
fn bare_line(body: &str) -> Option<String> {
    let mut words = body.trim_end_matches(['\r', '\n']).split([' ', '\t']).filter(|word| !word.is_empty());
    let (kind, key) = (words.next()?, words.next()?);
    let blob = STANDARD.decode(key).ok()?;
    let (length, rest) = blob.split_first_chunk::<4>()?;
    let named = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    (!body.trim_end().contains('\n') && named == kind.as_bytes()).then(|| format!("{kind} {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: &str) -> String {
        let mut blob = u32::try_from(kind.len()).unwrap().to_be_bytes().to_vec();
        blob.extend_from_slice(kind.as_bytes());
        blob.extend_from_slice(&[7; 40]);
        STANDARD.encode(blob)
    }

    #[test]
    fn a_key_from_iam_brings_neither_options_nor_a_second_line() {
        let rsa = key("ssh-rsa");
        assert_eq!(bare_line(&format!("ssh-rsa {rsa} alice@laptop\n")), Some(format!("ssh-rsa {rsa}")));
        for bad in [
            String::new(),
            "ssh-rsa".into(),
            "ssh-rsa AAAA".into(),
            "ssh-rsa !!!!".into(),
            format!("ssh-ed25519 {rsa}"),
            format!("command=\"x\" ssh-rsa {rsa}"),
            format!("ssh-rsa {rsa}\nssh-rsa {rsa}\n"),
            format!("# x\nssh-rsa {rsa}"),
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----".into(),
        ] {
            assert_eq!(bare_line(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_tag_gives_no_group_but_access_to_clusters() {
        let groups: Vec<String> = access("k8s-user@hyades+k8s-admin@hyades@web  platform-admins k8s-x @ ").collect();
        assert_eq!(groups, ["k8s-user@hyades", "k8s-admin@hyades@web"]);
    }

    proptest::proptest! {
        #[test]
        fn any_body_is_one_line_or_nothing(body in ".*") {
            if let Some(line) = bare_line(&body) {
                proptest::prop_assert_eq!(line.split(' ').count(), 2);
                proptest::prop_assert!(!line.contains(['\n', '\r', '#', '"']));
            }
        }
    }
}
