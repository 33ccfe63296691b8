//! What the jailer knows of the configuration: plain values, made by the loader.

use std::os::fd::OwnedFd;

use minicbor::{Decode, Encode};

use crate::privsep::Role;

/// The values.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Plan {
    /// Tells apart the cgroups and run directories of several bastions on one host.
    #[n(0)]
    pub instance: String,
    /// In the order of `Role::ALL`; the portal's only where there is one.
    #[n(1)]
    pub accounts: Vec<Account>,
    /// The first jail's uid 0; each jail has the next 65536.
    #[n(2)]
    pub uid_base: u32,
    #[n(3)]
    pub max_jails: u32,
    #[n(4)]
    pub limits: Limits,
    /// The unpacked image.
    #[n(5)]
    pub rootfs: String,
    /// Where the homes' images lie; empty where homes are ephemeral.
    #[n(6)]
    pub homes: String,
    #[n(7)]
    pub shell: String,
    /// The image's own environment.
    #[n(8)]
    pub environment: Vec<(String, String)>,
    #[n(9)]
    pub exec_audit: bool,
    #[n(10)]
    pub host_keys: u32,
    #[n(11)]
    pub listeners: u32,
    /// SHA-256 of the configuration file.
    #[n(12)]
    pub digest: String,
    /// Somebody may reach something outside: the porter gets the host's network, and its names.
    #[n(13)]
    pub reaches_out: bool,
    /// Laptops have a door: a certificate, its key, and so many listeners.
    #[n(14)]
    pub portal: Option<u32>,
    #[n(15)]
    pub kubeconfigs: u32,
}

#[derive(Clone, Copy, Debug, Encode, Decode)]
pub struct Account {
    #[n(0)]
    pub uid: u32,
    #[n(1)]
    pub gid: u32,
}

/// What one jail may use.
#[derive(Clone, Copy, Debug, Encode, Decode)]
pub struct Limits {
    #[n(0)]
    pub pids: u64,
    /// Bytes.
    #[n(1)]
    pub memory: u64,
    /// Microseconds of processor time in each 100 ms.
    #[n(2)]
    pub cpu: u64,
    /// Bytes of the writable layer.
    #[n(3)]
    pub scratch: u64,
}

impl Plan {
    pub fn account(&self, role: Role) -> Option<Account> {
        Role::ALL.iter().position(|r| *r == role).and_then(|at| self.accounts.get(at)).copied()
    }
}

/// The descriptors that come with a plan, in the order they travel.
#[derive(Debug)]
pub struct Held {
    /// The whole configuration, sealed.
    pub configuration: OwnedFd,
    pub recordings: OwnedFd,
    pub audit: OwnedFd,
    pub keys: OwnedFd,
    pub locks: OwnedFd,
    /// Tells of every change in `locks`.
    pub lock_changes: OwnedFd,
    pub host_keys: Vec<OwnedFd>,
    /// For the warden alone; in the order of `Kube::kubeconfigs`.
    pub kubeconfigs: Vec<OwnedFd>,
    pub listeners: Vec<OwnedFd>,
    pub portal: Portal,
}

/// What the portal holds; nothing where there is none.
#[derive(Debug, Default)]
pub struct Portal {
    /// Certificate chain and key.
    pub certificate: Vec<OwnedFd>,
    pub listeners: Vec<OwnedFd>,
}

impl Held {
    /// Sorts the descriptors that came with `plan`; `None` where their number is wrong.
    pub fn sort(plan: &Plan, descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut rest = descriptors.into_iter();
        let (configuration, recordings, audit, keys) = (rest.next()?, rest.next()?, rest.next()?, rest.next()?);
        let (locks, lock_changes) = (rest.next()?, rest.next()?);
        let host_keys: Vec<OwnedFd> = rest.by_ref().take(usize::try_from(plan.host_keys).ok()?).collect();
        let kubeconfigs: Vec<OwnedFd> = rest.by_ref().take(usize::try_from(plan.kubeconfigs).ok()?).collect();
        let listeners: Vec<OwnedFd> = rest.by_ref().take(usize::try_from(plan.listeners).ok()?).collect();
        let portal = match plan.portal {
            Some(_) => Portal { certificate: rest.by_ref().take(2).collect(), listeners: rest.collect() },
            None => Portal::default(),
        };
        let whole = host_keys.len() == usize::try_from(plan.host_keys).ok()?
            && kubeconfigs.len() == usize::try_from(plan.kubeconfigs).ok()?
            && listeners.len() == usize::try_from(plan.listeners).ok()?
            && portal.listeners.len() == usize::try_from(plan.portal.unwrap_or_default()).ok()?;
        whole.then_some(Self {
            configuration,
            recordings,
            audit,
            keys,
            locks,
            lock_changes,
            host_keys,
            kubeconfigs,
            listeners,
            portal,
        })
    }
}
