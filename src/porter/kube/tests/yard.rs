//! The test as jailer, warden, keeper, client and cluster of one porter.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use super::api::Api;
use crate::audit::{Event, KubeRecord};
use crate::config::Clocks;
use crate::identity::{Credentials, Secret};
use crate::porter::{Fresh, PorterError, Rules, Settings, Sources, Start, serve};
use crate::privsep::Role;
use crate::privsep::link::{Link, encode, pair, send_packet};
use crate::privsep::message::{
    Cluster, Credential, FromJailer, JailerToPorter, Message, Pass, PortalToPorter, PorterToKeeper, Silence,
    StreamProtocol, WardenToPorter, Way,
};
use crate::recording::KubeStream;
use crate::session::SessionId;

pub const TOKEN: &str = "the-bastion's-own";

/// For what must happen.
pub const SOON: Duration = Duration::from_secs(20);

/// An authority and what it signed for api.example.test.
pub struct Material {
    pub authority: String,
    pub chain: String,
    pub key: String,
}

impl Material {
    pub fn get() -> &'static Self {
        static MADE: OnceLock<Material> = OnceLock::new();
        MADE.get_or_init(Self::make)
    }

    pub fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let openssl = |line: &str| {
            let done = Command::new("openssl").args(line.split(' ')).current_dir(folder.path()).output().unwrap();
            assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
        };
        let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
        openssl(&format!("req -x509 {new} -keyout ca.key -out ca.pem -subj /CN=authority"));
        openssl(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out request.pem -subj /CN=api",
        );
        fs::write(folder.path().join("names"), "subjectAltName=DNS:api.example.test").unwrap();
        openssl(
            "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out api.pem",
        );
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        Self { authority: read("ca.pem"), chain: read("api.pem"), key: read("key.pem") }
    }
}

pub fn cluster(name: &str, endpoint: &str, authority: String) -> Cluster {
    let server_name = Some("api.example.test".into());
    let way = Way::Shared(Credential::Token(Secret::new(TOKEN.into())));
    Cluster { name: name.into(), endpoint: endpoint.into(), authority, server_name, way }
}

pub fn credentials(key: &str) -> Credentials {
    let now = jiff::Timestamp::now().as_second();
    Credentials {
        access_key_id: key.into(),
        secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG".into()),
        session_token: Secret::new("FwoG-session-token".into()),
        issued: now,
        expires: now + 3600,
    }
}

/// What the keeper is given: the stream, what the client said already, the sockets.
type Given = ((KubeStream, StreamProtocol), Vec<u8>, Vec<OwnedFd>);

/// A porter.
pub struct Yard {
    jailer: OwnedFd,
    warden: OwnedFd,
    portal: OwnedFd,
    events: Mutex<mpsc::UnboundedReceiver<Event>>,
    pub streams: Mutex<mpsc::UnboundedReceiver<Given>>,
    _porter: tokio::task::JoinHandle<Result<(), PorterError>>,
}

impl Yard {
    pub fn new() -> Self {
        Self::with(Clocks { connect: Duration::from_secs(5), answer: SOON, idle: Duration::ZERO })
    }

    pub fn with(clocks: Clocks) -> Self {
        let (mut yard, (keeper, keepers)) = (Self::without_keeper(clocks), pair().unwrap());
        let (told, events) = mpsc::unbounded_channel();
        let (given, streams) = mpsc::unbounded_channel();
        let keeper = Link::<Silence, PorterToKeeper>::new(keeper).unwrap();
        tokio::spawn(async move {
            while let Ok((message, descriptors)) = keeper.recv().await {
                match message {
                    PorterToKeeper::Event(event) => drop(told.send(event)),
                    PorterToKeeper::Stream { stream, protocol, from_client, .. } => {
                        drop(given.send(((*stream, protocol), from_client, descriptors)));
                    }
                }
            }
        });
        yard.tell(&FromJailer::Peer(Role::Keeper), &[keepers.as_fd()]);
        (yard.events, yard.streams) = (Mutex::new(events), Mutex::new(streams));
        yard
    }

    pub fn without_keeper(clocks: Clocks) -> Self {
        let [(jailer, control), (warden, wardens), (portal, portals)] = [(); 3].map(|()| pair().unwrap());
        let kube = Rules { clocks, ..Rules::default() };
        let start = Start {
            control: Link::new(control).unwrap(),
            settings: Settings::default(),
            fresh: Fresh { sources: Sources::default(), kube },
            reload: Box::new(|_| None),
        };
        let porter = tokio::spawn(serve(start));
        let (events, streams) = (Mutex::new(mpsc::unbounded_channel().1), Mutex::new(mpsc::unbounded_channel().1));
        let yard = Self { jailer, warden, portal, events, streams, _porter: porter };
        yard.tell(&FromJailer::Peer(Role::Warden), &[wardens.as_fd()]);
        yard.tell(&FromJailer::Peer(Role::Portal), &[portals.as_fd()]);
        yard
    }

