//! The warden's beginning: its identity first, while files can still be opened.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::mpsc;

use super::{role::run, settings};
use crate::config::Config;
use crate::identity::Principal;
use crate::privsep::Role;
use crate::privsep::begin::read_sealed;
use crate::privsep::fence::{self, May, Reach};
use crate::privsep::link::Link;
use crate::privsep::message::WardenToPorter;
use crate::session::SessionId;
use crate::warden::authority::{Authority, Surroundings, no_identity, token_files};
use crate::warden::credentials::Issuer;
use crate::warden::directory::{Cache, Directory, Iam, Lives, Use};
use crate::warden::judge::{Bench, Rules};
use crate::warden::{self, Sponsor, Terms};

/// What may wait on its way to the porter or the audit.
const QUEUE: usize = 1024;

/// The warden's whole life.
pub fn live(config: &Config, control: OwnedFd, mut held: Vec<OwnedFd>) -> anyhow::Result<()> {
    let keys = held.pop().context("the directory of keys is missing")?;
    let authority = connect(config)?;
    let tokens = token_directories();
    let mut beneath = vec![(keys.as_fd(), May::Read)];
    beneath.extend(tokens.iter().map(|directory| (directory.as_fd(), May::Read)));
    fence::enter(Role::Warden, Reach::Internet, &beneath)?;
    run(Role::Warden, serve(config, control, keys, authority))
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

async fn serve(config: &Config, control: OwnedFd, keys: OwnedFd, authority: Option<Authority>) -> anyhow::Result<()> {
    let (to_porter, grants) = mpsc::channel(QUEUE);
    let (to_audit, events) = mpsc::channel(QUEUE);
    // As long as the warden lives, whatever is reloaded: what IAM said must stand when it cannot be asked.
    let iam = authority.as_ref().map(|known| Arc::new(Cache::new(Iam::new(known.iam()), Lives::default())));
    let bench = Arc::new(Bench::new(rules(config, keys, iam.as_ref())));
    let issuer = match (&authority, &config.aws) {
        (Some(authority), Some(aws)) => {
            let terms = settings::credentials(aws);
            Some(Arc::new(Issuer::new(authority.clone(), terms, to_porter.clone(), to_audit)))
        }
        _ => None,
    };
    let sponsor = match &issuer {
        Some(issuer) => Purse::Full(issuer.clone()),
        None => Purse::Empty(to_porter, std::sync::Mutex::default()),
    };
    let reload = {
        let bench = bench.clone();
        move |descriptors: Vec<OwnedFd>| reload(descriptors, &bench, iam.as_ref(), issuer.as_deref())
    };
    let start = warden::Start {
        control: Link::new(control)?,
        judge: bench,
        sponsor,
        terms: settings::terms(config),
        grants,
        events,
        reload: Box::new(reload),
    };
    Ok(warden::serve(start).await?)
}

fn rules(config: &Config, keys: OwnedFd, iam: Option<&Arc<Cache<Iam>>>) -> Rules<Iam> {
    let groups: BTreeMap<String, Vec<Principal>> =
        config.users.groups.iter().map(|(name, members)| (name.clone(), members.iter().cloned().collect())).collect();
    let iam = iam.zip(config.aws.as_ref()).and_then(|(cache, aws)| {
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

/// Everything but the AWS identity, which is read before the fence and stays.
fn reload(
    mut descriptors: Vec<OwnedFd>,
    bench: &Bench<Iam>,
    iam: Option<&Arc<Cache<Iam>>>,
    issuer: Option<&Issuer<Authority>>,
) -> Option<Terms> {
    let (keys, configuration) = (descriptors.pop()?, descriptors.pop()?);
    let config: Config = serde_json::from_slice(&read_sealed(configuration).ok()?).ok()?;
    bench.adopt(rules(&config, keys, iam));
    if let (Some(issuer), Some(aws)) = (issuer, &config.aws) {
        issuer.set_terms(settings::credentials(aws));
    }
    Some(settings::terms(&config))
}

/// Where sessions get their credentials from.
enum Purse {
    Full(Arc<Issuer<Authority>>),
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
            Self::Full(issuer) => drop(issuer.begin(session, user)),
            Self::Empty(porter, sessions) => {
                Self::decline(porter, session);
                sessions.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(session);
            }
        }
    }

    fn end(&self, session: SessionId) {
        match self {
            Self::Full(issuer) => issuer.end(session),
            Self::Empty(_, sessions) => {
                sessions.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&session);
            }
        }
    }

    fn resend_all(&self) {
        match self {
            Self::Full(issuer) => issuer.resend_all(),
            Self::Empty(porter, sessions) => {
                let sessions = sessions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                sessions.iter().for_each(|session| Self::decline(porter, *session));
            }
        }
    }
}
