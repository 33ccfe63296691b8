//! A gate on a port of its own, with a warden, a keeper and a jailer that do what their names in the tests say.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::audit::Event;
use crate::gate::{GateError, Settings, Start, serve};
use crate::privsep::Role;
use crate::privsep::link::{Link, encode, pair, send_packet};
use crate::privsep::message::{FromJailer, GateToWarden, JailerToGate, Program, Silence, ToKeeper, WardenToGate};
use crate::privsep::stream::{FromGate, FromKeeper, KeeperEnd};
use crate::session::SessionId;

pub struct Yard {
    pub port: u16,
    pub folder: tempfile::TempDir,
    pub events: Arc<Mutex<Vec<Event>>>,
    pub told: Arc<Mutex<Vec<String>>>,
    /// Lets `stuck` programs go on.
    pub release: Arc<Notify>,
    control: Arc<OwnedFd>,
    pub warden: JoinHandle<()>,
    keeper: JoinHandle<()>,
    pub gate: JoinHandle<Result<(), GateError>>,
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.warden.abort();
        self.keeper.abort();
        self.gate.abort();
    }
}

impl Yard {
    pub async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub async fn with(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["host", "alice", "mallory"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.path().join(name));
            assert!(keygen.status().unwrap().success());
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (ours, theirs) = pair().unwrap();
        let host = russh::keys::load_secret_key(folder.path().join("host"), None).unwrap();
        let start =
            Start { settings, listeners: vec![listener], host_keys: vec![host], control: Link::new(theirs).unwrap() };
        let gate = tokio::spawn(serve(start));
        let mut yard = Self {
            port,
            folder,
            events: Arc::default(),
            told: Arc::default(),
            release: Arc::default(),
            control: Arc::new(ours),
            warden: tokio::spawn(async {}),
            keeper: tokio::spawn(async {}),
            gate,
        };
        yard.start_keeper();
        yard.start_warden();
        // Until the warden is there nobody is let in.
        eventually("a warden", || yard.was_told("Alive")).await;
        yard
    }

    fn peer(&self, role: Role) -> OwnedFd {
        let (ours, theirs) = pair().unwrap();
        let message = FromJailer::<JailerToGate>::Peer(role);
        send_packet(self.control.as_fd(), &encode(&message), &[theirs.as_fd()]).unwrap();
        ours
    }

    pub fn start_keeper(&mut self) {
        let link = Link::<Silence, ToKeeper>::new(self.peer(Role::Keeper)).unwrap();
        let events = self.events.clone();
        self.keeper = tokio::spawn(async move {
            while let Ok((ToKeeper::Event(event), _)) = link.recv().await {
                events.lock().unwrap().push(event);
            }
        });
    }

