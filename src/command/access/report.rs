//! `stockade access report`.

use fs_err::os::unix::fs::OpenOptionsExt;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::json;

use super::view::{Form, View, print};
use crate::access::report::lint;
use crate::access::report::listing::{sheet, table};
use crate::access::report::review::{self, Review};
use crate::access::report::rights::{Right, rights};
use crate::config;
use crate::session::exit::DIFFERENCES;

/// Print who has what where: since when, by which group, put there by whom, used when last
///
/// `drifted`, `dormant`, `pending`, `leftover`, `by hand` and `unknown` stand behind what is not as it should be. After
/// the table stands what foreign roles on the clusters leave open. Exits with 1 if a cluster cannot be read.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = crate::command::CONFIGURATION)]
    config: PathBuf,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Form::Table)]
    output: Form,
    /// Of this user only
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Of this cluster only
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// CloudTrail's files, or a directory of them: who put whom into a group
    #[arg(long, value_name = "PATH")]
    cloudtrail: Option<PathBuf>,
    /// A user whose role was not used for so many days is dormant
    #[arg(long, value_name = "DAYS", default_value_t = 90)]
    dormant: u32,
    /// Write a file with one line for each right, in which a reviewer decides and signs; the file itself says how
    #[arg(long, value_name = "FILE", conflicts_with_all = ["user", "cluster", "output", "against"])]
    review: Option<PathBuf>,
    /// Compare with such a file: what is new, gone, revoked and still there, or unsigned; exits with 2 if something is
    #[arg(long, value_name = "FILE", conflicts_with_all = ["user", "cluster"])]
    against: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let terms = config::load_access(&args.config)?;
    let signed = args.against.as_deref().map(signed).transpose()?;
    super::block_on(async {
        let view = View::new(terms, args.cloudtrail.as_deref()).await?;
        let found = rights(&view.facts(&view.members, args.dormant));
        match (&args.review, signed) {
            (Some(path), _) => write(&view, &found, path),
            (None, Some(signed)) => compare(&view, &found, &signed, args.output),
            (None, None) => tell(&view, found, &args),
        }
    })
}

fn tell(view: &View, mut found: Vec<Right>, args: &Args) -> anyhow::Result<ExitCode> {
    let is = |wanted: &Option<String>, has: &str| wanted.as_ref().is_none_or(|wanted| wanted == has);
    found.retain(|right| is(&args.user, &right.user) && is(&args.cluster, &right.cluster));
    let mut open = if args.user.is_some() { BTreeMap::new() } else { lint::everywhere(&view.world) };
    open.retain(|name, _| is(&args.cluster, name));
    let value = json!({ "rights": found, "findings": open, "unread": view.away() });
    let rows = if args.output == Form::Table { table(&found) } else { sheet(&found) };
    print(args.output, &rows, &value)?;
    if args.output == Form::Table {
        super::say(&lint::text(&open))?;
    }
    Ok(if view.warn() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Never over another: it may be signed.
fn write(view: &View, found: &[Right], path: &Path) -> anyhow::Result<ExitCode> {
    if view.warn() {
        bail!("no review is written while a cluster cannot be read: what is there would be missing in it");
    }
    let text = Review::of(found, &view.terms.rbac.levels, view.now).text();
    let mut options = fs_err::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).context("cannot write the review")?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).context("cannot write the review")?;
    super::say(&format!("{} rights stand in {} and wait for decisions\n", found.len(), path.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn signed(path: &Path) -> anyhow::Result<Review> {
    let text = fs_err::read_to_string(path).context("cannot read the review")?;
    Review::parse(&text).with_context(|| format!("{} cannot be compared with", path.display()))
}

fn compare(view: &View, found: &[Right], signed: &Review, form: Form) -> anyhow::Result<ExitCode> {
    let there = Review::of(found, &view.terms.rbac.levels, view.now);
    let differences = review::compare(signed, &there, &view.away_names());
    view.warn();
    if differences.is_empty() && form == Form::Table {
        super::say(&format!("{} rights are as they were signed\n", signed.rights.len()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let value = json!({ "taken": signed.taken, "differences": differences, "unread": view.away() });
    print(form, &review::sheet(&differences), &value)?;
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENCES) })
}
