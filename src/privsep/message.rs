//! The messages, one enum per direction, named `SenderTo Receiver`. Descriptors ride beside a message in the order its
//! comment gives; `Message::descriptors` is checked on receipt.

use minicbor::{Decode, Encode};

use super::Role;
use crate::audit::Event;
use crate::identity::{Credentials, Principal};
use crate::session::SessionId;

/// What can travel on a link.
pub trait Message: Encode<()> + for<'b> Decode<'b, ()> + std::fmt::Debug + Send + 'static {
    /// How many descriptors ride beside it; `None` where the number varies (the first message of a role).
    fn descriptors(&self) -> Option<usize>;
}

/// A channel of a session: c1, c2, …
pub type Number = u32;

/// A TCP connection of the gate, numbered by the gate; it means nothing elsewhere.
pub type Connection = u64;

/// A channel of an SSH connection, numbered by the gate.
pub type Channel = u32;

// ---- jailer to every role --------------------------------------------------------------------------------------

/// On a role's control socket (fd 3). `T` is what only this role is told.
#[derive(Debug, Encode, Decode)]
pub enum FromJailer<T> {
    /// First, once. Descriptor 0: the configuration (sealed memfd); then what this role holds, see `table::HELD`.
    #[n(0)]
    Begin,
    /// The other end of this link is (again) there. One descriptor.
    #[n(1)]
    Peer(#[n(0)] Role),
    /// A new configuration was accepted. Descriptors as with `Begin`.
    #[n(2)]
    Reload,
    #[n(3)]
    Told(#[n(0)] T),
}

impl<T: Message> Message for FromJailer<T> {
    fn descriptors(&self) -> Option<usize> {
        match self {
            Self::Begin | Self::Reload => None,
            Self::Peer(_) => Some(1),
            Self::Told(told) => told.descriptors(),
        }
    }
}

/// To the gate.
#[derive(Debug, Encode, Decode)]
pub enum JailerToGate {
    /// The stream of a channel. One descriptor: see `stream`.
    #[n(0)]
    Stream {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: Number,
    },
}

/// To the keeper.
#[derive(Debug, Encode, Decode)]
pub enum JailerToKeeper {
    /// A channel with a terminal. Descriptors: PTY master, stream.
    #[n(0)]
    Terminal {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: Number,
    },
    /// A channel without one. Descriptors: stdin (write end), stdout, stderr (read ends), stream.
    #[n(1)]
    Pipes {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: Number,
    },
    /// The channel's process has ended with this wait status.
    #[n(2)]
    Ended {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: Number,
        #[n(2)]
        status: i32,
    },
    /// The jailer's own audit events.
    #[n(3)]
    Event(#[n(0)] Event),
}

/// To the porter.
#[derive(Debug, Encode, Decode)]
pub enum JailerToPorter {
    /// A jail's door listeners, in the order of `table::DOORS`.
    #[n(0)]
    Doors {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        user: Principal,
        /// What the container addresses ask for; the jail holds it in a file.
        #[n(2)]
        token: crate::identity::Secret,
    },
    /// The jail is gone: close its doors and forget its credentials.
    #[n(1)]
    Gone {
        #[n(0)]
        session: SessionId,
    },
}

/// To tally.
#[derive(Debug, Encode, Decode)]
pub enum JailerToTally {
    /// A channel's exec notifications. One descriptor.
    #[n(0)]
    Watch {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: Number,
    },
    #[n(1)]
    Gone {
        #[n(0)]
        session: SessionId,
    },
}

// ---- jailer and warden -----------------------------------------------------------------------------------------

/// What the warden asks of the jailer: the only bytes that the jailer reads.
#[derive(Debug, Encode, Decode)]
pub enum WardenToJailer {
    /// Make a jail.
    #[n(0)]
    Build {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        user: Principal,
        /// The user's home is theirs from one session to the next; otherwise it goes with the jail.
        #[n(2)]
        persistent_home: bool,
        #[n(3)]
        region: Option<String>,
        /// The warden's own note, given back to the next warden in `Running`. The jailer does not look inside.
        #[n(4)]
        #[cbor(with = "minicbor::bytes")]
        note: Vec<u8>,
    },
    /// Start a program in a jail.
    #[n(1)]
    Start {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: Number,
        #[n(2)]
        program: Program,
        #[n(3)]
        terminal: Option<Terminal>,
        #[n(4)]
        environment: Vec<(String, String)>,
    },
    /// Send a signal to a channel's process group.
    #[n(2)]
    Signal {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: Number,
        #[n(2)]
        signal: i32,
    },
    /// End a jail and all in it.
    #[n(3)]
    End {
        #[n(0)]
        session: SessionId,
    },
    /// A role broke the protocol towards the warden: end it.
    #[n(4)]
    Dismiss(#[n(0)] Role),
}

/// What the jailer tells the warden.
#[derive(Debug, Encode, Decode)]
pub enum JailerToWarden {
    /// The jail stands and its doors are with the porter.
    #[n(0)]
    Built {
        #[n(0)]
        session: SessionId,
    },
    /// The jail could not be made; nothing of it is left.
    #[n(1)]
    Failed {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        reason: String,
    },
    /// The program runs; the keeper and the gate have its stream.
    #[n(2)]
    Started {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: Number,
    },
    /// The program could not be started.
    #[n(3)]
    NotStarted {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: Number,
        #[n(2)]
        reason: String,
    },
    /// A channel's process has ended.
    #[n(4)]
    Exited {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: Number,
        #[n(2)]
        status: i32,
    },
    /// The jail is gone, whoever asked for it.
    #[n(5)]
    Gone {
        #[n(0)]
        session: SessionId,
    },
    /// After a restart of the warden: a jail that stands. The new warden decides again before it answers anything.
    #[n(6)]
    Running {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        user: Principal,
        #[n(2)]
        #[cbor(with = "minicbor::bytes")]
        note: Vec<u8>,
        #[n(3)]
        numbers: Vec<Number>,
    },
}

/// What runs in a channel.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Program {
    #[n(0)]
    Shell,
    #[n(1)]
    Exec(#[n(0)] String),
}

/// A terminal as the client asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Terminal {
    #[n(0)]
    pub term: String,
    #[n(1)]
    pub size: Size,
    /// RFC 4254 section 8: opcode and value.
    #[n(2)]
    pub modes: Vec<(u8, u32)>,
}

/// Columns, rows and pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Size {
    #[n(0)]
    pub columns: u16,
    #[n(1)]
    pub rows: u16,
    #[n(2)]
    pub width: u16,
    #[n(3)]
    pub height: u16,
}

// ---- gate and warden -------------------------------------------------------------------------------------------

/// What the gate claims and asks. Nothing in it is believed but that the gate says so.
#[derive(Debug, Encode, Decode)]
pub enum GateToWarden {
    /// A client offers a key and has proved nothing yet.
    #[n(0)]
    Offered {
        #[n(0)]
        connection: Connection,
        #[n(1)]
        claim: Claim,
    },
    /// The client has signed with the key.
    #[n(1)]
    Proved {
        #[n(0)]
        connection: Connection,
        #[n(1)]
        claim: Claim,
    },
    /// An accepted connection wants a session channel: the time to build its jail, ahead of what will run in it.
    #[n(2)]
    Open {
        #[n(0)]
        connection: Connection,
        #[n(1)]
        channel: Channel,
    },
    /// What shall run in the channel.
    #[n(3)]
    Run {
        #[n(0)]
        connection: Connection,
        #[n(1)]
        channel: Channel,
        #[n(2)]
        program: Program,
        #[n(3)]
        terminal: Option<Terminal>,
        #[n(4)]
        environment: Vec<(String, String)>,
    },
    /// The client closed the channel.
    #[n(4)]
    Closed {
        #[n(0)]
        connection: Connection,
        #[n(1)]
        channel: Channel,
    },
    /// The connection is gone.
    #[n(5)]
    Gone {
        #[n(0)]
        connection: Connection,
    },
    /// First on every new link: the connections there are. A warden that was started again ends the jails of others.
    #[n(6)]
    Alive(#[n(0)] Vec<Connection>),
}

/// Who a client says it is.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Claim {
    /// As the client sent it, cut to 320 bytes; not yet a `Principal`.
    #[n(0)]
    pub user: String,
    /// The public key in SSH wire form.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub key: Vec<u8>,
    /// The client's address and port, as text of `SocketAddr`.
    #[n(2)]
    pub from: String,
    /// The client's version string.
    #[n(3)]
    pub client: String,
}

/// The warden's decisions.
#[derive(Debug, Encode, Decode)]
pub enum WardenToGate {
    /// To `Offered`: whether a signature by this key is worth asking for.
    #[n(0)]
    Offer {
        #[n(0)]
        connection: Connection,
        #[n(1)]
        acceptable: bool,
    },
    /// To `Proved`.
    #[n(1)]
    Login {
        #[n(0)]
        connection: Connection,
        #[n(1)]
        accepted: bool,
    },
    /// To `Run`: it runs; its stream comes from the jailer under this name.
    #[n(2)]
    Running {
        #[n(0)]
        connection: Connection,
        #[n(1)]
        channel: Channel,
        #[n(2)]
        session: SessionId,
        #[n(3)]
        number: Number,
    },
    /// To `Open` or `Run`: one sentence for the user; the channel ends with `code`.
    #[n(3)]
    Refused {
        #[n(0)]
        connection: Connection,
        #[n(1)]
        channel: Channel,
        #[n(2)]
        sentence: String,
        #[n(3)]
        code: u32,
    },
    /// The connection must end, now (a lock, a removed right).
    #[n(4)]
    Drop {
        #[n(0)]
        connection: Connection,
        #[n(1)]
        sentence: String,
    },
}

// ---- warden and keeper -----------------------------------------------------------------------------------------

/// What the warden has recorded.
#[derive(Debug, Encode, Decode)]
pub enum WardenToKeeper {
    /// Begin a recording. Answered by `Opened` once its header is on stable storage.
    #[n(0)]
    Open {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        header: Box<crate::recording::Header>,
    },
    /// What is about to run in a channel; sent before the jailer is asked to start it.
    #[n(1)]
    Channel {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: Number,
        #[n(2)]
        program: Program,
        #[n(3)]
        terminal: Option<Terminal>,
        #[n(4)]
        environment: Vec<(String, String)>,
    },
    /// The session is over: write the closing frame with this reason.
    #[n(2)]
    Close {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        reason: String,
    },
    #[n(3)]
    Event(#[n(0)] Event),
}

/// What the keeper tells the warden.
#[derive(Debug, Encode, Decode)]
pub enum KeeperToWarden {
    #[n(0)]
    Opened {
        #[n(0)]
        session: SessionId,
    },
    /// No recording, no session: the sentence is for the user.
    #[n(1)]
    Refused {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        sentence: String,
    },
    /// The recording cannot go on (disk full, failed write): the session must end.
    #[n(2)]
    MustEnd {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        reason: String,
    },
    /// The user sent a signal; it is recorded.
    #[n(3)]
    Signal {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: Number,
        #[n(2)]
        signal: i32,
    },
    /// The channel's end is recorded and forwarded; nothing of it is left in the keeper.
    #[n(4)]
    Drained {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: Number,
    },
    /// A role broke the protocol towards the keeper.
    #[n(5)]
    Breach(#[n(0)] Role),
}

// ---- warden to porter ------------------------------------------------------------------------------------------

/// What the porter may hand out. It asks for nothing: the warden pushes.
#[derive(Debug, Encode, Decode)]
pub enum WardenToPorter {
    /// The newest credentials of a session; they replace the former.
    #[n(0)]
    Issued {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        grant: Box<Grant>,
    },
    /// The newest attempt failed; credentials issued before stay good until they expire.
    #[n(1)]
    Refused {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        refusal: Refusal,
    },
    /// What this session may reach outside; it replaces what was said before.
    #[n(2)]
    Egress {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        rules: Vec<crate::config::EgressRule>,
        #[n(2)]
        limits: crate::config::EgressLimits,
    },
}

/// Credentials and what the metadata documents say beside them.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Grant {
    #[n(0)]
    pub credentials: Credentials,
    /// The role's name: the last part of its ARN.
    #[n(1)]
    pub role: String,
    #[n(2)]
    pub role_arn: String,
    #[n(3)]
    pub account: String,
    #[n(4)]
    pub region: String,
}

/// Why there are no credentials, in AWS's words.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Refusal {
    /// `AccessDenied`, `Throttling`, `NoIdentity`, …
    #[n(0)]
    pub code: String,
    #[n(1)]
    pub message: String,
    /// Too many requests, or STS not reachable: worth asking again.
    #[n(2)]
    pub transient: bool,
}

// ---- events ----------------------------------------------------------------------------------------------------

/// What gate, porter and tally tell the keeper.
#[derive(Debug, Encode, Decode)]
pub enum ToKeeper {
    #[n(0)]
    Event(#[n(0)] Event),
    /// An exec attempt, for the session's recording as well as for the audit.
    #[n(1)]
    Exec {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: Number,
        #[n(2)]
        exec: crate::recording::Exec,
    },
}

/// Nothing is said in this direction; a byte here ends its sender.
#[derive(Debug, Encode, Decode)]
pub enum Silence {}

macro_rules! descriptors {
    ($($message:ident: $($pattern:pat => $count:expr),+ $(,)?;)+) => {$(
        impl Message for $message {
            fn descriptors(&self) -> Option<usize> {
                match self { $($pattern => Some($count)),+ }
            }
        }
    )+};
}

descriptors! {
    JailerToGate: Self::Stream { .. } => 1;
    JailerToKeeper: Self::Terminal { .. } => 2, Self::Pipes { .. } => 4, Self::Ended { .. } | Self::Event(_) => 0;
    JailerToPorter: Self::Doors { .. } => super::table::DOORS.len(), Self::Gone { .. } => 0;
    JailerToTally: Self::Watch { .. } => 1, Self::Gone { .. } => 0;
    WardenToJailer: _ => 0;
    JailerToWarden: _ => 0;
    GateToWarden: _ => 0;
    WardenToGate: _ => 0;
    WardenToKeeper: _ => 0;
    KeeperToWarden: _ => 0;
    WardenToPorter: _ => 0;
    ToKeeper: _ => 0;
}

impl Message for Silence {
    fn descriptors(&self) -> Option<usize> {
        match *self {}
    }
}
