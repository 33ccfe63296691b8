//! What the jailer tells each role, and what the warden asks of it.

use minicbor::{Decode, Encode};

use super::{Number, Wish};
use crate::audit::Event;
use crate::identity::{Principal, Secret};
use crate::privsep::Role;
use crate::session::SessionId;

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
        token: Secret,
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
    /// A channel's exec notifications; they end by themselves with its last process. Descriptors: the listener, and the
    /// memory in which an attempt that was taken is found by the next tally.
    #[n(0)]
    Watch {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: Number,
    },
}

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
        wish: Wish,
        /// The session's clusters: the user's kubeconfig is brought in step with them first, inside the jail.
        #[n(3)]
        clusters: Option<Vec<String>>,
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
    /// A role broke the protocol towards the warden, or the keeper says so: end it.
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
