//! A session's events between the channels that make them and the commit that makes them durable.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::clock;
use crate::recording::{Durability, Event};

/// What may be gathered while a commit is in flight; a channel that wants more waits.
const ROOM: usize = 1 << 20;

/// What an event costs beside its bytes.
const EVENT: usize = 128;

/// How long input waits for an echo to share an fdatasync with.
const ECHO: Duration = Duration::from_millis(50);

/// The longest that the grade `relaxed` stays behind.
const RELAXED: Duration = Duration::from_secs(1);

/// An event's place in the order of its session.
pub(super) type Ticket = u64;

/// The recording takes nothing more; the sentence is for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended(pub(super) Arc<str>);

/// How a recording is to end.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// Its session is over.
    Closed(String),
    /// It cannot go on; the sentence is for the user.
    Forced(String),
}

/// What one frame will hold.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) events: Vec<(Duration, Event)>,
    /// The newest event's.
    pub(super) ticket: Ticket,
    /// No event follows.
    pub(super) end: Option<End>,
}

#[derive(Debug)]
pub(super) struct Tape {
    gathered: Mutex<Gathered>,
    mark: watch::Sender<Mark>,
    wake: Notify,
    grade: Durability,
}

#[derive(Debug, Default)]
struct Gathered {
    events: Vec<(Duration, Event)>,
    cost: usize,
    ticket: Ticket,
    /// Somebody waits for these events.
    urgent: bool,
    since: Option<Instant>,
    end: Option<End>,
    ended: Option<Ended>,
}

/// How far the recording is.
#[derive(Clone, Debug, Default)]
struct Mark {
    durable: Ticket,
    ended: Option<Ended>,
    /// Nothing more becomes durable.
    over: bool,
}

impl Mark {
    /// An end in order is followed by one more commit; a forced one shows nothing more.
    fn is_final(&self) -> bool {
        self.over || self.ended.as_ref().is_some_and(|ended| !ended.0.is_empty())
    }
}

impl Tape {
    pub(super) fn new(grade: Durability) -> Self {
        Self { gathered: Mutex::default(), mark: watch::Sender::default(), wake: Notify::new(), grade }
    }

    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends an event as soon as there is room.
    pub(super) async fn push(&self, event: Event) -> Result<Ticket, Ended> {
        let mut mark = self.mark.subscribe();
        let mut event = Some(event);
        loop {
            mark.mark_unchanged();
            if let Some(ticket) = self.try_push(&mut event)? {
                return Ok(ticket);
            }
            // The sender lives as long as `self`.
            let _ = mark.changed().await;
        }
    }

    /// Appends an event whatever is gathered: for the few that nobody can flood.
    pub(super) fn push_now(&self, event: Event) -> Result<Ticket, Ended> {
        self.append(&mut self.lock(), event)
    }

    fn try_push(&self, event: &mut Option<Event>) -> Result<Option<Ticket>, Ended> {
        let mut gathered = self.lock();
        if gathered.cost >= ROOM && gathered.ended.is_none() {
            return Ok(None);
        }
        event.take().map(|event| self.append(&mut gathered, event)).transpose()
    }

    fn append(&self, gathered: &mut Gathered, event: Event) -> Result<Ticket, Ended> {
        if let Some(ended) = &gathered.ended {
            return Err(ended.clone());
        }
        gathered.ticket += 1;
        gathered.cost += cost(&event);
        let urgent = self.grade == Durability::Local && awaited(&event) || gathered.cost >= ROOM / 2;
        let wake = urgent && !gathered.urgent || gathered.since.is_none();
        gathered.urgent |= urgent;
        gathered.since.get_or_insert_with(Instant::now);
        gathered.events.push((clock::boot(), event));
        if self.grade == Durability::Relaxed {
            self.mark.send_modify(|mark| mark.durable = gathered.ticket);
        }
        if wake {
            self.wake.notify_one();
        }
        Ok(gathered.ticket)
    }

    /// Waits until an event may be shown.
    pub(super) async fn durable(&self, ticket: Ticket) -> Result<(), Ended> {
        let mut mark = self.mark.subscribe();
        let mark = mark.wait_for(|mark| mark.durable >= ticket || mark.is_final()).await;
        match mark {
            Ok(mark) if mark.durable >= ticket => Ok(()),
            Ok(mark) => Err(mark.ended.clone().unwrap_or_else(|| Ended("".into()))),
            Err(_) => Err(Ended("".into())),
        }
    }

    /// Waits until the recording takes nothing more.
    pub(super) async fn ended(&self) -> Ended {
        let mut mark = self.mark.subscribe();
        let mark = mark.wait_for(|mark| mark.ended.is_some()).await;
        mark.ok().and_then(|mark| mark.ended.clone()).unwrap_or_else(|| Ended("".into()))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended.is_some()
    }

