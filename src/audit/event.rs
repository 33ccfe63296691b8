use minicbor::{Decode, Encode};

use crate::privsep::Role;
use crate::session::SessionId;

/// What can happen. Text that came from outside is cut and escaped where it is written, not here.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Event {
    /// A client connected.
    #[n(0)]
    Connected {
        #[n(0)]
        from: String,
    },
    /// A connection was not served: too many, too fast, too late, or not SSH.
    #[n(1)]
    ConnectionRefused {
        #[n(0)]
        from: String,
        #[n(1)]
        why: String,
    },
    /// A user was let in.
    #[n(2)]
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
    /// A user was not let in.
    #[n(3)]
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
    /// A limit was reached: disk, jails, memory, a door's connections, exec notifications.
    #[n(13)]
    LimitHit {
        #[n(0)]
        session: Option<SessionId>,
        #[n(1)]
        what: String,
    },
    /// A configuration came into force.
    #[n(14)]
    ConfigurationLoaded {
        /// SHA-256 of the file.
        #[n(0)]
        digest: String,
    },
    /// A configuration was refused; the former stays.
    #[n(15)]
    ConfigurationRefused {
        #[n(0)]
        reason: String,
    },
    /// A process of the bastion ended and was started again.
    #[n(16)]
    RoleRestarted {
        #[n(0)]
        role: Role,
        #[n(1)]
        reason: String,
    },
    /// A process of the bastion broke the protocol of the boundary and was ended.
    #[n(17)]
    RoleBreach {
        #[n(0)]
        role: Role,
        #[n(1)]
        what: String,
    },
    /// A recording that a crash left open was closed.
    #[n(18)]
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
    Started {
        #[n(0)]
        version: String,
    },
    /// The bastion stopped.
    #[n(20)]
    Stopped {
        #[n(0)]
        reason: String,
    },
}
