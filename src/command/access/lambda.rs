//! `stockade lambda`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};

use super::Begun;
use crate::access::lambda;
use crate::access::trail::Trail;
use crate::config::{self, Terms};

/// What Lambda sets for every function, and what cannot be done without.
const SURROUNDINGS: [&str; 4] = [
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_VERSION",
];
/// Where Lambda unpacks a function.
const TASK_ROOT: &str = "LAMBDA_TASK_ROOT";
/// The only directory of a function's that can be written.
const SCRATCH: &str = "/tmp/stockade-access";

/// As an AWS Lambda of a custom runtime: one cycle for each event. As `bootstrap` the program does this by itself; the
/// configuration is STOCKADE_CONFIG, or stockade.toml beside the program. Audit events are printed, for CloudWatch.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Whether Lambda started this: a custom runtime is a program of this name, without arguments.
pub fn is_asked() -> bool {
    let mut words = std::env::args_os();
    let name = words.next().map(PathBuf::from);
    name.is_some_and(|name| name.file_name().is_some_and(|name| name == "bootstrap")) && words.next().is_none()
}

/// Runs the verb.
pub fn run(_: Args) -> anyhow::Result<ExitCode> {
    if let Some(missing) = SURROUNDINGS.into_iter().find(|name| std::env::var_os(name).is_none()) {
        bail!("{missing} is not set: this verb is for AWS Lambda; elsewhere use `stockade access watch`");
    }
    let mut terms = config::load_access(&configuration()?)?;
    super::log();
    settle_state(&mut terms);
    super::block_on(async {
        let Begun { course, board, stop, .. } = super::begin(terms, Arc::new(Trail::lines()), super::PATIENCE).await?;
        lambda::serve(course, board, stop).await.map_err(|error| anyhow!("the Lambda Runtime API: {error}"))?;
        Ok(ExitCode::SUCCESS)
    })
}

fn configuration() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("STOCKADE_CONFIG") {
        return Ok(path.into());
    }
    let root = match std::env::var_os(TASK_ROOT) {
        Some(root) => PathBuf::from(root),
        None => {
            std::env::current_exe().context("where is this program?")?.parent().map(PathBuf::from).unwrap_or_default()
        }
    };
    Ok(root.join("stockade.toml"))
}

/// A configuration that a daemon shares names a directory that a function has not, unless it mounts one there.
fn settle_state(terms: &mut Terms) {
    if fs_err::create_dir_all(&terms.rbac.state).is_err() {
        tracing::warn!(
            state = %terms.rbac.state.display(),
            "the state's directory cannot be made: what was seen is forgotten with this process"
        );
        terms.rbac.state = SCRATCH.into();
    }
}
