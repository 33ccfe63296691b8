use minicbor::{Decode, Encode};

use crate::privsep::Role;
use crate::session::SessionId;

/// A class of OCSF 1.8 with its number; the thousands are the category.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    ProcessActivity = 1007,
    Authentication = 3002,
    AuthorizeSession = 3003,
    NetworkActivity = 4001,
    SshActivity = 4007,
    ApplicationLifecycle = 6002,
    ApiActivity = 6003,
    ApplicationError = 6008,
}

/// What an event's code stands for: a row of `stockade audit codes`. A code is never given to something else.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    /// `SK`, four figures, then `I`nformation, `W`arning or `E`rror.
    pub code: &'static str,
    pub name: &'static str,
    pub class: Class,
    pub activity: u16,
    /// The doc comment of the variant, a line each.
    pub meaning: &'static [&'static str],
}

/// Defines the enum and, from the same lines, the table of its codes.
macro_rules! events {
    ($(
        $(#[doc = $doc:literal])+
        #[n($n:literal)]
        #[code($code:ident, $class:ident, $activity:literal)]
        $name:ident { $($fields:tt)* },
    )+) => {
        /// What can happen. Text that came from outside is cut and escaped where it is written, not here.
        #[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
        pub enum Event {$(
            $(#[doc = $doc])+
            #[n($n)]
            $name { $($fields)* },
        )+}

        impl Event {
            /// Every code there is, in the order of the enum.
            pub const CODES: &[Code] = &[$(Code {
                code: stringify!($code),
                name: stringify!($name),
                class: Class::$class,
                activity: $activity,
                meaning: &[$($doc),+],
            }),+];

            pub fn code(&self) -> Code {
                match self {$(
                    Self::$name { .. } => Code {
                        code: stringify!($code),
                        name: stringify!($name),
                        class: Class::$class,
                        activity: $activity,
                        meaning: &[$($doc),+],
                    },
                )+}
            }
        }
    };
}

events! {
    /// A client connected.
    #[n(0)]
    #[code(SK1001I, NetworkActivity, 1)]
    Connected {
        #[n(0)]
        from: String,
    },
    /// A connection was not served: too many, too fast, too late, or not SSH.
    #[n(1)]
    #[code(SK1002W, SshActivity, 5)]
    ConnectionRefused {
        #[n(0)]
        from: String,
        #[n(1)]
        why: String,
    },
    /// A user was let in.
    #[n(2)]
    #[code(SK1003I, Authentication, 1)]
    LoginAccepted {
        #[n(0)]
        user: String,
        #[n(1)]
        from: String,
        /// SHA256 fingerprint, as `ssh-keygen -l` prints it.
        #[n(2)]
        key: String,
        #[n(3)]
        groups: Vec<String>,
        #[n(4)]
        client: String,
    },
    /// A user was not let in, or may no longer stay.
    #[n(3)]
    #[code(SK1004W, Authentication, 1)]
    LoginRefused {
        #[n(0)]
        user: String,
        #[n(1)]
        from: String,
        #[n(2)]
        key: String,
        #[n(3)]
        why: String,
    },
    /// A jail was opened for a user.
    #[n(4)]
    #[code(SK2001I, SshActivity, 1)]
    SessionOpened {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        user: String,
        #[n(2)]
        from: String,
    },
    /// A jail ended.
    #[n(5)]
    #[code(SK2002I, SshActivity, 2)]
    SessionClosed {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        user: String,
        #[n(2)]
        reason: String,
    },
    /// A program was started in a channel of a session.
    #[n(6)]
    #[code(SK2003I, ProcessActivity, 1)]
    ChannelOpened {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: u32,
        /// `None`: a login shell.
        #[n(2)]
        command: Option<String>,
        #[n(3)]
        terminal: bool,
    },
    /// A channel ended. `status` is an exit status, or 128 + a signal's number.
    #[n(7)]
    #[code(SK2004I, ProcessActivity, 2)]
    ChannelClosed {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: u32,
        #[n(2)]
        status: u32,
    },
    /// The client asked for something that is not given: forwarding, agent, X11, a subsystem.
    #[n(8)]
    #[code(SK2005W, SshActivity, 5)]
    RequestRefused {
        #[n(0)]
        session: Option<SessionId>,
        #[n(1)]
        user: String,
        #[n(2)]
        from: String,
        #[n(3)]
        what: String,
    },
    /// A program in a jail asked the kernel to execute something: an attempt, and the arguments are the caller's word.
    #[n(9)]
    #[code(SK3001I, ProcessActivity, 1)]
    Exec {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: u32,
        #[n(2)]
        path: String,
        #[n(3)]
        arguments: Vec<String>,
    },
    /// STS issued credentials to a session.
    #[n(10)]
    #[code(SK4001I, AuthorizeSession, 3)]
    CredentialIssued {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        user: String,
        #[n(2)]
        role: String,
        #[n(3)]
        access_key_id: String,
        /// Seconds since the epoch.
        #[n(4)]
        expires: i64,
    },
    /// STS did not issue credentials.
    #[n(11)]
    #[code(SK4002W, AuthorizeSession, 3)]
    CredentialRefused {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        user: String,
        #[n(2)]
        role: String,
        #[n(3)]
        code: String,
        #[n(4)]
        message: String,
    },
    /// A door answered a request with a refusal.
    #[n(12)]
    #[code(SK5001W, ApiActivity, 99)]
    DoorRefused {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        door: String,
        #[n(2)]
        request: String,
        #[n(3)]
        status: u16,
    },
    /// A limit was reached: disk, jails, processes, memory, a door's connections.
    #[n(13)]
    #[code(SK6001W, ApplicationError, 1)]
    LimitHit {
        #[n(0)]
        session: Option<SessionId>,
        #[n(1)]
        what: String,
    },
    /// A configuration came into force.
    #[n(14)]
    #[code(SK7001I, ApplicationLifecycle, 8)]
    ConfigurationLoaded {
        /// SHA-256 of the file.
        #[n(0)]
        digest: String,
    },
    /// A configuration was refused; the former stays.
    #[n(15)]
    #[code(SK7002W, ApplicationLifecycle, 99)]
    ConfigurationRefused {
        #[n(0)]
        reason: String,
    },
    /// A process of the bastion ended and was started again.
    #[n(16)]
    #[code(SK8003W, ApplicationLifecycle, 5)]
    RoleRestarted {
        #[n(0)]
        role: Role,
        #[n(1)]
        reason: String,
    },
    /// A process of the bastion broke the protocol of the boundary and was ended.
    #[n(17)]
    #[code(SK8004E, ApplicationError, 1)]
    RoleBreach {
        #[n(0)]
        role: Role,
        #[n(1)]
        what: String,
    },
    /// A recording that a crash left open was closed.
    #[n(18)]
    #[code(SK2006W, ApplicationLifecycle, 99)]
    RecordingRecovered {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        events: u64,
        #[n(2)]
        lost: u64,
    },
    /// The bastion started.
    #[n(19)]
    #[code(SK8001I, ApplicationLifecycle, 3)]
    Started {
        #[n(0)]
        version: String,
    },
    /// The bastion stopped.
    #[n(20)]
    #[code(SK8002I, ApplicationLifecycle, 4)]
    Stopped {
        #[n(0)]
        reason: String,
    },
    /// A source is refused for a while, at least for so long: its connections logged nobody in.
    #[n(30)]
    #[code(SK1005W, SshActivity, 5)]
    SourcePenalised {
        /// An address, or the network that counts as one source.
        #[n(0)]
        source: String,
        #[n(1)]
        why: String,
        #[n(2)]
        seconds: u64,
    },
    /// A source that was refused for a while is refused no longer.
    #[n(31)]
    #[code(SK1006I, SshActivity, 99)]
    PenaltyEnded {
        #[n(0)]
        source: String,
        /// Connections that were refused meanwhile.
        #[n(1)]
        refused: u64,
    },
    /// A jail was let through the egress door.
    #[n(40)]
    #[code(SK5101I, NetworkActivity, 1)]
    EgressOpened {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        user: String,
        #[n(2)]
        host: String,
        #[n(3)]
        port: u16,
        /// Where the name led.
        #[n(4)]
        address: String,
    },
    /// A connection through the egress door ended.
    #[n(41)]
    #[code(SK5102I, NetworkActivity, 2)]
    EgressClosed {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        user: String,
        #[n(2)]
        host: String,
        #[n(3)]
        port: u16,
        #[n(4)]
        address: String,
        /// Bytes from the jail.
        #[n(5)]
        sent: u64,
        /// Bytes to the jail.
        #[n(6)]
        received: u64,
        #[n(7)]
        milliseconds: u64,
        #[n(8)]
        reason: String,
    },
    /// A jail was not let through the egress door, or was cut off there before a byte went through.
    #[n(42)]
    #[code(SK5103W, NetworkActivity, 5)]
    EgressRefused {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        user: String,
        /// Host and port as they were asked for.
        #[n(2)]
        target: String,
        #[n(3)]
        address: Option<String>,
        #[n(4)]
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_well_formed() {
        let mut seen = HashSet::new();
        for row in Event::CODES {
            let figures = row.code.strip_prefix("SK").unwrap();
            let (figures, letter) = figures.split_at(4);
            assert!(figures.bytes().all(|b| b.is_ascii_digit()) && "IWE".contains(letter), "{}", row.code);
            assert!(seen.insert(row.code), "{} twice", row.code);
            assert!(row.meaning.iter().all(|line| !line.trim().is_empty()));
        }
    }

    #[test]
    fn an_event_knows_its_row() {
        let code = Event::Started { version: "1".into() }.code();
        assert_eq!((code.code, code.name, code.class), ("SK8001I", "Started", Class::ApplicationLifecycle));
    }
}
