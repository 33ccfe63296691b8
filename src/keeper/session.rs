//! One session: its tape, its channels, and the task that commits.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::blocking;
use super::desk::Desk;
use super::reel::{Committed, Reel, ReelError};
use super::tape::{Batch, End, Tape};
use super::warden::Reign;
use crate::audit;
use crate::privsep::message::{KeeperToWarden, Number};
use crate::recording::{Durability, Event, Header};
use crate::session::{FIRST_STREAM, SessionId};

/// How long `Close` waits for channels that have something left to tell.
const DRAIN: Duration = Duration::from_secs(10);

/// How long `Close` waits for channels that the warden has announced and the jailer not handed over yet.
const ARRIVAL: Duration = Duration::from_secs(2);

/// Live streams on clusters of one session.
pub(super) const MOST_STREAMS: usize = 64;

pub(super) const FULL: &str = "recording is no longer possible: the bastion's disk is full; this session ends";
const FAILED: &str = "recording is no longer possible: the bastion's disk failed; this session ends";

pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) user: String,
    pub(super) tape: Tape,
    channels: Mutex<Channels>,
    live: watch::Sender<Live>,
    /// Bytes written of late.
    recent: AtomicU64,
    closing: watch::Sender<bool>,
    over: AtomicBool,
}

/// A session's channels, by their numbers.
#[derive(Default)]
struct Channels {
    attached: HashMap<Number, watch::Sender<Option<i32>>>,
    /// The warden's word and the jailer's descriptors come on two ways: a short program may be over, and its session
    /// closed, before its channel arrives.
    awaited: BTreeSet<Number>,
    arrived: BTreeSet<Number>,
    /// The next stream's on a cluster.
    next_stream: Number,
}

/// Why a stream on a cluster is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoStream {
    Over,
    TooMany,
}

/// How many channels are there and how many are still to come.
#[derive(Clone, Copy, Default)]
struct Live {
    attached: usize,
    awaited: usize,
}

impl Session {
    pub(super) fn new(id: SessionId, user: String, grade: Durability) -> Self {
        Self {
            id,
            user,
            tape: Tape::new(grade),
            channels: Mutex::default(),
            live: watch::Sender::default(),
            recent: AtomicU64::new(0),
            closing: watch::Sender::new(false),
            over: AtomicBool::new(false),
        }
    }

    // ---- its channels ------------------------------------------------------------------------------------------

    fn channels(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, channels: &Channels) {
        self.live.send_replace(Live { attached: channels.attached.len(), awaited: channels.awaited.len() });
    }

    /// The warden will have this channel started.
    pub(super) fn announce(&self, number: Number) {
        let mut channels = self.channels();
        if !channels.arrived.contains(&number) {
            channels.awaited.insert(number);
            self.count(&channels);
        }
    }

    /// A channel begins; the receiver will know how its leader ended. `None` when there is one of this number, or the
    /// session is being closed and nobody has announced it.
    pub(super) fn attach(&self, number: Number) -> Option<watch::Receiver<Option<i32>>> {
        let mut channels = self.channels();
        let announced = channels.awaited.remove(&number);
        if *self.closing.borrow() && !announced {
            return None;
        }
        channels.arrived.insert(number);
        let Entry::Vacant(place) = channels.attached.entry(number) else { return None };
        let receiver = place.insert(watch::Sender::new(None)).subscribe();
        self.count(&channels);
        Some(receiver)
    }

    /// A stream on a cluster begins, under this number or, if that is taken, under the next free one.
    pub(super) fn attach_stream(&self, wanted: Number) -> Result<Number, NoStream> {
        let mut channels = self.channels();
        if *self.closing.borrow() || self.tape.has_ended() {
            return Err(NoStream::Over);
        }
        if channels.attached.keys().filter(|number| **number >= FIRST_STREAM).count() >= MOST_STREAMS {
            return Err(NoStream::TooMany);
        }
        let number = wanted.max(channels.next_stream);
        channels.next_stream = number.checked_add(1).ok_or(NoStream::TooMany)?;
        channels.attached.insert(number, watch::Sender::new(None));
        self.count(&channels);
        Ok(number)
    }

    /// Waits until the session is over: a stream has then nothing to wait for.
    pub(super) async fn closing(&self) {
        // The sender lives as long as `self`.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    pub(super) fn exited(&self, number: Number, status: i32) {
        if let Some(channel) = self.channels().attached.get(&number) {
            channel.send_replace(Some(status));
        }
    }

    /// A channel has told everything, or is over.
    pub(super) fn detach(&self, number: Number) {
        let mut channels = self.channels();
        channels.attached.remove(&number);
        self.count(&channels);
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.live.borrow().attached == 0
    }

    // ---- its end -----------------------------------------------------------------------------------------------

    /// Ends the recording once its channels have told everything, or have had their time.
    pub(super) async fn close(&self, desk: &Desk, reason: String) {
        {
            let _channels = self.channels();
            self.closing.send_replace(true);
        }
        if self.over.load(Ordering::SeqCst) {
            return desk.forget(self.id);
        }
        let mut live = self.live.subscribe();
        let _ = timeout(ARRIVAL, live.wait_for(|live| live.awaited == 0)).await;
        self.channels().awaited.clear();
        let _ = timeout(DRAIN, live.wait_for(|live| live.attached == 0)).await;
        self.tape.end(End::Closed(reason));
    }

