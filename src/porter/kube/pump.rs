//! Bytes both ways between two streams: counted, half-closed, watched for standing still.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until, timeout};

use super::record::End;

/// What is left to say after the cluster's end is said by then.
const FAREWELL: Duration = Duration::from_secs(5);

/// One direction's: a reader that is slow makes its writer wait, and costs no more than this.
const BUFFER: usize = 64 * 1024;

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
    let mut broken = false;
    loop {
        if !bytes.is_empty() {
            count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            touch(clock);
            // TLS keeps what the socket did not take at once.
            if to.write_all(bytes).await.is_err() || to.flush().await.is_err() {
                return Halt::Writing;
            }
        }
        let got = if broken { 0 } else { fill(&mut from, &mut buffer, &mut broken).await };
        match got {
            0 if broken => return Halt::Reading,
            0 => {
                // An other side that is gone already has no use for it.
                let _ = to.shutdown().await;
                return Halt::Done;
            }
            got => bytes = buffer.get(..got).unwrap_or_default(),
        }
    }
}

/// All that is there: TLS gives one record at a time, and each write wakes whoever reads it. An error is reported by a
/// socket once, so it is kept behind what came before it.
async fn fill<R: AsyncRead>(from: &mut ReadHalf<R>, buffer: &mut [u8], broken: &mut bool) -> usize {
    let mut space = ReadBuf::new(buffer);
    poll_fn(|cx| {
        loop {
            let before = space.filled().len();
            match Pin::new(&mut *from).poll_read(cx, &mut space) {
                Poll::Pending if before == 0 => return Poll::Pending,
                Poll::Ready(Ok(())) if space.filled().len() > before && space.remaining() > 0 => {}
                Poll::Ready(Err(_)) => {
                    *broken = true;
                    return Poll::Ready(before);
                }
                Poll::Pending | Poll::Ready(Ok(())) => return Poll::Ready(space.filled().len()),
            }
        }
    })
    .await
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;
    use std::task::Context;

    use super::*;

    /// What each read gives; then nothing comes any more.
    struct Script(VecDeque<io::Result<&'static [u8]>>);

    impl AsyncRead for Script {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let Some(next) = self.0.pop_front() else { return Poll::Pending };
            Poll::Ready(next.map(|bytes| to.put_slice(bytes)))
        }
    }

    impl AsyncWrite for Script {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn filled(reads: impl IntoIterator<Item = io::Result<&'static [u8]>>) -> (Vec<u8>, bool) {
        let (mut from, _to) = tokio::io::split(Script(reads.into_iter().collect()));
        let (mut buffer, mut broken) = ([0; 8], false);
        let got = fill(&mut from, &mut buffer, &mut broken).await;
        (buffer[..got].to_vec(), broken)
    }

    #[tokio::test]
    async fn what_is_there_is_read_at_once_and_an_error_comes_after_it() {
        let reset = || Err(io::ErrorKind::ConnectionReset.into());
        let one = || Ok(&b"one"[..]);
        assert_eq!(filled([one(), one()]).await, (b"oneone".to_vec(), false));
        assert_eq!(filled([one(), Ok(&b""[..])]).await, (b"one".to_vec(), false));
        assert_eq!(filled([one(), reset()]).await, (b"one".to_vec(), true));
        assert_eq!(filled([reset()]).await, (Vec::new(), true));
        assert_eq!(filled([Ok(&b""[..])]).await, (Vec::new(), false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_breaks_off_is_not_one_that_has_said_everything() {
        let counts = [AtomicU64::new(0), AtomicU64::new(0)];
        let near = Side { stream: Script(VecDeque::new()), first: Bytes::new(), count: &counts[0] };
        let reads = VecDeque::from([Ok(&b"one"[..]), Err(io::ErrorKind::ConnectionReset.into())]);
        let far = Side { stream: Script(reads), first: Bytes::new(), count: &counts[1] };
        assert!(matches!(moved(near, far, Duration::ZERO).await, End::Cut(_)));
        assert_eq!(counts[1].load(Ordering::Relaxed), 3);
    }
}
