//! From the text of the file to a `Config`, or every mistake in it. Pure: what it needs of the host is handed in.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use toml::de::DeTable;
use zeroize::Zeroizing;

use super::admission::{MaxStartups, Netblock, Penalties, netblock, network, penalties, startups};
use super::rbac::Rbac;
use super::read::{Field, Reading};
use super::report::Mistake;
use super::terms::Terms;
use super::types::{Access, Algorithms, Audit, Config, Durability, Input, Listen, Recording, Ssh, State, Users};
use super::value::{Parsed, Value, choice, duration, list, map, path, read, size, text, whole, wrong};
use super::{aws, egress, jail, kube, rbac};
use crate::identity::{Pattern, Principal};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// What the check knows of the host: the text of its account files, and how to read the files that the configuration
/// names.
pub struct Host<'a> {
    pub passwd: &'a str,
    pub subuid: &'a str,
    pub subgid: &'a str,
    pub read: &'a dyn Fn(&Path) -> Result<String, String>,
    /// The same for a file that nobody else may read; what it says stays here.
    pub secret: &'a dyn Fn(&Path) -> Result<Zeroizing<String>, String>,
}

/// Checks the text of a configuration file.
pub fn check(source: &str, host: &Host<'_>) -> Result<Config, Vec<Mistake>> {
    let (root, errors) = DeTable::parse_recoverable(source);
    if !errors.is_empty() {
        return Err(syntax(source, &errors));
    }
    let mut reading = Reading::new(root.into_inner());
    let r = &mut reading;
    let state = state(r);
    let homes = state.as_ref();
    let listen = listen(r);
    let ssh = ssh(r, homes);
    let users = users(r, homes);
    let has_aws = r.has("aws");
    let aws = if has_aws { aws::aws(r, host).map(Some) } else { Some(None) };
    let access = access(r);
    let egress = egress::egress(r);
    let jail = jail::jail(r, host);
    let recording = recording(r, homes);
    let audit = audit(r, homes);
    let ground = kube::Ground { host, has_aws, aws: aws.as_ref().and_then(Option::as_ref), is_bastion: true };
    let kube = kube::kube(r, &ground);
    let rbac = rbac::rbac(r, &ground, kube.as_ref());
    r.mistakes.extend(rbac.iter().flatten().flat_map(|rbac| apart_from(rbac, state.as_ref(), audit.as_ref())));
    let laptops = kube.as_ref().is_some_and(|kube| kube.public.is_some());
    let roles = jail::roles(r, host, jail.as_ref(), laptops);
    let mistakes = reading.finish();
    let whole = || {
        Some(Config {
            digest: hex(&Sha256::digest(source.as_bytes())),
            listen: listen?,
            ssh: ssh?,
            users: users?,
            aws: aws?,
            access: access?,
            jail: jail?,
            recording: recording?,
            audit: audit?,
            state: state?,
            roles: roles?,
            egress: egress?,
            kube: kube?,
            rbac: rbac?,
        })
    };
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    whole().ok_or_else(|| vec![Mistake::nowhere("a setting was refused without a reason", "report this as a bug")])
}

/// Checks what `access` must know of it, and leaves the rest unread: the machine may be no bastion.
pub fn check_access(source: &str, host: &Host<'_>) -> Result<Terms, Vec<Mistake>> {
    const BASTIONS: [&str; 9] = ["access", "audit", "egress", "jail", "listen", "recording", "roles", "ssh", "state"];
    let (root, errors) = DeTable::parse_recoverable(source);
    if !errors.is_empty() {
        return Err(syntax(source, &errors));
    }
    let mut reading = Reading::new(root.into_inner());
    let r = &mut reading;
    let users = users(r, None);
    r.leave(&BASTIONS);
    let has_aws = r.has("aws");
    let aws = if has_aws { aws::aws(r, host).map(Some) } else { Some(None) };
    let ground = kube::Ground { host, has_aws, aws: aws.as_ref().and_then(Option::as_ref), is_bastion: false };
    let kube = kube::kube(r, &ground);
    if !r.has("rbac") {
        let hint = "add [rbac]: without it groups are no access to clusters";
        r.mistakes.push(Mistake::nowhere("there is no section `rbac`", hint));
    }
    let rbac = rbac::rbac(r, &ground, kube.as_ref());
    let mistakes = reading.finish();
    let whole = || {
        let digest = hex(&Sha256::digest(source.as_bytes()));
        Some(Terms { digest, aws: aws?, kube: kube?, rbac: rbac??, groups: users?.groups })
    };
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    whole().ok_or_else(|| vec![Mistake::nowhere("a setting was refused without a reason", "report this as a bug")])
}

