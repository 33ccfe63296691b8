//! The keeper with real terminals, pipes, links and files; the jailer, the warden and the gate are the test.

mod disk;
mod kube;
mod life;
mod pipes;
mod terminal;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use regex::bytes::RegexSet;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{InputPolicy, KeeperError, Settings, Start, Thresholds, serve};
use crate::privsep::Role;
use crate::privsep::link::{Link, LinkError, encode, pair, send_packet};
use crate::privsep::message::{FromJailer, JailerToKeeper, KeeperToWarden, WardenToKeeper};
use crate::privsep::stream::{FromGate, FromKeeper, GateEnd};
use crate::recording::{Durability, Event, Header, Reader, Recorded};
use crate::session::SessionId;

pub(super) type WardenEnd = Link<WardenToKeeper, KeeperToWarden>;

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn settings() -> Settings {
    Settings {
        durability: Durability::Local,
        input: InputPolicy::Redacted,
        prompts: RegexSet::empty(),
        reserve: 1 << 20,
        space: Thresholds { warn: 100, refuse: 101, end: 101 },
        bulk_after: 64 << 20,
        audit: "audit.jsonl".into(),
    }
}

/// A keeper and the ends of its links.
pub(super) struct Rig {
    pub(super) dir: TempDir,
    pub(super) control: OwnedFd,
    pub(super) warden: WardenEnd,
    pub(super) serve: JoinHandle<Result<(), KeeperError>>,
}

pub(super) async fn rig(settings: Settings) -> Rig {
    rig_in(tempfile::tempdir().unwrap(), None, settings).await
}

/// `recordings`: another directory for them than the one of the audit file.
pub(super) async fn rig_in(dir: TempDir, recordings: Option<&Path>, settings: Settings) -> Rig {
    let (control, end) = pair().unwrap();
    let recordings = File::open(recordings.unwrap_or(dir.path())).unwrap().into();
    let audit = File::open(dir.path()).unwrap().into();
    let start = Start { settings, recordings, audit, control: Link::new(end).unwrap() };
    let serve = tokio::spawn(serve(start));
    let warden = new_warden(&control);
    Rig { dir, control, warden, serve }
}

