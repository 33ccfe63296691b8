//! The real ones: AWS and API servers behind the seams, by what the configuration says of them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::aws::Aws;
use super::change::Change;
use super::eks::Entries;
use super::fleet::Fleet;
use super::iam::Iam;
use super::lease;
use super::queue::Queue;
use super::seam::{Fault, People, Turn, Turns};
use super::watch::Notice;
use super::world::Directory;
use crate::config::Terms;
use crate::warden::authority::{AuthorityError, Surroundings};

/// How often another's turn is looked at, where there is time to wait for its end.
const LOOK: Duration = Duration::from_secs(3);
/// After a queue could not be read; doubled up to the second.
const QUEUE_RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_secs(300);

/// Everything that a cycle is over.
pub struct Connected {
    pub people: Arc<Registry>,
    pub fleet: Arc<Fleet>,
    pub turns: Arc<Rota>,
    pub queue: Option<Bell>,
    /// Requests so far.
    pub calls: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Connected {
    /// Asks nobody for anything but, with a queue, who it is itself. A turn of another's is waited for so long.
    pub async fn new(terms: &Terms, patience: Duration) -> Result<Self, AuthorityError> {
        let aws = match &terms.aws {
            Some(aws) => Some(Aws::connect(&aws.region, &Surroundings::read()?).await?),
            None => None,
        };
        let entries = aws.as_ref().map(|aws| Arc::new(Entries::new(aws.clone())));
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let holder = lease::holder(&host, std::process::id());
        let fleet = Arc::new(Fleet::new(&terms.kube, &terms.rbac, entries.clone(), &holder));
        let people = Arc::new(match (&aws, &terms.aws) {
            (Some(aws), Some(stated)) => Registry::Iam(Iam::new(aws, &stated.account, &terms.rbac.group_path)),
            _ => Registry::Nobody,
        });
        let queue = match (&aws, entries, &terms.rbac.queue) {
            (Some(aws), Some(entries), Some(url)) => {
                let own = aws.whoami().await;
                if let Err(fault) = &own {
                    tracing::warn!("events of what access does itself will wake it: {fault}");
                }
                Some(Bell { queue: Queue::new(aws, url, own.ok()), entries })
            }
            _ => None,
        };
        let calls = {
            let fleet = fleet.clone();
            let aws = aws.map(|aws| aws.calls().clone());
            Box::new(move || fleet.calls() + aws.as_ref().map_or(0, |calls| calls.total()))
        };
        let turns = Rota { fleet: fleet.clone(), until: Instant::now() + patience, held: Mutex::default() };
        Ok(Self { people, fleet, turns: Arc::new(turns), queue, calls })
    }
}

/// Where people are.
#[derive(Debug)]
pub enum Registry {
    Iam(Iam),
    /// No AWS: the file alone says who is in which group.
    Nobody,
}

impl People for Registry {
    async fn read(&self) -> Result<Directory, Fault> {
        match self {
            Self::Iam(iam) => iam.read().await,
            Self::Nobody => Ok(Directory::default()),
        }
    }

    async fn carry_out(&self, change: &Change) -> Result<(), Fault> {
        match self {
            Self::Iam(iam) => iam.carry_out(change).await,
            Self::Nobody => Err(Fault::new("NoAws", "there is no [aws] to change anything in", false)),
        }
    }
}

/// The turns of clusters, with some patience at the beginning.
pub struct Rota {
    fleet: Arc<Fleet>,
    until: Instant,
    /// What was ours once and was taken is not waited for.
    held: Mutex<HashSet<String>>,
}

impl Turns for Rota {
    async fn take(&self, cluster: &str) -> Result<Turn, Fault> {
        loop {
            let turn = self.fleet.take(cluster).await?;
            let Turn::Theirs(who) = &turn else {
                self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(cluster.to_owned());
                return Ok(turn);
            };
            let was_ours = self.held.lock().unwrap_or_else(PoisonError::into_inner).contains(cluster);
            if was_ours || Instant::now() >= self.until {
                return Ok(turn);
            }
            tracing::info!(cluster, "waiting for the turn of {who} to end");
            sleep(LOOK).await;
        }
    }

    async fn end(&self, cluster: &str) {
        self.fleet.end(cluster).await;
    }
}

/// Events of IAM and EKS.
pub struct Bell {
    queue: Queue,
    entries: Arc<Entries>,
}

impl Bell {
    /// Tells of them as they come, and deletes them when what they caused is done.
    pub async fn listen(self, to: mpsc::Sender<Notice>) {
        let mut pause = QUEUE_RETRY;
        loop {
            let batch = match self.queue.wait().await {
                Ok(batch) => batch,
                Err(fault) => {
                    tracing::warn!("the queue cannot be read, changes are seen with the next cycle: {fault}");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_RETRY);
                    continue;
                }
            };
            pause = QUEUE_RETRY;
            for event in &batch.events {
                tracing::info!(event = event.name, user = event.user, group = event.group, "told of a change");
                if let Some(cluster) = &event.cluster {
                    self.entries.doubt_named(&event.region, cluster, event.principal.as_deref());
                }
            }
            if batch.events.is_empty() {
                continue;
            }
            let (done, is_done) = oneshot::channel();
            if to.send(done).await.is_err() {
                return;
            }
            // A cycle that failed leaves them where they are: they come again.
            if is_done.await.is_ok() {
                self.queue.done(batch).await;
            }
        }
    }
}
