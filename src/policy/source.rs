use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::Netblock;

/// A client's address, or the network around it that one client may well have as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(IpNet);

impl Source {
    pub fn of(address: IpAddr, block: Netblock) -> Self {
        let address = address.to_canonical();
        let bits = if address.is_ipv4() { block.v4 } else { block.v6 };
        // More bits than an address has: the address alone.
        Self(IpNet::new(address, bits).unwrap_or_else(|_| IpNet::from(address)).trunc())
    }

    pub fn is_ipv4(&self) -> bool {
        self.0.addr().is_ipv4()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_the_network_around_an_address() {
        let of = |text: &str, block| Source::of(text.parse().unwrap(), block).to_string();
        let usual = Netblock::default();
        assert_eq!(of("192.0.2.1", usual), "192.0.2.1");
        assert_eq!(of("::ffff:192.0.2.1", usual), "192.0.2.1");
        assert_eq!(of("2001:db8::1:2:3:4", usual), "2001:db8::/64");
        assert_eq!(of("192.0.2.77", Netblock { v4: 24, v6: 128 }), "192.0.2.0/24");
        assert_eq!(of("2001:db8::1", Netblock { v4: 24, v6: 128 }), "2001:db8::1");
    }
}
