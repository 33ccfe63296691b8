use std::fs::File;
use std::net::TcpListener;

use rustix::fs::{FlockOperation, flock};

/// How many yards there can be on one host at a time.
const SLOTS: u32 = 100;
/// Jails of one yard.
pub const JAILS: u32 = 8;

/// What a yard must not share with another one, of this run or of any other on the host: uids and a port.
pub struct Slot {
    number: u32,
    _lock: File,
}

impl Slot {
    pub fn take() -> Self {
        let directory = std::env::temp_dir().join("stockade-yards");
        std::fs::create_dir_all(&directory).unwrap();
        for number in 0..SLOTS {
            let lock = File::create(directory.join(number.to_string())).unwrap();
            // A port may be anybody's.
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let slot = Self { number, _lock: lock };
                if TcpListener::bind(("127.0.0.1", slot.port())).is_ok() {
                    return slot;
                }
            }
        }
        panic!("{SLOTS} yards are in use, or their ports are");
    }

    /// Below the ports that the kernel gives to clients.
    pub fn port(&self) -> u16 {
        23_000 + u16::try_from(self.number).unwrap()
    }

    /// Of the public kube door, where a yard has one.
    pub fn public_port(&self) -> u16 {
        23_200 + u16::try_from(self.number).unwrap()
    }

    /// The first of the yard's jails.
    pub fn uid_base(&self) -> u32 {
        1_879_048_192 + self.number * JAILS * 65_536
    }

    /// gate, warden, porter, keeper, tally.
    pub fn role_uids(&self) -> [u32; 5] {
        let first = 60_600 + self.number * 5;
        [first, first + 1, first + 2, first + 3, first + 4]
    }

    pub fn portal_uid(&self) -> u32 {
        60_600 + SLOTS * 5 + self.number
    }

    /// Whether a uid of the host is one of this yard's.
    pub fn owns(&self, uid: u32) -> bool {
        self.role_uids().contains(&uid)
            || self.portal_uid() == uid
            || (self.uid_base()..self.uid_base() + JAILS * 65_536).contains(&uid)
    }
}
