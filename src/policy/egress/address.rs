use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is, in whatever form it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// No rule opens it; the reason.
    Never(&'static str),
    /// Only where a rule names its network.
    Private,
    Public,
}

/// <https://www.iana.org/assignments/iana-ipv4-special-registry> and its twin for IPv6, and what clouds put there.
pub fn class(address: IpAddr) -> Class {
    match plain(address) {
        IpAddr::V4(address) => class_v4(address),
        IpAddr::V6(address) => class_v6(address),
    }
}

/// The IPv4 address that an IPv6 form of it (mapped, NAT64) leads to; any other as it is.
pub fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else { return address };
    let [head @ .., a, b, c, d] = six.octets();
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let nat64 = [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];
    if head == mapped || head == nat64 { Ipv4Addr::new(a, b, c, d).into() } else { address }
}

fn class_v4(address: Ipv4Addr) -> Class {
    match address.octets() {
        [0, ..] => Class::Never("it is unspecified"),
        [127, ..] => Class::Never("it is loopback"),
        [169, 254, ..] => Class::Never("it is link-local, where metadata is"),
        // Azure's and Alibaba's; Oracle's is among the protocol assignments.
        [168, 63, 129, 16] | [100, 100, 100, 200] | [192, 0, 0, _] => Class::Never("it is a cloud's metadata"),
        [224..=239, ..] => Class::Never("it is multicast"),
        [240..=255, ..] => Class::Never("it is reserved or broadcast"),
        [10, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        | [100, 64..=127, ..]
        | [198, 18 | 19, ..]
        | [192, 0, 2, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Class::Private,
        _ => Class::Public,
    }
}

fn class_v6(address: Ipv6Addr) -> Class {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Never("it is unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Never("it is loopback"),
        [0xfd00, 0xec2, ..] => Class::Never("it is AWS's metadata"),
        [0xfe80..=0xfebf, ..] => Class::Never("it is link-local"),
        [0xff00..=0xffff, ..] => Class::Never("it is multicast"),
        // 6to4 and Teredo carry an IPv4 address that a router of somebody's would unpack.
        [0x2002, ..] | [0x2001, 0..=0x1ff, ..] => Class::Never("it carries another address, or is reserved"),
        [0xfc00..=0xfdff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Class::Private,
        [0x2000..=0x3fff, ..] => Class::Public,
        _ => Class::Never("it carries another address, or is reserved"),
    }
}
