//! Jails: what the warden asks of them, what they report, how they are buried.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Signal, kill_process_group};

use super::build::{self, Tools, report};
use super::enter::{self, Launch};
use super::fault::{Fault, Step};
use super::jail::{Channel, Jail, Stage, Wish, reap};
use super::plan::Plan;
use super::rootfs::Bundle;
use super::supervise::Jailer;
use super::userns::{self, RANGE};
use super::watch::Source;
use crate::audit::Event;
use crate::identity::{Principal, Secret};
use crate::privsep::link::{LinkError, pair, recv_packet};
use crate::privsep::message::{
    JailerToGate, JailerToKeeper, JailerToPorter, JailerToTally, JailerToWarden, Number, WardenToJailer,
};
use crate::privsep::{Role, table};
use crate::session::SessionId;

/// Ids that are gone: the warden may still ask about one that has just ended.
const REMEMBERED: usize = 4096;
const DIED: &str = "the jail's first process died";

impl Jailer {
    pub(super) fn answer(&mut self, ask: WardenToJailer) {
        let phase = |session: &SessionId| match self.jails.get(session).map(|jail| jail.stage) {
            Some(Stage::Building) => table::JailPhase::Building,
            Some(Stage::Standing) => table::JailPhase::Standing,
            Some(Stage::Ending) => table::JailPhase::Ended,
            None if self.gone.contains(session) => table::JailPhase::Ended,
            None => table::JailPhase::Unknown,
        };
        if !table::may_ask(&ask, phase) {
            return self.breach(Role::Warden, "a message out of its phase");
        }
        match ask {
            WardenToJailer::Build { session, user, persistent_home, region, note } => {
                if let Err(fault) = self.build(session, user, persistent_home, region, note) {
                    self.remember(session);
                    self.tell(Role::Warden, JailerToWarden::Failed { session, reason: fault.to_string() }, Vec::new());
                }
            }
            WardenToJailer::Start { session, number, program, terminal, environment } => {
                let wish = Wish { program, terminal, environment };
                if let Err(fault) = self.start(session, number, &wish) {
                    self.not_started(session, number, fault.to_string());
                }
            }
            WardenToJailer::Signal { session, number, signal } => self.signal(session, number, signal),
            WardenToJailer::End { session } => self.end(session),
            WardenToJailer::Dismiss(role) => self.breach(role, "the warden says so"),
        }
    }

    fn build(
        &mut self,
        session: SessionId,
        user: Principal,
        persistent_home: bool,
        region: Option<String>,
        note: Vec<u8>,
    ) -> Result<(), Fault> {
        if self.stopping.is_some() {
            return Err(Fault::new("make a jail", "the bastion is stopping"));
        }
        let Some(slot) = self.free_slots.pop_front() else {
            self.event(Event::LimitHit { session: Some(session), what: "all jails are in use".into() });
            return Err(Fault::new("make a jail", "all jails are in use; try again later"));
        };
        let with_home = persistent_home && !self.plan.homes.is_empty();
        let begun = match with_home.then(|| self.homes.take(&user)).transpose() {
            Err(fault) => Err(fault),
            Ok(home) => self.begin_jail(session, &user, slot, home, region, note).inspect_err(|_| {
                if with_home {
                    self.homes.release(&user);
                }
            }),
        };
        match begun {
            Ok(jail) => drop(self.jails.insert(session, jail)),
            Err(fault) => {
                self.free_slots.push_back(slot);
                return Err(fault);
            }
        }
        Ok(())
    }

