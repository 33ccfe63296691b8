//! Exec and attach on clusters: the keeper stands between a client and the porter, behind which the cluster is.
//!
//! As with a terminal, what goes to the client is on stable storage before it is shown, and what goes to the cluster is
//! appended before it is passed on. Bytes are forwarded as they came; the recording comes from reading a copy. What
//! cannot be read ends the stream.

mod book;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod headers;
mod spdy;
mod stream;
#[cfg(test)]
pub(super) mod tests;
mod websocket;
pub(super) mod wire;
mod words;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;

use self::stream::{Ends, Stream};
use super::desk::Desk;
use super::session::{MOST_STREAMS, NoStream};
use crate::privsep::Role;
use crate::privsep::link::{Link, LinkError};
use crate::privsep::message::{FIRST_STREAM, Number, PorterToKeeper, Silence, StreamProtocol};
use crate::recording::KubeStream;
use crate::session::SessionId;
use crate::sys::watched::Watched;

impl Desk {
    pub(super) async fn hear_porter(self: Arc<Self>, link: Link<Silence, PorterToKeeper>) {
        loop {
            let (message, fds) = match link.recv().await {
                Ok(received) => received,
                Err(LinkError::Breach(what)) => return self.breach(Role::Porter, what).await,
                Err(_) => return,
            };
            match message {
                PorterToKeeper::Event(event) => self.sink.record(event).await,
                PorterToKeeper::Stream { number: ..FIRST_STREAM, .. } => {
                    return self.breach(Role::Porter, "a stream with a channel's number").await;
                }
                PorterToKeeper::Stream { session, number, stream, from_client, protocol } => {
                    self.stream(session, number, (stream, protocol), from_client.into(), fds).await;
                }
            }
        }
    }

    /// Starts a stream. Where that cannot be, its descriptors close here, which ends it for both its sides.
    async fn stream(
        self: &Arc<Self>,
        id: SessionId,
        wanted: Number,
        (about, protocol): (Box<KubeStream>, StreamProtocol),
        from_client: Bytes,
        fds: Vec<OwnedFd>,
    ) {
        let Some(session) = self.session(id) else {
            return tracing::error!(session = %id, "a stream of a session that is not recorded was refused");
        };
        let number = match session.attach_stream(wanted) {
            Ok(number) => number,
            Err(NoStream::Over) => return,
            Err(NoStream::TooMany) => {
                return self.limit(Some(id), format!("{MOST_STREAMS} streams to containers at once")).await;
            }
        };
        let ends = match ends(fds) {
            Ok(ends) => ends,
            Err(error) => {
                session.detach(number);
                return tracing::error!(session = %id, %error, "a stream cannot be watched");
            }
        };
        let stream = Stream::new(number, session, self.clone(), about);
        tokio::spawn(stream.run(protocol, ends, from_client));
    }
}

fn ends(fds: Vec<OwnedFd>) -> std::io::Result<Ends> {
    // `Link` has counted them.
    let [client, cluster] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    Ok(Ends { client: Watched::new(client)?, cluster: Watched::new(cluster)? })
}
