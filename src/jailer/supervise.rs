//! The loop: what the warden asks, what jails report, who has died.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::{Signal, pidfd_send_signal};

use super::build::{self, Tools, report};
use super::cgroup::{Cgroup, Cgroups};
use super::enter::{self, Launch};
use super::fault::{Fault, Step};
use super::filter::Filters;
use super::home::Homes;
use super::jail::{Channel, Jail, Stage, Wish, reap};
use super::plan::{Held, Plan};
use super::roles::Running;
use super::rootfs::Bundle;
use super::start::{NoPlan, load, sealed};
use super::userns::{self, RANGE};
use super::watch::{Source, Watch};
use crate::audit::Event;
use crate::identity::{Principal, Secret};
use crate::privsep::link::{LinkError, decode, encode, pair, recv_packet};
use crate::privsep::message::{
    FromJailer, JailerToGate, JailerToKeeper, JailerToPorter, JailerToTally, JailerToWarden, Message, Number,
    WardenToJailer,
};
use crate::privsep::{Role, table};
use crate::session::SessionId;
use crate::sys::clone::Alone;
use crate::sys::signal;

/// A role that dies again within this time waits this long before its next start.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// How long roles have to finish what they write.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Ids that are gone: the warden may still ask about one that has just ended.
const REMEMBERED: usize = 4096;

/// Everything the jailer holds.
#[derive(Debug)]
pub struct Jailer {
    cgroups: Cgroups,
    homes: Homes,
    filters: Filters,
    init: OwnedFd,
    alone: Alone,
    plan: Plan,
    held: Held,
    program: OwnedFd,
    configuration: String,
    run: String,
    watch: Watch,
    roles: BTreeMap<Role, Running>,
    restarts: BTreeMap<Role, Instant>,
    jails: BTreeMap<SessionId, Jail>,
    free_slots: VecDeque<u32>,
    /// Cgroups that were still busy when their jail was gone, and the slots that rest with them.
    resting: Vec<(Cgroup, u32)>,
    gone: VecDeque<SessionId>,
    stopping: Option<Instant>,
}

impl Jailer {
    pub fn new(
        alone: Alone,
        plan: Plan,
        held: Held,
        program: OwnedFd,
        configuration: String,
        run: String,
    ) -> Result<Self, Fault> {
        Ok(Self {
            cgroups: Cgroups::open(&plan.instance)?,
            homes: Homes::new(&plan.homes, &run),
            filters: Filters::compile().step("compile the seccomp filters")?,
            init: sealed("stockade-init", crate::sys::INIT)?,
            watch: Watch::new().step("make an epoll instance")?,
            free_slots: (0..plan.max_jails).collect(),
            alone,
            plan,
            held,
            program,
            configuration,
            run,
            roles: BTreeMap::new(),
            restarts: BTreeMap::new(),
            jails: BTreeMap::new(),
            resting: Vec::new(),
            gone: VecDeque::new(),
            stopping: None,
        })
    }

    /// Starts the roles and answers the warden until a signal and the last jail's end.
    pub fn serve(&mut self, signals: &OwnedFd) -> Result<ExitCode, Fault> {
        self.watch.add(Source::Signals, signals).step("watch for signals")?;
        for role in Role::ALL {
            self.start_role(role)?;
        }
        self.event(Event::Started { version: env!("CARGO_PKG_VERSION").into() });
        self.event(Event::ConfigurationLoaded { digest: self.plan.digest.clone() });
        loop {
            for number in self.watch.wait(Duration::from_millis(500)).step("wait for events")? {
                // Handling one event may have removed the source of another of the same batch.
                if let Some(source) = self.watch.source(number) {
                    self.handle(source, signals);
                }
            }
            self.keep_house();
            if let Some(code) = self.finished() {
                return Ok(code);
            }
        }
    }

