//! Families and protocols of sockets. What is refused must be refused by the jail: that this kernel happens to lack a
//! family holds nobody back where another kernel, or a module, has it.

use libc::{
    AF_ALG, AF_BLUETOOTH, AF_CAN, AF_INET, AF_INET6, AF_KEY, AF_NETLINK, AF_PACKET, AF_VSOCK, SOCK_CLOEXEC, SOCK_DGRAM,
    SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM,
};

use super::attempt::Arg::{self, N, Room, Text, Words};
use super::attempt::Attempt::Call;
use super::attempt::Row;

const STREAM: u64 = SOCK_STREAM as u64;
const DGRAM: u64 = SOCK_DGRAM as u64;
const RAW: u64 = SOCK_RAW as u64;
const SEQ: u64 = SOCK_SEQPACKET as u64;
const INET: u64 = AF_INET as u64;
const INET6: u64 = AF_INET6 as u64;
const NETLINK: u64 = AF_NETLINK as u64;
const HIGH: u64 = 1 << 32;

const fn row(name: &'static str, what: &'static str, arguments: &'static [Arg]) -> Row {
    Row { name, what, attempt: Call(libc::SYS_socket, arguments) }
}

pub(super) const ROWS: &[Row] = &[
    row("socket-vsock", "a socket to the hypervisor", &[N(AF_VSOCK as u64), N(STREAM), N(0)]),
    row("socket-vsock-high-bits", "AF_VSOCK, bit 32 set", &[N(AF_VSOCK as u64 | HIGH), N(STREAM), N(0)]),
    row("socket-alg", "a socket to the kernel's ciphers", &[N(AF_ALG as u64), N(SEQ), N(0)]),
    row("socket-packet", "a packet socket", &[N(AF_PACKET as u64), N(RAW), N(0x0300)]),
    row("socket-packet-dgram", "a packet socket without headers", &[N(AF_PACKET as u64), N(DGRAM), N(0x0300)]),
    row("socket-raw-icmp", "a raw socket", &[N(INET), N(RAW), N(1)]),
    row("socket-raw-icmp6", "a raw socket of IPv6", &[N(INET6), N(RAW), N(58)]),
    row("socket-raw-any", "a raw socket of any protocol", &[N(INET), N(RAW), N(255)]),
    row("socket-ping", "a ping socket", &[N(INET), N(DGRAM), N(1)]),
    row("socket-ping6", "a ping socket of IPv6", &[N(INET6), N(DGRAM), N(58)]),
    row("socket-ping-cloexec", "a ping socket with flags", &[N(INET), N(DGRAM | SOCK_CLOEXEC as u64), N(1)]),
    row("socket-sctp", "SCTP", &[N(INET), N(STREAM), N(132)]),
    row("socket-sctp-seqpacket", "SCTP, one to many", &[N(INET), N(SEQ), N(132)]),
    row("socket-dccp", "DCCP", &[N(INET), N(6), N(33)]),
    row("socket-udplite", "UDP-Lite", &[N(INET), N(DGRAM), N(136)]),
    row("socket-mptcp", "MPTCP", &[N(INET), N(STREAM), N(262)]),
    row("socket-l2tp", "L2TP", &[N(INET), N(DGRAM), N(115)]),
    row("socket-smc", "SMC over TCP", &[N(INET), N(STREAM), N(256)]),
    row("netlink-sock-diag", "netlink: others' sockets", &[N(NETLINK), N(RAW), N(4)]),
    row("netlink-xfrm", "netlink: IPsec", &[N(NETLINK), N(RAW), N(6)]),
    row("netlink-audit", "netlink: audit", &[N(NETLINK), N(RAW), N(9)]),
    row("netlink-connector", "netlink: process events", &[N(NETLINK), N(RAW), N(11)]),
    row("netlink-netfilter", "netlink: netfilter (CVE-2024-1086)", &[N(NETLINK), N(RAW), N(12)]),
    row("netlink-uevent", "netlink: device events", &[N(NETLINK), N(RAW), N(15)]),
    row("netlink-generic", "netlink: generic", &[N(NETLINK), N(RAW), N(16)]),
    row("netlink-crypto", "netlink: crypto", &[N(NETLINK), N(RAW), N(21)]),
    row("socket-key", "PF_KEY", &[N(AF_KEY as u64), N(RAW), N(2)]),
    row("socket-bluetooth", "Bluetooth", &[N(AF_BLUETOOTH as u64), N(RAW), N(1)]),
    row("socket-can", "CAN", &[N(AF_CAN as u64), N(RAW), N(1)]),
    row("socket-rds", "RDS", &[N(21), N(SEQ), N(0)]),
    row("socket-tipc", "TIPC", &[N(30), N(SEQ), N(0)]),
    row("socket-nfc", "NFC", &[N(39), N(SEQ), N(1)]),
    row("socket-kcm", "KCM", &[N(41), N(DGRAM), N(0)]),
    row("socket-qipcrtr", "Qualcomm's router", &[N(42), N(DGRAM), N(0)]),
    row("socket-xdp", "XDP", &[N(44), N(RAW), N(0)]),
    // On no descriptor: what the filter lets through the kernel answers with EBADF.
    Row {
        name: "tcp-ulp",
        what: "make TLS of the kernel's of a socket",
        attempt: Call(libc::SYS_setsockopt, &[N(u64::MAX), N(6), N(31), Text(c"tls"), N(3)]),
    },
    Row {
        name: "tcp-ulp-high-bits",
        what: "the same, bit 32 set",
        attempt: Call(libc::SYS_setsockopt, &[N(u64::MAX), N(6 | HIGH), N(31 | HIGH), Text(c"tls"), N(3)]),
    },
    Row {
        name: "udp-encap",
        what: "make ESP of a socket",
        attempt: Call(libc::SYS_setsockopt, &[N(u64::MAX), N(17), N(100), Words(&[2]), N(4)]),
    },
    Row {
        name: "socketpair-tipc",
        what: "a pair of sockets of TIPC",
        attempt: Call(libc::SYS_socketpair, &[N(30), N(SEQ), N(0), Room]),
    },
];
