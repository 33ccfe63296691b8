//! One cycle: everything is read at once, planned, guarded, carried out and remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::apply::{Crew, Done, Leave, apply, places};
use super::change::{Cause, Change, Object, Target};
use super::entries::{held, row_of};
use super::evidence::events;
use super::lease;
use super::membership::membership;
use super::memory::{Memory, MemoryError};
use super::plan::{Plan, Problem, plan};
use super::seam::{Fault, Fleet, People, Turn, Turns};
use super::standing::bound;
use super::world::{Seen, World};
use crate::audit::Event;
use crate::config::Terms;

/// Clusters that are read at one time.
const AT_ONCE: usize = 16;
/// For one cluster, the wait for its turn at EKS included; then it counts as away. Each request has a limit of its own.
const LONGEST_READ: Duration = Duration::from_secs(180);
/// For IAM, with the pauses that it asks for.
const LONGEST_LOOK: Duration = Duration::from_secs(180);
/// Looks of one cycle: one more where another had the turn meanwhile.
const MOST_ROUNDS: usize = 3;
/// In seconds: who has waited so long for the turn on a cluster works there without. A peer's work is over by then, and
/// whoever may write Leases must not stop all change.
const LONGEST_WAIT: i64 = 15 * 60;

/// What one cycle came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub plan: Plan,
    pub done: Done,
    /// Clusters that could not be read, and why.
    pub away: BTreeMap<String, String>,
    /// Since when, in seconds since the epoch.
    pub away_since: BTreeMap<String, i64>,
    /// Clusters that were changed without a turn, for it could not be had.
    pub alone: BTreeSet<String>,
    /// Why nothing was changed: it would have been too much.
    pub stopped: Option<String>,
    pub took: Duration,
}

impl Outcome {
    /// Everything is as it should be, as far as it can be seen.
    pub fn is_whole(&self) -> bool {
        self.done.is_whole() && self.stopped.is_none()
    }
}

/// Why there was no cycle.
#[derive(Debug, thiserror::Error)]
pub enum CycleError {
    #[error("cannot read who is in which group, so nothing is changed")]
    People(#[source] Fault),
    #[error("cannot read which clusters there are, so nothing is changed")]
    Clusters(#[source] Fault),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("access is being stopped")]
    Stopped,
}

/// Cycles over one fleet, with what they remember.
#[derive(Debug)]
pub struct Course<P, F, T> {
    crew: Arc<Crew<P, F, T>>,
    terms: Terms,
    memory: Memory,
    /// As it lies in `state`.
    saved: Memory,
    state: PathBuf,
    /// Changes whose answer was lost: they may have been made all the same.
    unsure: Vec<Change>,
    pub allow_mass_removal: bool,
    /// Is shown each plan before it is carried out.
    pub show: fn(&Plan),
}

/// IAM and all clusters as they are now.
pub async fn look<P: People, F: Fleet>(
    people: &P,
    fleet: &Arc<F>,
    mut stop: watch::Receiver<bool>,
) -> Result<World, CycleError> {
    let late = |_| Fault::new("Timeout", format!("no answer within {} seconds", LONGEST_LOOK.as_secs()), true);
    let directory = async {
        let read = timeout(LONGEST_LOOK, people.read()).await.map_err(late).and_then(|read| read);
        read.map_err(CycleError::People)
    };
    let clusters = async {
        let names = timeout(LONGEST_LOOK, fleet.clusters()).await.map_err(late).and_then(|names| names);
        Ok(sight(fleet, names.map_err(CycleError::Clusters)?).await)
    };
    let stopped = async {
        // A sender that is gone asks nobody to stop.
        if stop.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = stopped => Err(CycleError::Stopped),
        read = async { tokio::try_join!(directory, clusters) } => {
            let (directory, clusters) = read?;
            Ok(World { directory, clusters })
        }
    }
}

async fn sight<F: Fleet>(fleet: &Arc<F>, names: Vec<String>) -> BTreeMap<String, Seen> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut reading = JoinSet::new();
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    for name in names {
        // Whatever becomes of the task: a cluster that was named is never one that is not there.
        seen.insert(name.clone(), Seen::Away("reading it was broken off".into()));
        let (fleet, room) = (fleet.clone(), room.clone());
        reading.spawn(async move {
            let _place = room.acquire_owned().await;
            let is = match timeout(LONGEST_READ, fleet.read(&name)).await {
                Ok(Ok(cluster)) => Seen::Read(Box::new(cluster)),
                Ok(Err(fault)) => Seen::Away(fault.to_string()),
                Err(_) => Seen::Away(format!("no answer within {} seconds", LONGEST_READ.as_secs())),
            };
            (name, is)
        });
    }
    while let Some(read) = reading.join_next().await {
        seen.extend(read);
    }
    seen
}

impl<P: People, F: Fleet, T: Turns> Course<P, F, T> {
    pub fn new(crew: Crew<P, F, T>, terms: Terms) -> Result<Self, MemoryError> {
        let state = terms.rbac.state.clone();
        let memory = Memory::load(&state)?;
        Ok(Self {
            crew: Arc::new(crew),
            terms,
            saved: memory.clone(),
            memory,
            state,
            unsure: Vec::new(),
            allow_mass_removal: false,
            show: |_| {},
        })
    }

