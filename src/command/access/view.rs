//! What the verbs that only look have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tokio::sync::watch;

use crate::access::connect::Connected;
use crate::access::cycle::look;
use crate::access::memory::Memory;
use crate::access::plan::{Plan, plan};
use crate::access::report::cloudtrail::CloudTrail;
use crate::access::report::history::{self, Wanted};
use crate::access::report::rights::Facts;
use crate::access::report::said;
use crate::access::report::sheet::Sheet;
use crate::access::watch::now;
use crate::access::world::{Members, Seen, World};
use crate::audit;
use crate::config::Terms;
use crate::config::rbac::MembersFrom;

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Form {
    Table,
    Csv,
    Json,
}

/// Everything there is, read once.
pub(super) struct View {
    pub(super) terms: Terms,
    pub(super) world: World,
    pub(super) members: Members,
    pub(super) plan: Plan,
    pub(super) now: i64,
    joined: BTreeMap<(String, String), i64>,
    trail: CloudTrail,
}

impl View {
    /// IAM, every cluster, what the daemon saw before, and CloudTrail's files where there are some.
    pub(super) async fn new(terms: Terms, cloudtrail: Option<&Path>) -> anyhow::Result<Self> {
        // The cheap mistakes first.
        let tag = match &terms.rbac.members {
            MembersFrom::Tag(key) => Some(key.as_str()),
            MembersFrom::Iam | MembersFrom::File => None,
        };
        let trail = cloudtrail.map(|path| CloudTrail::read(path, tag)).transpose()?.unwrap_or_default();
        let memory = Memory::peek(&terms.rbac.state);
        let joined = joined(&memory, &terms.rbac.audit);
        let Connected { people, fleet, .. } = Connected::new(&terms, Duration::ZERO).await?;
        let (_never, stop) = watch::channel(false);
        let world = look(&*people, &fleet, stop).await?;
        let now = now();
        let plan = plan(&world, &terms, &memory.gone, now);
        let members = said::members(&world, &terms);
        Ok(Self { terms, world, members, plan, now, joined, trail })
    }

    /// `members`: whose rights are told.
    pub(super) fn facts<'a>(&'a self, members: &'a Members, dormant_days: u32) -> Facts<'a> {
        Facts {
            world: &self.world,
            members,
            changes: &self.plan.changes,
            joined: &self.joined,
            trail: &self.trail,
            username: &self.terms.rbac.username,
            now: self.now,
            dormant_after: i64::from(dormant_days) * 86_400,
        }
    }

    /// Clusters that could not be read, and why.
    pub(super) fn away(&self) -> BTreeMap<&str, &str> {
        let away = self.world.clusters.iter().filter_map(|(name, seen)| match seen {
            Seen::Away(why) => Some((name.as_str(), why.as_str())),
            Seen::Read(_) => None,
        });
        away.collect()
    }

    /// Says which these are; whether there are any.
    pub(super) fn warn(&self) -> bool {
        let away = self.away();
        away.iter().for_each(|(name, why)| super::warn(&format!("{name} cannot be read: {why}")));
        let crowded: Vec<String> = self.crowded().collect();
        for place in &crowded {
            super::warn(&format!("{place} has too many Roles and RoleBindings to read them all"));
        }
        !away.is_empty() || !crowded.is_empty()
    }

    /// Namespaces of which not everything was read.
    fn crowded(&self) -> impl Iterator<Item = String> {
        let read = self.world.clusters.iter().filter_map(|(name, seen)| match seen {
            Seen::Read(cluster) => Some((name, cluster)),
            Seen::Away(_) => None,
        });
        read.flat_map(|(name, cluster)| cluster.crowded.iter().map(move |space| format!("namespace {space} of {name}")))
    }

    pub(super) fn away_names(&self) -> BTreeSet<String> {
        self.away().into_keys().map(str::to_owned).collect()
    }
}

/// Since when users are in their groups: by the audit file as far as it goes back, else by what the daemon remembers,
/// which for those whom it found there says nothing.
fn joined(memory: &Memory, audit: &Path) -> BTreeMap<(String, String), i64> {
    let remembered = memory.members.iter().flatten();
    let each = remembered.flat_map(|(group, users)| users.iter().map(move |(user, at)| (user, group, *at)));
    let known = each.filter(|(_, _, at)| *at > 0);
    let mut joined: BTreeMap<_, _> = known.map(|(user, group, at)| ((user.clone(), group.clone()), at)).collect();
    match fs_err::File::open(audit).and_then(|file| history::read(BufReader::new(file), &Wanted::default())) {
        Ok(steps) => joined.extend(history::joined(&steps)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => super::warn(&format!("since when is told without the audit file: {error}")),
    }
    joined
}

/// Prints rows, or the value.
pub(super) fn print(form: Form, sheet: &Sheet, value: &Value) -> anyhow::Result<()> {
    let text = match form {
        Form::Table => sheet.table(),
        Form::Csv => sheet.csv(),
        Form::Json => String::from_utf8(audit::plain(value)).context("what was to be printed is no text")?,
    };
    Ok(super::say(&text)?)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::command::access;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: access::Args,
    }

    #[test]
    fn the_command_line_is_whole() {
        Line::command().debug_assert();
        let mut line = Line::command();
        let help = line.find_subcommand_mut("report").unwrap().render_long_help().to_string();
        let words: Vec<&str> = help.split_whitespace().collect();
        assert!(words.join(" ").contains("Exits with 1 if a cluster cannot be read"), "{help}");
        let parses = |line: &str| Line::try_parse_from(line.split(' ')).is_ok();
        assert!(parses("access who-can create pods/exec --cluster hyades -n taurus --name one --output csv"));
        assert!(!parses("access who-can create pods/exec"), "of which cluster?");
        assert!(parses("access report --against r.toml --cloudtrail logs --dormant 30 --output json"));
        assert!(!parses("access report --against r.toml --user alice"), "half a comparison");
        assert!(!parses("access report --review r.toml --cluster hyades"), "half a review");
        assert!(parses("access explain alice --cluster hyades"));
        assert!(parses("access history alice --since 2026-11-21T00:00:00Z --file -"));
        assert!(!parses("access history alice --since yesterday"));
    }

    #[test]
    fn since_when_is_told_by_the_audit_file_before_the_memory() {
        let folder = tempfile::tempdir().unwrap();
        let audit = folder.path().join("access.jsonl");
        let seen = |at: [(&str, i64); 3]| at.map(|(user, at)| (user.to_owned(), at)).into();
        let members = [("g".to_owned(), seen([("alice", 100), ("bob", 200), ("carol", 0)]))].into();
        let memory = Memory { members: Some(members), ..Memory::default() };
        let told =
            |audit: &Path| joined(&memory, audit).into_iter().map(|((user, _), at)| (user, at)).collect::<Vec<_>>();
        assert_eq!(told(&audit), [("alice".to_owned(), 100), ("bob".to_owned(), 200)]);
        let line = serde_json::json!({
            "class_uid": 3006, "time": 50_000, "metadata": { "event_code": "SK9001I" }, "user": { "name": "alice" },
            "group": { "name": "g" }, "message": "alice joined g",
        });
        fs_err::write(&audit, format!("{line}\n")).unwrap();
        assert_eq!(told(&audit), [("alice".to_owned(), 50), ("bob".to_owned(), 200)]);
    }
}
