//! Who opens, who holds, who may say what and when.
//!
//! | descriptor              | opened by | held by          | after a restart passed again by |
//! |-------------------------|-----------|------------------|---------------------------------|
//! | TCP listeners           | loader    | gate             | jailer                          |
//! | host keys               | loader    | gate (read once) | jailer                          |
//! | laptops' listeners      | loader    | portal           | jailer                          |
//! | certificate and its key | loader    | portal (read)    | jailer                          |
//! | configuration           | loader    | jailer, all      | jailer                          |
//! | authorized keys' folder | loader    | warden           | jailer                          |
//! | kubeconfigs             | loader    | warden (read)    | jailer                          |
//! | locks: folder, changes  | loader    | warden           | jailer                          |
//! | recordings' folder      | loader    | keeper           | jailer                          |
//! | audit file's folder     | loader    | keeper           | jailer                          |
//! | resolv.conf, hosts      | jailer    | porter (read)    | jailer                          |
//! | door listeners          | jail      | jailer, porter   | jailer                          |
//! | PTY master, pipes       | jail      | keeper           | nobody: a dead keeper ends its sessions |
//! | streams                 | jailer    | gate and keeper  | nobody: a dead gate ends its connections |
//! | streams on clusters     | porter    | keeper, porter   | nobody: a dead keeper or porter ends them |
//! | exec notifications      | jail      | jailer, tally    | jailer                          |
//!
//! What the loader opened the jailer holds for successors. At a reload the loader opens all of it anew but the listeners,
//! which stay.
//!
//! A breach of the protocol ends its sender, whoever hears it, and each is one event of the jailer's:
//!
//! | who breaks it       | who hears it                | how the jailer learns of it                                 |
//! |---------------------|-----------------------------|-------------------------------------------------------------|
//! | any role            | jailer                      | itself                                                      |
//! | gate, portal, porter, tally | keeper              | it tells the warden (`Breach`), who says `Dismiss`          |
//! | gate, porter, keeper| warden                      | it says `Dismiss`                                           |
//! | warden              | gate, porter, keeper        | the hearer ends with an exit status that says so            |
//! | keeper              | gate, portal, porter, tally | the same                                                    |
//! | portal, porter      | porter, portal              | the same                                                    |
//!
//! The jailer reads no byte of a role but the warden's, so who hears the warden, the keeper or the portal break the
//! protocol has its own end to say it with (`Accusation`), and goes with them: a false word costs who says it as much as
//! whom it names. When the keeper accuses, recordings are closed in order and sessions end: what a warden lets in that lies
//! to the recorder must not go on.

use super::Role;
use super::message::WardenToJailer;
use crate::session::SessionId;

/// A jail's doors, in the order their listeners travel.
pub const DOORS: [Door; 8] = [
    Door::Metadata,
    Door::MetadataV6,
    Door::Container,
    Door::PodIdentity,
    Door::PodIdentityV6,
    Door::Control,
    Door::Egress,
    Door::Kube,
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
    /// 127.0.0.1:6443
    Kube,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privsep::message::{Program, Wish};

    #[test]
    fn each_ask_has_its_phases() {
        use JailPhase::{Building, Ended, Standing, Unknown};
        let session = SessionId::mint();
        let wish = Wish { program: Program::Shell, terminal: None, environment: Vec::new() };
        let build = WardenToJailer::Build {
            session,
            user: "alice".parse().unwrap(),
            persistent_home: false,
            region: None,
            note: Vec::new(),
        };
        for (ask, allowed) in [
            (build, [true, false, false, false]),
            (WardenToJailer::Start { session, number: 1, wish, clusters: None }, [false, false, true, true]),
            (WardenToJailer::Signal { session, number: 1, signal: 15 }, [false, false, true, true]),
            (WardenToJailer::End { session }, [false, true, true, true]),
        ] {
            let answers = [Unknown, Building, Standing, Ended].map(|now| may_ask(&ask, |_| now));
            assert_eq!(answers, allowed, "{ask:?}");
        }
    }

    #[test]
    fn a_phase_is_asked_of_the_jail_that_is_meant() {
        let (mine, other) = (SessionId::mint(), SessionId::mint());
        let phase = |id: &SessionId| if *id == mine { JailPhase::Standing } else { JailPhase::Unknown };
        assert!(may_ask(&WardenToJailer::End { session: mine }, phase));
        assert!(!may_ask(&WardenToJailer::End { session: other }, phase));
    }

    #[test]
    fn the_warden_dismisses_others() {
        let dismissed = |role: &Role| may_ask(&WardenToJailer::Dismiss(*role), |_| JailPhase::Unknown);
        assert!(Role::ALL.iter().all(|role| dismissed(role) != (*role == Role::Warden)));
    }
}
