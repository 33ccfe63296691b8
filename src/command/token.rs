//! `stockade token`: for a laptop, where it is an SSH command that the warden answers. In a jail the control door says so.

use std::process::ExitCode;

use super::door;

/// Fetch a token for kubectl on a laptop: run it there, as `ssh BASTION stockade token CLUSTER`
#[derive(Debug, clap::Args)]
pub struct Args {
    cluster: String,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !args.cluster.chars().all(plain) {
        anyhow::bail!("'{}' is no cluster's name", args.cluster.escape_debug());
    }
    print!("{}", door::ask(&format!("/token?cluster={}", args.cluster))?);
    Ok(ExitCode::SUCCESS)
}
