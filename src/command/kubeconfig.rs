//! `stockade kubeconfig`, inside a jail: how kubectl there finds its clusters. No role reads a home, so it is the user's
//! own process that brings the user's file in step.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fs_err as fs;

use super::{clusters, door};
use crate::session::kubeconfig::merge;

/// More than a kubeconfig has.
const LONGEST: u64 = 1 << 20;

/// How long another program may write.
const PATIENCE: Duration = Duration::from_millis(200);

/// A lock as old as this is what a killed program left.
const STALE: Duration = Duration::from_secs(10);

/// Print the kubeconfig of this jail, or bring your own in step with it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write the clusters you may use into ~/.kube/config and keep everything else in it
    #[arg(long)]
    sync: bool,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if !args.sync {
        print!("{}", door::ask("/kubeconfig")?);
        return Ok(ExitCode::SUCCESS);
    }
    let clusters = clusters::names()?;
    let file = file().context("there is no HOME")?;
    bring_in_step(&file, &clusters).with_context(|| format!("{} is left as it is", file.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// kubectl's, k9s's, kubectx's and helm's own place.
pub(super) fn file() -> Option<PathBuf> {
    std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"))
}

/// What is in step already is not written.
pub(super) fn bring_in_step(file: &Path, clusters: &[String]) -> anyhow::Result<()> {
    // One that leads into somebody's folder of settings goes on doing so.
    let file = &fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    if merge(&read(file)?, clusters)?.is_none() {
        return Ok(());
    }
    let directory = file.parent().context("it lies nowhere")?;
    if !directory.exists() {
        let made = std::fs::DirBuilder::new().mode(0o700).create(directory);
        made.or_else(|e| if e.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(e) })?;
    }
    let place = beside(file, ".lock");
    let _lock = Lock::take(&place)?;
    // Again: another session of this user's, or kubectl, may have written it meanwhile.
    match merge(&read(file)?, clusters)? {
        Some(text) => write(file, &text),
        None => Ok(()),
    }
}

fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn read(file: &Path) -> anyhow::Result<String> {
    // NONBLOCK: the open of a FIFO would wait for its writer.
    let mut open = OpenOptions::new();
    let opened = match open.read(true).custom_flags(libc::O_NONBLOCK).open(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        opened => opened?,
    };
    if !opened.metadata()?.is_file() {
        bail!("it is not a plain file");
    }
    let mut text = String::new();
    opened.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        bail!("it is longer than 1 MiB");
    }
    Ok(text)
}

/// Whole or not at all.
fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let new = beside(file, ".stockade");
    let _ = std::fs::remove_file(&new);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).and_then(|mut part| {
        part.write_all(text.as_bytes())?;
        std::fs::rename(&new, file)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    Ok(written?)
}

/// As kubectl locks it: whoever makes this file writes.
struct Lock<'a>(&'a Path);

impl<'a> Lock<'a> {
    fn take(path: &'a Path) -> anyhow::Result<Self> {
        let until = Instant::now() + PATIENCE;
        loop {
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
                Ok(File { .. }) => return Ok(Self(path)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    let about = std::fs::symlink_metadata(path).and_then(|about| about.modified());
                    let stale = about.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > STALE));
                    // What cannot be removed (a directory, a read-only home) must not hold up a login for ever.
                    if Instant::now() >= until {
                        bail!("another program writes it; if none does, remove {}", path.display());
                    }
                    if !stale || std::fs::remove_file(path).is_err() {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn names(clusters: &[&str]) -> Vec<String> {
        clusters.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_file_is_made_and_written_only_when_something_changed() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(".kube/config");
        bring_in_step(&file, &[]).unwrap();
        assert!(!home.path().join(".kube").exists());
        bring_in_step(&file, &names(&["hyades"])).unwrap();
        let first = std::fs::metadata(&file).unwrap();
        assert_eq!(first.mode() & 0o777, 0o600);
        bring_in_step(&file, &names(&["hyades"])).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().ino(), first.ino());
        bring_in_step(&file, &names(&["taurus"])).unwrap();
        assert_ne!(std::fs::metadata(&file).unwrap().ino(), first.ino());
        let left: Vec<_> = std::fs::read_dir(file.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["config"]);
    }

    #[test]
    fn a_link_stays_a_link() {
        let home = tempfile::tempdir().unwrap();
        let (file, target) = (home.path().join("config"), home.path().join("settings"));
        std::fs::write(&target, "").unwrap();
        symlink(&target, &file).unwrap();
        bring_in_step(&file, &names(&["hyades"])).unwrap();
        assert!(std::fs::symlink_metadata(&file).unwrap().is_symlink());
        assert!(std::fs::read_to_string(&target).unwrap().contains("hyades"));
    }

    #[test]
    fn what_cannot_be_read_is_left_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("config");
        for bad in ["{", "clusters: 3\n", &"#".repeat(1 + (1 << 20))] {
            std::fs::write(&file, bad).unwrap();
            assert!(bring_in_step(&file, &names(&["hyades"])).is_err());
            assert_eq!(std::fs::read_to_string(&file).unwrap(), bad);
        }
        std::fs::remove_file(&file).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert!(bring_in_step(&file, &names(&["hyades"])).unwrap_err().to_string().contains("plain file"));
    }

    /// "lock file against two sessions of one user at once"
    #[test]
    fn many_at_once_lose_nothing() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("config");
        let own = "contexts:\n- name: own\n  context: {cluster: c, user: u, namespace: web}\n";
        std::fs::write(&file, own).unwrap();
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let file = file.clone();
                std::thread::spawn(move || {
                    for round in 0..20 {
                        let clusters = if (number + round) % 2 == 0 { ["a", "b"] } else { ["b", "c"] };
                        // Who waits too long leaves it to the next.
                        let _ = bring_in_step(&file, &names(&clusters));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        bring_in_step(&file, &names(&["b"])).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("name: own") && text.contains("namespace: web") && text.contains("clusters/b"), "{text}");
        assert!(!text.contains("clusters/a") && !text.contains("clusters/c"), "{text}");
        assert!(!beside(&file, ".lock").exists());
    }

    #[test]
    fn what_a_killed_program_left_does_not_lock_for_ever() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("config");
        let lock = File::create(beside(&file, ".lock")).unwrap();
        assert!(bring_in_step(&file, &names(&["hyades"])).unwrap_err().to_string().contains("another program"));
        lock.set_modified(std::time::SystemTime::now() - STALE * 2).unwrap();
        bring_in_step(&file, &names(&["hyades"])).unwrap();
        assert!(file.exists());
    }
}
