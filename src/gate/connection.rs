use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use russh::Disconnect;
use russh::server::{Handle, RunningSession, run_stream};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::Gate;
use super::client::Client;
use super::lobby::Ticket;
use super::wire::{Cord, Wire};
use crate::audit::Event;
use crate::privsep::message::Connection;

/// How long a client may take to leave after it was told to.
const FAREWELL: Duration = Duration::from_secs(3);

/// Serves one client until it leaves or is sent away.
pub async fn serve(gate: Arc<Gate>, socket: TcpStream, from: SocketAddr, number: Connection, ticket: Ticket) {
    let deadline = Instant::now() + gate.settings.login_grace;
    let Ok((wire, cord)) = Wire::new(socket, gate.settings.stall()) else { return };
    let (ends, ended) = mpsc::channel(1);
    gate.warden.connected(number, ends);
    let (login, logged_in) = oneshot::channel();
    let known = Arc::new(AtomicU64::new(0));
    let client = Client::new(gate.clone(), number, from, cord.clone(), (ticket, login), known.clone());
    let why = match timeout_at(deadline, run_stream(gate.ssh.clone(), wire, client)).await {
        Ok(Ok(session)) => attend(session, &cord, deadline, logged_in, ended).await,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("the client sent no SSH identification in time".into()),
    };
    if let Some(why) = why {
        gate.witness.tell(Event::ConnectionRefused { from: from.to_string(), why });
    }
    let known = known.load(Ordering::Relaxed);
    gate.warden.gone((known > 0).then_some(known), number).await;
}

/// Returns why a client that never logged in was not served; one that logged in has its own events.
async fn attend(
    mut session: RunningSession<Client>,
    cord: &Cord,
    deadline: Instant,
    mut logged_in: oneshot::Receiver<()>,
    mut ended: mpsc::Receiver<String>,
) -> Option<String> {
    let handle = session.handle();
    let mut waiting = true;
    let mut late = false;
    loop {
        tokio::select! {
            result = &mut session => {
                return match result {
                    _ if late => Some("the client did not log in in time".into()),
                    Err(error) if waiting => Some(error.to_string()),
                    Err(error) => {
                        tracing::debug!(%error, "a connection ended");
                        None
                    }
                    Ok(()) => None,
                };
            }
            // An error is a client that is gone: the session ends at once.
            _ = &mut logged_in, if waiting => waiting = false,
            () = sleep_until(deadline), if waiting => {
                (waiting, late) = (false, true);
                cord.cut();
            }
            Some(sentence) = ended.recv() => {
                tokio::spawn(send_away(handle.clone(), cord.clone(), sentence));
            }
        }
    }
}

/// Tells a client to go, and lets go of it whether or not it does: russh waits for it without a limit.
async fn send_away(handle: Handle, cord: Cord, sentence: String) {
    let _ = timeout(FAREWELL, handle.disconnect(Disconnect::ByApplication, sentence, String::new())).await;
    sleep(FAREWELL).await;
    cord.cut();
}
