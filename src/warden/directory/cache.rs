use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, Semaphore};
use tokio::time::Instant;

use super::{People, Record, Unknown};
use crate::identity::Principal;

const USERS: usize = 4096;
/// IAM allows an account a few dozen requests a second for everything it has; a guesser of names must not use them up.
const IN_FLIGHT: usize = 8;
const WAITING: usize = 256;

/// How long an answer counts.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    /// An answer with keys.
    pub fresh: Duration,
    /// An answer without: somebody unknown, somebody whose key is being uploaded just now, or a guess.
    pub nobody: Duration,
    /// An answer that could not be had again.
    pub stale: Duration,
}

impl Default for Lives {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(5 * 60),
            nobody: Duration::from_secs(30),
            stale: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// What an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Login,
    /// Whoever is in is asked about each cycle, which is as long as an answer counts at logins: it must be new. An eighth
    /// of that is for a user's sessions, of which one asks.
    Stay,
}

/// What was said of the last few thousand principals who were asked about.
pub struct Cache<P> {
    people: P,
    lives: Mutex<Lives>,
    slots: Mutex<HashMap<Principal, Slot>>,
    turns: Semaphore,
    waiting: Semaphore,
}

/// Whoever holds the turn asks; whoever waits for it finds the answer.
struct Slot {
    turn: Arc<Turn<()>>,
    used: Instant,
    answer: Option<Answer>,
    /// IAM failed for this principal: until then, it is not asked again.
    failing: Option<Instant>,
}

struct Answer {
    record: Arc<Record>,
    given: Instant,
    /// New rules came since: good only where IAM cannot be asked again.
    doubted: bool,
}

impl<P: People> Cache<P> {
    pub fn new(people: P, lives: Lives) -> Self {
        let (turns, waiting) = (Semaphore::new(IN_FLIGHT), Semaphore::new(WAITING));
        Self { people, lives: Mutex::new(lives), slots: Mutex::default(), turns, waiting }
    }

    /// New rules are in force, and who wrote them may have changed IAM as well: everybody is asked about again, and what is
    /// remembered stands while IAM cannot be.
    pub fn doubt(&self, lives: Lives) {
        *lock(&self.lives) = lives;
        for slot in lock(&self.slots).values_mut() {
            slot.failing = None;
            if let Some(answer) = &mut slot.answer {
                answer.doubted = true;
            }
        }
    }

    /// The record, and whether it is older than it should be.
    pub(super) async fn look_up(&self, principal: &Principal, need: Need) -> Result<(Arc<Record>, bool), Unknown> {
        if let Some(found) = self.known(principal, need) {
            return found;
        }
        let _place = self.waiting.try_acquire().map_err(|_| Unknown::Crowd)?;
        let turn = self.turn(principal);
        let _mine = turn.lock().await;
        // Somebody else may have asked while this one waited.
        if let Some(found) = self.known(principal, need) {
            return found;
        }
        let _slot = self.turns.acquire().await.map_err(|_| Unknown::Crowd)?;
        match self.people.find(principal).await {
            Ok(record) => {
                let record = Arc::new(record);
                self.keep(principal, Arc::clone(&record));
                Ok((record, false))
            }
            Err(refusal) => {
                tracing::warn!(%principal, code = refusal.code, "IAM does not answer: {}", refusal.message);
                self.leave_alone(principal);
                self.known(principal, Need::Login).unwrap_or_else(|| Err(Unknown::Iam(principal.clone())))
            }
        }
    }

    /// What can be said without asking; `None` where somebody must ask.
    fn known(&self, principal: &Principal, need: Need) -> Option<Result<(Arc<Record>, bool), Unknown>> {
        let lives = *lock(&self.lives);
        let mut slots = lock(&self.slots);
        let slot = slots.get_mut(principal)?;
        let now = Instant::now();
        slot.used = now;
        if let Some(answer) = &slot.answer {
            let age = now.duration_since(answer.given);
            let life = if answer.record.keys.is_empty() { lives.nobody } else { lives.fresh };
            let life = if need == Need::Stay { life.min(lives.fresh / 8) } else { life };
            if age < life && !answer.doubted {
                return Some(Ok((Arc::clone(&answer.record), false)));
            }
            if slot.failing.is_some_and(|until| now < until) && age < lives.stale {
                return Some(Ok((Arc::clone(&answer.record), true)));
            }
        }
        slot.failing.filter(|until| now < *until).map(|_| Err(Unknown::Iam(principal.clone())))
    }

    fn turn(&self, principal: &Principal) -> Arc<Turn<()>> {
        let mut slots = lock(&self.slots);
        if slots.len() >= USERS && !slots.contains_key(principal) {
            make_room(&mut slots);
        }
        let new = || Slot { turn: Arc::default(), used: Instant::now(), answer: None, failing: None };
        Arc::clone(&slots.entry(principal.clone()).or_insert_with(new).turn)
    }

    fn keep(&self, principal: &Principal, record: Arc<Record>) {
        if let Some(slot) = lock(&self.slots).get_mut(principal) {
            (slot.answer, slot.failing) = (Some(Answer { record, given: Instant::now(), doubted: false }), None);
        }
    }

    /// Every login waiting out a timeout would be an outage of the bastion as well.
    fn leave_alone(&self, principal: &Principal) {
        let nobody = lock(&self.lives).nobody;
        if let Some(slot) = lock(&self.slots).get_mut(principal) {
            slot.failing = Some(Instant::now() + nobody);
        }
    }
}

/// Guessed names go before people, so that a guesser cannot make the bastion forget whom it must remember when IAM fails.
fn make_room(slots: &mut HashMap<Principal, Slot>) {
    let is_somebody = |slot: &Slot| slot.answer.as_ref().is_some_and(|answer| !answer.record.keys.is_empty());
    let least = slots.iter().min_by_key(|(_, slot)| (is_somebody(slot), slot.used)).map(|(name, _)| name.clone());
    if let Some(name) = least {
        slots.remove(&name);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