    pub async fn stop_keeper(&mut self) {
        self.keeper.abort();
        let _ = (&mut self.keeper).await;
        // Until the gate knows, and hangs up on who comes.
        let mut banner = [0; 4];
        let turned_away = async {
            loop {
                let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
                if !matches!(tokio::io::AsyncReadExt::read(&mut stream, &mut banner).await, Ok(1..)) {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), turned_away).await.expect("the gate still serves");
    }

    pub fn start_warden(&mut self) {
        let link = Link::new(self.peer(Role::Warden)).unwrap();
        let key = russh::keys::load_public_key(self.folder.path().join("alice.pub")).unwrap().to_bytes().unwrap();
        let warden = Warden {
            link,
            key,
            control: self.control.clone(),
            told: self.told.clone(),
            release: self.release.clone(),
            session: SessionId::mint(),
        };
        self.warden = tokio::spawn(warden.run());
    }

    pub fn key(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn ssh_command(&self, user: &str, key: &str, options: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        // Of two values ssh takes the first.
        command.args(options).args([
            "-F",
            "/dev/null",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ]);
        command.args(["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes"]);
        command.args(["-o", "LogLevel=ERROR", "-i"]).arg(self.key(key)).arg("-p").arg(self.port.to_string());
        command.arg(format!("{user}@127.0.0.1"));
        command
    }

    /// alice's ssh with some input.
    pub async fn ssh(&self, options: &[&str], program: &str, input: Vec<u8>) -> Output {
        let mut command = self.ssh_command("alice", "alice", options);
        if !program.is_empty() {
            command.arg(program);
        }
        run(command, input).await
    }

    pub fn has_event(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.lock().unwrap().iter().any(wanted)
    }

    pub fn was_told(&self, words: &str) -> bool {
        self.told.lock().unwrap().iter().any(|message| message.contains(words))
    }
}

pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen");
}

/// Says when more waits for a program that does not read than its gate sends at once.
async fn fills(socket: OwnedFd, told: Arc<Mutex<Vec<String>>>) {
    eventually("a full socket", || rustix::io::ioctl_fionread(&socket).unwrap() > 64 << 10).await;
    told.lock().unwrap().push("stuck is full".into());
}

pub async fn run(mut command: Command, input: Vec<u8>) -> Output {
    let work = move || {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || _ = stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    };
    tokio::time::timeout(Duration::from_secs(120), tokio::task::spawn_blocking(work)).await.expect("ssh hangs").unwrap()
}

struct Warden {
    link: Link<WardenToGate, GateToWarden>,
    key: Vec<u8>,
    control: Arc<OwnedFd>,
    told: Arc<Mutex<Vec<String>>>,
    release: Arc<Notify>,
    session: SessionId,
}

impl Warden {
    async fn run(self) {
        let mut number = 0;
        let mut users = HashMap::new();
        while let Ok((message, _)) = self.link.recv().await {
            let debug = format!("{message:?}");
            self.told.lock().unwrap().push(debug);
            match message {
                // A warden that is never heard of again.
                GateToWarden::Offered { claim, .. } if claim.user == "late" => {}
                GateToWarden::Offered { connection, claim } => {
                    let acceptable = claim.user != "nobody" && claim.key == self.key;
                    self.link.send(&WardenToGate::Offer { connection, acceptable }).await.unwrap();
                }
                GateToWarden::Proved { connection, claim } => {
                    let accepted = claim.user != "locked" && claim.key == self.key;
                    users.insert(connection, claim.user);
                    self.link.send(&WardenToGate::Login { connection, accepted }).await.unwrap();
                }
                GateToWarden::Run { connection, channel, wish } => {
                    number += 1;
                    let program = match wish.program {
                        Program::Shell => "shell".to_owned(),
                        Program::Exec(command) => command,
                    };
                    match program.as_str() {
                        "refused" => {
                            let sentence = "no recording, no session".to_owned();
                            let refused = WardenToGate::Refused { connection, channel, sentence, code: 254 };
                            self.link.send(&refused).await.unwrap();
                            continue;
                        }
                        "dropped" => {
                            let sentence = "you are locked".to_owned();
                            self.link.send(&WardenToGate::Drop { connection, sentence }).await.unwrap();
                            continue;
                        }
                        _ => {}
                    }
                    let (gate, keeper) = pair().unwrap();
                    let stream = FromJailer::Told(JailerToGate::Stream { session: self.session, number });
                    let send = || send_packet(self.control.as_fd(), &encode(&stream), &[gate.as_fd()]).unwrap();
                    // Both orders happen in life.
                    if number % 2 == 0 {
                        send();
                    }
                    let running = WardenToGate::Running { connection, channel, session: self.session, number };
                    self.link.send(&running).await.unwrap();
                    if number % 2 == 1 {
                        send();
                    }
                    drop(gate);
                    let facts = format!("{:?} {:?}", wish.terminal, wish.environment);
                    if program == "stuck" {
                        tokio::spawn(fills(keeper.try_clone().unwrap(), self.told.clone()));
                    }
                    let end = KeeperEnd::new(keeper).unwrap();
                    tokio::spawn(perform(end, program, facts, self.release.clone(), self.told.clone()));
                }
                GateToWarden::Alive(_)
                | GateToWarden::Open { .. }
                | GateToWarden::Closed { .. }
                | GateToWarden::Gone { .. } => {}
            }
        }
    }
}

async fn perform(end: KeeperEnd, program: String, facts: String, release: Arc<Notify>, told: Arc<Mutex<Vec<String>>>) {
    let text = |text: &str| FromKeeper::Output(Bytes::copy_from_slice(text.as_bytes()));
    let mut words = program.split(' ');
    let (name, number) = (words.next().unwrap(), words.next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0));
    let last = match name {
        "exit" => FromKeeper::Exit(number),
        "both" => {
            end.send(&text("out\n")).await.unwrap();
            end.send(&FromKeeper::ErrorOutput(Bytes::from_static(b"err\n"))).await.unwrap();
            end.send(&FromKeeper::Notice("take care".into())).await.unwrap();
            FromKeeper::Exit(3)
        }
        "cat" => {
            while let Ok(FromGate::Input(data)) = end.recv().await {
                if end.send(&FromKeeper::Output(data)).await.is_err() {
                    return;
                }
            }
            FromKeeper::Exit(0)
        }
        "zero" => {
            for _ in 0..number * 32 {
                if end.send(&FromKeeper::Output(Bytes::from(vec![0; 32 * 1024]))).await.is_err() {
                    told.lock().unwrap().push("zero was cut".into());
                    return;
                }
            }
            FromKeeper::Exit(0)
        }
        "count" | "stuck" => {
            if name == "stuck" {
                release.notified().await;
            }
            let mut bytes = 0;
            while let Ok(FromGate::Input(data)) = end.recv().await {
                bytes += data.len();
            }
            end.send(&text(&bytes.to_string())).await.unwrap();
            FromKeeper::Exit(0)
        }
        "facts" | "shell" => {
            end.send(&text(&facts)).await.unwrap();
            FromKeeper::Exit(0)
        }
        "signal" => loop {
            match end.recv().await {
                Ok(FromGate::Signal(name)) => break FromKeeper::ExitSignal(name),
                Ok(_) => {}
                Err(_) => return,
            }
        },
        "wait" => {
            while end.recv().await.is_ok() {}
            told.lock().unwrap().push("wait was hung up".into());
            return;
        }
        "vanish" => return,
        _ => FromKeeper::Exit(0),
    };
    let _ = end.send(&last).await;
}
