use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};
use tokio::sync::oneshot::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::GateError;
use super::input::Input;
use super::streams::Streams;
use super::warden::{Answered, Verdict};
use crate::privsep::link::LinkError;
use crate::privsep::stream::{FromKeeper, GateEnd};
use crate::privsep::{Accusation, Role};
use crate::session::{SessionId, exit};

/// How long a jail may take to be built and its program to start.
const START: Duration = Duration::from_secs(60);

/// How long a stream may be behind the word that it runs.
const STREAM: Duration = Duration::from_secs(10);

/// What a session ends with that cannot be recorded.
pub const UNRECORDED: u32 = exit::UNRECORDED as u32;

/// The code of SSH's own failures.
const FAILED: u32 = exit::LOST as u32;

/// One session channel: waits for its program, then carries bytes both ways until the program ends.
pub struct Errand {
    pub out: ChannelWriteHalf<Msg>,
    pub handle: Handle,
    pub input: Arc<Input>,
    pub streams: Arc<Streams>,
    pub end: mpsc::Sender<GateError>,
    /// The session's id, once a channel of the connection knows it.
    pub session: Arc<OnceLock<SessionId>>,
}

/// The client is gone.
#[derive(Debug)]
struct Gone;

impl From<russh::Error> for Gone {
    fn from(_: russh::Error) -> Self {
        Self
    }
}

impl From<()> for Gone {
    fn from((): ()) -> Self {
        Self
    }
}

impl Errand {
    /// `asked` says that the client has named its program, and whether it has a terminal.
    pub async fn run(self, mut asked: oneshot::Receiver<bool>, mut verdict: oneshot::Receiver<Verdict>) {
        let mut early = None;
        let asked = tokio::select! {
            biased;
            asked = &mut asked => asked,
            refused = &mut verdict => {
                // There will be no program: what the client sends for it must not wait for one.
                self.input.shut();
                early = Some(refused);
                asked.await
            }
        };
        // The client closed the channel or is gone: nobody is left to be told.
        let Ok(terminal) = asked else { return };
        let verdict = match early {
            Some(refused) => Ok(refused),
            None => timeout(START, verdict).await,
        };
        let _ = self.attend(terminal, verdict).await;
        self.input.shut();
    }

    async fn attend(&self, terminal: bool, verdict: Result<Result<Verdict, RecvError>, Elapsed>) -> Result<(), Gone> {
        let (sentence, code) = match verdict {
            Ok(Ok(Verdict::Running { session, number })) => {
                let _ = self.session.set(session);
                match timeout(STREAM, self.streams.claim(session, number)).await {
                    Ok(Ok(stream)) => return self.carry(terminal, stream).await,
                    _ => ("the program's stream did not come; try again".into(), FAILED),
                }
            }
            Ok(Ok(Verdict::Refused { sentence, code })) => (sentence, code),
            Ok(Ok(Verdict::Answered(answered))) => return self.print(terminal, answered).await,
            Ok(Err(_)) => ("the bastion's authority was restarted; log in again".into(), FAILED),
            Err(_) => ("the session could not be started in time; try again".into(), FAILED),
        };
        self.say(terminal, &sentence).await?;
        self.exit(code).await
    }

    /// An answer that needed no program.
    async fn print(&self, terminal: bool, answered: Answered) -> Result<(), Gone> {
        for part in answered.output {
            let text = part.expose();
            let bytes =
                if terminal { text.replace('\n', "\r\n").into() } else { Bytes::copy_from_slice(text.as_bytes()) };
            self.out.data_bytes(bytes).await?;
        }
        if !answered.errors.is_empty() {
            self.say(terminal, &answered.errors).await?;
        }
        self.exit(answered.code).await
    }

    async fn carry(&self, terminal: bool, stream: OwnedFd) -> Result<(), Gone> {
        let Ok(stream) = GateEnd::new(stream) else {
            self.say(terminal, "the program's stream could not be used; try again").await?;
            return self.exit(FAILED).await;
        };
        tokio::select! {
            done = self.show(terminal, &stream) => done,
            () = self.feed(&stream) => Ok(()),
        }
    }

    /// Input, as fast as the keeper takes it. Never ends by itself: the program's end is the keeper's to tell.
    async fn feed(&self, stream: &GateEnd) {
        while stream.send(&self.input.next().await).await.is_ok() {}
        self.input.shut();
        std::future::pending().await
    }

    /// Output, as fast as the client takes it: `data_bytes` waits for the client's window. Nothing may be sent past a
    /// window: russh would keep it, and hold back every other channel of the connection until it is gone.
    async fn show(&self, terminal: bool, stream: &GateEnd) -> Result<(), Gone> {
        loop {
            match next(stream).await {
                Ok(FromKeeper::Output(data)) => self.out.data_bytes(data).await?,
                Ok(FromKeeper::ErrorOutput(data)) => self.out.extended_data_bytes(1, data).await?,
                Ok(FromKeeper::Notice(sentence)) => self.say(terminal, &sentence).await?,
                Ok(FromKeeper::Exit(code)) => return self.exit(code).await,
                Ok(FromKeeper::ExitSignal(name)) => {
                    let id = self.out.id();
                    let signal = Sig::Custom(name);
                    self.handle.exit_signal_request(id, signal, false, String::new(), String::new()).await?;
                    return self.close().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "a stream of the keeper ended early");
                    if let LinkError::Breach(what) = error {
                        let _ = self.end.try_send(Accusation { role: Role::Keeper, what }.into());
                    }
                    self.say(terminal, "the recording has ended, and with it this session").await?;
                    return self.exit(UNRECORDED).await;
                }
            }
        }
    }

    /// A sentence of ours: on standard error, or on the terminal on a line of its own.
    async fn say(&self, terminal: bool, sentence: &str) -> Result<(), Gone> {
        let text = line(terminal, sentence);
        let said = if terminal { self.out.data_bytes(text).await } else { self.out.extended_data_bytes(1, text).await };
        Ok(said?)
    }

    async fn exit(&self, code: u32) -> Result<(), Gone> {
        self.handle.exit_status_request(self.out.id(), code).await?;
        self.close().await
    }

    async fn close(&self) -> Result<(), Gone> {
        self.handle.eof(self.out.id()).await?;
        Ok(self.handle.close(self.out.id()).await?)
    }
}

/// The keeper's next packet. A peer that leaves with input unread makes the kernel say ECONNRESET once, before it gives
/// out what the peer sent: the exit status would be lost. Only what comes after that is the end.
async fn next(stream: &GateEnd) -> Result<FromKeeper, LinkError> {
    match stream.recv().await {
        Err(LinkError::Closed) => stream.recv().await,
        received => received,
    }
}

/// A sentence as the client's terminal or standard error shows it.
pub fn line(terminal: bool, sentence: &str) -> Bytes {
    let sentence = sentence.trim_end();
    if terminal { format!("\r\n{}\r\n", sentence.replace('\n', "\r\n")) } else { format!("{sentence}\n") }.into()
}
