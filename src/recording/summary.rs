use std::io::Read;
use std::time::Duration;

use super::{Event, Exec, ReadError, Reader, State, Terminal};

/// What a whole recording tells, without its bytes.
#[derive(Debug)]
pub struct Summary {
    pub channels: Vec<Channel>,
    /// When, in which channel, what. Attempts; arguments are the caller's word.
    pub execs: Vec<(Duration, u32, Exec)>,
    /// When, access key id, expiry in seconds since the epoch.
    pub credentials: Vec<(Duration, String, i64)>,
    pub notes: Vec<(Duration, String)>,
    pub state: State,
    /// Why reading stopped before the end.
    pub fault: Option<ReadError>,
}

/// A channel of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    pub number: u32,
    pub opened: Duration,
    /// `None`: a login shell.
    pub program: Option<String>,
    pub terminal: Option<Terminal>,
    pub environment: Vec<(String, String)>,
    pub exit: Option<Exit>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    Status(u32),
    Signal(String),
}

impl Summary {
    /// Reads to the end, or to the first fault.
    pub fn of<R: Read>(reader: &mut Reader<R>) -> Self {
        let mut summary = Self {
            channels: Vec::new(),
            execs: Vec::new(),
            credentials: Vec::new(),
            notes: Vec::new(),
            state: State::Unclosed,
            fault: None,
        };
        for recorded in reader.by_ref() {
            match recorded {
                Ok(recorded) => summary.add(recorded.at, recorded.event),
                Err(fault) => summary.fault = Some(fault),
            }
        }
        if let Some(closing) = reader.closing() {
            summary.state = if closing.recovered() { State::Recovered } else { State::Closed };
        }
        summary
    }

    fn add(&mut self, at: Duration, event: Event) {
        match event {
            Event::Channel { number, program, terminal, environment } => {
                self.channels.push(Channel { number, opened: at, program, terminal, environment, exit: None });
            }
            Event::Exec { number, exec } => self.execs.push((at, number, exec)),
            Event::ExitStatus { number, status } => self.set_exit(number, Exit::Status(status)),
            Event::ExitSignal { number, name } => self.set_exit(number, Exit::Signal(name)),
            Event::Credential { access_key_id, expires } => self.credentials.push((at, access_key_id, expires)),
            Event::Note { text } => self.notes.push((at, text)),
            Event::Clock { wall: _, jump } => {
                let seconds = jump as f64 / 1e6;
                self.notes.push((at, format!("the wall clock jumped by {seconds:+.3} s")));
            }
            _ => {}
        }
    }

    fn set_exit(&mut self, number: u32, exit: Exit) {
        if let Some(channel) = self.channels.iter_mut().rfind(|channel| channel.number == number) {
            channel.exit = Some(exit);
        }
    }

    /// The channel that a reader wants who names none: the first with a terminal, or else the first.
    pub fn main_channel(&self) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.terminal.is_some()).or(self.channels.first())
    }
}
