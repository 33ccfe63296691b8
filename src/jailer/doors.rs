//! The doors: addresses on the jail's `lo` and listening sockets on them, made from inside its network namespace.
//!
//! No SO_REUSEADDR or SO_REUSEPORT: with them a jailed process could bind the same address beside us.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, listen, send, socket_with};

use super::fault::{Fault, Step};
use crate::privsep::table::{DOORS, Door};

const BACKLOG: i32 = 128;
/// `lo` is the first interface of every network namespace.
const LOOPBACK: u32 = 1;

// linux/rtnetlink.h, linux/if_addr.h
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const IFF_UP: u32 = 1;
const RT_SCOPE_HOST: u8 = 254;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// No duplicate address detection: the address must be usable at once.
const IFA_F_NODAD: u8 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::new(169, 254, 170, 2), Ipv4Addr::new(169, 254, 170, 23)];
const V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)];

/// Where people look for a proxy.
const EGRESS: u16 = 3128;
/// And for an API server.
const KUBE: u16 = 6443;

/// Raises `lo`, gives it the doors' addresses and listens on all of them, in the order of `DOORS`.
pub fn open() -> Result<Vec<OwnedFd>, Fault> {
    // Protocol 0 is NETLINK_ROUTE.
    let route = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
        .step("open a netlink socket")?;
    request(&route, RTM_NEWLINK, 0, &link_up()).step("raise the jail's lo")?;
    for address in V4 {
        let body = new_address(AF_INET, 32, &address.octets());
        request(&route, RTM_NEWADDR, NLM_F_CREATE, &body).step("give lo a door's address")?;
    }
    for address in V6 {
        let body = new_address(AF_INET6, 128, &address.octets());
        request(&route, RTM_NEWADDR, NLM_F_CREATE, &body).step("give lo a door's IPv6 address")?;
    }
    DOORS.into_iter().map(listen_at).collect()
}

fn listen_at(door: Door) -> Result<OwnedFd, Fault> {
    let family = match door {
        Door::Control => AddressFamily::UNIX,
        Door::MetadataV6 | Door::PodIdentityV6 => AddressFamily::INET6,
        Door::Metadata | Door::Container | Door::PodIdentity | Door::Egress | Door::Kube => AddressFamily::INET,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None).step("make a door's socket")?;
    let [metadata, container, pod] = V4;
    let [metadata6, pod6] = V6;
    let at = |address: IpAddr| bind(&socket, &SocketAddr::new(address, 80));
    match door {
        Door::Metadata => at(metadata.into()),
        Door::Container => at(container.into()),
        Door::PodIdentity => at(pod.into()),
        Door::MetadataV6 => at(metadata6.into()),
        Door::PodIdentityV6 => at(pod6.into()),
        Door::Egress => bind(&socket, &SocketAddr::new(Ipv4Addr::LOCALHOST.into(), EGRESS)),
        Door::Kube => bind(&socket, &SocketAddr::new(Ipv4Addr::LOCALHOST.into(), KUBE)),
        Door::Control => SocketAddrUnix::new_abstract_name(b"stockade").and_then(|name| bind(&socket, &name)),
    }
    .step("bind a door")?;
    listen(&socket, BACKLOG).step("listen at a door")?;
    Ok(socket)
}

fn link_up() -> Vec<u8> {
    // struct ifinfomsg: family, type, index, flags, change
    let mut body = vec![0, 0, 0, 0];
    body.extend(LOOPBACK.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    body
}

fn new_address(family: u8, prefix: u8, address: &[u8]) -> Vec<u8> {
    // struct ifaddrmsg: family, prefix, flags, scope, index; then two attributes
    let mut body = vec![family, prefix, IFA_F_NODAD, RT_SCOPE_HOST];
    body.extend(LOOPBACK.to_ne_bytes());
    for kind in [IFA_LOCAL, IFA_ADDRESS] {
        // An address is 4 or 16 bytes: the attribute needs no padding.
        body.extend(u16::try_from(4 + address.len()).unwrap_or_default().to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(address);
    }
    body
}

/// Sends one request and reads its acknowledgement.
fn request(route: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(16 + body.len()).map_err(std::io::Error::other)?;
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    send(route, &message, SendFlags::empty())?;
    let mut answer = [0; 256];
    let (got, _) = rustix::net::recv(route, &mut answer[..], rustix::net::RecvFlags::empty())?;
    // struct nlmsgerr: the header's 16 bytes, then a negative errno or 0.
    match answer
        .get(..got)
        .and_then(|a| a.get(16..20))
        .and_then(|a| <[u8; 4]>::try_from(a).ok())
        .map(i32::from_ne_bytes)
    {
        Some(0) => Ok(()),
        Some(errno) => Err(std::io::Error::from_raw_os_error(-errno)),
        None => Err(std::io::Error::other("netlink gave no answer")),
    }
}
