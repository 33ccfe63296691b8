//! Building a jail: one `clone`, everything inside done by the child itself, which then becomes process 1.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, UnshareFlags};

use super::cgroup::Cgroup;
use super::doors;
use super::fault::{Fault, Step};
use super::filter::Filters;
use super::rights::drop_to;
use super::rootfs::{self, Bundle};
use crate::privsep::link::{pair, send_packet};
use crate::sys::clone::{Alone, Cloned, clone, exit_now, flags, unshare};
use crate::sys::exec::exec_with;
use crate::sys::seccomp::{Instruction, Listener, install};
use crate::sys::signal;

/// Process 1 runs as nobody of its own range: neither the user nor root of the jail.
const INIT_UID: u32 = 65534;

/// What the child reports on its socket, first byte of a packet.
pub mod report {
    /// The doors are open; their listeners ride along.
    pub const DOORS: u8 = b'd';
    /// Process 1 runs.
    pub const READY: u8 = b'r';
    /// A step failed: the rest of the packet is a sentence.
    pub const FAULT: u8 = b'f';
    /// A channel's terminal was made; its master rides along.
    pub const MASTER: u8 = b'm';
    /// A channel's exec notifications ride along.
    pub const LISTENER: u8 = b'l';
}

/// A jail on its way.
#[derive(Debug)]
pub struct Begun {
    pub pidfd: OwnedFd,
    /// Reports come here; when it closes, the jail is dead, and when we close it, process 1 ends.
    pub control: OwnedFd,
}

/// What is needed beside the bundle.
#[derive(Debug)]
pub struct Tools<'a> {
    pub alone: &'a Alone,
    pub filters: &'a Filters,
    pub init: BorrowedFd<'a>,
    /// The jailer's own pid namespace.
    pub own_pids: BorrowedFd<'a>,
}

/// Starts the building; reports follow on `control`.
pub fn begin(tools: &Tools<'_>, bundle: &Bundle<'_>, cgroup: &Cgroup) -> Result<Begun, Fault> {
    let (ours, theirs) = pair().step("make a control socket")?;
    let cloned = clone(tools.alone, flags::NEW_NAMESPACES, cgroup.birthplace()).step("clone process 1 of a jail")?;
    match cloned {
        Cloned::Parent { pidfd, .. } => Ok(Begun { pidfd, control: ours }),
        Cloned::Child => {
            drop(ours);
            if let Err(fault) = become_init(tools, bundle, cgroup, &theirs) {
                tell_fault(&theirs, &fault);
            }
            exit_now(1)
        }
    }
}

/// The child's last words.
pub fn tell_fault(socket: &OwnedFd, fault: &Fault) {
    let mut packet = vec![report::FAULT];
    packet.extend(fault.to_string().into_bytes());
    let _ = send_packet(socket.as_fd(), &packet, &[]);
}

fn become_init(tools: &Tools<'_>, bundle: &Bundle<'_>, cgroup: &Cgroup, control: &OwnedFd) -> Result<(), Fault> {
    set_parent_process_death_signal(Some(Signal::KILL)).step("die with the jailer")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("hide the jailer's memory")?;
    cgroup.enter()?;
    unshare(tools.alone, UnshareFlags::NEWCGROUP).step("unshare the cgroup namespace")?;
    rustix::process::setsid().step("begin a session")?;
    rootfs::enter(bundle)?;
    rustix::system::sethostname(b"stockade").step("set the jail's host name")?;
    let listeners = doors::open()?;
    let ride: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
    send_packet(control.as_fd(), &[report::DOORS], &ride).step("hand over the doors")?;
    signal::reset().step("reset the signals")?;
    enter_user_namespace(bundle.userns)?;
    drop_to(INIT_UID, INIT_UID, CapabilitySet::empty())?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("hide the jailer's memory")?;
    let null =
        rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty()).step("open /dev/null")?;
    // Process 1 waits in a read of its end.
    rustix::io::ioctl_fionbio(control, false).step("make the control socket wait")?;
    confine(&tools.filters.of_init, tools.filters)?;
    let title = CString::from(c"stockade-init");
    let places = [null.as_fd(), null.as_fd(), null.as_fd(), control.as_fd()];
    Err(Fault { step: "execute process 1", error: exec_with(tools.init, &places, &[title], &[]) })
}

/// The last of the namespaces: all others belong to the host's, where nobody in the jail has a capability.
pub fn enter_user_namespace(userns: BorrowedFd<'_>) -> Result<(), Fault> {
    rustix::thread::move_into_link_name_space(userns, Some(rustix::thread::LinkNameSpaceType::User))
        .step("enter the jail's user namespace")
}

/// See `filter` for the order.
pub fn confine(allowed: &[Instruction], filters: &Filters) -> Result<(), Fault> {
    install(allowed, Listener::None).step("install the list of allowed calls")?;
    install(&filters.unknown, Listener::None).step("install the filter of unknown calls")?;
    Ok(())
}
