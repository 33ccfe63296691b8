//! The way from the gate to the program.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Mutex;

use bytes::Bytes;
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::sync::mpsc;

use super::bulk::Meter;
use super::channel::{Channel, lock};
use super::ends::write_all;
use super::redact::{Echo, InputPolicy, Redaction};
use super::signal;
use super::tape::Ended;
use crate::privsep::Role;
use crate::privsep::link::LinkError;
use crate::privsep::message::{KeeperToWarden, Number, Size};
use crate::privsep::stream::FromGate;
use crate::recording::Event;
use crate::sys::watched::Watched;

/// Packets of at most 32 KiB that the program has not read: 256 KiB, then the gate waits.
pub(super) const UNREAD: usize = 8;

pub(super) enum Feed {
    Data(Bytes),
    End,
}

impl Channel {
    /// Takes what the gate sends. Resizes and signals do not wait behind input that nobody reads.
    pub(super) async fn receive(
        &self,
        feed: mpsc::Sender<Feed>,
        master: Option<&Watched>,
    ) -> Result<Infallible, Ended> {
        let mut over = false;
        let fault = loop {
            let packet = match self.stream.recv().await {
                Ok(FromGate::Input(_) | FromGate::InputEnd) if over => break LinkError::Breach("input after its end"),
                Ok(packet) => packet,
                Err(fault) => break fault,
            };
            match packet {
                FromGate::Input(data) => drop(feed.send(Feed::Data(data)).await),
                FromGate::InputEnd => {
                    over = true;
                    drop(feed.send(Feed::End).await);
                }
                FromGate::Resize(size) => self.resize(size, master).await?,
                FromGate::Signal(name) => self.signal(name).await?,
            }
        };
        if let LinkError::Breach(what) = fault {
            self.desk.breach(Role::Gate, what).await;
        }
        self.session.tape.push(Event::Detached { number: self.number }).await?;
        pending().await
    }

    async fn resize(&self, size: Size, master: Option<&Watched>) -> Result<(), Ended> {
        let Some(master) = master else { return Ok(()) };
        let Size { columns, rows, width, height } = size;
        self.session.tape.push(Event::Resize { number: self.number, columns, rows, width, height }).await?;
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: width, ws_ypixel: height };
        // A terminal that is gone has no size.
        let _ = tcsetwinsize(master, size);
        Ok(())
    }

    async fn signal(&self, name: String) -> Result<(), Ended> {
        let Some(signal) = signal::number(&name) else { return Ok(()) };
        self.session.tape.push(Event::Signal { number: self.number, name }).await?;
        let session = self.session.id;
        self.desk.warden.tell(KeeperToWarden::Signal { session, number: self.number, signal }).await;
        Ok(())
    }

    pub(super) async fn feed_terminal(
        &self,
        master: &Watched,
        mut feeds: mpsc::Receiver<Feed>,
        redaction: &Mutex<Redaction>,
    ) -> Result<Infallible, Ended> {
        let number = self.number;
        while let Some(feed) = feeds.recv().await {
            let Feed::Data(data) = feed else {
                // The client will send no more; a terminal's program is not told, as with every sshd.
                self.session.tape.push(Event::InputEnd { number }).await?;
                continue;
            };
            let why = lock(redaction).withhold(&data, Echo::of(master));
            self.session.tape.push(input(number, &data, why)).await?;
            // Nobody has the terminal open: the input is recorded, and lost as it would be at any terminal.
            let _ = write_all(master, &data).await;
        }
        pending().await
    }

    pub(super) async fn feed_pipe(
        &self,
        input_end: Watched,
        mut feeds: mpsc::Receiver<Feed>,
        meter: &Mutex<Meter>,
    ) -> Result<Infallible, Ended> {
        let number = self.number;
        let why = (self.desk.settings.input == InputPolicy::None).then_some("policy");
        let mut end = Some(input_end);
        while let Some(feed) = feeds.recv().await {
            let Feed::Data(data) = feed else {
                let rest = lock(meter).rest();
                self.record_all(rest).await?;
                self.session.tape.push(Event::InputEnd { number }).await?;
                end = None;
                continue;
            };
            let mut rest = data.clone();
            let whole = lock(meter).whole(&mut rest);
            if !whole.is_empty() {
                self.session.tape.push(input(number, &whole, why)).await?;
            }
            let digests = lock(meter).digest(&rest);
            self.record_all(digests).await?;
            if let Some(open) = &end
                && write_all(open, &data).await.is_err()
            {
                // The program has closed its input: what still comes has no reader.
                end = None;
            }
        }
        pending().await
    }
}

fn input(number: Number, data: &Bytes, why: Option<&str>) -> Event {
    match why {
        Some(why) => Event::InputRedacted { number, bytes: data.len() as u64, why: why.to_owned() },
        None => Event::Input { number, data: data.clone() },
    }
}
