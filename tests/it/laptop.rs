//! Issue 5, items 6 and 7: a laptop's kubectl at the public kube door, with plain ssh as its exec plugin, to real
//! clusters; and all that ends what it was given.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::yard::{
    Clusters, Laptop, Output, STOCKADE, Terminal, Yard, spawn_with, until, with_clusters, with_public_door,
};

/// A bastion for alice and bob, with tokens that live this long.
pub fn bastion(life: &str) -> Yard {
    let plan = with_public_door(with_clusters(Yard::new().user("alice").user("bob")));
    let yard = plan.config(&format!("kube.public.life = '{life}'")).start();
    for cluster in ["hyades", "pleiades"] {
        yard.audit().wait_for("SK4101I", |event| event["unmapped"]["cluster"] == cluster);
    }
    yard
}

/// The ids of a user's grants, oldest first.
fn grants(yard: &Yard, user: &str) -> Vec<String> {
    let of_user = |event: &Value| event["actor"]["user"]["name"] == user || event["user"]["name"] == user;
    let granted = yard.audit().of("SK4201I").into_iter().filter(of_user);
    granted.map(|event| event["session"]["uid"].as_str().unwrap().to_owned()).collect()
}

/// A pod's log that is followed through the door, and has begun to come.
fn follow(laptop: &Laptop, namespace: &str) -> Terminal {
    let line = ["-n", namespace, "logs", "-f", "--tail=1", "web", "-c", "app"];
    let mut followed = Terminal::of(&laptop.line("hyades", &line), &[]);
    followed.wait_for(r"line \d+\r\nline \d+\r\n");
    followed
}

/// A shell in a container that is there.
fn shell(laptop: &Laptop, namespace: &str) -> Terminal {
    let line = ["-n", namespace, "exec", "-it", "web", "-c", "app", "--", "bash", "--norc"];
    let mut shell = Terminal::of(&laptop.line("hyades", &line), &[]);
    shell.prompt();
    shell
}

/// Where the bastion holds these words: its files, and what its recordings say, which lie compressed.
pub fn holds(yard: &Yard, words: &str) -> Vec<String> {
    let mut grep = Command::new("grep");
    grep.args(["-rlaF", "--", words]);
    for name in ["log", "audit", "state/locks", "stockade.toml"] {
        grep.arg(yard.path(name));
    }
    let files = spawn_with(grep, None).wait().text();
    let sessions = yard.sessions();
    let recorded = sessions.iter().filter_map(|one| one["session"].as_str()).filter(|session| {
        let recording = yard.recording(session);
        // Typed and shown in pieces, they are in no event alone.
        let pieces = ["input", "output", "error_output"].map(|kind| recording.bytes(kind));
        let said = pieces.iter().any(|bytes| String::from_utf8_lossy(bytes).contains(words));
        said || recording.export("json").contains(words)
    });
    files.lines().chain(recorded).map(str::to_owned).collect()
}

