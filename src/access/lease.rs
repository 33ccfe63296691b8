//! One hand at a time: a Lease of Kubernetes says whose turn it is.
//!
//! As client-go has it: a holder is thought dead when its lease was not renewed for as long as this process has watched
//! it by its own clock. A turn that is lost all the same harms nothing but time, since objects are changed only in the
//! version that was planned with.
//!
//! Whoever may write Leases can write this one. A claim that none of ours makes (another kind of name, a longer life) is
//! not honoured; one that looks like ours is, and `cycle` does not wait for ever for its end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use tokio::time::Instant;

use super::cluster::Api;
use super::seam::{Fault, Turn};
use super::world::{LABEL, LABELLED};

/// The object's name.
pub const NAME: &str = "stockade-access";
/// After this long without a renewal it is anybody's.
pub const LIFE: Duration = Duration::from_secs(60);
/// Whoever is started for one cycle alone cannot watch for long. This is believed of wall clocks: AWS takes no
/// signature of one that is wrong by more.
const FORGOTTEN: SignedDuration = SignedDuration::from_mins(15);
/// Of a machine's name, as Linux has it.
const LONGEST_HOST: usize = 64;
/// Of what somebody else wrote, as much as a sentence needs.
const LONGEST_WORDS: usize = 80;

/// The lease of one cluster, for one process.
pub struct Lease {
    api: Arc<Api>,
    collection: String,
    object: String,
    namespace: String,
    /// This process, in words: it is seen in the object.
    holder: String,
    life: Duration,
    seen: Mutex<Seen>,
}

/// What an object says of its holder.
enum Claim {
    /// Nobody has it, or nobody who lives.
    None,
    /// Somebody like us.
    Honoured(String),
    /// None of ours wrote that: why.
    Refused(String),
}

/// A process's word for itself, which no other has: whoever looks at a lease sees where it runs.
pub fn holder(host: &str, process: u32) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let host: String = host.chars().map(plain).take(LONGEST_HOST).collect();
    format!("{host}-{process}-{}", uuid::Uuid::now_v7().simple())
}

fn is_holder(text: &str) -> bool {
    let mut parts = text.rsplitn(3, '-');
    let (Some(id), Some(process), Some(host)) = (parts.next(), parts.next(), parts.next()) else { return false };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-';
    id.len() == 32
        && uuid::Uuid::try_parse(id).is_ok_and(|id| id.get_version_num() == 7)
        && process.parse::<u32>().is_ok()
        && host.len() <= LONGEST_HOST
        && host.bytes().all(plain)
}

#[derive(Default)]
struct Seen {
    /// As it was written or seen last, and since when it says that.
    last: Option<(Object, Instant)>,
    /// The number of our last turn: turns are counted in the object.
    turn: Option<i32>,
}

impl Lease {
    /// `holder`: what `holder` made for this process.
    pub fn new(api: Arc<Api>, namespace: &str, holder: &str) -> Self {
        let collection = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
        let object = format!("{collection}/{NAME}");
        let (namespace, holder) = (namespace.to_owned(), holder.to_owned());
        Self { api, collection, object, namespace, holder, life: LIFE, seen: Mutex::default() }
    }

    /// Another life than `LIFE`.
    #[must_use]
    pub fn with_life(self, life: Duration) -> Self {
        Self { life, ..self }
    }

    /// Takes it, or renews it when a third of its life is over: cheap enough to be asked before each change.
    pub async fn take(&self) -> Result<Turn, Fault> {
        if let Some((ours, since)) = self.ours() {
            if since.elapsed() < self.life / 3 {
                return Ok(Turn::Ours);
            }
            // Nobody wrote it since, most likely: one request.
            match self.write(ours).await {
                Err(fault) if is_beaten(&fault) => {}
                turn => return turn,
            }
        }
        let Some(object) = self.api.find::<Object>(&self.object).await? else { return self.make().await };
        let claim = self.claim(&object);
        if let Claim::Honoured(who) = claim {
            return Ok(Turn::Theirs(who));
        }
        match (self.write(object).await, claim) {
            (Err(fault), _) if is_beaten(&fault) => Ok(Turn::Theirs("somebody who was faster".to_owned())),
            (Ok(_), Claim::Refused(why)) => Ok(Turn::Overruled(why)),
            (turn, _) => turn,
        }
    }

    /// Whose turn it is by the object's own word, for whoever only looks.
    pub async fn whose(&self) -> Result<Option<String>, Fault> {
        let Some(object) = self.api.find::<Object>(&self.object).await? else { return Ok(None) };
        Ok(match self.claim(&object) {
            Claim::None => None,
            Claim::Honoured(who) => Some(format!("it is the turn of {who}, for which `apply` waits a while")),
            Claim::Refused(why) => Some(format!("{why}: it is not honoured; find out who writes Leases there")),
        })
    }

