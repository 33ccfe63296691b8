//! What the keeper is told: each message in its order, when it has read those before.

use super::Court;
use super::login::Judge;
use crate::audit::Event;
use crate::privsep::message::WardenToKeeper;
use crate::warden::post::{Due, Post};
use crate::warden::sessions::Sponsor;

/// What may wait for a keeper beyond its outbox. Nobody gets in meanwhile, so little is added.
const MOST_UNTOLD: usize = 4096;

impl<J: Judge, S: Sponsor> Court<J, S> {
    /// Whether there is a keeper that reads what it is told. One that does not can write no audit either.
    pub(super) fn is_recorded(&self) -> bool {
        self.untold.is_empty() && self.keeper.as_ref().is_some_and(|keeper| keeper.has_room())
    }

    pub fn event(&mut self, event: Event) {
        self.tell_keeper(WardenToKeeper::Event(event));
    }

    /// At once, or as soon as it can be. Where there is no keeper, only events wait for the next.
    pub(super) fn tell_keeper(&mut self, message: WardenToKeeper) {
        if self.keeper.is_none() && !is_event(&message) {
            return;
        }
        self.untold.push_back(message);
        self.catch_up();
        if self.untold.len() > MOST_UNTOLD
            && let Some(oldest) = self.untold.iter().position(is_event)
        {
            self.untold.remove(oldest);
            self.lost += 1;
        }
    }

    /// Tells what waits, as far as there is room.
    pub(super) fn catch_up(&mut self) {
        let Some(keeper) = &self.keeper else { return };
        while let Some(message) = self.untold.pop_front() {
            let Err(message) = keeper.offer(message) else { continue };
            self.untold.push_front(message);
            if !keeper.is_gone() && !std::mem::replace(&mut self.catching_up, true) {
                let (room, post) = (keeper.room(), self.post.clone());
                tokio::spawn(async move {
                    room.await;
                    let _ = post.send(Post::Due(Due::Keeper)).await;
                });
            }
            return;
        }
        if let lost @ 1.. = std::mem::take(&mut self.lost) {
            let what = format!("{lost} events could not be told to the keeper in time and are lost");
            self.event(Event::LimitHit { session: None, what });
        }
    }

    /// There is room, or the keeper is gone.
    pub(super) fn keeper_due(&mut self) {
        self.catching_up = false;
        self.catch_up();
    }
}

pub(super) fn is_event(message: &WardenToKeeper) -> bool {
    matches!(message, WardenToKeeper::Event(_))
}
