//! Starting a program in a jail that stands: a child of the jailer is born into the jail's pid namespace, enters the
//! others, makes its terminal and becomes the program.
//!
//! The class of CVE-2019-5736 and CVE-2024-21626 lives here: the one that enters executes nothing, is not dumpable, has
//! no descriptor and no working directory of the host's, and what is executed is looked up after the last right is gone.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fchmod, fchown, open};
use rustix::process::{
    DumpableBehavior, Gid, Pid, Resource, Rlimit, Signal, Uid, getrlimit, ioctl_tiocsctty, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};

use super::build::{Tools, confine, enter_user_namespace, report, tell_fault};
use super::cgroup::Cgroup;
use super::fault::{Fault, Step};
use super::modes;
use super::rights::drop_to;
use super::rootfs::USER;
use crate::privsep::link::{pair, send_packet};
use crate::privsep::message::{Program, Terminal};
use crate::sys::clone::{Cloned, clone, exit_now};
use crate::sys::exec::exec_path;
use crate::sys::seccomp::{Listener, install};
use crate::sys::signal;

/// What `ps` shows of the `stockade` command until it is the shell. Its arguments: the shell's path, then its words.
pub const LOGIN: &str = "stockade: login";

/// The variable that tells `LOGIN` the names of the clusters.
pub const CLUSTERS: &str = "STOCKADE_CLUSTERS";

/// The `stockade` command inside a jail.
const COMMAND: &str = "/usr/local/bin/stockade";

/// A program to start.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Process 1 of the jail.
    pub init: BorrowedFd<'a>,
    pub userns: BorrowedFd<'a>,
    pub first_uid: u32,
    pub program: &'a Program,
    pub terminal: Option<&'a Terminal>,
    /// Where there is no terminal: the program's ends of stdin, stdout, stderr.
    pub pipes: Option<[BorrowedFd<'a>; 3]>,
    pub shell: &'a str,
    pub home: &'a str,
    pub environment: &'a [(String, String)],
    pub exec_audit: bool,
    /// Through the `stockade` command, which brings the user's kubeconfig in step and then becomes the shell.
    pub in_step: bool,
}

/// A program on its way.
#[derive(Debug)]
pub struct Begun {
    pub program: OwnedFd,
    /// Its process group too: it begins a session.
    pub pid: Pid,
    /// Reports come here; closed without a fault: the program runs.
    pub reports: OwnedFd,
}

/// Starts it; see `build::report` for what follows.
pub fn begin(tools: &Tools<'_>, launch: &Launch<'_>, cgroup: &Cgroup) -> Result<Begun, Fault> {
    let (ours, theirs) = pair().step("make a control socket")?;
    match bear(tools, launch.init, cgroup)? {
        Cloned::Parent { pid, pidfd } => Ok(Begun { program: pidfd, pid, reports: ours }),
        Cloned::Child => {
            drop(ours);
            if let Err(fault) = go_in(tools, launch, cgroup, &theirs) {
                tell_fault(&theirs, &fault);
            }
            exit_now(1)
        }
    }
}

/// A child in the jail's pid namespace: that one counts for children only, so the jailer chooses it for this one birth.
/// The child is the jailer's own from its first moment: nobody in the jail can make it lost.
fn bear(tools: &Tools<'_>, init: BorrowedFd<'_>, cgroup: &Cgroup) -> Result<Cloned, Fault> {
    move_into_thread_name_spaces(init, ThreadNameSpaceType::PROCESS_ID).step("choose the jail's pid namespace")?;
    let cloned = clone(tools.alone, 0, cgroup.birthplace());
    if !matches!(cloned, Ok(Cloned::Child))
        && let Err(e) = move_into_link_name_space(tools.own_pids, Some(LinkNameSpaceType::ProcessID))
    {
        // The next role would be born into a jail.
        eprintln!("stockade: jailer: cannot choose the host's pid namespace again: {e}");
        exit_now(1);
    }
    cloned.step("clone the program's process")
}

fn go_in(tools: &Tools<'_>, launch: &Launch<'_>, cgroup: &Cgroup, reports: &OwnedFd) -> Result<(), Fault> {
    set_parent_process_death_signal(Some(Signal::KILL)).step("die with the jailer")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("hide the jailer's memory")?;
    cgroup.enter()?;
    let others = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    move_into_thread_name_spaces(launch.init, others).step("enter the jail's namespaces")?;
    rustix::process::chdir("/").step("enter the jail's root")?;
    let terminal = launch.terminal.map(|wish| make_terminal(wish, launch.first_uid)).transpose()?;
    if let Some((master, _)) = &terminal {
        send_packet(reports.as_fd(), &[report::MASTER], &[master.as_fd()]).step("hand over the terminal")?;
    }
    become_program(tools, launch, terminal.map(|(_, slave)| slave), reports)
}

