//! Bodies on their way: counted, without trailers, never gathered but for the beginning of an answer.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::record::{End, Record};
use super::upstream::{Lane, Upstream};

/// The most of a body that an event takes.
pub const MOST_KEPT: usize = 64 * 1024;

/// The most of an answer that waits for its end …
const MOST_EARLY: usize = 32 * 1024;
/// … and how long: what comes later comes in pieces.
const EARLY: Duration = Duration::from_millis(20);

/// What went through, in bytes.
#[derive(Debug, Default)]
pub struct Count {
    pub sent: AtomicU64,
    pub got: AtomicU64,
    pub kept: Mutex<Kept>,
}

/// The beginning of a request's body.
#[derive(Debug, Default)]
pub struct Kept {
    pub bytes: Vec<u8>,
    pub cut: bool,
}

impl Count {
    pub fn keep(&self, bytes: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MOST_KEPT.saturating_sub(kept.bytes.len());
        kept.bytes.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
        kept.cut |= bytes.len() > room;
    }
}

/// A request's body.
#[derive(Debug)]
pub struct Sent {
    pub body: Incoming,
    pub count: Arc<Count>,
    /// Its beginning goes into the event.
    pub keep: bool,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else { return Poll::Ready(None) };
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => {
                    self.count.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
                    if self.keep {
                        self.count.keep(&data);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Err(_trailers)) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What goes to the client together with an answer's head, which of a short answer is all. API servers send head, body
/// and end one by one; here each of them would be a system call, and wake the client.
#[derive(Debug, Default)]
pub struct Early {
    pieces: VecDeque<Bytes>,
    /// How the body ended, if it did.
    end: Option<Result<(), hyper::Error>>,
}

impl Early {
    pub async fn of(body: &mut Incoming) -> Self {
        let mut early = Self::default();
        // What was read stays where the time runs out.
        let _ = timeout(EARLY, early.read(body)).await;
        early
    }

    async fn read(&mut self, body: &mut Incoming) {
        while self.end.is_none() && self.length() < MOST_EARLY {
            match body.frame().await {
                Some(Ok(frame)) => self.pieces.extend(frame.into_data().ok().filter(|data| !data.is_empty())),
                Some(Err(error)) => self.end = Some(Err(error)),
                None => self.end = Some(Ok(())),
            }
        }
    }

    fn length(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }
}

/// An answer's body. Its end is the request's, and is told.
pub struct Carried {
    early: Early,
    body: Incoming,
    record: Option<Record>,
    /// Of a body that says its length.
    left: Option<u64>,
    idle: Option<Idle>,
    _way: (Arc<Upstream>, Option<Arc<Lane>>),
    _place: OwnedSemaphorePermit,
}

struct Idle {
    after: Duration,
    clock: Pin<Box<Sleep>>,
}

impl Carried {
    /// `idle`: zero is never.
    pub fn new(
        (early, body): (Early, Incoming),
        record: Record,
        idle: Duration,
        way: (Arc<Upstream>, Option<Arc<Lane>>),
        place: OwnedSemaphorePermit,
    ) -> Self {
        let idle = (!idle.is_zero()).then(|| Idle { after: idle, clock: Box::pin(sleep(idle)) });
        let mut carried = Self { early, body, record: Some(record), left: None, idle, _way: way, _place: place };
        carried.left = carried.size_hint().exact();
        carried.settle();
        carried
    }

    /// hyper does not ask for the end of a body whose length it knows.
    fn settle(&mut self) {
        if self.left == Some(0) || self.is_end_stream() {
            self.finish(&End::Done);
        }
    }

    fn finish(&mut self, end: &End) {
        if let Some(record) = self.record.take() {
            record.finish(end);
        }
    }

    fn took(&mut self, length: usize) {
        let length = length as u64;
        if let Some(record) = &self.record {
            record.count.got.fetch_add(length, Ordering::Relaxed);
        }
        if let Some(idle) = &mut self.idle {
            idle.clock.as_mut().reset(Instant::now() + idle.after);
        }
        self.left = self.left.map(|left| left.saturating_sub(length));
        self.settle();
    }
}

impl Body for Carried {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(data) = self.early.pieces.pop_front() {
            self.took(data.len());
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        loop {
            let next = match self.early.end.take() {
                Some(Ok(())) => Poll::Ready(None),
                Some(Err(error)) => Poll::Ready(Some(Err(error))),
                None => Pin::new(&mut self.body).poll_frame(cx),
            };
            match next {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.took(data.len());
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.finish(&End::Cut("the cluster broke off".into()));
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(None) => {
                    self.finish(&End::Done);
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    let Some(idle) = &mut self.idle else { return Poll::Pending };
                    ready!(idle.clock.as_mut().poll(cx));
                    self.finish(&End::Left("idle for too long"));
                    return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.early.pieces.is_empty() && (matches!(self.early.end, Some(Ok(()))) || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let early = self.early.length() as u64;
        match (&self.early.end, self.body.size_hint().exact()) {
            (Some(Ok(())), _) => SizeHint::with_exact(early),
            (None, Some(rest)) => SizeHint::with_exact(early + rest),
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_body_is_kept_and_no_more() {
        let count = Count::default();
        for _ in 0..3 {
            count.keep(&[b'a'; MOST_KEPT / 3]);
        }
        assert!(!count.kept.lock().unwrap().cut);
        count.keep(b"bcd");
        let kept = count.kept.lock().unwrap();
        assert!(kept.cut && kept.bytes.len() == MOST_KEPT && kept.bytes.ends_with(b"ab"));
    }
}