pub(super) fn tell(control: &OwnedFd, message: &FromJailer<JailerToKeeper>, fds: &[BorrowedFd<'_>]) {
    send_packet(control.as_fd(), &encode(message), fds).unwrap();
}

pub(super) fn new_warden(control: &OwnedFd) -> WardenEnd {
    let (ours, theirs) = pair().unwrap();
    tell(control, &FromJailer::Peer(Role::Warden), &[theirs.as_fd()]);
    Link::new(ours).unwrap()
}

pub(super) fn header() -> Box<Header> {
    Box::new(Header {
        user: "alice".into(),
        from: "192.0.2.1:4711".into(),
        key: "SHA256:x".into(),
        client: "SSH-2.0-test".into(),
        groups: vec![],
        image: "base".into(),
        role: None,
    })
}

impl Rig {
    pub(super) async fn heard(&self) -> KeeperToWarden {
        timeout(PATIENCE, self.warden.recv()).await.expect("the keeper says nothing").unwrap().0
    }

    pub(super) async fn open(&self) -> SessionId {
        let session = SessionId::mint();
        self.warden.send(&WardenToKeeper::Open { session, header: header() }).await.unwrap();
        assert!(matches!(self.heard().await, KeeperToWarden::Opened { session: opened } if opened == session));
        session
    }

    pub(super) fn terminal(&self, session: SessionId, number: u32) -> (Slave, Gate) {
        let (master, slave) = open_pty();
        let (ours, theirs) = pair().unwrap();
        let message = FromJailer::Told(JailerToKeeper::Terminal { session, number });
        tell(&self.control, &message, &[master.as_fd(), theirs.as_fd()]);
        (slave, Gate(GateEnd::new(ours).unwrap()))
    }

    pub(super) fn ended(&self, session: SessionId, number: u32, status: i32) {
        tell(&self.control, &FromJailer::Told(JailerToKeeper::Ended { session, number, status }), &[]);
    }

    /// Closes a session and waits for its closing frame.
    pub(super) async fn close(&self, session: SessionId) -> Vec<Event> {
        self.warden.send(&WardenToKeeper::Close { session, reason: "exit".into() }).await.unwrap();
        let closed = async {
            while recorded(self.dir.path(), session).1.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, closed).await.expect("no closing frame");
        let (events, reason) = recorded(self.dir.path(), session);
        assert_eq!(reason.as_deref(), Some("exit"));
        events.into_iter().map(|recorded| recorded.event).collect()
    }
}

/// The gate's end of a stream.
pub(super) struct Gate(pub(super) GateEnd);

impl Gate {
    pub(super) async fn input(&self, data: &[u8]) {
        self.0.send(&FromGate::Input(Bytes::copy_from_slice(data))).await.unwrap();
    }

    pub(super) async fn heard(&self) -> FromKeeper {
        // As the gate does: a keeper that leaves with input unread makes the kernel say so before its last packets.
        let heard = async {
            match self.0.recv().await {
                Err(LinkError::Closed) => self.0.recv().await,
                received => received,
            }
        };
        timeout(PATIENCE, heard).await.expect("the keeper shows nothing").unwrap()
    }

    /// Reads output until something else comes.
    pub(super) async fn all(&self) -> (Vec<u8>, Vec<u8>, FromKeeper) {
        let (mut output, mut error) = (Vec::new(), Vec::new());
        loop {
            match self.heard().await {
                FromKeeper::Output(data) => output.extend_from_slice(&data),
                FromKeeper::ErrorOutput(data) => error.extend_from_slice(&data),
                other => return (output, error, other),
            }
        }
    }
}

/// The program's end of a terminal.
pub(super) struct Slave(pub(super) File);

impl Slave {
    /// No echo, no lines, bytes as they are.
    pub(super) fn raw(&self) {
        let mut modes = tcgetattr(&self.0).unwrap();
        modes.make_raw();
        tcsetattr(&self.0, OptionalActions::Now, &modes).unwrap();
    }

    pub(super) fn echo(&self, on: bool) {
        let mut modes = tcgetattr(&self.0).unwrap();
        modes.local_modes.set(LocalModes::ECHO, on);
        tcsetattr(&self.0, OptionalActions::Now, &modes).unwrap();
    }

    pub(super) fn write(&mut self, data: &[u8]) {
        self.0.write_all(data).unwrap();
    }
}

pub(super) fn open_pty() -> (OwnedFd, Slave) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    (master, Slave(slave.into()))
}

/// Waits until the master is closed; a child that another test forks may hold it until it executes.
pub(super) async fn hung_up(slave: &mut Slave) {
    let closed = async {
        while slave.0.write_all(b"x").is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, closed).await.expect("the program is not hung up");
}

/// What a recording holds now, and why it was closed.
pub(super) fn recorded(dir: &Path, session: SessionId) -> (Vec<Recorded>, Option<String>) {
    let file = File::open(file_of(dir, session)).unwrap();
    let mut reader = Reader::open(std::io::BufReader::new(file)).unwrap();
    let mut events = Vec::new();
    // A frame that is being written at this moment reads as torn.
    while let Some(Ok(event)) = reader.next() {
        events.push(event);
    }
    (events, reader.closing().map(|closing| closing.reason.clone()))
}

pub(super) fn file_of(dir: &Path, session: SessionId) -> PathBuf {
    let mut places = vec![dir.to_owned()];
    while let Some(place) = places.pop() {
        for entry in place.read_dir().unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                places.push(entry.path());
            } else if entry.file_name().to_str().unwrap() == format!("{session}.stk") {
                return entry.path();
            }
        }
    }
    panic!("no recording of {session}");
}

/// The codes in the audit file, in its order.
pub(super) fn codes(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("audit.jsonl")).unwrap_or_default();
    // The last line may be on its way.
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.map(|line| line["metadata"]["event_code"].as_str().unwrap().to_owned()).collect()
}

pub(super) fn output_of(events: &[Event]) -> Vec<u8> {
    let outputs = events.iter().filter_map(|event| match event {
        Event::Output { data, .. } => Some(&data[..]),
        _ => None,
    });
    outputs.collect::<Vec<_>>().concat()
}

/// Bytes in which a lost or doubled piece shows.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length / 8 + 1).flat_map(|n| format!("{n:07}\n").into_bytes()).take(length).collect()
}