    fn begin_jail(
        &mut self,
        session: SessionId,
        user: &Principal,
        slot: u32,
        home: Option<String>,
        region: Option<String>,
        note: Vec<u8>,
    ) -> Result<Jail, Fault> {
        let first_uid = self.plan.uid_base + slot * RANGE;
        let token = random_token()?;
        let userns = userns::make(&self.alone, first_uid)?;
        let cgroup = self.cgroups.create(session.to_string(), &self.plan.limits)?;
        let bundle = Bundle {
            base: &format!("{}/jail", self.run),
            image: &self.plan.rootfs,
            user,
            userns: userns.as_fd(),
            first_uid,
            scratch: self.plan.limits.scratch,
            home: home.as_deref(),
            program: &format!("{}/stockade", self.run),
            token: &token,
            shell: &self.plan.shell,
        };
        let tools = Tools {
            alone: &self.alone,
            filters: &self.filters,
            init: self.init.as_fd(),
            own_pids: self.own_pids.as_fd(),
        };
        let begun = match build::begin(&tools, &bundle, &cgroup) {
            Ok(begun) => begun,
            Err(fault) => {
                self.cgroups.remove(&cgroup);
                return Err(fault);
            }
        };
        self.watch.add(Source::Init(session), &begun.pidfd).step("watch a jail")?;
        self.watch.add(Source::Jail(session), &begun.control).step("watch a jail")?;
        Ok(Jail {
            stage: Stage::Building,
            user: user.clone(),
            note,
            region,
            slot,
            first_uid,
            has_home: home.is_some(),
            cgroup,
            userns,
            token,
            init: Some(begun.pidfd),
            control: Some(begun.control),
            doors: Vec::new(),
            channels: BTreeMap::new(),
            fault: None,
        })
    }

    fn start(&mut self, session: SessionId, number: Number, wish: &Wish) -> Result<(), Fault> {
        let Some(jail) = self.jails.get_mut(&session).filter(|jail| jail.stage == Stage::Standing) else {
            return Err(Fault::new("start the program", "the jail has ended"));
        };
        if jail.channels.contains_key(&number) {
            return Err(Fault::new("start the program", "its channel runs another"));
        }
        let Some(init) = &jail.init else { return Err(Fault::new("start the program", "the jail has ended")) };
        let (ours, theirs) = if wish.terminal.is_none() { pipes(jail.first_uid)? } else { (Vec::new(), Vec::new()) };
        let launch = Launch {
            init: init.as_fd(),
            userns: jail.userns.as_fd(),
            first_uid: jail.first_uid,
            program: &wish.program,
            terminal: wish.terminal.as_ref(),
            pipes: <&[OwnedFd; 3]>::try_from(&theirs[..]).ok().map(|pipes| pipes.each_ref().map(AsFd::as_fd)),
            shell: &self.plan.shell,
            home: &format!("/home/{}", jail.user),
            environment: &environment(&self.plan, jail, wish),
            exec_audit: self.plan.exec_audit,
        };
        let tools = Tools {
            alone: &self.alone,
            filters: &self.filters,
            init: self.init.as_fd(),
            own_pids: self.own_pids.as_fd(),
        };
        let begun = enter::begin(&tools, &launch, &jail.cgroup)?;
        self.watch.add(Source::Reports(session, number), &begun.reports).step("watch a channel")?;
        self.watch.add(Source::Program(session, number), &begun.program).step("watch a channel")?;
        let channel = Channel {
            program: Some(begun.program),
            pid: Some(begun.pid),
            reports: Some(begun.reports),
            pipes: ours,
            ..Channel::default()
        };
        jail.channels.insert(number, channel);
        Ok(())
    }

    fn not_started(&mut self, session: SessionId, number: Number, reason: String) {
        self.tell(Role::Warden, JailerToWarden::NotStarted { session, number, reason }, Vec::new());
    }

    /// To the program and what it has started in its own process group, as sshd does it.
    fn signal(&mut self, session: SessionId, number: Number, signal: i32) {
        let Some(channel) = self.jails.get(&session).and_then(|jail| jail.channels.get(&number)) else { return };
        // Running, so it has begun a session of its own: before that its group is the jailer's.
        if let (true, Some(pid), Some(signal)) = (channel.running, channel.pid, Signal::from_named_raw(signal)) {
            let _ = kill_process_group(pid, signal);
        }
    }

    fn end(&mut self, session: SessionId) {
        if let Some(jail) = self.jails.get_mut(&session) {
            jail.kill();
        }
    }

    pub(super) fn end_all(&mut self) {
        self.jails.values_mut().for_each(Jail::kill);
    }

    pub(super) fn end_unfinished(&mut self) {
        self.jails.values_mut().filter(|jail| jail.stage == Stage::Building).for_each(Jail::kill);
    }

