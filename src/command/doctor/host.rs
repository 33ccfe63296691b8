//! What any bastion needs of its host, whatever the configuration.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use fs_err as fs;
use rustix::fs::statfs;

use super::Check;

/// `CGROUP2_SUPER_MAGIC`
const CGROUP2: i64 = 0x6367_7270;
const CONTROLLERS: [&str; 3] = ["pids", "memory", "cpu"];
/// idmapped mounts below overlayfs and seccomp's WAIT_KILLABLE_RECV came last.
const KERNEL: (u32, u32) = (5, 19);

/// Checks that a package, a module or sudo mends.
pub(super) const MENDED_BY_HAND: [&str; 3] = [ROOT, LOOPS, E2FSPROGS];
const ROOT: &str = "root";
const LOOPS: &str = "loop-devices";
const E2FSPROGS: &str = "e2fsprogs";

pub(super) fn checks() -> Vec<Check> {
    let mut checks = vec![root(), kernel(), namespaces(), seccomp(), filesystems(), loops(), e2fsprogs()];
    checks.extend(cgroups());
    checks.push(clock());
    checks
}

fn root() -> Check {
    let is = rustix::process::geteuid().is_root();
    Check::must(ROOT, is, "yes", "run the doctor as root, as the bastion will be: what follows may be wrong")
}

fn kernel() -> Check {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Check::must(
        "kernel",
        version >= KERNEL,
        &release,
        format!(
            "{release}; Linux 5.19 is the first with all that jails need (overlayfs on idmapped mounts, seccomp notifications \
             that a signal does not lose): install a newer one, Debian 12 has 6.1"
        ),
    )
}

fn namespaces() -> Check {
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let lacking: Vec<&str> = kinds.into_iter().filter(|kind| !Path::new("/proc/self/ns").join(kind).exists()).collect();
    if !lacking.is_empty() {
        return Check::fail(
            "namespaces",
            format!("this kernel has no {} namespaces; it needs CONFIG_NAMESPACES with all kinds", lacking.join(", ")),
        );
    }
    let most = number("/proc/sys/user/max_user_namespaces").unwrap_or(0);
    Check::must(
        "namespaces",
        most > 0,
        "all kinds",
        "user.max_user_namespaces is 0; run `sysctl -w user.max_user_namespaces=10000`, and keep it in /etc/sysctl.d",
    )
}

fn seccomp() -> Check {
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let has = |name| actions.split_whitespace().any(|action| action == name);
    Check::must(
        "seccomp",
        has("user_notif") && has("errno"),
        "filters and notifications",
        "this kernel has no seccomp notifications; it needs CONFIG_SECCOMP_FILTER",
    )
}

fn filesystems() -> Check {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    // What mount(2) asks for the kernel loads by itself.
    let modules = fs::read_to_string(format!("/lib/modules/{release}/modules.dep")).unwrap_or_default();
    let wanted = ["overlay", "ext4", "tmpfs", "devpts"];
    let lacking: Vec<&str> = wanted.into_iter().filter(|name| !is_known(name, &known, &modules)).collect();
    Check::must(
        "filesystems",
        lacking.is_empty(),
        wanted.join(", "),
        format!(
            "this kernel does not know {}, and has no module for it: install a kernel that does, Debian's linux-image-amd64",
            lacking.join(", "),
        ),
    )
}

/// By `/proc/filesystems`, or by `modules.dep`.
fn is_known(name: &str, known: &str, modules: &str) -> bool {
    let module = format!("/{name}.ko");
    known.lines().any(|line| line.split_whitespace().last() == Some(name))
        || modules.lines().any(|line| line.split(':').next().is_some_and(|path| path.contains(&module)))
}

fn loops() -> Check {
    Check::must(
        LOOPS,
        Path::new("/dev/loop-control").exists(),
        "/dev/loop-control",
        "/dev/loop-control is not there: run `modprobe loop`, or set home = \"ephemeral\" in [jail]",
    )
}

fn e2fsprogs() -> Check {
    let there =
        |name: &str| ["/usr/sbin", "/sbin", "/usr/bin"].iter().any(|folder| Path::new(folder).join(name).exists());
    let both = there("mkfs.ext4") && there("e2fsck");
    Check::must(
        E2FSPROGS,
        both,
        "mkfs.ext4, e2fsck",
        "homes need mkfs.ext4 and e2fsck: run `apt-get install e2fsprogs`, or set home = \"ephemeral\" in [jail]",
    )
}

fn cgroups() -> Vec<Check> {
    let root = Path::new("/sys/fs/cgroup");
    let is_v2 = |path: &Path| statfs(path).is_ok_and(|fs| fs.f_type == CGROUP2);
    if is_v2(root) {
        let has = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        return vec![controllers(&has.split_whitespace().collect::<Vec<_>>(), "version 2")];
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted =
        |name: &&str| mounts.lines().any(|line| line.split(' ').nth(1) == Some(&format!("/sys/fs/cgroup/{name}")));
    let has: Vec<&str> = CONTROLLERS.into_iter().filter(|name| mounted(name)).collect();
    let mut checks = vec![controllers(&has, "version 1")];
    if !is_v2(&root.join("unified")) {
        let mend = "there is no version 2 hierarchy beside version 1, so a jail cannot be killed at once: mount -t cgroup2 none \
                    /sys/fs/cgroup/unified, or boot with systemd.unified_cgroup_hierarchy=1";
        checks.push(Check::warn("cgroup-kill", mend));
    }
    checks
}

fn controllers(has: &[&str], version: &str) -> Check {
    let lacking: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !has.contains(name)).collect();
    let mend = format!(
        "{version} has no {} controller: jails would have no such limit; boot with cgroup_enable={}",
        lacking.join(", "),
        lacking.join(",")
    );
    Check::must("cgroups", lacking.is_empty(), format!("{version}: {}", CONTROLLERS.join(", ")), mend)
}

fn clock() -> Check {
    let now = SystemTime::now();
    let built = std::env::current_exe().and_then(std::fs::metadata).and_then(|about| about.modified());
    if built.is_ok_and(|built| built > now) {
        return Check::fail(
            "clock",
            "the clock is before this program's own file; set it: AWS and every recording depend on it",
        );
    }
    match is_synchronised() {
        Some(true) => Check::ok("clock", "synchronised"),
        Some(false) => Check::warn(
            "clock",
            "not synchronised; run `apt-get install systemd-timesyncd` or chrony: AWS refuses requests that are 5 minutes off",
        ),
        None => Check::warn("clock", "neither timedatectl nor chronyc says whether it is synchronised; install chrony"),
    }
}

fn is_synchronised() -> Option<bool> {
    let asked = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if let Some(said) = asked("timedatectl", &["show", "--property", "NTPSynchronized", "--value"]) {
        return Some(said == "yes");
    }
    // The last field of chronyc's line is the leap status.
    asked("chronyc", &["-c", "tracking"]).map(|said| !said.ends_with("Not synchronised"))
}

/// A number of the kernel's.
pub(super) fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_may_be_a_module_that_is_not_loaded() {
        let modules = "kernel/fs/overlayfs/overlay.ko:\nkernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz\n";
        assert!(is_known("overlay", "nodev\ttmpfs\n", modules) && is_known("ext4", "", modules));
        assert!(is_known("tmpfs", "nodev\ttmpfs\n", ""));
        assert!(!is_known("jbd", "", modules) && !is_known("over", "", modules));
    }

    #[test]
    fn a_missing_controller_is_named() {
        let check = controllers(&["cpu", "pids"], "version 2");
        assert!(check.text.contains("no memory controller"), "{}", check.text);
    }
}