    /// From here on nothing is taken. The first end counts.
    pub(super) fn end(&self, end: End) {
        let mut gathered = self.lock();
        if gathered.ended.is_some() {
            return;
        }
        let sentence: Arc<str> = match &end {
            End::Closed(_) => "".into(),
            End::Forced(sentence) => sentence.as_str().into(),
        };
        let ended = Ended(sentence);
        gathered.ended = Some(ended.clone());
        gathered.end = Some(end);
        drop(gathered);
        self.mark.send_modify(|mark| mark.ended = Some(ended));
        self.wake.notify_one();
    }

    /// Waits until a commit is worth its fdatasync.
    pub(super) async fn ready(&self) {
        loop {
            let due = {
                let gathered = self.lock();
                if gathered.urgent || gathered.end.is_some() {
                    return;
                }
                let wait = if self.grade == Durability::Local { ECHO } else { RELAXED };
                gathered.since.map(|since| since + wait)
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => return,
            }
        }
    }

    /// Everything gathered so far.
    pub(super) fn take(&self) -> Batch {
        let mut gathered = self.lock();
        gathered.urgent = false;
        gathered.since = None;
        gathered.cost = 0;
        let ticket = gathered.ticket;
        Batch { events: std::mem::take(&mut gathered.events), ticket, end: gathered.end.take() }
    }

    /// Nothing more will be written.
    pub(super) fn over(&self) {
        self.mark.send_modify(|mark| mark.over = true);
    }

    /// Everything up to `ticket` is on stable storage.
    pub(super) fn committed(&self, ticket: Ticket) {
        self.mark.send_modify(|mark| mark.durable = mark.durable.max(ticket));
    }
}

/// An upper bound of what an event takes in a frame.
pub(super) fn cost(event: &Event) -> usize {
    EVENT
        + match event {
            Event::Output { data, .. } | Event::ErrorOutput { data, .. } | Event::Input { data, .. } => data.len(),
            Event::Channel { program, environment, .. } => {
                let names: usize = environment.iter().map(|(name, value)| name.len() + value.len() + 16).sum();
                program.as_ref().map_or(0, String::len) + names + 1024
            }
            Event::Exec { exec, .. } => {
                exec.path.len() + exec.arguments.iter().map(|argument| argument.len() + 16).sum::<usize>()
            }
            Event::KubeStream { stream, .. } => {
                let command: usize = stream.command.iter().map(|word| word.len() + 16).sum();
                command + stream.title().len() + 1024
            }
            Event::Note { text } => text.len(),
            _ => 0,
        }
}

/// Whether somebody waits to be shown it.
fn awaited(event: &Event) -> bool {
    use Event::{ErrorOutput, ExitSignal, ExitStatus, Output};
    matches!(event, Output { .. } | ErrorOutput { .. } | ExitStatus { .. } | ExitSignal { .. })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    fn output(bytes: usize) -> Event {
        Event::Output { number: 1, data: Bytes::from(vec![b'x'; bytes]) }
    }

    #[tokio::test]
    async fn input_waits_for_its_echo_and_both_are_one_batch() {
        let tape = Tape::new(Durability::Local);
        tape.push(Event::Input { number: 1, data: Bytes::from_static(b"l") }).await.unwrap();
        assert!(timeout(SOON, tape.ready()).await.is_err());
        tape.push(output(1)).await.unwrap();
        timeout(SOON, tape.ready()).await.unwrap();
        assert_eq!(tape.take().events.len(), 2);
    }

    #[tokio::test]
    async fn input_without_an_echo_is_committed_all_the_same() {
        let tape = Tape::new(Durability::Local);
        tape.push(Event::InputEnd { number: 1 }).await.unwrap();
        timeout(ECHO * 4, tape.ready()).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_gathered_is_bounded() {
        let tape = Tape::new(Durability::Local);
        let mut pushed = 0;
        while timeout(SOON, tape.push(output(64 << 10))).await.is_ok() {
            pushed += 1;
        }
        assert_eq!(pushed, ROOM / (64 << 10));
        let ticket = tape.take().ticket;
        assert!(timeout(SOON, tape.durable(ticket)).await.is_err());
        tape.committed(ticket);
        tape.durable(ticket).await.unwrap();
        timeout(SOON, tape.push(output(1))).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_ended_tape_takes_nothing_and_frees_who_waits() {
        let tape = Tape::new(Durability::Local);
        let ticket = tape.push(output(1)).await.unwrap();
        tape.end(End::Forced("sorry".into()));
        assert_eq!(tape.durable(ticket).await, Err(Ended("sorry".into())));
        assert_eq!(tape.push(output(1)).await, Err(Ended("sorry".into())));
        assert!(matches!(tape.take(), Batch { events, end: Some(End::Forced(_)), .. } if events.len() == 1));
    }
}
