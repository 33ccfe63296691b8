use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use russh::keys::{Algorithm, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty, Sig};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::Gate;
use super::channel::{Errand, line};
use super::input::{Input, Pace};
use super::lobby::Ticket;
use super::request;
use super::warden::{Question, Term, Unanswered};
use super::wire::Cord;
use crate::audit::Event;
use crate::privsep::message::{Claim, Connection, GateToWarden, Program, Terminal};
use crate::session::SessionId;

/// Channels over one connection's life: russh keeps a little of each until the connection ends.
const MOST_CHANNELS: u32 = 10_000;

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

/// One client, as russh calls it. Nothing here may wait for a channel's stream or write into russh's own queue: russh
/// reads that queue in the loop that waits for this.
pub struct Client {
    gate: Arc<Gate>,
    number: Connection,
    from: String,
    cord: Cord,
    /// Until the login.
    waiting: Option<(Ticket, oneshot::Sender<()>)>,
    /// The term of the warden that knows of this connection; 0 if none does.
    known: Arc<AtomicU64>,
    term: Term,
    user: String,
    session: Arc<OnceLock<SessionId>>,
    channels: HashMap<ChannelId, Open>,
    opened: u32,
    refused: u32,
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
        known: Arc<AtomicU64>,
    ) -> Self {
        Self {
            gate,
            number,
            from: from.to_string(),
            cord,
            waiting: Some(waiting),
            known,
            term: 0,
            user: String::new(),
            session: Arc::default(),
            channels: HashMap::new(),
            opened: 0,
            refused: 0,
            pace: Pace::default(),
        }
    }

    async fn ask(&mut self, question: Question, user: &str, key: &PublicKey) -> Result<bool, ConnectionError> {
        let Ok(wire) = key.to_bytes() else { return Ok(false) };
        // Before anything is proved a client may send 256 KiB of key: more than a message to the warden holds.
        if wire.len() > request::LONGEST_KEY {
            return Ok(false);
        }
        let (from, client) = (self.from.clone(), self.cord.version());
        let claim = Claim { user: request::user(user), key: wire, from, client };
        match self.gate.warden.ask(question, self.number, claim).await {
            Ok((yes, term)) => {
                self.known.store(term, Ordering::Relaxed);
                // What was offered to a warden that is gone was not offered to this one.
                let same = question == Question::Offered || self.term == term;
                self.term = term;
                Ok(yes && same)
            }
            Err(Unanswered::Away) => Ok(false),
            Err(Unanswered::Late) => Err(ConnectionError::Unanswered),
        }
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
        let _ = asked.send(terminal.is_some());
        let (connection, channel) = (self.number, channel.into());
        let run = GateToWarden::Run { connection, channel, program, terminal, environment };
        // A warden that is away has dropped the verdict's sender, which the channel's task tells the client.
        let _ = self.gate.warden.tell(self.term, run).await;
        Ok(())
    }
}

/// Signature algorithms that no longer prove anything.
fn broken(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Rsa { hash: None } | Algorithm::Dsa)
}

impl Handler for Client {
    type Error = ConnectionError;

