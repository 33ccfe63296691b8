//! The portal with a porter that believes whoever says "token", and OpenSSL's clients.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net as unix;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::text;
use crate::audit::Event;
use crate::gate::portal::{Start, serve, tls};
use crate::gate::{GateError, MaxStartups, Settings};
use crate::privsep::Role;
use crate::privsep::link::{Link, encode, pair, send_packet};
use crate::privsep::message::{FromJailer, PortalToPorter, PorterToPortal, Silence, ToKeeper};

struct Yard {
    port: u16,
    folder: tempfile::TempDir,
    events: Arc<Mutex<Vec<Event>>>,
    control: OwnedFd,
    porter: JoinHandle<()>,
    portal: JoinHandle<Result<(), GateError>>,
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.porter.abort();
        self.portal.abort();
    }
}

impl Yard {
    async fn new(settings: Settings, tls12: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = certificate(&folder, "first");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (control, theirs) = pair().unwrap();
        let again = folder.path().to_owned();
        let reload = move |_| {
            let read = |name: &str| std::fs::read(again.join(name)).unwrap();
            tls(&read("second.crt"), &read("second.key"), tls12).ok().map(Arc::new)
        };
        let start = Start {
            settings,
            listeners: vec![listener],
            tls: Arc::new(tls(&chain, &key, tls12).unwrap()),
            control: Link::new(theirs).unwrap(),
            reload: Box::new(reload),
        };
        let portal = tokio::spawn(serve(start));
        let mut yard = Self { port, folder, events: Arc::default(), control, porter: tokio::spawn(async {}), portal };
        yard.keep();
        yard.start_porter();
        yard
    }

    fn peer(&self, role: Role) -> OwnedFd {
        let (ours, theirs) = pair().unwrap();
        send_packet(self.control.as_fd(), &encode(&FromJailer::<Silence>::Peer(role)), &[theirs.as_fd()]).unwrap();
        ours
    }

    fn keep(&self) {
        let link = Link::<Silence, ToKeeper>::new(self.peer(Role::Keeper)).unwrap();
        let events = self.events.clone();
        tokio::spawn(async move {
            while let Ok((ToKeeper::Event(event), _)) = link.recv().await {
                events.lock().unwrap().push(event);
            }
        });
    }

    fn start_porter(&mut self) {
        let link = Arc::new(Link::<PorterToPortal, PortalToPorter>::new(self.peer(Role::Porter)).unwrap());
        self.porter = tokio::spawn(async move {
            while let Ok((PortalToPorter::Connection { number, .. }, mut fds)) = link.recv().await {
                let stream = unix::UnixStream::from(fds.pop().unwrap());
                stream.set_nonblocking(true).unwrap();
                tokio::spawn(echo(link.clone(), number, UnixStream::from_std(stream).unwrap()));
            }
        });
    }

    /// `openssl s_client`, with what it is to send.
    async fn client(&self, arguments: &[&str], input: &'static str) -> Output {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &format!("127.0.0.1:{}", self.port), "-quiet"]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        tokio::task::spawn_blocking(move || {
            use std::io::Write;
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        })
        .await
        .unwrap()
    }

    async fn until(&self, wanted: impl Fn(&Event) -> bool) {
        let found = || self.events.lock().unwrap().iter().any(&wanted);
        for _ in 0..1000 {
            if found() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", self.events.lock().unwrap());
    }
}

fn certificate(folder: &tempfile::TempDir, name: &str) -> (Vec<u8>, Vec<u8>) {
    let (chain, key) = (folder.path().join(format!("{name}.crt")), folder.path().join(format!("{name}.key")));
    let subject = format!("/CN={name}.example.com");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", &subject])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&chain)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    (std::fs::read(chain).unwrap(), std::fs::read(key).unwrap())
}

