//! `stockade whoami`, inside a jail: asks the control door, which knows the asker by its listener.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;

/// The abstract name of the control door.
const DOOR: &[u8] = b"stockade";

/// The longest answer that is read.
const LONGEST: u64 = 64 * 1024;

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
    let body = ask(door()?)?;
    if args.json {
        println!("{}", body.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let whoami: Whoami = serde_json::from_str(&body).context("the control door's answer is not understood")?;
    print!("{}", lines(&whoami));
    Ok(ExitCode::SUCCESS)
}

/// The control door of the jail around this process.
pub(super) fn door() -> anyhow::Result<UnixStream> {
    let address = SocketAddr::from_abstract_name(DOOR).context("this system has no abstract sockets")?;
    UnixStream::connect_addr(&address).context("nothing answers at @stockade: this is not the inside of a jail")
}

fn ask(mut door: UnixStream) -> anyhow::Result<String> {
    let patience = Some(Duration::from_secs(5));
    door.set_read_timeout(patience)?;
    door.set_write_timeout(patience)?;
    door.write_all(b"GET /whoami HTTP/1.1\r\nHost: stockade\r\nConnection: close\r\n\r\n")
        .context("the control door does not listen")?;
    let mut answer = String::new();
    door.take(LONGEST).read_to_string(&mut answer).context("the control door does not answer")?;
    body_of(&answer).map(str::to_owned)
}

/// The body of a response that ends with its connection.
fn body_of(answer: &str) -> anyhow::Result<&str> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the control door's answer is cut short")?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        bail!("the control door answers with status {status}");
    }
    Ok(body)
}

fn lines(whoami: &Whoami) -> String {
    let rows = [
        ("user", Some(&whoami.user)),
        ("session", Some(&whoami.session)),
        ("role", whoami.role_arn.as_ref()),
        ("account", whoami.account.as_ref()),
        ("region", whoami.region.as_ref()),
        ("credentials until", whoami.credentials_expire.as_ref()),
        ("problem", whoami.problem.as_ref()),
    ];
    // A message of STS may repeat what a user wrote: nothing of it may steer the terminal.
    let row = |(name, value): (&str, Option<&String>)| {
        let plain: String = value?.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        Some(format!("{name:<18} {plain}\n"))
    };
    rows.into_iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_becomes_lines_that_cannot_steer_a_terminal() {
        let body = r#"{"user":"alice","session":"s","problem":"a\u001b[2J"}"#;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{body}");
        let whoami = serde_json::from_str(body_of(&answer).unwrap()).unwrap();
        let lines = lines(&whoami);
        assert!(lines.starts_with("user               alice\nsession "), "{lines}");
        assert!(lines.ends_with("a?[2J\n") && !lines.contains("role"), "{lines}");
    }

    #[test]
    fn anything_but_200_is_an_error() {
        for bad in ["", "HTTP/1.1 404 Not Found\r\n\r\n{}", "HTTP/1.1 200 OK\r\n", "\r\n\r\n"] {
            assert!(body_of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn outside_a_jail_it_says_so() {
        let error = run(Args { json: false }).unwrap_err();
        assert!(error.to_string().contains("not the inside of a jail"), "{error}");
    }
}
