//! Carries a plan out: clusters side by side, each in the order of `order`; whatever fails on one stops no other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};

use super::change::Change;
use super::evidence::events;
use super::ranks::{Rank, ranked};
use super::seam::{Fault, Fleet, People, Turn, Turns};
use super::standing::{Bound, Names, Standing};
use super::trail::Trail;
use crate::audit::Event;

/// For one change, its tries and pauses together.
const LONGEST: Duration = Duration::from_secs(45);
/// A turn is asked for again after this, in the midst of the work.
const RENEWAL: Duration = Duration::from_secs(10);
/// At one time in one place. IAM throttles an account as a whole, with its people in it.
const IN_FLIGHT: usize = 4;

/// What changes are carried out with.
#[derive(Debug)]
pub struct Crew<P, F, T> {
    pub people: Arc<P>,
    pub fleet: Arc<F>,
    pub turns: Arc<T>,
    pub trail: Arc<Trail>,
    pub names: Names,
    /// True: what has begun is ended, and nothing else begun.
    pub stop: watch::Receiver<bool>,
    /// When the turn was taken last, by cluster.
    held: Mutex<HashMap<String, Instant>>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Done {
    pub made: Vec<Change>,
    pub failed: Vec<(Change, Fault)>,
    /// Not even begun, and why.
    pub left: Vec<(Change, String)>,
}

impl Done {
    /// Whether the next cycle has nothing to continue.
    pub fn is_whole(&self) -> bool {
        self.failed.is_empty() && self.left.is_empty()
    }

    pub fn add(&mut self, other: Self) {
        self.made.extend(other.made);
        self.failed.extend(other.failed);
        self.left.extend(other.left);
    }
}

impl<P: People, F: Fleet, T: Turns> Crew<P, F, T> {
    pub fn new(
        (people, fleet, turns): (Arc<P>, Arc<F>, Arc<T>),
        trail: Arc<Trail>,
        names: Names,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self { people, fleet, turns, trail, names, stop, held: Mutex::default() }
    }

    /// Asks for the turn; `Theirs` with the sentence, also where it cannot be asked for.
    pub async fn take(&self, cluster: &str) -> Turn {
        let turn = match self.turns.take(cluster).await {
            Ok(Turn::Theirs(who)) => Turn::Theirs(format!("it is the turn of {who} on {cluster}")),
            Ok(turn) => turn,
            Err(fault) => Turn::Theirs(format!("the turn on {cluster} cannot be had: {fault}")),
        };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match turn {
            Turn::Theirs(_) => drop(held.remove(cluster)),
            _ => drop(held.insert(cluster.to_owned(), Instant::now())),
        }
        turn
    }

    /// Gives all turns back.
    pub async fn end_turns(&self) {
        let held = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        let mut ends = JoinSet::new();
        for cluster in held.into_keys() {
            let turns = self.turns.clone();
            ends.spawn(async move { turns.end(&cluster).await });
        }
        while ends.join_next().await.is_some() {}
    }

    /// Why nothing more may begin on a turn of `cluster`'s.
    async fn halted(&self, cluster: Option<&str>) -> Option<String> {
        if *self.stop.borrow() {
            return Some("access is being stopped".into());
        }
        if !self.trail.healthy() {
            return Some("the audit trail cannot be written".into());
        }
        let cluster = cluster?;
        let taken = self.held.lock().unwrap_or_else(PoisonError::into_inner).get(cluster).copied();
        if taken.is_some_and(|taken| taken.elapsed() < RENEWAL) {
            return None;
        }
        match self.take(cluster).await {
            Turn::Theirs(why) => Some(why),
            Turn::Ours | Turn::After | Turn::Overruled(_) => None,
        }
    }