    fn handle(&mut self, source: Source, signals: &OwnedFd) {
        match source {
            Source::Signals => self.hear_signals(signals),
            Source::Control(role) => self.hear_role(role),
            Source::Process(role) => self.role_died(role),
            Source::Jail(session) => self.hear_jail(session),
            Source::Init(session) => self.init_died(session),
            Source::Reports(session, number) => self.hear_channel(session, number),
            Source::Helper(session, number) => self.helper_died(session, number),
            Source::Program(session, number) => self.program_died(session, number),
        }
    }

    // ---- roles -------------------------------------------------------------------------------------------------

    fn start_role(&mut self, role: Role) -> Result<(), Fault> {
        let account = self.plan.account(role).ok_or_else(|| Fault::new("start a role", "it has no account"))?;
        let base = format!("{}/empty", self.run);
        let running = Running::start(&self.alone, role, account, self.program.as_fd(), &base)?;
        self.watch.add(Source::Process(role), &running.pidfd).step("watch a role")?;
        self.watch.add(Source::Control(role), &running.control).step("watch a role")?;
        self.roles.insert(role, running);
        self.begin(role, false);
        for (a, b) in Role::LINKS {
            if (a == role && self.roles.contains_key(&b)) || (b == role && self.roles.contains_key(&a)) {
                self.introduce(a, b);
            }
        }
        self.tell_what_stands(role);
        Ok(())
    }

    /// Hands a role the configuration and what else it holds.
    fn begin(&mut self, role: Role, again: bool) {
        let mut ride = vec![self.held.configuration.try_clone()];
        match role {
            Role::Keeper => ride.extend([self.held.recordings.try_clone(), self.held.audit.try_clone()]),
            Role::Warden => ride.push(self.held.keys.try_clone()),
            Role::Tally => ride.push(std::fs::File::open("/proc").map(OwnedFd::from)),
            Role::Porter => {}
            Role::Gate if again => {}
            Role::Gate => {
                ride.extend(self.held.host_keys.iter().map(OwnedFd::try_clone));
                ride.extend(self.held.listeners.iter().map(OwnedFd::try_clone));
            }
        }
        let Ok(ride) = ride.into_iter().collect::<std::io::Result<Vec<_>>>() else {
            eprintln!("stockade: jailer: no descriptors left for {role}");
            return;
        };
        self.tell_all::<Untold>(role, if again { FromJailer::Reload } else { FromJailer::Begin }, ride);
    }

    /// Gives two roles a new link.
    fn introduce(&mut self, a: Role, b: Role) {
        match pair() {
            Ok((one, other)) => {
                self.tell_all::<Untold>(a, FromJailer::Peer(b), vec![one]);
                self.tell_all::<Untold>(b, FromJailer::Peer(a), vec![other]);
            }
            Err(e) => eprintln!("stockade: jailer: cannot link {a} and {b}: {e}"),
        }
    }

    /// What a role that was started again must know of the jails.
    fn tell_what_stands(&mut self, role: Role) {
        let standing: Vec<SessionId> =
            self.jails.iter().filter(|(_, jail)| jail.stage == Stage::Standing).map(|(id, _)| *id).collect();
        for session in standing {
            match role {
                Role::Porter => self.open_doors(session),
                Role::Tally => self.watch_execs(session),
                Role::Warden => self.tell_running(session),
                Role::Keeper | Role::Gate => {}
            }
        }
    }

    fn tell_running(&mut self, session: SessionId) {
        let Some(jail) = self.jails.get(&session) else { return };
        let running = JailerToWarden::Running {
            session,
            user: jail.user.clone(),
            note: jail.note.clone(),
            numbers: jail.channels.keys().copied().collect(),
        };
        self.tell(Role::Warden, running, Vec::new());
    }

    fn tell<T: Message>(&mut self, role: Role, told: T, ride: Vec<OwnedFd>) {
        self.tell_all(role, FromJailer::Told(told), ride);
    }

