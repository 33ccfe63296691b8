//! What can be reached. A datagram socket that is connected asks for a route and sends nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::attempt::Attempt::Run;
use super::attempt::Found::{self, GaveWay, Held};
use super::attempt::{Row, all};

const fn row(name: &'static str, what: &'static str, check: fn(&crate::sys::clone::Alone) -> Found) -> Row {
    Row { name, what, attempt: Run(check) }
}

pub(super) const ROWS: &[Row] = &[
    row("net-route-public", "a route to public addresses", |_| routes(&["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111"])),
    row("net-route-private", "a route to private addresses", |_| {
        routes(&["10.0.0.1", "172.17.0.1", "192.168.0.1", "100.64.0.1", "fd00::1"])
    }),
    row("net-route-link-local", "a route to link-local addresses", |_| {
        routes(&["169.254.0.1", "169.254.169.253", "169.254.169.123", "fe80::1", "224.0.0.1", "ff02::1"])
    }),
    row("net-interfaces", "network devices but lo", |_| interfaces()),
    row("net-routes", "routes to anywhere but lo", |_| table()),
    row("net-loopback", "the host's services on loopback", |_| loopback()),
    row("net-listeners", "listeners that are no doors", |_| listeners()),
    row("unix-abstract", "abstract sockets that are no doors", |_| abstract_sockets()),
    row("unix-paths", "others' sockets in the file system", |_| sockets()),
    row("unix-engines", "sockets of container engines", |_| engines()),
];

fn routes(addresses: &[&str]) -> Found {
    let one = |address: &&str| match address.parse::<IpAddr>() {
        Ok(address) => route(address),
        Err(error) => GaveWay(error.to_string()),
    };
    all(addresses.iter().map(one), "unreachable")
}

fn route(address: IpAddr) -> Found {
    let any = if address.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let asked = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((address, 53)));
    match asked.map_err(|error| error.raw_os_error()) {
        Ok(()) => GaveWay(format!("there is a route to {address}")),
        // The last is what an IPv6 address of a link without naming the link gets.
        Err(Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EINVAL)) => {
            Held(String::new())
        }
        Err(other) => GaveWay(format!("{address}: error {other:?}")),
    }
}

/// Rows of a table of /proc that are about something else; the file itself is always there.
fn strange(path: &str, header: usize, fine: impl Fn(&str) -> bool, held: &str) -> Found {
    match std::fs::read_to_string(path) {
        Err(error) => GaveWay(format!("{path} cannot be read: {error}")),
        Ok(text) => match text.lines().skip(header).find(|line| !fine(line)) {
            Some(line) => GaveWay(line.trim().to_owned()),
            None => Held(held.to_owned()),
        },
    }
}

fn interfaces() -> Found {
    strange("/proc/net/dev", 2, |line| line.trim_start().starts_with("lo:"), "there is only lo")
}

fn table() -> Found {
    let v6 = || strange("/proc/net/ipv6_route", 0, |line| line.trim_end().ends_with(" lo"), "");
    all([strange("/proc/net/route", 1, |_| false, ""), v6()], "there are none")
}

/// ssh, http, an engine's, a cluster's store's and a node agent's ports, a database's, a cache's. 6443 is a door.
const PORTS: [u16; 11] = [22, 80, 443, 2375, 2376, 2379, 3306, 5432, 6379, 8080, 10250];

fn loopback() -> Found {
    let hosts = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
    let places = hosts.into_iter().flat_map(|host| PORTS.map(|port| SocketAddr::new(host, port)));
    let one = |place| match TcpStream::connect_timeout(&place, Duration::from_secs(2)) {
        Ok(_) if own_listener(&place) => Held(String::new()),
        Ok(_) => GaveWay(format!("{place} answers")),
        Err(_) => Held(String::new()),
    };
    all(places.map(one), "nothing answers")
}

/// Where doors listen, as the kernel's tables write it: port 80 of the metadata addresses, ports 3128 and 6443 of
/// loopback.
const DOORS: [&str; 7] = [
    "FEA9FEA9:0050",
    "02AAFEA9:0050",
    "17AAFEA9:0050",
    "0100007F:0C38",
    "0100007F:192B",
    "C20E00FD000000000000000054020000:0050",
    "C20E00FD000000000000000023000000:0050",
];

