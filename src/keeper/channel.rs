//! One channel: bytes from the gate to the program and back, each recorded on its way.

use std::future::pending;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio::time::{Instant, timeout};

use super::bulk::Meter;
use super::desk::Desk;
use super::ends::{CHUNK, Got, Source};
use super::input::UNREAD;
use super::redact::Redaction;
use super::session::Session;
use super::signal::{self, Exit};
use super::tape::{Ended, Ticket};
use crate::privsep::link::LinkError;
use crate::privsep::message::Number;
use crate::privsep::stream::{FromKeeper, KeeperEnd, LONGEST_DATA};
use crate::recording::{Direction, Event};
use crate::sys::watched::Watched;

/// Output that was read and is not forwarded, in bytes; at this the program waits.
const UNSHOWN: usize = 1 << 20;

/// What the shortest piece of output counts for: it costs its place in a queue too.
const PIECE: usize = 2 << 10;

/// How long a pipe may be silent after its leader's exit before what still holds it open is given up.
const QUIET: Duration = Duration::from_millis(250);

/// How long others may go on talking through a pipe after its leader's exit.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long the gate may take to read why the session ends.
const NOTICE: Duration = Duration::from_secs(1);

/// What the program's side of a channel is.
#[derive(Debug)]
pub(super) enum Ends {
    Terminal(Watched),
    Pipes { input: Watched, output: Watched, error: Watched },
}

pub(super) struct Channel {
    pub(super) number: Number,
    pub(super) session: Arc<Session>,
    pub(super) desk: Arc<Desk>,
    pub(super) stream: KeeperEnd,
    /// The leader's wait status.
    pub(super) exit: watch::Receiver<Option<i32>>,
    /// All of it is on the tape.
    pub(super) told: AtomicBool,
}

/// Output on its way to the gate, and its share of `UNSHOWN`.
struct Piece<'a> {
    ticket: Ticket,
    packet: FromKeeper,
    _share: Option<SemaphorePermit<'a>>,
}

/// The beginning of that way.
struct Shown<'a> {
    room: &'a Semaphore,
    queue: mpsc::Sender<Piece<'a>>,
}

impl<'a> Shown<'a> {
    /// Waits until a read may follow: what is read must not wait anywhere but in the queue.
    async fn room(&self) -> Option<SemaphorePermit<'a>> {
        // Never closed.
        self.room.acquire_many(CHUNK as u32).await.ok()
    }

    async fn put(&self, ticket: Ticket, packet: FromKeeper, room: Option<SemaphorePermit<'a>>, length: usize) {
        let share = room.and_then(|mut room| room.split(length.max(PIECE)));
        // The receiver is `forward`, joined with every sender.
        let _ = self.queue.send(Piece { ticket, packet, _share: share }).await;
    }
}

impl Channel {
    /// Runs until the program has ended and everything is forwarded, or until the recording ends before that.
    pub(super) async fn run(self, ends: Ends) {
        let done = tokio::select! {
            ended = self.cut() => Err(ended),
            done = self.pump(ends) => done,
        };
        if let Err(Ended(sentence)) = done
            && !sentence.is_empty()
        {
            let _ = timeout(NOTICE, self.stream.send(&FromKeeper::Notice(sentence.to_string()))).await;
        }
    }

    /// A recording that is closed in order does not cut a channel that only has something left to forward.
    async fn cut(&self) -> Ended {
        let ended = self.session.tape.ended().await;
        if ended.0.is_empty() && self.told.load(Ordering::SeqCst) {
            return pending().await;
        }
        ended
    }

    async fn pump(&self, ends: Ends) -> Result<(), Ended> {
        let room = Semaphore::new(UNSHOWN);
        let (queue, unshown) = mpsc::channel(UNSHOWN / PIECE);
        let shown = Shown { room: &room, queue };
        let mut forward = pin!(self.forward(unshown));
        // Its end drops the program's side: whoever is left in the jail is hung up.
        let told = async {
            match ends {
                Ends::Terminal(master) => self.pump_terminal(&master, shown).await,
                Ends::Pipes { input, output, error } => self.pump_pipes(input, &output, &error, shown).await,
            }
        };
        tokio::select! {
            told = told => told?,
            Err(ended) = &mut forward => return Err(ended),
        }
        self.told.store(true, Ordering::SeqCst);
        self.session.detach(self.number);
        tokio::select! {
            done = forward => done,
            // What the gate still sends has no program, but a gate that cannot send may not read either.
            () = self.discard() => Ok(()),
        }
    }

    async fn discard(&self) {
        while self.stream.recv().await.is_ok() {}
        // The end of the stream shows itself to `forward` too.
        pending().await
    }

    async fn pump_terminal(&self, master: &Watched, shown: Shown<'_>) -> Result<(), Ended> {
        let (feed, feeds) = mpsc::channel(UNREAD);
        let settings = &self.desk.settings;
        let redaction = Mutex::new(Redaction::new(settings.input, settings.prompts.clone()));
        let output = async {
            self.read_terminal(master, &shown, &redaction).await?;
            self.exit(&shown).await
        };
        tokio::select! {
            done = output => done,
            Err(ended) = self.receive(feed, Some(master)) => Err(ended),
            Err(ended) = self.feed_terminal(master, feeds, &redaction) => Err(ended),
        }
    }