    /// Ends the recording, and with it the session. The warden hears why before its channels end, whose programs and
    /// clients then leave for a reason of their own.
    pub(super) async fn cut(&self, desk: &Desk, sentence: &'static str) {
        if !self.tape.has_ended() {
            desk.warden.tell(KeeperToWarden::MustEnd { session: self.id, reason: sentence.into() }).await;
        }
        self.tape.end(End::Forced(sentence.into()));
    }

    /// Bytes written of late.
    pub(super) fn recent(&self) -> u64 {
        self.recent.load(Ordering::Relaxed)
    }

    /// Time goes by: an eighth of them is no longer of late.
    pub(super) fn fade(&self) {
        self.recent.fetch_sub(self.recent().div_ceil(8), Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    // ---- its recording -----------------------------------------------------------------------------------------

    /// Keeps the recording, from its header to its closing frame.
    pub(super) async fn record(self: Arc<Self>, desk: Arc<Desk>, header: Box<Header>, asked: Reign) {
        let session = self.id;
        let forced = match self.begin(&desk, header).await {
            Ok(reel) => {
                desk.warden.answer(asked, KeeperToWarden::Opened { session }).await;
                self.keep(&desk, reel).await
            }
            Err(sentence) => {
                self.tape.end(End::Forced(sentence.clone()));
                self.tape.over();
                desk.forget(session);
                desk.limit(Some(session), format!("a session was refused: {sentence}")).await;
                desk.warden.answer(asked, KeeperToWarden::Refused { session, sentence }).await;
                return;
            }
        };
        if let Some(reason) = forced {
            desk.limit(Some(session), reason).await;
        }
        self.tape.over();
        self.over.store(true, Ordering::SeqCst);
        if *self.closing.borrow() {
            desk.forget(session);
        }
    }

    async fn begin(&self, desk: &Arc<Desk>, header: Box<Header>) -> Result<Reel, String> {
        if let Some(sentence) = desk.refusal() {
            return Err(sentence);
        }
        let (id, desk) = (self.id, desk.clone());
        let _slot = desk.slots.acquire().await;
        let begun = blocking({
            let desk = desk.clone();
            move || {
                let file = desk.store.create(id).map_err(ReelError::Create)?;
                Reel::begin(file, id, &header, desk.settings.durability, desk.settings.reserve)
            }
        });
        begun.await.and_then(|begun| begun).map_err(|error| {
            tracing::error!(session = %id, error = &error as &dyn std::error::Error, "no recording, no session");
            format!("this bastion cannot record now ({error}); its operators know more")
        })
    }

    /// Commits until the end; the sentence when the session must end with it.
    async fn keep(&self, desk: &Desk, mut reel: Reel) -> Option<String> {
        loop {
            self.tape.ready().await;
            let slot = desk.slots.acquire().await;
            let batch = self.tape.take();
            if batch.end.is_some() {
                return self.finish(reel, batch).await;
            }
            let Batch { events, ticket, .. } = batch;
            let work = blocking(move || {
                let done = reel.commit(&events);
                (reel, events, done)
            });
            let (back, events, done) = match work.await {
                Ok(done) => done,
                Err(error) => return self.fail(desk, &error).await,
            };
            drop(slot);
            reel = back;
            match done {
                Ok(Committed { bytes, short }) => {
                    self.recent.fetch_add(bytes, Ordering::Relaxed);
                    self.tape.committed(ticket);
                    if short {
                        desk.space.pressed();
                    }
                }
                Err(ReelError::Full) => {
                    self.cut(desk, FULL).await;
                    let mut batch = self.tape.take();
                    batch.events.splice(0..0, events);
                    return self.finish(reel, batch).await;
                }
                Err(error) => return self.fail(desk, &error).await,
            }
        }
    }

    async fn finish(&self, reel: Reel, batch: Batch) -> Option<String> {
        let (reason, forced) = match batch.end {
            Some(End::Closed(reason)) => (reason, None),
            Some(End::Forced(sentence)) => (sentence.clone(), Some(sentence)),
            None => (FULL.to_owned(), Some(FULL.to_owned())),
        };
        let (events, ticket) = (batch.events, batch.ticket);
        match blocking(move || reel.finish(&events, &reason)).await.and_then(|done| done) {
            Ok(()) => self.tape.committed(ticket),
            Err(error) => self.complain(&error),
        }
        forced
    }

    /// The file is left as it is, without a closing frame: the next start recovers it.
    async fn fail(&self, desk: &Desk, error: &ReelError) -> Option<String> {
        self.complain(error);
        self.cut(desk, FAILED).await;
        Some(FAILED.into())
    }

    fn complain(&self, error: &ReelError) {
        tracing::error!(session = %self.id, error = error as &dyn std::error::Error, "a recording was cut short");
    }

    /// An exec attempt; waits for room, so that whoever tried it feels a full tape and not our memory.
    pub(super) async fn note(&self, event: Event) {
        // An ended recording has nothing to add.
        let _ = self.tape.push(event).await;
    }
}

impl Desk {
    pub(super) async fn limit(&self, session: Option<SessionId>, what: String) {
        self.sink.record(audit::Event::LimitHit { session, what }).await;
    }
}
