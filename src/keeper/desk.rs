//! What all sessions share, and what each role may say to the keeper.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use super::channel::{Channel, Ends};
use super::session::Session;
use super::space::Space;
use super::tape::Ended;
use super::warden::{Reign, Warden, WardenLink};
use super::{KeeperError, Settings};
use crate::audit::{self, Sink};
use crate::privsep::link::{Link, LinkError};
use crate::privsep::message::{
    JailerToKeeper, KeeperToTally, KeeperToWarden, Number, Program, Silence, TallyToKeeper, ToKeeper, WardenToKeeper,
    Wish,
};
use crate::privsep::stream::{FromKeeper, KeeperEnd};
use crate::privsep::{Accusation, Role};
use crate::recording::{self, Header, Store};
use crate::session::SessionId;
use crate::sys::watched::Watched;

/// Commits in flight. The semaphore is first come, first served: a session that floods waits its turn like the others.
const SLOTS: usize = 8;

/// Exec attempts that wait for room on their tapes. An honest tally has one a channel; a captured one waits itself.
const NOTING: usize = 1024;

/// How long a new warden has to speak of a session without a channel before its recording is closed.
const ORPHAN: Duration = Duration::from_secs(120);

pub(super) struct Desk {
    pub(super) settings: Settings,
    pub(super) store: Store,
    pub(super) sink: Sink,
    pub(super) space: Space,
    pub(super) warden: Warden,
    pub(super) slots: Semaphore,
    noting: Arc<Semaphore>,
    accuse: mpsc::Sender<Accusation>,
    sessions: Mutex<HashMap<SessionId, Arc<Session>>>,
    /// The jailer has said that it stops; without that its end is a crash.
    stopping: AtomicBool,
}

impl Desk {
    pub(super) fn new(
        settings: Settings,
        recordings: OwnedFd,
        sink: Sink,
        accuse: mpsc::Sender<Accusation>,
    ) -> io::Result<Self> {
        Ok(Self {
            space: Space::new(recordings.try_clone()?, settings.space),
            settings,
            store: Store::new(recordings),
            sink,
            warden: Warden::new(),
            slots: Semaphore::new(SLOTS),
            noting: Arc::new(Semaphore::new(NOTING)),
            accuse,
            sessions: Mutex::default(),
            stopping: AtomicBool::new(false),
        })
    }

    pub(super) fn told_to_stop(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        self.lock().get(&id).cloned()
    }

    pub(super) fn sessions(&self) -> Vec<Arc<Session>> {
        self.lock().values().cloned().collect()
    }

    pub(super) fn forget(&self, id: SessionId) {
        self.lock().remove(&id);
    }

    /// Why no session can begin, if none can.
    pub(super) fn refusal(&self) -> Option<String> {
        if !self.sink.healthy() {
            return Some("this bastion cannot write its audit trail now; its operators know more".into());
        }
        self.space.refusal()
    }

    /// The warden has it dismissed; the event is the jailer's.
    pub(super) async fn breach(&self, role: Role, what: &str) {
        tracing::error!(%role, what, "a role broke the protocol");
        self.warden.tell(KeeperToWarden::Breach(role)).await;
    }

    // ---- the jailer --------------------------------------------------------------------------------------------

    pub(super) async fn told(self: &Arc<Self>, message: JailerToKeeper, fds: Vec<OwnedFd>) -> Result<(), KeeperError> {
        match message {
            JailerToKeeper::Terminal { session, number } => {
                let [master, stream] = exactly(fds)?;
                let ends = Watched::new(master).map(Ends::Terminal);
                self.begin(session, number, ends, stream).await;
            }
            JailerToKeeper::Pipes { session, number } => {
                let [input, output, error, stream] = exactly(fds)?;
                self.begin(session, number, pipes(input, output, error), stream).await;
            }
            JailerToKeeper::Ended { session, number, status } => {
                if let Some(session) = self.session(session) {
                    session.exited(number, status);
                }
            }
            JailerToKeeper::Event(event) => {
                if matches!(event, audit::Event::Stopped { .. }) {
                    self.stopping.store(true, Ordering::Relaxed);
                }
                self.sink.record(event).await;
            }
        }
        Ok(())
    }

