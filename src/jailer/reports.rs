//! What jails report: their doors and terminals, that they stand, that their processes have ended.

use std::os::fd::{AsFd, OwnedFd};

use super::build::report;
use super::jail::{Stage, reap};
use super::supervise::Jailer;
use super::watch::Source;
use crate::privsep::Role;
use crate::privsep::link::{LinkError, pair, recv_packet};
use crate::privsep::message::{JailerToGate, JailerToKeeper, JailerToPorter, JailerToTally, JailerToWarden, Number};
use crate::session::SessionId;
use crate::sys::notify::Slate;

const DIED: &str = "the jail's first process died";

impl Jailer {
    pub(super) fn hear_jail(&mut self, session: SessionId) {
        let Some(jail) = self.jails.get_mut(&session) else { return };
        let Some(control) = &jail.control else { return };
        let mut packet = Vec::new();
        match recv_packet(control.as_fd(), &mut packet) {
            Err(LinkError::Socket(e)) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(doors) if packet == [report::DOORS] => jail.doors = doors,
            Ok(_) if packet == [report::READY] && jail.stage == Stage::Building => {
                jail.stage = Stage::Standing;
                self.open_doors(session);
                self.tell(Role::Warden, JailerToWarden::Built { session }, Vec::new());
            }
            Ok(_) if packet.first() == Some(&report::FAULT) => jail.fault = Some(sentence(&packet)),
            // Process 1 has ended, or says what it cannot say.
            Ok(_) | Err(_) => {
                if let Some(control) = jail.control.take() {
                    self.watch.remove(Source::Jail(session), &control);
                }
                // Whether this or its death is heard of first.
                if jail.stage == Stage::Building {
                    jail.fault.get_or_insert_with(|| DIED.into());
                }
                jail.kill();
            }
        }
    }

    pub(super) fn open_doors(&mut self, session: SessionId) {
        let Some(jail) = self.jails.get(&session) else { return };
        let Ok(ride) = jail.doors.iter().map(OwnedFd::try_clone).collect::<std::io::Result<Vec<_>>>() else { return };
        let doors = JailerToPorter::Doors { session, user: jail.user.clone(), token: jail.token.clone() };
        self.tell(Role::Porter, doors, ride);
    }

    pub(super) fn watch_execs(&mut self, session: SessionId) {
        let Some(jail) = self.jails.get(&session) else { return };
        let execs: Vec<(Number, Vec<OwnedFd>)> = jail
            .channels
            .iter()
            .filter_map(|(number, channel)| Some((*number, copies(channel.execs.as_ref()?).ok()?)))
            .collect();
        for (number, execs) in execs {
            self.tell(Role::Tally, JailerToTally::Watch { session, number }, execs);
        }
    }

    pub(super) fn hear_channel(&mut self, session: SessionId, number: Number) {
        let Some(channel) = self.jails.get_mut(&session).and_then(|jail| jail.channels.get_mut(&number)) else {
            return;
        };
        let Some(reports) = &channel.reports else { return };
        let mut packet = Vec::new();
        match recv_packet(reports.as_fd(), &mut packet) {
            Err(LinkError::Socket(e)) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(ride) => match packet.first() {
                Some(&report::MASTER) => channel.master = ride.into_iter().next(),
                Some(&report::LISTENER) => {
                    let execs = ride.into_iter().next().and_then(|listener| Some([listener, Slate::blank().ok()?]));
                    channel.execs = execs;
                    match channel.execs.as_ref().and_then(|execs| copies(execs).ok()) {
                        Some(execs) => self.tell(Role::Tally, JailerToTally::Watch { session, number }, execs),
                        // Nobody would ever answer what it executes.
                        None => self.end(session),
                    }
                }
                _ => channel.fault = Some(sentence(&packet)),
            },
            Err(_) => self.reports_closed(session, number),
        }
    }

    /// The program was executed, or never will be.
    fn reports_closed(&mut self, session: SessionId, number: Number) {
        let Some(channel) = self.jails.get_mut(&session).and_then(|jail| jail.channels.get_mut(&number)) else {
            return;
        };
        if let Some(reports) = channel.reports.take() {
            self.watch.remove(Source::Reports(session, number), &reports);
        }
        if let Some(fault) = channel.fault.clone() {
            return self.not_started(session, number, fault);
        }
        if channel.master.is_none() && channel.pipes.is_empty() {
            return self.not_started(session, number, "the jail ended".into());
        }
        channel.running = true;
        let (master, pipes) = (channel.master.take(), std::mem::take(&mut channel.pipes));
        let Ok((to_keeper, to_gate)) = pair() else { return self.end(session) };
        let (message, mut ride) = match master {
            Some(master) => (JailerToKeeper::Terminal { session, number }, vec![master]),
            None => (JailerToKeeper::Pipes { session, number }, pipes),
        };
        ride.push(to_keeper);
        self.tell(Role::Keeper, message, ride);
        self.tell(Role::Gate, JailerToGate::Stream { session, number }, vec![to_gate]);
        self.tell(Role::Warden, JailerToWarden::Started { session, number }, Vec::new());
    }

    pub(super) fn program_died(&mut self, session: SessionId, number: Number) {
        // A short program may end before its start was noticed: keeper and gate must have its stream first. It alone had
        // the other end of the reports, so this comes to their end.
        while self.is_starting(session, number) {
            self.hear_channel(session, number);
        }
        let Some(channel) = self.jails.get_mut(&session).and_then(|jail| jail.channels.get_mut(&number)) else {
            return;
        };
        let Some(program) = channel.program.take() else { return };
        let status = reap(&program);
        self.watch.remove(Source::Program(session, number), &program);
        // What it left behind keeps its exec reports as long as tally holds them.
        let running = channel.running;
        self.jails.get_mut(&session).map(|jail| jail.channels.remove(&number));
        if running {
            self.tell(Role::Keeper, JailerToKeeper::Ended { session, number, status }, Vec::new());
            self.tell(Role::Warden, JailerToWarden::Exited { session, number, status }, Vec::new());
        }
        self.bury(session);
    }

    fn is_starting(&self, session: SessionId, number: Number) -> bool {
        self.jails.get(&session).and_then(|j| j.channels.get(&number)).is_some_and(|c| c.reports.is_some())
    }

    pub(super) fn init_died(&mut self, session: SessionId) {
        let Some(jail) = self.jails.get_mut(&session) else { return };
        if let Some(init) = jail.init.take() {
            reap(&init);
            self.watch.remove(Source::Init(session), &init);
        }
        let was = jail.stage;
        jail.kill();
        while self.jails.get(&session).is_some_and(|jail| jail.control.is_some()) {
            self.hear_jail(session);
        }
        let fault = self.jails.get(&session).and_then(|jail| jail.fault.clone());
        if let Some(reason) = fault.or_else(|| (was == Stage::Building).then(|| DIED.into())) {
            eprintln!("stockade: jailer: {session}: {reason}");
            self.tell(Role::Warden, JailerToWarden::Failed { session, reason }, Vec::new());
        }
        self.bury(session);
    }
}

fn copies(execs: &[OwnedFd]) -> std::io::Result<Vec<OwnedFd>> {
    execs.iter().map(OwnedFd::try_clone).collect()
}

fn sentence(packet: &[u8]) -> String {
    String::from_utf8_lossy(packet.get(1..).unwrap_or_default()).into_owned()
}
