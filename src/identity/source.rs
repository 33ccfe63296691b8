use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::Pattern;
use super::options::shorten;

/// The value of `from=`: addresses, networks and patterns, some of them with `!` in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    rules: Vec<Rule>,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    negated: bool,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Net(IpNet),
    /// `*` and `?` on the address as it is written.
    Text(Pattern),
}

/// Why a `from=` cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSource {
    #[error("from= is empty")]
    Empty,
    #[error("from= has '{0}', which is not an address, a network or a pattern of one; names are not looked up")]
    Name(String),
    #[error("from= has '{0}', whose address is not the first of its network")]
    HostBits(String),
    #[error("from= only says from where not; add * to allow the rest")]
    OnlyNegated,
}

impl Sources {
    /// As OpenSSH: a negated match refuses whatever else matches.
    pub fn allows(&self, from: IpAddr) -> bool {
        // ::ffff:192.0.2.1 is the IPv4 client it says it is.
        let from = from.to_canonical();
        let text = from.to_string();
        let hits = |rule: &&Rule| match &rule.what {
            What::Net(net) => net.contains(&from),
            What::Text(pattern) => pattern.matches(&text),
        };
        let (negated, allowed): (Vec<&Rule>, Vec<&Rule>) = self.rules.iter().filter(hits).partition(|r| r.negated);
        negated.is_empty() && !allowed.is_empty()
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Sources {
    type Err = BadSource;

    fn from_str(text: &str) -> Result<Self, BadSource> {
        let rules = text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(rule);
        let rules = rules.collect::<Result<Vec<Rule>, BadSource>>()?;
        match rules.iter().filter(|rule| !rule.negated).count() {
            0 if rules.is_empty() => Err(BadSource::Empty),
            0 => Err(BadSource::OnlyNegated),
            _ => Ok(Self { rules, text: text.to_owned() }),
        }
    }
}

fn rule(text: &str) -> Result<Rule, BadSource> {
    let (negated, bare) = text.strip_prefix('!').map_or((false, text), |bare| (true, bare));
    let bare = bare.to_ascii_lowercase();
    let what = if let Ok(address) = bare.parse::<IpAddr>() {
        What::Net(IpNet::from(address.to_canonical()))
    } else if let Ok(net) = bare.parse::<IpNet>() {
        if net.addr() != net.network() {
            return Err(BadSource::HostBits(shorten(text)));
        }
        What::Net(net)
    } else if pattern_of_addresses(&bare) {
        What::Text(Pattern::new(bare))
    } else {
        return Err(BadSource::Name(shorten(text)));
    };
    Ok(Rule { negated, what })
}

/// A name in `from=` would never match, and `!name` would never refuse: neither may pass silently.
fn pattern_of_addresses(text: &str) -> bool {
    let v4 = text.bytes().all(|b| b.is_ascii_digit() || b".*?".contains(&b));
    let v6 = text.contains(':') && text.bytes().all(|b| b.is_ascii_hexdigit() || b":.*?".contains(&b));
    text.contains(['*', '?']) && (v4 || v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(sources: &str, from: &str) -> bool {
        sources.parse::<Sources>().unwrap().allows(from.parse().unwrap())
    }

    #[test]
    fn addresses_networks_and_patterns() {
        assert!(allows("192.0.2.1", "192.0.2.1"));
        assert!(allows("192.0.2.0/24,2001:db8::/32", "192.0.2.77"));
        assert!(allows("192.0.2.0/24,2001:db8::/32", "2001:db8::1"));
        assert!(allows("192.0.2.*", "192.0.2.77"));
        assert!(allows("192.0.2.?", "192.0.2.7"));
        assert!(allows("2001:DB8:*", "2001:db8::1"));
        assert!(allows("2001:db8:0::1", "2001:db8::1"));
        assert!(allows("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!allows("192.0.2.?", "192.0.2.77"));
        assert!(!allows("192.0.2.0/24", "198.51.100.1"));
        assert!(!allows("192.0.2.1", "2001:db8::1"));
    }

    #[test]
    fn a_negation_wins_in_any_order() {
        for sources in ["!192.0.2.66,192.0.2.0/24", "192.0.2.0/24,!192.0.2.66", "*,!192.0.2.6?"] {
            assert!(allows(sources, "192.0.2.1"), "{sources}");
            assert!(!allows(sources, "192.0.2.66"), "{sources}");
        }
    }

    #[test]
    fn what_would_never_match_is_refused() {
        let said = |text: &str| text.parse::<Sources>().unwrap_err().to_string();
        assert_eq!(said(""), "from= is empty");
        assert_eq!(said(" , "), "from= is empty");
        assert_eq!(said("!192.0.2.1"), "from= only says from where not; add * to allow the rest");
        assert_eq!(said("192.0.2.1/24"), "from= has '192.0.2.1/24', whose address is not the first of its network");
        assert!(said("\u{1b}[2J,*").starts_with("from= has '\\u{1b}[2J', which"), "a terminal is not to obey it");
        for name in ["host.example.test", "!*.example.test", "192.0.2.0/33", "dead*"] {
            assert!(said(&format!("{name},*")).contains("names are not looked up"), "{name}");
        }
    }
}
