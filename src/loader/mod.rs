//! The loader: reads the configuration in a process of its own, opens what it names, hands both to the jailer and ends.
//!
//! So the jailer parses nothing: it gets a `Plan` of plain values, the whole configuration as a sealed file that it passes
//! on unread, and descriptors. A mistake ends the loader with 78 before any socket is opened.

mod prepare;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use fs_err as fs;
use rustix::fs::{Mode, OFlags, open};
use sha2::{Digest, Sha256};

use crate::config::{self, Config};
use crate::image;
use crate::jailer::{Account, Fault, Limits, Plan, Step, sealed};
use crate::policy::lock;
use crate::privsep::begin::read_sealed;
use crate::privsep::changes;
use crate::privsep::link::send_packet;
use crate::session::exit::MISTAKES;

/// Loads `path`; `again`: for a reload, which opens no listeners.
pub fn run(path: &Path, again: bool) -> ExitCode {
    let socket = match crate::sys::exec::inherited(3) {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!("stockade: the loader is a part of `stockade serve`: {error}");
            return ExitCode::from(MISTAKES);
        }
    };
    let reason = match config::load(path) {
        Err(report) => {
            eprintln!("{report}");
            "it has mistakes; the log shows them".to_owned()
        }
        Ok(config) => match hand_over(&config, again, &socket) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("stockade: {error:#}");
                format!("{error:#}")
            }
        },
    };
    if let Ok(packet) = minicbor::to_vec(Err::<Plan, _>(&reason)) {
        // At a start nobody listens for it any more: the log has it.
        let _ = send_packet(socket.as_fd(), &packet, &[]);
    }
    ExitCode::from(MISTAKES)
}

fn hand_over(config: &Config, again: bool, socket: &OwnedFd) -> anyhow::Result<()> {
    if again {
        keep_what_is_fixed(config)?;
    }
    let json = serde_json::to_vec(config)?;
    prepare::directories(config)?;
    let image = image::Store::new(config.state.directory.join("images")).resolve(&config.jail.image.parse()?)?;
    let locks = lock::directory(&config.state.directory);
    let mut held = vec![
        sealed("stockade-configuration", &json)?,
        directory(&config.recording.directory)?,
        directory(config.audit.file.parent().unwrap_or(Path::new("/")))?,
        directory(&config.users.authorized_keys)?,
        directory(&locks)?,
        changes::watch(&locks).with_context(|| format!("cannot watch {}", locks.display()))?,
    ];
    for key in &config.ssh.host_keys {
        held.push(host_key(key)?);
    }
    for file in config.kube.kubeconfigs() {
        let opened = config::open_secret(file).map_err(|what| Fault::new("open a kubeconfig", what))?;
        held.push(opened.into_parts().0.into());
    }
    let listeners = |addresses: &[_]| if again { Ok(Vec::new()) } else { prepare::listeners(addresses) };
    let (ssh, public) = (listeners(&config.listen.ssh)?, config.kube.public.as_ref());
    let laptops = public.map(|public| listeners(&public.listen)).transpose()?;
    let plan = plan(config, &image, ssh.len(), laptops.as_ref().map(Vec::len))?;
    held.extend(ssh);
    if let Some(public) = public {
        held.extend([certificate(&public.certificate)?, host_key(&public.key)?]);
    }
    held.extend(laptops.into_iter().flatten());
    let ride: Vec<BorrowedFd<'_>> = held.iter().map(AsFd::as_fd).collect();
    let packet = minicbor::to_vec(Ok::<_, String>(&plan))?;
    send_packet(socket.as_fd(), &packet, &ride).step("hand the plan to the jailer")?;
    Ok(())
}

/// Some settings are made once: uids under jails that stand, listeners, accounts.
fn keep_what_is_fixed(config: &Config) -> anyhow::Result<()> {
    let former: Config = serde_json::from_slice(&read_sealed(crate::sys::exec::inherited(4)?)?)?;
    let fixed = former.fixed_against(config);
    if !fixed.is_empty() {
        anyhow::bail!("{} cannot change while the bastion runs; restart it, or set the former value", fixed.join(", "));
    }
    Ok(())
}

fn directory(path: &Path) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|e| Fault::new("open a directory", format!("{}: {e}", path.display())))
}

fn certificate(path: &Path) -> Result<OwnedFd, Fault> {
    Ok(fs::File::open(path).step("open the portal's certificate")?.into_parts().0.into())
}

/// A private key that others can read is everybody's.
fn host_key(path: &Path) -> Result<OwnedFd, Fault> {
    use std::os::unix::fs::MetadataExt;
    let file = fs::File::open(path).step("open a private key")?;
    let mode = file.metadata().step("look at a private key")?.mode();
    if mode & 0o077 != 0 {
        let what = format!("{}: others can read it (mode {:04o}); chmod 600 it", path.display(), mode & 0o7777);
        return Err(Fault::new("use a private key", what));
    }
    Ok(file.into_parts().0.into())
}

fn plan(config: &Config, image: &image::Resolved, ssh: usize, laptops: Option<usize>) -> anyhow::Result<Plan> {
    let roles = &config.roles;
    // In the order of `Role::ALL`.
    let accounts = [roles.keeper, roles.tally, roles.porter, roles.warden, roles.gate];
    let accounts = accounts.iter().chain(&roles.portal);
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| anyhow::anyhow!("{path:?} is not UTF-8"));
    let homes = match config.jail.home {
        config::Home::Persistent => text(&config.state.directory.join("homes"))?,
        config::Home::Ephemeral => String::new(),
    };
    Ok(Plan {
        instance: instance(&config.state.directory),
        accounts: accounts.map(|account| Account { uid: account.uid, gid: account.gid }).collect(),
        uid_base: config.jail.uid_base,
        max_jails: config.jail.max_jails,
        limits: Limits {
            pids: config.jail.pids.into(),
            memory: config.jail.memory,
            cpu: cpu_quota(config.jail.cpu),
            scratch: config.jail.scratch_size,
        },
        rootfs: text(&image.rootfs)?,
        homes,
        shell: config.jail.shell.clone(),
        environment: image
            .config
            .env
            .iter()
            .filter_map(|v| v.split_once('='))
            .map(|(n, v)| (n.into(), v.into()))
            .collect(),
        exec_audit: config.jail.exec_audit,
        host_keys: u32::try_from(config.ssh.host_keys.len())?,
        listeners: u32::try_from(ssh)?,
        kubeconfigs: u32::try_from(config.kube.kubeconfigs().len())?,
        digest: config.digest.clone(),
        reaches_out: config.reaches_out(),
        portal: laptops.map(u32::try_from).transpose()?,
    })
}

/// Two bastions on one host have two state directories, and so two names for what they share with the host.
pub fn instance(state: &Path) -> String {
    let digest = Sha256::digest(state.as_os_str().as_encoded_bytes());
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Microseconds in each 100 ms.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn cpu_quota(cpus: f64) -> u64 {
    // The check bounds it well inside a u64; the kernel takes no quota below 1 ms.
    ((cpus * 100_000.0) as u64).max(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_processor_is_half_of_each_period() {
        assert_eq!([cpu_quota(0.5), cpu_quota(2.0), cpu_quota(0.0)], [50_000, 200_000, 1000]);
    }

    #[test]
    fn bastions_are_told_apart_by_their_state() {
        assert_ne!(instance(Path::new("/var/lib/stockade")), instance(Path::new("/srv/stockade")));
    }
}
