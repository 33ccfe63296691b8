use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::Settings;
use super::keeper::Witness;
use super::lobby::{Displaced, Full, Lobby, Ticket, dice};
use super::penalties::{Barred, Ended, Offence, Table};
use crate::audit::{Event, Meter};
use crate::config::Netblock;
use crate::policy::Source;

/// Who may knock: decided before a connection costs anything, and told in no more lines than the audit can hold.
#[derive(Debug)]
pub struct Admission {
    lobby: Arc<Lobby>,
    netblock: Netblock,
    exempt: Vec<IpNet>,
    state: Mutex<State>,
    witness: Arc<Witness>,
}

#[derive(Debug)]
struct State {
    penalties: Option<Table>,
    /// Of connections that nobody has logged in on.
    connections: Meter,
    /// Of penalties.
    verdicts: Meter,
}

/// Why a connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("its source is penalised")]
    Penalised,
    #[error("too many sources are penalised")]
    Overflow,
    #[error(transparent)]
    Full(#[from] Full),
}

impl Refusal {
    /// What OpenSSH says before it hangs up; `ssh -v` shows it.
    pub fn words(self) -> &'static [u8] {
        match self {
            Self::Penalised | Self::Overflow => b"Not allowed at this time\r\n",
            Self::Full(_) => b"Exceeded MaxStartups\r\n",
        }
    }
}

impl Admission {
    pub fn new(settings: &Settings, witness: Arc<Witness>) -> Self {
        let state = State {
            penalties: settings.penalties.map(Table::new),
            connections: Meter::new(1000, Duration::from_millis(100)),
            verdicts: Meter::new(1000, Duration::from_secs(1)),
        };
        Self {
            lobby: Lobby::new(settings.max_startups, settings.per_source),
            netblock: settings.netblock,
            exempt: settings.exempt.clone(),
            state: Mutex::new(state),
            witness,
        }
    }

    pub fn enter(&self, from: SocketAddr) -> Result<(Ticket, Displaced), Refusal> {
        let (source, exempt) = (self.source(from.ip()), self.exempts(from.ip()));
        if !exempt && let Some(penalties) = &mut self.state().penalties {
            penalties.check(source, Instant::now()).map_err(|barred| match barred {
                Barred::Penalised => Refusal::Penalised,
                Barred::Overflow => Refusal::Overflow,
            })?;
        }
        Ok(self.lobby.enter(source, !exempt, dice())?)
    }

    /// Writes that a client connected. False: it could not be written, so it must not happen.
    pub fn connected(&self, from: SocketAddr) -> bool {
        let listed = self.state().connections.passes(Instant::now());
        !listed || self.witness.tell(Event::Connected { from: from.to_string() })
    }

    pub fn refused(&self, from: SocketAddr, why: String) {
        if self.state().connections.passes(Instant::now()) {
            self.witness.tell(Event::ConnectionRefused { from: from.to_string(), why });
        }
    }

    pub fn penalise(&self, from: SocketAddr, offence: Offence) {
        if self.exempts(from.ip()) {
            return;
        }
        let (source, now) = (self.source(from.ip()), Instant::now());
        let mut state = self.state();
        let Some(length) = state.penalties.as_mut().and_then(|table| table.penalise(source, offence, now)) else {
            return;
        };
        if state.verdicts.passes(now) {
            let (source, why, seconds) = (source.to_string(), offence.why().to_owned(), length.as_secs());
            self.witness.tell(Event::SourcePenalised { source, why, seconds });
        }
    }

    /// Tells which penalties are over, and how much was not told one by one.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut state = self.state();
        let ended = state.penalties.as_mut().map(|table| table.ended(now)).unwrap_or_default();
        for Ended { source, refused } in ended {
            if state.verdicts.passes(now) {
                self.witness.tell(Event::PenaltyEnded { source: source.to_string(), refused });
            }
        }
        let held = [("connections", state.connections.held()), ("penalties", state.verdicts.held())];
        for (what, count) in held.into_iter().filter(|(_, count)| *count > 0) {
            let what = format!("{count} lines about {what} were left out: more came than the audit lists");
            self.witness.tell(Event::LimitHit { session: None, what });
        }
    }

    fn source(&self, address: IpAddr) -> Source {
        Source::of(address, self.netblock)
    }

    fn exempts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.exempt.iter().any(|net| net.contains(&address))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
