//! `stockade access apply`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use super::Output;
use crate::access::answer::answer;
use crate::access::cycle::Outcome;
use crate::access::plan::Plan;
use crate::access::print;
use crate::access::trail::Trail;
use crate::access::watch::now;
use crate::config;

/// Print what `plan` prints, then do it: in IAM and on every cluster, each change an audit event
///
/// Exits with 0 if everything is as it should be then, and with 1 if something is left.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = crate::command::CONFIGURATION)]
    config: PathBuf,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Remove even more than `rbac.most_removed` percent of what is there
    #[arg(long)]
    allow_mass_removal: bool,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let terms = config::load_access(&args.config)?;
    super::block_on(async {
        let trail = Arc::new(Trail::open(&terms.rbac.audit)?);
        let super::Begun { mut course, board, .. } = super::begin(terms, trail, super::PATIENCE).await?;
        course.allow_mass_removal = args.allow_mass_removal;
        course.begin().await;
        if args.output == Output::Text {
            course.show = show;
        }
        let outcome = course.cycle(now()).await;
        board.tell(outcome.as_ref().ok());
        course.end("the work is done").await;
        let outcome = outcome?;
        match args.output {
            Output::Text => tell(&outcome)?,
            Output::Json => super::say(&format!("{:#}\n", answer(&outcome, board.calls())))?,
        }
        Ok(if outcome.is_whole() && outcome.away.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

fn show(plan: &Plan) {
    // Whoever has closed the pipe still wants it done.
    let _ = super::say(&print::text(plan));
}

fn tell(outcome: &Outcome) -> std::io::Result<()> {
    let Outcome { done, away, stopped, .. } = outcome;
    for (change, fault) in &done.failed {
        super::warn(&format!("{} could not be changed: {fault}", change.target));
    }
    for (change, why) in &done.left {
        super::warn(&format!("{} was left: {why}", change.target));
    }
    for (name, why) in away {
        super::warn(&format!("{name} cannot be read: {why}"));
    }
    if let Some(reason) = stopped {
        super::warn(&format!("nothing was changed: {reason}"));
        return Ok(());
    }
    let (made, failed, left) = (done.made.len(), done.failed.len(), done.left.len());
    super::say(&format!("{made} changed, {failed} failed, {left} left\n"))
}