    /// Says that access begins. For nothing that ends before a cycle did.
    pub async fn begin(&self) {
        let (version, mass_removal) = (env!("CARGO_PKG_VERSION").to_owned(), self.allow_mass_removal);
        self.crew.trail.record(Event::AccessStarted { version, mass_removal }).await;
    }

    /// Says that it ends, and waits until all that was said is on stable storage.
    pub async fn end(&self, reason: &str) {
        self.crew.trail.record(Event::AccessStopped { reason: reason.to_owned() }).await;
        self.crew.trail.settle().await;
    }

    pub fn crew(&self) -> &Crew<P, F, T> {
        &self.crew
    }

    /// From one cycle to the next, where nothing happens.
    pub fn pause(&self) -> Duration {
        self.terms.rbac.cycle
    }

    /// One cycle at `now`, in seconds since the epoch.
    pub async fn cycle(&mut self, now: i64) -> Result<Outcome, CycleError> {
        let begun = Instant::now();
        let outcome = self.rounds(now).await;
        if let Err(CycleError::People(fault) | CycleError::Clusters(fault)) = &outcome {
            let mut unread = self.memory.unread.clone();
            unread.insert("IAM".into(), fault.to_string());
            self.record(|memory| memory.see_unread(unread, now)).await;
        }
        self.crew.end_turns().await;
        let kept = self.keep().await;
        let outcome = outcome.and_then(|outcome| kept.map(|()| outcome).map_err(CycleError::from));
        outcome.map(|outcome| Outcome { took: begun.elapsed(), ..outcome })
    }

    async fn rounds(&mut self, now: i64) -> Result<Outcome, CycleError> {
        let mut outcome = Outcome::default();
        for round in 1..=MOST_ROUNDS {
            let (world, plan) = self.see(now).await?;
            let away_since = self.memory.unread_since.clone();
            outcome = Outcome { away: away(&world), away_since, plan, ..Outcome::default() };
            (self.show)(&outcome.plan);
            outcome.stopped = self.guard(&outcome.plan).await;
            if outcome.stopped.is_some() {
                break;
            }
            let Some(leave) = self.turns(&mut outcome.plan, round == MOST_ROUNDS, now).await else { continue };
            self.learn(&world, &outcome.plan, now).await?;
            outcome.alone.clone_from(&leave.alone);
            outcome.done = self.work(&world, outcome.plan.changes.clone(), leave).await;
            break;
        }
        Ok(outcome)
    }

