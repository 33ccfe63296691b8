//! The judge: a claim, the user's keys, the user's groups, the policy.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, RwLock};

use jiff::Timestamp;

use super::court::{Claimant, Judge, Judgement, Review};
use super::directory::{Directory, Need, People, Record};
use crate::config::{Access, Home};
use crate::identity::authorized_keys::{self, AuthorizedKey, WhyNot};
use crate::identity::{Principal, fingerprint};
use crate::policy::{Decision, Evidence, Permit, decide};

/// Decides by a directory and by the access rules in force.
pub struct Bench<P> {
    rules: RwLock<Arc<Rules<P>>>,
}

/// What one configuration says about who gets in.
pub struct Rules<P> {
    pub directory: Directory<P>,
    pub access: Access,
    pub home: Home,
}

impl<P: People> Bench<P> {
    pub fn new(rules: Rules<P>) -> Self {
        Self { rules: RwLock::new(Arc::new(rules)) }
    }

    /// From now on by these; a look-up on its way ends under the former.
    pub fn adopt(&self, rules: Rules<P>) {
        *self.rules.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(rules);
    }

    fn rules(&self) -> Arc<Rules<P>> {
        self.rules.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl<P: People> Rules<P> {
    async fn judge(&self, claimant: &Claimant) -> Result<Permit, String> {
        let claim = &claimant.claim;
        let user: Principal = claim.user.parse().map_err(|e| format!("{e}"))?;
        let from: SocketAddr = claim.from.parse().map_err(|_| "the gate gave no address".to_owned())?;
        let record = self.directory.look_up(&user, Need::Login).await.map_err(|e| e.to_string())?;
        let evidence = evidence(&record, &user, &claim.key, from.ip());
        self.decide(&user, record, &evidence)
    }

    fn decide(&self, user: &Principal, record: Record, evidence: &Evidence) -> Result<Permit, String> {
        match decide(&self.access, self.home, user, record.groups, evidence) {
            Decision::Permit(permit) => Ok(permit),
            Decision::Denial(denial) => Err(denial.reason.to_string()),
        }
    }
}

/// Whether the proved key opens this account.
fn evidence(record: &Record, user: &Principal, blob: &[u8], from: IpAddr) -> Evidence {
    let (keys, refused) = keys(record, user);
    match authorized_keys::find(&keys, blob, from, Timestamp::now()) {
        Err(WhyNot::NoKeys) if !refused.is_empty() => Evidence::NoKey(WhyNot::NotRead(refused.join("; "))),
        found => Evidence::from(found),
    }
}

/// The user's keys, and why lines were not used.
fn keys(record: &Record, user: &Principal) -> (Vec<AuthorizedKey>, Vec<String>) {
    let (mut keys, mut reasons) = (Vec::new(), record.refused.clone());
    for source in &record.keys {
        let parsed = authorized_keys::parse(source.text.as_bytes());
        for refused in &parsed.refused {
            tracing::warn!(%user, origin = ?source.origin, "a key is not used: {refused}");
            reasons.push(refused.to_string());
        }
        keys.extend(parsed.keys);
    }
    (keys, reasons)
}

impl<P: People> Judge for Arc<Bench<P>> {
    async fn judge(&self, claimant: &Claimant) -> Judgement {
        match self.rules().judge(claimant).await {
            Ok(permit) => Judgement::Admitted(permit),
            Err(why) => Judgement::Denied { key: fingerprint(&claimant.claim.key), why },
        }
    }

    async fn may_stay(&self, user: &Principal, key: &str) -> Review {
        let rules = self.rules();
        // While nobody can say, what was decided before stands: an outage of IAM must not end everybody's work.
        let Ok(record) = rules.directory.look_up(user, Need::Stay).await else { return Review::Unknown };
        // Where a connection came from does not change under it; that its key is still listed can.
        let (keys, _) = keys(&record, user);
        let evidence = match keys.iter().find(|listed| listed.fingerprint() == key) {
            Some(listed) => Evidence::from(listed),
            None => Evidence::NoKey(WhyNot::Unlisted(keys.len())),
        };
        match rules.decide(user, record, &evidence) {
            Ok(permit) => Review::Stays(Box::new(permit)),
            Err(why) => Review::Leaves(why),
        }
    }
}
