//! Bytes both ways between two streams: counted, half-closed, watched for standing still.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until, timeout};

use super::record::End;

/// What is left to say after the cluster's end is said by then.
const FAREWELL: Duration = Duration::from_secs(5);

/// One direction's: a reader that is slow makes its writer wait, and costs no more than this.
const BUFFER: usize = 32 * 1024;

/// One end of a stream, and what was read of it already.
pub struct Side<'c, S> {
    pub stream: S,
    pub first: Bytes,
    /// Bytes that come from it.
    pub count: &'c AtomicU64,
}

/// Moves bytes both ways until both sides are done or one breaks off.
pub async fn moved<N, F>(near: Side<'_, N>, far: Side<'_, F>, idle: Duration) -> End
where
    N: AsyncRead + AsyncWrite,
    F: AsyncRead + AsyncWrite,
{
    let client = || End::Left("the client broke off");
    let cluster = || End::Cut("the cluster broke off".into());
    let clock = Mutex::new(Instant::now());
    let (from_near, to_near) = tokio::io::split(near.stream);
    let (from_far, to_far) = tokio::io::split(far.stream);
    let out = pump(from_near, to_far, &near.first, near.count, &clock);
    let back = pump(from_far, to_near, &far.first, far.count, &clock);
    let outward = |halt| match halt {
        Halt::Done => End::Done,
        Halt::Reading => client(),
        Halt::Writing => cluster(),
    };
    let inward = |halt| match halt {
        Halt::Done => End::Done,
        Halt::Reading => cluster(),
        Halt::Writing => client(),
    };
    let both = async {
        let (mut out, mut back) = (pin!(out), pin!(back));
        tokio::select! {
            halt = &mut out => match halt {
                Halt::Done => inward(back.await),
                halt => outward(halt),
            },
            halt = &mut back => {
                // A cluster that has said its last word takes none.
                let _ = timeout(FAREWELL, out).await;
                inward(halt)
            }
        }
    };
    tokio::select! {
        end = both => end,
        () = idled(&clock, idle) => End::Left("idle for too long"),
    }
}

/// What stopped one direction.
enum Halt {
    Done,
    Reading,
    Writing,
}

async fn pump<R: AsyncRead, W: AsyncWrite>(
    mut from: ReadHalf<R>,
    mut to: WriteHalf<W>,
    first: &[u8],
    count: &AtomicU64,
    clock: &Mutex<Instant>,
) -> Halt {
    let mut buffer = vec![0; BUFFER];
    let mut bytes = first;
    loop {
        if !bytes.is_empty() {
            count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            touch(clock);
            // TLS keeps what the socket did not take at once.
            if to.write_all(bytes).await.is_err() || to.flush().await.is_err() {
                return Halt::Writing;
            }
        }
        match from.read(&mut buffer).await {
            Ok(0) => {
                // An other side that is gone already has no use for it.
                let _ = to.shutdown().await;
                return Halt::Done;
            }
            Ok(got) => bytes = buffer.get(..got).unwrap_or_default(),
            Err(_) => return Halt::Reading,
        }
    }
}

fn touch(clock: &Mutex<Instant>) {
    *clock.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
}

/// Comes back when nothing has moved for so long; for zero, never.
async fn idled(clock: &Mutex<Instant>, after: Duration) {
    if after.is_zero() {
        return std::future::pending().await;
    }
    loop {
        let due = *clock.lock().unwrap_or_else(PoisonError::into_inner) + after;
        if due <= Instant::now() {
            return;
        }
        sleep_until(due).await;
    }
}
