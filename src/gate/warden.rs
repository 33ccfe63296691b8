use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::GateError;
use super::streams::Streams;
use crate::identity::Secret;
use crate::privsep::link::{Link, LinkError};
use crate::privsep::message::{Channel, Claim, Connection, GateToWarden, Number, WardenToGate};
use crate::privsep::{Accusation, Role};
use crate::session::SessionId;

/// How long the warden may think about a key.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long a warden takes to be started again, at the most.
const ABSENCE: Duration = Duration::from_secs(30);

/// Messages that may wait for the warden before those who send them must wait too.
const WAITING: usize = 1024;

type WardenLink = Link<GateToWarden, WardenToGate>;

/// One life of the warden. What an earlier one knew of connections, a later one does not.
pub type Term = u64;

/// The warden, as connections see it: it is asked, and what it says finds its way to whom it concerns.
#[derive(Debug)]
pub struct Warden {
    outgoing: mpsc::Sender<(Term, GateToWarden)>,
    /// Told when there will be no warden for this gate any more.
    end: mpsc::Sender<GateError>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    term: Term,
    present: bool,
    asks: HashMap<Connection, (Question, oneshot::Sender<bool>)>,
    channels: HashMap<(Connection, Channel), oneshot::Sender<Verdict>>,
    /// Answers of which more is to come.
    parts: HashMap<(Connection, Channel), Vec<Secret>>,
    connections: HashMap<Connection, mpsc::Sender<String>>,
}

/// What is asked about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    Offered,
    Proved,
}

/// What became of a channel's wish.
#[derive(Debug)]
pub enum Verdict {
    Running { session: SessionId, number: Number },
    Refused { sentence: String, code: u32 },
    Answered(Answered),
}

/// What a verb of ours has to say.
#[derive(Debug)]
pub struct Answered {
    /// In the parts that it came in.
    pub output: Vec<Secret>,
    pub errors: String,
    pub code: u32,
}

/// The warden did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    #[error("the warden is away")]
    Away,
    #[error("the warden did not answer in time")]
    Late,
}

impl Warden {
    /// The task ends with the sender of links.
    pub fn start(streams: Arc<Streams>, end: mpsc::Sender<GateError>) -> (Arc<Self>, mpsc::Sender<WardenLink>) {
        let (outgoing, waiting) = mpsc::channel(WAITING);
        let (links, fresh) = mpsc::channel(1);
        let warden = Arc::new(Self { outgoing, end, state: Mutex::default() });
        tokio::spawn(warden.clone().carry(waiting, fresh, streams));
        (warden, links)
    }

    /// A connection the warden can end through `ends`, until `gone`.
    pub fn connected(&self, connection: Connection, ends: mpsc::Sender<String>) {
        self.state().connections.insert(connection, ends);
    }

    /// Asks about a key. After `Late` the connection must end: the answer may still come, and would be taken for the
    /// answer to its next question.
    pub async fn ask(
        &self,
        question: Question,
        connection: Connection,
        claim: Claim,
    ) -> Result<(bool, Term), Unanswered> {
        let (sender, answer) = oneshot::channel();
        let term = {
            let mut state = self.state();
            if !state.present {
                return Err(Unanswered::Away);
            }
            state.asks.insert(connection, (question, sender));
            state.term
        };
        let message = match question {
            Question::Offered => GateToWarden::Offered { connection, claim },
            Question::Proved => GateToWarden::Proved { connection, claim },
        };
        let asked = async {
            self.outgoing.send((term, message)).await.map_err(|_| Unanswered::Away)?;
            answer.await.map_err(|_| Unanswered::Away)
        };
        match timeout(DEADLINE, asked).await {
            Ok(answer) => answer.map(|yes| (yes, term)),
            Err(_) => Err(Unanswered::Late),
        }
    }

    /// Asks for a channel. The verdict's sender is dropped when the warden goes away.
    pub async fn open(
        &self,
        term: Term,
        connection: Connection,
        channel: Channel,
    ) -> Result<oneshot::Receiver<Verdict>, Unanswered> {
        let (sender, verdict) = oneshot::channel();
        {
            let mut state = self.state();
            if !state.serves(term) {
                return Err(Unanswered::Away);
            }
            state.channels.insert((connection, channel), sender);
        }
        self.tell(term, GateToWarden::Open { connection, channel }).await?;
        Ok(verdict)
    }

    /// Tells the warden of `term`; to another it would make no sense.
    pub async fn tell(&self, term: Term, message: GateToWarden) -> Result<(), Unanswered> {
        if !self.state().serves(term) {
            return Err(Unanswered::Away);
        }
        self.outgoing.send((term, message)).await.map_err(|_| Unanswered::Away)
    }

    pub async fn closed(&self, term: Term, connection: Connection, channel: Channel) {
        {
            let mut state = self.state();
            state.channels.remove(&(connection, channel));
            state.parts.remove(&(connection, channel));
        }
        let _ = self.tell(term, GateToWarden::Closed { connection, channel }).await;
    }

