//! What runs first in each channel of a session with clusters: brings the user's kubeconfig in step, then is the shell.
//!
//! Inside the jail and as the user, for no role reads a home. It asks nobody: the names come with it, so nothing can
//! hold a login up.

use std::ffi::{CString, OsString};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use super::kubeconfig::{bring_in_step, file};
use crate::jailer::CLUSTERS;
use crate::session::exit::NOT_EXECUTED;
use crate::sys::{exec, signal};

/// `arguments`: the shell's path, then its words. Returns only on failure.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let clusters = std::env::var(CLUSTERS).unwrap_or_default();
    let clusters: Vec<String> = clusters.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if let Some(file) = file()
        && let Err(error) = bring_in_step(&file, &clusters)
        && std::io::stderr().is_terminal()
    {
        eprintln!("stockade: {} is left as it is: {error}", file.display());
    }
    let mut words = arguments.filter_map(text);
    let Some(shell) = words.next() else { return ExitCode::from(NOT_EXECUTED) };
    let words: Vec<CString> = words.collect();
    let other = std::env::vars_os().filter(|(name, _)| name != CLUSTERS);
    let environment: Vec<CString> = other.filter_map(|(name, value)| text(pair(name, value))).collect();
    let error = match signal::reset() {
        Ok(()) => exec::exec_path(&shell, &words, &environment),
        Err(error) => error,
    };
    eprintln!("stockade: cannot execute {}: {error}", shell.to_string_lossy());
    ExitCode::from(NOT_EXECUTED)
}

fn pair(mut name: OsString, value: OsString) -> OsString {
    name.push("=");
    name.push(value);
    name
}

/// What the kernel handed over has no NUL in it.
fn text(string: OsString) -> Option<CString> {
    CString::new(string.into_vec()).ok()
}
