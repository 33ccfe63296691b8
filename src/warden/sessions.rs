//! A session as the warden knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use minicbor::{Decode, Encode};

use super::clusters::Known;
use super::post::Term;
use crate::config::rbac::Rbac;
use crate::config::{Egress, Kube, Netblock};
use crate::identity::Principal;
use crate::policy::kube::Rules;
use crate::privsep::message::{Channel, Connection, Number, Wish};
use crate::session::SessionId;

/// What the configuration says about sessions.
#[derive(Clone, Debug)]
pub struct Terms {
    pub region: Option<String>,
    pub linger: std::time::Duration,
    pub jails_per_user: usize,
    pub image: String,
    /// With `{user}` in it.
    pub role: Option<String>,
    pub egress: Arc<Egress>,
    /// How much of an address is one source.
    pub netblock: Netblock,
    pub kube: Arc<Kube>,
    /// With it groups open clusters by their names.
    pub rbac: Option<Arc<Rbac>>,
    /// After so long whoever is in is asked about again; `None`: nobody is where groups and keys change unheard.
    pub cycle: Option<std::time::Duration>,
    /// The clusters of the file.
    pub clusters: Vec<Known>,
    /// As laptops' ssh is told it; 22 is not told.
    pub ssh_port: u16,
}

impl Terms {
    pub fn rules(&self) -> Rules<'_> {
        Rules { kube: &self.kube, rbac: self.rbac.as_deref() }
    }
}

/// Who provides a session's credentials.
pub trait Sponsor: Send {
    fn begin(&self, session: SessionId, user: &Principal);
    /// Whether the session wants credentials for clusters; said again and again.
    fn clusters(&self, session: SessionId, user: &Principal, wanted: bool);
    fn end(&self, session: SessionId);
    fn resend_all(&self);
}

/// Nobody: a bastion without AWS.
impl Sponsor for () {
    fn begin(&self, _: SessionId, _: &Principal) {}
    fn clusters(&self, _: SessionId, _: &Principal, _: bool) {}
    fn end(&self, _: SessionId) {}
    fn resend_all(&self) {}
}

/// One life of a jail.
#[derive(Debug)]
pub struct Session {
    pub user: Principal,
    /// Fingerprint of the key that opened it.
    pub key: String,
    /// As they were when the policy was last asked; unknown after a restart of the warden, until it is.
    pub groups: Option<BTreeSet<String>>,
    /// As the porter was last told; unknown with the groups.
    pub clusters: Option<Vec<String>>,
    /// The policy could not be asked, and will be.
    pub undecided: bool,
    /// Who uses it; after a restart of the gate nobody can.
    pub owner: (Term, Connection),
    /// An earlier warden began it, and what that one said of it stands until we know better.
    pub inherited: bool,
    /// The jail stands.
    pub built: bool,
    /// The recording is begun.
    pub opened: bool,
    pub channels: BTreeMap<Number, Place>,
    pub next: Number,
    /// Why it ends, once it does.
    pub ending: Option<String>,
}

/// A channel's way to its program.
#[derive(Debug)]
pub struct Place {
    /// As the gate numbers it; unknown after a restart of the warden.
    pub channel: Option<Channel>,
    /// What to start as soon as the jail stands and the recording is begun.
    pub wish: Option<Wish>,
    pub stage: Stage,
    /// By a client; a program of ours that is not keeps no jail alive.
    pub attended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Opened by the client; nothing to run yet.
    Idle,
    /// Waits for the jail and the recording.
    Waiting,
    /// Asked of the jailer.
    Starting,
    Running,
}

/// What a warden leaves with the jailer for the next one.
#[derive(Debug, Encode, Decode)]
pub struct Note {
    #[n(0)]
    pub key: String,
    #[n(1)]
    pub connection: Connection,
}

impl Place {
    /// A client's channel, with nothing to run yet.
    pub fn of(channel: Channel) -> Self {
        Self { channel: Some(channel), wish: None, stage: Stage::Idle, attended: true }
    }
}

impl Session {
    pub fn new(user: Principal, key: String, owner: (Term, Connection)) -> Self {
        Self {
            user,
            key,
            groups: None,
            clusters: None,
            undecided: false,
            owner,
            inherited: false,
            built: false,
            opened: false,
            channels: BTreeMap::new(),
            next: 0,
            ending: None,
        }
    }

    pub fn is_ready(&self) -> bool {
        self.built && self.opened && self.ending.is_none()
    }

    /// How many of its programs somebody waits for.
    pub fn attended(&self) -> usize {
        self.channels.values().filter(|place| place.attended).count()
    }

    pub fn number_of(&self, channel: Channel) -> Option<Number> {
        self.channels.iter().find(|(_, place)| place.channel == Some(channel)).map(|(number, _)| *number)
    }
}
