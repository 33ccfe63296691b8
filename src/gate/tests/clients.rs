//! What takes a client of more than one channel, or one with russh's own hands.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use russh::client::{self, Handle};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};
use russh::{ChannelMsg, Sig};

use super::text;
use super::yard::{Yard, eventually, run};
use crate::audit::Event;
use crate::gate::{Algorithms, Settings};

struct Trusting;

impl client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _key: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

async fn connect(yard: &Yard) -> Handle<Trusting> {
    client::connect(Arc::default(), ("127.0.0.1", yard.port), Trusting).await.unwrap()
}

async fn login(yard: &Yard) -> Handle<Trusting> {
    let mut client = connect(yard).await;
    let key = Arc::new(load_secret_key(yard.key("alice"), None).unwrap());
    assert!(client.authenticate_publickey("alice", PrivateKeyWithHashAlg::new(key, None)).await.unwrap().success());
    client
}

/// One ssh connection that others share.
struct Master<'a> {
    yard: &'a Yard,
    socket: String,
    child: Child,
}

impl Drop for Master<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl<'a> Master<'a> {
    async fn new(yard: &'a Yard) -> Self {
        let path = yard.key("master");
        let socket = path.to_str().unwrap().to_owned();
        let mut command = yard.ssh_command("alice", "alice", &["-M", "-N", "-S", &socket]);
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        eventually("the master's socket", || path.exists()).await;
        Self { yard, socket, child }
    }

