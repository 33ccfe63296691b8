//! PTY masters and pipes: reads that know their end, writes that wait.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::time::sleep;

use crate::sys::watched::Watched;

/// The longest read.
pub(super) const CHUNK: usize = 64 << 10;

/// Shorter reads are copied out of the buffer, so that a key press does not hold on to 64 KiB.
pub(super) const SMALL: usize = 8 << 10;

/// What a terminal can hold that nobody has read: 64 KiB of flip buffers and the line discipline's 4 KiB, and more.
const TERMINAL_HOLDS: u64 = 256 << 10;

/// How often a terminal is looked at that everybody in the jail has closed; its session may open it again.
const REOPENED: Duration = Duration::from_millis(20);

/// So many fruitless wakes in a row are no accident: the runtime never forgets a hang-up, not even of a terminal that
/// was opened again, and would wake for ever.
const FRUITLESS: u32 = 16;

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
    hung_up: bool,
    /// What a writer that is gone may have left unread.
    pub(super) holds: u64,
}

impl<'a> Source<'a> {
    pub(super) fn terminal(fd: &'a Watched) -> Self {
        Self { fd, buffer: Vec::new(), terminal: true, hung_up: false, holds: TERMINAL_HOLDS }
    }

    pub(super) fn pipe(fd: &'a Watched) -> Self {
        let size = rustix::pipe::fcntl_getpipe_size(fd).unwrap_or(1 << 20);
        Self { fd, buffer: Vec::new(), terminal: false, hung_up: false, holds: size as u64 }
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// What is there now.
    pub(super) fn read_now(&mut self) -> Got {
        self.buffer.clear();
        self.buffer.reserve_exact(CHUNK);
        while self.buffer.len() < CHUNK {
            match rustix::io::read(self.fd, spare_capacity(&mut self.buffer)) {
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

    /// Waits until there is something, or nothing will come. A terminal may always be opened again: it has no end here.
    pub(super) async fn next(&mut self) -> Got {
        loop {
            if self.hung_up {
                sleep(REOPENED).await;
                self.hung_up = false;
            }
            match self.wait().await {
                Got::Nothing => self.hung_up = true,
                Got::End if self.terminal => self.hung_up = true,
                got => return got,
            }
        }
    }

    async fn wait(&mut self) -> Got {
        let (fd, mut fruitless) = (self.fd, 0);
        let got = fd.io(Interest::READABLE, |_| match self.read_now() {
            Got::Nothing if fruitless < FRUITLESS => {
                fruitless += 1;
                Err(io::ErrorKind::WouldBlock.into())
            }
            got => Ok(got),
        });
        got.await.unwrap_or(Got::End)
    }
}

/// Nobody will read what is written.
#[derive(Debug)]
pub(super) struct Gone;

/// Writes everything, however long its reader takes.
pub(super) async fn write_all(fd: &Watched, mut data: &[u8]) -> Result<(), Gone> {
    while !data.is_empty() {
        let mut fruitless = 0;
        let written = fd.io(Interest::WRITABLE, |fd| match rustix::io::write(fd, data) {
            Err(Errno::AGAIN) if fruitless < FRUITLESS => {
                fruitless += 1;
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(Errno::AGAIN) => Ok(0),
            written => Ok(written?),
        });
        match written.await.map_err(|_| Gone)? {
            0 => sleep(REOPENED).await,
            n => data = data.get(n..).unwrap_or_default(),
        }
    }
    Ok(())
}
