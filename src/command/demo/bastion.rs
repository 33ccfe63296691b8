//! The bastion of the demo: `stockade serve` as anybody would start it.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process};

use super::cloud::{CLUSTERS, Cloud};
use super::directory::{self, Directory};
use super::step::{Steps, dies_with_us, end};
use crate::{jailer, loader};

/// The jailer gives its roles ten seconds.
const STOP: Duration = Duration::from_secs(15);
const START: Duration = Duration::from_secs(30);

/// Ends with this value.
#[derive(Debug)]
pub(super) struct Bastion {
    process: Child,
    /// Its part of the names in /run and /sys/fs/cgroup.
    instance: String,
}

/// Fails with a sentence if somebody else listens there.
pub(super) fn port_is_free(listen: SocketAddr) -> anyhow::Result<()> {
    match TcpListener::bind(listen) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
            let other = SocketAddr::new(listen.ip(), listen.port().checked_add(1).unwrap_or(2222));
            bail!("another program listens on {listen}; choose another port, for example --listen {other}")
        }
        Err(e) => Err(e).with_context(|| format!("cannot listen on {listen}; choose another address with --listen")),
    }
}

/// Starts it and waits until its gate speaks.
pub(super) fn start(
    directory: &Directory,
    cloud: &Cloud,
    listen: SocketAddr,
    steps: &Steps<'_>,
) -> anyhow::Result<Bastion> {
    let audit = directory.file(directory::AUDIT);
    let known = fs::read(&audit).map_or(0, |text| text.len());
    let mut command = dies_with_us("TERM", std::env::current_exe().context("cannot find this program's file")?);
    command
        .arg("serve")
        .arg("--config")
        .arg(directory.file(directory::CONFIGURATION))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(steps.log()?)
        // Ctrl-C is for the demo, which ends the bastion in its own time.
        .process_group(0);
    cloud.environment(&mut command);
    let process = command.spawn().context("cannot start the bastion")?;
    let mut bastion = Bastion { process, instance: loader::instance(&directory.file(directory::STATE)) };
    fs::write(directory.file(directory::PROCESS), bastion.process.id().to_string())?;
    steps.until("starting the bastion", &mut bastion.process, START, || speaks(listen))?;
    if cloud.kube_role.is_some() {
        // A jail that is made before gets them a moment later, which is too late for one command.
        let found = || clusters_since(&audit, known) >= CLUSTERS.len();
        steps.until("finding the clusters", &mut bastion.process, START, found)?;
    }
    Ok(bastion)
}

/// How many clusters the audit has told of after this many bytes.
fn clusters_since(audit: &Path, known: usize) -> usize {
    let text = fs::read_to_string(audit).unwrap_or_default();
    text.get(known..).unwrap_or_default().matches("\"SK4101I\"").count()
}

/// The port is open before the gate runs; its greeting comes from the gate.
fn speaks(listen: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&listen, Duration::from_millis(200)) else { return false };
    let mut greeting = [0; 4];
    let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
    stream.read_exact(&mut greeting).is_ok() && &greeting == b"SSH-"
}

impl Drop for Bastion {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let asked = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) {
            if asked.elapsed() > STOP {
                eprintln!("the bastion did not end in {} s and is killed", STOP.as_secs());
                end(&mut self.process);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        sweep(&self.instance);
    }
}

/// A bastion that ends leaves its empty directories for the next start; after a demo there may be none.
fn sweep(instance: &str) {
    for hierarchy in ["", "unified", "pids", "memory", "cpu"] {
        let own = Path::new("/sys/fs/cgroup").join(hierarchy).join(format!("stockade-{instance}"));
        for jail in fs::read_dir(&own).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(jail.path());
        }
        let _ = fs::remove_dir(&own);
    }
    // Its mounts were its own and are gone with it.
    let _ = fs::remove_dir_all(jailer::instance_directory(instance));
}
