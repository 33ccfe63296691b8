//! Which refused logins are told one by one: whoever tries keys without end fills no disk with it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::audit::Meter;
use crate::policy::Source;

/// Of one source: many times what a person does wrong in a row, then one in so long …
const OF_ONE: (u32, Duration) = (100, Duration::from_secs(10));
/// … and of all together, as many as the gate tells of connections.
const OF_ALL: (u32, Duration) = (1000, Duration::from_millis(100));

/// Sources with a meter of their own; those beyond share the common one.
const MOST_SOURCES: usize = 4096;

/// Sources that are named when what was not told is counted.
const NAMED: usize = 10;

#[derive(Debug)]
pub struct Refusals {
    sources: HashMap<Source, Meter>,
    all: Meter,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { sources: HashMap::new(), all: Meter::new(OF_ALL.0, OF_ALL.1) }
    }
}

impl Refusals {
    /// Whether this one is told. If not, it is counted.
    pub fn passes(&mut self, source: Option<Source>, now: Instant) -> bool {
        let full = self.sources.len() >= MOST_SOURCES;
        let own = source.filter(|source| !full || self.sources.contains_key(source));
        let passes = own.is_none_or(|source| {
            self.sources.entry(source).or_insert_with(|| Meter::new(OF_ONE.0, OF_ONE.1)).passes(now)
        });
        passes && self.all.passes(now)
    }

    /// What was not told since this was last asked: a few lines, whatever came.
    pub fn left_out(&mut self, now: Instant) -> Vec<String> {
        let mut held: Vec<(u64, Source)> =
            self.sources.iter_mut().map(|(source, meter)| (meter.held(), *source)).filter(|(n, _)| *n > 0).collect();
        self.sources.retain(|_, meter| !meter.is_idle(now));
        held.sort_unstable_by_key(|(count, _)| std::cmp::Reverse(*count));
        let rest = held.split_off(held.len().min(NAMED));
        let others = rest.iter().map(|(count, _)| count).sum::<u64>() + self.all.held();
        let named = held.into_iter().map(|(count, source)| told(count, &source.to_string()));
        named.chain((others > 0).then(|| told(others, "other sources"))).collect()
    }
}

fn told(count: u64, whose: &str) -> String {
    format!("{count} lines about refused logins of {whose} were left out: more came than the audit lists")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::Netblock;

    fn source(number: u32) -> Option<Source> {
        Some(Source::of(Ipv4Addr::from(0x0a00_0000 + number).into(), Netblock::default()))
    }

    fn passed(refusals: &mut Refusals, source: Option<Source>, tries: usize, now: Instant) -> usize {
        (0..tries).filter(|_| refusals.passes(source, now)).count()
    }

    #[test]
    fn one_source_is_counted_and_leaves_room_for_others() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        assert_eq!(passed(&mut refusals, source(1), 5000, now), 100);
        assert_eq!(passed(&mut refusals, source(2), 50, now), 50);
        let told = refusals.left_out(now);
        assert!(told.len() == 1 && told[0].starts_with("4900 lines about refused logins of 10.0.0.1 "), "{told:?}");
        assert!(refusals.left_out(now).is_empty());
        let later = now + Duration::from_secs(100);
        assert_eq!(passed(&mut refusals, source(1), 5000, later), 10);
    }

    #[test]
    fn many_sources_together_have_an_end_and_each_refusal_is_told_or_counted() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let all = |refusals: &mut Refusals| (0..5000).map(|n| passed(refusals, source(n), 2, now)).sum::<usize>();
        assert_eq!(all(&mut refusals), 1000);
        assert_eq!(refusals.sources.len(), MOST_SOURCES);
        for number in 0..20 {
            assert_eq!(passed(&mut refusals, source(number), 200, now), 0);
        }
        let told = refusals.left_out(now);
        assert_eq!(told.len(), NAMED + 1);
        let count = |line: &String| line.split(' ').next().unwrap().parse::<u64>().unwrap();
        assert_eq!(told.iter().map(count).sum::<u64>(), 9000 + 4000);
        refusals.left_out(now + Duration::from_secs(3600));
        assert!(refusals.sources.is_empty(), "what is over is forgotten");
    }
}