async fn echo(link: Arc<Link<PorterToPortal, PortalToPorter>>, number: u64, mut stream: UnixStream) {
    let mut buffer = [0; 1024];
    while let Ok(got @ 1..) = stream.read(&mut buffer).await {
        if buffer[..got].starts_with(b"token") {
            link.send(&PorterToPortal::Proved { number }).await.unwrap();
        }
        stream.write_all(&buffer[..got]).await.unwrap();
        if buffer[..got].ends_with(b"bye\n") {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_through_tls_both_ways() {
    let yard = Yard::new(Settings::default(), false).await;
    let output = yard.client(&["-tls1_3"], "token and bye\n").await;
    assert_eq!(text(&output.stdout), "token and bye\n", "{}", text(&output.stderr));
    yard.until(|event| matches!(event, Event::Connected { .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_tls_is_refused_unless_configured() {
    for (tls12, version, through) in
        [(false, "-tls1_2", false), (true, "-tls1_2", true), (true, "-tls1_1", false), (false, "-tls1_3", true)]
    {
        let yard = Yard::new(Settings::default(), tls12).await;
        let output = yard.client(&[version], "token bye\n").await;
        assert_eq!(text(&output.stdout).contains("token"), through, "{tls12} {version}: {}", text(&output.stderr));
    }
}

/// What a scanner finds: no old version, no weak suite, no compression, no renegotiation.
#[tokio::test(flavor = "multi_thread")]
async fn a_scanner_finds_nothing_old() {
    // It opens far more connections than a client that logs in.
    let settings = Settings {
        per_source: 1000,
        max_startups: MaxStartups { start: 1000, rate: 1, full: 1000 },
        penalties: None,
        ..Settings::default()
    };
    let yard = Yard::new(settings, true).await;
    let target = format!("127.0.0.1:{}", yard.port);
    let scan = move || Command::new("sslscan").args(["--no-colour", "--no-check-certificate", &target]).output();
    let output = tokio::task::spawn_blocking(scan).await.unwrap().unwrap();
    let found = text(&output.stdout);
    for version in ["SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"] {
        assert!(found.contains(&format!("{version}     disabled")[..version.len() + 3]), "{found}");
        assert!(!found.lines().any(|line| line.starts_with(version) && line.contains("enabled")), "{found}");
    }
    let suites: Vec<&str> =
        found.lines().filter(|line| line.starts_with("Accepted") || line.starts_with("Preferred")).collect();
    assert!(suites.iter().any(|line| line.contains("TLSv1.3")) && suites.len() >= 4, "{found}");
    for suite in suites {
        let modern = ["TLS_AES_", "TLS_CHACHA20_", "ECDHE-ECDSA-AES", "ECDHE-ECDSA-CHACHA20"];
        assert!(modern.iter().any(|name| suite.contains(name)) && !suite.contains("-SHA "), "{suite}");
        assert!(!suite.contains("ECDHE-ECDSA-AES") || suite.contains("GCM"), "{suite}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_token_in_time_is_let_go_and_fined() {
    let settings = Settings { login_grace: Duration::from_millis(200), ..Settings::default() };
    let yard = Yard::new(settings, false).await;
    // Once may happen to anybody: the second time is fined.
    for _ in 0..2 {
        let output = yard.client(&["-tls1_3"], "hello\n").await;
        assert_eq!(text(&output.stdout), "hello\n");
    }
    yard.until(|event| matches!(event, Event::ConnectionRefused { why, .. } if why.contains("no token in time"))).await;
    yard.until(|event| matches!(event, Event::SourcePenalised { .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tls_is_refused() {
    let yard = Yard::new(Settings::default(), false).await;
    let mut plain = tokio::net::TcpStream::connect(("127.0.0.1", yard.port)).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    yard.until(|event| matches!(event, Event::ConnectionRefused { why, .. } if why.starts_with("TLS: "))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_for_new_connections_and_a_new_porter_takes_over() {
    let mut yard = Yard::new(Settings::default(), false).await;
    let subject = |output: &Output| text(&output.stderr).contains("second.example.com");
    assert!(!subject(&yard.client(&["-tls1_3"], "token bye\n").await));
    certificate(&yard.folder, "second");
    send_packet(yard.control.as_fd(), &encode(&FromJailer::<Silence>::Reload), &[]).unwrap();
    yard.porter.abort();
    yard.start_porter();
    let mut renewed = false;
    for _ in 0..100 {
        let output = yard.client(&["-tls1_3"], "token bye\n").await;
        renewed = subject(&output) && text(&output.stdout) == "token bye\n";
        if renewed {
            break;
        }
    }
    assert!(renewed);
}

#[test]
fn a_key_that_does_not_fit_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let ((first, _), (_, second)) = (certificate(&folder, "first"), certificate(&folder, "second"));
    assert!(tls(&first, &second, false).unwrap_err().to_string().contains("do not go together"));
    assert!(tls(b"nonsense", &second, false).unwrap_err().to_string().contains("do not go together"));
    assert!(tls(&first, b"nonsense", false).unwrap_err().to_string().contains("not a private key"));
}
