//! The warden's beginning: its identity first, while files can still be opened.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::{role::run, settings};
use crate::audit::Event;
use crate::config::{Aws, Config, KubeRole};
use crate::identity::Principal;
use crate::privsep::Role;
use crate::privsep::begin::read_sealed;
use crate::privsep::fence::{self, May, Reach};
use crate::privsep::link::Link;
use crate::privsep::message::WardenToPorter;
use crate::session::SessionId;
use crate::warden::authority::{Authority, Surroundings, no_identity, token_files};
use crate::warden::clusters::{Eks, Finder, Known, Unusable, stated};
use crate::warden::credentials::{Issuer, Purpose};
use crate::warden::directory::{Cache, Directory, Iam, Lives, Use};
use crate::warden::judge::{Bench, Rules};
use crate::warden::locks::Watch;
use crate::warden::{self, Sponsor};

/// What may wait on its way to the porter or the audit.
const QUEUE: usize = 1024;

/// The warden's whole life.
pub fn live(config: &Config, control: OwnedFd, held: Vec<OwnedFd>) -> anyhow::Result<()> {
    let mut held = held.into_iter();
    let (Some(keys), Some(locks), Some(changes)) = (held.next(), held.next(), held.next()) else {
        anyhow::bail!("the directory of keys or that of locks is missing");
    };
    let kubeconfigs = texts(held);
    let authority = connect(config)?;
    let tokens = token_directories();
    let mut beneath = vec![(keys.as_fd(), May::Read), (locks.as_fd(), May::Read)];
    beneath.extend(tokens.iter().map(|directory| (directory.as_fd(), May::Read)));
    fence::enter(Role::Warden, Reach::Internet, &beneath)?;
    let locks = Watch::new(locks, changes);
    run(Role::Warden, serve(config, control, (keys, locks), &kubeconfigs, authority))
}

/// The kubeconfigs; one that cannot be read is an empty one, and its clusters are left out with a word.
fn texts(files: impl Iterator<Item = OwnedFd>) -> Vec<Zeroizing<String>> {
    let read = |file| read_sealed(file).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    files.map(|file| Zeroizing::new(read(file).unwrap_or_default())).collect()
}

/// The clusters of the file; what is wrong with one was no mistake when the loader looked.
fn clusters(config: &Config, kubeconfigs: &[Zeroizing<String>], audit: &mpsc::Sender<Event>) -> Vec<Known> {
    let (known, unusable) = stated(&config.kube, kubeconfigs);
    for Unusable { cluster, why } in unusable {
        tracing::error!(cluster, "a cluster of the configuration is left out: {why}");
        let _ = audit.try_send(Event::DiscoveryFailed { place: cluster, code: "Kubeconfig".into(), message: why });
    }
    known
}

/// Where the SDK reads a token anew at each renewal (web identity, EKS pod identity): the kubelet moves a symbolic link
/// beside the file, so it is the directory that must stay readable.
fn token_directories() -> Vec<OwnedFd> {
    let directories = token_files().into_iter().filter_map(|file| Some(file.parent()?.to_owned()));
    directories.filter_map(|directory| fs_err::File::open(directory).ok()).map(|d| d.into_parts().0.into()).collect()
}

/// On a runtime that is gone before the fence closes: landlock binds a thread and what it starts afterwards.
fn connect(config: &Config) -> anyhow::Result<Option<Authority>> {
    let Some(aws) = &config.aws else { return Ok(None) };
    let surroundings = Surroundings::read()?;
    let before = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(Some(before.block_on(Authority::connect(&aws.region, &surroundings))?))
}

async fn serve(
    config: &Config,
    control: OwnedFd,
    (keys, locks): (OwnedFd, Watch),
    kubeconfigs: &[Zeroizing<String>],
    authority: Option<Authority>,
) -> anyhow::Result<()> {
    let (to_porter, grants) = mpsc::channel(QUEUE);
    let (to_audit, events) = mpsc::channel(QUEUE);
    let (to_court, found) = mpsc::channel(1);
    // As long as the warden lives, whatever is reloaded: what IAM said must stand when it cannot be asked.
    let iam = authority.as_ref().map(|known| {
        let people = Iam::new(known.iam());
        (Arc::new(Cache::new(people.clone(), Lives::default())), people)
    });
    let bench = Arc::new(Bench::new(rules(config, keys, iam.as_ref())));
    let (full, finder) = match (authority, &config.aws) {
        (Some(authority), Some(aws)) => {
            let full = Full::new(&authority, config, aws, &to_porter, &to_audit);
            let finder = Arc::new(Finder::new(Eks::new(authority), &config.kube, to_audit.clone()));
            tokio::spawn(finder.clone().run(to_court));
            (Some(full), Some(finder))
        }
        _ => (None, None),
    };
    let terms = settings::terms(config, clusters(config, kubeconfigs, &to_audit));
    let judge = bench.clone();
    let reload = {
        let full = full.clone();
        move |descriptors: Vec<OwnedFd>| {
            let mut descriptors = descriptors.into_iter();
            let (configuration, keys) = (descriptors.next()?, descriptors.next()?);
            // The locks' directory does not change; it is watched already.
            let descriptors = descriptors.skip(2);
            let config: Config = serde_json::from_slice(&read_sealed(configuration).ok()?).ok()?;
            bench.adopt(rules(&config, keys, iam.as_ref()));
            if let Some(full) = &full {
                full.adopt(&config);
            }
            if let Some(finder) = &finder {
                finder.adopt(&config.kube);
            }
            let known = clusters(&config, &texts(descriptors), &to_audit);
            Some(settings::terms(&config, known))
        }
    };
    let sponsor = match full {
        Some(full) => Purse::Full(full),
        None => Purse::Empty(to_porter, std::sync::Mutex::default()),
    };
    let reload = Box::new(reload);
    let control = Link::new(control)?;
    let start = warden::Start { control, judge, sponsor, terms, grants, events, found, locks, reload };
    Ok(warden::serve(start).await?)
}