/// The parser goes on after an error; what it says next about the same line is rarely true.
fn syntax(source: &str, errors: &[toml::de::Error]) -> Vec<Mistake> {
    let mut lines = BTreeSet::new();
    let mut mistakes = Vec::new();
    for error in errors {
        let span = error.span();
        let line = span.as_ref().map(|s| source.get(..s.start).unwrap_or(source).matches('\n').count());
        if lines.insert(line) {
            let hint = "see https://toml.io for the form of the file".to_owned();
            mistakes.push(Mistake { span, what: format!("not TOML: {}", error.message()), hint });
        }
    }
    mistakes
}

fn listen(r: &mut Reading<'_>) -> Option<Listen> {
    let mut s = r.section("listen");
    let address = read::<SocketAddr>("write an address and a port: \"127.0.0.1:2222\" or \"[::]:22\"");
    let ssh = s.must("ssh", "[\"0.0.0.0:22\"]", list(address));
    s.close();
    let addresses = ssh.value.as_ref()?;
    let distinct: BTreeSet<&SocketAddr> = addresses.iter().collect();
    if addresses.is_empty() {
        r.mistakes.push(ssh.mistake("`ssh`: nothing to listen on", "write at least one address and port"));
    } else if distinct.len() < addresses.len() {
        r.mistakes.push(ssh.mistake("`ssh`: an address is there twice", "remove one of the two"));
    }
    Some(Listen { ssh: ssh.value? })
}

fn ssh(r: &mut Reading<'_>, state: Option<&State>) -> Option<Ssh> {
    const ALGORITHMS: &[(&str, Algorithms)] = &[("modern", Algorithms::Modern), ("pq", Algorithms::Pq)];
    let mut s = r.section("ssh");
    let host_keys = s.must("host_keys", "[\"/etc/stockade/host_ed25519\"]", list(path));
    let algorithms = s.or("algorithms", Algorithms::Modern, choice(ALGORITHMS));
    let login_grace = s.or("login_grace", 30 * SECOND, duration(SECOND..=HOUR));
    let max_startups = s.or("max_startups", MaxStartups { start: 10, rate: 30, full: 100 }, startups);
    let max_startups_per_source = s.or("max_startups_per_source", 4, whole(1..=100_000));
    let source_netblock = s.or("source_netblock", Netblock::default(), netblock);
    let exempt = s.or("exempt", Vec::new(), list(network));
    let penalties = s.or("penalties", Some(Penalties::default()), penalties);
    let max_auth_tries = s.or("max_auth_tries", 6, whole(1..=100));
    let max_sessions = s.or("max_sessions", 10, whole(1..=1000));
    let keepalive = s.or("keepalive", 30 * SECOND, duration(Duration::ZERO..=HOUR));
    let env = s.or("env", vec![Pattern::new("LANG"), Pattern::new("LC_*")], list(variable));
    let banner = s.maybe("banner", banner);
    let linger = s.or("linger", 10 * SECOND, duration(Duration::ZERO..=24 * HOUR));
    s.close();
    if host_keys.value.as_ref().is_some_and(Vec::is_empty) {
        let hint = "name at least one; `ssh-keygen -t ed25519 -N '' -f FILE` makes one";
        r.mistakes.push(host_keys.mistake("`host_keys`: no host key", hint));
    }
    for path in host_keys.value.iter().flatten() {
        r.mistakes.extend(misplaced("host_keys", path, &host_keys.span, state));
    }
    Some(Ssh {
        host_keys: host_keys.value?,
        algorithms: algorithms.value?,
        login_grace: login_grace.value?,
        max_startups: max_startups.value?,
        max_startups_per_source: max_startups_per_source.value?,
        source_netblock: source_netblock.value?,
        exempt: exempt.value?,
        penalties: penalties.value?,
        max_auth_tries: max_auth_tries.value?,
        max_sessions: max_sessions.value?,
        keepalive: keepalive.value?,
        env: env.value?,
        banner: banner.value?,
        linger: linger.value?,
    })
}

