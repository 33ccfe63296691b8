//! Groups and keys change where nobody tells us: whoever is in is asked about again, so that what was taken away in IAM is
//! taken away here within a cycle.

use std::collections::HashSet;
use std::time::Duration;

use super::Court;
use super::login::{Judge, Phase};
use crate::identity::Principal;
use crate::warden::credentials::jittered;
use crate::warden::later;
use crate::warden::post::Due;
use crate::warden::sessions::Sponsor;

impl<J: Judge, S: Sponsor> Court<J, S> {
    /// From now on this user is asked about each cycle: once, however many sessions they have. What a login went by may be
    /// a cycle old, so the first time is soon.
    pub(super) fn follow(&mut self, user: &Principal) {
        if let Some(cycle) = self.terms.cycle {
            self.follow_after(user, jittered(cycle / 8));
        }
    }

    fn follow_after(&mut self, user: &Principal, pause: Duration) {
        if self.followed.insert(user.clone()) {
            later(&self.post, pause, Due::Cycle(user.clone()));
        }
    }

    /// Terms are new: there may not have been a cycle before.
    pub(super) fn follow_all(&mut self) {
        let logins = self.connections.values().filter_map(|phase| match phase {
            Phase::In(login) => Some(login.permit.principal()),
            Phase::Claiming { .. } => None,
        });
        let sessions = self.sessions.values().map(|session| &session.user);
        let laptops = self.laptops.iter().map(|laptop| &laptop.user);
        let users: HashSet<Principal> = logins.chain(sessions).chain(laptops).cloned().collect();
        users.iter().for_each(|user| self.follow(user));
    }

    pub(super) fn cycle_due(&mut self, user: &Principal) {
        self.followed.remove(user);
        let Some(cycle) = self.terms.cycle else { return };
        let of_user = |phase: &Phase| matches!(phase, Phase::In(login) if login.permit.principal() == user);
        let logins: Vec<_> = self.connections.iter().filter(|(_, phase)| of_user(phase)).collect();
        let sessions: Vec<_> = self.sessions.iter().filter(|(_, session)| session.user == *user).collect();
        let laptops: Vec<_> = self.laptops.iter().filter(|laptop| laptop.user == *user).collect();
        if logins.is_empty() && sessions.is_empty() && laptops.is_empty() {
            return;
        }
        logins.into_iter().for_each(|(connection, _)| self.review_login(*connection));
        sessions.into_iter().for_each(|(id, session)| self.review(*id, session));
        laptops.into_iter().for_each(|laptop| self.review_laptop(laptop));
        self.follow_after(user, pause(cycle));
    }
}

/// Between three quarters of a cycle and an eighth more: users who came together are not asked about together. An answer
/// that is older than an eighth does not count for them (`directory::Need`), so what they have is no older than a cycle.
fn pause(cycle: Duration) -> Duration {
    cycle / 8 * 5 + jittered(cycle / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_an_answer_as_old_as_counts_a_pause_is_no_longer_than_a_cycle() {
        let cycle = Duration::from_secs(300);
        for _ in 0..1000 {
            let pause = pause(cycle);
            assert!(pause >= cycle / 4 * 3 && pause + cycle / 8 <= cycle, "{pause:?}");
        }
    }
}
