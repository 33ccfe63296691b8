//! The loop: what the warden asks, what jails report, who has died.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::cgroup::{Cgroup, Cgroups};
use super::fault::{Fault, Step};
use super::filter::Filters;
use super::home::Homes;
use super::jail::{Jail, Stage, reap};
use super::notice::{self, Notice};
use super::plan::{Held, Plan};
use super::roles::Running;
use super::start::sealed;
use super::watch::{Source, Watch};
use crate::audit::Event;
use crate::identity::Principal;
use crate::privsep::link::{LinkError, decode, encode, pair, recv_packet};
use crate::privsep::message::{FromJailer, JailerToKeeper, JailerToWarden, Message, WardenToJailer};
use crate::privsep::{Accusation, Role};
use crate::session::SessionId;
use crate::sys::clone::Alone;

/// A role that dies again within this time waits this long before its next start.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Events that wait for a keeper.
const MOST_UNTOLD: usize = 1024;
/// How names become addresses on this host; read again at each reload.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// Everything the jailer holds.
#[derive(Debug)]
pub struct Jailer {
    pub(super) cgroups: Cgroups,
    pub(super) homes: Homes,
    pub(super) filters: Filters,
    pub(super) init: OwnedFd,
    pub(super) own_pids: OwnedFd,
    pub(super) alone: Alone,
    pub(super) plan: Plan,
    pub(super) held: Held,
    pub(super) program: OwnedFd,
    pub(super) configuration: String,
    pub(super) run: String,
    pub(super) watch: Watch,
    pub(super) roles: BTreeMap<Role, Running>,
    pub(super) restarts: BTreeMap<Role, Instant>,
    pub(super) jails: BTreeMap<SessionId, Jail>,
    pub(super) free_slots: VecDeque<u32>,
    pub(super) user_namespaces: BTreeMap<u32, OwnedFd>,
    /// Cgroups that were still busy when their jail was gone, and the slots that rest with them.
    pub(super) resting: Vec<(Cgroup, u32)>,
    pub(super) gone: VecDeque<SessionId>,
    /// What went while there was no warden to tell: it told audit and recorder of the beginning, its successor must of the
    /// end.
    pub(super) mourned: Vec<(SessionId, Principal, Vec<u8>)>,
    pub(super) stopping: Option<Instant>,
    /// What happened while there was no keeper to tell.
    pub(super) untold: VecDeque<Event>,
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
            own_pids: std::fs::File::open("/proc/self/ns/pid").step("open the pid namespace")?.into(),
            watch: Watch::new().step("make an epoll instance")?,
            free_slots: (0..plan.max_jails).collect(),
            user_namespaces: BTreeMap::new(),
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
            mourned: Vec::new(),
            stopping: None,
            untold: VecDeque::new(),
        })
    }

    /// Starts the roles and answers the warden until a signal and the last jail's end.
    pub fn serve(&mut self, signals: &OwnedFd) -> Result<ExitCode, Fault> {
        self.watch.add(Source::Signals, signals).step("watch for signals")?;
        for role in Role::ALL {
            if self.plan.account(role).is_some() {
                self.start_role(role)?;
            }
        }
        self.event(Event::Started { version: env!("CARGO_PKG_VERSION").into() });
        self.event(Event::ConfigurationLoaded { digest: self.plan.digest.clone() });
        notice::give(Notice::Ready);
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
            Source::Program(session, number) => self.program_died(session, number),
        }
    }

    // ---- roles -------------------------------------------------------------------------------------------------

    fn start_role(&mut self, role: Role) -> Result<(), Fault> {
        let account = self.plan.account(role).ok_or_else(|| Fault::new("start a role", "it has no account"))?;
        let base = format!("{}/empty", self.run);
        let network = match role {
            // AWS.
            Role::Warden => true,
            Role::Porter => self.plan.reaches_out,
            Role::Keeper | Role::Tally | Role::Gate | Role::Portal => false,
        };
        let running = Running::start(&self.alone, role, account, self.program.as_fd(), &base, network)?;
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
        if role == Role::Keeper {
            std::mem::take(&mut self.untold).into_iter().for_each(|event| self.event(event));
        }
        Ok(())
    }

    /// Hands a role the configuration and what else it holds.
    pub(super) fn begin(&mut self, role: Role, again: bool) {
        let mut ride = vec![self.held.configuration.try_clone()];
        match role {
            Role::Keeper => ride.extend([self.held.recordings.try_clone(), self.held.audit.try_clone()]),
            Role::Warden => {
                let held = [&self.held.keys, &self.held.locks, &self.held.lock_changes];
                ride.extend(held.map(OwnedFd::try_clone));
                ride.extend(self.held.kubeconfigs.iter().map(OwnedFd::try_clone));
            }
            Role::Tally => ride.push(std::fs::File::open("/proc").map(OwnedFd::from)),
            Role::Porter if self.plan.reaches_out => ride.extend([RESOLV_CONF, HOSTS].map(text_of_host)),
            Role::Porter => {}
            Role::Gate if again => {}
            Role::Gate => {
                ride.extend(self.held.host_keys.iter().map(OwnedFd::try_clone));
                ride.extend(self.held.listeners.iter().map(OwnedFd::try_clone));
            }
            Role::Portal => {
                ride.extend(self.held.portal.certificate.iter().map(OwnedFd::try_clone));
                let listeners = self.held.portal.listeners.iter().filter(|_| !again);
                ride.extend(listeners.map(OwnedFd::try_clone));
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
        // A jail on its way out is the warden's affair until it is gone.
        let told = |jail: &Jail| match jail.stage {
            Stage::Standing => true,
            Stage::Ending => role == Role::Warden,
            Stage::Building => false,
        };
        let standing: Vec<SessionId> = self.jails.iter().filter(|(_, jail)| told(jail)).map(|(id, _)| *id).collect();
        for session in standing {
            match role {
                Role::Porter => self.open_doors(session),
                Role::Tally => self.watch_execs(session),
                Role::Warden => self.tell_running(session),
                Role::Keeper | Role::Gate | Role::Portal => {}
            }
        }
        if role == Role::Warden {
            for (session, user, note) in std::mem::take(&mut self.mourned) {
                let running = JailerToWarden::Running { session, user, note, numbers: Vec::new() };
                self.tell(Role::Warden, running, Vec::new());
                self.tell(Role::Warden, JailerToWarden::Gone { session }, Vec::new());
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

    pub(super) fn tell<T: Message>(&mut self, role: Role, told: T, ride: Vec<OwnedFd>) {
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

    pub(super) fn event(&mut self, event: Event) {
        if self.roles.get(&Role::Keeper).is_some_and(|keeper| !keeper.is_killed()) {
            return self.tell(Role::Keeper, JailerToKeeper::Event(event), Vec::new());
        }
        self.untold.push_back(event);
        if self.untold.len() > MOST_UNTOLD {
            self.untold.pop_front();
        }
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

    pub(super) fn breach(&mut self, role: Role, what: &str) {
        eprintln!("stockade: jailer: {role} broke the protocol ({what}) and is ended");
        if let Some(running) = self.roles.get(&role) {
            running.kill();
        }
        self.event(Event::RoleBreach { role, what: what.to_owned() });
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
        if let Some(accused) = Accusation::read(role, status) {
            self.breach(accused, &format!("the {role} heard it"));
        }
        match role {
            // What runs without a record must not go on.
            Role::Keeper => self.end_all(),
            // Nobody waits for these any more; the jails that stand are told to the next warden.
            Role::Warden => self.end_unfinished(),
            Role::Gate | Role::Portal | Role::Porter | Role::Tally => {}
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

    // ---- housekeeping ------------------------------------------------------------------------------------------

    /// A slot is used again only when its cgroup is empty and gone.
    fn keep_house(&mut self) {
        let (cgroups, free) = (&self.cgroups, &mut self.free_slots);
        self.resting.retain(|(cgroup, slot)| {
            let removed = cgroups.remove(cgroup);
            if removed {
                // In front: its user namespace is made already.
                free.push_front(*slot);
            }
            !removed
        });
        self.homes.tidy();
        if self.stopping.is_none() {
            self.restart_due();
        }
    }
}

/// A file that a host may do without.
fn text_of_host(path: &str) -> std::io::Result<OwnedFd> {
    std::fs::File::open(path).or_else(|_| std::fs::File::open("/dev/null")).map(OwnedFd::from)
}

/// For messages of `FromJailer` that say nothing to one role alone.
type Untold = crate::privsep::message::Silence;
