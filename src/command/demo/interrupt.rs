//! Ctrl-C and its kin as something to wait for beside a child.

use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::signal::unix::{SignalKind, signal};

/// The user wants all of it to end.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// Readable from the first signal on. Handlers, not a blocked mask, which children would inherit.
#[derive(Debug)]
pub(super) struct Interrupt {
    pipe: OwnedFd,
}

impl Interrupt {
    /// From here on SIGINT, SIGTERM and SIGHUP no longer end this process by themselves.
    pub(super) fn watch() -> anyhow::Result<Self> {
        let (pipe, told) = pipe_with(PipeFlags::CLOEXEC)?;
        let (ready, installed) = mpsc::channel();
        std::thread::Builder::new().name("signals".into()).spawn(move || listen(&told, &ready))?;
        installed.recv().context("the thread that listens for signals is gone")??;
        Ok(Self { pipe })
    }

    /// Fails once a signal has come.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let mut pipe = [PollFd::new(&self.pipe, PollFlags::IN)];
        match poll(&mut pipe, Some(&Timespec::default())) {
            Ok(0) => Ok(()),
            _ => Err(Interrupted.into()),
        }
    }

    /// How the child ended, or nothing after `patience`.
    pub(super) fn wait(&self, child: &mut Child, patience: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return Ok(child.try_wait()?) };
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("cannot watch a child")?;
        let mut both = [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(&self.pipe, PollFlags::IN)];
        let patience = Timespec::try_from(patience)?;
        let _ = poll(&mut both, Some(&patience));
        match child.try_wait()? {
            Some(status) => Ok(Some(status)),
            None => self.check().map(|()| None),
        }
    }
}

fn listen(told: &OwnedFd, ready: &mpsc::Sender<std::io::Result<()>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return drop(ready.send(Err(e))),
    };
    runtime.block_on(async {
        let all =
            || Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?));
        let (mut interrupt, mut terminate, mut hangup) = match all() {
            Ok(all) => all,
            Err(e) => return drop(ready.send(Err(e))),
        };
        let _ = ready.send(Ok(()));
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            let _ = rustix::io::write(told, b".");
        }
    });
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_is_waited_for_as_long_as_said() {
        let interrupt = Interrupt::watch().unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(interrupt.wait(&mut child, Duration::from_millis(10)).unwrap().is_none());
        child.kill().unwrap();
        while interrupt.wait(&mut child, Duration::from_secs(10)).unwrap().is_none() {}
    }
}
