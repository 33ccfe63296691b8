use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::privsep::message::Number;
use crate::session::SessionId;

/// Either half may come first, and is not kept for longer than this.
const MEETING: Duration = Duration::from_secs(15);

/// Brings together a channel's stream (from the jailer) and the channel that the warden says it belongs to.
#[derive(Debug, Default)]
pub struct Streams(Mutex<HashMap<(SessionId, Number), (Half, Instant)>>);

#[derive(Debug)]
enum Half {
    Stream(OwnedFd),
    Channel(oneshot::Sender<OwnedFd>),
    /// The channel went away first: its stream is closed as it comes, and the keeper hangs up the program.
    Unwanted,
}

impl Streams {
    pub fn arrived(&self, session: SessionId, number: Number, stream: OwnedFd) {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match halves.remove(&(session, number)) {
            // A receiver that is gone drops the stream too.
            Some((Half::Channel(channel), _)) => _ = channel.send(stream),
            Some((Half::Unwanted, _)) => {}
            Some((Half::Stream(_), _)) | None => {
                halves.insert((session, number), (Half::Stream(stream), Instant::now()));
            }
        }
    }

    pub fn claim(&self, session: SessionId, number: Number) -> oneshot::Receiver<OwnedFd> {
        let (sender, receiver) = oneshot::channel();
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match halves.remove(&(session, number)) {
            Some((Half::Stream(stream), _)) => _ = sender.send(stream),
            _ => _ = halves.insert((session, number), (Half::Channel(sender), Instant::now())),
        }
        receiver
    }

    /// Lets go of halves that stayed alone.
    pub fn sweep(&self) {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves.retain(|_, (_, since)| since.elapsed() < MEETING);
    }

    pub fn refuse(&self, session: SessionId, number: Number) {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(halves.remove(&(session, number)), Some((Half::Stream(_), _))) {
            halves.insert((session, number), (Half::Unwanted, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privsep::link::pair;

    #[tokio::test]
    async fn stream_and_channel_meet_in_either_order() {
        let (streams, session) = (Streams::default(), SessionId::mint());
        streams.arrived(session, 1, pair().unwrap().0);
        assert!(streams.claim(session, 1).await.is_ok());
        let claimed = streams.claim(session, 2);
        streams.arrived(session, 2, pair().unwrap().0);
        assert!(claimed.await.is_ok());
        assert!(streams.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_unwanted_stream_is_closed_whenever_it_comes() {
        let (streams, session) = (Streams::default(), SessionId::mint());
        for early in [true, false] {
            let (ours, theirs) = pair().unwrap();
            if early {
                streams.arrived(session, 1, ours);
                streams.refuse(session, 1);
            } else {
                streams.refuse(session, 1);
                streams.arrived(session, 1, ours);
            }
            assert!(crate::privsep::link::recv_packet(std::os::fd::AsFd::as_fd(&theirs), &mut Vec::new()).is_err());
            assert!(streams.0.lock().unwrap().is_empty());
        }
    }
}
