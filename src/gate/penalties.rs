//! Who is refused for a while: OpenSSH's PerSourcePenalties, without a clock of its own.
//!
//! What a connection of strangers cost us is added to what its source owes. More than `min`, and the source is refused
//! until it owes nothing; running connections are not cut. OpenSSH's `invaliduser` is `authfail` here: the gate does
//! not know who exists. Its `crash` has no counterpart: a crash is the whole gate's, and ends its memory too.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::config::{Overflow, Penalties};
use crate::policy::Source;

/// What a connection that logged nobody in did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    AuthFail,
    NoAuth,
    GraceExceeded,
    Protocol,
}

impl Offence {
    pub fn why(self) -> &'static str {
        match self {
            Self::AuthFail => "it offered keys and did not log in",
            Self::NoAuth => "it connected and offered no key",
            Self::GraceExceeded => "it did not log in in time",
            Self::Protocol => "it did not speak SSH",
        }
    }
}

#[derive(Debug)]
pub struct Table {
    terms: Penalties,
    v4: Family,
    v6: Family,
}

/// The penalised of one family of addresses, so that neither family can crowd out the other.
#[derive(Debug, Default)]
struct Family {
    penalties: HashMap<Source, Penalty>,
    by_end: BTreeSet<(Instant, Source)>,
    ended: Vec<Ended>,
}

#[derive(Clone, Copy, Debug)]
struct Penalty {
    until: Instant,
    active: bool,
    refused: u64,
}

/// A source that may come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub source: Source,
    /// Connections that were refused meanwhile.
    pub refused: u64,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    Penalised,
    Overflow,
}

impl Table {
    pub fn new(terms: Penalties) -> Self {
        Self { terms, v4: Family::default(), v6: Family::default() }
    }

    /// `Some`: the source is refused from now on, at least for so long.
    pub fn penalise(&mut self, source: Source, offence: Offence, now: Instant) -> Option<Duration> {
        let terms = self.terms;
        let fine = match offence {
            Offence::AuthFail => terms.authfail,
            Offence::NoAuth => terms.noauth,
            Offence::GraceExceeded => terms.grace_exceeded,
            Offence::Protocol => terms.protocol,
        };
        let family = self.family(source);
        family.expire(now);
        let old = family.penalties.get(&source).copied();
        let most = terms.max_sources as usize;
        let full = old.is_none() && family.penalties.len() >= most;
        if fine.is_zero() || (full && terms.overflow == Overflow::DenyAll) {
            return None;
        }
        if full {
            family.forget_soonest();
        }
        let owed = old.map_or(Duration::ZERO, |old| old.until.saturating_duration_since(now));
        let owed = (owed + fine).min(terms.max);
        let was_active = old.is_some_and(|old| old.active);
        let active = was_active || owed > terms.min;
        if let Some(old) = old {
            family.by_end.remove(&(old.until, source));
        }
        let penalty = Penalty { until: now + owed, active, refused: old.map_or(0, |old| old.refused) };
        family.penalties.insert(source, penalty);
        family.by_end.insert((penalty.until, source));
        (active && !was_active).then_some(owed)
    }

    /// Counts the refusal if it is one.
    pub fn check(&mut self, source: Source, now: Instant) -> Result<(), Barred> {
        let Penalties { max_sources, overflow, .. } = self.terms;
        let family = self.family(source);
        family.expire(now);
        if let Some(penalty) = family.penalties.get_mut(&source).filter(|penalty| penalty.active) {
            penalty.refused += 1;
            return Err(Barred::Penalised);
        }
        let full = family.penalties.len() >= max_sources as usize;
        if full && overflow == Overflow::DenyAll { Err(Barred::Overflow) } else { Ok(()) }
    }

    /// The sources that were refused and no longer are, since this was last asked.
    pub fn ended(&mut self, now: Instant) -> Vec<Ended> {
        let mut ended = Vec::new();
        for family in [&mut self.v4, &mut self.v6] {
            family.expire(now);
            ended.append(&mut family.ended);
        }
        ended
    }

    fn family(&mut self, source: Source) -> &mut Family {
        if source.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }
}

impl Family {
    fn expire(&mut self, now: Instant) {
        while self.by_end.first().is_some_and(|(until, _)| *until <= now) {
            self.forget_soonest();
        }
    }

