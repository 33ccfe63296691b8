//! `stockade lock`: puts somebody out at once, and lets them in again.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use jiff::{SignedDuration, Timestamp};

use crate::config::{self, Config};
use crate::identity::Principal;
use crate::policy::lock::{self, Lock, Target};
use crate::session::SessionId;

/// Lock a user or a session out, list locks, release them. What is locked ends within a second: jail, streams, tokens for
/// laptops, renewal of credentials
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bastion's configuration: it says where the locks are
    #[arg(long, value_name = "FILE", default_value = super::CONFIGURATION, global = true)]
    config: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Lock; one that stands already is replaced
    Add {
        #[command(flatten)]
        whom: Whom,
        /// What the user and the audit are told
        #[arg(long)]
        reason: String,
        /// When it ends by itself: 2h, or 2030-01-31T12:00:00Z
        #[arg(long, value_name = "TIME", value_parser = until)]
        until: Option<i64>,
    },
    /// Who is locked, since when, until when, by whom and why
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Let in again
    Release {
        #[command(flatten)]
        whom: Whom,
        /// What the audit is told
        #[arg(long, default_value = "")]
        reason: String,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// A user, in all their sessions and logins
    #[arg(long, value_name = "NAME")]
    user: Option<Principal>,
    /// One session
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
}

impl Whom {
    fn target(self) -> anyhow::Result<Target> {
        match (self.user, self.session) {
            (Some(user), None) => Ok(Target::User(user)),
            (None, Some(session)) => Ok(Target::Session(session)),
            _ => bail!("either --user or --session"),
        }
    }
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = config::load(&args.config)?;
    let now = Timestamp::now().as_second();
    let locks = lock::directory(&config.state.directory);
    match args.verb {
        Verb::List { json } => return list(&locks, json, now),
        Verb::Add { whom, reason, until } => {
            let target = whom.target()?;
            let lock = Lock { reason, by: operator(), at: now, until };
            lock::sweep(&locks, now);
            add(&config, &locks, &target, &lock)?;
            println!("{target} is locked");
        }
        Verb::Release { whom, reason } => {
            let target = whom.target()?;
            let why = Lock { reason, by: operator(), at: now, until: None };
            if !release(&config, &locks, &target, &why)? {
                println!("{target} is not locked");
                return Ok(ExitCode::FAILURE);
            }
            println!("{target} is released");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn until(text: &str) -> Result<i64, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.as_second());
    }
    let wrong = |_| "neither a span (2h, 30m, 1h30m) nor a time (2030-01-31T12:00:00Z)".to_owned();
    let span: SignedDuration = text.parse().map_err(wrong)?;
    let now = Timestamp::now();
    now.checked_add(span).map(|time| time.as_second()).map_err(|error| error.to_string())
}

/// By their own word: whoever can write there is root.
fn operator() -> String {
    let name = ["SUDO_USER", "LOGNAME", "USER"].into_iter().find_map(|name| std::env::var(name).ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "root".to_owned())
}

/// The bastion makes the directory when it starts; a lock may stand before that.
fn add(config: &Config, locks: &Path, target: &Target, lock: &Lock) -> anyhow::Result<()> {
    if !locks.exists() {
        fs::create_dir_all(locks)?;
        own(config, locks, 0o750)?;
    }
    put(config, locks, &target.to_string(), lock)
}

/// Whole or not at all, and there after a crash.
fn put(config: &Config, locks: &Path, name: &str, lock: &Lock) -> anyhow::Result<()> {
    let new = locks.join(format!(".new-{}", std::process::id()));
    let _ = std::fs::remove_file(&new);
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(lock)?)?;
    own(config, &new, 0o640)?;
    file.sync_all()?;
    fs::rename(&new, locks.join(name))?;
    Ok(fs::File::open(locks)?.sync_all()?)
}

/// Root's, for the warden to read.
fn own(config: &Config, path: &Path, mode: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let file = fs::File::open(path)?;
    fchown(file.file(), Some(0), Some(config.roles.warden.gid))
        .with_context(|| format!("cannot give {} to the warden; are you root?", path.display()))?;
    Ok(fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?)
}

/// Says why before it goes, for whoever tells the audit.
fn release(config: &Config, locks: &Path, target: &Target, why: &Lock) -> anyhow::Result<bool> {
    let file = locks.join(target.to_string());
    if std::fs::symlink_metadata(&file).is_err() {
        return Ok(false);
    }
    put(config, locks, &lock::released(target), why)?;
    let about = fs::symlink_metadata(&file)?;
    if about.is_dir() {
        fs::remove_dir(&file)?
    } else {
        fs::remove_file(&file)?
    }
    fs::File::open(locks)?.sync_all()?;
    Ok(true)
}

fn list(locks: &Path, json: bool, now: i64) -> anyhow::Result<ExitCode> {
    let directory = match fs::File::open(locks) {
        Ok(directory) => directory,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(ExitCode::SUCCESS),
        Err(error) => return Err(error.into()),
    };
    let all = lock::read(directory.as_fd(), now).with_context(|| format!("cannot read {}", locks.display()))?;
    for (target, lock) in all {
        let time = |seconds: i64| Timestamp::from_second(seconds).unwrap_or_default().to_string();
        if json {
            let until = lock.until.map(time);
            let line = serde_json::json!({
                "target": target.to_string(), "since": time(lock.at), "until": until, "by": lock.by, "reason": lock.reason,
            });
            println!("{line}");
            continue;
        }
        let plain = |text: &str| -> String { text.chars().map(|c| if c.is_control() { '?' } else { c }).collect() };
        let until = lock.until.map_or_else(|| "it is released".to_owned(), time);
        println!("{target}  since {} until {until}, by {}: {}", time(lock.at), plain(&lock.by), plain(&lock.reason));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_span_or_a_date() {
        let now = Timestamp::now().as_second();
        for (text, seconds) in [("2h", 7200), ("30m", 1800), ("1h30m", 5400)] {
            let left = until(text).unwrap() - now;
            assert!((seconds..seconds + 60).contains(&left), "{text}: {left}");
        }
        assert_eq!(until("2030-01-31T12:00:00Z").unwrap(), 1_896_091_200);
        for bad in ["", "tomorrow", "2h and more", "99999999999h"] {
            assert!(until(bad).is_err(), "{bad}");
        }
    }
}
