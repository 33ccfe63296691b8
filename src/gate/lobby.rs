use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::MaxStartups;
use crate::policy::Source;

/// Who has connected and not yet logged in.
///
/// OpenSSH's random early drop, with one difference: it falls on sources that wait already. Who comes from elsewhere
/// has a place, if need be that of one who holds the most; else a hundred silent connections would lock everybody out
/// for as long as the grace.
#[derive(Debug)]
pub struct Lobby {
    limits: MaxStartups,
    per_source: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    places: BTreeMap<u64, Place>,
    sources: HashMap<Source, usize>,
}

#[derive(Debug)]
struct Place {
    source: Source,
    leave: oneshot::Sender<()>,
}

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
    number: u64,
}

/// Answers when the place is given to another source.
pub type Displaced = oneshot::Receiver<()>;

impl Lobby {
    pub fn new(limits: MaxStartups, per_source: usize) -> Arc<Self> {
        Arc::new(Self { limits, per_source, waiting: Mutex::default() })
    }

    /// `shared`: its source has a share and no more. `dice`: any number, thrown for each connection.
    pub fn enter(self: &Arc<Self>, source: Source, shared: bool, dice: u64) -> Result<(Ticket, Displaced), Full> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let all = waiting.places.len();
        let here = waiting.sources.get(&source).copied().unwrap_or(0);
        if shared && here >= self.per_source {
            return Err(Full::Source);
        }
        if here > 0 && dice % 100 < chance(self.limits, all) {
            return Err(Full::All);
        }
        if all >= self.limits.full {
            waiting.displace(dice / 100);
        }
        let (leave, displaced) = oneshot::channel();
        let number = waiting.next;
        waiting.next += 1;
        waiting.places.insert(number, Place { source, leave });
        waiting.sources.insert(source, here + 1);
        Ok((Ticket { lobby: self.clone(), number }, displaced))
    }
}

impl Waiting {
    /// One of those whose source holds the most, at random: a flood of sources cannot aim at the oldest.
    fn displace(&mut self, dice: u64) {
        let most = self.sources.values().copied().max().unwrap_or(0);
        let holds_most = |place: &Place| self.sources.get(&place.source) == Some(&most);
        let numbers: Vec<u64> = self.places.iter().filter(|(_, p)| holds_most(p)).map(|(number, _)| *number).collect();
        let chosen = usize::try_from(dice).unwrap_or(0).checked_rem(numbers.len()).and_then(|at| numbers.get(at));
        if let Some(place) = chosen.and_then(|number| self.leave(*number)) {
            let _ = place.leave.send(());
        }
    }

    fn leave(&mut self, number: u64) -> Option<Place> {
        let place = self.places.remove(&number)?;
        match self.sources.get_mut(&place.source) {
            Some(here) if *here > 1 => *here -= 1,
            _ => _ = self.sources.remove(&place.source),
        }
        Some(place)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut waiting = self.lobby.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Another may have been given it.
        let _ = waiting.leave(self.number);
    }
}

/// The percentage of connections to refuse while `waiting` wait: OpenSSH's linear early drop.
fn chance(limits: MaxStartups, waiting: usize) -> u64 {
    if waiting < limits.start {
        return 0;
    }
    if waiting >= limits.full || limits.rate >= 100 {
        return 100;
    }
    let (over, span) = ((waiting - limits.start) as u64, (limits.full - limits.start) as u64);
    let rate = u64::from(limits.rate);
    rate + (100 - rate) * over / span.max(1)
}

/// It only thins a flood: the hasher's keys, which are random per process, are good enough.
pub fn dice() -> u64 {
    RandomState::new().hash_one(std::time::Instant::now())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Netblock;

    const LIMITS: MaxStartups = MaxStartups { start: 10, rate: 30, full: 100 };

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap(), Netblock::default())
    }

    fn numbered(number: u32) -> Source {
        Source::of(std::net::Ipv4Addr::from(0x0a00_0000 + number).into(), Netblock::default())
    }

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
        let [a, b, other] = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(source);
        let first = lobby.enter(a, true, 99).unwrap();
        let _second = lobby.enter(b, true, 99).unwrap();
        assert_eq!(lobby.enter(a, true, 99).unwrap_err(), Full::Source);
        assert!(lobby.enter(a, false, 99).is_ok(), "the exempt have no share");
        let _other = lobby.enter(other, true, 99).unwrap();
        drop(first);
        assert!(lobby.enter(a, true, 99).is_ok());
    }

    #[test]
    fn a_newcomer_takes_the_place_of_one_who_holds_the_most() {
        let lobby = Lobby::new(LIMITS, 4);
        let mut held: Vec<(Ticket, Displaced)> = Vec::new();
        for number in 0..98 {
            // 24 sources with four places and one with two.
            held.push(lobby.enter(numbered(number / 4), true, 99).unwrap());
        }
        let (mut alice, mut bob) =
            (lobby.enter(source("192.0.2.1"), true, 0).unwrap(), lobby.enter(source("192.0.2.2"), true, 0).unwrap());
        for number in 0..24 {
            let dice = 100 * 7 * number;
            held.push(lobby.enter(numbered(1000 + number as u32), true, dice).unwrap());
        }
        let gone = held.iter_mut().filter_map(|(_, displaced)| displaced.try_recv().ok()).count();
        assert_eq!(gone, 24);
        assert!(alice.1.try_recv().is_err() && bob.1.try_recv().is_err(), "they hold the least");
        assert_eq!(lobby.enter(numbered(24), true, 99).unwrap_err(), Full::All, "who waits already gets no more");
        drop(held);
        drop((alice, bob));
        let waiting = lobby.waiting.lock().unwrap();
        assert!(waiting.places.is_empty() && waiting.sources.is_empty());
    }

    proptest! {
        #[test]
        fn places_and_sources_agree(steps in prop::collection::vec((0u32..12, any::<u64>(), 0u8..3), 1..200)) {
            let lobby = Lobby::new(MaxStartups { start: 3, rate: 30, full: 8 }, 2);
            let mut held: Vec<(Ticket, Displaced)> = Vec::new();
            for (number, dice, what) in steps {
                match what {
                    0 if !held.is_empty() => drop(held.swap_remove(dice as usize % held.len())),
                    _ => held.extend(lobby.enter(numbered(number), true, dice)),
                }
                let waiting = lobby.waiting.lock().unwrap();
                prop_assert!(waiting.places.len() <= 8);
                prop_assert_eq!(waiting.sources.values().sum::<usize>(), waiting.places.len());
                prop_assert!(waiting.sources.values().all(|here| (1..=2).contains(here)));
            }
        }
    }

    #[test]
    fn the_dice_have_a_hundred_sides() {
        assert!((0..1000).map(|_| dice() % 100).collect::<std::collections::HashSet<_>>().len() > 50);
    }
}
