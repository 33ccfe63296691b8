mod handler;
mod progress;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use russh::keys::PublicKey;
use russh::server::{Auth, ChannelOpenHandle, Session};
use russh::{ChannelId, ChannelOpenFailure};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

pub use self::progress::Progress;
use super::Gate;
use super::channel::line;
use super::input::{Input, Pace};
use super::lobby::Ticket;
use super::request;
use super::warden::{Question, Term, Unanswered};
use super::wire::Cord;
use crate::audit::Event;
use crate::privsep::message::{Claim, Connection, GateToWarden, Program, Terminal, Wish};
use crate::session::SessionId;

/// Refused requests over one connection's life: each is a line in the audit.
const MOST_REFUSALS: u32 = 1000;

/// Why the gate ends a connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("{0}")]
    Ssh(#[from] russh::Error),
    #[error("the warden did not answer in time")]
    Unanswered,
    #[error("what the client did could not be written to the audit")]
    Unwitnessed,
    #[error("the client went on asking for what is refused")]
    Unruly,
}

impl ConnectionError {
    /// Whether no client of SSH sends what was sent. One that hangs up, or has no algorithm of ours, is a client.
    pub fn is_no_ssh(&self) -> bool {
        use russh::Error as E;
        let Self::Ssh(error) = self else { return false };
        !matches!(
            error,
            E::IO(_)
                | E::Disconnect
                | E::HUP
                | E::NoCommonAlgo { .. }
                | E::UnknownAlgo
                | E::ConnectionTimeout
                | E::KeepaliveTimeout
                | E::InactivityTimeout
                | E::Elapsed(_)
                | E::SendError
                | E::RecvError
                | E::Join(_)
        )
    }
}

/// One client, as russh calls it. Nothing here may wait for a channel's stream or write into russh's own queue: russh
/// reads that queue in the loop that waits for this.
pub struct Client {
    gate: Arc<Gate>,
    number: Connection,
    from: String,
    cord: Cord,
    /// Until the login.
    waiting: Option<(Ticket, oneshot::Sender<()>)>,
    progress: Arc<Progress>,
    term: Term,
    user: String,
    session: Arc<OnceLock<SessionId>>,
    channels: HashMap<ChannelId, Open>,
    /// Keys that did not do.
    rejected: usize,
    opened: u32,
    refused: u32,
    /// What was refused with no place for a sentence: the next program's standard error is the first there is.
    owed: Option<&'static str>,
    pace: Pace,
}

