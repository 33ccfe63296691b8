//! What russh tells of a client, and what it is answered.

use std::sync::Arc;

use russh::keys::Algorithm;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty, Sig};
use tokio::sync::oneshot;

use super::{Client, ConnectionError, Open};
use crate::gate::channel::Errand;
use crate::gate::input::{Input, MOST_TOGETHER};
use crate::gate::request;
use crate::gate::warden::Question;
use crate::privsep::message::Program;

/// Channels over one connection's life: russh keeps a little of each until the connection ends.
const MOST_CHANNELS: u32 = 10_000;

/// A refusal of a global request has no words in SSH.
const NO_LISTENING: &str = "remote forwarding (-R) is not offered here: nothing listens for you";

/// Signature algorithms that no longer prove anything.
fn broken(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Rsa { hash: None } | Algorithm::Dsa)
}

impl Handler for Client {
    type Error = ConnectionError;

    async fn authentication_banner(&mut self) -> Result<Option<String>, Self::Error> {
        Ok(self.gate.settings.banner.clone())
    }

    async fn auth_password(&mut self, _user: &str, _password: &str) -> Result<Auth, Self::Error> {
        self.progress.tries();
        Ok(self.reject())
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        if broken(offer.algorithm) {
            self.progress.tries();
            return Ok(self.reject());
        }
        let acceptable = self.ask(Question::Offered, user, offer.public_key).await?;
        Ok(if acceptable { Auth::Accept } else { self.reject() })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        if broken(key.algorithm) || !self.ask(Question::Proved, user, key.public_key).await? {
            return Ok(self.reject());
        }
        self.user = request::user(user);
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), Self::Error> {
        self.progress.enters();
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
            end: self.gate.end.clone(),
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
        let together = self.channels.values().fold(data.len(), |all, open| all.saturating_add(open.input.held()));
        let Some(open) = self.channels.get(&channel) else { return Ok(()) };
        if together > MOST_TOGETHER || open.input.push(data).is_err() {
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
        self.owed = Some(NO_LISTENING);
        self.refuse(&format!("listening on {host}:{port}")).map(|()| false)
    }

    async fn streamlocal_forward(&mut self, path: &str, _session: &mut Session) -> Result<bool, Self::Error> {
        self.owed = Some(NO_LISTENING);
        self.refuse(&format!("listening on the socket {path}")).map(|()| false)
    }
}
