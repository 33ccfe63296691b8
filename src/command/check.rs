//! `stockade check`: what is wrong with a configuration, or why somebody may or may not log in.

mod cluster;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;

use crate::config;
use crate::config::keyfile::{self, KeyFileError};
use crate::config::{Config, EgressRule, Preset};
use crate::identity::Principal;
use crate::identity::authorized_keys::{self, AuthorizedKey, AuthorizedKeys, WhyNot};
use crate::policy::egress::is_for;
use crate::policy::{Decision, Denial, Evidence, Reason, decide};
use crate::session::exit::{AWS_DECIDES, DENIED};

/// Exits with 0 if all is well, 78 if the configuration has mistakes; with --who 1 if they may not log in, or not use the
/// cluster, 3 if AWS, which is not asked here, decides.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration to read
    #[arg(long, value_name = "FILE", default_value = super::CONFIGURATION)]
    config: PathBuf,
    /// Explain whether this user may log in
    #[arg(long, value_name = "USER")]
    who: Option<Principal>,
    /// The address they would come from, for keys with from=
    #[arg(long, value_name = "ADDRESS", requires = "who")]
    from: Option<IpAddr>,
    /// Explain too whether they may use this cluster
    #[arg(long, value_name = "CLUSTER", requires = "who")]
    cluster: Option<String>,
    /// A tag of that cluster, if only EKS knows it
    #[arg(long, value_name = "NAME=VALUE", value_parser = cluster::label, requires = "cluster")]
    label: Vec<(String, String)>,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = config::load(&args.config)?;
    println!("{}: no mistakes", args.config.display());
    let Some(user) = args.who else {
        for warning in warnings(&config) {
            println!("warning: {warning}");
        }
        return Ok(ExitCode::SUCCESS);
    };
    let found = keys(&config.users.authorized_keys, &user);
    let (lines, decision) = explain(&config, &user, &found, args.from, Timestamp::now());
    println!("{}", lines.join("\n"));
    let login = status(&config, &decision);
    let Some(name) = args.cluster else { return Ok(ExitCode::from(login)) };
    let asked = cluster::Asked { name, labels: args.label.into_iter().collect() };
    let (lines, there) = cluster::explain(&config, &user, &config.users.groups_of(&user), &asked);
    println!("{}", lines.join("\n"));
    Ok(ExitCode::from(both(login, there)))
}

/// What nobody may is denied, whoever else would decide.
fn both(login: u8, cluster: u8) -> u8 {
    match (login, cluster) {
        (DENIED, _) | (_, DENIED) => DENIED,
        (AWS_DECIDES, _) | (_, AWS_DECIDES) => AWS_DECIDES,
        _ => 0,
    }
}

fn status(config: &Config, decision: &Decision) -> u8 {
    match decision {
        _ if otherwise(config, decision).is_some() => AWS_DECIDES,
        Decision::Permit(_) => 0,
        Decision::Denial(_) => DENIED,
    }
}

/// What the file cannot show: host keys and users' keys as they lie on this host. No mistake of the configuration, for
/// it may be checked before the keys are brought.
fn warnings(config: &Config) -> Vec<String> {
    let mut warnings: Vec<String> = config.ssh.host_keys.iter().filter_map(|path| host_key(path)).collect();
    let folder = &config.users.authorized_keys;
    let entries = match fs_err::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return [warnings, vec![format!("no key is read: {error}")]].concat(),
    };
    let mut names: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    for name in names {
        let file = folder.join(&name);
        match name.parse().map(|user| keys(folder, &user)) {
            Err(error) => warnings.push(format!("{} is nobody's: {error}", file.display())),
            Ok(Err(error)) => warnings.push(error),
            Ok(Ok(found)) => warnings.extend(
                found.refused.iter().map(|bad| format!("{}:{}: refused: {}", file.display(), bad.line, bad.why)),
            ),
        }
    }
    warnings
}

fn host_key(path: &Path) -> Option<String> {
    let shown = path.display();
    match fs_err::metadata(path) {
        Err(error) => Some(format!("{error}; make it: ssh-keygen -t ed25519 -N '' -f {shown}")),
        Ok(about) if about.mode() & 0o077 != 0 => {
            Some(format!("host key '{shown}' is open to others (mode {:04o}); chmod go=", about.mode() & 0o7777))
        }
        Ok(_) => None,
    }
}

