//! `stockade access plan`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

use super::Output;
use crate::access::apply::places;
use crate::access::connect::Connected;
use crate::access::cycle::look;
use crate::access::fleet::Fleet;
use crate::access::lease::NAME;
use crate::access::memory::Memory;
use crate::access::plan::{Plan, Problem, plan};
use crate::access::print;
use crate::access::report::lint;
use crate::access::watch::now;
use crate::access::world::Seen;
use crate::config;
use crate::session::exit::CHANGES;

/// Read IAM and every cluster, and print what `apply` would change, and why
///
/// Exits with 0 if everything is as it should be, 2 if there is something to change, 1 if that cannot be said.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = crate::command::CONFIGURATION)]
    config: PathBuf,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let terms = config::load_access(&args.config)?;
    super::block_on(async {
        let Connected { people, fleet, .. } = Connected::new(&terms, Duration::ZERO).await?;
        // What was seen last is the daemon's to write, and may be its alone to read.
        let gone = Memory::peek(&terms.rbac.state).gone;
        let (_never, stop) = watch::channel(false);
        let world = look(&*people, &fleet, stop).await?;
        let mut plan = plan(&world, &terms, &gone, now());
        plan.problems.extend(turns(&plan, &fleet).await);
        let stopped = plan.stop(terms.rbac.most_removed);
        let away = world.clusters.iter().filter_map(|(name, seen)| match seen {
            Seen::Away(why) => Some((name.clone(), why.clone())),
            Seen::Read(_) => None,
        });
        let away: Vec<(String, String)> = away.collect();
        match args.output {
            Output::Text => super::say(&(print::text(&plan) + &lint::text(&lint::everywhere(&world))))?,
            Output::Json => {
                let mut value = print::json(&plan);
                value["unread"] = json!(away.iter().cloned().collect::<std::collections::BTreeMap<_, _>>());
                value["stopped"] = json!(stopped);
                value["findings"] = json!(lint::everywhere(&world));
                super::say(&format!("{value:#}\n"))?;
            }
        }
        away.iter().for_each(|(name, why)| super::warn(&format!("{name} cannot be read: {why}")));
        if let Some(reason) = stopped {
            super::warn(&format!("apply would not do this: {reason}"));
        }
        Ok(exit(&plan, away.is_empty()))
    })
}

/// Where `apply` would have to wait for another; a lease that may not be read is told of by nobody.
async fn turns(plan: &Plan, fleet: &Fleet) -> Vec<Problem> {
    let mut problems = Vec::new();
    for cluster in places(&plan.changes).into_iter().flatten() {
        let turn = fleet.whose_turn(&cluster).await.ok().flatten();
        problems.extend(turn.map(|what| Problem { subject: format!("lease {NAME}"), cluster: Some(cluster), what }));
    }
    problems
}

fn exit(plan: &Plan, all_read: bool) -> ExitCode {
    match (plan.changes.is_empty(), all_read) {
        (false, _) => ExitCode::from(CHANGES),
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::FAILURE,
    }
}
