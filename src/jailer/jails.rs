//! Jails: what the warden asks of them, how they are buried.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Signal, kill_process_group};

use super::build::{self, Tools};
use super::enter::{self, Launch};
use super::fault::{Fault, Step};
use super::jail::{Channel, Jail, Stage};
use super::plan::Plan;
use super::program;
use super::rootfs::Bundle;
use super::supervise::Jailer;
use super::userns::{self, RANGE};
use super::watch::Source;
use crate::audit::Event;
use crate::identity::{Principal, Secret};
use crate::privsep::message::{JailerToPorter, JailerToWarden, Number, WardenToJailer, Wish};
use crate::privsep::{Role, table};
use crate::session::SessionId;

/// Ids that are gone: the warden may still ask about one that has just ended.
const REMEMBERED: usize = 4096;

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
            WardenToJailer::Start { session, number, wish, clusters } => {
                if let Err(fault) = self.start(session, number, &wish, clusters.as_deref()) {
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
                self.free_slots.push_front(slot);
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
        program::keep(&self.run)?;
        let first_uid = self.plan.uid_base + slot * RANGE;
        let token = random_token()?;
        let userns = self.user_namespace(slot)?;
        let cgroup = self.cgroups.create(session.to_string(), &self.plan.limits)?;
        let bundle = Bundle {
            base: &format!("{}/jail", self.run),
            image: &self.plan.rootfs,
            user,
            userns: userns.as_fd(),
            first_uid,
            scratch: self.plan.limits.scratch,
            home: home.as_deref(),
            program: &program::place(&self.run),
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

    /// A slot's: it is made once, for nothing in it outlives the processes of a jail but the map of uids.
    fn user_namespace(&mut self, slot: u32) -> Result<OwnedFd, Fault> {
        let made = match self.user_namespaces.entry(slot) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(none) => none.insert(userns::make(&self.alone, self.plan.uid_base + slot * RANGE)?),
        };
        made.try_clone().step("hold the user namespace")
    }

    fn start(
        &mut self,
        session: SessionId,
        number: Number,
        wish: &Wish,
        clusters: Option<&[String]>,
    ) -> Result<(), Fault> {
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
            environment: &environment(&self.plan, jail, wish, clusters),
            exec_audit: self.plan.exec_audit,
            in_step: clusters.is_some(),
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

    pub(super) fn not_started(&mut self, session: SessionId, number: Number, reason: String) {
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

    pub(super) fn end(&mut self, session: SessionId) {
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

    /// Takes away an ended jail, when the last of its processes is reaped.
    pub(super) fn bury(&mut self, session: SessionId) {
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
fn environment(plan: &Plan, jail: &Jail, wish: &Wish, clusters: Option<&[String]>) -> Vec<(String, String)> {
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
    if let Some(clusters) = clusters {
        // For `LOGIN` alone, which takes it away. No name has a space in it.
        say(enter::CLUSTERS, &clusters.join(" "));
    }
    if let Some(region) = &jail.region {
        say("AWS_REGION", region);
        say("AWS_DEFAULT_REGION", region);
    }
    all
}