    async fn pump_pipes(
        &self,
        input: Watched,
        output: &Watched,
        error: &Watched,
        shown: Shown<'_>,
    ) -> Result<(), Ended> {
        let (feed, feeds) = mpsc::channel(UNREAD);
        let meter = Mutex::new(self.meter(Direction::Input));
        let outputs = async {
            tokio::try_join!(
                self.read_pipe(output, Direction::Output, &shown),
                self.read_pipe(error, Direction::ErrorOutput, &shown)
            )?;
            let rest = lock(&meter).rest();
            self.record_all(rest).await?;
            self.exit(&shown).await
        };
        tokio::select! {
            done = outputs => done,
            Err(ended) = self.receive(feed, None) => Err(ended),
            Err(ended) = self.feed_pipe(input, feeds, &meter) => Err(ended),
        }
    }

    fn meter(&self, direction: Direction) -> Meter {
        Meter::new(self.number, direction, self.desk.settings.bulk_after)
    }

    // ---- from the program --------------------------------------------------------------------------------------

    async fn read_terminal(&self, fd: &Watched, shown: &Shown<'_>, redaction: &Mutex<Redaction>) -> Result<(), Ended> {
        let mut source = Source::terminal(fd);
        let mut last = LastWords::default();
        loop {
            let room = shown.room().await;
            let Some(data) = self.next(&mut source, &mut last).await else { return Ok(()) };
            lock(redaction).shown(&data);
            let number = self.number;
            let ticket = self.session.tape.push(Event::Output { number, data: data.clone() }).await?;
            let length = data.len();
            shown.put(ticket, FromKeeper::Output(data), room, length).await;
        }
    }

    async fn read_pipe(&self, fd: &Watched, direction: Direction, shown: &Shown<'_>) -> Result<(), Ended> {
        let mut source = Source::pipe(fd);
        let mut last = LastWords::default();
        let mut meter = self.meter(direction);
        let number = self.number;
        loop {
            let room = shown.room().await;
            let Some(data) = self.next(&mut source, &mut last).await else { break };
            let mut rest = data.clone();
            let whole = meter.whole(&mut rest);
            let mut ticket = 0;
            if !whole.is_empty() {
                let event = match direction {
                    Direction::ErrorOutput => Event::ErrorOutput { number, data: whole },
                    _ => Event::Output { number, data: whole },
                };
                ticket = self.session.tape.push(event).await?;
            }
            self.record_all(meter.digest(&rest)).await?;
            let length = data.len();
            let packet = match direction {
                Direction::ErrorOutput => FromKeeper::ErrorOutput(data),
                _ => FromKeeper::Output(data),
            };
            shown.put(ticket, packet, room, length).await;
        }
        self.record_all(meter.rest()).await
    }

    pub(super) async fn record_all(&self, events: impl IntoIterator<Item = Event>) -> Result<(), Ended> {
        for event in events {
            self.session.tape.push(event).await?;
        }
        Ok(())
    }

    /// The next output; `None` when there is no more of the leader's.
    async fn next(&self, source: &mut Source<'_>, last: &mut LastWords) -> Option<Bytes> {
        while self.exit.borrow().is_none() {
            let got = tokio::select! {
                biased;
                got = source.next() => got,
                () = self.exited() => break,
            };
            match got {
                Got::Data(data) => return Some(data),
                _ => self.exited().await,
            }
        }
        if last.said(source) {
            return None;
        }
        let got = match source.read_now() {
            Got::Nothing if !source.is_terminal() => timeout(QUIET, source.next()).await.unwrap_or(Got::Nothing),
            got => got,
        };
        let Got::Data(data) = got else { return None };
        last.bytes += data.len() as u64;
        Some(data)
    }

    async fn exited(&self) {
        if self.exit.clone().wait_for(Option::is_some).await.is_err() {
            // The session has let go of the channel without an exit: its tape ends, and that ends this.
            pending().await
        }
    }

    async fn exit(&self, shown: &Shown<'_>) -> Result<(), Ended> {
        self.exited().await;
        let exit = signal::exit(self.exit.borrow().unwrap_or_default());
        let number = self.number;
        let (event, packet) = match exit {
            Exit::Status(status) => (Event::ExitStatus { number, status }, FromKeeper::Exit(status)),
            Exit::Signal(name) => (Event::ExitSignal { number, name: name.clone() }, FromKeeper::ExitSignal(name)),
        };
        let ticket = self.session.tape.push(event).await?;
        shown.put(ticket, packet, None, 0).await;
        Ok(())
    }

    /// Shows what is durable, in order. With nobody there it goes on, so that the program does.
    async fn forward(&self, mut unshown: mpsc::Receiver<Piece<'_>>) -> Result<(), Ended> {
        let mut there = true;
        while let Some(piece) = unshown.recv().await {
            self.session.tape.durable(piece.ticket).await?;
            there = there && self.show(piece.packet).await.is_ok();
        }
        Ok(())
    }

    async fn show(&self, packet: FromKeeper) -> Result<(), LinkError> {
        let (make, mut data): (fn(Bytes) -> FromKeeper, Bytes) = match packet {
            FromKeeper::Output(data) => (FromKeeper::Output, data),
            FromKeeper::ErrorOutput(data) => (FromKeeper::ErrorOutput, data),
            other => return self.stream.send(&other).await,
        };
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(LONGEST_DATA));
            self.stream.send(&make(piece)).await?;
        }
        Ok(())
    }
}

/// What comes after the leader's exit: what the kernel held for it always counts, what others add only for a while.
#[derive(Debug, Default)]
struct LastWords {
    bytes: u64,
    until: Option<Instant>,
}

impl LastWords {
    fn said(&mut self, source: &Source<'_>) -> bool {
        let until = *self
            .until
            .get_or_insert_with(|| Instant::now() + if source.is_terminal() { Duration::ZERO } else { LAST_WORDS });
        self.bytes >= source.holds && Instant::now() >= until
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
