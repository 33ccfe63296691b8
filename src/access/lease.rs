//! One hand at a time: a Lease of Kubernetes says whose turn it is.
//!
//! As client-go has it: a holder is thought dead when its lease was not renewed for as long as this process has watched
//! it by its own clock. A turn that is lost all the same harms nothing but time, since objects are changed only in the
//! version that was planned with.

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

#[derive(Default)]
struct Seen {
    /// As it was written or seen last, and since when it says that.
    last: Option<(Object, Instant)>,
    /// The number of our last turn: turns are counted in the object.
    turn: Option<i32>,
}

impl Lease {
    /// `holder` must be no other process's.
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
        if let Some(other) = self.other(&object) {
            return Ok(Turn::Theirs(other));
        }
        match self.write(object).await {
            Err(fault) if is_beaten(&fault) => Ok(Turn::Theirs("somebody who was faster".to_owned())),
            turn => turn,
        }
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
    fn other(&self, object: &Object) -> Option<String> {
        let spec = object.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty() && *holder != self.holder)?;
        let forgotten = |renewed: &MicroTime| Timestamp::now().duration_since(renewed.0) > FORGOTTEN;
        if spec.renew_time.as_ref().is_some_and(forgotten) {
            return None;
        }
        let mut seen = self.seen();
        match seen.last.as_ref().filter(|(last, _)| last.spec.as_ref() == Some(&spec)) {
            Some((_, since)) if since.elapsed() >= self.life => None,
            Some(_) => Some(holder),
            None => {
                seen.last = Some((object.clone(), Instant::now()));
                Some(holder)
            }
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
            lease_duration_seconds: Some(i32::try_from(self.life.as_secs()).unwrap_or(i32::MAX).max(1)),
            lease_transitions: Some(if same { turn(&object) } else { turn(&object).saturating_add(1) }),
            renew_time: Some(now),
            ..LeaseSpec::default()
        };
        Object { spec: Some(spec), ..object }
    }
}

fn turn(object: &Object) -> i32 {
    object.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0)
}

fn is_beaten(fault: &Fault) -> bool {
    matches!(fault.code.as_str(), "Conflict" | "AlreadyExists")
}
