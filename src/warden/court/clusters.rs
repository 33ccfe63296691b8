//! Which clusters there are, and who is who there, as the porter is told it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Court;
use super::login::Judge;
use super::review::AGAIN;
use crate::privsep::message::{Pass, WardenToPorter};
use crate::session::SessionId;
use crate::warden::clusters::{Change, Found};
use crate::warden::later;
use crate::warden::post::Due;
use crate::warden::sessions::Sponsor;

impl<J: Judge, S: Sponsor> Court<J, S> {
    /// EKS was asked, and these are the clusters that there are now.
    pub fn found_clusters(&mut self, found: Vec<Found>) {
        let change = self.book.see(found);
        let passes = change.passes;
        self.spread(change);
        if passes {
            // One by one through the queue: there may be more sessions than may wait for a peer.
            self.sessions.keys().for_each(|id| later(&self.post, Duration::ZERO, Due::Rights(*id)));
            self.laptops.iter().for_each(|laptop| later(&self.post, Duration::ZERO, Due::Laptop(laptop.session)));
        }
        self.answer_the_waiting();
    }

    /// The clusters of the configuration in force. Whoever calls this pushes passes.
    pub(super) fn state_clusters(&mut self) {
        let change = self.book.state(std::mem::take(&mut self.terms.clusters));
        self.spread(change);
    }

    fn spread(&mut self, change: Change) {
        change.events.into_iter().for_each(|event| self.event(event));
        self.say_clusters(change.porter);
    }

    pub(super) fn tell_clusters(&self) {
        self.say_clusters(self.book.all());
    }

    fn say_clusters(&self, messages: Vec<WardenToPorter>) {
        let Some(porter) = &self.porter else { return };
        // A name that is gone is in no pass any more, so it need not be said again.
        if !messages.into_iter().all(|message| porter.say(message)) {
            later(&self.post, AGAIN, Due::Clusters);
        }
    }

    /// Who somebody of these groups is on clusters, and on which: nothing else says so.
    pub(super) fn pass_of(&self, groups: &BTreeSet<String>) -> Pass {
        self.book.pass(self.terms.rules(), groups)
    }

    /// Tells the porter who a session is on which clusters, by the groups and the terms in force.
    pub(super) fn push_pass(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let Some(groups) = &session.groups else { return };
        let kube = &self.terms.kube;
        // A warden that was started again has not heard of EKS's clusters yet: nobody loses them for that.
        if session.inherited && !kube.discover.is_empty() && !self.book.looked() {
            return;
        }
        let pass = self.pass_of(groups);
        let clusters = pass.clusters.clone();
        self.sponsor.clusters(id, &session.user, self.book.wants_tokens(&pass));
        if let Some(porter) = &self.porter
            && !porter.say(WardenToPorter::Pass { session: id, pass: Box::new(pass) })
        {
            // A right that was taken away must not stay open because the porter was busy.
            later(&self.post, AGAIN, Due::Rights(id));
        }
        self.keep_in_step(id, clusters);
    }
}
