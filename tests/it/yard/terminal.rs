use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use regex::Regex;

use super::wait::{DEADLINE, until, within};

/// A real client in a terminal of its own.
pub struct Terminal {
    master: Box<dyn MasterPty + Send>,
    writer: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    seen: Arc<Mutex<Vec<u8>>>,
    /// Up to where the test has looked.
    read: usize,
}

impl Terminal {
    pub fn of(line: &[String], environment: &[(&str, &str)]) -> Self {
        let pair =
            native_pty_system().openpty(PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 }).unwrap();
        // A terminal emulator of today tells the kernel that its characters are UTF-8.
        let mut command = CommandBuilder::new("sh");
        command.args(["-c", "stty iutf8; exec \"$@\"", "sh"]);
        command.args(line);
        command.env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("TERM", "xterm-256color");
        for (name, value) in environment {
            command.env(name, value);
        }
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, into) = (pair.master.try_clone_reader().unwrap(), seen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(got @ 1..) = reader.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..got]);
            }
        });
        let writer = pair.master.take_writer().unwrap();
        Self { master: pair.master, writer, child, seen, read: 0 }
    }

    pub fn type_text(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).unwrap();
        self.writer.flush().unwrap();
    }

    /// A line as a person types it.
    pub fn enter(&mut self, line: &str) {
        self.type_text(&format!("{line}\r"));
    }

    /// Waits until what came since the last wait matches; what matched, with its groups.
    #[track_caller]
    pub fn wait_for(&mut self, pattern: &str) -> Vec<String> {
        let regex = Regex::new(pattern).unwrap();
        let found = within(DEADLINE, || {
            let text = self.rest();
            let captures = regex.captures(&text)?;
            let groups = captures.iter().map(|group| group.map_or(String::new(), |g| g.as_str().to_owned())).collect();
            Some((groups, captures.get(0).unwrap().end()))
        });
        match found {
            Some((groups, end)) => {
                self.read += end;
                groups
            }
            None => panic!("no {pattern:?} in {DEADLINE:?} but {:?}", self.rest()),
        }
    }

    /// Waits for the shell's prompt.
    #[track_caller]
    pub fn prompt(&mut self) {
        self.wait_for(r"[$#>] $");
    }

    /// Runs a line in the shell; what it printed.
    #[track_caller]
    pub fn shell(&mut self, line: &str) -> String {
        // Marks, because a line typed before the prompt is there is echoed twice: by the kernel and by readline. They are
        // spelled so that their echo is not their output, and the line still sees the status of the one before.
        let before = "s=$?; r() { return $s; }; printf '%s-%s\\n' the start; r";
        self.enter(&format!("{before}; {line}; printf '%s-%s\\n' the end"));
        self.wait_for(r"(?s)the-start\r\n(.*?)the-end\r\n")[1].replace("\r\n", "\n").trim_end().to_owned()
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        self.master.resize(PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 }).unwrap();
    }

    /// All that was shown.
    pub fn all(&self) -> Vec<u8> {
        self.seen.lock().unwrap().clone()
    }

    /// What the test has not looked at yet, without readline's switching of bracketed paste around each line.
    fn rest(&self) -> String {
        let text = String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned();
        let text = text.replace("\u{1b}[?2004l\r", "").replace("\u{1b}[?2004h", "");
        text.get(self.read..).unwrap_or_default().to_owned()
    }

    /// The client's exit status.
    #[track_caller]
    pub fn end(&mut self) -> u32 {
        let status = until("the client's end", || self.child.try_wait().unwrap());
        // What it wrote last is read by then, or very soon.
        let mut length = 0;
        within(Duration::from_millis(200), || {
            let now = self.seen.lock().unwrap().len();
            (std::mem::replace(&mut length, now) == now && now > 0).then_some(())
        });
        status.exit_code()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGINT to the program alone, as its terminal would send it.
    pub fn interrupt(&self) {
        super::signal(self.child.process_id().unwrap(), "INT");
    }

    /// SIGSTOP: from now on the program does nothing, and its kernel answers for it.
    pub fn stop(&self) {
        super::signal(self.child.process_id().unwrap(), "STOP");
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
