use std::io::Read;
use std::time::Duration;

use super::{Event, Exec, KubeStream, ReadError, Reader, State, Terminal};
use crate::session::channel_name;

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

/// A channel of the session, or a stream of its to a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    pub number: u32,
    pub opened: Duration,
    /// `None`: a login shell.
    pub program: Option<String>,
    /// Of a stream: as it first was.
    pub terminal: Option<Terminal>,
    pub environment: Vec<(String, String)>,
    pub exit: Option<Exit>,
    pub stream: Option<Box<KubeStream>>,
}

impl Channel {
    /// c1, k1, …
    pub fn name(&self) -> String {
        channel_name(self.number)
    }

    fn of_stream(number: u32, opened: Duration, stream: Box<KubeStream>) -> Self {
        // What container runtimes tell a program with a terminal. Its size is its client's first word: a resize.
        let term = "xterm".to_owned();
        let terminal = Terminal { term, columns: 0, rows: 0, width: 0, height: 0, modes: Vec::new() };
        Self {
            number,
            opened,
            program: Some(stream.title()),
            terminal: stream.terminal.then_some(terminal),
            environment: Vec::new(),
            exit: None,
            stream: Some(stream),
        }
    }
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
        let streams = summary.channels.iter_mut().filter(|channel| channel.stream.is_some());
        for terminal in streams.filter_map(|channel| channel.terminal.as_mut()).filter(|t| t.columns == 0) {
            (terminal.columns, terminal.rows) = (80, 24);
        }
        if let Some(closing) = reader.closing() {
            summary.state = if closing.recovered() { State::Recovered } else { State::Closed };
        }
        summary
    }

    fn add(&mut self, at: Duration, event: Event) {
        match event {
            Event::Channel { number, program, terminal, environment } => {
                let channel = Channel { number, opened: at, program, terminal, environment, exit: None, stream: None };
                self.channels.push(channel);
            }
            Event::KubeStream { number, stream } => self.channels.push(Channel::of_stream(number, at, stream)),
            Event::Resize { number, columns, rows, .. } => self.set_size(number, columns, rows),
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

    /// A stream's terminal has its first size from its client's first word.
    fn set_size(&mut self, number: u32, columns: u16, rows: u16) {
        let channel = self.channels.iter_mut().rfind(|channel| channel.number == number && channel.stream.is_some());
        if let Some(terminal) = channel.and_then(|channel| channel.terminal.as_mut())
            && terminal.columns == 0
        {
            (terminal.columns, terminal.rows) = (columns, rows);
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