fn variable(value: &Value<'_>) -> Parsed<Pattern> {
    let found = text(value)?;
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"_*?".contains(&b);
    if found.is_empty() || !found.bytes().all(letter) {
        let hint = "write names of letters, digits and _, with * for any run of them: \"LC_*\"";
        return wrong(value, format!("'{found}' is not the name of a variable"), hint);
    }
    Ok(Pattern::new(found))
}

/// Sent before anybody has proved anything, to terminals that obey escape sequences.
fn banner(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    if found.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return wrong(value, "a control character is in the banner", "only text, tabs and line ends");
    }
    if found.len() > 4096 {
        return wrong(value, "the banner is longer than 4096 bytes", "shorten it");
    }
    Ok(found)
}

fn users(r: &mut Reading<'_>, state: Option<&State>) -> Option<Users> {
    let mut s = r.section("users");
    let authorized_keys = s.or("authorized_keys", "/etc/stockade/keys".into(), path);
    let groups = s.or("groups", Default::default(), map(members));
    s.close();
    r.mistakes.extend(apart("authorized_keys", &authorized_keys, state));
    Some(Users { authorized_keys: authorized_keys.value?, groups: groups.value? })
}

fn members(name: &str, value: &Value<'_>) -> Parsed<BTreeSet<Principal>> {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(letter) {
        let hint = "a group's name is 1 to 128 of the letters A-Z a-z 0-9 + = , . @ _ -";
        return wrong(value, format!("'{name}' is not the name of a group"), hint);
    }
    let users = list(read::<Principal>("write the name as IAM spells it"))(value)?;
    Ok(users.into_iter().collect())
}

fn access(r: &mut Reading<'_>) -> Option<Access> {
    let mut s = r.section("access");
    let allow_groups = s.or("allow_groups", vec![Pattern::new("*")], list(pattern));
    let deny_groups = s.or("deny_groups", Vec::new(), list(pattern));
    let deny_users = s.or("deny_users", Vec::new(), list(pattern));
    s.close();
    Some(Access { allow_groups: allow_groups.value?, deny_groups: deny_groups.value?, deny_users: deny_users.value? })
}

/// A letter that no name can have would make a rule that never matches: a deny that denies nobody.
pub(super) fn pattern(value: &Value<'_>) -> Parsed<Pattern> {
    let found = text(value)?;
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-*?".contains(&b);
    if found.is_empty() || !found.bytes().all(letter) {
        let hint = "names are of the letters A-Z a-z 0-9 + = , . @ _ - and * stands for any run of them";
        return wrong(value, format!("'{found}' cannot match any name"), hint);
    }
    Ok(Pattern::new(found))
}

