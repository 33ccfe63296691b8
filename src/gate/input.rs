use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::wire::Cord;
use crate::privsep::message::Size;
use crate::privsep::stream::{FromGate, LONGEST_DATA};

/// How far a client may be ahead on one channel: OpenSSH's own value.
pub const WINDOW: u32 = 2 * 1024 * 1024;

/// Bytes that may wait in one channel before its client is slowed.
const ENOUGH: usize = 256 * 1024;

/// The smallest target that russh still acts on: it reopens below half of it, so at 0.
const SHUT: u32 = 2;

/// What a channel with room gets while another of its connection has none.
const SHARED: u32 = 512 * 1024;

/// More than any client can have sent that keeps to its windows (see `Pace`); russh hands over what comes beyond, too.
const MOST: usize = 32 * 1024 * 1024;
/// And on all channels of its connection.
pub const MOST_TOGETHER: usize = 48 * 1024 * 1024;

/// Longest pause at the beat of a channel that takes no input, in milliseconds.
const LONGEST_PAUSE: u64 = 10;

/// Signals that may wait; a client that sends more is only making noise.
const MOST_SIGNALS: usize = 16;

/// What a client has sent to one channel and its program has not yet taken.
#[derive(Debug, Default)]
pub struct Input {
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    data: VecDeque<BytesMut>,
    held: usize,
    taken: u64,
    end: bool,
    end_given: bool,
    size: Option<Size>,
    signals: VecDeque<String>,
}

/// The client sent more than its window allows.
#[derive(Debug)]
pub struct Flood;

impl Input {
    pub fn push(&self, mut data: &[u8]) -> Result<(), Flood> {
        let mut waiting = self.lock();
        if waiting.end {
            return Ok(());
        }
        if waiting.held + data.len() > MOST {
            return Err(Flood);
        }
        waiting.held += data.len();
        while !data.is_empty() {
            // Small packets share a buffer, or two bytes would cost a hundred.
            let room = waiting.data.back().map_or(0, |last| LONGEST_DATA.saturating_sub(last.len()));
            let (now, later) =
                data.split_at(if room >= data.len() { data.len() } else { LONGEST_DATA.min(data.len()) });
            match waiting.data.back_mut() {
                Some(last) if room >= now.len() => last.extend_from_slice(now),
                _ => waiting.data.push_back(BytesMut::from(now)),
            }
            data = later;
        }
        drop(waiting);
        self.more.notify_one();
        Ok(())
    }

    pub fn end(&self) {
        self.lock().end = true;
        self.more.notify_one();
    }

    /// Nobody takes input any more: what waits is dropped, what comes is not kept.
    pub fn shut(&self) {
        *self.lock() = Waiting { end: true, end_given: true, ..Waiting::default() };
    }

    pub fn resize(&self, size: Size) {
        self.lock().size = Some(size);
        self.more.notify_one();
    }

    pub fn signal(&self, name: String) {
        let mut waiting = self.lock();
        if waiting.signals.len() < MOST_SIGNALS {
            waiting.signals.push_back(name);
        }
        drop(waiting);
        self.more.notify_one();
    }

    /// The next packet for the program; signals and sizes overtake data, for a program that no longer reads, and come
    /// after its end: RFC 4254 section 5.3 ends the data, not the requests.
    pub async fn next(&self) -> FromGate {
        loop {
            if let Some(next) = self.lock().next() {
                return next;
            }
            self.more.notified().await;
        }
    }

    /// Bytes that the program has been given.
    pub fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// Bytes that wait.
    pub fn held(&self) -> usize {
        self.lock().held
    }