    fn tell_all<T: Message>(&mut self, role: Role, message: FromJailer<T>, ride: Vec<OwnedFd>) {
        let Some(running) = self.roles.get_mut(&role) else { return };
        if !running.tell(encode(&message), ride) {
            eprintln!("stockade: jailer: {role} does not listen any more and is ended");
            running.kill();
        }
        let _ = self.watch.writable(Source::Control(role), &running.control, running.is_behind());
    }

    fn event(&mut self, event: Event) {
        self.tell(Role::Keeper, JailerToKeeper::Event(event), Vec::new());
    }

    /// A control socket is readable, or writable again. Only the warden has anything to say.
    fn hear_role(&mut self, role: Role) {
        let Some(running) = self.roles.get_mut(&role) else { return };
        running.flush();
        let _ = self.watch.writable(Source::Control(role), &running.control, running.is_behind());
        let mut packet = Vec::new();
        match recv_packet(running.control.as_fd(), &mut packet) {
            Err(LinkError::Socket(e)) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            // The role is about to die, or has closed its only way of hearing: either way it is of no more use.
            Err(LinkError::Closed | LinkError::Socket(_)) => running.kill(),
            Err(LinkError::Breach(what)) => self.breach(role, what),
            Ok(_) if role != Role::Warden => self.breach(role, "it spoke to the jailer"),
            Ok(descriptors) => match decode::<WardenToJailer>(&packet, descriptors.len()) {
                Ok(ask) => self.answer(ask),
                Err(_) => self.breach(role, "an unknown message"),
            },
        }
    }

    fn breach(&mut self, role: Role, what: &str) {
        eprintln!("stockade: jailer: {role} broke the protocol ({what}) and is ended");
        self.event(Event::RoleBreach { role, what: what.to_owned() });
        if let Some(running) = self.roles.get(&role) {
            running.kill();
        }
    }

    fn role_died(&mut self, role: Role) {
        let Some(running) = self.roles.remove(&role) else { return };
        let status = reap(&running.pidfd);
        self.watch.remove(Source::Process(role), &running.pidfd);
        self.watch.remove(Source::Control(role), &running.control);
        if self.stopping.is_some() {
            return;
        }
        eprintln!("stockade: jailer: {role} ended (status {status:#x}) and is started again");
        match role {
            // What runs without a record must not go on.
            Role::Keeper => self.end_all(),
            // Nobody waits for these any more; the jails that stand are told to the next warden.
            Role::Warden => self.end_unfinished(),
            Role::Gate | Role::Porter | Role::Tally => {}
        }
        let short_lived = running.since.elapsed() < RESTART_PAUSE;
        let at = if short_lived { Instant::now() + RESTART_PAUSE } else { Instant::now() };
        self.restarts.insert(role, at);
        let reason = format!("it ended with status {status:#x}");
        self.event(Event::RoleRestarted { role, reason });
        self.restart_due();
    }

    fn restart_due(&mut self) {
        let now = Instant::now();
        let due: BTreeSet<Role> = self.restarts.iter().filter(|(_, at)| **at <= now).map(|(role, _)| *role).collect();
        for role in due {
            self.restarts.remove(&role);
            if let Err(fault) = self.start_role(role) {
                eprintln!("stockade: jailer: cannot start {role}: {fault}");
                self.restarts.insert(role, now + RESTART_PAUSE);
            }
        }
    }

    // ---- what the warden asks ----------------------------------------------------------------------------------

    fn answer(&mut self, ask: WardenToJailer) {
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
        let tools = Tools { alone: &self.alone, filters: &self.filters, init: self.init.as_fd() };
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
        let tools = Tools { alone: &self.alone, filters: &self.filters, init: self.init.as_fd() };
        let begun = enter::begin(&tools, &launch, &jail.cgroup)?;
        self.watch.add(Source::Reports(session, number), &begun.reports).step("watch a channel")?;
        self.watch.add(Source::Helper(session, number), &begun.helper).step("watch a channel")?;
        let channel =
            Channel { helper: Some(begun.helper), reports: Some(begun.reports), pipes: ours, ..Channel::default() };
        jail.channels.insert(number, channel);
        Ok(())
    }