/// What the warden would find, in the same way; or why it would find nothing.
fn keys(folder: &Path, user: &Principal) -> Result<AuthorizedKeys, String> {
    let chain = |error: &dyn std::error::Error| match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let folder = fs_err::File::open(folder).map_err(|error| chain(&error))?.into_file();
    match keyfile::read(folder.as_fd(), user) {
        Ok(bytes) => Ok(authorized_keys::parse(&bytes)),
        Err(KeyFileError::Missing(_)) => Ok(AuthorizedKeys::default()),
        Err(error) => Err(chain(&error)),
    }
}

fn explain(
    config: &Config,
    user: &Principal,
    found: &Result<AuthorizedKeys, String>,
    from: Option<IpAddr>,
    now: Timestamp,
) -> (Vec<String>, Decision) {
    let iam = config.aws.as_ref();
    let groups = config.users.groups_of(user);
    let named: Vec<&str> = groups.iter().map(String::as_str).collect();
    let mut lines = vec![match named.as_slice() {
        [] => format!("'{user}' is in no static group."),
        named => format!("'{user}' is in the static groups {}.", named.join(", ")),
    }];
    if iam.is_some_and(|aws| aws.groups_from_iam) {
        lines.push("IAM's groups are asked at login, not here.".into());
    }
    let file = config.users.authorized_keys.join(user.as_str());
    let mut evidence = Evidence::NoKey(WhyNot::NoKeys);
    match found {
        Err(error) => evidence = Evidence::NoKey(WhyNot::NotRead(error.clone())),
        Ok(found) => {
            let place = |line: usize| format!("{}:{line}", file.display());
            lines.extend(found.refused.iter().map(|bad| format!("{}: refused: {}", place(bad.line), bad.why)));
            for key in &found.keys {
                let usable = usable(key, from, now);
                lines.push(format!("{}: {}", place(key.line), told(key, &usable)));
                if matches!(evidence, Evidence::NoKey(_)) {
                    evidence = usable.map(|()| key).into();
                }
            }
            if found.keys.is_empty() {
                lines.push(format!("There is no usable key in {}.", file.display()));
            }
        }
    }
    if iam.is_some_and(|aws| aws.keys_from_iam) {
        lines.push("IAM's keys are asked at login, not here.".into());
    }
    let ways_out = [ways_out(config, &groups), cluster::all(config, &groups)].concat();
    let decision = decide(&config.access, config.jail.home, user, groups, &evidence);
    lines.extend(decision.explain());
    lines.extend(otherwise(config, &decision));
    if matches!(decision, Decision::Permit(_)) {
        lines.extend(ways_out);
    }
    (lines, decision)
}

/// Without an address, only time speaks against a key.
fn usable(key: &AuthorizedKey, from: Option<IpAddr>, now: Timestamp) -> Result<(), WhyNot> {
    match from {
        Some(from) => key.usable(from, now),
        None => key.unexpired(now),
    }
}

fn told(key: &AuthorizedKey, usable: &Result<(), WhyNot>) -> String {
    let mut text = format!("{} {}", key.kind, key.fingerprint());
    if !key.comment.is_empty() {
        text.push_str(&format!(" {}", key.comment.escape_debug()));
    }
    if let Some(sources) = &key.from {
        text.push_str(&format!(", only from {}", sources.as_str()));
    }
    if let Some(at) = key.expires {
        text.push_str(&format!(", until {at}"));
    }
    if !key.terminal {
        text.push_str(", no terminal");
    }
    if usable.is_err() {
        text.push_str(": not now");
    }
    text
}

/// Where IAM could turn the decision.
fn otherwise(config: &Config, decision: &Decision) -> Option<String> {
    let aws = config.aws.as_ref()?;
    let turned = match decision {
        Decision::Permit(_) if aws.groups_from_iam && !config.access.deny_groups.is_empty() => "deny_groups",
        Decision::Denial(Denial { reason: Reason::NoGroup { .. }, .. }) if aws.groups_from_iam => "allow_groups",
        Decision::Denial(Denial { reason: Reason::Key(_), .. }) if aws.keys_from_iam => {
            return Some("IAM decides, and is not asked here: a key in IAM lets them in at login.".into());
        }
        _ => return None,
    };
    Some(format!("IAM decides, and is not asked here: {turned} is looked at again at login, with IAM's groups."))
}

/// What the egress door lets them through to, a rule a line.
fn ways_out(config: &Config, groups: &BTreeSet<String>) -> Vec<String> {
    let mut lines: Vec<String> =
        config.egress.allow.iter().filter(|allow| is_for(allow, groups)).map(|allow| way_out(&allow.rule)).collect();
    if lines.is_empty() {
        lines.push("The egress door lets them through to nothing: no rule of [egress] is for them.".into());
    }
    let more = config.egress.allow.iter().any(|allow| !is_for(allow, groups));
    if more && config.aws.as_ref().is_some_and(|aws| aws.groups_from_iam) {
        lines.push("A group in IAM can add to this at login.".into());
    }
    lines
}

