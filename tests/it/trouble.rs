//! "STS down, slow, refusing, returning nonsense": the jail opens all the same, its doors say what an SDK can read, nobody
//! gets anybody's credentials, and all is well again when STS is.

use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::aws::Bed;
use crate::doors::{BOTH, ROLE, TOKEN};
use crate::yard::{Plan, Terminal, Yard, until, within};

fn yard(bed: &Bed, endpoint: &str) -> Plan {
    let role = "arn:aws:iam::123456789012:role/bastion/{user}";
    let mut plan = Yard::new().config(&format!("aws.region = 'us-east-1'\naws.role = '{role}'"));
    // People are in files: here it is STS that fails.
    plan = plan.config("aws.keys_from_iam = false\naws.groups_from_iam = false");
    for (name, value) in bed.bastion() {
        plan = plan.env(&name, if name == "AWS_ENDPOINT_URL" { endpoint } else { &value });
    }
    plan.env("AWS_EC2_METADATA_DISABLED", "true").user("alice")
}

fn endpoint(bed: &Bed) -> String {
    bed.bastion()["AWS_ENDPOINT_URL"].clone()
}

/// What both addresses say without credentials: a document that an SDK reads a code in. A refusal by STS is a 200 of the
/// instance address, as AWS's own is.
#[track_caller]
fn is_refused(alice: &mut Terminal, mode: &str) {
    let codes = alice.shell(BOTH);
    let (instance, container) = codes.split_once(' ').unwrap();
    assert!(instance.starts_with('5') || mode == "refuse", "{mode}: {codes}");
    assert!(container.starts_with(['4', '5']), "{mode}: {codes}");
    for (file, field) in [("/tmp/i", "Code"), ("/tmp/c", "code")] {
        let said = alice.shell(&format!("cat {file}"));
        let document: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{mode}: {e}: {said}"));
        assert!(document[field].as_str().is_some_and(|code| code != "Success"), "{mode}: {said}");
        assert!(!said.contains("AccessKeyId") && !said.contains("SecretAccessKey"), "{mode}: {said}");
    }
}

#[track_caller]
fn is_well(alice: &mut Terminal, mode: &str) {
    // The pause between two tries grows to a minute.
    let well = within(Duration::from_secs(90), || (alice.shell(BOTH) == "200 200").then_some(()));
    assert!(well.is_some(), "{mode}: {}", alice.shell("cat /tmp/i /tmp/c"));
    let document: Value = serde_json::from_str(&alice.shell("cat /tmp/i")).unwrap();
    assert_eq!(document["Code"], "Success", "{mode}");
}

fn survives(moods: &[Value]) {
    let bed = Bed::start();
    let yard = yard(&bed, &endpoint(&bed)).start();
    for mood in moods {
        let mode = mood["mode"].as_str().unwrap();
        crate::aws::control(&endpoint(&bed), "POST", "sts", mood);
        let issued = yard.audit().of("SK4001I").len();
        // While STS has said nothing, or nothing good, the prompt is there.
        let mut alice = yard.ssh("alice").terminal();
        alice.prompt();
        is_refused(&mut alice, mode);
        if mode == "hang" {
            // The warden has given up on it by then.
            yard.audit().wait_for("SK4002W", |event| event["unmapped"]["code"] == "ServiceUnavailable");
            is_refused(&mut alice, mode);
        }
        assert_eq!(yard.audit().of("SK4001I").len(), issued, "{mode}: credentials out of nothing");
        crate::aws::control(&endpoint(&bed), "POST", "sts", &json!({}));
        if mode == "refuse" {
            // A decision is asked about again after minutes; a new session asks anew.
            assert_eq!(yard.ssh("alice").run(BOTH).ok(), "200 200");
        } else {
            is_well(&mut alice, mode);
        }
        alice.enter("exit");
        alice.end();
    }
}

#[test]
fn an_sts_that_answers_nonsense_is_survived() {
    survives(&["nonsense", "html", "empty", "cut"].map(|mode| json!({ "mode": mode })));
}

#[test]
fn an_sts_that_is_down_or_refuses_is_survived() {
    survives(&["down", "throttle", "expired", "redirect", "refuse"].map(|mode| json!({ "mode": mode })));
}

#[test]
fn an_sts_that_hangs_holds_nobody_up() {
    survives(&[json!({ "mode": "slow", "seconds": 3 })]);
    survives(&[json!({ "mode": "hang", "seconds": 600 })]);
}

/// A wire to the bed that can be cut and mended.
struct Wire {
    port: u16,
    bed: String,
    up: Option<(Arc<AtomicBool>, std::thread::JoinHandle<()>)>,
}

impl Wire {
    fn to(endpoint: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut wire = Self { port, bed: endpoint.strip_prefix("http://").unwrap().to_owned(), up: None };
        wire.mend();
        wire
    }

    fn mend(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (down, bed) = (Arc::new(AtomicBool::new(false)), self.bed.clone());
        let told = down.clone();
        let thread = std::thread::spawn(move || {
            let open = Mutex::new(Vec::new());
            while !told.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => {
                        client.set_nonblocking(false).unwrap();
                        let server = TcpStream::connect(&bed).unwrap();
                        for (from, to) in [(&client, &server), (&server, &client)] {
                            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                            std::thread::spawn(move || carry(from, to));
                        }
                        open.lock().unwrap().extend([client, server]);
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
            open.lock().unwrap().iter().for_each(|stream| _ = stream.shutdown(Shutdown::Both));
        });
        self.up = Some((down, thread));
    }

    /// From now on connections are refused, and those that stood are cut.
    fn cut(&mut self) {
        let (down, thread) = self.up.take().unwrap();
        down.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }
}

fn carry(mut from: impl Read, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn an_sts_that_cannot_be_reached_is_survived() {
    let bed = Bed::start();
    let mut wire = Wire::to(&endpoint(&bed));
    let yard = yard(&bed, &format!("http://127.0.0.1:{}", wire.port)).start();
    let mut before = yard.ssh("alice").terminal();
    before.prompt();
    is_well(&mut before, "before");
    wire.cut();
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    is_refused(&mut alice, "unreachable");
    yard.audit().wait_for("SK4002W", |event| event["unmapped"]["code"] == "ServiceUnavailable");
    assert_eq!(before.shell(BOTH), "200 200", "what was issued stays good");
    wire.mend();
    is_well(&mut alice, "reachable again");
    until("the new session's own credentials", || (yard.audit().of("SK4001I").len() == 2).then_some(()));
    wire.cut();
}

/// "16 simultaneous misses are one STS call": whoever asks before STS has answered waits for that one answer.
#[test]
fn sixteen_who_ask_at_once_are_one_call() {
    let bed = Bed::start();
    let yard = yard(&bed, &endpoint(&bed)).start();
    crate::aws::control(&endpoint(&bed), "POST", "sts", &json!({ "mode": "slow", "seconds": 0.7 }));
    let key = "sed -n 's/.*\"AccessKeyId\" *: *\"\\([A-Z0-9]*\\)\".*/\\1/p'";
    let ask = format!("{TOKEN} for n in $(seq 16); do md {ROLE}/alice | {key} & done; wait");
    let said = yard.ssh("alice").run(&ask).ok();
    let keys: Vec<&str> = said.lines().collect();
    assert!(keys.len() == 16 && keys[0].starts_with("ASIA") && keys.iter().all(|key| *key == keys[0]), "{said}");
    let asked = crate::aws::trail(&endpoint(&bed)).into_iter().filter(|line| line["action"] == "AssumeRole").count();
    assert_eq!(asked, 1);
}