const LISTENING: &str = "0A";

fn listeners() -> Found {
    let fine = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, state, _, _, _, uid, ..] = fields.as_slice() else { return false };
        *state != LISTENING || is_own(uid) || is_door(local)
    };
    all([strange("/proc/net/tcp", 1, fine, ""), strange("/proc/net/tcp6", 1, fine, "")], "there are only doors")
}

fn is_door(local: &str) -> bool {
    DOORS.contains(&local)
}

/// The jailed user's own. Root is not jailed.
fn is_own(uid: &str) -> bool {
    let own = rustix::process::getuid();
    !own.is_root() && uid == own.as_raw().to_string()
}

/// At this port, of this address or of all.
fn own_listener(place: &SocketAddr) -> bool {
    let port = format!(":{:04X}", place.port());
    let own = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, state, _, _, _, uid, ..] = fields.as_slice() else { return false };
        *state == LISTENING && local.ends_with(&port) && is_own(uid)
    };
    let table = |path: &&str| std::fs::read_to_string(path).unwrap_or_default().lines().any(own);
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(table)
}

/// An abstract name belongs to a network namespace: whoever else is in it can be spoken to (CVE-2020-15257).
fn abstract_sockets() -> Found {
    let Ok(text) = std::fs::read_to_string("/proc/net/unix") else { return GaveWay("/proc/net/unix: no".into()) };
    let names = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(7)?.strip_prefix('@'));
    all(names.filter(|name| *name != "stockade").map(speak), "there is only @stockade")
}

/// Held where it is the user's own, or does not answer.
fn speak(name: &str) -> Found {
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name);
    let Ok(socket) = address.and_then(|address| UnixStream::connect_addr(&address)) else {
        return Held(String::new());
    };
    match rustix::net::sockopt::socket_peercred(&socket) {
        Ok(peer) if peer.uid == rustix::process::getuid() && !peer.uid.is_root() => Held(String::new()),
        _ => GaveWay(format!("@{name} answers")),
    }
}

/// Where programs put them; a socket is found by what it is and not by its name.
fn sockets() -> Found {
    const MOST: usize = 50_000;
    let own = rustix::process::getuid();
    let mut look: Vec<PathBuf> =
        ["/run", "/var", "/tmp", "/home", "/mnt", "/opt", "/srv", "/dev"].map(PathBuf::from).into();
    let mut seen = 0;
    while let Some(directory) = look.pop() {
        for path in std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let Ok(about) = std::fs::symlink_metadata(&path) else { continue };
            seen += 1;
            match about.file_type() {
                kind if kind.is_socket() && (own.is_root() || about.uid() != own.as_raw()) => {
                    return GaveWay(format!("{} is there", path.display()));
                }
                kind if kind.is_dir() && seen < MOST => look.push(path),
                _ => {}
            }
        }
    }
    Held(format!("none among {seen} files"))
}

fn engines() -> Found {
    const SOCKETS: [&str; 12] = [
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/run/containerd/containerd.sock",
        "/run/crio/crio.sock",
        "/run/podman/podman.sock",
        "/run/buildkit/buildkitd.sock",
        "/run/systemd/private",
        "/run/systemd/notify",
        "/run/systemd/journal/socket",
        "/run/dbus/system_bus_socket",
        "/run/snapd.socket",
        "/run/udev/control",
    ];
    let one = |path: &str| match std::fs::symlink_metadata(path) {
        Err(error) => super::attempt::shut(&error),
        Ok(_) => GaveWay(format!("{path} is there")),
    };
    all(SOCKETS.map(one), "not there")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_of_this_host_is_found() {
        assert!(matches!(route(Ipv4Addr::LOCALHOST.into()), GaveWay(_)));
    }

    #[test]
    fn doors_are_told_from_other_listeners() {
        assert!(is_door("FEA9FEA9:0050") && !is_door("FEA9FEA9:0016") && !is_door("00000000:0050"));
    }

    #[test]
    fn an_abstract_socket_of_somebody_else_is_found() {
        let name = format!("stockade-probe-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
        let held = matches!(speak(&name), Held(_));
        assert_eq!(held, !rustix::process::getuid().is_root());
        assert!(matches!(speak("stockade-probe-nobody"), Held(_)));
    }
}
