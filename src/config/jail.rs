//! `[jail]` and `[roles]`: the numbers of users must not meet anybody else's.

use std::ops::Range;

use super::accounts::{account, accounts, overlap, ranges};
use super::check::Host;
use super::read::{Field, Reading, Section};
use super::report::Mistake;
use super::types::{Account, Home, Jail, Roles, SLOT};
use super::value::{Parsed, Value, choice, cpus, flag, size, text, whole, wrong};

/// <https://systemd.io/UIDS-GIDS/>: containers (nspawn), then images of foreign systems.
const SYSTEMD: [(Range<u64>, &str); 2] = [
    (524_288..1_879_048_192, "systemd's containers (524288 to 1879048191)"),
    (2_147_352_576..2_147_418_112, "systemd's foreign images (2147352576 to 2147418111)"),
];
/// Nobody: what the kernel shows for a number that has no meaning here.
const NOBODY: u32 = 65534;

pub(super) fn jail(r: &mut Reading<'_>, host: &Host<'_>) -> Option<Jail> {
    const HOMES: &[(&str, Home)] = &[("persistent", Home::Persistent), ("ephemeral", Home::Ephemeral)];
    const MIB: u64 = 1 << 20;
    const TIB: u64 = 1 << 40;
    let mut s = r.section("jail");
    let image = s.or("image", "base".to_owned(), image);
    let shell = s.or("shell", "/bin/bash".to_owned(), shell);
    let home = s.or("home", Home::Persistent, choice(HOMES));
    let home_size = s.or("home_size", 1 << 30, size(16 * MIB..=16 * TIB));
    let scratch_size = s.or("scratch_size", 64 * MIB, size(MIB..=TIB));
    let pids = s.or("pids", 256, whole(8..=4_194_304));
    let memory = s.or("memory", 1 << 30, size(16 * MIB..=16 * TIB));
    let cpu = s.or("cpu", 2.0, cpus);
    let max_jails = s.or("max_jails", 1000, whole(1..=65_535));
    let uid_base = s.or("uid_base", 1_879_048_192, whole(SLOT..=u32::MAX));
    let exec_audit = s.or("exec_audit", true, flag);
    s.close();
    if let (Some(base), Some(jails)) = (uid_base.value, max_jails.value) {
        let wanted = u64::from(base)..u64::from(base) + u64::from(jails) * u64::from(SLOT);
        r.mistakes.extend(taken(&wanted, &uid_base, host));
    }
    Some(Jail {
        image: image.value?,
        shell: shell.value?,
        home: home.value?,
        home_size: home_size.value?,
        scratch_size: scratch_size.value?,
        pids: pids.value?,
        memory: memory.value?,
        cpu: cpu.value?,
        max_jails: max_jails.value?,
        uid_base: uid_base.value?,
        exec_audit: exec_audit.value?,
    })
}

/// Who else has uids of the jails' range.
fn taken(wanted: &Range<u64>, at: &Field<u32>, host: &Host<'_>) -> Vec<Mistake> {
    const HINT: &str = "the jails take 65536 uids each from `uid_base` on; the default, 1879048192, is free by custom";
    let jails = format!("the jails' uids ({} to {})", wanted.start, wanted.end - 1);
    // (uid_t)-1 means "unchanged" to chown(2): no user may have it.
    if wanted.end > u64::from(u32::MAX) {
        let hint = "lower `uid_base` or `max_jails`: each jail takes 65536 uids";
        return vec![at.mistake(format!("`uid_base`: {jails} pass 2^32"), hint)];
    }
    let mut mistakes = Vec::new();
    for (_, whose) in SYSTEMD.iter().filter(|(range, _)| overlap(wanted, range)) {
        mistakes.push(at.mistake(format!("`uid_base`: {jails} meet those of {whose}"), HINT));
    }
    for (file, content) in [("/etc/subuid", host.subuid), ("/etc/subgid", host.subgid)] {
        for (owner, range) in ranges(content).filter(|(_, range)| overlap(wanted, range)) {
            let theirs = format!("those of '{owner}' in {file} ({} to {})", range.start, range.end - 1);
            mistakes.push(at.mistake(format!("`uid_base`: {jails} meet {theirs}"), HINT));
        }
    }
    for (name, account) in accounts(host.passwd).filter(|(_, account)| wanted.contains(&u64::from(account.uid))) {
        let what = format!("`uid_base`: account '{name}' ({}) is among {jails}", account.uid);
        mistakes.push(at.mistake(what, HINT));
    }
    mistakes
}