/// A terminal of the jail's own instance. The slave is opened by ioctl: there is no path to be raced.
fn make_terminal(wish: &Terminal, first_uid: u32) -> Result<(OwnedFd, OwnedFd), Fault> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = open("/dev/pts/ptmx", flags, Mode::empty()).step("open a terminal")?;
    unlockpt(&master).step("unlock the terminal")?;
    let open_slave = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, open_slave).step("open the terminal's other end")?;
    let (user, group) = (Uid::from_raw(first_uid + USER), Gid::from_raw(first_uid + 5));
    fchown(&slave, Some(user), Some(group)).step("own the terminal")?;
    fchmod(&slave, Mode::from_raw_mode(0o620)).step("set the terminal's mode")?;
    modes::apply(&slave, wish).step("set the terminal's modes")?;
    Ok((master, slave))
}

fn become_program(
    tools: &Tools<'_>,
    launch: &Launch<'_>,
    terminal: Option<OwnedFd>,
    reports: &OwnedFd,
) -> Result<(), Fault> {
    rustix::process::setsid().step("begin a session")?;
    attach(terminal.as_ref(), launch.pipes)?;
    signal::reset().step("reset the signals")?;
    enter_user_namespace(launch.userns)?;
    drop_to(USER, USER, CapabilitySet::empty())?;
    // The change of user has set it to what fs.suid_dumpable says.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("hide the jailer's memory")?;
    if launch.exec_audit {
        let listener = install(&tools.filters.reported, Listener::New).step("install the exec filter")?;
        if let Some(listener) = listener {
            send_packet(reports.as_fd(), &[report::LISTENER], &[listener.as_fd()]).step("hand over exec reports")?;
        }
    }
    confine(&tools.filters.allowed, tools.filters)?;
    // The home may be full, foreign or gone: then the shell starts in /, as sshd does it.
    let _ = rustix::process::chdir(launch.home);
    let (path, arguments) = command_line(launch)?;
    let environment = environment(launch)?;
    keep_only(reports)?;
    // Last: until here this process has as many descriptors as the jailer.
    limit()?;
    Err(Fault { step: "execute the shell", error: exec_path(&path, &arguments, &environment) })
}

fn attach(terminal: Option<&OwnedFd>, pipes: Option<[BorrowedFd<'_>; 3]>) -> Result<(), Fault> {
    use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
    let [input, output, errors] = match (terminal, pipes) {
        (Some(slave), _) => {
            ioctl_tiocsctty(slave).step("take the terminal")?;
            [slave.as_fd(); 3]
        }
        (None, Some(pipes)) => pipes,
        (None, None) => return Err(Fault::new("attach the program", "it has neither a terminal nor pipes")),
    };
    dup2_stdin(input).step("attach stdin")?;
    dup2_stdout(output).step("attach stdout")?;
    dup2_stderr(errors).step("attach stderr")
}

fn limit() -> Result<(), Fault> {
    lower(Resource::Core, 0, 0).step("limit core files")?;
    lower(Resource::Memlock, 64 << 10, 64 << 10).step("limit locked memory")?;
    lower(Resource::Nofile, 1024, 4096).step("limit descriptors")
}

/// Nobody here may raise what the bastion itself was given.
fn lower(resource: Resource, current: u64, maximum: u64) -> rustix::io::Result<()> {
    let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    setrlimit(resource, Rlimit { current: Some(most.min(current)), maximum: Some(most.min(maximum)) })
}

/// Everything is marked to close on exec: std, rustix and the kernel's own gifts. This makes sure of it.
fn keep_only(reports: &OwnedFd) -> Result<(), Fault> {
    rustix::io::fcntl_setfd(reports, rustix::io::FdFlags::CLOEXEC).step("mark the control socket")?;
    crate::sys::exec::close_on_exec_from(3).step("mark the descriptors")
}

fn command_line(launch: &Launch<'_>) -> Result<(CString, Vec<CString>), Fault> {
    let name = launch.shell.rsplit('/').next().unwrap_or(launch.shell);
    let words = match launch.program {
        Program::Shell => vec![format!("-{name}")],
        Program::Exec(command) => vec![name.to_owned(), "-c".to_owned(), command.clone()],
    };
    let before = launch.in_step.then(|| [LOGIN.to_owned(), launch.shell.to_owned()]);
    let path = if launch.in_step { COMMAND } else { launch.shell };
    let words = before.into_iter().flatten().chain(words);
    Ok((text(path.to_owned())?, words.map(text).collect::<Result<_, _>>()?))
}

fn environment(launch: &Launch<'_>) -> Result<Vec<CString>, Fault> {
    let mut seen = std::collections::BTreeMap::new();
    for (name, value) in launch.environment {
        seen.insert(name.as_str(), value.as_str());
    }
    seen.into_iter().map(|(name, value)| text(format!("{name}={value}"))).collect()
}

fn text(string: String) -> Result<CString, Fault> {
    CString::new(string).map_err(|_| Fault::new("pass the command", "it has a NUL byte in it"))
}
