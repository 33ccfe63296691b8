//! The law of the doors as a table, then real sockets in `live`.

mod law;
mod live;

use crate::identity::{Credentials, Principal, Secret};
use crate::privsep::message::{Grant, Refusal};
use crate::session::SessionId;

pub const TOKEN: &str = "the-jail's-token";
pub const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG";

pub fn alice() -> Principal {
    "alice".parse().unwrap()
}

pub fn session() -> SessionId {
    SessionId::from_bytes(*b"\x01\x98\0\0\0\0\x7f\xff\x80\0\0\0\0\0\0\x2a")
}

/// Credentials that were issued at `now` and last so many minutes.
pub fn grant(now: i64, minutes: i64) -> Grant {
    Grant {
        credentials: Credentials {
            access_key_id: "ASIAEXAMPLE".into(),
            secret_access_key: Secret::new(SECRET_KEY.into()),
            session_token: Secret::new("FwoG-session-token".into()),
            issued: now,
            expires: now + minutes * 60,
        },
        role: "alice".into(),
        role_arn: "arn:aws:iam::123456789012:role/bastion/alice".into(),
        account: "123456789012".into(),
        region: "eu-central-1".into(),
    }
}

pub fn refusal(code: &str, transient: bool) -> Refusal {
    Refusal { code: code.into(), message: format!("STS says {code}"), transient }
}
