use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope, make_bitflags,
};
use rustix::process::{Gid, Resource, Rlimit, Signal, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Error, Result};

/// Nobody: only the process that unpacks runs as this and never two that could meet, each in its own root.
const SPARE: u32 = 65534;
const MOST_MEMORY: u64 = 1 << 30;

/// A directory that the caller's shell left open would be a way out of the root: `openat(it, "..")`. Called first, while
/// this process has opened nothing itself.
pub(super) fn check_inherited() -> Result<()> {
    let listing = std::fs::read_dir("/proc/self/fd").map_err(failed("list its descriptors"))?;
    for entry in listing {
        let path = entry.map_err(failed("list its descriptors"))?.path();
        let own = std::fs::read_link(&path).is_ok_and(|target| target.starts_with("/proc"));
        if !own && std::fs::metadata(&path).is_ok_and(|open| open.is_dir()) {
            let told = format!("{} is a directory left open by the caller; close it", path.display());
            return Err(failed("inherited descriptors")(told));
        }
    }
    Ok(())
}

/// Shuts this process into its working directory for good.
///
/// Files in an image belong to many users, so the right to give files away (CHOWN) and to set the mode of what was given
/// (FOWNER) must stay; a user namespace would shift the owners it writes. Neither is checked by landlock, so a captured
/// process must not be able to *name* a file outside: chroot does that, and without CAP_SYS_CHROOT and with no directory
/// opened before there is no way out of it. Landlock then takes devices, pipes, sockets, execution and the network, and
/// the spare uid the files and processes of everybody else.
pub(super) fn enter() -> Result<()> {
    rustix::process::chroot(".").map_err(failed("chroot"))?;
    rustix::process::chdir("/").map_err(failed("chdir"))?;
    rustix::thread::set_no_new_privs(true).map_err(failed("no_new_privs"))?;
    landlock()?;
    limits()?;
    change_user()?;
    // After the change of user, which clears it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("parent death signal"))
}

fn landlock() -> Result<()> {
    let needed = make_bitflags!(AccessFs::{
        ReadDir | ReadFile | WriteFile | RemoveDir | RemoveFile | MakeDir | MakeReg | MakeSym | Refer
    });
    let newest = ABI::V6;
    // Hard links across directories are what ABI 2 (Linux 5.19) brought; below it nothing could be unpacked.
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V2))
        .map_err(failed("landlock (Linux 5.19 with `landlock` among its LSMs is needed)"))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(newest))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(newest)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(newest)))
        .map_err(failed("landlock"))?;
    let root = PathFd::new("/").map_err(failed("landlock"))?;
    let rule = PathBeneath::new(root, needed | AccessFs::Truncate);
    let ruleset = ruleset.create().and_then(|created| created.add_rule(rule)).map_err(failed("landlock"))?;
    ruleset.restrict_self().map(drop).map_err(failed("landlock"))
}

fn limits() -> Result<()> {
    let most = |most| Rlimit { current: Some(most), maximum: Some(most) };
    for (resource, limit) in [(Resource::Data, MOST_MEMORY), (Resource::Core, 0), (Resource::Nproc, 0)] {
        rustix::process::setrlimit(resource, most(limit)).map_err(failed("limits"))?;
    }
    Ok(())
}

fn change_user() -> Result<()> {
    let kept = CapabilitySet::CHOWN | CapabilitySet::FOWNER;
    for capability in CapabilitySet::all().difference(kept).iter() {
        // A capability this kernel does not know cannot be in its bounding set.
        if let Err(errno) = rustix::thread::remove_capability_from_bounding_set(capability)
            && errno != rustix::io::Errno::INVAL
        {
            return Err(failed("bounding set")(errno));
        }
    }
    let (uid, gid) = (Uid::from_raw(SPARE), Gid::from_raw(SPARE));
    rustix::thread::set_keep_capabilities(true).map_err(failed("keep capabilities"))?;
    rustix::thread::set_thread_groups(&[]).map_err(failed("setgroups"))?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed("setresgid"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed("setresuid"))?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(failed("capset"))
}

/// Who owns the directory that is to be filled.
pub(super) const OWNER: u32 = SPARE;

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(step: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::Fence { step, source: source.into() }
}
