//! `stockade serve`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;

use crate::jailer;

/// Run the bastion: reads the configuration, starts every process, serves until SIGTERM; SIGHUP reads it again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = super::CONFIGURATION)]
    config: PathBuf,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "stockade serve must be started by root: it makes namespaces and gives each of its processes a user of its own"
        );
    }
    let Some(config) = args.config.to_str() else { bail!("the path of the configuration is not UTF-8") };
    Ok(jailer::run(config))
}
