//! What the gate claims, and what the warden decides about it.

use minicbor::{Decode, Encode};

use super::{Channel, Connection, Number, Wish};
use crate::identity::Secret;
use crate::session::SessionId;

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
        wish: Wish,
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
    /// To `Run`: a verb of ours, answered without a jail. Long answers come in parts; the last one has the exit status.
    #[n(5)]
    Answer {
        #[n(0)]
        connection: Connection,
        #[n(1)]
        channel: Channel,
        /// It may hold a token.
        #[n(2)]
        output: Secret,
        #[n(3)]
        errors: String,
        #[n(4)]
        code: Option<u32>,
    },
    /// A program of ours in a jail, with no client: its stream is closed as it comes.
    #[n(6)]
    Unattended {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: Number,
    },
}
