//! `stockade doctor`: whether this host can carry a bastion, and how to mend it where it cannot.

mod cloud;
mod clusters;
mod fences;
mod host;
mod rights;
mod setting;

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

pub(super) use cloud::caller;

use super::CONFIGURATION;
use crate::config;

/// Test this host and the configuration: one line for each check, and what to do where it is not `ok`. Exits with 1 if
/// anything fails. It changes nothing; with an [aws] section it asks AWS who the bastion is and what
/// it may do.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration; without one only the host is tested
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Test nothing: print the AWS policies that the configuration needs, as JSON
    #[arg(long, value_name = "WHOSE", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    print_iam: Option<rights::Whose>,
    /// In a process of its own: closes this role's fence and tells what it lets through
    #[arg(long, hide = true, value_name = "ROLE")]
    inside: Option<String>,
}

/// How a check went. The names are stable.
#[derive(Debug, Serialize)]
struct Check {
    check: String,
    state: State,
    /// What was found, and for anything but `ok` what to do.
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warn,
    Fail,
}

impl Check {
    fn ok(check: &str, text: impl Into<String>) -> Self {
        Self { check: check.to_owned(), state: State::Ok, text: text.into() }
    }

    fn warn(check: &str, text: impl Into<String>) -> Self {
        Self { check: check.to_owned(), state: State::Warn, text: text.into() }
    }

    fn fail(check: &str, text: impl Into<String>) -> Self {
        Self { check: check.to_owned(), state: State::Fail, text: text.into() }
    }

    /// `ok`, or a failure with its mend.
    fn must(check: &str, holds: bool, fine: impl Into<String>, mend: impl Into<String>) -> Self {
        if holds { Self::ok(check, fine) } else { Self::fail(check, mend) }
    }

    fn show(&self) -> String {
        let state = match self.state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        format!("{state:<4}  {:<14} {}", self.check, self.text)
    }
}

/// What the kernel and its mounts lack for any bastion, each with its mend; for the demo, which asks for root, programs
/// and loop devices in words of its own.
pub(super) fn unmet_by_the_kernel() -> Vec<String> {
    let checks = host::checks().into_iter().chain([fences::landlock()]);
    let failed =
        checks.filter(|check| check.state == State::Fail && !host::MENDED_BY_HAND.contains(&check.check.as_str()));
    failed.map(|check| format!("{}: {}", check.check, check.text)).collect()
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(role) = &args.inside {
        return Ok(fences::inside(role));
    }
    if let Some(whose) = args.print_iam {
        let path = args.config.unwrap_or_else(|| CONFIGURATION.into());
        print!("{}", rights::print(&path, whose)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut failed = false;
    let mut say = |check: Check| {
        failed |= check.state == State::Fail;
        match args.json {
            true => println!("{}", serde_json::to_string(&check).unwrap_or_default()),
            false => println!("{}", check.show()),
        }
    };
    host::checks().into_iter().for_each(&mut say);
    fences::checks().into_iter().for_each(&mut say);
    let path = args.config.clone().unwrap_or_else(|| CONFIGURATION.into());
    if args.config.is_none() && !path.exists() {
        say(Check::warn(
            "config",
            format!("{CONFIGURATION} is not there, so only the host was tested; name another with --config"),
        ));
        return Ok(ExitCode::from(u8::from(failed)));
    }
    match config::load(&path) {
        Ok(config) => {
            say(Check::ok("config", format!("{}: no mistakes", path.display())));
            setting::checks(&config).into_iter().for_each(&mut say);
            cloud::checks(&config).into_iter().for_each(&mut say);
            clusters::checks(&config).into_iter().for_each(&mut say);
        }
        Err(report) => {
            say(Check::fail(
                "config",
                format!("{}; `stockade check --config {}` shows the places", report.line(), path.display()),
            ));
        }
    }
    Ok(ExitCode::from(u8::from(failed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_state_check_and_mend() {
        let check = Check::must("root", false, "", "run it as root");
        assert_eq!(check.show(), "FAIL  root           run it as root");
        assert_eq!(
            serde_json::to_string(&check).unwrap(),
            r#"{"check":"root","state":"fail","text":"run it as root"}"#
        );
    }
}
