//! What this configuration needs of its host: numbers, disks, keys, the image.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::statvfs;
use rustix::process::{Resource, getrlimit};

use super::Check;
use super::host::number;
use crate::config::{Config, Recording, Ssh, keyfile};
use crate::identity::Principal;
use crate::image;

/// Of the jailer, for each jail: pidfd, terminal, doors, and room for a second channel.
const DESCRIPTORS: u64 = 16;
/// A session has one terminal, seldom two.
const TERMINALS: u64 = 2;
/// The widest private network is a /8.
const WIDE: u8 = 8;
/// What the host needs for itself.
const HOST_TERMINALS: u64 = 64;

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let mut checks = vec![roles(config), uids(config)];
    checks.extend(limits(config));
    checks.extend([space(&config.recording), own_filesystem(config), strangers(&config.ssh)]);
    checks.extend(config.ssh.host_keys.iter().map(|path| host_key(path)));
    checks.extend([keys(&config.users.authorized_keys), image(config)]);
    checks
}

fn roles(config: &Config) -> Check {
    let r = &config.roles;
    let all = [r.gate, r.warden, r.porter, r.keeper, r.tally].into_iter().chain(r.portal);
    let uids: Vec<String> = all.map(|account| account.uid.to_string()).collect();
    Check::ok("roles", format!("uids {}", uids.join(", ")))
}

/// What an admin has loosened for those who have not logged in.
fn strangers(ssh: &Ssh) -> Check {
    const NAME: &str = "admission";
    let wide: Vec<String> =
        ssh.exempt.iter().filter(|net| net.0.prefix_len() < WIDE).map(|net| String::from(*net)).collect();
    match ssh.penalties {
        None => Check::warn(
            NAME,
            "nobody is penalised, so keys can be tried without end; take `penalties = false` out of [ssh], and name \
             health checks and offices in `exempt`",
        ),
        Some(_) if !wide.is_empty() => {
            let wide = wide.join(", ");
            Check::warn(NAME, format!("{wide} in `exempt` is wide; name the networks that are yours"))
        }
        Some(_) if ssh.exempt.is_empty() => Check::ok(NAME, "every source has a share and penalties"),
        Some(_) => Check::ok(NAME, format!("{} networks have no share and no penalties", ssh.exempt.len())),
    }
}

/// `config` has compared them with /etc/passwd, /etc/subuid and systemd's; what runs is another matter.
fn uids(config: &Config) -> Check {
    let range = config.jail.uids();
    let shown = format!("{} to {}", range.start, range.end - 1);
    let Ok(processes) = fs::read_dir("/proc") else { return Check::fail("uids", "/proc cannot be read") };
    let owners =
        processes.flatten().filter(|entry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()));
    let inside = owners
        .filter_map(|entry| entry.metadata().ok())
        .filter(|about| range.contains(&u64::from(about.uid())))
        .count();
    match inside {
        0 => Check::ok("uids", shown),
        _ => Check::ok("uids", format!("{shown}; {inside} processes have one of these: a bastion runs")),
    }
}

fn limits(config: &Config) -> Vec<Check> {
    let jails = u64::from(config.jail.max_jails);
    let sysctl = |check: &str, name: &str, needed: u64, why: &str| {
        let has = number(&format!("/proc/sys/{}", name.replace('.', "/"))).unwrap_or(0);
        match has >= needed {
            true => Check::ok(check, format!("{name} = {has}")),
            false => Check::warn(
                check,
                format!(
                    "{name} is {has}, {why}: run `sysctl -w {name}={needed}` and keep it in /etc/sysctl.d, or lower max_jails"
                ),
            ),
        }
    };
    let pids = jails.saturating_mul(u64::from(config.jail.pids)).min(4_194_304);
    let descriptors = 256 + DESCRIPTORS * jails;
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    vec![
        sysctl(
            "terminals",
            "kernel.pty.max",
            HOST_TERMINALS + TERMINALS * jails,
            &format!("too few for {jails} jails"),
        ),
        sysctl(
            "processes",
            "kernel.pid_max",
            pids,
            &format!("which {jails} jails of {} processes can use up", config.jail.pids),
        ),
        match most >= descriptors {
            true => Check::ok("descriptors", format!("at most {most}")),
            false => Check::warn(
                "descriptors",
                format!(
                    "a process may have {most} here, and {jails} jails need {descriptors}: set LimitNOFILE={descriptors} in the service"
                ),
            ),
        },
    ]
}

