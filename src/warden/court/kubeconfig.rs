//! The user's kubeconfig follows the clusters of their session: brought in step by a program inside the jail, for no role
//! reads a home.

use super::Court;
use super::login::Judge;
use crate::config::Kube;
use crate::privsep::message::{Program, Wish};
use crate::session::SessionId;
use crate::warden::sessions::{Place, Session, Sponsor, Stage};

/// What is recorded of it, and run once the kubeconfig is in step.
const SYNC: &str = "true # the clusters have changed: the kubeconfig follows";

impl<J: Judge, S: Sponsor> Court<J, S> {
    /// Where programs run already, and the clusters are others than before, one of ours follows. It has no client and
    /// keeps no jail alive.
    pub(super) fn keep_in_step(&mut self, id: SessionId, clusters: Vec<String>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let changed = session.clusters.as_ref().is_some_and(|known| *known != clusters);
        session.clusters = Some(clusters);
        // What has not started yet brings it in step itself.
        let started = session.channels.values().any(|place| matches!(place.stage, Stage::Starting | Stage::Running));
        if !changed || !started || !session.is_ready() {
            return;
        }
        session.next += 1;
        let wish = Wish { program: Program::Exec(SYNC.into()), terminal: None, environment: Vec::new() };
        let place = Place { channel: None, wish: Some(wish), stage: Stage::Waiting, attended: false };
        session.channels.insert(session.next, place);
        self.start_waiting(id);
    }
}

/// What a session's programs are started with; nothing where the bastion has no clusters.
pub(super) fn told(session: &Session, kube: &Kube) -> Option<Vec<String>> {
    session.clusters.clone().filter(|clusters| kube.is_used() || !clusters.is_empty())
}
