//! `stockade access plan`, `apply` and `watch` against IAM of a bed and a real API server.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::access_scene::Scene;
use crate::aws::control;
use crate::yard::{Output, signal, spawn_with, until};

const STOCKADE: &str = env!("CARGO_BIN_EXE_stockade");

pub fn access(scene: &Scene, verb: &str, more: &[&str]) -> Command {
    let mut command = Command::new(STOCKADE);
    command.args(["access", verb, "--config"]).arg(scene.path("stockade.toml")).args(more);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(scene.bed.identity("access"));
    command
}

fn run(scene: &Scene, verb: &str, more: &[&str]) -> Output {
    spawn_with(access(scene, verb, more), None).wait()
}

fn audit(scene: &Scene) -> Vec<Value> {
    let text = std::fs::read_to_string(scene.path("audit.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn told(scene: &Scene, code: &str, what: &str) -> bool {
    let is =
        |event: &Value| event["metadata"]["event_code"] == code && event["message"].as_str().unwrap().contains(what);
    audit(scene).iter().any(is)
}

#[tokio::test]
async fn a_plan_is_told_done_and_then_there_is_none() {
    let scene = Scene::start("altair", "");
    let plan = run(&scene, "plan", &[]);
    let group = scene.group("user");
    assert!(plan.code == Some(2) && plan.text().contains(&format!("+ IAM group {group}")), "{plan:?}");
    assert!(!scene.path("audit.jsonl").exists() && !scene.path("state").exists(), "plan writes nothing");
    let done = run(&scene, "apply", &[]);
    assert!(done.code == Some(0) && done.text().contains(&format!("+ IAM group {group}")), "{done:?}");
    assert!(done.text().ends_with(" changed, 0 failed, 0 left"), "{done:?}");
    let plan = run(&scene, "plan", &["--output", "json"]);
    let value: Value = serde_json::from_str(&plan.text()).unwrap();
    assert_eq!((plan.code, &value["stopped"], &value["unread"]), (Some(0), &Value::Null, &serde_json::json!({})));

    scene.join("alice", "user").await;
    assert_eq!(run(&scene, "plan", &[]).code, Some(2));
    let done = run(&scene, "apply", &["--output", "json"]);
    let value: Value = serde_json::from_str(&done.text()).unwrap();
    assert!(done.code == Some(0) && value["whole"] == true, "{done:?}");
    assert_eq!(scene.bound("user"), ["alice"]);
    assert!(told(&scene, "SK9001I", "alice joined") && told(&scene, "SK9007I", "alice was given"));
    assert_eq!(audit(&scene).last().unwrap()["metadata"]["event_code"], "SK9017I");

    for (verb, arguments) in [
        ("who-can", &["get", "pods", "--cluster", "altair", "--namespace", "access-altair"][..]),
        ("report", &[]),
        ("explain", &["alice"]),
        ("history", &["alice"]),
    ] {
        let said = run(&scene, verb, arguments);
        assert!(said.code == Some(0) && said.text().contains("alice"), "{verb}: {said:?}");
    }

    control(&scene.bed.identity("access")["AWS_ENDPOINT_URL"], "POST", "iam", &serde_json::json!({ "mode": "refuse" }));
    let refused = run(&scene, "plan", &[]);
    assert!(refused.code == Some(1) && refused.stderr.contains("nothing is changed"), "{refused:?}");
}

#[test]
fn a_wrong_configuration_is_told_with_its_place() {
    let scene = Scene::start("deneb", "cycel = \"5m\"");
    for verb in ["plan", "apply", "watch"] {
        let said = run(&scene, verb, &[]);
        assert!(said.code == Some(78) && said.stderr.contains("cycel"), "{said:?}");
    }
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[tokio::test]
async fn watch_follows_groups_shows_how_it_fares_and_ends_cleanly() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let scene = Scene::start("antares", &format!("cycle = \"1s\"\nlisten = \"127.0.0.1:{port}\""));
    let log = File::create(scene.path("log")).unwrap();
    let mut daemon = Daemon(access(&scene, "watch", &[]).stdin(Stdio::null()).stderr(log).spawn().unwrap());
    until("the first cycle", || get(port, "/metrics")?.contains("stockade_access_changes_waiting 0").then_some(()));
    until("its health", || get(port, "/healthz")?.ends_with("\r\n\r\nok\n").then_some(()));
    until("its groups", || told(&scene, "SK9003I", &scene.group("user")).then_some(()));
    scene.join("bob", "poweruser").await;
    until("bob in the binding", || (scene.bound("poweruser") == ["bob"]).then_some(()));
    // Two writers of one trail there are not.
    let second = run(&scene, "apply", &[]);
    assert!(second.code == Some(1) && second.stderr.contains("stop it first"), "{second:?}");
    scene.leave("bob", "poweruser").await;
    until("bob out of the binding", || scene.bound("poweruser").is_empty().then_some(()));
    signal(daemon.0.id(), "TERM");
    assert!(daemon.0.wait().unwrap().success());
    assert!(told(&scene, "SK9017I", "access ended"));
    assert!(told(&scene, "SK9001I", "bob joined") && told(&scene, "SK9002I", "bob left"));
}
