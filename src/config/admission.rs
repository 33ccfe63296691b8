//! Of `[ssh]`, what keeps a flood of strangers from those who may log in.

use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::check::{HOUR, SECOND};
use super::read::nearest;
use super::report::Mistake;
use super::value::{Parsed, Value, choice, duration, kind, text, whole, wrong};

/// `start:rate:full`, as in sshd_config(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaxStartups {
    pub start: u32,
    /// Percent.
    pub rate: u32,
    pub full: u32,
}

/// What counts as one source: the leading bits of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netblock {
    pub v4: u8,
    pub v6: u8,
}

impl Default for Netblock {
    /// An IPv4 address, or the /64 that one IPv6 subscriber has at least.
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

/// An address or a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(pub IpNet);

/// For how long a source is refused after connections that logged nobody in: OpenSSH's PerSourcePenalties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Penalties {
    pub authfail: Duration,
    pub noauth: Duration,
    pub grace_exceeded: Duration,
    pub protocol: Duration,
    /// A source is refused once more than this has come together.
    pub min: Duration,
    pub max: Duration,
    /// How many are remembered, of IPv4 and of IPv6.
    pub max_sources: u32,
    pub overflow: Overflow,
}

/// What happens when there are more penalised sources than are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// Those that would end soonest are forgotten.
    Permissive,
    /// Nobody of that family is let in until some have ended.
    DenyAll,
}

impl Default for Penalties {
    fn default() -> Self {
        Self {
            authfail: 5 * SECOND,
            noauth: SECOND,
            grace_exceeded: 10 * SECOND,
            protocol: 10 * SECOND,
            min: 15 * SECOND,
            max: 600 * SECOND,
            max_sources: 65536,
            overflow: Overflow::Permissive,
        }
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let net = match text.parse::<std::net::IpAddr>() {
            Ok(address) => IpNet::from(address.to_canonical()),
            Err(_) => text.parse::<IpNet>().map_err(|_| "not an address or a network".to_owned())?,
        };
        match net.addr() == net.network() {
            true => Ok(Self(net)),
            false => Err(format!("its address is not the first of its network, {}", net.trunc())),
        }
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.0.to_string()
    }
}

pub(super) fn startups(value: &Value<'_>) -> Parsed<MaxStartups> {
    let found = text(value)?;
    let numbers: Option<Vec<u32>> = found.split(':').map(|n| n.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[start, rate, full]) if start <= full && full > 0 && rate <= 100 => Ok(MaxStartups { start, rate, full }),
        _ => {
            let hint = "write start:rate:full, the rate in percent, start not above full: \"10:30:100\"";
            wrong(value, format!("'{found}' is not a MaxStartups"), hint)
        }
    }
}

pub(super) fn netblock(value: &Value<'_>) -> Parsed<Netblock> {
    let found = text(value)?;
    let bits: Option<Vec<u8>> = found.split(':').map(|n| n.parse().ok()).collect();
    match bits.as_deref() {
        Some(&[v4 @ 1..=32, v6 @ 1..=128]) => Ok(Netblock { v4, v6 }),
        _ => {
            let hint = "write how many leading bits of an address make a source, of IPv4 and of IPv6: \"32:64\"";
            wrong(value, format!("'{found}' is not a netblock"), hint)
        }
    }
}

pub(super) fn network(value: &Value<'_>) -> Parsed<Network> {
    let found = text(value)?;
    Network::try_from(found.clone()).or_else(|why| {
        wrong(value, format!("'{found}': {why}"), "write an address or a network: \"192.0.2.7\", \"10.0.0.0/8\"")
    })
}

/// A table, or `false` for none.
pub(super) fn penalties(value: &Value<'_>) -> Parsed<Option<Penalties>> {
    const KNOWN: [&str; 8] =
        ["authfail", "noauth", "grace_exceeded", "protocol", "min", "max", "max_sources", "overflow"];
    const OVERFLOW: &[(&str, Overflow)] = &[("permissive", Overflow::Permissive), ("deny-all", Overflow::DenyAll)];
    const ANY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);
    let table = match value.get_ref() {
        DeValue::Boolean(on) => return Ok(on.then(Penalties::default)),
        DeValue::Table(table) => table,
        other => {
            let what = format!("expected a table, true or false, found {}", kind(other));
            return wrong(value, what, "write [ssh.penalties] on a line of its own, or penalties = false for none");
        }
    };
    let (mut p, mut mistakes) = (Penalties::default(), Vec::new());
    for (name, found) in table.iter() {
        let outcome = match name.get_ref().as_ref() {
            "authfail" => duration(ANY)(found).map(|d| p.authfail = d),
            "noauth" => duration(ANY)(found).map(|d| p.noauth = d),
            "grace_exceeded" => duration(ANY)(found).map(|d| p.grace_exceeded = d),
            "protocol" => duration(ANY)(found).map(|d| p.protocol = d),
            "min" => duration(ANY)(found).map(|d| p.min = d),
            "max" => duration(SECOND..=24 * HOUR)(found).map(|d| p.max = d),
            "max_sources" => whole(1..=1_000_000)(found).map(|n| p.max_sources = n),
            "overflow" => choice(OVERFLOW)(found).map(|o| p.overflow = o),
            other => {
                let hint = match nearest(other, KNOWN.into_iter()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("[ssh.penalties] knows {}", KNOWN.join(", ")),
                };
                Err(vec![Mistake::at(name.span(), format!("there is no setting `{other}` in [ssh.penalties]"), hint)])
            }
        };
        mistakes.extend(outcome.err().into_iter().flatten());
    }
    if mistakes.is_empty() && p.min >= p.max {
        let hint = "a source is refused once `min` has come together, and never for longer than `max`";
        mistakes.push(Mistake::at(value.span(), "`min` is not below `max`", hint));
    }
    if mistakes.is_empty() { Ok(Some(p)) } else { Err(mistakes) }
}