fn rules(config: &Config, keys: OwnedFd, iam: Option<&(Arc<Cache<Iam>>, Iam)>) -> Rules<Iam> {
    let groups: BTreeMap<String, Vec<Principal>> =
        config.users.groups.iter().map(|(name, members)| (name.clone(), members.iter().cloned().collect())).collect();
    let iam = iam.zip(config.aws.as_ref()).and_then(|((cache, people), aws)| {
        people.heed(config.rbac.clone());
        let wanted = Use { keys: aws.keys_from_iam, groups: aws.groups_from_iam };
        cache.doubt(Lives { fresh: aws.cache, stale: aws.stale, ..Lives::default() });
        (wanted.keys || wanted.groups).then(|| (cache.clone(), wanted))
    });
    Rules {
        directory: Directory::new(Some(settings::key_files(keys)), &groups, iam),
        access: config.access.clone(),
        home: config.jail.home,
    }
}

/// The issuers of a bastion with an AWS identity, which is read before the fence and stays.
#[derive(Clone)]
struct Full {
    jail: Arc<Issuer<Authority>>,
    clusters: Arc<Issuer<Authority>>,
    /// One role is both: where there are a jail's, they serve clusters too.
    same: bool,
}

impl Full {
    fn new(
        authority: &Authority,
        config: &Config,
        aws: &Aws,
        porter: &mpsc::Sender<WardenToPorter>,
        audit: &mpsc::Sender<Event>,
    ) -> Self {
        let issuer =
            |purpose, terms| Arc::new(Issuer::new(authority.clone(), purpose, terms, porter.clone(), audit.clone()));
        Self {
            jail: issuer(Purpose::Jail, settings::credentials(aws)),
            clusters: issuer(Purpose::Clusters, settings::cluster_credentials(config, aws)),
            same: config.kube.role == KubeRole::Same,
        }
    }

    fn adopt(&self, config: &Config) {
        if let Some(aws) = &config.aws {
            self.jail.set_terms(settings::credentials(aws));
            self.clusters.set_terms(settings::cluster_credentials(config, aws));
        }
    }

    fn serve_clusters(&self, session: SessionId, user: &Principal, wanted: bool) {
        match (self.same && self.jail.serve_clusters(session, wanted), wanted) {
            (true, _) => {}
            (false, true) => drop(self.clusters.begin(session, user)),
            (false, false) => self.clusters.end(session),
        }
    }
}

/// Where sessions get their credentials from.
enum Purse {
    Full(Full),
    /// No `[aws]`: every session is told so.
    Empty(mpsc::Sender<WardenToPorter>, std::sync::Mutex<std::collections::BTreeSet<SessionId>>),
}

impl Purse {
    fn decline(porter: &mpsc::Sender<WardenToPorter>, session: SessionId) {
        let _ = porter.try_send(WardenToPorter::Refused { session, refusal: no_identity() });
    }
}

impl Sponsor for Purse {
    fn begin(&self, session: SessionId, user: &Principal) {
        match self {
            Self::Full(full) => drop(full.jail.begin(session, user)),
            Self::Empty(porter, sessions) => {
                Self::decline(porter, session);
                sessions.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(session);
            }
        }
    }

    fn clusters(&self, session: SessionId, user: &Principal, wanted: bool) {
        match self {
            Self::Full(full) => full.serve_clusters(session, user, wanted),
            // Without [aws] no cluster wants a token.
            Self::Empty(..) => {}
        }
    }

    fn end(&self, session: SessionId) {
        match self {
            Self::Full(full) => [&full.jail, &full.clusters].iter().for_each(|issuer| issuer.end(session)),
            Self::Empty(_, sessions) => {
                sessions.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&session);
            }
        }
    }

    fn resend_all(&self) {
        match self {
            Self::Full(full) => [&full.jail, &full.clusters].iter().for_each(|issuer| issuer.resend_all()),
            Self::Empty(porter, sessions) => {
                let sessions = sessions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                sessions.iter().for_each(|session| Self::decline(porter, *session));
            }
        }
    }
}
