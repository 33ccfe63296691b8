//! argv to verb to exit code.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::command;
use crate::config;
use crate::session::exit::MISTAKES;

/// A hardened bastion: SSH in, hold only your own credentials, leave a recording.
#[derive(Debug, Parser)]
#[command(name = "stockade", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Try it: a bastion on this machine, and a shell in a jail
    Demo(command::demo::Args),
    /// Test whether this host can carry a bastion, and say how to mend it
    Doctor(command::doctor::Args),
    /// Run the bastion
    Serve(command::serve::Args),
    /// Read a configuration, say everything that is wrong with it, or explain one decision
    Check(command::check::Args),
    /// Import, list and remove jail images
    Image(command::image::Args),
    /// List, show, play and export recorded sessions
    Session(command::session::Args),
    /// What the audit events mean
    Audit(command::audit::Args),
    /// Turn IAM groups into Kubernetes RBAC, and say who may do what where
    Access(command::access::Args),
    /// The same as an AWS Lambda
    Lambda(command::access::lambda::Args),
    /// Inside a jail: say who you are, and until when your AWS credentials last
    Whoami(command::whoami::Args),
    /// Inside a jail, or as an SSH command: list the clusters that you may use
    Clusters(command::clusters::Args),
    /// As an SSH command of a laptop: fetch a token for kubectl there
    Token(command::token::Args),
    /// Inside a jail: print its kubeconfig, or bring yours in step; as an SSH command: print one for a laptop
    Kubeconfig(command::kubeconfig::Args),
    /// Lock users and sessions out, and let them in again
    Lock(command::lock::Args),
    /// Inside a jail: try every way out that is known, and say what held
    Probe(command::probe::Args),
}

/// The command line as a value: man pages and completions are made from it.
pub fn command_line() -> clap::Command {
    Cli::command()
}

/// Parses the command line, runs the verb, prints an error chain once.
pub fn run() -> ExitCode {
    if let Some(code) = command::role::run_if_asked() {
        return code;
    }
    if command::access::lambda::is_asked() {
        return command::access::lambda::run(command::access::lambda::Args {}).unwrap_or_else(report);
    }
    let done = match Cli::parse().verb {
        Verb::Demo(args) => command::demo::run(args),
        Verb::Doctor(args) => command::doctor::run(args),
        Verb::Serve(args) => command::serve::run(args),
        Verb::Check(args) => command::check::run(args),
        Verb::Image(args) => command::image::run(args),
        Verb::Session(args) => command::session::run(args),
        Verb::Audit(args) => command::audit::run(args),
        Verb::Access(args) => command::access::run(args),
        Verb::Lambda(args) => command::access::lambda::run(args),
        Verb::Whoami(args) => command::whoami::run(args),
        Verb::Clusters(args) => command::clusters::run(args),
        Verb::Token(args) => command::token::run(args),
        Verb::Kubeconfig(args) => command::kubeconfig::run(args),
        Verb::Lock(args) => command::lock::run(args),
        Verb::Probe(args) => command::probe::run(args),
    };
    done.unwrap_or_else(report)
}

/// The mistakes of a configuration as they are; else `stockade: what`, then one `caused by:` line for each source.
fn report(error: anyhow::Error) -> ExitCode {
    if let Some(mistakes) = error.downcast_ref::<config::Report>() {
        eprintln!("{mistakes}");
        return ExitCode::from(MISTAKES);
    }
    eprintln!("stockade: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  caused by: {cause}");
    }
    ExitCode::FAILURE
}
