use minicbor::{Decode, Encode};

use super::KubeRecord;
use crate::privsep::Role;
use crate::session::SessionId;

/// A class of OCSF 1.8 with its number; the thousands are the category.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    ProcessActivity = 1007,
    Authentication = 3002,
    AuthorizeSession = 3003,
    UserAccessManagement = 3005,
    GroupManagement = 3006,
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
    /// A request to a cluster went through the kube door. Exec, attach and port-forward are told twice: begun and ended.
    #[n(50)]
    #[code(SK5201I, ApiActivity, 99)]
    KubeRequest {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        user: String,
        #[n(2)]
        record: Box<KubeRecord>,
    },
    /// The kube door refused a request by itself; no cluster saw it.
    #[n(51)]
    #[code(SK5202W, ApiActivity, 99)]
    KubeRefused {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        user: String,
        /// As it was asked for; empty where none was named.
        #[n(2)]
        cluster: String,
        /// Method and path.
        #[n(3)]
        request: String,
        #[n(4)]
        status: u16,
        #[n(5)]
        reason: String,
    },
    /// A stream of exec or attach began: from here on what goes through it is recorded.
    #[n(52)]
    #[code(SK5203I, ApiActivity, 99)]
    KubeStreamOpened {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        user: String,
        #[n(2)]
        number: u32,
        /// As in the event of its request.
        #[n(3)]
        audit_id: String,
        #[n(4)]
        cluster: String,
        #[n(5)]
        namespace: String,
        #[n(6)]
        pod: String,
        #[n(7)]
        container: Option<String>,
        #[n(8)]
        subresource: String,
        #[n(9)]
        command: Vec<String>,
        #[n(10)]
        terminal: bool,
    },
    /// A stream of exec or attach ended.
    #[n(53)]
    #[code(SK5204I, ApiActivity, 99)]
    KubeStreamClosed {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        user: String,
        #[n(2)]
        number: u32,
        #[n(3)]
        audit_id: String,
        #[n(4)]
        cluster: String,
        /// Bytes to the cluster.
        #[n(5)]
        sent: u64,
        /// Bytes to the client.
        #[n(6)]
        received: u64,
        #[n(7)]
        milliseconds: u64,
        /// Of the program, where the cluster told it.
        #[n(8)]
        exit: Option<u32>,
        #[n(9)]
        reason: String,
        /// Its bytes were not what was agreed on, or it could not be recorded: it was cut.
        #[n(10)]
        cut: bool,
    },
    /// A cluster was found, and is there for those who may use it.
    #[n(54)]
    #[code(SK4101I, ApplicationLifecycle, 99)]
    ClusterAppeared {
        #[n(0)]
        cluster: String,
        #[n(1)]
        endpoint: String,
        /// Account and region of AWS.
        #[n(2)]
        place: String,
    },
    /// A cluster that had been found is there no more, or must not be offered.
    #[n(55)]
    #[code(SK4102I, ApplicationLifecycle, 99)]
    ClusterGone {
        #[n(0)]
        cluster: String,
        #[n(1)]
        endpoint: String,
        #[n(2)]
        place: String,
    },
    /// Clusters could not be looked for, so the last known ones stay; or one was found that cannot be offered.
    #[n(56)]
    #[code(SK4103W, ApplicationError, 1)]
    DiscoveryFailed {
        /// Role and region that were asked, or the name of the cluster.
        #[n(0)]
        place: String,
        /// AWS's, or `NameTaken`, `NameTwice`.
        #[n(1)]
        code: String,
        #[n(2)]
        message: String,
    },
    /// What had failed there works again.
    #[n(57)]
    #[code(SK4104I, ApplicationLifecycle, 99)]
    DiscoveryWorks {
        #[n(0)]
        place: String,
    },
    /// A verb over SSH was answered, without a jail. A status of 64: the command was no verb.
    #[n(60)]
    #[code(SK2007I, ApiActivity, 2)]
    VerbAnswered {
        #[n(0)]
        user: String,
        #[n(1)]
        from: String,
        /// The verb, or the command that was none.
        #[n(2)]
        verb: String,
        #[n(3)]
        cluster: Option<String>,
        #[n(4)]
        status: u32,
    },
    /// A user was given a token that opens the public kube door to a laptop.
    #[n(61)]
    #[code(SK4201I, AuthorizeSession, 3)]
    LaptopGranted {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        user: String,
        #[n(2)]
        from: String,
        /// Fingerprint of the key that asked for it.
        #[n(3)]
        key: String,
        /// Seconds since the epoch.
        #[n(4)]
        expires: i64,
    },
    /// A laptop's grant ended, and its streams with it.
    #[n(62)]
    #[code(SK4202I, AuthorizeSession, 99)]
    LaptopEnded {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        user: String,
        #[n(2)]
        reason: String,
    },
    /// Somebody who is in, or holds a laptop's grant, is in other groups than before: what those gave is gone or come.
    #[n(65)]
    #[code(SK2008I, AuthorizeSession, 99)]
    GroupsChanged {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        user: String,
        #[n(2)]
        joined: Vec<String>,
        #[n(3)]
        left: Vec<String>,
    },
    /// A lock came into force, or stands when the bastion's authority starts.
    #[n(63)]
    #[code(SK6101I, AuthorizeSession, 99)]
    LockAdded {
        /// `user-NAME` or `session-ID`.
        #[n(0)]
        target: String,
        #[n(1)]
        reason: String,
        /// By their own word: whoever can is root.
        #[n(2)]
        by: String,
        /// Seconds since the epoch.
        #[n(3)]
        until: Option<i64>,
    },
    /// A lock was released, or its time is over.
    #[n(64)]
    #[code(SK6102I, AuthorizeSession, 99)]
    LockReleased {
        #[n(0)]
        target: String,
        #[n(1)]
        reason: String,
        #[n(2)]
        by: String,
    },
    /// A user was seen in a group that grants something, and had not been in it.
    #[n(70)]
    #[code(SK9001I, GroupManagement, 3)]
    MemberJoined {
        #[n(0)]
        user: String,
        #[n(1)]
        group: String,
    },
    /// A user was no longer seen in a group that grants something.
    #[n(71)]
    #[code(SK9002I, GroupManagement, 4)]
    MemberLeft {
        #[n(0)]
        user: String,
        #[n(1)]
        group: String,
    },
    /// An IAM group was made: whoever is put into it has a level on a cluster, or in a namespace.
    #[n(72)]
    #[code(SK9003I, GroupManagement, 6)]
    GroupMade {
        #[n(0)]
        group: String,
        #[n(1)]
        cause: String,
    },
    /// An IAM group was removed.
    #[n(73)]
    #[code(SK9004I, GroupManagement, 5)]
    GroupRemoved {
        #[n(0)]
        group: String,
        #[n(1)]
        cause: String,
    },
    /// A ClusterRole or Role was written: what a level allows on a cluster, or in a namespace.
    #[n(74)]
    #[code(SK9005I, GroupManagement, 1)]
    LevelWritten {
        #[n(0)]
        group: String,
        #[n(1)]
        target: String,
        #[n(2)]
        cause: String,
    },
    /// A ClusterRole or Role was removed.
    #[n(75)]
    #[code(SK9006I, GroupManagement, 2)]
    LevelRemoved {
        #[n(0)]
        group: String,
        #[n(1)]
        target: String,
        #[n(2)]
        cause: String,
    },
    /// A user was given something: a role in IAM, an access entry, a place in a binding.
    #[n(76)]
    #[code(SK9007I, UserAccessManagement, 1)]
    AccessGiven {
        #[n(0)]
        user: String,
        /// The object that says so.
        #[n(1)]
        target: String,
        /// `None`: in IAM.
        #[n(2)]
        cluster: Option<String>,
        /// What it grants, where it is a binding.
        #[n(3)]
        group: Option<String>,
        #[n(4)]
        cause: String,
    },
    /// The same was taken from a user.
    #[n(77)]
    #[code(SK9008I, UserAccessManagement, 2)]
    AccessTaken {
        #[n(0)]
        user: String,
        #[n(1)]
        target: String,
        #[n(2)]
        cluster: Option<String>,
        #[n(3)]
        group: Option<String>,
        #[n(4)]
        cause: String,
    },
    /// Something of ours had been changed by hand, and was put back.
    #[n(78)]
    #[code(SK9009W, UserAccessManagement, 99)]
    DriftMended {
        /// Whose it is, where it is one user's.
        #[n(0)]
        user: Option<String>,
        #[n(1)]
        target: String,
        #[n(2)]
        cause: String,
    },
    /// A change of access failed; it is tried again in the next cycle.
    #[n(79)]
    #[code(SK9010W, ApplicationError, 1)]
    AccessChangeFailed {
        #[n(0)]
        target: String,
        #[n(1)]
        cause: String,
        /// AWS's or Kubernetes' word for it.
        #[n(2)]
        code: String,
        #[n(3)]
        message: String,
    },
    /// Something stands in the way of what IAM's groups say, and is for people to mend.
    #[n(80)]
    #[code(SK9011W, ApplicationError, 1)]
    AccessProblem {
        #[n(0)]
        what: String,
    },
    /// It no longer does.
    #[n(81)]
    #[code(SK9012I, ApplicationLifecycle, 99)]
    AccessProblemOver {
        #[n(0)]
        what: String,
    },
    /// IAM or a cluster could not be read: nothing is changed there.
    #[n(82)]
    #[code(SK9013W, ApplicationError, 1)]
    AccessUnread {
        /// `IAM`, or the name of the cluster.
        #[n(0)]
        place: String,
        #[n(1)]
        reason: String,
    },
    /// It can be read again.
    #[n(83)]
    #[code(SK9014I, ApplicationLifecycle, 99)]
    AccessRead {
        #[n(0)]
        place: String,
    },
    /// Nothing was changed, for too much would have been removed at once.
    #[n(84)]
    #[code(SK9015E, ApplicationError, 1)]
    MassRemovalStopped {
        #[n(0)]
        reason: String,
    },
    /// `stockade access apply`, `watch` or the Lambda began.
    #[n(85)]
    #[code(SK9016I, ApplicationLifecycle, 3)]
    AccessStarted {
        #[n(0)]
        version: String,
        /// Removing more than is usual was allowed on its command line.
        #[n(1)]
        mass_removal: bool,
    },
    /// It ended.
    #[n(86)]
    #[code(SK9017I, ApplicationLifecycle, 4)]
    AccessStopped {
        #[n(0)]
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
