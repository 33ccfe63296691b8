//! The fences of the roles, closed around processes made for it and tried from inside.

use std::process::{Command, ExitCode, Stdio};

use landlock::{ABI, Access, AccessFs, LandlockStatus, Ruleset, RulesetAttr, RulesetCreatedAttr};

use super::Check;
use crate::privsep::Role;
use crate::privsep::fence::{self, Reach};
use crate::session::exit;

const LANDLOCK: &str = "landlock";
/// The porter where `[egress]` has rules.
const OUTWARD: &str = "porter-egress";
/// The first that knows of TCP ports, of ioctls, and of signals and abstract sockets.
const COMPLETE: i32 = 6;

pub(super) fn checks() -> Vec<Check> {
    let mut checks = vec![landlock()];
    checks.extend(Role::ALL.map(|of| role(&of.to_string())));
    checks.push(role(OUTWARD));
    checks
}

pub(super) fn landlock() -> Check {
    let mend =
        "boot the kernel with landlock among its security modules: lsm=landlock,… (and CONFIG_SECURITY_LANDLOCK)";
    match ask(LANDLOCK).and_then(|(_, said)| said.parse::<i32>().map_err(|e| e.to_string())) {
        Ok(abi) if abi >= COMPLETE => Check::ok(LANDLOCK, format!("ABI {abi}")),
        Ok(abi) if abi > 0 => Check::warn(
            LANDLOCK,
            format!(
                "ABI {abi} holds files but not all sockets and signals, which seccomp and namespaces hold then; Linux 6.12 has all"
            ),
        ),
        Ok(_) => Check::fail(LANDLOCK, mend),
        Err(why) => Check::fail(LANDLOCK, format!("{why}; {mend}")),
    }
}

fn role(role: &str) -> Check {
    let name = format!("fence-{role}");
    match ask(role) {
        Ok((true, _)) => Check::ok(&name, "holds"),
        Ok((false, said)) => Check::fail(
            &name,
            format!("{said}: what the role is refused was let through; do not run it on this kernel"),
        ),
        Err(why) => Check::fail(&name, why),
    }
}

/// Whether the process inside ended well, and what it said.
fn ask(inside: &str) -> Result<(bool, String), String> {
    let program = std::env::current_exe().map_err(|e| format!("cannot find this program's file: {e}"))?;
    let mut command = Command::new(program);
    command.args(["doctor", "--inside", inside]).stdin(Stdio::null());
    let output = command.output().map_err(|e| format!("cannot run this program again: {e}"))?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).trim().to_owned()))
}

/// The life of a process that closes the fence around itself.
pub(super) fn inside(name: &str) -> ExitCode {
    if name == LANDLOCK {
        println!("{}", landlock_abi());
        return ExitCode::SUCCESS;
    }
    let role = Role::ALL.into_iter().find(|role| role.to_string() == name);
    let Some(role) = role.or((name == OUTWARD).then_some(Role::Porter)) else {
        println!("there is no role '{name}'");
        return ExitCode::from(exit::MISUNDERSTOOD);
    };
    let reach = if role == Role::Warden || name == OUTWARD { Reach::Internet } else { Reach::Nowhere };
    if let Err(error) = fence::enter(role, reach, &[]) {
        println!("{error}");
        return ExitCode::FAILURE;
    }
    let holes = fence::holes(reach);
    println!("{}", holes.join(", "));
    if holes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Restricts this process: the library says the version only then.
fn landlock_abi() -> i32 {
    let restricted = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.no_new_privs(true).restrict_self());
    match restricted.map(|status| status.landlock) {
        Ok(LandlockStatus::Available { effective_abi, kernel_abi }) => kernel_abi.unwrap_or(effective_abi as i32),
        _ => 0,
    }
}