    /// `term`: of the warden that was last told of this connection, if one was.
    pub async fn gone(&self, asked: bool, connection: Connection) {
        {
            let mut state = self.state();
            state.connections.remove(&connection);
            state.asks.remove(&connection);
            state.channels.retain(|(of, _), _| *of != connection);
            state.parts.retain(|(of, _), _| *of != connection);
        }
        if asked {
            // Whoever is the warden now: it may have found this connection's session standing.
            let now = self.state().term;
            let _ = self.tell(now, GateToWarden::Gone { connection }).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn carry(
        self: Arc<Self>,
        mut outgoing: mpsc::Receiver<(Term, GateToWarden)>,
        mut links: mpsc::Receiver<WardenLink>,
        streams: Arc<Streams>,
    ) {
        let Some(mut link) = links.recv().await else { return };
        loop {
            let (term, alive) = self.arrives();
            // Reading and writing wait apart: two ends that both wait to write would wait for ever.
            tokio::select! {
                error = self.listen(&link, &streams) => {
                    if let LinkError::Breach(what) = error {
                        let _ = self.end.try_send(Accusation { role: Role::Warden, what }.into());
                    }
                }
                () = forward(&link, term, alive, &mut outgoing) => {}
                fresh = links.recv() => {
                    self.leaves();
                    match fresh {
                        Some(fresh) => { link = fresh; continue }
                        None => return,
                    }
                }
            }
            self.leaves();
            drop(link);
            tracing::warn!("the warden is away; nobody can log in until it is back");
            match timeout(ABSENCE, links.recv()).await {
                Ok(Some(fresh)) => link = fresh,
                Ok(None) => return,
                Err(_) => {
                    // The link broke and the warden lives: only a new gate gets a new link.
                    tracing::error!("there is no warden; this gate ends for another to begin");
                    let _ = self.end.try_send(GateError::NoWarden);
                    return;
                }
            }
        }
    }

    fn arrives(&self) -> (Term, GateToWarden) {
        let mut state = self.state();
        state.term += 1;
        state.present = true;
        (state.term, GateToWarden::Alive(state.connections.keys().copied().collect()))
    }

    /// Who waits for an answer gets none. What runs goes on: its bytes do not pass through the warden.
    fn leaves(&self) {
        let mut state = self.state();
        state.present = false;
        state.asks.clear();
        state.channels.clear();
        state.parts.clear();
    }

    async fn listen(&self, link: &WardenLink, streams: &Streams) -> LinkError {
        loop {
            match link.recv().await {
                Ok((message, _)) => self.route(message, streams),
                Err(error) => return error,
            }
        }
    }

    fn route(&self, message: WardenToGate, streams: &Streams) {
        let mut state = self.state();
        match message {
            WardenToGate::Offer { connection, acceptable } => state.answer(Question::Offered, connection, acceptable),
            WardenToGate::Login { connection, accepted } => state.answer(Question::Proved, connection, accepted),
            WardenToGate::Running { connection, channel, session, number } => {
                let told = match state.channels.remove(&(connection, channel)) {
                    Some(waiting) => waiting.send(Verdict::Running { session, number }).is_ok(),
                    None => false,
                };
                if !told {
                    streams.refuse(session, number);
                }
            }
            WardenToGate::Refused { connection, channel, sentence, code } => {
                if let Some(waiting) = state.channels.remove(&(connection, channel)) {
                    let _ = waiting.send(Verdict::Refused { sentence, code });
                }
            }
            WardenToGate::Answer { connection, channel, output, errors, code } => {
                state.answered((connection, channel), output, errors, code);
            }
            WardenToGate::Unattended { session, number } => streams.refuse(session, number),
            WardenToGate::Drop { connection, sentence } => {
                if let Some(ends) = state.connections.get(&connection) {
                    // Full: it is ending already.
                    let _ = ends.try_send(sentence);
                }
            }
        }
    }
}

impl State {
    fn serves(&self, term: Term) -> bool {
        self.present && self.term == term
    }

    fn answered(&mut self, of: (Connection, Channel), output: Secret, errors: String, code: Option<u32>) {
        // Nobody waits for it any more.
        if !self.channels.contains_key(&of) {
            return;
        }
        self.parts.entry(of).or_default().push(output);
        let Some(code) = code else { return };
        let output = self.parts.remove(&of).unwrap_or_default();
        if let Some(waiting) = self.channels.remove(&of) {
            let _ = waiting.send(Verdict::Answered(Answered { output, errors, code }));
        }
    }

    fn answer(&mut self, question: Question, connection: Connection, yes: bool) {
        match self.asks.remove(&connection) {
            Some((asked, waiting)) if asked == question => _ = waiting.send(yes),
            // An answer to what was not asked is no answer; the sender dropped here rejects.
            Some(_) => tracing::error!(connection, "the warden answered another question than was asked"),
            None => {}
        }
    }
}

async fn forward(
    link: &WardenLink,
    now: Term,
    alive: GateToWarden,
    outgoing: &mut mpsc::Receiver<(Term, GateToWarden)>,
) {
    if link.send(&alive).await.is_err() {
        return;
    }
    while let Some((term, message)) = outgoing.recv().await {
        if term == now && link.send(&message).await.is_err() {
            return;
        }
    }
    std::future::pending().await
}
