//! The descriptors the loop waits on.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use crate::privsep::Role;
use crate::privsep::message::Number;
use crate::session::SessionId;

/// What became readable (or ended).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Signals,
    Control(Role),
    Process(Role),
    /// Reports of a jail's first process.
    Jail(SessionId),
    Init(SessionId),
    /// Reports of a channel on its way.
    Reports(SessionId, Number),
    Program(SessionId, Number),
}

/// An epoll instance and what its numbers mean.
#[derive(Debug)]
pub struct Watch {
    epoll: OwnedFd,
    sources: BTreeMap<u64, Source>,
    numbers: BTreeMap<Source, u64>,
    next: u64,
}

impl Watch {
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, sources: BTreeMap::new(), numbers: BTreeMap::new(), next: 0 })
    }

    pub fn add(&mut self, source: Source, descriptor: impl AsFd) -> io::Result<()> {
        self.next += 1;
        epoll::add(&self.epoll, descriptor, epoll::EventData::new_u64(self.next), epoll::EventFlags::IN)?;
        self.sources.insert(self.next, source);
        self.numbers.insert(source, self.next);
        Ok(())
    }

    /// Also, or no longer, waits until something can be written.
    pub fn writable(&self, source: Source, descriptor: impl AsFd, wanted: bool) -> io::Result<()> {
        let Some(number) = self.numbers.get(&source) else { return Ok(()) };
        let mut flags = epoll::EventFlags::IN;
        flags.set(epoll::EventFlags::OUT, wanted);
        Ok(epoll::modify(&self.epoll, descriptor, epoll::EventData::new_u64(*number), flags)?)
    }

    /// Before the descriptor is closed: a copy in another process would keep it in the set.
    pub fn remove(&mut self, source: Source, descriptor: impl AsFd) {
        if let Some(number) = self.numbers.remove(&source) {
            self.sources.remove(&number);
            let _ = epoll::delete(&self.epoll, descriptor);
        }
    }

    /// What is ready; a source that is removed while the others of the batch are handled must be looked up again.
    pub fn wait(&self, at_most: Duration) -> io::Result<Vec<u64>> {
        let mut events = Vec::with_capacity(64);
        let timeout = Timespec { tv_sec: at_most.as_secs().cast_signed(), tv_nsec: at_most.subsec_nanos().into() };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) => Ok(events.iter().map(|event| event.data.u64()).collect()),
            Err(rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(e) => Err(e.into()),
        }
    }

    pub fn source(&self, number: u64) -> Option<Source> {
        self.sources.get(&number).copied()
    }
}
