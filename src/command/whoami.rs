//! `stockade whoami`, inside a jail: asks the control door.

use std::process::ExitCode;

use anyhow::Context;
use serde::Deserialize;

use super::door;
use crate::session::verb::table;

/// Say who you are in this jail, and until when your AWS credentials last
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the door's answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Whoami {
    user: String,
    session: String,
    role_arn: Option<String>,
    account: Option<String>,
    region: Option<String>,
    credentials_expire: Option<String>,
    problem: Option<String>,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let body = door::ask("/whoami")?;
    if args.json {
        println!("{}", body.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let whoami: Whoami = serde_json::from_str(&body).context("the control door's answer is not understood")?;
    print!("{}", lines(whoami));
    Ok(ExitCode::SUCCESS)
}

fn lines(whoami: Whoami) -> String {
    table([
        ("user", Some(whoami.user)),
        ("session", Some(whoami.session)),
        ("role", whoami.role_arn),
        ("account", whoami.account),
        ("region", whoami.region),
        ("credentials until", whoami.credentials_expire),
        ("problem", whoami.problem),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_becomes_lines_that_cannot_steer_a_terminal() {
        let whoami = serde_json::from_str(r#"{"user":"alice","session":"s","problem":"a\u001b[2J"}"#).unwrap();
        let lines = lines(whoami);
        assert!(lines.starts_with("user               alice\nsession "), "{lines}");
        assert!(lines.ends_with("a?[2J\n") && !lines.contains("role"), "{lines}");
    }
}
