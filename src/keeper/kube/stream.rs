//! One stream: bytes from a client to a cluster and back, each recorded on its way.

use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::net::{Shutdown, shutdown};
use tokio::io::Interest;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};

use super::book::Book;
use super::wire::{Decoder, Garbled, Side};
use super::words::Verdict;
use crate::audit;
use crate::keeper::channel::lock;
use crate::keeper::desk::Desk;
use crate::keeper::ends::{CHUNK, SMALL, write_all};
use crate::keeper::session::Session;
use crate::keeper::tape::{Ended, Ticket};
use crate::privsep::message::{Number, StreamProtocol};
use crate::recording::{Event, KubeStream};
use crate::session::channel_name;
use crate::sys::watched::Watched;

/// What was read of a cluster and is not shown, in bytes; at this the cluster waits.
const UNSHOWN: usize = 512 << 10;

/// What the shortest piece counts for: it costs its place in a queue too.
const PIECE: usize = 2 << 10;

/// How long a cluster may go on talking to a client that has said everything.
const AFTER_CLIENT: Duration = Duration::from_secs(5);

/// How long a client may take to read the last of what it was sent.
const AFTER_CLUSTER: Duration = Duration::from_secs(1);

/// The sockets of a stream; it ends with them.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) client: Watched,
    pub(super) cluster: Watched,
}

pub(super) struct Stream {
    number: Number,
    session: Arc<Session>,
    desk: Arc<Desk>,
    about: Box<KubeStream>,
    book: Mutex<Book>,
    sent: AtomicU64,
    received: AtomicU64,
}

/// Why a stream is over.
#[derive(Debug)]
enum Over {
    Cluster,
    Client,
    Session,
    Recording,
    Garbled(Side, Garbled),
}

impl From<Ended> for Over {
    fn from(_: Ended) -> Self {
        Self::Recording
    }
}

/// Bytes on their way to the client, and their share of `UNSHOWN`.
struct Piece<'a> {
    ticket: Ticket,
    data: Bytes,
    _share: Option<SemaphorePermit<'a>>,
}

impl Stream {
    pub(super) fn new(number: Number, session: Arc<Session>, desk: Arc<Desk>, about: Box<KubeStream>) -> Self {
        let book = Mutex::new(Book::new(number, about.terminal, &desk.settings));
        Self { number, session, desk, about, book, sent: AtomicU64::new(0), received: AtomicU64::new(0) }
    }

    /// Runs until both sides have said everything, or one is gone, or the session or its recording is over. `from_client` is
    /// what was read of it already.
    pub(super) async fn run(self, protocol: StreamProtocol, ends: Ends, from_client: Bytes) {
        let begun = Instant::now();
        let over = tokio::select! {
            _ = self.session.tape.ended() => Over::Recording,
            () = self.session.closing() => Over::Session,
            over = self.pass(protocol, &ends, from_client) => over,
        };
        drop(ends);
        self.close(over, begun).await;
    }

    async fn pass(&self, protocol: StreamProtocol, ends: &Ends, from_client: Bytes) -> Over {
        if self.open().await.is_err() {
            return Over::Recording;
        }
        let [client, cluster] = Decoder::pair(protocol);
        let room = Semaphore::new(UNSHOWN);
        let (queue, unshown) = mpsc::channel(UNSHOWN / PIECE);
        let mut up = pin!(self.send(ends, client, from_client));
        let mut down =
            pin!(async { tokio::try_join!(self.receive(ends, cluster, &room, queue), self.show(ends, unshown)) });
        let done = tokio::select! {
            done = &mut down => done.map(|_| Over::Cluster),
            done = &mut up => match done {
                Ok(()) => timeout(AFTER_CLIENT, down).await.unwrap_or(Ok(((), ()))).map(|_| Over::Client),
                Err(over) => Err(over),
            },
        };
        if let Ok(Over::Cluster) = done {
            // A socket closed with something unread takes back what its peer has not read.
            let _ = shutdown(&ends.client, Shutdown::Write);
            let _ = timeout(AFTER_CLUSTER, drain(&ends.client)).await;
        }
        done.unwrap_or_else(|over| over)
    }

    // ---- to the cluster ----------------------------------------------------------------------------------------