fn image(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    let first = found.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let letters = found.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
    if first && letters && found.len() <= 128 {
        return Ok(found);
    }
    wrong(value, format!("'{found}' is not the name of an image"), "`stockade image list` shows the names")
}

fn shell(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    if found.starts_with('/') && !found.ends_with('/') && !found.split('/').any(|part| part == "..") {
        return Ok(found);
    }
    wrong(
        value,
        format!("'{found}' is not an absolute path"),
        "write the path of the shell inside the image: \"/bin/bash\"",
    )
}

/// `laptops`: there is a portal, which needs an account.
pub(super) fn roles(r: &mut Reading<'_>, host: &Host<'_>, jail: Option<&Jail>, laptops: bool) -> Option<Roles> {
    let mut s = r.section("roles");
    let portal = laptops.then(|| ("portal", role(&mut s, "portal", "stockade-portal", host)));
    if !laptops {
        // Named ahead of need: not resolved, since nobody runs as it.
        s.maybe("portal", text);
    }
    let accounts = [
        ("gate", role(&mut s, "gate", "stockade-gate", host)),
        ("warden", role(&mut s, "warden", "stockade", host)),
        ("porter", role(&mut s, "porter", "stockade-door", host)),
        ("keeper", role(&mut s, "keeper", "stockade-keep", host)),
        ("tally", role(&mut s, "tally", "stockade-tally", host)),
    ];
    s.close();
    for (number, (name, field)) in accounts.iter().chain(&portal).enumerate() {
        let Some(account) = field.value else { continue };
        r.mistakes.extend(unfit(name, field, account, jail));
        let twin = accounts
            .iter()
            .chain(&portal)
            .take(number)
            .find(|(_, other)| other.value.is_some_and(|o| o.uid == account.uid));
        if let Some((twin, _)) = twin {
            let hint = "each role needs a uid of its own, or one could trace the other";
            r.mistakes.push(field.mistake(format!("`{name}` has the uid of `{twin}` ({})", account.uid), hint));
        }
    }
    let [gate, warden, porter, keeper, tally] = accounts.map(|(_, field)| field.value);
    let portal = match portal {
        Some((_, field)) => Some(field.value?),
        None => None,
    };
    Some(Roles { gate: gate?, warden: warden?, porter: porter?, keeper: keeper?, tally: tally?, portal })
}

fn role(s: &mut Section<'_, '_>, key: &'static str, name: &str, host: &Host<'_>) -> Field<Account> {
    s.or_found(key, |value| resolve(value, host), || account(host.passwd, name).ok_or_else(|| missing(name)))
}

/// `"uid:gid"` or the name of an account.
fn resolve(value: &Value<'_>, host: &Host<'_>) -> Parsed<Account> {
    let found = text(value)?;
    if let Some((uid, gid)) = found.split_once(':') {
        return match (uid.parse(), gid.parse()) {
            (Ok(uid), Ok(gid)) => Ok(Account { uid, gid }),
            _ => wrong(
                value,
                format!("'{found}' is not uid:gid"),
                "write two numbers: \"991:991\", or an account's name",
            ),
        };
    }
    let (what, hint) = missing(&found);
    account(host.passwd, &found).map_or_else(|| wrong(value, what, hint), Ok)
}

fn missing(name: &str) -> (String, String) {
    let what = format!("there is no account '{name}' on this host");
    (what, format!("make it: useradd --system --user-group --no-create-home --shell /usr/sbin/nologin {name}"))
}

fn unfit(name: &str, field: &Field<Account>, account: Account, jail: Option<&Jail>) -> Option<Mistake> {
    let Account { uid, gid } = account;
    let hint = "give it an unprivileged account of its own";
    if uid == 0 || gid == 0 {
        return Some(field.mistake(format!("`{name}` would be root ({uid}:{gid})"), hint));
    }
    if [NOBODY, u32::MAX].contains(&uid) || [NOBODY, u32::MAX].contains(&gid) {
        return Some(field.mistake(format!("`{name}` would be nobody ({uid}:{gid})"), hint));
    }
    let jails = jail?.uids();
    (jails.contains(&uid.into()) || jails.contains(&gid.into()))
        .then(|| field.mistake(format!("`{name}` ({uid}:{gid}) is among the jails' uids"), hint))
}
