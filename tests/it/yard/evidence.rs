use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use super::{STOCKADE, until};

/// The audit file.
pub struct Audit {
    file: PathBuf,
}

impl Audit {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    pub fn of(&self, code: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["metadata"]["event_code"] == code).collect()
    }

    /// Waits for an event with this code that is the right one.
    #[track_caller]
    pub fn wait_for(&self, code: &str, right: impl Fn(&Value) -> bool) -> Value {
        match super::within(super::wait::DEADLINE, || self.of(code).into_iter().find(&right)) {
            Some(event) => event,
            None => panic!("no such {code} among {:#?}", self.of(code)),
        }
    }
}

pub fn sessions(recordings: &Path) -> Vec<Value> {
    lines(&session(recordings, &["list", "--json"]))
}

/// A recording, as `stockade session` shows it.
pub struct Recording {
    directory: PathBuf,
    pub session: String,
    /// Its events, once it is closed and so as it stays.
    whole: OnceLock<Vec<Value>>,
}

impl Recording {
    pub fn new(directory: PathBuf, session: &str) -> Self {
        Self { directory, session: session.into(), whole: OnceLock::new() }
    }

    /// `export --format json`.
    pub fn events(&self) -> Vec<Value> {
        if let Some(whole) = self.whole.get() {
            return whole.clone();
        }
        let events = lines(&self.export("json"));
        if events.last().is_some_and(|last| last["event"] == "closing") {
            let _ = self.whole.set(events.clone());
        }
        events
    }

    pub fn of(&self, event: &str) -> Vec<Value> {
        self.events().into_iter().filter(|one| one["event"] == event).collect()
    }

    /// The bytes of all events of a kind, in their order.
    pub fn bytes(&self, event: &str) -> Vec<u8> {
        use base64::Engine;
        let decode = |text: &Value| base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap();
        let one = |event: Value| match &event["text"] {
            Value::String(text) => text.clone().into_bytes(),
            _ => decode(&event["base64"]),
        };
        self.of(event).into_iter().flat_map(one).collect()
    }

    pub fn export(&self, format: &str) -> String {
        session(&self.directory, &["export", &self.session, "--format", format])
    }

    /// `session play` of one channel, faster than anybody could look.
    pub fn play(&self, channel: &str) -> String {
        session(&self.directory, &["play", &self.session, "--channel", channel, "--speed", "100000"])
    }

    pub fn show(&self) -> String {
        session(&self.directory, &["show", &self.session])
    }

    /// Waits for its closing frame.
    pub fn closed(self) -> Self {
        until("a closed recording", || self.of("closing").pop());
        self
    }

    /// The files of the recording as they lie on the disk.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut look = vec![self.directory.clone()];
        while let Some(directory) = look.pop() {
            for entry in std::fs::read_dir(directory).unwrap().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => look.push(entry.path()),
                    false if entry.path().to_string_lossy().contains(&self.session) => found.push(entry.path()),
                    false => {}
                }
            }
        }
        found
    }
}

fn session(directory: &Path, arguments: &[&str]) -> String {
    let run = Command::new(STOCKADE).args(["session", "--directory"]).arg(directory).args(arguments).output().unwrap();
    // A recording that is being written may end in the middle of a frame: what is whole is printed all the same.
    String::from_utf8(run.stdout).unwrap()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}