    fn tell(&self, message: &FromJailer<JailerToPorter>, descriptors: &[BorrowedFd<'_>]) {
        send_packet(self.jailer.as_fd(), &encode(message), descriptors).unwrap();
    }

    pub fn push(&self, message: &impl Message) {
        send_packet(self.warden.as_fd(), &encode(message), &[]).unwrap();
    }

    /// A jail's kube door.
    pub fn open(&self, user: &str) -> Door {
        let session = SessionId::mint();
        let sockets: Vec<_> = (0..8).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        let token = Secret::new("the-jail's-token".into());
        let doors = JailerToPorter::Doors { session, user: user.parse().unwrap(), token };
        self.tell(&FromJailer::Told(doors), &descriptors);
        Door { session, address: sockets[7].local_addr().unwrap() }
    }

    /// A laptop's grant with this token, and no cluster.
    pub fn lend(&self, token: &str) -> SessionId {
        let session = SessionId::mint();
        let (digest, expires) = (Sha256::digest(token).into(), jiff::Timestamp::now().as_second() + 3600);
        self.push(&WardenToPorter::Pass { session, pass: Box::default() });
        self.push(&WardenToPorter::Laptop { session, user: "alice".parse().unwrap(), digest, expires });
        session
    }

    /// One request of a laptop's, on a connection of its own.
    pub async fn visit(&self, token: &str, request: &str) -> Said {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let message = PortalToPorter::Connection { number: 1, from: "192.0.2.1:5".into(), http2: false };
        send_packet(self.portal.as_fd(), &encode(&message), &[theirs.as_fd()]).unwrap();
        drop(theirs);
        ours.set_nonblocking(true).unwrap();
        let mut stream = UnixStream::from_std(ours).unwrap();
        let head =
            format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        Said::read(&answer)
    }

    pub fn gone(&self, door: &Door) {
        self.tell(&FromJailer::Told(JailerToPorter::Gone { session: door.session }), &[]);
    }

    pub fn pass(&self, door: &Door, clusters: &[&str]) {
        let clusters = clusters.iter().map(ToString::to_string).collect();
        let groups = vec!["ops".into(), "system:masters".into()];
        self.push_pass(door, Pass { clusters, groups, may_be: Vec::new() });
    }

    pub fn push_pass(&self, door: &Door, pass: Pass) {
        self.push(&WardenToPorter::Pass { session: door.session, pass: Box::new(pass) });
    }

    /// `hyades`, and a door of alice's to it.
    pub fn to(&self, api: &Api) -> Door {
        self.to_cluster(cluster("hyades", &api.endpoint(), Material::get().authority.clone()))
    }

    pub fn to_cluster(&self, cluster: Cluster) -> Door {
        let door = self.open("alice");
        let name = cluster.name.clone();
        self.push(&WardenToPorter::Cluster(Box::new(cluster)));
        self.pass(&door, &[&name]);
        door
    }

    /// The next event of a request that went through.
    pub async fn told(&self) -> KubeRecord {
        loop {
            if let Event::KubeRequest { record, .. } = self.event().await {
                return *record;
            }
        }
    }

    pub async fn event(&self) -> Event {
        timeout(SOON, self.events.lock().await.recv()).await.unwrap().unwrap()
    }
}

pub struct Door {
    pub session: SessionId,
    pub address: SocketAddr,
}

/// An answer: status, headers in small letters, body as it came.
#[derive(Debug)]
pub struct Said {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Said {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned()));
        Self { status: status.unwrap_or(0), headers: headers.collect(), body: body.to_owned() }
    }

    /// The sentence of a Status.
    pub fn message(&self) -> String {
        let status: serde_json::Value = serde_json::from_str(&self.body).expect(&self.body);
        assert_eq!((&status["kind"], &status["apiVersion"]), (&"Status".into(), &"v1".into()));
        assert_eq!((&status["status"], &status["code"]), (&"Failure".into(), &self.status.into()));
        assert!(status["reason"].is_string());
        status["message"].as_str().unwrap().to_owned()
    }
}

impl Door {
    /// Bytes as they are, and all that comes back.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The door may have answered and closed before all is sent.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("an end");
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub fn head(&self, request: &str, headers: &str) -> String {
        format!("{request} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.address)
    }

    /// One request on a connection of its own.
    pub async fn ask(&self, request: &str, headers: &str) -> Said {
        let head = self.head(request, &format!("Connection: close\r\n{headers}"));
        Said::read(&self.raw(head.as_bytes()).await)
    }

    /// A connection after its request, its answer's head read.
    pub async fn begin(&self, request: &str, headers: &str) -> (TcpStream, Said) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(self.head(request, headers).as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(SOON, stream.read_u8()).await.unwrap().unwrap());
        }
        (stream, Said::read(&String::from_utf8(head).unwrap()))
    }
}