    /// Gives it to whoever is next, if it is ours.
    pub async fn end(&self) -> Result<(), Fault> {
        let Some((mut object, _)) = self.ours() else { return Ok(()) };
        self.seen().last = None;
        let spec = object.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        match self.api.replace::<_, Object>(&self.object, &object).await {
            Err(fault) if is_beaten(&fault) || fault.code == "NotFound" => Ok(()),
            answer => answer.map(drop),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ours(&self) -> Option<(Object, Instant)> {
        self.seen().last.clone().filter(|(object, _)| self.is_ours(object))
    }

    fn is_ours(&self, object: &Object) -> bool {
        object.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()) == Some(&self.holder)
    }

    /// Who has it and lives, as far as can be seen.
    fn claim(&self, object: &Object) -> Claim {
        let spec = object.spec.clone().unwrap_or_default();
        let Some(holder) = spec.holder_identity.clone().filter(|holder| !holder.is_empty() && *holder != self.holder)
        else {
            return Claim::None;
        };
        let forgotten = |renewed: &MicroTime| Timestamp::now().duration_since(renewed.0) > FORGOTTEN;
        if spec.renew_time.as_ref().is_some_and(forgotten) {
            return Claim::None;
        }
        if let Some(why) = self.why_not(&spec, &holder) {
            return Claim::Refused(why);
        }
        let mut seen = self.seen();
        match seen.last.as_ref().filter(|(last, _)| last.spec.as_ref() == Some(&spec)) {
            Some((_, since)) if since.elapsed() >= self.life => Claim::None,
            Some(_) => Claim::Honoured(holder),
            None => {
                seen.last = Some((object.clone(), Instant::now()));
                Claim::Honoured(holder)
            }
        }
    }

    /// Why none of ours wrote this.
    fn why_not(&self, spec: &LeaseSpec, holder: &str) -> Option<String> {
        if !is_holder(holder) {
            let holder: String = holder.chars().take(LONGEST_WORDS).collect();
            return Some(format!("it is held by '{}', which no access calls itself", holder.escape_debug()));
        }
        let life = seconds(self.life);
        match spec.lease_duration_seconds {
            Some(said) if (1..=life).contains(&said) => None,
            said => Some(format!("it is held for {} s, where access takes {life} s", said.unwrap_or(0))),
        }
    }

    async fn make(&self) -> Result<Turn, Fault> {
        let metadata = ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(self.namespace.clone()),
            labels: Some([(LABEL.to_owned(), LABELLED.to_owned())].into()),
            ..ObjectMeta::default()
        };
        let began = Instant::now();
        match self.api.create(&self.collection, &self.held(Object { metadata, spec: None })).await {
            Ok(object) => Ok(self.note(object, began, true)),
            Err(fault) if is_beaten(&fault) => Ok(Turn::Theirs("somebody who was faster".to_owned())),
            Err(fault) => Err(fault),
        }
    }

    async fn write(&self, object: Object) -> Result<Turn, Fault> {
        // Counted from before the request: others may see it sooner than we hear of it.
        let began = Instant::now();
        let former = turn(&object);
        let written = self.api.replace(&self.object, &self.held(object)).await?;
        let next = self.seen().turn == Some(former);
        Ok(self.note(written, began, next))
    }

    /// `next`: nobody had a turn since ours.
    fn note(&self, object: Object, since: Instant, next: bool) -> Turn {
        let mut seen = self.seen();
        seen.turn = Some(turn(&object));
        seen.last = Some((object, since));
        if next { Turn::Ours } else { Turn::After }
    }

    /// The object with us as its holder, now.
    fn held(&self, object: Object) -> Object {
        let now = MicroTime(Timestamp::now());
        let former = object.spec.clone().unwrap_or_default();
        let same = self.is_ours(&object);
        let spec = LeaseSpec {
            acquire_time: if same { former.acquire_time } else { Some(now.clone()) },
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: Some(seconds(self.life)),
            lease_transitions: Some(if same { turn(&object) } else { turn(&object).saturating_add(1) }),
            renew_time: Some(now),
            ..LeaseSpec::default()
        };
        Object { spec: Some(spec), ..object }
    }
}

fn seconds(life: Duration) -> i32 {
    i32::try_from(life.as_secs()).unwrap_or(i32::MAX).max(1)
}

fn turn(object: &Object) -> i32 {
    object.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0)
}

fn is_beaten(fault: &Fault) -> bool {
    matches!(fault.code.as_str(), "Conflict" | "AlreadyExists")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_access_calls_itself_is_a_holder() {
        for host in ["bastion-7.example.com", "ip-10-0-0-1", "", "ä b", &"h".repeat(300)] {
            let name = holder(host, u32::MAX);
            assert!(is_holder(&name), "{name}");
            assert_ne!(name, holder(host, u32::MAX));
        }
        let mine = holder("bastion", 7);
        let other = uuid::Uuid::from_u128(7).simple().to_string();
        for not in [
            "",
            "bastion",
            "kube-scheduler-0_1f0c",
            &mine[1..mine.len() - 1],
            &mine.replace("-7-", "-seven-"),
            &format!("bastion-7-{other}"),
            &format!("a b-{mine}"),
            &format!("{}{mine}", "h".repeat(64)),
        ] {
            assert!(!is_holder(not), "{not}");
        }
    }
}