    /// Starts a channel's pump. Without a recording the descriptors close here, which hangs the program up.
    async fn begin(self: &Arc<Self>, id: SessionId, number: Number, ends: io::Result<Ends>, stream: OwnedFd) {
        let stream = match KeeperEnd::new(stream) {
            Ok(stream) => stream,
            Err(error) => return tracing::error!(session = %id, number, %error, "a stream cannot be watched"),
        };
        let attached = self.session(id).and_then(|session| session.attach(number).map(|exit| (session, exit)));
        let (ends, session, exit) = match (ends, attached) {
            (Ok(ends), Some((session, exit))) => (ends, session, exit),
            (ends, attached) => {
                let error = ends.err();
                tracing::error!(session = %id, number, ?error, "a channel without a recording was refused");
                if let Some((session, _)) = attached {
                    session.detach(number);
                }
                let _ = stream.send(&FromKeeper::Notice("this session is not recorded; it ends".into())).await;
                return;
            }
        };
        let desk = self.clone();
        tokio::spawn(async move {
            let channel = Channel {
                number,
                session: session.clone(),
                desk: desk.clone(),
                stream,
                exit,
                told: AtomicBool::new(false),
            };
            channel.run(ends).await;
            session.detach(number);
        });
    }

    // ---- the warden --------------------------------------------------------------------------------------------

    pub(super) fn greet(self: &Arc<Self>, link: WardenLink) {
        let link = Arc::new(link);
        let reign = self.warden.enthrone(link.clone());
        if reign > 1 {
            tokio::spawn(self.clone().close_orphans());
        }
        let desk = self.clone();
        tokio::spawn(async move {
            let fault = loop {
                let done = match link.recv().await {
                    Ok((message, _)) => desk.obey(message, reign).await,
                    Err(fault) => Err(fault),
                };
                if let Err(fault) = done {
                    break fault;
                }
            };
            // Without a warden sessions go on; for one in breach they do not.
            desk.warden.depose(reign);
            if let LinkError::Breach(what) = fault {
                // Full: it is accused already.
                let _ = desk.accuse.try_send(Accusation { role: Role::Warden, what });
            }
        });
    }

    async fn obey(self: &Arc<Self>, message: WardenToKeeper, reign: Reign) -> Result<(), LinkError> {
        match message {
            WardenToKeeper::Open { session, header } => return self.open(session, header, reign),
            WardenToKeeper::Channel { session, number, wish } => {
                if let Some(session) = self.session(session) {
                    let event = channel_event(number, wish);
                    // An ended recording cannot take it, and nothing will run in it.
                    let _: Result<_, Ended> = session.tape.push_now(event);
                    session.announce(number);
                }
            }
            WardenToKeeper::Close { session, reason } => {
                if let Some(session) = self.session(session) {
                    let desk = self.clone();
                    tokio::spawn(async move { session.close(&desk, reason).await });
                }
            }
            WardenToKeeper::Event(event) => {
                self.credential(&event);
                self.sink.record(event).await;
            }
        }
        Ok(())
    }

    fn open(self: &Arc<Self>, id: SessionId, header: Box<Header>, reign: Reign) -> Result<(), LinkError> {
        let session = Arc::new(Session::new(id, header.user.clone(), self.settings.durability));
        match self.lock().entry(id) {
            Entry::Occupied(_) => return Err(LinkError::Breach("a session opened twice")),
            Entry::Vacant(place) => place.insert(session.clone()),
        };
        tokio::spawn(session.record(self.clone(), header, reign));
        Ok(())
    }

