use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::MaxStartups;

/// Who has connected and not yet logged in.
#[derive(Debug)]
pub struct Lobby {
    limits: MaxStartups,
    per_source: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    all: usize,
    sources: HashMap<Source, usize>,
}

/// An IPv4 address, or the /64 that one IPv6 subscriber has at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Source([u8; 8]);

/// Why a connection may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("too many connections that have not logged in")]
    All,
    #[error("too many connections from this address that have not logged in")]
    Source,
}

/// A place in the lobby, given back when dropped: at login or at the connection's end.
#[derive(Debug)]
pub struct Ticket {
    lobby: Arc<Lobby>,
    source: Source,
}

impl Lobby {
    pub fn new(limits: MaxStartups, per_source: usize) -> Arc<Self> {
        Arc::new(Self { limits, per_source, waiting: Mutex::default() })
    }

    /// `dice` is 0 to 99, thrown for each connection.
    pub fn enter(self: &Arc<Self>, from: IpAddr, dice: u32) -> Result<Ticket, Full> {
        let source = Source::of(from);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if dice < chance(self.limits, waiting.all) {
            return Err(Full::All);
        }
        let here = waiting.sources.get(&source).copied().unwrap_or(0);
        if here >= self.per_source {
            return Err(Full::Source);
        }
        waiting.sources.insert(source, here + 1);
        waiting.all += 1;
        Ok(Ticket { lobby: self.clone(), source })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut waiting = self.lobby.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.all = waiting.all.saturating_sub(1);
        match waiting.sources.get_mut(&self.source) {
            Some(here) if *here > 1 => *here -= 1,
            _ => _ = waiting.sources.remove(&self.source),
        }
    }
}

impl Source {
    fn of(address: IpAddr) -> Self {
        let mut key = [0; 8];
        match address.to_canonical() {
            IpAddr::V4(v4) => key[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => key.iter_mut().zip(v6.octets()).for_each(|(k, o)| *k = o),
        }
        Self(key)
    }
}

/// The percentage of connections to refuse while `waiting` wait: OpenSSH's linear early drop.
fn chance(limits: MaxStartups, waiting: usize) -> u32 {
    if waiting < limits.start {
        return 0;
    }
    if waiting >= limits.full || limits.rate >= 100 {
        return 100;
    }
    let (over, span) = ((waiting - limits.start) as u32, (limits.full - limits.start) as u32);
    limits.rate + (100 - limits.rate) * over / span.max(1)
}

/// 0 to 99. It only thins a flood: the hasher's keys, which are random per process, are good enough.
pub fn dice() -> u32 {
    (RandomState::new().hash_one(std::time::Instant::now()) % 100) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MaxStartups = MaxStartups { start: 10, rate: 30, full: 100 };

    #[test]
    fn refusals_rise_in_a_line() {
        for (waiting, percent) in [(0, 0), (9, 0), (10, 30), (55, 65), (99, 99), (100, 100), (1000, 100)] {
            assert_eq!(chance(LIMITS, waiting), percent, "{waiting}");
        }
        assert_eq!(chance(MaxStartups { start: 5, rate: 30, full: 5 }, 5), 100);
    }

    #[test]
    fn a_source_has_its_share_and_gets_it_back() {
        let lobby = Lobby::new(LIMITS, 2);
        let [a, b, other]: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        let first = lobby.enter(a, 0).unwrap();
        let _second = lobby.enter(b, 0).unwrap();
        assert_eq!(lobby.enter(a, 0).unwrap_err(), Full::Source);
        let _other = lobby.enter(other, 0).unwrap();
        drop(first);
        assert!(lobby.enter(a, 0).is_ok());
    }

    #[test]
    fn a_mapped_address_is_its_v4_address() {
        let lobby = Lobby::new(LIMITS, 1);
        let _one = lobby.enter("192.0.2.1".parse().unwrap(), 0).unwrap();
        assert_eq!(lobby.enter("::ffff:192.0.2.1".parse().unwrap(), 0).unwrap_err(), Full::Source);
        assert!(lobby.enter("::ffff:192.0.2.2".parse().unwrap(), 0).is_ok());
    }

    #[test]
    fn the_dice_have_a_hundred_sides() {
        assert!((0..1000).all(|_| dice() < 100));
        assert!((0..1000).map(|_| dice()).collect::<std::collections::HashSet<_>>().len() > 50);
    }
}
