//! `stockade clusters`, inside a jail: asks the control door.

use std::process::ExitCode;

use anyhow::Context;
use serde::Deserialize;

use super::door;

/// List the clusters that you may use
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the door's answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Clusters {
    clusters: Vec<Cluster>,
    problem: Option<String>,
}

#[derive(Deserialize)]
struct Cluster {
    name: String,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let body = door::ask("/clusters")?;
    if args.json {
        println!("{}", body.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let (clusters, problem) = read(&body)?;
    clusters.iter().for_each(|name| println!("{name}"));
    if clusters.is_empty() {
        eprintln!("there is no cluster that you may use");
    }
    if let Some(problem) = problem {
        // A message of STS may repeat what a user wrote.
        let plain: String = problem.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        eprintln!("stockade: EKS does not know you at the moment: {plain}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Their names; the door gives none that is more than letters, digits and `._-`.
pub(super) fn names() -> anyhow::Result<Vec<String>> {
    Ok(read(&door::ask("/clusters")?)?.0)
}

fn read(body: &str) -> anyhow::Result<(Vec<String>, Option<String>)> {
    let Clusters { clusters, problem } =
        serde_json::from_str(body).context("the control door's answer is not understood")?;
    Ok((clusters.into_iter().map(|cluster| cluster.name).collect(), problem))
}