fn space(recording: &Recording) -> Check {
    let Some(place) = existing(&recording.directory) else {
        return Check::fail("space", "no directory above the recordings exists");
    };
    let fs = match statvfs(&place) {
        Ok(fs) if fs.f_blocks > 0 => fs,
        Ok(_) => return Check::warn("space", format!("{} does not say how full it is", place.display())),
        Err(e) => return Check::fail("space", format!("cannot look at {}: {e}", place.display())),
    };
    // As df has it: what root alone may use counts as used up.
    let used = fs.f_blocks.saturating_sub(fs.f_bfree);
    let percent = (used * 100).div_ceil((used + fs.f_bavail).max(1));
    let free = fs.f_bavail.saturating_mul(fs.f_frsize) >> 20;
    let at = |limit: u8| percent >= u64::from(limit);
    let text = format!("{percent} % used, {free} MiB free at {}", place.display());
    if at(recording.refuse_at) {
        return Check::fail(
            "space",
            format!(
                "{text}: no session can begin at {} %; free some, or raise refuse_at in [recording]",
                recording.refuse_at
            ),
        );
    }
    if at(recording.warn_at) {
        return Check::warn("space", format!("{text}: no session can begin at {} %; free some", recording.refuse_at));
    }
    Check::ok("space", text)
}

fn own_filesystem(config: &Config) -> Check {
    let device = |path: &Path| existing(path).and_then(|path| fs::metadata(path).ok()).map(|about| about.dev());
    let recordings = device(&config.recording.directory);
    let others = [Path::new("/"), &config.state.directory];
    let shared: Vec<String> =
        others.iter().filter(|path| device(path) == recordings).map(|path| path.display().to_string()).collect();
    match shared.is_empty() {
        true => Check::ok("recordings", "on a filesystem of their own"),
        false => Check::warn(
            "recordings",
            format!(
                "they share a filesystem with {}, and whatever fills that ends all sessions; give {} one of its own",
                shared.join(" and "),
                config.recording.directory.display()
            ),
        ),
    }
}

/// The path, or the nearest directory above it that is there.
fn existing(path: &Path) -> Option<PathBuf> {
    path.ancestors().find(|path| path.exists()).map(Path::to_owned)
}

fn host_key(path: &Path) -> Check {
    let shown = path.display();
    let about = match fs::metadata(path) {
        Ok(about) => about,
        Err(e) => return Check::fail("host-key", format!("{e}; make one: ssh-keygen -t ed25519 -N '' -f {shown}")),
    };
    if about.mode() & 0o077 != 0 || about.uid() != 0 {
        return Check::fail(
            "host-key",
            format!(
                "{shown} can be read by others than root; run `chown root {shown} && chmod 600 {shown}`, and make a new one if others are here"
            ),
        );
    }
    let text = fs::read_to_string(path).map(zeroize::Zeroizing::new);
    match text.map(|text| russh::keys::decode_secret_key(&text, None).is_ok()) {
        Ok(true) => Check::ok("host-key", shown.to_string()),
        _ => Check::fail(
            "host-key",
            format!(
                "{shown} is not an OpenSSH private key without a passphrase; make one: ssh-keygen -t ed25519 -N '' -f {shown}"
            ),
        ),
    }
}

fn keys(folder: &Path) -> Check {
    let shown = folder.display();
    let opened = match fs::File::open(folder) {
        Ok(opened) => opened.into_parts().0,
        Err(e) => return Check::fail("keys", format!("{e}; make it: install -d -m 755 {shown}")),
    };
    let users =
        fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let (mut count, mut refused) = (0, Vec::new());
    for name in users {
        match name.parse::<Principal>().map(|user| keyfile::read(opened.as_fd(), &user)) {
            Ok(Ok(_)) => count += 1,
            Ok(Err(error)) => refused.push(error.to_string()),
            Err(_) => refused.push(format!("{name:?} is nobody's name")),
        }
    }
    match refused.is_empty() {
        true => Check::ok("keys", format!("{count} users in {shown}")),
        false => Check::fail("keys", refused.join("; ")),
    }
}

fn image(config: &Config) -> Check {
    let images = config.state.directory.join("images");
    let name = &config.jail.image;
    match name.parse().and_then(|name| image::Store::new(&images).resolve(&name)) {
        Ok(_) => Check::ok("image", format!("`{name}` in {}", images.display())),
        Err(error) => Check::fail(
            "image",
            format!(
                "{error}; build and import one: stockade image import \"$(images/build)\" --name {name} --directory {}",
                images.display()
            ),
        ),
    }
}
