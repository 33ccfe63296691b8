//! `stockade access history`.

use std::io::{self, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use jiff::Timestamp;
use serde_json::json;

use super::view::{Form, print};
use crate::access::report::history::{Step, Wanted, read};
use crate::access::report::sheet::Sheet;
use crate::config;

/// Print how rights changed, from the audit file of access: who joined and left, what was given and taken for it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Of this user; without a name: of everybody
    user: Option<String>,
    /// By this IAM group only
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// On this cluster only
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Not before, like 2026-11-21T00:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// The audit file, or `-`; no configuration is read then
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The configuration, which says where the audit file is
    #[arg(long, value_name = "FILE", default_value = crate::command::CONFIGURATION)]
    config: PathBuf,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let file = match &args.file {
        Some(file) => file.clone(),
        None => config::load_access(&args.config)?.rbac.audit,
    };
    let since = args.since.map(Timestamp::as_millisecond);
    let wanted = Wanted { user: args.user, group: args.group, cluster: args.cluster, since };
    let steps = if file.as_os_str() == "-" {
        read(io::stdin().lock(), &wanted)
    } else {
        read(BufReader::new(fs_err::File::open(file).context("cannot read the audit file")?), &wanted)
    };
    let steps = steps.context("cannot read the audit file")?;
    print(args.output, &sheet(&steps, args.output), &json!({ "history": steps }))?;
    if steps.is_empty() && args.output == Form::Table {
        super::warn("the audit file says nothing of that");
    }
    Ok(ExitCode::SUCCESS)
}

fn sheet(steps: &[Step], form: Form) -> Sheet {
    let at = |step: &Step| Timestamp::from_millisecond(step.time).map(|at| format!("{at:.0}")).unwrap_or_default();
    if form == Form::Table {
        let row = |step: &Step| vec![at(step), step.user.clone().unwrap_or_default(), step.message.clone()];
        return Sheet { head: vec!["time", "user", "what"], rows: steps.iter().map(row).collect() };
    }
    let row = |step: &Step| {
        let or = |text: &Option<String>| text.clone().unwrap_or_default();
        let (objects, message) = (step.objects.join("; "), step.message.clone());
        vec![
            at(step),
            step.code.clone(),
            or(&step.user),
            or(&step.group),
            or(&step.cluster),
            objects,
            or(&step.cause),
            message,
        ]
    };
    Sheet {
        head: vec!["time", "code", "user", "group", "cluster", "objects", "cause", "message"],
        rows: steps.iter().map(row).collect(),
    }
}
