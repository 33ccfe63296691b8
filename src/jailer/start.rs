//! From the command line to the loop: loader, host checks, private mounts, then `supervise`.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use fs_err as fs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create, open};
use rustix::process::{
    DumpableBehavior, Signal, pidfd_send_signal, set_dumpable_behavior, set_parent_process_death_signal,
};

use super::fault::{Fault, Step};
use super::jail::{instance_directory, reap};
use super::plan::{Held, Plan};
use super::program;
use super::supervise::Jailer;
use super::userns;
use crate::privsep::link::{pair, recv_packet};
use crate::sys::clone::{Alone, Cloned, clone, exit_now};
use crate::sys::exec::exec_with;
use crate::sys::signal;

/// What `ps` shows of the process that reads the configuration.
pub const LOADER: &str = "stockade: loader";

/// A loader that takes longer than this hangs.
const LOAD_DEADLINE: i64 = 30;

/// Why no plan came.
#[derive(Debug)]
pub enum NoPlan {
    /// The loader has said in the log what is wrong, and here in one sentence.
    Refused {
        code: u8,
        reason: String,
    },
    Fault(Fault),
}

/// Runs the bastion until it is told to stop.
pub fn run(configuration: &str) -> ExitCode {
    match serve(configuration) {
        Ok(code) => code,
        Err(fault) => {
            eprintln!("stockade: jailer: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn serve(configuration: &str) -> Result<ExitCode, Fault> {
    let alone = Alone::prove().step("begin as a process of one thread")?;
    let signals = signal::descriptor(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]).step("watch for signals")?;
    // Before the mounts are private: where systemd made the former ones for us alone, they go, and with them the path.
    let own = std::env::current_exe().step("find the program's file")?;
    let program = open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step("open the program")?;
    let (plan, held) = match load(&alone, &program, configuration, None) {
        Ok(loaded) => loaded,
        Err(NoPlan::Refused { code, .. }) => return Ok(ExitCode::from(code)),
        Err(NoPlan::Fault(fault)) => return Err(fault),
    };
    // For its children too, from their first moment.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("hide this process's memory")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    many_descriptors()?;
    userns::private_mounts(&alone)?;
    let run = instance_directory(&plan.instance);
    prepare(&run, &own)?;
    let mut jailer = Jailer::new(alone, plan, held, program, configuration.to_owned(), run)?;
    jailer.serve(&signals)
}

/// A jail costs the jailer and the porter some ten descriptors each; the roles inherit the limit, jails do not.
fn many_descriptors() -> Result<(), Fault> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    if setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).is_ok() {
        return Ok(());
    }
    // Root without CAP_SYS_RESOURCE, in a container perhaps: then as far as it goes; `stockade doctor` counts.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).step("raise the limit of descriptors")
}

/// Directories of this boot, closed to everybody: what lies in them is reached through them or not at all.
fn prepare(run: &str, own: &Path) -> Result<(), Fault> {
    use std::os::unix::fs::PermissionsExt;
    for directory in [run.to_owned(), format!("{run}/jail"), format!("{run}/empty"), format!("{run}/homes")] {
        fs::create_dir_all(&directory).step("make the run directory")?;
        fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700)).step("close the run directory")?;
    }
    program::hold(own, run)
}

/// The opposite of `prepare`; only what that made, and only where it is empty.
pub fn tidy(run: &str) {
    program::release(run);
    for user in fs::read_dir(format!("{run}/homes")).into_iter().flatten().flatten() {
        let _ = fs::remove_dir(user.path());
    }
    for directory in ["homes", "empty", "jail", ""] {
        let _ = fs::remove_dir(format!("{run}/{directory}"));
    }
}

/// A file in memory that nobody can change any more.
pub fn sealed(name: &str, bytes: &[u8]) -> Result<OwnedFd, Fault> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).step("make a file in memory")?;
    let mut file = std::fs::File::from(file);
    file.write_all(bytes).step("fill a file in memory")?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&file, seals).step("seal a file in memory")?;
    Ok(file.into())
}

/// Has another process read the configuration; `former`: for a reload, the one in force, whose listeners stay open.
pub fn load(alone: &Alone, program: &OwnedFd, path: &str, former: Option<&OwnedFd>) -> Result<(Plan, Held), NoPlan> {
    let (ours, theirs) = pair().step("make a socket for the loader").map_err(NoPlan::Fault)?;
    let cloned = clone(alone, 0, None).step("clone the loader").map_err(NoPlan::Fault)?;
    let Cloned::Parent { pidfd, .. } = cloned else {
        let Err(fault) = become_loader(program.as_fd(), &theirs, path, former);
        eprintln!("stockade: loader: {fault}");
        exit_now(1)
    };
    drop(theirs);
    let answer = wait_for_plan(&ours, &pidfd);
    let status = reap(&pidfd);
    let code = u8::try_from(status >> 8).ok().filter(|c| *c != 0).unwrap_or(1);
    match (status, answer) {
        (0, Ok(Ok(plan))) => Ok(plan),
        (_, Ok(Err(reason))) => Err(NoPlan::Refused { code, reason }),
        (0, Err(fault)) => Err(NoPlan::Fault(fault)),
        (status, _) => Err(NoPlan::Refused { code, reason: format!("the loader ended with status {status:#x}") }),
    }
}

fn become_loader(
    program: BorrowedFd<'_>,
    socket: &OwnedFd,
    path: &str,
    former: Option<&OwnedFd>,
) -> Result<std::convert::Infallible, Fault> {
    signal::reset().step("reset the signals")?;
    set_parent_process_death_signal(Some(Signal::KILL)).step("die with the jailer")?;
    let text = |s: &str| CString::new(s).map_err(|_| Fault::new("start the loader", "a NUL byte in a path"));
    let mut arguments = vec![text(LOADER)?, text(path)?];
    if former.is_some() {
        arguments.push(text("--again")?);
    }
    let environment = vec![text(&format!("PATH={}", super::home::SBIN))?];
    let mut places = vec![rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr(), socket.as_fd()];
    places.extend(former.map(AsFd::as_fd));
    Err(Fault { step: "execute the loader", error: exec_with(program, &places, &arguments, &environment) })
}

/// The plan and what it needs, or the loader's reason why there is none.
fn wait_for_plan(socket: &OwnedFd, loader: &OwnedFd) -> Result<Result<(Plan, Held), String>, Fault> {
    let deadline = Timespec { tv_sec: LOAD_DEADLINE, tv_nsec: 0 };
    if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&deadline)).step("wait for the loader")? == 0 {
        let _ = pidfd_send_signal(loader, Signal::KILL);
        return Err(Fault::new("load the configuration", "the loader did not answer"));
    }
    let mut packet = Vec::new();
    let descriptors = recv_packet(socket.as_fd(), &mut packet).map_err(|e| Fault::new("hear the loader", e))?;
    let answer: Result<Plan, String> = minicbor::decode(&packet).map_err(|e| Fault::new("understand the loader", e))?;
    let plan = match answer {
        Ok(plan) => plan,
        Err(reason) => return Ok(Err(reason)),
    };
    let held =
        Held::sort(&plan, descriptors).ok_or_else(|| Fault::new("hear the loader", "descriptors are missing"))?;
    Ok(Ok((plan, held)))
}
