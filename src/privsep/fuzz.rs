//! The laws of what crosses from one process to another.

use std::borrow::Cow;

use bytes::Bytes;

use super::link::{decode, encode};
use super::message::{
    FromJailer, GateToWarden, JailerToGate, JailerToKeeper, JailerToPorter, JailerToTally, JailerToWarden,
    KeeperToWarden, Message, PortalToPorter, PorterToKeeper, PorterToPortal, Silence, ToKeeper, WardenToGate,
    WardenToJailer, WardenToKeeper, WardenToPorter,
};
use super::stream::{FromGate, FromKeeper};

/// Bytes on any link are a breach, or a message that stays what it is when it is sent on.
pub fn messages(bytes: &[u8]) {
    one::<FromJailer<JailerToGate>>(bytes);
    one::<FromJailer<JailerToKeeper>>(bytes);
    one::<FromJailer<JailerToPorter>>(bytes);
    one::<FromJailer<JailerToTally>>(bytes);
    one::<FromJailer<JailerToWarden>>(bytes);
    one::<FromJailer<Silence>>(bytes);
    one::<WardenToJailer>(bytes);
    one::<GateToWarden>(bytes);
    one::<WardenToGate>(bytes);
    one::<WardenToKeeper>(bytes);
    one::<KeeperToWarden>(bytes);
    one::<WardenToPorter>(bytes);
    one::<ToKeeper>(bytes);
    one::<PortalToPorter>(bytes);
    one::<PorterToPortal>(bytes);
    one::<PorterToKeeper>(bytes);
}

fn one<M: Message>(bytes: &[u8]) {
    let Ok(message) = minicbor::decode::<M>(bytes) else {
        assert!(decode::<M>(bytes, 0).is_err());
        return;
    };
    let count = message.descriptors();
    if let Some(count) = count {
        assert!(decode::<M>(bytes, count + 1).is_err(), "a descriptor too many");
    }
    let Ok(message) = decode::<M>(bytes, count.unwrap_or_default()) else { return };
    let sent = encode(&message);
    let again = decode::<M>(&sent, count.unwrap_or_default());
    assert!(again.is_ok(), "what was received cannot be sent: {message:?}");
    assert_eq!(again.as_ref().map(encode).ok(), Some(sent), "{message:?}");
    assert_eq!(again.map(|again| format!("{again:?}")).ok(), Some(format!("{message:?}")));
}

/// A packet of a channel is a breach, or says one thing in one way.
pub fn streams(bytes: &[u8]) {
    let whole = |(kind, payload): (u8, Cow<'_, [u8]>)| [&[kind], &*payload].concat();
    if let Ok(packet) = FromGate::take(Bytes::copy_from_slice(bytes)) {
        assert_eq!(whole(packet.parts()), bytes, "{packet:?}");
    }
    if let Ok(packet) = FromKeeper::take(Bytes::copy_from_slice(bytes)) {
        assert_eq!(whole(packet.parts()), bytes, "{packet:?}");
    }
}