fn recording(r: &mut Reading<'_>, state: Option<&State>) -> Option<Recording> {
    const DURABILITY: &[(&str, Durability)] = &[("local", Durability::Local), ("relaxed", Durability::Relaxed)];
    const INPUT: &[(&str, Input)] = &[("redacted", Input::Redacted), ("full", Input::Full), ("none", Input::None)];
    let mut s = r.section("recording");
    let directory = s.or("directory", "/var/lib/stockade/recordings".into(), path);
    let durability = s.or("durability", Durability::Local, choice(DURABILITY));
    let input = s.or("input", Input::Redacted, choice(INPUT));
    let redact = s.or("redact", Vec::new(), list(expression));
    let reserve = s.or("reserve", 1 << 20, size(64 << 10..=1 << 30));
    let warn_at = s.or("warn_at", 80, percent);
    let refuse_at = s.or("refuse_at", 90, percent);
    let end_at = s.or("end_at", 98, percent);
    s.close();
    r.mistakes.extend(apart("directory", &directory, state));
    let hint = "warn first, then refuse new sessions, then end the running ones: 80, 90, 98";
    if let (Some(warn), Some(refuse)) = (warn_at.value, refuse_at.value)
        && warn >= refuse
    {
        r.mistakes.push(refuse_at.mistake(format!("`refuse_at` ({refuse}) is not above `warn_at` ({warn})"), hint));
    }
    if let (Some(refuse), Some(end)) = (refuse_at.value, end_at.value)
        && refuse >= end
    {
        r.mistakes.push(end_at.mistake(format!("`end_at` ({end}) is not above `refuse_at` ({refuse})"), hint));
    }
    Some(Recording {
        directory: directory.value?,
        durability: durability.value?,
        input: input.value?,
        redact: redact.value?,
        reserve: reserve.value?,
        warn_at: warn_at.value?,
        refuse_at: refuse_at.value?,
        end_at: end_at.value?,
    })
}

fn percent(value: &Value<'_>) -> Parsed<u8> {
    whole(1..=100)(value).map(|n| u8::try_from(n).unwrap_or(100))
}

fn expression(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    match regex::bytes::Regex::new(&found) {
        Ok(regex) if regex.is_match(b"") => {
            let hint = "an expression must need at least one letter, or everything would be redacted";
            wrong(value, format!("'{found}' matches the empty text"), hint)
        }
        Ok(_) => Ok(found),
        Err(error) => {
            let reason = error.to_string();
            let last = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let hint = "see https://docs.rs/regex for the syntax; single quotes need no doubled backslashes";
            wrong(value, format!("not a regular expression: {last}"), hint)
        }
    }
}

fn audit(r: &mut Reading<'_>, state: Option<&State>) -> Option<Audit> {
    let mut s = r.section("audit");
    let file = s.or("file", "/var/lib/stockade/audit.jsonl".into(), path);
    s.close();
    if file.value.as_ref().is_some_and(|p| p.file_name().is_none()) {
        r.mistakes
            .push(file.mistake("`file`: this is a directory", "name a file in it: \"/var/lib/stockade/audit.jsonl\""));
    }
    r.mistakes.extend(apart("file", &file, state));
    Some(Audit { file: file.value? })
}

/// What `access` writes is nobody else's.
fn apart_from(rbac: &Rbac, state: Option<&State>, audit: Option<&Audit>) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (key, path) in [("audit", &rbac.audit), ("state", &rbac.state)] {
        mistakes.extend(misplaced(key, path, &None, state));
    }
    if audit.is_some_and(|audit| audit.file == rbac.audit) {
        let what = "`audit` of [rbac] is the `file` of [audit]";
        mistakes.push(Mistake::nowhere(what, "give it a file of its own: two processes would break the chain"));
    }
    mistakes
}

fn state(r: &mut Reading<'_>) -> Option<State> {
    let mut s = r.section("state");
    let directory = s.or("directory", "/var/lib/stockade".into(), path);
    s.close();
    Some(State { directory: directory.value? })
}

fn apart(key: &str, path: &Field<PathBuf>, state: Option<&State>) -> Option<Mistake> {
    misplaced(key, path.value.as_ref()?, &path.span, state)
}

/// Homes and images hold what users and strangers wrote: nothing that stockade trusts may lie there.
fn misplaced(key: &str, path: &Path, span: &Option<Range<usize>>, state: Option<&State>) -> Option<Mistake> {
    let state = &state?.directory;
    let told = |what: String, hint: &str| Some(Mistake { span: span.clone(), what, hint: hint.to_owned() });
    let shown = path.display();
    if path == state {
        return told(format!("`{key}`: '{shown}' is the state directory itself"), "give it a path of its own");
    }
    let taken = ["homes", "images"].map(|name| state.join(name)).into_iter().find(|taken| path.starts_with(taken))?;
    let hint = "homes/ and images/ of the state directory are the jails'";
    told(format!("`{key}`: '{shown}' lies in {}", taken.display()), hint)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
