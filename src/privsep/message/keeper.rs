//! What the keeper hears, from the warden and from those whose only word is an event, and what it tells the warden.

use minicbor::{Decode, Encode};

use super::{Number, StreamProtocol, Wish};
use crate::audit::Event;
use crate::privsep::Role;
use crate::recording::{Exec, Header, KubeStream};
use crate::session::SessionId;

/// What the warden has recorded.
#[derive(Debug, Encode, Decode)]
pub enum WardenToKeeper {
    /// Begin a recording. Answered by `Opened` once its header is on stable storage.
    #[n(0)]
    Open {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        header: Box<Header>,
    },
    /// What is about to run in a channel; sent before the jailer is asked to start it.
    #[n(1)]
    Channel {
        #[n(0)]
        session: SessionId,
        #[n(1)]
        number: Number,
        #[n(2)]
        wish: Wish,
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
    /// A role broke the protocol towards the keeper.
    #[n(4)]
    Breach(#[n(0)] Role),
}

/// What the porter tells the keeper.
#[derive(Debug, Encode, Decode)]
pub enum PorterToKeeper {
    #[n(0)]
    Event(#[n(0)] Event),
    /// A connection that an API server upgraded for exec or attach, from its 101 on: from here on the keeper stands between
    /// client and porter, records and passes on. Descriptors: the socket to the client, the socket to the porter, behind
    /// which the cluster is. Both are plain byte streams; what was read of the client's already comes along. Closing
    /// either ends both.
    #[n(1)]
    Stream {
        #[n(0)]
        session: SessionId,
        /// From `FIRST_STREAM` on, so that it is no channel's number. The keeper takes the next free one where it
        /// is taken: a porter that was started again counts from the beginning.
        #[n(1)]
        number: Number,
        #[n(2)]
        stream: Box<KubeStream>,
        #[n(3)]
        #[cbor(with = "minicbor::bytes")]
        from_client: Vec<u8>,
        #[n(4)]
        protocol: StreamProtocol,
    },
}

/// What the gate tells the keeper.
#[derive(Debug, Encode, Decode)]
pub enum ToKeeper {
    #[n(0)]
    Event(#[n(0)] Event),
}

/// What tally tells the keeper.
#[derive(Debug, Encode, Decode)]
pub enum TallyToKeeper {
    /// An exec attempt, for the session's recording as well as for the audit. It waits in the kernel for `Noted`.
    #[n(0)]
    Exec {
        /// Tally's own number for it.
        #[n(0)]
        ticket: u64,
        #[n(1)]
        session: SessionId,
        #[n(2)]
        number: Number,
        #[n(3)]
        exec: Exec,
    },
}

/// What the keeper tells tally.
#[derive(Debug, Encode, Decode)]
pub enum KeeperToTally {
    /// The attempt is taken down and may go on. Each waits for its own session's recording alone.
    #[n(0)]
    Noted {
        #[n(0)]
        ticket: u64,
    },
}