/// "a laptop's kubectl uses plain ssh as its exec plugin"; "no binary to install"
#[test]
fn kubectl_on_a_laptop_needs_nothing_but_ssh() {
    let clusters = Clusters::start();
    let namespace = clusters.hyades().namespace("laptop");
    let yard = bastion("1h");
    let laptop = Laptop::of(&yard, "alice");
    let text = std::fs::read_to_string(laptop.kubeconfig()).unwrap();
    assert!(text.contains("ControlMaster") && text.contains("command: ssh") && !text.contains("token:"), "{text}");

    for cluster in ["hyades", "pleiades"] {
        assert!(laptop.run(cluster, &["-n", "team-a", "get", "pods"]).ok().contains("web"), "{cluster}");
    }
    let whoami = laptop.run("hyades", &["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).ok();
    let [grant] = grants(&yard, "alice").try_into().expect("one key, one grant");
    assert_eq!(whoami, format!("stockade:alice:{grant}"));

    let exec = ["-n", &namespace, "exec", "web", "-c", "app", "--", "sh", "-c", "echo out; echo err >&2; exit 7"];
    let exec = laptop.run("hyades", &exec);
    assert_eq!((exec.code, exec.text().as_str()), (Some(7), "out"), "{}", exec.stderr);
    assert!(exec.stderr.starts_with("err\n"), "{}", exec.stderr);
    let mut there = shell(&laptop, &namespace);
    assert_eq!(there.shell("echo $((6 * 7))"), "42");
    there.enter("exit 3");
    assert_eq!(there.end(), 3);
    drop(follow(&laptop, &namespace));
    copies(&laptop, &namespace, yard.path("").as_path());
    forwards(&laptop);
    is_audited(&yard, &namespace, &grant);

    let recording = yard.recording(&grant);
    let shown = until("the streams in the recording", || {
        let shown = recording.show();
        (shown.contains("echo out; echo err") && shown.contains("bash --norc")).then_some(shown)
    });
    assert!(shown.contains("alice") && shown.contains("hyades"), "{shown}");
    let seen = String::from_utf8_lossy(&recording.bytes("output")).into_owned();
    assert!(seen.contains("42"), "{seen}");
    assert!(yard.sessions().iter().any(|session| session["session"] == grant.as_str()));

    let token = yard.token("alice", "hyades");
    assert_eq!(yard.knock(&token).0, 200);
    assert_eq!(grants(&yard, "alice").len(), 1, "the token of a grant is answered again");
    assert_eq!(holds(&yard, &token), Vec::<String>::new());
    for words in ["echo $((6 * 7))", "echo out; echo err"] {
        assert!(holds(&yard, words).contains(&grant), "what was typed in a container and what was run there: {words}");
    }
}

fn copies(laptop: &Laptop, namespace: &str, place: &Path) {
    let (there, back) = (place.join("there"), place.join("back"));
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&there, &bytes).unwrap();
    for [from, to] in [[there.to_str().unwrap(), "web:copied"], ["web:copied", back.to_str().unwrap()]] {
        laptop.run("hyades", &["-n", namespace, "cp", "-c", "app", from, to]).ok();
    }
    assert!(std::fs::read(&back).unwrap() == bytes);
}

fn forwards(laptop: &Laptop) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!(":{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        let mut heard = [0; 5];
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut heard).unwrap();
        stream.write_all(&heard).unwrap();
    });
    let line = laptop.line("hyades", &["-n", "team-a", "port-forward", "web", &port]);
    let mut forward = Terminal::of(&line, &[]);
    let at = forward.wait_for(r"Forwarding from (127\.0\.0\.1:\d+)").swap_remove(1);
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"hello");
}

/// "with the same Audit-ID as the API server's log"
fn is_audited(yard: &Yard, namespace: &str, grant: &str) {
    let is_exec = |event: &Value| {
        event["objectRef"]["subresource"] == "exec"
            && event["objectRef"]["namespace"] == namespace
            && event["stage"] == "ResponseComplete"
            && event["requestURI"].as_str().is_some_and(|uri| uri.contains("exit+7"))
    };
    let theirs = Clusters::start().hyades().audited(is_exec);
    let ours = yard.audit().wait_for("SK5201I", |event| is_exec(&event["unmapped"]["kubernetes"]));
    let event = &ours["unmapped"]["kubernetes"];
    assert_eq!(event["auditID"], theirs["auditID"]);
    assert_eq!(event["sourceIPs"], serde_json::json!(["127.0.0.1"]), "{event}");
    assert_eq!(event["annotations"]["stockade.dev/session"], grant);
    assert_eq!((&ours["session"]["uid"], &ours["src_endpoint"]["ip"]), (&grant.into(), &"127.0.0.1".into()));
    assert_eq!(theirs["user"]["extra"]["sessionName"][0], grant);
}

