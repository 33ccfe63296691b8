//! Who is in is decided on again: what they may reach, and whether they may stay.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Court;
use super::login::Judge;
use crate::audit::Event;
use crate::identity::Principal;
use crate::policy::Permit;
use crate::session::SessionId;
use crate::warden::post::{Due, Post};
use crate::warden::sessions::{Session, Sponsor, Terms};
use crate::warden::{egress, later};

/// After this what the jailer or the porter could not take is said again.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// After this somebody is decided on again whom nobody could decide on: as long as IAM is left alone when it fails.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// The decision about somebody who is in.
#[derive(Clone, Debug)]
pub enum Review {
    Stays(Box<Permit>),
    Leaves(String),
    /// Nobody can say at the moment: what was decided before stands.
    Unknown,
}

impl<J: Judge, S: Sponsor> Court<J, S> {
    /// New terms are for new sessions; who may no longer be here leaves.
    pub fn adopt(&mut self, terms: Terms) {
        self.terms = terms;
        self.state_clusters();
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            // By the groups as they were known: a rule that is gone must not wait for IAM.
            self.push_egress(id);
            self.push_pass(id);
        }
        self.sessions.iter().for_each(|(id, session)| self.review(*id, session));
        self.review_laptops();
        self.review_logins();
        self.follow_all();
    }

    /// Decides again on somebody who is in.
    pub(super) fn review(&self, id: SessionId, session: &Session) {
        let (judge, post) = (self.judge.clone(), self.post.clone());
        let (user, key) = (session.user.clone(), session.key.clone());
        tokio::spawn(async move {
            let review = judge.may_stay(&user, &key).await;
            let _ = post.send(Post::Reviewed { session: id, review }).await;
        });
    }

    pub fn judged_again(&mut self, id: SessionId, review: Review) {
        match review {
            Review::Leaves(why) => return self.end(id, &format!("the user's rights are gone: {why}")),
            Review::Stays(permit) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    let changed = changed(id, &session.user, session.groups.as_ref(), permit.groups());
                    session.groups = Some(permit.groups().clone());
                    changed.into_iter().for_each(|event| self.event(event));
                }
            }
            Review::Unknown => self.put_off(id),
        }
        self.push_egress(id);
        self.push_pass(id);
    }

    /// Until somebody can say: a warden that was started during an outage knows no groups, and so no way out.
    fn put_off(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.undecided) else { return };
        session.undecided = true;
        later(&self.post, ASK_AGAIN, Due::Review(id));
    }

    pub(super) fn review_due(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.undecided = false;
        }
        if let Some(session) = self.sessions.get(&id) {
            self.review(id, session);
        }
    }

    /// Tells the porter what a session may reach, by the groups and the terms in force.
    pub(super) fn push_egress(&self, id: SessionId) {
        let message = self.sessions.get(&id).and_then(|session| egress::push(id, session, &self.terms.egress));
        if let (Some(message), Some(porter)) = (message, &self.porter)
            && !porter.say(message)
        {
            // A right that was taken away must not stay open because the porter was busy.
            later(&self.post, AGAIN, Due::Rights(id));
        }
    }
}

/// What is told of somebody whose groups are others than they were; nothing where nobody knew them.
pub(super) fn changed(
    session: SessionId,
    user: &Principal,
    were: Option<&BTreeSet<String>>,
    are: &BTreeSet<String>,
) -> Option<Event> {
    let were = were.filter(|were| *were != are)?;
    let (joined, left) = (are.difference(were).cloned().collect(), were.difference(are).cloned().collect());
    Some(Event::GroupsChanged { session, user: user.to_string(), joined, left })
}