    fn forget_soonest(&mut self) {
        let Some((_, source)) = self.by_end.pop_first() else { return };
        if let Some(Penalty { active: true, refused, .. }) = self.penalties.remove(&source) {
            self.ended.push(Ended { source, refused });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::config::Netblock;

    const SECOND: Duration = Duration::from_secs(1);

    fn v4(number: u32) -> Source {
        Source::of(Ipv4Addr::from(0x0a00_0000 + number).into(), Netblock::default())
    }

    fn table(change: impl FnOnce(&mut Penalties)) -> Table {
        let mut terms = Penalties::default();
        change(&mut terms);
        Table::new(terms)
    }

    #[test]
    fn a_source_is_refused_beyond_the_least_until_it_owes_nothing() {
        let (mut table, start) = (table(|_| ()), Instant::now());
        for _ in 0..3 {
            assert_eq!(table.penalise(v4(1), Offence::AuthFail, start), None);
            assert_eq!(table.check(v4(1), start), Ok(()));
        }
        assert_eq!(table.penalise(v4(1), Offence::AuthFail, start), Some(20 * SECOND));
        assert_eq!(table.check(v4(1), start), Err(Barred::Penalised));
        assert_eq!(table.check(v4(2), start), Ok(()));
        assert_eq!(table.penalise(v4(1), Offence::NoAuth, start), None, "told once");
        // Also below the least: a source is not let in by halves.
        assert_eq!(table.check(v4(1), start + 20 * SECOND), Err(Barred::Penalised));
        assert_eq!(table.ended(start + 20 * SECOND), []);
        assert_eq!(table.check(v4(1), start + 21 * SECOND), Ok(()));
        assert_eq!(table.ended(start + 21 * SECOND), [Ended { source: v4(1), refused: 2 }]);
        assert_eq!(table.ended(start + 21 * SECOND), []);
    }

    #[test]
    fn what_is_owed_runs_out_and_has_an_end() {
        let (mut table, start) = (table(|_| ()), Instant::now());
        for number in 0..100 {
            assert_eq!(table.penalise(v4(1), Offence::NoAuth, start + number * SECOND), None, "one a second");
        }
        for _ in 0..1000 {
            table.penalise(v4(2), Offence::GraceExceeded, start);
        }
        assert_eq!(table.check(v4(2), start + 599 * SECOND), Err(Barred::Penalised));
        assert_eq!(table.check(v4(2), start + 600 * SECOND), Ok(()));
    }

    #[test]
    fn an_overflow_forgets_the_shortest_or_refuses_all() {
        let start = Instant::now();
        let fill = |table: &mut Table| {
            table.penalise(v4(1), Offence::GraceExceeded, start);
            table.penalise(v4(1), Offence::GraceExceeded, start);
            table.penalise(v4(2), Offence::NoAuth, start);
            table.penalise(v4(3), Offence::AuthFail, start);
        };
        let mut permissive = table(|terms| terms.max_sources = 2);
        fill(&mut permissive);
        assert_eq!(permissive.check(v4(1), start), Err(Barred::Penalised), "the longest stays");
        assert_eq!(permissive.check(v4(9), start), Ok(()));
        let mut strict = table(|terms| {
            terms.max_sources = 2;
            terms.overflow = Overflow::DenyAll;
        });
        fill(&mut strict);
        assert_eq!(strict.check(v4(9), start), Err(Barred::Overflow));
        let v6 = Source::of("2001:db8::1".parse().unwrap(), Netblock::default());
        assert_eq!(strict.check(v6, start), Ok(()), "the other family has a table of its own");
        assert_eq!(strict.check(v4(9), start + 20 * SECOND), Ok(()));
    }

    #[test]
    fn a_fine_of_nothing_is_none() {
        let (mut table, start) = (table(|terms| terms.noauth = Duration::ZERO), Instant::now());
        for _ in 0..1000 {
            assert_eq!(table.penalise(v4(1), Offence::NoAuth, start), None);
        }
        assert_eq!(table.check(v4(1), start), Ok(()));
    }

    fn offence() -> impl Strategy<Value = Offence> {
        prop::sample::select(vec![Offence::AuthFail, Offence::NoAuth, Offence::GraceExceeded, Offence::Protocol])
    }

    proptest! {
        /// Whatever comes: the table keeps its bound, its two indexes agree, nobody owes more than the most, who did
        /// nothing is let in, and all is forgotten in the end.
        #[test]
        fn any_history_keeps_the_bounds(
            steps in prop::collection::vec((0u32..20, offence(), 0u64..20, any::<bool>()), 1..200),
            strict in any::<bool>(),
        ) {
            let mut table = table(|terms| {
                terms.max_sources = 8;
                terms.max = 60 * SECOND;
                if strict {
                    terms.overflow = Overflow::DenyAll;
                }
            });
            let mut now = Instant::now();
            for (number, offence, pause, ask) in steps {
                now += Duration::from_secs(pause);
                if ask {
                    let _ = table.check(v4(number), now);
                } else if let Some(owed) = table.penalise(v4(number), offence, now) {
                    prop_assert!(owed > 15 * SECOND && owed <= 60 * SECOND);
                    prop_assert_eq!(table.check(v4(number), now), Err(Barred::Penalised));
                }
                prop_assert!(table.v4.penalties.len() <= 8);
                prop_assert_eq!(table.v4.penalties.len(), table.v4.by_end.len());
                prop_assert!(table.v4.penalties.iter().all(|(s, p)| table.v4.by_end.contains(&(p.until, *s))));
                prop_assert!(table.check(v4(99), now) != Err(Barred::Penalised));
            }
            let later = now + 60 * SECOND;
            table.ended(later);
            prop_assert!(table.v4.penalties.is_empty() && (0..20).all(|n| table.check(v4(n), later).is_ok()));
        }
    }
}
