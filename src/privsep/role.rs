use std::fmt;

use minicbor::{Decode, Encode};

/// A process of the bastion. The jailer starts all the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    #[n(0)]
    Keeper,
    #[n(1)]
    Tally,
    #[n(2)]
    Porter,
    #[n(3)]
    Warden,
    #[n(4)]
    Gate,
    /// Only where laptops have a door.
    #[n(5)]
    Portal,
}

impl Role {
    /// In the order they are started: whoever must record or answer is there before whoever asks.
    pub const ALL: [Self; 6] = [Self::Keeper, Self::Tally, Self::Porter, Self::Warden, Self::Gate, Self::Portal];

    /// The two ends of each link between roles. Control sockets (jailer to each role) are not listed: they are fd 3.
    pub const LINKS: [(Self, Self); 8] = [
        (Self::Gate, Self::Warden),
        (Self::Warden, Self::Keeper),
        (Self::Warden, Self::Porter),
        (Self::Gate, Self::Keeper),
        (Self::Porter, Self::Keeper),
        (Self::Tally, Self::Keeper),
        (Self::Portal, Self::Porter),
        (Self::Portal, Self::Keeper),
    ];

    /// What `ps` shows: the role, and the one thing it holds.
    pub fn title(self) -> &'static str {
        match self {
            Self::Keeper => "stockade: keeper [recordings]",
            Self::Tally => "stockade: tally [execs]",
            Self::Porter => "stockade: porter [doors]",
            Self::Warden => "stockade: warden [policy]",
            Self::Gate => "stockade: gate [net]",
            Self::Portal => "stockade: portal [tls]",
        }
    }

    /// The role a process was started as, from its `argv[0]`.
    pub fn of_title(title: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.title() == title)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keeper => "keeper",
            Self::Tally => "tally",
            Self::Porter => "porter",
            Self::Warden => "warden",
            Self::Gate => "gate",
            Self::Portal => "portal",
        })
    }
}
