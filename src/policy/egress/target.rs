use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Where a jail wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub host: Host,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// In lower case, without a dot at its end.
    Name(String),
    Address(IpAddr),
}

/// The text after CONNECT is not a host and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CONNECT wants a host and a port, such as example.com:443")]
pub struct NotATarget;

impl FromStr for Target {
    type Err = NotATarget;

    fn from_str(authority: &str) -> Result<Self, NotATarget> {
        let (host, port) = authority.rsplit_once(':').ok_or(NotATarget)?;
        // `+80` would parse.
        let port = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse().ok()).flatten().filter(|p| *p != 0);
        let port = port.ok_or(NotATarget)?;
        if let Some(six) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let six: std::net::Ipv6Addr = six.parse().map_err(|_| NotATarget)?;
            return Ok(Self { host: Host::Address(six.into()), port });
        }
        if let Ok(four) = host.parse::<std::net::Ipv4Addr>() {
            return Ok(Self { host: Host::Address(four.into()), port });
        }
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        is_host_name(&name).then_some(Self { host: Host::Name(name), port }).ok_or(NotATarget)
    }
}

/// Letters, digits, hyphens and underscores in labels; not something that some library takes for an IPv4 address
/// (`127.1`, `0x7f000001`, `2130706433`).
pub fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let number = last.starts_with("0x") || last.bytes().all(|b| b.is_ascii_digit());
    name.len() <= 253 && name.split('.').all(label) && !number
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(six)) => write!(f, "[{six}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}