fn way_out(rule: &EgressRule) -> String {
    let mut hosts: Vec<String> = rule.hosts.iter().map(ToString::to_string).collect();
    match (rule.preset, rule.regions.as_slice()) {
        (Some(Preset::Aws), []) => hosts.push("AWS's own endpoints".into()),
        (Some(Preset::Aws), regions) => hosts.push(format!("AWS's own endpoints in {}", regions.join(", "))),
        (Some(Preset::Git), _) => hosts.push("public hosts of Git repositories".into()),
        (Some(Preset::Registries), []) => hosts.push("public registries and ECR".into()),
        (Some(Preset::Registries), regions) => {
            hosts.push(format!("public registries and ECR in {}", regions.join(", ")));
        }
        (Some(Preset::Packages), _) => hosts.push("public indices of packages".into()),
        (None, _) => {}
    }
    let ports: Vec<String> = rule.ports.iter().map(ToString::to_string).collect();
    let mut line = format!("The egress door lets them through to {}, port {}", hosts.join(", "), ports.join(", "));
    match rule.cidrs.as_slice() {
        [] => line.push_str(", at public addresses"),
        nets => {
            let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
            line.push_str(&format!(", at addresses in {}", nets.join(", ")));
        }
    }
    line.push_str(match rule.tls {
        true if rule.preset == Some(Preset::Git) && rule.ports.contains(&22) => {
            ", by TLS that names the same host, or by SSH where Git hosts speak it."
        }
        true => ", by TLS that names the same host.",
        false => ", TLS or not.",
    });
    line
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Host;

    const ED: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB";

    pub(super) fn config(more: &str) -> Config {
        let source = format!(
            "listen.ssh = ['127.0.0.1:2222']\nssh.host_keys = ['/k']\n[roles]\ngate = '1:1'\nwarden = '2:2'\n\
             porter = '3:3'\nkeeper = '4:4'\ntally = '5:5'\n{more}"
        );
        let (read, secret) = (|_: &Path| Err(String::new()), |_: &Path| Err(String::new()));
        let host = Host { passwd: "", subuid: "", subgid: "", read: &read, secret: &secret };
        crate::config::check(&source, &host).unwrap()
    }

    fn said(config: &Config, file: &str, from: Option<&str>) -> String {
        let found = Ok(authorized_keys::parse(file.as_bytes()));
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        let from = from.map(|from| from.parse().unwrap());
        explain(config, &"alice".parse().unwrap(), &found, from, now).0.join("\n")
    }

    #[test]
    fn a_permit_with_its_keys() {
        let config = config("[users]\ngroups = { ops = ['alice'], dev = ['bob'] }\n[access]\nallow_groups = ['op?']\n");
        let file = format!("command=\"id\" ssh-ed25519 {ED}\nrestrict,from=\"192.0.2.0/24\" ssh-ed25519 {ED} home\n");
        assert_eq!(
            said(&config, &file, Some("192.0.2.1")),
            "'alice' is in the static groups ops.\n\
             /etc/stockade/keys/alice:1: refused: option 'command' is not honoured here, so the key is not accepted\n\
             /etc/stockade/keys/alice:2: ssh-ed25519 SHA256:RXm/ruZ0eTzRXKwi1AQEDynB0VgHQ2ac9KPSFdf/YnA home, only from 192.0.2.0/24, no terminal\n\
             'alice' may log in: allow_groups has 'op?', and they are in group 'ops'.\n\
             The key SHA256:RXm/ruZ0eTzRXKwi1AQEDynB0VgHQ2ac9KPSFdf/YnA spoke for them.\n\
             The key's line forbids a terminal: only commands without one will run.\n\
             Their home is kept from one session to the next.\n\
             The egress door lets them through to nothing: no rule of [egress] is for them."
        );
        assert!(said(&config, &file, None).contains("may log in"));
        assert!(said(&config, &file, Some("198.51.100.1")).ends_with(
            "'alice' may not log in: the key of line 2 may not be used from 198.51.100.1, only from 192.0.2.0/24."
        ));
    }

    #[test]
    fn ways_out_are_told_by_their_rules() {
        let config = config(
            "[users]\ngroups = { ops = ['alice'] }\n[[egress.allow]]\npreset = 'aws'\nregions = ['us-east-1']\n\
             [[egress.allow]]\ngroups = ['o*']\nhosts = ['*.corp.test']\nports = [22, 443]\ncidrs = ['10.0.0.0/8']\n\
             tls = false\n[[egress.allow]]\ngroups = ['dba']\nhosts = ['db.test']\n\
             [[egress.allow]]\npreset = 'git'\nports = [22, 443]\n",
        );
        let file = format!("ssh-ed25519 {ED}\n");
        assert!(said(&config, &file, None).ends_with(
            "The egress door lets them through to AWS's own endpoints in us-east-1, port 443, at public addresses, \
             by TLS that names the same host.\n\
             The egress door lets them through to *.corp.test, port 22, 443, at addresses in 10.0.0.0/8, TLS or not.\n\
             The egress door lets them through to public hosts of Git repositories, port 22, 443, at public addresses, \
             by TLS that names the same host, or by SSH where Git hosts speak it."
        ));
    }

    #[test]
    fn a_denial_that_iam_could_turn() {
        let aws = "[aws]\nregion = 'us-east-1'\nrole = 'arn:aws:iam::123456789012:role/{user}'\n";
        assert_eq!(
            said(&config(&format!("{aws}[access]\nallow_groups = ['ops']\n")), "", None),
            "'alice' is in no static group.\n\
             IAM's groups are asked at login, not here.\n\
             There is no usable key in /etc/stockade/keys/alice.\n\
             IAM's keys are asked at login, not here.\n\
             'alice' may not log in: allow_groups has 'ops', and they are in no group.\n\
             IAM decides, and is not asked here: allow_groups is looked at again at login, with IAM's groups."
        );
        assert!(said(&config(aws), "", None).ends_with(
            "'alice' may not log in: no key is listed for the user.\n\
             IAM decides, and is not asked here: a key in IAM lets them in at login."
        ));
    }

    #[test]
    fn where_iam_decides_the_exit_status_is_its_own() {
        let code = |more: &str, file: &str| {
            let (config, found) = (config(more), Ok(authorized_keys::parse(file.as_bytes())));
            let now = "2030-01-01T00:00:00Z".parse().unwrap();
            let (_, decision) = explain(&config, &"alice".parse().unwrap(), &found, None, now);
            status(&config, &decision)
        };
        let aws = "[aws]\nregion = 'us-east-1'\nrole = 'arn:aws:iam::123456789012:role/{user}'\n";
        let key = format!("ssh-ed25519 {ED}\n");
        assert_eq!([code("", &key), code("", ""), code(aws, &key), code(aws, "")], [0, 1, 0, 3]);
        for (access, wanted) in
            [("allow_groups = ['ops']", 3), ("deny_groups = ['ops']", 3), ("deny_users = ['a*']", 1)]
        {
            assert_eq!(code(&format!("{aws}[access]\n{access}\n"), &key), wanted, "{access}");
        }
    }

    #[test]
    fn keys_on_the_host_are_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().display().to_string();
        let mut config = config("");
        config.ssh.host_keys = vec![folder.path().join("host"), folder.path().join("none")];
        config.users.authorized_keys = folder.path().join("keys");
        fs_err::create_dir(&config.users.authorized_keys).unwrap();
        fs_err::write(&config.ssh.host_keys[0], "").unwrap();
        fs_err::set_permissions(&config.ssh.host_keys[0], std::fs::Permissions::from_mode(0o640)).unwrap();
        fs_err::write(config.users.authorized_keys.join("alice~"), "").unwrap();
        let said = warnings(&config);
        assert_eq!(said.len(), 3, "{said:?}");
        assert_eq!(said[0], format!("host key '{there}/host' is open to others (mode 0640); chmod go="));
        assert!(said[1].ends_with(&format!("make it: ssh-keygen -t ed25519 -N '' -f {there}/none")), "{said:?}");
        assert!(said[2].starts_with(&format!("{there}/keys/alice~ is nobody's: a user name is")), "{said:?}");
    }

    #[test]
    fn a_folder_that_is_not_safe_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let missing = keys(&folder.path().join("none"), &"alice".parse().unwrap()).unwrap_err();
        assert!(missing.contains("No such file"), "{missing}");
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("alice")).unwrap();
        let error = keys(folder.path(), &"alice".parse().unwrap()).unwrap_err();
        let (lines, _) =
            explain(&config(""), &"alice".parse().unwrap(), &Err(error), None, "2030-01-01T00:00:00Z".parse().unwrap());
        let wanted = "'alice' may not log in: the f";
        assert!(lines.last().unwrap().starts_with(wanted), "{lines:?}");
    }
}