    fn not_started(&mut self, session: SessionId, number: Number, reason: String) {
        self.tell(Role::Warden, JailerToWarden::NotStarted { session, number, reason }, Vec::new());
    }

    /// To the program's process; what it has started is reached by its terminal or with the jail's end.
    fn signal(&mut self, session: SessionId, number: Number, signal: i32) {
        let program = self.jails.get(&session).and_then(|j| j.channels.get(&number)).and_then(|c| c.program.as_ref());
        if let (Some(program), Some(signal)) = (program, Signal::from_named_raw(signal)) {
            let _ = pidfd_send_signal(program, signal);
        }
    }

    fn end(&mut self, session: SessionId) {
        if let Some(jail) = self.jails.get_mut(&session) {
            jail.kill();
        }
    }

    fn end_all(&mut self) {
        self.jails.values_mut().for_each(Jail::kill);
    }

    fn end_unfinished(&mut self) {
        self.jails.values_mut().filter(|jail| jail.stage == Stage::Building).for_each(Jail::kill);
    }

    // ---- what jails report -------------------------------------------------------------------------------------

    fn hear_jail(&mut self, session: SessionId) {
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
                jail.kill();
            }
        }
    }

    fn open_doors(&mut self, session: SessionId) {
        let Some(jail) = self.jails.get(&session) else { return };
        let Ok(ride) = jail.doors.iter().map(OwnedFd::try_clone).collect::<std::io::Result<Vec<_>>>() else { return };
        let doors = JailerToPorter::Doors { session, user: jail.user.clone(), token: jail.token.clone() };
        self.tell(Role::Porter, doors, ride);
    }

    fn watch_execs(&mut self, session: SessionId) {
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

    fn hear_channel(&mut self, session: SessionId, number: Number) {
        let Some(channel) = self.jails.get_mut(&session).and_then(|jail| jail.channels.get_mut(&number)) else {
            return;
        };
        let Some(reports) = &channel.reports else { return };
        let mut packet = Vec::new();
        match recv_packet(reports.as_fd(), &mut packet) {
            Err(LinkError::Socket(e)) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(ride) => match packet.first() {
                Some(&report::BORN) => {
                    let mut ride = ride.into_iter();
                    channel.program = ride.next();
                    channel.master = ride.next();
                    if let Some(program) = &channel.program {
                        let _ = self.watch.add(Source::Program(session, number), program);
                    }
                }
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
        if channel.program.is_none() || channel.fault.is_some() {
            let fault = channel.fault.clone().unwrap_or_else(|| "the jail ended".into());
            return self.not_started(session, number, fault);
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

    fn helper_died(&mut self, session: SessionId, number: Number) {
        let Some(channel) = self.jails.get_mut(&session).and_then(|jail| jail.channels.get_mut(&number)) else {
            return;
        };
        if let Some(helper) = channel.helper.take() {
            reap(&helper);
            self.watch.remove(Source::Helper(session, number), &helper);
        }
        self.bury(session);
    }

    fn program_died(&mut self, session: SessionId, number: Number) {
        // A short program may end before its start was noticed: keeper and gate must have its stream first.
        while self.is_starting(session, number) {
            self.hear_channel(session, number);
        }
        let Some(channel) = self.jails.get_mut(&session).and_then(|jail| jail.channels.get_mut(&number)) else {
            return;
        };
        let Some(program) = channel.program.take() else { return };
        let status = reap(&program);
        self.watch.remove(Source::Program(session, number), &program);
        if channel.running {
            self.tell(Role::Keeper, JailerToKeeper::Ended { session, number, status }, Vec::new());
            self.tell(Role::Warden, JailerToWarden::Exited { session, number, status }, Vec::new());
        }
        self.bury(session);
    }

    /// The program's process is dead, so all copies of its end are closed and this comes to the end of the reports.
    fn is_starting(&self, session: SessionId, number: Number) -> bool {
        self.jails.get(&session).and_then(|j| j.channels.get(&number)).is_some_and(|c| c.reports.is_some())
    }

    fn init_died(&mut self, session: SessionId) {
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
        if was == Stage::Building {
            let fault = self.jails.get(&session).and_then(|jail| jail.fault.clone());
            let reason = fault.unwrap_or_else(|| "the jail's first process died".into());
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
        self.tell(Role::Warden, JailerToWarden::Gone { session }, Vec::new());
    }

    fn remember(&mut self, session: SessionId) {
        self.gone.push_back(session);
        if self.gone.len() > REMEMBERED {
            self.gone.pop_front();
        }
    }

    // ---- housekeeping ------------------------------------------------------------------------------------------

    /// A slot is used again only when its cgroup is empty and gone.
    fn keep_house(&mut self) {
        let (cgroups, free) = (&self.cgroups, &mut self.free_slots);
        self.resting.retain(|(cgroup, slot)| {
            let removed = cgroups.remove(cgroup);
            if removed {
                free.push_back(*slot);
            }
            !removed
        });
        self.homes.tidy();
        if self.stopping.is_none() {
            self.restart_due();
        }
    }

    fn hear_signals(&mut self, signals: &OwnedFd) {
        while let Ok(Some(number)) = signal::next(signals.as_fd()) {
            match number {
                libc::SIGHUP => self.reload(),
                _ => self.stop(number),
            }
        }
    }

    /// A new configuration for jails to come, or the reason why there is none.
    fn reload(&mut self) {
        match load(&self.alone, &self.program, &self.configuration, true) {
            Ok((plan, held)) => {
                // What the first configuration opened stays; uids cannot change under jails that stand.
                self.plan = Plan {
                    instance: self.plan.instance.clone(),
                    accounts: self.plan.accounts.clone(),
                    uid_base: self.plan.uid_base,
                    max_jails: self.plan.max_jails,
                    homes: self.plan.homes.clone(),
                    ..plan
                };
                self.held.configuration = held.configuration;
                self.held.keys = held.keys;
                for role in Role::ALL {
                    self.begin(role, true);
                }
                self.event(Event::ConfigurationLoaded { digest: self.plan.digest.clone() });
                eprintln!("stockade: jailer: a new configuration is in force");
            }
            Err(NoPlan::Refused(_)) => {
                self.event(Event::ConfigurationRefused { reason: "it has mistakes; the log shows them".into() });
                eprintln!("stockade: jailer: the former configuration stays");
            }
            Err(NoPlan::Fault(fault)) => {
                self.event(Event::ConfigurationRefused { reason: fault.to_string() });
                eprintln!("stockade: jailer: {fault}; the former configuration stays");
            }
        }
    }

    fn stop(&mut self, signal: i32) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Instant::now());
        if let Some(gate) = self.roles.get(&Role::Gate) {
            gate.kill();
        }
        self.end_all();
        self.event(Event::Stopped { reason: format!("signal {signal}") });
    }

    /// After a signal: first the jails, then the roles by the end of their control sockets, then ourselves.
    fn finished(&mut self) -> Option<ExitCode> {
        let since = self.stopping?;
        let late = since.elapsed() > STOP_DEADLINE;
        if !self.jails.is_empty() && !late {
            return None;
        }
        for running in self.roles.values() {
            let _ = rustix::net::shutdown(&running.control, rustix::net::Shutdown::Write);
            if late {
                running.kill();
            }
        }
        if !self.roles.is_empty() && !late {
            return None;
        }
        for (cgroup, _) in &self.resting {
            self.cgroups.remove(cgroup);
        }
        self.homes.close();
        Some(ExitCode::SUCCESS)
    }
}

/// For messages of `FromJailer` that say nothing to one role alone.
type Untold = crate::privsep::message::Silence;

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
