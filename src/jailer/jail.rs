//! A jail as the jailer knows it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::cgroup::Cgroup;
use crate::identity::{Principal, Secret};
use crate::privsep::message::Number;

/// Where a bastion keeps what must not outlive the boot.
pub fn instance_directory(instance: &str) -> String {
    format!("/run/stockade-{instance}")
}

/// How far a jail is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Building,
    Standing,
    Ending,
}

/// One jail.
#[derive(Debug)]
pub struct Jail {
    pub stage: Stage,
    pub user: Principal,
    pub note: Vec<u8>,
    pub region: Option<String>,
    pub slot: u32,
    pub first_uid: u32,
    pub has_home: bool,
    pub cgroup: Cgroup,
    pub userns: OwnedFd,
    pub token: Secret,
    /// Process 1, until it is reaped.
    pub init: Option<OwnedFd>,
    pub control: Option<OwnedFd>,
    pub doors: Vec<OwnedFd>,
    pub channels: BTreeMap<Number, Channel>,
    /// Why it could not be built.
    pub fault: Option<String>,
}

/// A program in a jail, from the wish to the wait status.
#[derive(Debug, Default)]
pub struct Channel {
    pub reports: Option<OwnedFd>,
    /// The program's process, until it is reaped.
    pub program: Option<OwnedFd>,
    /// Good as a name for its group until it is reaped.
    pub pid: Option<Pid>,
    pub master: Option<OwnedFd>,
    /// Our ends of stdin, stdout and stderr, where there is no terminal.
    pub pipes: Vec<OwnedFd>,
    /// The listener of its exec attempts, and the slate they are written on.
    pub execs: Option<[OwnedFd; 2]>,
    pub fault: Option<String>,
    pub running: bool,
}

impl Jail {
    /// Kills everything inside; what is left is to be reaped.
    pub fn kill(&mut self) {
        self.stage = Stage::Ending;
        self.cgroup.kill();
        if let Some(init) = &self.init {
            let _ = pidfd_send_signal(init, Signal::KILL);
        }
        for channel in self.channels.values() {
            if let Some(process) = &channel.program {
                let _ = pidfd_send_signal(process, Signal::KILL);
            }
        }
    }

    /// Nothing of it runs any more.
    pub fn is_empty(&self) -> bool {
        self.init.is_none() && self.channels.values().all(|channel| channel.program.is_none())
    }
}

/// The wait status of a process that has ended, as `wait(2)` packs it.
pub fn reap(pidfd: &OwnedFd) -> i32 {
    // A process that cannot be waited for counts as killed: nobody is told of a success that was not seen.
    let Ok(Some(status)) = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) else { return libc::SIGKILL };
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, Some(signal)) => signal,
        (None, None) => libc::SIGKILL,
    }
}
