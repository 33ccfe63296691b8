//! Laptops' connections, from the portal that ended their TLS to the porter that knows tokens.

use minicbor::{Decode, Encode};

/// What the portal hands over.
#[derive(Debug, Encode, Decode)]
pub enum PortalToPorter {
    /// A connection, as plain bytes. One descriptor.
    #[n(0)]
    Connection {
        #[n(0)]
        number: u64,
        /// The client's address and port.
        #[n(1)]
        from: String,
        /// As it was agreed on in TLS.
        #[n(2)]
        http2: bool,
    },
}

/// What the porter tells of it.
#[derive(Debug, Encode, Decode)]
pub enum PorterToPortal {
    /// A request on it carried a live token.
    #[n(0)]
    Proved {
        #[n(0)]
        number: u64,
    },
}
