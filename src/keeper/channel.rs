//! One channel: bytes from the gate to the program and back, each recorded on its way.

use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio::time::{Instant, timeout};

use super::bulk::Meter;
use super::desk::Desk;
use super::ends::{CHUNK, Got, Source, write_all};
use super::redact::{Echo, InputPolicy, Redaction};
use super::session::Session;
use super::signal::{self, Exit};
use super::tape::{Ended, Ticket};
use crate::privsep::Role;
use crate::privsep::link::LinkError;
use crate::privsep::message::{KeeperToWarden, Number, Size};
use crate::privsep::stream::{FromGate, FromKeeper, KeeperEnd, LONGEST_DATA};
use crate::recording::{Direction, Event};
use crate::sys::watched::Watched;

/// Output that was read and is not forwarded, in bytes; at this the program waits.
const UNSHOWN: usize = 1 << 20;

/// What the shortest piece of output counts for: it costs its place in a queue too.
const PIECE: usize = 2 << 10;

/// Packets of at most 32 KiB that the program has not read: 256 KiB, then the gate waits.
const UNREAD: usize = 8;

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
}

enum Feed {
    Data(Bytes),
    End,
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
    /// Runs until the program has ended and everything is forwarded, or until the recording ends.
    pub(super) async fn run(self, ends: Ends) {
        let tape = &self.session.tape;
        let done = tokio::select! {
            ended = tape.ended() => Err(ended),
            done = self.pump(ends) => done,
        };
        if let Err(Ended(sentence)) = done
            && !sentence.is_empty()
        {
            let _ = timeout(NOTICE, self.stream.send(&FromKeeper::Notice(sentence.to_string()))).await;
        }
    }

    async fn pump(&self, ends: Ends) -> Result<(), Ended> {
        match ends {
            Ends::Terminal(master) => self.pump_terminal(&master).await,
            Ends::Pipes { input, output, error } => self.pump_pipes(input, &output, &error).await,
        }
    }

    async fn pump_terminal(&self, master: &Watched) -> Result<(), Ended> {
        let room = Semaphore::new(UNSHOWN);
        let (queue, unshown) = mpsc::channel(UNSHOWN / PIECE);
        let shown = Shown { room: &room, queue };
        let (feed, feeds) = mpsc::channel(UNREAD);
        let settings = &self.desk.settings;
        let redaction = Mutex::new(Redaction::new(settings.input, settings.prompts.clone()));
        let output = async {
            self.read_terminal(master, &shown, &redaction).await?;
            self.exit(shown).await
        };
        tokio::select! {
            done = async { tokio::try_join!(output, self.forward(unshown)) } => done.map(drop),
            Err(ended) = self.receive(feed, Some(master)) => Err(ended),
            Err(ended) = self.feed_terminal(master, feeds, &redaction) => Err(ended),
        }
    }

    async fn pump_pipes(&self, input: Watched, output: &Watched, error: &Watched) -> Result<(), Ended> {
        let room = Semaphore::new(UNSHOWN);
        let (queue, unshown) = mpsc::channel(UNSHOWN / PIECE);
        let shown = Shown { room: &room, queue };
        let (feed, feeds) = mpsc::channel(UNREAD);
        let meter = Mutex::new(self.meter(Direction::Input));
        let outputs = async {
            tokio::try_join!(
                self.read_pipe(output, Direction::Output, &shown),
                self.read_pipe(error, Direction::ErrorOutput, &shown)
            )?;
            let rest = lock(&meter).rest();
            self.record_all(rest).await?;
            self.exit(shown).await
        };
        tokio::select! {
            done = async { tokio::try_join!(outputs, self.forward(unshown)) } => done.map(drop),
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

    async fn record_all(&self, events: impl IntoIterator<Item = Event>) -> Result<(), Ended> {
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

    async fn exit(&self, shown: Shown<'_>) -> Result<(), Ended> {
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

    // ---- to the program ----------------------------------------------------------------------------------------

    /// Takes what the gate sends. Resizes and signals do not wait behind input that nobody reads.
    async fn receive(&self, feed: mpsc::Sender<Feed>, master: Option<&Watched>) -> Result<Infallible, Ended> {
        let mut over = false;
        let fault = loop {
            let packet = match self.stream.recv().await {
                Ok(FromGate::Input(_) | FromGate::InputEnd) if over => break LinkError::Breach("input after its end"),
                Ok(packet) => packet,
                Err(fault) => break fault,
            };
            match packet {
                // A copy: the packet's own buffer is as long as the longest packet.
                FromGate::Input(data) => drop(feed.send(Feed::Data(Bytes::copy_from_slice(&data))).await),
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

    async fn feed_terminal(
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

    async fn feed_pipe(
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
