use std::fmt;

use minicbor::{Decode, Encode};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Text that must not be printed: no `Display`, a `Debug` that shows nothing, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop, Encode, Decode)]
#[cbor(transparent)]
pub struct Secret(#[n(0)] String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself: for the one place that sends it where it belongs.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// In constant time.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// One issue of short-lived AWS credentials, made for one session.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Credentials {
    #[n(0)]
    pub access_key_id: String,
    #[n(1)]
    pub secret_access_key: Secret,
    #[n(2)]
    pub session_token: Secret,
    /// Seconds since the epoch.
    #[n(3)]
    pub issued: i64,
    /// Seconds since the epoch.
    #[n(4)]
    pub expires: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "<secret>");
    }
}