    /// What there is and what is to be done; what was seen to be done after all is told.
    async fn see(&mut self, now: i64) -> Result<(World, Plan), CycleError> {
        let world = look(&*self.crew.people, &self.crew.fleet, self.crew.stop.clone()).await?;
        for change in std::mem::take(&mut self.unsure) {
            let is_seen =
                change.target.cluster().is_none_or(|name| matches!(world.clusters.get(name), Some(Seen::Read(_))));
            if !is_seen {
                self.unsure.push(change);
            } else if there(&world, &change.target, &self.terms) == change.shall_be.clone().map(timeless) {
                for event in events(&change, &self.crew.names.username) {
                    self.crew.trail.record(event).await;
                }
            }
        }
        self.record(|memory| memory.see_unread(away(&world), now)).await;
        let plan = plan(&world, &self.terms, &self.memory.gone, now);
        Ok((world, plan))
    }

    async fn guard(&mut self, plan: &Plan) -> Option<String> {
        let reason = match self.allow_mass_removal {
            true => None,
            false => {
                let members = self.memory.members.as_ref();
                plan.stop_where(self.terms.rbac.most_removed, |group, user| {
                    members.is_none_or(|seen| seen.get(group).is_some_and(|users| users.contains_key(user)))
                })
            }
        };
        if let Some(reason) = &reason
            && self.memory.stopped.as_ref() != Some(reason)
        {
            self.crew.trail.record(Event::MassRemovalStopped { reason: reason.clone() }).await;
        }
        self.memory.stopped.clone_from(&reason);
        reason
    }

    /// Remembers who is in which group. An answer that would have stripped too many is not believed and not learned.
    async fn learn(&mut self, world: &World, plan: &Plan, now: i64) -> Result<(), CycleError> {
        let members = membership(world, &self.terms).said;
        if self.memory.members.is_none() {
            for event in caused(&plan.changes) {
                self.crew.trail.record(event).await;
            }
        }
        self.record(|memory| memory.see_members(&members, now)).await;
        let problems = plan.problems.iter().map(|problem| match &problem.cluster {
            Some(cluster) => format!("{cluster}: {}: {}", problem.subject, problem.what),
            None => format!("{}: {}", problem.subject, problem.what),
        });
        let problems = problems.collect();
        self.record(|memory| memory.see_problems(problems)).await;
        self.memory.gone.clone_from(&plan.gone);
        Ok(self.keep().await?)
    }

    /// Writes down what is remembered: first the evidence, then that it was given.
    async fn keep(&mut self) -> Result<(), MemoryError> {
        self.crew.trail.settle().await;
        if self.memory != self.saved {
            self.memory.save(&self.state)?;
            self.saved.clone_from(&self.memory);
        }
        Ok(())
    }

    async fn record(&mut self, see: impl FnOnce(&mut Memory) -> Vec<Event>) {
        for event in see(&mut self.memory) {
            self.crew.trail.record(event).await;
        }
    }

    /// Takes the turns where there is something to change, and says where there is none to be had; what people should know
    /// of that goes into the plan. `None`: another had one after we looked, so everything is to be looked at again. The
    /// `last` time only where that was is left alone: one cluster's lease must not hold up all the others.
    async fn turns(&mut self, plan: &mut Plan, last: bool, now: i64) -> Option<Leave> {
        let mut asked = JoinSet::new();
        for cluster in places(&plan.changes).into_iter().flatten() {
            let crew = self.crew.clone();
            asked.spawn(async move {
                let turn = crew.take(&cluster).await;
                (cluster, turn)
            });
        }
        let mut turns = BTreeMap::new();
        while let Some(answer) = asked.join_next().await {
            turns.extend(answer);
        }
        if !last && turns.values().any(|turn| *turn == Turn::After) {
            return None;
        }
        let (mut leave, former) = (Leave::default(), std::mem::take(&mut self.memory.withheld));
        for (cluster, turn) in turns {
            let why = match turn {
                Turn::Ours => continue,
                Turn::Overruled(why) => {
                    plan.problems.push(of_lease(&cluster, format!("{why}: it is not honoured; {FIND_OUT}")));
                    continue;
                }
                Turn::After => "somebody had it since it was read".to_owned(),
                Turn::Theirs(who) => who,
            };
            let since = former.get(&cluster).map_or(now, |since| now.min(*since));
            self.memory.withheld.insert(cluster.clone(), since);
            if now - since < LONGEST_WAIT {
                leave.theirs.insert(cluster, why);
                continue;
            }
            let minutes = LONGEST_WAIT / 60;
            let what = format!("no turn could be had for {minutes} minutes, and work goes on without; {FIND_OUT}");
            plan.problems.push(of_lease(&cluster, what));
            tracing::warn!(cluster, "no turn could be had, and work goes on without: {why}");
            leave.alone.insert(cluster);
        }
        plan.problems.sort();
        Some(leave)
    }

