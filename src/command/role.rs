//! The roles' beginnings: each is this program again, under its own title and user.
//!
//! The order is the same for all: hear the jailer, take what must be read, close the fence, only then start a runtime.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::warden;
use crate::config::{self, Config};
use crate::privsep::begin::{Begun, begin, read_sealed};
use crate::privsep::fence::{self, May, Reach};
use crate::privsep::link::Link;
use crate::privsep::{Accusation, Role};
use crate::{gate, keeper, loader, porter, tally};

/// Whether this process was started as a part of the bastion, and if so its whole life.
pub fn run_if_asked() -> Option<ExitCode> {
    let mut words = std::env::args_os();
    if words.next()? == crate::jailer::LOGIN {
        return Some(super::login::run(words));
    }
    let mut arguments = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let title = arguments.next()?;
    if title == crate::jailer::LOADER {
        let path = arguments.next()?;
        return Some(loader::run(Path::new(&path), arguments.next().is_some()));
    }
    let role = Role::of_title(&title)?;
    log(role);
    Some(match live(role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            let accusation = error.chain().find_map(|cause| cause.downcast_ref::<Accusation>());
            accusation.map_or(ExitCode::FAILURE, |accusation| accusation.status().into())
        }
    })
}

fn log(role: Role) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("STOCKADE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,stockade=info,aws_config=error"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
    tracing::debug!(%role, "begins");
}

fn live(role: Role) -> anyhow::Result<()> {
    let Begun { control, configuration, held } = begin()?;
    // A copy that stays open until the process is gone: the jailer kills whoever closes it, and would not see what the
    // role itself ends with.
    std::mem::forget(control.try_clone()?);
    let config: Config = serde_json::from_slice(&configuration).context("the jailer's configuration is not one")?;
    match role {
        Role::Gate => gate(&config, control, held),
        Role::Portal => portal(&config, control, held),
        Role::Keeper => keeper(&config, control, held),
        Role::Porter => porter(&config, control, held),
        Role::Tally => {
            fence::enter(role, Reach::Nowhere, &[])?;
            run(role, async { Ok(tally::serve(Link::new(control)?).await?) })
        }
        Role::Warden => warden::live(&config, control, held),
    }
}

/// Gate and porter encrypt and answer in parallel. The others relay in order, and the keeper writes on threads of the
/// disk's: a runtime of several threads would wake them some ninety times a login.
pub fn run(role: Role, life: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut builder = match role {
        Role::Warden | Role::Keeper | Role::Tally => tokio::runtime::Builder::new_current_thread(),
        Role::Gate | Role::Portal | Role::Porter => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.enable_all().thread_name(role.to_string()).build()?;
    let done = runtime.block_on(life);
    // What still waits for a disk or a name server does not hold up the end.
    runtime.shutdown_background();
    done
}

fn gate(config: &Config, control: OwnedFd, mut held: Vec<OwnedFd>) -> anyhow::Result<()> {
    let listeners = held.split_off(config.ssh.host_keys.len().min(held.len()));
    let host_keys = held.into_iter().map(host_key).collect::<anyhow::Result<Vec<_>>>()?;
    fence::enter(Role::Gate, Reach::Nowhere, &[])?;
    let settings = admission(&config.ssh);
    let listeners = listeners.into_iter().map(std::net::TcpListener::from).collect();
    run(Role::Gate, async {
        Ok(gate::serve(gate::Start { settings, listeners, host_keys, control: Link::new(control)? }).await?)
    })
}

/// The rules for whoever has not logged in are one for both gates.
fn admission(ssh: &config::Ssh) -> gate::Settings {
    let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    gate::Settings {
        algorithms: match ssh.algorithms {
            config::Algorithms::Modern => gate::Algorithms::Modern,
            config::Algorithms::Pq => gate::Algorithms::Pq,
        },
        login_grace: ssh.login_grace,
        max_startups: gate::MaxStartups {
            start: count(ssh.max_startups.start),
            rate: ssh.max_startups.rate,
            full: count(ssh.max_startups.full),
        },
        per_source: count(ssh.max_startups_per_source),
        netblock: ssh.source_netblock,
        exempt: ssh.exempt.iter().map(|network| network.0).collect(),
        penalties: ssh.penalties,
        max_auth_tries: count(ssh.max_auth_tries),
        max_sessions: count(ssh.max_sessions),
        keepalive: ssh.keepalive,
        environment: ssh.env.clone(),
        banner: ssh.banner.clone(),
        ..gate::Settings::default()
    }
}

fn portal(config: &Config, control: OwnedFd, mut held: Vec<OwnedFd>) -> anyhow::Result<()> {
    let listeners = held.split_off(held.len().min(2));
    let tls = certificate(config, held)?;
    fence::enter(Role::Portal, Reach::Nowhere, &[])?;
    let reload = |mut descriptors: Vec<OwnedFd>| {
        let files = descriptors.split_off(descriptors.len().min(1));
        let config: Config = serde_json::from_slice(&read_sealed(descriptors.pop()?).ok()?).ok()?;
        let tls = certificate(&config, files);
        tls.inspect_err(|error| tracing::error!("the former certificate stays: {error:#}")).ok()
    };
    run(Role::Portal, async {
        let start = gate::portal::Start {
            settings: admission(&config.ssh),
            listeners: listeners.into_iter().map(std::net::TcpListener::from).collect(),
            tls,
            control: Link::new(control)?,
            reload: Box::new(reload),
        };
        Ok(gate::portal::serve(start).await?)
    })
}

/// TLS as the portal speaks it.
fn certificate(config: &Config, files: Vec<OwnedFd>) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let mut files = files.into_iter().map(read_sealed);
    let (Some(chain), Some(key)) = (files.next(), files.next()) else { bail!("the portal's certificate is missing") };
    let tls12 = config.kube.public.as_ref().is_some_and(|public| public.tls12);
    let key = zeroize::Zeroizing::new(key.context("cannot read [kube.public] key")?);
    Ok(Arc::new(gate::portal::tls(&chain.context("cannot read [kube.public] certificate")?, &key, tls12)?))
}