/// A session channel that has not ended.
struct Open {
    input: Arc<Input>,
    terminal: Option<Terminal>,
    environment: Vec<(String, String)>,
    /// Until the client has named its program.
    asked: Option<oneshot::Sender<bool>>,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    pub fn new(
        gate: Arc<Gate>,
        number: Connection,
        from: SocketAddr,
        cord: Cord,
        waiting: (Ticket, oneshot::Sender<()>),
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            gate,
            number,
            from: from.to_string(),
            cord,
            waiting: Some(waiting),
            progress,
            term: 0,
            user: String::new(),
            session: Arc::default(),
            channels: HashMap::new(),
            rejected: 0,
            opened: 0,
            refused: 0,
            owed: None,
            pace: Pace::default(),
        }
    }

    async fn ask(&mut self, question: Question, user: &str, key: &PublicKey) -> Result<bool, ConnectionError> {
        self.progress.tries();
        // russh counts the `none` that most clients begin with among the tries, so it is let count one more than there
        // may be; a client that begins with a key gets no further for it.
        if self.rejected >= self.gate.settings.max_auth_tries {
            return Ok(false);
        }
        let Ok(wire) = key.to_bytes() else { return Ok(false) };
        // Before anything is proved a client may send 256 KiB of key: more than a message to the warden holds.
        if wire.len() > request::LONGEST_KEY {
            return Ok(false);
        }
        let (from, client) = (self.from.clone(), self.cord.version());
        let claim = Claim { user: request::user(user), key: wire, from, client };
        match self.gate.warden.ask(question, self.number, claim).await {
            Ok((yes, term)) => {
                self.progress.answered(yes && question == Question::Offered);
                // What was offered to a warden that is gone was not offered to this one.
                let same = question == Question::Offered || self.term == term;
                self.term = term;
                Ok(yes && same)
            }
            Err(unanswered) => {
                self.progress.excuse();
                match unanswered {
                    Unanswered::Away => Ok(false),
                    Unanswered::Late => Err(ConnectionError::Unanswered),
                }
            }
        }
    }

    fn reject(&mut self) -> Auth {
        self.rejected += 1;
        Auth::reject()
    }

    fn refuse(&mut self, what: &str) -> Result<(), ConnectionError> {
        self.refused += 1;
        if self.refused > MOST_REFUSALS {
            return Err(ConnectionError::Unruly);
        }
        let (user, from) = (self.user.clone(), self.from.clone());
        let event =
            Event::RequestRefused { session: self.session.get().copied(), user, from, what: request::quote(what) };
        if self.gate.witness.tell(event) { Ok(()) } else { Err(ConnectionError::Unwitnessed) }
    }

    async fn refuse_channel(&mut self, reply: ChannelOpenHandle, what: &str) -> Result<(), ConnectionError> {
        let reason = "forwarding is not offered here; use the tools inside the session".into();
        reply
            .reject(ChannelOpenFailure::Other { code: ChannelOpenFailure::AdministrativelyProhibited.code(), reason })
            .await;
        self.refuse(what)
    }

    /// Ends a channel that never ran with one sentence.
    async fn fail(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
        sentence: &str,
        code: u32,
    ) -> Result<(), ConnectionError> {
        let Some(open) = self.channels.remove(&channel) else { return Ok(session.channel_failure(channel)?) };
        session.channel_success(channel)?;
        let text = line(open.terminal.is_some(), sentence);
        if open.terminal.is_some() {
            session.data(channel, text)?
        } else {
            session.extended_data(channel, 1, text)?
        }
        session.exit_status_request(channel, code)?;
        session.eof(channel)?;
        session.close(channel)?;
        self.gate.warden.closed(self.term, self.number, channel.into()).await;
        Ok(())
    }

    /// Refuses what a session can do without; clients say nothing of it themselves.
    fn decline(&mut self, channel: ChannelId, session: &mut Session, what: &str) -> Result<(), ConnectionError> {
        self.refuse(what)?;
        if self.channels.contains_key(&channel) {
            session.extended_data(channel, 1, line(true, &format!("{what} is not offered here")))?;
        }
        Ok(())
    }

    async fn start(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
        program: Program,
    ) -> Result<(), ConnectionError> {
        let Some(open) = self.channels.get_mut(&channel) else { return Ok(session.channel_failure(channel)?) };
        // One program a channel: RFC 4254 section 6.5.
        let Some(asked) = open.asked.take() else { return Ok(session.channel_failure(channel)?) };
        let (terminal, environment) = (open.terminal.clone(), std::mem::take(&mut open.environment));
        // The reply says that the wish was understood, and goes at once: russh forgets that a reply is wanted when
        // another request comes first. What becomes of the wish is told by words and an exit status.
        session.channel_success(channel)?;
        if let Some(sentence) = self.owed.take() {
            session.extended_data(channel, 1, line(terminal.is_some(), sentence))?;
        }
        let _ = asked.send(terminal.is_some());
        let (connection, channel) = (self.number, channel.into());
        let wish = Wish { program, terminal, environment };
        let run = GateToWarden::Run { connection, channel, wish };
        // A warden that is away has dropped the verdict's sender, which the channel's task tells the client.
        let _ = self.gate.warden.tell(self.term, run).await;
        Ok(())
    }
}