    async fn work(&mut self, world: &World, changes: Vec<Change>, leave: Leave) -> Done {
        let leave = Leave { bound: Arc::new(bound(world)), ..leave };
        let done = apply(&self.crew, changes, &leave).await;
        self.unsure.extend(done.failed.iter().filter(|(_, fault)| fault.transient).map(|(change, _)| change.clone()));
        done
    }
}

/// For people, of a lease that is in the way.
const FIND_OUT: &str = "see in the cluster's audit log who writes it, and take that right away";

fn of_lease(cluster: &str, what: String) -> Problem {
    Problem { cluster: Some(cluster.to_owned()), subject: format!("lease {}", lease::NAME), what }
}

fn away(world: &World) -> BTreeMap<String, String> {
    let away = world.clusters.iter().filter_map(|(name, seen)| match seen {
        Seen::Away(why) => Some((name.clone(), why.clone())),
        Seen::Read(_) => None,
    });
    away.collect()
}

/// Who joined and left, as far as a plan tells it.
fn caused(changes: &[Change]) -> Vec<Event> {
    let causes: BTreeSet<&Cause> = changes.iter().map(|change| &change.cause).collect();
    let told = causes.into_iter().filter_map(|cause| match cause.clone() {
        Cause::Joined { user, group } => Some(Event::MemberJoined { user, group }),
        Cause::Left { user, group } => Some(Event::MemberLeft { user, group }),
        _ => None,
    });
    told.collect()
}

/// The object of a target, if there is one.
fn there(world: &World, target: &Target, terms: &Terms) -> Option<Object> {
    let cluster = match target.cluster().map(|name| world.clusters.get(name)) {
        Some(Some(Seen::Read(cluster))) => Some(cluster),
        _ => None,
    };
    let place = |namespace: &String, name: &String| (namespace.clone(), name.clone());
    let object = match target {
        Target::Group(grant) => world.directory.groups.get(&grant.to_string()).map(|_| Object::Group),
        Target::IamRole(name) => world.directory.roles.get(name).map(|role| Object::IamRole(Box::new(role.clone()))),
        Target::Entry { role, .. } => held(cluster?, terms).ok()?.ours.remove(role).map(Object::Entry),
        Target::Row { role, .. } => row_of(cluster?, role).map(Object::Entry),
        Target::ClusterRole { name, .. } => cluster?.cluster_roles.get(name).map(|role| Object::Rules(role.is.clone())),
        Target::Role { namespace, name, .. } => {
            cluster?.roles.get(&place(namespace, name)).map(|role| Object::Rules(role.is.clone()))
        }
        Target::ClusterRoleBinding { name, .. } => {
            cluster?.cluster_bindings.get(name).map(|binding| Object::Binding(binding.is.clone()))
        }
        Target::RoleBinding { namespace, name, .. } => {
            cluster?.bindings.get(&place(namespace, name)).map(|binding| Object::Binding(binding.is.clone()))
        }
    };
    object.map(timeless)
}

/// Without what only the other side knows.
fn timeless(mut object: Object) -> Object {
    match &mut object {
        Object::IamRole(role) => (role.created, role.last_used) = (0, None),
        Object::Entry(entry) => entry.created = 0,
        Object::Group | Object::Rules(_) | Object::Binding(_) => {}
    }
    object
}
