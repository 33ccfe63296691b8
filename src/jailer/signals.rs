//! What signals ask: a new configuration, or the end.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::notice::{self, Notice};
use super::plan::Plan;
use super::roles::Running;
use super::start::{NoPlan, load};
use super::supervise::Jailer;
use crate::audit::Event;
use crate::privsep::Role;
use crate::sys::signal;

/// How long roles have to finish what they write.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

impl Jailer {
    pub(super) fn hear_signals(&mut self, signals: &OwnedFd) {
        while let Ok(Some(number)) = signal::next(signals.as_fd()) {
            match number {
                libc::SIGHUP => self.reload(),
                _ => self.stop(number),
            }
        }
    }

    /// A new configuration for jails to come, or the reason why there is none.
    fn reload(&mut self) {
        match load(&self.alone, &self.program, &self.configuration, Some(&self.held.configuration)) {
            Ok((plan, held)) => {
                let outward = plan.reaches_out != self.plan.reaches_out;
                // What the first configuration opened stays; uids cannot change under jails that stand.
                self.plan = Plan {
                    instance: self.plan.instance.clone(),
                    accounts: self.plan.accounts.clone(),
                    uid_base: self.plan.uid_base,
                    max_jails: self.plan.max_jails,
                    homes: self.plan.homes.clone(),
                    portal: self.plan.portal,
                    ..plan
                };
                self.held.configuration = held.configuration;
                self.held.keys = held.keys;
                self.held.host_keys = held.host_keys;
                self.held.portal.certificate = held.portal.certificate;
                self.held.kubeconfigs = held.kubeconfigs;
                for role in Role::ALL {
                    self.begin(role, true);
                }
                // A network namespace is for a process's life; the doors wait for the next one.
                if let Some(porter) = self.roles.get(&Role::Porter).filter(|_| outward) {
                    porter.kill();
                }
                self.event(Event::ConfigurationLoaded { digest: self.plan.digest.clone() });
                eprintln!("stockade: jailer: a new configuration is in force");
            }
            Err(NoPlan::Refused { reason, .. }) => {
                self.event(Event::ConfigurationRefused { reason });
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
        notice::give(Notice::Stopping);
        for door in [Role::Gate, Role::Portal] {
            if let Some(door) = self.roles.get(&door) {
                door.kill();
            }
        }
        self.end_all();
        self.event(Event::Stopped { reason: format!("signal {signal}") });
    }

    /// After a signal: first the jails, then the roles by the end of their control sockets, then ourselves.
    pub(super) fn finished(&mut self) -> Option<ExitCode> {
        let since = self.stopping?;
        let late = since.elapsed() > STOP_DEADLINE;
        if !self.jails.is_empty() && !late {
            return None;
        }
        // In the reverse order of their start: whoever records hears the others out.
        if let Some(last) = Role::ALL.iter().rev().find_map(|role| self.roles.get(role))
            && !last.is_behind()
        {
            let _ = rustix::net::shutdown(&last.control, rustix::net::Shutdown::Write);
        }
        if late {
            self.roles.values().for_each(Running::kill);
        }
        if !self.roles.is_empty() && !late {
            return None;
        }
        // The house is kept once more a moment later.
        if !self.resting.is_empty() && !late {
            return None;
        }
        self.cgroups.close();
        self.homes.close();
        super::start::tidy(&self.run);
        Some(ExitCode::SUCCESS)
    }
}
