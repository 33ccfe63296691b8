//! A connection that was let through: bytes both ways, counted, until either end, the clock or the rules end it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// One direction's buffer; a reader that is slow makes its writer wait, and costs no more than this.
const BUFFER: usize = 16 * 1024;

/// The bytes of a connection, and the share of its jail that they come out of.
#[derive(Debug)]
pub struct Meter<'a> {
    pub sent: AtomicU64,
    pub received: AtomicU64,
    begun: Instant,
    /// Milliseconds after `begun` of the last byte.
    last: AtomicU64,
    used: &'a AtomicU64,
}

/// Why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    #[error("both sides were done")]
    Done,
    #[error("the jail's side broke off")]
    Jail,
    #[error("the other side broke off")]
    Outside,
    #[error("it was idle for too long")]
    Idle,
    #[error("the jail's share of bytes is used up")]
    Spent,
}

impl<'a> Meter<'a> {
    /// `used`: of the whole jail.
    pub fn new(used: &'a AtomicU64) -> Self {
        let zero = || AtomicU64::new(0);
        Self { sent: zero(), received: zero(), begun: Instant::now(), last: zero(), used }
    }

    fn touch(&self) {
        self.last.store(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    async fn idle(&self, after: Duration) {
        loop {
            let due = self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed)) + after;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// What a connection may use.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of the whole jail.
    pub bytes: u64,
    pub idle: Duration,
}

/// Moves bytes; `first` of the jail's were read already. An end of one direction is passed on and leaves the other open.
pub async fn run(
    jail: &mut TcpStream,
    outside: &mut TcpStream,
    first: &[u8],
    bounds: Bounds,
    meter: &Meter<'_>,
) -> End {
    let (mut from_jail, mut to_jail) = jail.split();
    let (mut from_outside, mut to_outside) = outside.split();
    let out = Way { count: &meter.sent, most: bounds.bytes, meter, reading: End::Jail, writing: End::Outside };
    let back = Way { count: &meter.received, most: bounds.bytes, meter, reading: End::Outside, writing: End::Jail };
    let outward = async {
        out.pass(&mut to_outside, first).await?;
        out.pump(&mut from_jail, &mut to_outside).await
    };
    tokio::select! {
        done = async { tokio::try_join!(outward, back.pump(&mut from_outside, &mut to_jail)) } => {
            done.err().unwrap_or(End::Done)
        }
        () = meter.idle(bounds.idle) => End::Idle,
    }
}

/// One direction.
struct Way<'a> {
    count: &'a AtomicU64,
    most: u64,
    meter: &'a Meter<'a>,
    /// What it means that reading, or writing, fails.
    reading: End,
    writing: End,
}

impl Way<'_> {
    async fn pump(&self, from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> Result<(), End> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let got = from.read(&mut buffer).await.map_err(|_| self.reading)?;
            if got == 0 {
                // An other side that is gone already has no use for it.
                let _ = to.shutdown().await;
                return Ok(());
            }
            self.pass(to, buffer.get(..got).unwrap_or_default()).await?;
        }
    }

    async fn pass(&self, to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), End> {
        let length = bytes.len() as u64;
        if self.meter.used.fetch_add(length, Ordering::Relaxed).saturating_add(length) > self.most {
            return Err(End::Spent);
        }
        self.meter.touch();
        let mut rest = bytes;
        while !rest.is_empty() {
            let put = to.write(rest).await.ok().filter(|put| *put > 0).ok_or(self.writing)?;
            rest = rest.get(put..).unwrap_or_default();
            self.count.fetch_add(put as u64, Ordering::Relaxed);
            self.meter.touch();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
