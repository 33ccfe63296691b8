//! Who opens, who holds, who may say what and when.
//!
//! | descriptor              | opened by | held by          | after a restart passed again by |
//! |-------------------------|-----------|------------------|---------------------------------|
//! | TCP listeners           | loader    | gate             | jailer                          |
//! | host keys               | loader    | gate (read once) | jailer                          |
//! | configuration           | loader    | jailer, all      | jailer                          |
//! | authorized keys' folder | loader    | warden           | jailer                          |
//! | recordings' folder      | loader    | keeper           | jailer                          |
//! | audit file's folder     | loader    | keeper           | jailer                          |
//! | resolv.conf, hosts      | jailer    | porter (read)    | jailer                          |
//! | door listeners          | jail      | jailer, porter   | jailer                          |
//! | PTY master, pipes       | jail      | keeper           | nobody: a dead keeper ends its sessions |
//! | streams                 | jailer    | gate and keeper  | nobody: a dead gate ends its connections |
//! | exec notifications      | jail      | jailer, tally    | jailer                          |
//!
//! What the loader opened the jailer holds for successors. At a reload the loader opens all of it anew but the listeners,
//! which stay.

use super::Role;
use super::message::WardenToJailer;
use crate::session::SessionId;

/// A jail's doors, in the order their listeners travel.
pub const DOORS: [Door; 7] = [
    Door::Metadata,
    Door::MetadataV6,
    Door::Container,
    Door::PodIdentity,
    Door::PodIdentityV6,
    Door::Control,
    Door::Egress,
];

/// A listening socket inside a jail's network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// 169.254.169.254:80
    Metadata,
    /// [fd00:ec2::254]:80
    MetadataV6,
    /// 169.254.170.2:80
    Container,
    /// 169.254.170.23:80
    PodIdentity,
    /// [fd00:ec2::23]:80
    PodIdentityV6,
    /// The abstract unix socket `@stockade`.
    Control,
    /// 127.0.0.1:3128
    Egress,
}

/// A jail's life, as far as the boundary goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JailPhase {
    /// No such jail was ever asked for.
    Unknown,
    Building,
    Standing,
    /// Ending or gone. The warden may not know yet, so what it asks is answered, not punished.
    Ended,
}

/// Whether the warden may ask this of the jailer now.
pub fn may_ask(ask: &WardenToJailer, phase: impl Fn(&SessionId) -> JailPhase) -> bool {
    use JailPhase::{Building, Ended, Standing, Unknown};
    match ask {
        WardenToJailer::Build { session, .. } => phase(session) == Unknown,
        WardenToJailer::Start { session, .. } | WardenToJailer::Signal { session, .. } => {
            matches!(phase(session), Standing | Ended)
        }
        WardenToJailer::End { session } => matches!(phase(session), Building | Standing | Ended),
        WardenToJailer::Dismiss(role) => *role != Role::Warden,
    }
}