/// "default 1 h": what is over is over, for what runs too; kubectl gets another by itself.
#[test]
fn a_token_has_its_time() {
    let yard = bastion("10s");
    let namespace = Clusters::start().hyades().namespace("lapse");
    let laptop = Laptop::of(&yard, "alice");
    let token = yard.token("alice", "hyades");
    assert_eq!(yard.knock(&token).0, 200);
    let mut followed = follow(&laptop, &namespace);
    let ended = yard.audit().wait_for("SK4202I", |_| true);
    assert_eq!(ended["unmapped"]["reason"], "its token's time is over");
    followed.end();
    assert_eq!(yard.knock(&token).0, 401);
    let grant = grants(&yard, "alice").remove(0);
    assert_eq!(ended["session"]["uid"], grant.as_str());
    yard.recording(&grant).closed();
    assert!(laptop.run("hyades", &["-n", "team-a", "get", "pods"]).ok().contains("web"));
}

/// "dead the moment the user is locked"; "a killed or expired session ends its streams within a second, in jail and laptop
/// alike"
#[test]
fn who_is_locked_or_has_no_rights_has_no_token() {
    let yard = bastion("1h");
    let namespace = Clusters::start().hyades().namespace("locked");
    let (alice, bob) = (Laptop::of(&yard, "alice"), Laptop::of(&yard, "bob"));
    let mut of_bob = shell(&bob, &namespace);
    let (mut one, mut other) = (follow(&alice, &namespace), shell(&alice, &namespace));
    let token = yard.token("alice", "hyades");
    lock(&yard, &["add", "--user", "alice", "--reason", "lost"]).ok();
    one.end();
    other.end();
    let ended = yard.audit().wait_for("SK4202I", |_| true);
    assert_eq!(ended["unmapped"]["reason"], "locked: lost");
    let (status, body) = yard.knock(&token);
    assert_eq!(status, 401, "{body}");
    let refused = alice.run("hyades", &["-n", "team-a", "get", "pods"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("Permission denied"), "{refused:?}");
    lock(&yard, &["release", "--user", "alice"]).ok();
    yard.audit().wait_for("SK6102I", |_| true);
    assert!(alice.run("hyades", &["-n", "team-a", "get", "pods"]).ok().contains("web"));
    assert_eq!(yard.knock(&token).0, 401, "the old one stays dead");

    // Somebody else, whom all of that did not touch, leaves.
    assert_eq!(of_bob.shell("echo still here"), "still here");
    let token = yard.token("bob", "hyades");
    assert_eq!(yard.knock(&token).0, 200);
    yard.configure("[access]\ndeny_users = ['bob']");
    yard.signal("HUP");
    of_bob.end();
    let gone = |event: &Value| event["unmapped"]["reason"].as_str().is_some_and(|why| why.contains("rights are gone"));
    yard.audit().wait_for("SK4202I", gone);
    assert_eq!(yard.knock(&token).0, 401);
    // And the clusters of who stays.
    let mut followed = follow(&alice, &namespace);
    yard.configure("[access]\ndeny_users = ['bob']\n[[kube.deny]]\ngroups = ['*']\nclusters = ['hyades']");
    yard.signal("HUP");
    followed.end();
    let (status, body) = yard.knock(&yard.token("alice", "pleiades"));
    assert!(status == 403 && body.contains("no cluster hyades is here for you"), "{status} {body}");
    assert!(alice.run("pleiades", &["-n", "team-a", "get", "pods"]).ok().contains("web"));
}

/// Item 7 in a jail: "jail, streams, tokens and credential refresh are dead within a second"
#[test]
fn a_locked_session_ends_with_its_streams() {
    let clusters = Clusters::start();
    let namespace = clusters.hyades().namespace("locked");
    let yard = bastion("1h");
    let laptop = Laptop::of(&yard, "alice");
    let mut outside = follow(&laptop, &namespace);
    let mut one = yard.ssh("alice").terminal();
    one.prompt();
    let session = yard.audit().wait_for("SK2003I", |_| true)["session"]["uid"].as_str().unwrap().to_owned();
    one.enter(&format!("kubectl --context hyades -n {namespace} get pods -w &"));
    one.wait_for("Running");
    one.enter(&format!("kubectl --context hyades -n {namespace} exec -it web -c app -- bash --norc"));
    one.wait_for(r"bash-[\d.]+[$#] $");
    let mut other = yard.ssh("alice").terminal();
    other.prompt();
    lock(&yard, &["add", "--session", &session, "--reason", "odd"]).ok();
    assert_eq!(one.end(), 255);
    let of_it = |event: &Value| event["session"]["uid"] == session.as_str();
    yard.audit().wait_for("SK5204I", of_it);
    yard.audit().wait_for("SK2002I", of_it);
    yard.recording(&session).closed();
    let is_over = |event: &Value| {
        let kubernetes = &event["unmapped"]["kubernetes"];
        of_it(event) && kubernetes["verb"] == "watch" && kubernetes["stage"] != "ResponseStarted"
    };
    yard.audit().wait_for("SK5201I", is_over);
    // The user's other session, and the laptop's, go on; nobody asks AWS for the locked one's credentials again.
    assert!(other.shell(&format!("kubectl --context hyades -n {namespace} get pods")).contains("web"));
    outside.wait_for(r"line \d+\r\nline \d+\r\n");
    let asked = || clusters.trail().iter().filter(|line| line["params"]["RoleSessionName"] == session.as_str()).count();
    let before = asked();
    assert!(laptop.run("hyades", &["-n", &namespace, "get", "pods"]).ok().contains("web"));
    assert_eq!(asked(), before);
    // A grant is a session, too.
    let [grant] = grants(&yard, "alice").try_into().expect("one grant");
    // Over a connection that is kept its token was fetched, too, and the next one would be.
    let path = format!("ControlPath={}", yard.path("mux").display());
    let mut master = yard.ssh("alice").option("ControlMaster=yes").option(&path).arg("-N").begin("");
    until("the connection that is kept", || yard.path("mux").exists().then_some(()));
    yard.ssh("alice").option("ControlMaster=no").option(&path).run("stockade token hyades").ok();
    lock(&yard, &["add", "--session", &grant, "--reason", "odd"]).ok();
    outside.end();
    until("the end of the connection", || (!master.is_running()).then_some(()));
    assert_eq!(other.shell("echo still here"), "still here");
}

fn lock(yard: &Yard, arguments: &[&str]) -> Output {
    let mut lock = Command::new(STOCKADE);
    lock.args(["lock", "--config"]).arg(yard.path("stockade.toml")).args(arguments);
    spawn_with(lock, None).wait()
}

/// A `kill -9` of each: kubectl gets what it needs by itself.
#[test]
fn whatever_dies_kubectl_works_again() {
    let yard = bastion("1h");
    let namespace = Clusters::start().hyades().namespace("kills");
    let laptop = Laptop::of(&yard, "alice");
    let get = || laptop.run("hyades", &["-n", "team-a", "get", "pods"]).ok();
    let token = yard.token("alice", "hyades");
    let mut followed = follow(&laptop, &namespace);
    // What a former warden lent nobody could end any more, so it ends with it.
    yard.kill("warden");
    followed.end();
    assert_eq!(yard.knock(&token).0, 401);
    let ended = yard.audit().wait_for("SK4202I", |_| true);
    assert_eq!(ended["unmapped"]["reason"], "the warden that lent its token ended");
    assert!(get().contains("web"), "a new token, and the clusters before EKS told of them again");
    assert_eq!(grants(&yard, "alice").len(), 2);

    for role in ["porter", "portal"] {
        let token = yard.token("alice", "hyades");
        let mut followed = follow(&laptop, &namespace);
        yard.kill(role);
        followed.end();
        // Its successor has the listener from the start, and hears of grants in a moment.
        until(&format!("the door after the {role}"), || (yard.knock(&token).0 == 200).then_some(()));
        assert!(get().contains("web"), "{role}");
    }
    assert_eq!(grants(&yard, "alice").len(), 2, "those grants stand");
    yard.kill("keeper");
    until("the end of all grants", || (yard.audit().of("SK4202I").len() == 2).then_some(()));
    until("kubectl with a new keeper", || {
        let ran = laptop.run("hyades", &["-n", "team-a", "get", "pods"]);
        (ran.code == Some(0)).then_some(())
    });
}