    /// So that the recording and CloudTrail lead to one another.
    fn credential(&self, event: &audit::Event) {
        if let audit::Event::CredentialIssued { session, access_key_id, expires, .. } = event
            && let Some(session) = self.session(*session)
        {
            let (access_key_id, expires) = (access_key_id.clone(), *expires);
            // An ended recording has nothing to add.
            let _ = session.tape.push_now(recording::Event::Credential { access_key_id, expires });
        }
    }

    /// A warden that died between two messages may have left a session that no other will ever close.
    async fn close_orphans(self: Arc<Self>) {
        let before = self.sessions();
        sleep(ORPHAN).await;
        for session in before.into_iter().filter(|session| session.is_quiet()) {
            session.close(&self, "the warden that opened it ended".into()).await;
        }
    }

    // ---- gate, portal, tally; for the porter see `kube` --------------------------------------------------------

    /// Whoever has nothing but events to tell.
    pub(super) async fn hear_gate(self: Arc<Self>, role: Role, link: Link<Silence, ToKeeper>) {
        loop {
            match link.recv().await {
                Ok((ToKeeper::Event(event), _)) => self.sink.record(event).await,
                Err(LinkError::Breach(what)) => return self.breach(role, what).await,
                Err(_) => return,
            }
        }
    }

    /// A full tape holds back the execs of its own session; those of others do not wait behind them.
    pub(super) async fn hear_tally(self: Arc<Self>, link: Link<KeeperToTally, TallyToKeeper>) {
        let link = Arc::new(link);
        loop {
            let (ticket, session, number, exec) = match link.recv().await {
                Ok((TallyToKeeper::Exec { ticket, session, number, exec }, _)) => (ticket, session, number, exec),
                Err(LinkError::Breach(what)) => return self.breach(Role::Tally, what).await,
                Err(_) => return,
            };
            // Never closed.
            let permit = self.noting.clone().acquire_owned().await;
            let (desk, link) = (self.clone(), link.clone());
            tokio::spawn(async move {
                desk.exec(session, number, exec).await;
                let _ = link.send(&KeeperToTally::Noted { ticket }).await;
                drop(permit);
            });
        }
    }

    async fn exec(&self, session: SessionId, number: Number, exec: recording::Exec) {
        let (path, arguments) = (exec.path.clone(), exec.arguments.clone());
        if let Some(session) = self.session(session) {
            session.note(recording::Event::Exec { number, exec }).await;
        }
        self.sink.record(audit::Event::Exec { session, number, path, arguments }).await;
    }

    // ---- the end -----------------------------------------------------------------------------------------------

    /// Closes every recording; for when the jailer is gone and every jail with it.
    pub(super) async fn close_all(self: &Arc<Self>, reason: &str) {
        let sessions = self.sessions();
        for session in &sessions {
            session.tape.end(super::tape::End::Closed(reason.to_owned()));
        }
        let over = async {
            while sessions.iter().any(|session| !session.is_over()) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = timeout(Duration::from_secs(10), over).await;
    }
}

fn exactly<const N: usize>(fds: Vec<OwnedFd>) -> Result<[OwnedFd; N], KeeperError> {
    // `Link` has counted them already.
    fds.try_into().map_err(|_| KeeperError::Control(LinkError::Breach("a wrong number of descriptors")))
}

fn pipes(input: OwnedFd, output: OwnedFd, error: OwnedFd) -> io::Result<Ends> {
    Ok(Ends::Pipes { input: Watched::new(input)?, output: Watched::new(output)?, error: Watched::new(error)? })
}

fn channel_event(number: Number, wish: Wish) -> recording::Event {
    let Wish { program, terminal, environment } = wish;
    let program = match program {
        Program::Shell => None,
        Program::Exec(command) => Some(command),
    };
    let terminal = terminal.map(|terminal| recording::Terminal {
        term: terminal.term,
        columns: terminal.size.columns,
        rows: terminal.size.rows,
        width: terminal.size.width,
        height: terminal.size.height,
        modes: terminal.modes,
    });
    recording::Event::Channel { number, program, terminal, environment }
}