    pub fn crowded(&self) -> bool {
        self.held() > ENOUGH
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn next(&mut self) -> Option<FromGate> {
        if let Some(name) = self.signals.pop_front() {
            return Some(FromGate::Signal(name));
        }
        if let Some(size) = self.size.take() {
            return Some(FromGate::Resize(size));
        }
        if let Some(data) = self.data.pop_front() {
            self.held -= data.len();
            self.taken = self.taken.wrapping_add(data.len() as u64);
            return Some(FromGate::Input(Bytes::from(data)));
        }
        let ends = self.end && !std::mem::replace(&mut self.end_given, self.end);
        ends.then_some(FromGate::InputEnd)
    }
}

/// Decides how far russh reopens windows, one connection's channels together.
///
/// russh reopens a window when data arrives, not when it is taken, and its target is one for the whole connection, asked
/// for only after each reopening. So while a channel is crowded the target is 2: a client uses up the window it has, and
/// then gets two bytes at a time, each of which asks again here: its beat. Beats come back in the order in which they
/// were given, so the target can be right for who is next: much for a channel with room, 2 for a crowded one. A channel
/// that misses its beat lets a crowded one have its share once, which `MOST` bounds.
#[derive(Debug, Default)]
pub struct Pace {
    beats: VecDeque<u32>,
    pause: u64,
    taken: u64,
}

impl Pace {
    /// Something other than a beat was read.
    pub fn quicken(&mut self) {
        self.pause = 0;
    }

    /// The target from now on, after `channel` was reopened to `given`; `taken` is what programs took of all channels if
    /// any is crowded, and `crowded` is asked of channels.
    pub fn target(
        &mut self,
        channel: u32,
        given: u32,
        taken: Option<u64>,
        crowded: impl Fn(u32) -> bool,
        cord: &Cord,
    ) -> u32 {
        let Some(taken) = taken else {
            *self = Self::default();
            return WINDOW;
        };
        // Who should have come before and did not has nothing to send.
        if let Some(place) = self.beats.iter().position(|beat| *beat == channel) {
            self.beats.drain(..=place);
        } else if given != SHUT {
            self.beats.clear();
        }
        if given == SHUT {
            self.beats.push_back(channel);
        }
        if self.beats.front().is_some_and(|next| !crowded(*next)) {
            return SHARED;
        }
        if given == SHUT {
            // Slow down the beat when nothing but beats is left to read. Room for output stands in line with the beats,
            // and a client with a small window gives it in small parts, so each part must not cost a long pause.
            let moves = std::mem::replace(&mut self.taken, taken) != taken;
            self.pause = if moves { 0 } else { (self.pause * 2).clamp(1, LONGEST_PAUSE) };
            cord.pause(self.pause);
        }
        SHUT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_packets_share_a_buffer_and_large_ones_are_cut() {
        let input = Input::default();
        let all: Vec<u8> = (0..LONGEST_DATA * 2 + 10).map(|i| i as u8).collect();
        input.push(&all[..2]).unwrap();
        input.push(&all[2..4]).unwrap();
        input.push(&all[4..]).unwrap();
        input.end();
        let mut got = Vec::new();
        let mut packets = 0;
        while let FromGate::Input(data) = input.next().await {
            assert!(data.len() <= LONGEST_DATA);
            got.extend_from_slice(&data);
            packets += 1;
        }
        assert_eq!((got == all, packets), (true, 4));
        assert_eq!(input.lock().held, 0);
    }

    #[tokio::test]
    async fn signals_and_sizes_overtake_data() {
        let input = Input::default();
        input.push(b"x").unwrap();
        for columns in [1, 2] {
            input.resize(Size { columns, ..Size::default() });
        }
        input.signal("INT".into());
        assert_eq!(input.next().await, FromGate::Signal("INT".into()));
        assert_eq!(input.next().await, FromGate::Resize(Size { columns: 2, ..Size::default() }));
        assert_eq!(input.next().await, FromGate::Input(Bytes::from_static(b"x")));
        input.end();
        assert_eq!(input.next().await, FromGate::InputEnd);
        input.signal("USR1".into());
        assert_eq!(input.next().await, FromGate::Signal("USR1".into()), "after the end of the data, too");
    }

    #[test]
    fn a_flood_is_not_held() {
        let input = Input::default();
        let mebibyte = vec![0; 1024 * 1024];
        assert_eq!((0..100).filter(|_| input.push(&mebibyte).is_ok()).count(), 32);
    }
}