    async fn carry_out(&self, change: &Change) -> Result<(), Fault> {
        let done = async {
            match change.target.cluster() {
                Some(cluster) => self.fleet.carry_out(cluster, change).await,
                None => self.people.carry_out(change).await,
            }
        };
        let late = |_| Fault::new("Timeout", format!("no answer within {} seconds", LONGEST.as_secs()), true);
        timeout(LONGEST, done).await.map_err(late)?
    }
}

/// Where changes may be made.
#[derive(Clone, Debug, Default)]
pub struct Leave {
    /// Where it is another's turn, in a sentence.
    pub theirs: BTreeMap<String, String>,
    /// Clusters where no turn is asked for any more.
    pub alone: BTreeSet<String>,
    pub bound: Arc<Bound>,
}

/// Carries changes out.
pub async fn apply<P: People, F: Fleet, T: Turns>(
    crew: &Arc<Crew<P, F, T>>,
    changes: Vec<Change>,
    leave: &Leave,
) -> Done {
    let (mut done, mut standing) = (Done::default(), Standing::new(&crew.names, leave.bound.clone()));
    for leg in legs(ranked(changes)) {
        let mut places = JoinSet::new();
        for (place, ranks) in leg {
            let turn = place.clone().filter(|cluster| !leave.alone.contains(cluster));
            let theirs = turn.as_ref().and_then(|turn| leave.theirs.get(turn).cloned());
            let (crew, standing) = (crew.clone(), standing.clone());
            let leg = Leg { crew, place, turn, theirs, standing, done: Done::default() };
            places.spawn(leg.walk(ranks));
        }
        while let Some(walked) = places.join_next().await {
            // A task that panicked is a bug of ours; its changes come again with the next cycle.
            let Ok((done_there, standing_there)) = walked else { continue };
            done.add(done_there);
            standing.add(standing_there);
        }
        crew.trail.settle().await;
    }
    done
}

/// A change, and what came of it.
type Heard = (Change, Result<(), Fault>);

/// By place: `None` is IAM.
type Ranks = BTreeMap<Option<String>, BTreeMap<Rank, Vec<Change>>>;

/// Ranks that need not wait for each other's places: those of clusters between two of IAM.
fn legs(ranks: BTreeMap<Rank, Vec<Change>>) -> Vec<Ranks> {
    let mut legs: Vec<(bool, Ranks)> = Vec::new();
    for (rank, changes) in ranks {
        if legs.last().is_none_or(|(iam, _)| *iam != rank.is_in_iam()) {
            legs.push((rank.is_in_iam(), Ranks::new()));
        }
        let Some((_, leg)) = legs.last_mut() else { continue };
        for change in changes {
            let place = change.target.cluster().map(str::to_owned);
            leg.entry(place).or_default().entry(rank).or_default().push(change);
        }
    }
    legs.into_iter().map(|(_, leg)| leg).collect()
}

/// The work in one place, until another place must be waited for.
struct Leg<P, F, T> {
    crew: Arc<Crew<P, F, T>>,
    place: Option<String>,
    /// The cluster whose turn it takes, if it takes one.
    turn: Option<String>,
    theirs: Option<String>,
    standing: Standing,
    done: Done,
}

impl<P: People, F: Fleet, T: Turns> Leg<P, F, T> {
    async fn walk(mut self, ranks: BTreeMap<Rank, Vec<Change>>) -> (Done, Standing) {
        for (rank, changes) in ranks {
            // aws-auth is one object, and EKS allows few changes of entries a second.
            let together = if rank.is_of_entries() { 1 } else { IN_FLIGHT };
            let mut running = JoinSet::new();
            for change in changes {
                while running.len() >= together {
                    self.hear(rank, running.join_next().await).await;
                }
                let Some(change) = self.admit(rank, change).await else { continue };
                let crew = self.crew.clone();
                running.spawn(async move {
                    let answer = crew.carry_out(&change).await;
                    (change, answer)
                });
            }
            while !running.is_empty() {
                self.hear(rank, running.join_next().await).await;
            }
        }
        (self.done, self.standing)
    }

    /// The change, or what of it may be done now.
    async fn admit(&mut self, rank: Rank, change: Change) -> Option<Change> {
        let why = match (&self.theirs, self.standing.lost(self.place.as_deref())) {
            (Some(why), _) => Some(why.clone()),
            (None, Some(why)) => Some(why),
            (None, None) => self.crew.halted(self.turn.as_deref()).await,
        };
        if let Some(why) = why {
            self.standing.block(rank, &change);
            self.done.left.push((change, why));
            return None;
        }
        let (now, later) = self.standing.admit(rank, change);
        if let Some((change, why)) = later {
            self.standing.block(rank, &change);
            self.done.left.push((change, why));
        }
        now
    }

    async fn hear(&mut self, rank: Rank, heard: Option<Result<Heard, JoinError>>) {
        let Some(Ok((change, answer))) = heard else { return };
        match answer {
            Ok(()) => {
                self.standing.answered(self.place.as_deref());
                for event in events(&change, &self.crew.names.username) {
                    self.crew.trail.record(event).await;
                }
                self.done.made.push(change);
            }
            Err(fault) => {
                let (target, cause) = (change.target.to_string(), change.cause.to_string());
                let Fault { code, message, .. } = fault.clone();
                self.crew.trail.record(Event::AccessChangeFailed { target, cause, code, message }).await;
                self.standing.failed(self.place.as_deref(), &fault);
                self.standing.block(rank, &change);
                self.done.failed.push((change, fault));
            }
        }
    }
}

/// Places with something to change; IAM is `None`.
pub fn places(changes: &[Change]) -> BTreeSet<Option<String>> {
    changes.iter().map(|change| change.target.cluster().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests;
