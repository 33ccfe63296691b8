//! A running role: its process, its control socket, and what still waits to be told it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Signal, pidfd_send_signal, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, UnshareFlags};

use super::fault::{Fault, Step};
use super::plan::Account;
use super::rights::drop_to;
use crate::privsep::Role;
use crate::privsep::link::{pair, send_packet};
use crate::sys::clone::{Alone, Cloned, clone, exit_now, unshare};
use crate::sys::exec::exec_with;
use crate::sys::signal;

/// The most that may wait for one role; a role that reads nothing is not worth more memory.
const LONGEST_QUEUE: usize = 4096;

/// A role's process.
#[derive(Debug)]
pub struct Running {
    pub pidfd: OwnedFd,
    pub control: OwnedFd,
    pub since: Instant,
    queue: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    killed: Cell<bool>,
}

impl Running {
    /// Starts the role as a new process of the same program, with the host's network or an empty one.
    pub fn start(
        alone: &Alone,
        role: Role,
        account: Account,
        program: BorrowedFd<'_>,
        base: &str,
        network: bool,
    ) -> Result<Self, Fault> {
        let (ours, theirs) = pair().step("make a control socket")?;
        match clone(alone, 0, None).step("clone a role's process")? {
            Cloned::Parent { pidfd, .. } => Ok(Self {
                pidfd,
                control: ours,
                since: Instant::now(),
                queue: VecDeque::new(),
                killed: Cell::new(false),
            }),
            Cloned::Child => {
                drop(ours);
                let Err(fault) = become_role(alone, role, account, program, &theirs, (base, network));
                eprintln!("stockade: {role}: {fault}");
                exit_now(1)
            }
        }
    }

    /// Tells the role something, at once or when it has caught up; false when it has not read for too long.
    pub fn tell(&mut self, packet: Vec<u8>, descriptors: Vec<OwnedFd>) -> bool {
        self.queue.push_back((packet, descriptors));
        self.flush();
        self.queue.len() < LONGEST_QUEUE
    }

    /// Sends what waits, as far as it goes.
    pub fn flush(&mut self) {
        while let Some((packet, descriptors)) = self.queue.front() {
            let ride: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            match send_packet(self.control.as_fd(), packet, &ride) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                // A dead role's messages are of no use to the next one: it is told everything anew.
                Ok(()) | Err(_) => drop(self.queue.pop_front()),
            }
        }
    }

    pub fn is_behind(&self) -> bool {
        !self.queue.is_empty()
    }

    /// It will not hear any more what it is told.
    pub fn is_killed(&self) -> bool {
        self.killed.get()
    }

    pub fn kill(&self) {
        self.killed.set(true);
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// In the new process: everything of root's goes, then the program begins anew under the role's title.
fn become_role(
    alone: &Alone,
    role: Role,
    account: Account,
    program: BorrowedFd<'_>,
    control: &OwnedFd,
    (base, network): (&str, bool),
) -> Result<std::convert::Infallible, Fault> {
    signal::reset().step("reset the signals")?;
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step("open /dev/null")?;
    if !network {
        unshare(alone, UnshareFlags::NEWNET).step("unshare the network")?;
    }
    if role != Role::Warden {
        empty_root(alone, base)?;
    }
    rustix::process::setsid().step("begin a session")?;
    drop_to(account.uid, account.gid, capabilities(role))?;
    // After the change of user, which clears it; the role finds a dead jailer by the end of its control socket.
    set_parent_process_death_signal(Some(Signal::KILL)).step("die with the jailer")?;
    let title = CString::new(role.title()).map_err(|_| Fault::new("title the role", "it has a NUL byte"))?;
    let places = [null.as_fd(), null.as_fd(), rustix::stdio::stderr(), control.as_fd()];
    Err(Fault { step: "execute the role", error: exec_with(program, &places, &[title], &environment(role)) })
}

fn capabilities(role: Role) -> CapabilitySet {
    match role {
        // Reads the memory of jailed processes for the arguments of an exec.
        Role::Tally => CapabilitySet::SYS_PTRACE,
        Role::Keeper | Role::Porter | Role::Warden | Role::Gate | Role::Portal => CapabilitySet::empty(),
    }
}

/// Only the warden has anything to do with AWS's environment.
fn environment(role: Role) -> Vec<CString> {
    let wanted = |name: &str| match role {
        Role::Warden => name.starts_with("AWS_") || name == "SSL_CERT_FILE" || name == "STOCKADE_LOG",
        Role::Keeper | Role::Porter | Role::Tally | Role::Gate | Role::Portal => name == "STOCKADE_LOG",
    };
    let ours = std::env::vars().filter(|(name, _)| wanted(name));
    ours.filter_map(|(name, value)| CString::new(format!("{name}={value}")).ok()).collect()
}

/// An empty, read-only `/`: what is not held as a descriptor is not there.
fn empty_root(alone: &Alone, base: &str) -> Result<(), Fault> {
    use rustix::mount::{MountPropagationFlags, mount_change};
    unshare(alone, UnshareFlags::NEWNS).step("unshare the mounts")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).step("make the mounts private")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    mount("stockade", base, "tmpfs", flags, c"size=4k,mode=0555").step("mount an empty root")?;
    rustix::process::chdir(base).step("enter the empty root")?;
    rustix::process::pivot_root(".", ".").step("pivot into the empty root")?;
    unmount(".", UnmountFlags::DETACH).step("let go of the host's mounts")?;
    rustix::process::chdir("/").step("enter the empty root")
}
