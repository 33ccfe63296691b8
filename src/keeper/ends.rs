//! PTY masters and pipes: reads that know their end, writes that wait.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

/// The longest read.
pub(super) const CHUNK: usize = 64 << 10;

/// Shorter reads are copied out of the buffer, so that a key press does not hold on to 64 KiB.
const SMALL: usize = 8 << 10;

/// What a terminal can hold that nobody has read: 64 KiB of flip buffers and the line discipline's 4 KiB, and more.
const TERMINAL_HOLDS: u64 = 256 << 10;

/// How often a terminal is looked at that everybody in the jail has closed.
const REOPENED: Duration = Duration::from_millis(100);

pub(super) type Watched = AsyncFd<OwnedFd>;

/// Makes a descriptor non-blocking and watches it; must be called inside the runtime.
pub(super) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<Watched> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    // tokio's warning is about types whose `as_raw_fd` may change; an `OwnedFd`'s does not.
    #[allow(deprecated)]
    AsyncFd::with_interest(fd, interest)
}

/// What a read found.
#[derive(Debug)]
pub(super) enum Got {
    Data(Bytes),
    Nothing,
    End,
}

/// Where output comes from.
#[derive(Debug)]
pub(super) struct Source<'a> {
    fd: &'a Watched,
    buffer: Vec<u8>,
    terminal: bool,
    /// What a writer that is gone may have left unread.
    pub(super) holds: u64,
}

impl<'a> Source<'a> {
    pub(super) fn terminal(fd: &'a Watched) -> Self {
        Self { fd, buffer: Vec::new(), terminal: true, holds: TERMINAL_HOLDS }
    }

    pub(super) fn pipe(fd: &'a Watched) -> Self {
        let size = rustix::pipe::fcntl_getpipe_size(fd.get_ref()).unwrap_or(1 << 20);
        Self { fd, buffer: Vec::new(), terminal: false, holds: size as u64 }
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// What is there now.
    pub(super) fn read_now(&mut self) -> Got {
        self.buffer.clear();
        self.buffer.reserve_exact(CHUNK);
        while self.buffer.len() < CHUNK {
            match rustix::io::read(self.fd.get_ref(), spare_capacity(&mut self.buffer)) {
                // A terminal gives at most 4 KiB a read: more may be there.
                Ok(n) if n > 0 && self.terminal => {}
                Err(Errno::INTR) => {}
                Ok(n) if n > 0 => break,
                Err(Errno::AGAIN) if self.buffer.is_empty() => return Got::Nothing,
                // EIO on a master: every slave is closed, and what they wrote has been read.
                Ok(_) | Err(_) if self.buffer.is_empty() => return Got::End,
                Ok(_) | Err(_) => break,
            }
        }
        Got::Data(self.taken())
    }

    fn taken(&mut self) -> Bytes {
        if self.buffer.len() < SMALL {
            Bytes::copy_from_slice(&self.buffer)
        } else {
            std::mem::take(&mut self.buffer).into()
        }
    }

    /// Waits until there is something, or nothing will come.
    pub(super) async fn next(&mut self) -> Got {
        loop {
            let Ok(mut guard) = self.fd.readable().await else { return Got::End };
            match self.read_now() {
                Got::Nothing => guard.clear_ready(),
                got => return got,
            }
            // tokio never forgets a hang-up, even when the terminal was opened again: this must not spin.
            if self.terminal && guard.ready().is_read_closed() {
                sleep(REOPENED).await;
            }
        }
    }

    /// A terminal that everybody has closed may be opened again by its session.
    pub(super) async fn reopened(&self) {
        sleep(REOPENED).await;
    }
}

/// Nobody will read what is written.
#[derive(Debug)]
pub(super) struct Gone;

/// Writes everything, however long its reader takes.
pub(super) async fn write_all(fd: &Watched, mut data: &[u8]) -> Result<(), Gone> {
    while !data.is_empty() {
        let mut guard = fd.writable().await.map_err(|_| Gone)?;
        match rustix::io::write(fd.get_ref(), data) {
            Ok(n) => data = data.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                guard.clear_ready();
                if guard.ready().is_write_closed() {
                    sleep(REOPENED).await;
                }
            }
            Err(_) => return Err(Gone),
        }
    }
    Ok(())
}
