//! The user's side: OpenSSH's client, as a laptop has it.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use super::USER;
use super::directory::{self, Directory};
use super::interrupt::Interrupt;
use super::step::end;

const PATIENCE: Duration = Duration::from_secs(2);

/// Logs in, and gives ssh's exit status.
pub(super) fn run(
    directory: &Directory,
    listen: SocketAddr,
    words: &[String],
    interrupt: &Interrupt,
) -> anyhow::Result<u8> {
    let mut ssh = Command::new("ssh");
    let option = |name: &str, value: &str| ["-o".to_owned(), format!("{name}={value}")];
    ssh.args(["-F", "none"])
        .args(option("UserKnownHostsFile", &quoted_path(&directory.text(directory::KNOWN_HOSTS)?)))
        .args(option("GlobalKnownHostsFile", "/dev/null"))
        .args(option("StrictHostKeyChecking", "yes"))
        .args(option("UpdateHostKeys", "no"))
        .args(option("IdentitiesOnly", "yes"))
        .args(option("IdentityAgent", "none"))
        .args(option("PreferredAuthentications", "publickey"))
        .arg("-i")
        .arg(directory.file(directory::USER_KEY))
        .args(["-p", &listen.port().to_string(), "-l", USER, &listen.ip().to_string()]);
    if let Some(line) = command_line(words) {
        ssh.args(["--", &line]);
    }
    let mut child = ssh.spawn().context("cannot run ssh")?;
    loop {
        match interrupt.wait(&mut child, Duration::from_secs(3600)) {
            Ok(None) => {}
            Ok(Some(status)) => return Ok(code(status)),
            Err(interrupted) => {
                hang_up(&mut child);
                return Err(interrupted);
            }
        }
    }
}

/// Asked to, ssh puts the terminal right again before it ends.
fn hang_up(ssh: &mut Child) {
    if let Some(pid) = i32::try_from(ssh.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
    let asked = Instant::now();
    while matches!(ssh.try_wait(), Ok(None)) && asked.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    end(ssh);
}

/// ssh would join the words by blanks: so several words are quoted, and one is left to the shell as it is.
fn command_line(words: &[String]) -> Option<String> {
    match words {
        [] => None,
        [line] => Some(line.clone()),
        several => Some(several.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")),
    }
}

fn quote(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-+=./:,@%".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// ssh splits the value of this option at blanks.
fn quoted_path(path: &str) -> String {
    format!("\"{path}\"")
}

fn code(status: std::process::ExitStatus) -> u8 {
    let killed = || 128 + status.signal().unwrap_or(0);
    u8::try_from(status.code().unwrap_or_else(killed)).unwrap_or(255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_words_arrive_as_they_are_and_one_is_a_line() {
        let line = |words: &[&str]| command_line(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(line(&[]), None);
        assert_eq!(line(&["id; echo $HOME"]).unwrap(), "id; echo $HOME");
        assert_eq!(line(&["sh", "-c", "echo \"it's $1\"", ""]).unwrap(), r#"sh -c 'echo "it'\''s $1"' ''"#);
    }
}