fn porter(config: &Config, control: OwnedFd, held: Vec<OwnedFd>) -> anyhow::Result<()> {
    let first = fresh(config, held)?;
    let reach = if config.reaches_out() { Reach::Internet } else { Reach::Nowhere };
    fence::enter(Role::Porter, reach, &[])?;
    let settings = porter::Settings {
        imds_v1: config.aws.as_ref().is_some_and(|aws| aws.imds_v1),
        region: config.aws.as_ref().map(|aws| aws.region.clone()),
    };
    let reload = |mut descriptors: Vec<OwnedFd>| {
        let files = descriptors.split_off(descriptors.len().min(1));
        let config: Config = serde_json::from_slice(&read_sealed(descriptors.pop()?).ok()?).ok()?;
        fresh(&config, files).ok()
    };
    run(Role::Porter, async {
        let start = porter::Start { control: Link::new(control)?, settings, fresh: first, reload: Box::new(reload) };
        Ok(porter::serve(start).await?)
    })
}

/// The clocks and rules of the kube door, and how names become addresses; without a way out no files are handed over.
fn fresh(config: &Config, files: Vec<OwnedFd>) -> anyhow::Result<porter::Fresh> {
    let mut files = files.into_iter();
    let mut text = || match files.next() {
        Some(file) => read_sealed(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        None => Ok(String::new()),
    };
    let resolv_conf = text().context("cannot read /etc/resolv.conf")?;
    let hosts = text().context("cannot read /etc/hosts")?;
    let sources = porter::Sources { resolv_conf, hosts, addresses: config.egress.addresses.clone() };
    let public = config.kube.public.as_ref().map(|door| door.names()).unwrap_or_default().into();
    let kube = porter::Rules { clocks: config.kube.clocks, audit: config.kube.audit.clone(), public };
    Ok(porter::Fresh { sources, kube })
}

fn host_key(file: OwnedFd) -> anyhow::Result<russh::keys::PrivateKey> {
    let bytes = read_sealed(file).context("cannot read a host key")?;
    let text = zeroize::Zeroizing::new(String::from_utf8(bytes).context("a host key is not text")?);
    russh::keys::decode_secret_key(&text, None).context("a host key is not an OpenSSH private key without a passphrase")
}

fn keeper(config: &Config, control: OwnedFd, held: Vec<OwnedFd>) -> anyhow::Result<()> {
    let mut held = held.into_iter();
    let (Some(recordings), Some(audit)) = (held.next(), held.next()) else { anyhow::bail!("a directory is missing") };
    let beneath: [(BorrowedFd<'_>, May); 2] = [(recordings.as_fd(), May::Write), (audit.as_fd(), May::Write)];
    fence::enter(Role::Keeper, Reach::Nowhere, &beneath)?;
    let settings = super::settings::keeper(config)?;
    run(Role::Keeper, async {
        Ok(keeper::serve(keeper::Start { settings, recordings, audit, control: Link::new(control)? }).await?)
    })
}
