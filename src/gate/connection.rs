use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use russh::Disconnect;
use russh::server::{Handle, RunningSession, run_stream};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Gate;
use super::client::{Client, ConnectionError, Progress};
use super::lobby::{Displaced, Ticket};
use super::penalties::Offence;
use super::wire::{Cord, Wire};
use crate::privsep::message::Connection;

/// How long a client may take to leave after it was told to.
const FAREWELL: Duration = Duration::from_secs(3);

/// Serves one client until it leaves or is sent away.
pub async fn serve(
    gate: Arc<Gate>,
    socket: TcpStream,
    from: SocketAddr,
    number: Connection,
    (ticket, displaced): (Ticket, Displaced),
) {
    let deadline = Instant::now() + gate.settings.login_grace;
    let Ok((wire, cord)) = Wire::new(socket, gate.settings.stall()) else { return };
    let (ends, ended) = mpsc::channel(1);
    gate.warden.connected(number, ends);
    let (login, logged_in) = oneshot::channel();
    let progress = Arc::<Progress>::default();
    let client = Client::new(gate.clone(), number, from, cord.clone(), (ticket, login), progress.clone());
    let mut patience = pin!(patience(deadline, displaced));
    let begun = tokio::select! {
        begun = run_stream(gate.ssh.clone(), wire, client) => Ok(begun),
        why = &mut patience => Err(why),
    };
    let end = match begun {
        Ok(Ok(session)) => attend(session, &cord, patience, logged_in, ended).await,
        Ok(Err(error)) => End::Failed(error),
        Err(why) => End::Cut(why),
    };
    if !progress.is_in() {
        close_book(&gate, from, &progress, &end);
    }
    gate.warden.gone(progress.has_tried(), number).await;
}

/// How a connection ended.
enum End {
    Left,
    Failed(ConnectionError),
    /// We had waited for a login for long enough.
    Cut(&'static str),
}

/// Returns why nobody waits for a login any longer.
async fn patience(deadline: Instant, displaced: Displaced) -> &'static str {
    tokio::select! {
        // An error is a place given back.
        Ok(()) = displaced => "the client had not logged in when another source needed its place",
        () = sleep_until(deadline) => "the client did not log in in time",
    }
}

async fn attend(
    mut session: RunningSession<Client>,
    cord: &Cord,
    mut patience: Pin<&mut impl Future<Output = &'static str>>,
    mut logged_in: oneshot::Receiver<()>,
    mut ended: mpsc::Receiver<String>,
) -> End {
    let handle = session.handle();
    let mut waiting = true;
    let mut cut = None;
    loop {
        tokio::select! {
            result = &mut session => {
                return match (cut, result) {
                    (Some(why), _) => End::Cut(why),
                    (None, Ok(())) => End::Left,
                    (None, Err(error)) => {
                        tracing::debug!(%error, "a connection ended");
                        End::Failed(error)
                    }
                };
            }
            // An error is a client that is gone: the session ends at once.
            _ = &mut logged_in, if waiting => waiting = false,
            why = &mut patience, if waiting => {
                (waiting, cut) = (false, Some(why));
                cord.cut();
            }
            Some(sentence) = ended.recv() => {
                tokio::spawn(send_away(handle.clone(), cord.clone(), sentence));
            }
        }
    }
}

/// What a connection that logged nobody in leaves behind: a line, if nobody else writes it, and a fine for its source.
fn close_book(gate: &Gate, from: SocketAddr, progress: &Progress, end: &End) {
    match end {
        End::Cut(why) => gate.admission.refused(from, (*why).to_owned()),
        End::Failed(error) => gate.admission.refused(from, error.to_string()),
        End::Left if progress.is_unproved() => {
            gate.admission.refused(from, "a key that would do was offered and never proved".into());
        }
        End::Left => {}
    }
    let offence = match end {
        _ if progress.is_excused() => return,
        End::Cut(_) => Offence::GraceExceeded,
        _ if progress.has_tried() => Offence::AuthFail,
        End::Failed(error) if error.is_no_ssh() => Offence::Protocol,
        _ => Offence::NoAuth,
    };
    gate.admission.penalise(from, offence);
}

/// Tells a client to go, and lets go of it whether or not it does: russh waits for it without a limit.
async fn send_away(handle: Handle, cord: Cord, sentence: String) {
    let _ = timeout(FAREWELL, handle.disconnect(Disconnect::ByApplication, sentence, String::new())).await;
    sleep(FAREWELL).await;
    cord.cut();
}
