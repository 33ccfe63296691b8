//! The messages, one enum per direction, named `SenderToReceiver`. Descriptors ride beside a message in the order its
//! comment gives; `Message::descriptors` is checked on receipt.

mod gate;
mod jailer;
mod keeper;
mod kube;
mod portal;
mod porter;

use minicbor::{Decode, Encode};

use super::Role;

pub use self::gate::{Claim, GateToWarden, WardenToGate};
pub use self::jailer::{JailerToGate, JailerToKeeper, JailerToPorter, JailerToTally, JailerToWarden, WardenToJailer};
pub use self::keeper::{KeeperToTally, KeeperToWarden, PorterToKeeper, TallyToKeeper, ToKeeper, WardenToKeeper};
pub use self::kube::{Cluster, Credential, MayBe, Pass, StreamProtocol, Way};
pub use self::portal::{PortalToPorter, PorterToPortal};
pub use self::porter::{Grant, Refusal, WardenToPorter};
pub use crate::session::FIRST_STREAM;

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

/// On a role's control socket (fd 3). `T` is what only this role is told.
#[derive(Debug, Encode, Decode)]
pub enum FromJailer<T> {
    /// First, once. Descriptor 0: the configuration (sealed memfd); then what this role holds, see `table`.
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

/// Nothing is said in this direction; a byte here ends its sender.
#[derive(Debug, Encode, Decode)]
pub enum Silence {}

impl Message for Silence {
    fn descriptors(&self) -> Option<usize> {
        match *self {}
    }
}

/// What runs in a channel.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Program {
    #[n(0)]
    Shell,
    #[n(1)]
    Exec(#[n(0)] String),
}

/// What a client wants of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Wish {
    #[n(0)]
    pub program: Program,
    #[n(1)]
    pub terminal: Option<Terminal>,
    #[n(2)]
    pub environment: Vec<(String, String)>,
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
    JailerToTally: Self::Watch { .. } => 2;
    WardenToJailer: _ => 0;
    JailerToWarden: _ => 0;
    GateToWarden: _ => 0;
    WardenToGate: _ => 0;
    WardenToKeeper: _ => 0;
    KeeperToWarden: _ => 0;
    WardenToPorter: _ => 0;
    PortalToPorter: Self::Connection { .. } => 1;
    PorterToPortal: _ => 0;
    PorterToKeeper: Self::Event(_) => 0, Self::Stream { .. } => 2;
    ToKeeper: _ => 0;
    TallyToKeeper: _ => 0;
    KeeperToTally: _ => 0;
}