    async fn authentication_banner(&mut self) -> Result<Option<String>, Self::Error> {
        Ok(self.gate.settings.banner.clone())
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        if broken(offer.algorithm) {
            return Ok(Auth::reject());
        }
        let acceptable = self.ask(Question::Offered, user, offer.public_key).await?;
        Ok(if acceptable { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        if broken(key.algorithm) || !self.ask(Question::Proved, user, key.public_key).await? {
            return Ok(Auth::reject());
        }
        self.user = request::user(user);
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), Self::Error> {
        if let Some((_ticket, login)) = self.waiting.take() {
            let _ = login.send(());
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.retain(|_, open| !open.task.is_finished());
        let short = |reason: &str| ChannelOpenFailure::Other {
            code: ChannelOpenFailure::ResourceShortage.code(),
            reason: reason.to_owned(),
        };
        if self.channels.len() >= self.gate.settings.max_sessions || self.opened >= MOST_CHANNELS {
            reply.reject(short("too many sessions on this connection; open another connection")).await;
            return self.refuse("another session on one connection");
        }
        let id = channel.id();
        let Ok(verdict) = self.gate.warden.open(self.term, self.number, id.into()).await else {
            reply.reject(short("the bastion's authority was restarted; log in again")).await;
            return Ok(());
        };
        self.opened += 1;
        // The reading half is not for us: russh would wait in its loop for room in it.
        let (_, out) = channel.split();
        let input = Arc::<Input>::default();
        let errand = Errand {
            out,
            handle: session.handle(),
            input: input.clone(),
            streams: self.gate.streams.clone(),
            session: self.session.clone(),
        };
        let (asked, program) = oneshot::channel();
        let task = tokio::spawn(errand.run(program, verdict)).abort_handle();
        let open = Open { input, terminal: None, environment: Vec::new(), asked: Some(asked), task };
        self.channels.insert(id, open);
        reply.accept().await;
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let size = request::size(columns, rows, width, height);
        match self.channels.get_mut(&channel) {
            Some(open) if open.asked.is_some() && open.terminal.is_none() => {
                open.terminal = Some(request::terminal(term, size, modes));
                Ok(session.channel_success(channel)?)
            }
            _ => Ok(session.channel_failure(channel)?),
        }
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let allowed = &self.gate.settings.environment;
        let taken = self
            .channels
            .get_mut(&channel)
            .is_some_and(|open| open.asked.is_some() && request::variable(&mut open.environment, allowed, name, value));
        let reply = if taken { session.channel_success(channel) } else { session.channel_failure(channel) };
        Ok(reply?)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.start(channel, session, Program::Shell).await
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match request::command(data) {
            Ok(command) => self.start(channel, session, Program::Exec(command)).await,
            Err(sentence) => self.fail(channel, session, sentence, 1).await,
        }
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse(&format!("the subsystem {name}"))?;
        let sentence = "sftp and other subsystems are not offered here; use `ssh HOST cat FILE` or tar";
        self.fail(channel, session, sentence, 1).await
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let size = request::size(columns, rows, width, height);
        match self.channels.get_mut(&channel) {
            Some(Open { asked: Some(_), terminal: Some(terminal), .. }) => terminal.size = size,
            Some(open) if open.terminal.is_some() => open.input.resize(size),
            _ => {}
        }
        Ok(())
    }

    async fn signal(&mut self, channel: ChannelId, signal: Sig, _session: &mut Session) -> Result<(), Self::Error> {
        if let (Some(open), Some(name)) = (self.channels.get(&channel), request::signal(&signal)) {
            open.input.signal(name.to_owned());
        }
        Ok(())
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        let Some(open) = self.channels.get(&channel) else { return Ok(()) };
        if open.input.push(data).is_err() {
            tracing::warn!(user = self.user, "a channel was closed: its client sent past its window");
            self.channels.remove(&channel);
            session.close(channel)?;
            self.gate.warden.closed(self.term, self.number, channel.into()).await;
        }
        Ok(())
    }

    async fn window_adjusted(
        &mut self,
        _channel: ChannelId,
        _new_size: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.pace.quicken();
        Ok(())
    }

    fn adjust_window(&mut self, channel: ChannelId, current: u32) -> u32 {
        let any = self.channels.values().any(|open| open.input.crowded());
        let channels = &self.channels;
        let taken = any.then(|| channels.values().fold(0_u64, |all, open| all.wrapping_add(open.input.taken())));
        let crowded = |number| channels.iter().any(|(id, open)| u32::from(*id) == number && open.input.crowded());
        self.pace.target(channel.into(), current, taken, crowded, &self.cord)
    }

    async fn channel_eof(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        if let Some(open) = self.channels.get(&channel) {
            open.input.end();
        }
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        if self.channels.remove(&channel).is_some() {
            self.gate.warden.closed(self.term, self.number, channel.into()).await;
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse_channel(reply, &format!("forwarding to {host}:{port}")).await
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse_channel(reply, &format!("forwarding to the socket {path}")).await
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse_channel(reply, &format!("a forwarded connection of {host}:{port}")).await
    }

    async fn channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse_channel(reply, "an X11 channel").await
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)?;
        self.decline(channel, session, "X11 forwarding")
    }

    async fn agent_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<bool, Self::Error> {
        self.decline(channel, session, "agent forwarding").map(|()| false)
    }

    async fn tcpip_forward(&mut self, host: &str, port: &mut u32, _session: &mut Session) -> Result<bool, Self::Error> {
        self.refuse(&format!("listening on {host}:{port}")).map(|()| false)
    }

    async fn streamlocal_forward(&mut self, path: &str, _session: &mut Session) -> Result<bool, Self::Error> {
        self.refuse(&format!("listening on the socket {path}")).map(|()| false)
    }
}