    /// Until the client has said everything.
    async fn send(&self, ends: &Ends, mut decoder: Decoder, mut early: Bytes) -> Result<(), Over> {
        loop {
            let data = if early.is_empty() { next(&ends.client).await } else { std::mem::take(&mut early) };
            if data.is_empty() {
                let _ = shutdown(&ends.cluster, Shutdown::Write);
                return Ok(());
            }
            self.record(Side::Client, &mut decoder, &data).await?;
            if write_all(&ends.cluster, &data).await.is_err() {
                // It hears no more; the other way shows when it has said everything.
                pending::<()>().await;
            }
            self.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
    }

    /// Puts on the tape what these bytes say; the ticket of the last of it that is to be waited for. As with a channel,
    /// that is no digest.
    async fn record(&self, side: Side, decoder: &mut Decoder, data: &Bytes) -> Result<Ticket, Over> {
        let mut said = Vec::new();
        let read = decoder.eat(data.clone(), &mut said);
        let (events, read) = {
            let (mut book, mut events) = (lock(&self.book), Vec::new());
            let written = said.into_iter().try_for_each(|said| book.write(said, &mut events));
            (events, written.and(read))
        };
        let mut ticket = 0;
        for event in events {
            let awaited = !matches!(event, Event::Bulk { .. });
            let pushed = self.session.tape.push(event).await?;
            ticket = if awaited { pushed } else { ticket };
        }
        // Whatever was understood is recorded; nothing of it is forwarded.
        read.map_err(|garbled| Over::Garbled(side, garbled))?;
        Ok(ticket)
    }

    // ---- from the cluster --------------------------------------------------------------------------------------

    /// Until the cluster has said everything.
    async fn receive<'a>(
        &self,
        ends: &Ends,
        mut decoder: Decoder,
        room: &'a Semaphore,
        queue: mpsc::Sender<Piece<'a>>,
    ) -> Result<(), Over> {
        loop {
            // What is read must not wait anywhere but in the queue.
            let share = room.acquire_many(CHUNK as u32).await.ok();
            let data = next(&ends.cluster).await;
            if data.is_empty() {
                return Ok(());
            }
            let ticket = self.record(Side::Cluster, &mut decoder, &data).await?;
            let share = share.and_then(|mut share| share.split(data.len().max(PIECE)));
            // The receiver is `show`, joined with this.
            let _ = queue.send(Piece { ticket, data, _share: share }).await;
        }
    }

    /// Shows what is durable, in order.
    async fn show(&self, ends: &Ends, mut unshown: mpsc::Receiver<Piece<'_>>) -> Result<(), Over> {
        while let Some(piece) = unshown.recv().await {
            self.session.tape.durable(piece.ticket).await?;
            write_all(&ends.client, &piece.data).await.map_err(|_| Over::Client)?;
            self.received.fetch_add(piece.data.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    // ---- beginning and end -------------------------------------------------------------------------------------

    async fn open(&self) -> Result<(), Ended> {
        let (number, user, stream) = (self.number, self.session.user.clone(), self.about.clone());
        self.session.tape.push(Event::KubeStream { number, stream }).await?;
        let KubeStream { audit_id, cluster, namespace, pod, container, subresource, command, terminal } =
            (*self.about).clone();
        let opened = audit::Event::KubeStreamOpened {
            session: self.session.id,
            user,
            number,
            audit_id,
            cluster,
            namespace,
            pod,
            container,
            subresource,
            command,
            terminal,
        };
        self.desk.sink.record(opened).await;
        Ok(())
    }

    async fn close(&self, over: Over, begun: Instant) {
        let (mut events, reason) = (Vec::new(), over.to_string());
        let verdict = {
            let mut book = lock(&self.book);
            book.end(&mut events);
            book.verdict.clone()
        };
        let cut = matches!(over, Over::Garbled(..) | Over::Recording);
        if cut {
            events.push(Event::Note { text: format!("{} was cut: {reason}", channel_name(self.number)) });
        }
        for event in events {
            // An ended recording takes no more.
            if self.session.tape.push(event).await.is_err() {
                break;
            }
        }
        self.session.detach(self.number);
        let KubeStream { audit_id, cluster, .. } = &*self.about;
        let closed = audit::Event::KubeStreamClosed {
            session: self.session.id,
            user: self.session.user.clone(),
            number: self.number,
            audit_id: audit_id.clone(),
            cluster: cluster.clone(),
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            milliseconds: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            exit: match verdict {
                Some(Verdict::Exit(status)) => Some(status),
                _ => None,
            },
            reason,
            cut,
        };
        self.desk.sink.record(closed).await;
    }
}

impl std::fmt::Display for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cluster => f.write_str("the cluster ended it"),
            Self::Client => f.write_str("the client left"),
            Self::Session => f.write_str("the session ended"),
            Self::Recording => f.write_str("the recording ended"),
            Self::Garbled(Side::Client, what) => write!(f, "the client sent what cannot be recorded: {what}"),
            Self::Garbled(Side::Cluster, what) => write!(f, "the cluster sent what cannot be recorded: {what}"),
        }
    }
}

/// What comes next; nothing at the end, and from who is gone.
async fn next(fd: &Watched) -> Bytes {
    let mut buffer = Vec::with_capacity(CHUNK);
    let read = fd.io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, spare_capacity(&mut buffer))?)).await;
    match read {
        // A key press does not hold on to 64 KiB.
        Ok(length) if length < SMALL => Bytes::copy_from_slice(&buffer),
        Ok(_) => buffer.into(),
        Err(_) => Bytes::new(),
    }
}

async fn drain(fd: &Watched) {
    let mut buffer = vec![0; SMALL];
    let mut read = |fd: std::os::fd::BorrowedFd<'_>| -> io::Result<usize> { Ok(rustix::io::read(fd, &mut buffer)?) };
    while fd.io(Interest::READABLE, &mut read).await.is_ok_and(|length| length > 0) {}
}
