//! Past a limit, a direction of a channel without a terminal is recorded by its digests.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::recording::{BULK_UNIT, Direction, Event};

/// One direction of a channel.
#[derive(Debug)]
pub(super) struct Meter {
    number: u32,
    direction: Direction,
    /// What is still recorded as itself.
    whole: u64,
    /// Of the unit being digested, from the beginning of the direction.
    offset: u64,
    length: u64,
    digest: Sha256,
}

impl Meter {
    pub(super) fn new(number: u32, direction: Direction, limit: u64) -> Self {
        Self { number, direction, whole: limit, offset: limit, length: 0, digest: Sha256::new() }
    }

    /// Takes from `data` what is recorded as itself.
    pub(super) fn whole(&mut self, data: &mut Bytes) -> Bytes {
        let length = usize::try_from(self.whole).unwrap_or(usize::MAX).min(data.len());
        self.whole -= length as u64;
        data.split_to(length)
    }

    /// Digests the rest; the events of the units that are full.
    pub(super) fn digest(&mut self, mut data: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        while !data.is_empty() {
            let room = usize::try_from(BULK_UNIT - self.length).unwrap_or(usize::MAX);
            let (now, later) = data.split_at(room.min(data.len()));
            self.digest.update(now);
            self.length += now.len() as u64;
            data = later;
            if self.length == BULK_UNIT {
                events.extend(self.rest());
            }
        }
        events
    }

    /// The unit that the end cut short.
    pub(super) fn rest(&mut self) -> Option<Event> {
        if self.length == 0 {
            return None;
        }
        let sha256 = self.digest.finalize_reset().into();
        let (number, direction, offset, length) = (self.number, self.direction, self.offset, self.length);
        self.offset += length;
        self.length = 0;
        Some(Event::Bulk { number, direction, offset, length, sha256 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_exact_and_every_later_byte_is_in_one_digest() {
        let mut meter = Meter::new(1, Direction::Output, 10);
        let mut data = Bytes::from(vec![b'a'; 25]);
        assert_eq!(meter.whole(&mut data).len(), 10);
        assert!(meter.digest(&data).is_empty());
        let full = meter.digest(&vec![b'a'; usize::try_from(BULK_UNIT).unwrap()]);
        let digest = |length| -> [u8; 32] { Sha256::digest(vec![b'a'; length]).into() };
        let expected = |offset, length: usize| Event::Bulk {
            number: 1,
            direction: Direction::Output,
            offset,
            length: length as u64,
            sha256: digest(length),
        };
        assert_eq!(full, [expected(10, 1 << 20)]);
        assert_eq!(meter.rest(), Some(expected(10 + BULK_UNIT, 15)));
        assert_eq!(meter.rest(), None);
    }
}