    // ---- what jails report -------------------------------------------------------------------------------------

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
        let listeners: Vec<(Number, OwnedFd)> = jail
            .channels
            .iter()
            .filter_map(|(number, channel)| Some((*number, channel.listener.as_ref()?.try_clone().ok()?)))
            .collect();
        for (number, listener) in listeners {
            self.tell(Role::Tally, JailerToTally::Watch { session, number }, vec![listener]);
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
                    channel.listener = ride.into_iter().next();
                    let copy = channel.listener.as_ref().and_then(|listener| listener.try_clone().ok());
                    if let Some(copy) = copy {
                        self.tell(Role::Tally, JailerToTally::Watch { session, number }, vec![copy]);
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

    /// Takes away an ended jail, when the last of its processes is reaped.
    fn bury(&mut self, session: SessionId) {
        if !self.jails.get(&session).is_some_and(|jail| jail.stage == Stage::Ending && jail.is_empty()) {
            return;
        }
        let Some(jail) = self.jails.remove(&session) else { return };
        for what in jail.cgroup.limits_hit() {
            self.event(Event::LimitHit { session: Some(session), what: what.into() });
        }
        for (number, channel) in &jail.channels {
            if let Some(reports) = &channel.reports {
                self.watch.remove(Source::Reports(session, *number), reports);
            }
        }
        if let Some(control) = &jail.control {
            self.watch.remove(Source::Jail(session), control);
        }
        if jail.has_home {
            self.homes.release(&jail.user);
        }
        self.resting.push((jail.cgroup, jail.slot));
        self.remember(session);
        self.tell(Role::Porter, JailerToPorter::Gone { session }, Vec::new());
        self.tell(Role::Tally, JailerToTally::Gone { session }, Vec::new());
        match self.roles.contains_key(&Role::Warden) {
            true => self.tell(Role::Warden, JailerToWarden::Gone { session }, Vec::new()),
            false => self.mourned.push((session, jail.user, jail.note)),
        }
    }

    fn remember(&mut self, session: SessionId) {
        self.gone.push_back(session);
        if self.gone.len() > REMEMBERED {
            self.gone.pop_front();
        }
    }
}

fn sentence(packet: &[u8]) -> String {
    String::from_utf8_lossy(packet.get(1..).unwrap_or_default()).into_owned()
}

/// What the container addresses ask for; 256 bits that only this jail and the porter know.
fn random_token() -> Result<Secret, Fault> {
    let mut bytes = [0u8; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).step("get random bytes")?;
    Ok(Secret::new(bytes.iter().map(|b| format!("{b:02x}")).collect()))
}

/// Three pipes: our ends, and the program's, which the user may open again by /dev/stdin and its like.
fn pipes(first_uid: u32) -> Result<(Vec<OwnedFd>, Vec<OwnedFd>), Fault> {
    use rustix::fs::{Uid, fchown};
    use rustix::pipe::{PipeFlags, pipe_with};
    let make = || pipe_with(PipeFlags::CLOEXEC).step("make a pipe");
    let ((input, feed), (output, print), (errors, complain)) = (make()?, make()?, make()?);
    let theirs = vec![input, print, complain];
    for end in &theirs {
        fchown(end, Some(Uid::from_raw(first_uid + super::rootfs::USER)), None).step("own a pipe")?;
    }
    Ok((vec![feed, output, errors], theirs))
}

/// The later a line stands, the more it counts: the client's wishes never hide what the jail says of itself.
fn environment(plan: &Plan, jail: &Jail, wish: &Wish) -> Vec<(String, String)> {
    let mut all = plan.environment.clone();
    all.extend(wish.environment.clone());
    let name = jail.user.as_str();
    let mut say = |key: &str, value: &str| all.push((key.to_owned(), value.to_owned()));
    say("USER", name);
    say("LOGNAME", name);
    say("HOME", &format!("/home/{name}"));
    say("SHELL", &plan.shell);
    if let Some(terminal) = &wish.terminal {
        say("TERM", &terminal.term);
    }
    say("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v1/credentials");
    say("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/run/stockade/token");
    say("AWS_CONTAINER_AUTHORIZATION_TOKEN", jail.token.expose());
    if let Some(region) = &jail.region {
        say("AWS_REGION", region);
        say("AWS_DEFAULT_REGION", region);
    }
    all
}
