//! The control door of the jail around this process, which knows the asker by its listener.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;

/// The abstract name of the control door.
const DOOR: &[u8] = b"stockade";

/// The longest answer that is read.
const LONGEST: u64 = 4 << 20;

const PATIENCE: Duration = Duration::from_secs(5);

/// What it refuses with.
#[derive(Deserialize)]
struct Problem {
    message: String,
}

/// Connects; an error is no jail.
pub(super) fn connect() -> anyhow::Result<UnixStream> {
    let address = SocketAddr::from_abstract_name(DOOR).context("this system has no abstract sockets")?;
    UnixStream::connect_addr(&address).context("nothing answers at @stockade: this is not the inside of a jail")
}

/// What it answers to a path; a refusal is an error with its sentence.
pub(super) fn ask(path: &str) -> anyhow::Result<String> {
    let mut door = connect()?;
    door.set_read_timeout(Some(PATIENCE))?;
    door.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: stockade\r\nConnection: close\r\n\r\n");
    door.write_all(request.as_bytes()).context("the control door does not listen")?;
    let mut answer = String::new();
    door.take(LONGEST).read_to_string(&mut answer).context("the control door does not answer")?;
    body_of(&answer).map(str::to_owned)
}

/// The body of a response that ends with its connection.
fn body_of(answer: &str) -> anyhow::Result<&str> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the control door's answer is cut short")?;
    match head.split_whitespace().nth(1).unwrap_or_default() {
        "200" => Ok(body),
        status => match serde_json::from_str::<Problem>(body) {
            Ok(problem) => bail!("{}", problem.message),
            Err(_) => bail!("the control door answers with status {status}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_but_200_is_an_error() {
        for bad in ["", "HTTP/1.1 404 Not Found\r\n\r\n{}", "HTTP/1.1 200 OK\r\n", "\r\n\r\n"] {
            assert!(body_of(bad).is_err(), "{bad:?}");
        }
        assert_eq!(body_of("HTTP/1.1 200 OK\r\nx: y\r\n\r\nbody").unwrap(), "body");
        let refused = "HTTP/1.1 403 Forbidden\r\n\r\n{\"code\":\"Forbidden\",\"message\":\"not here\"}";
        assert_eq!(body_of(refused).unwrap_err().to_string(), "not here");
    }

    #[test]
    fn outside_a_jail_it_says_so() {
        let error = ask("/whoami").unwrap_err();
        assert!(error.to_string().contains("not the inside of a jail"), "{error}");
    }
}