    async fn ssh(&self, program: &str, input: Vec<u8>) -> std::process::Output {
        self.yard.ssh(&["-S", &self.socket], program, input).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_none_probe_is_answered_at_once() {
    let yard = Yard::new().await;
    let mut client = connect(&yard).await;
    let start = Instant::now();
    let client::AuthResult::Failure { remaining_methods, .. } = client.authenticate_none("alice").await.unwrap() else {
        panic!("none was enough")
    };
    assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
    assert_eq!(&remaining_methods[..], [russh::MethodKind::PublicKey]);
    let start = Instant::now();
    assert!(!client.authenticate_password("alice", "x").await.unwrap().success());
    assert!(start.elapsed() >= Duration::from_millis(990));
}

/// OpenSSH begins with `none`, which russh counts; who does not has as many tries.
#[tokio::test(flavor = "multi_thread")]
async fn who_begins_with_a_key_has_no_more_tries() {
    let yard = Yard::with(Settings { max_auth_tries: 2, ..Settings::default() }).await;
    let mut client = connect(&yard).await;
    for name in ["mallory", "mallory", "alice", "alice"] {
        let key = PrivateKeyWithHashAlg::new(Arc::new(load_secret_key(yard.key(name), None).unwrap()), None);
        // The fourth finds the connection closed.
        assert!(!client.authenticate_publickey("alice", key).await.is_ok_and(|result| result.success()), "{name}");
    }
    let asked = |message: &&String| message.starts_with("Offered") || message.starts_with("Proved");
    assert_eq!(yard.told.lock().unwrap().iter().filter(asked).count(), 2, "{:?}", yard.told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_read_stops_only_its_own_channel() {
    let yard = Yard::new().await;
    let master = Master::new(&yard).await;
    let stuck = master.ssh("stuck", vec![0; 60 << 20]);
    let others = async {
        eventually("the stuck program's full socket", || yard.was_told("stuck is full")).await;
        for size in [0, 10, 40 << 20] {
            let start = Instant::now();
            let output = master.ssh("count", vec![0; size]).await;
            println!("{size} bytes beside a stuck channel: {:?}", start.elapsed());
            assert_eq!(text(&output.stdout), size.to_string(), "{}", text(&output.stderr));
        }
        assert_eq!(master.ssh("zero 10", vec![]).await.stdout.len(), 10 << 20);
        yard.release.notify_one();
    };
    let start = Instant::now();
    let (output, ()) = tokio::join!(stuck, others);
    println!("all after {:?}", start.elapsed());
    assert_eq!(text(&output.stdout), (60 << 20).to_string(), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_program_goes_on_where_it_stopped() {
    let yard = Yard::new().await;
    let release = async {
        eventually("the stuck program's full socket", || yard.was_told("stuck is full")).await;
        yard.release.notify_one();
    };
    let (output, ()) = tokio::join!(yard.ssh(&[], "stuck", vec![0; 30 << 20]), release);
    assert_eq!(text(&output.stdout), (30 << 20).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_stops_only_its_own_channel() {
    let yard = Yard::new().await;
    let master = Master::new(&yard).await;
    let mut slow = yard.ssh_command("alice", "alice", &["-S", &master.socket]);
    let mut slow = slow.arg("zero 20").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let pipe = slow.stdout.as_ref().unwrap();
    eventually("a full pipe", || rustix::io::ioctl_fionread(pipe).unwrap() >= 64 << 10).await;
    assert_eq!(master.ssh("exit 5", vec![]).await.status.code(), Some(5));
    let input = vec![7; 5 << 20];
    assert!(master.ssh("cat", input.clone()).await.stdout == input);
    // And its data is all there when it does read.
    let mut out = slow.stdout.take().unwrap();
    let read = tokio::task::spawn_blocking(move || std::io::copy(&mut out, &mut std::io::sink()).unwrap());
    assert_eq!(read.await.unwrap(), 20 << 20);
    assert!(slow.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_reaches_the_program_and_its_end_the_client() {
    let yard = Yard::new().await;
    let client = login(&yard).await;
    let mut channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "signal").await.unwrap();
    channel.signal(Sig::INT).await.unwrap();
    let mut end = None;
    while let Some(message) = channel.wait().await {
        if let ChannelMsg::ExitSignal { signal_name, .. } = message {
            end = Some(signal_name);
        }
    }
    assert!(matches!(end, Some(Sig::INT)), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_hangs_up_its_program() {
    let yard = Yard::new().await;
    let client = login(&yard).await;
    let channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "wait").await.unwrap();
    eventually("its program", || yard.was_told("Run {")).await;
    channel.close().await.unwrap();
    eventually("Closed", || yard.was_told("Closed")).await;
    eventually("the hang-up", || yard.was_told("wait was hung up")).await;
    assert!(!yard.was_told("Gone"));
    client.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    eventually("Gone", || yard.was_told("Gone")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_its_share_of_sessions() {
    let yard = Yard::with(Settings { max_sessions: 2, ..Settings::default() }).await;
    let client = login(&yard).await;
    let _first = client.channel_open_session().await.unwrap();
    let second = client.channel_open_session().await.unwrap();
    assert!(client.channel_open_session().await.is_err());
    second.exec(true, "exit 0").await.unwrap();
    // Its place is free when the gate has heard of the end.
    let third = async { while client.channel_open_session().await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(30), third).await.expect("a place");
    assert!(yard.has_event(|event| matches!(event, Event::RequestRefused { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_warden_serves_new_logins_and_old_channels_run_on() {
    let mut yard = Yard::new().await;
    let client = login(&yard).await;
    let mut channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "cat").await.unwrap();
    channel.data_bytes(&b"one"[..]).await.unwrap();
    while !matches!(channel.wait().await, Some(ChannelMsg::Data { data }) if &data[..] == b"one") {}
    let waiting = client.channel_open_session().await.unwrap();
    yard.warden.abort();
    yard.start_warden();
    eventually("a new warden", || {
        yard.told.lock().unwrap().iter().filter(|told| told.starts_with("Alive")).count() == 2
    })
    .await;
    channel.data_bytes(&b"two"[..]).await.unwrap();
    while !matches!(channel.wait().await, Some(ChannelMsg::Data { data }) if &data[..] == b"two") {}
    // What the old warden had not started is told so, and the old connection starts nothing new.
    let mut waiting = waiting;
    waiting.exec(true, "exit 0").await.unwrap();
    let mut status = None;
    while let Some(message) = waiting.wait().await {
        if let ChannelMsg::ExitStatus { exit_status } = message {
            status = Some(exit_status);
        }
    }
    assert_eq!(status, Some(255));
    assert!(client.channel_open_session().await.is_err());
    assert!(yard.ssh(&[], "exit 0", vec![]).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn post_quantum_only_is_post_quantum_only() {
    let yard = Yard::with(Settings { algorithms: Algorithms::Pq, ..Settings::default() }).await;
    login(&yard).await;
    let mut classic = yard.ssh_command("alice", "alice", &["-o", "KexAlgorithms=curve25519-sha256"]);
    classic.arg("exit 0");
    let output = run(classic, vec![]).await;
    assert_eq!(output.status.code(), Some(255));
    assert_eq!(yard.told.lock().unwrap().iter().filter(|message| message.starts_with("Proved")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_with_output_under_way_leaves_nothing() {
    let yard = Yard::new().await;
    let mut command = yard.ssh_command("alice", "alice", &[]);
    let mut child = command.arg("zero 1000").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let pipe = child.stdout.as_ref().unwrap();
    eventually("some output", || rustix::io::ioctl_fionread(pipe).unwrap() > 0).await;
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the cut", || yard.was_told("zero was cut")).await;
    eventually("Gone", || yard.was_told("Gone")).await;
}

/// The warden keeps a connection that it was asked about until it hears that it is gone, answer or not. The gate waits for
/// its answer some seconds first.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_without_an_answer_is_taken_back_by_the_connections_end() {
    let yard = Yard::new().await;
    let mut client = yard.ssh_command("late", "alice", &[]).stdin(Stdio::null()).spawn().unwrap();
    eventually("the question", || yard.was_told("Offered")).await;
    client.kill().unwrap();
    client.wait().unwrap();
    eventually("the end", || yard.was_told("Gone")).await;
}
