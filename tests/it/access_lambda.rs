//! `stockade lambda` as Lambda starts it, over the Lambda Runtime API.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::access_scene::Scene;
use crate::aws::control;
use crate::yard::until;

const STOCKADE: &str = env!("CARGO_BIN_EXE_stockade");

struct Function {
    scene: Scene,
    api: Child,
    events: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Function {
    fn start(name: &'static str) -> Self {
        let scene = Scene::start(name, "");
        std::os::unix::fs::symlink(STOCKADE, scene.path("bootstrap")).unwrap();
        let mut api = Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bed/lambda_api.py"))
            .arg(scene.path("bootstrap"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(scene.bed.identity("access"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(scene.path("log")).unwrap())
            .spawn()
            .unwrap();
        let (events, answers) = (api.stdin.take().unwrap(), BufReader::new(api.stdout.take().unwrap()));
        Self { scene, api, events, answers }
    }

    #[track_caller]
    fn invoke(&mut self) -> Value {
        let event = json!({ "source": "aws.events", "detail-type": "Scheduled Event", "detail": {} });
        writeln!(self.events, "{event}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}\n{}", self.log()))
    }

    #[track_caller]
    fn whole(&mut self) -> Value {
        let answer = self.invoke();
        assert_eq!(answer["response"]["whole"], true, "{answer:#}\n{}", self.log());
        answer["response"].clone()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.scene.path("log")).unwrap()
    }

    /// The messages of the audit events that were printed, by their codes.
    fn events(&self) -> BTreeMap<String, Vec<String>> {
        let mut events: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in self.log().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let code = line["metadata"]["event_code"].as_str().unwrap().to_owned();
            events.entry(code).or_default().push(line["message"].as_str().unwrap().to_owned());
        }
        events
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.api.kill();
        let _ = self.api.wait();
    }
}

#[tokio::test]
async fn a_scheduled_event_is_one_cycle() {
    let mut function = Function::start("vega");
    let first = function.whole();
    let made: Vec<&str> =
        first["changed"].as_array().unwrap().iter().map(|row| row["target"].as_str().unwrap()).collect();
    let group = function.scene.group("user");
    assert!(made.contains(&&*format!("IAM group {group}")), "{made:#?}");
    assert!(made.contains(&"vega: ClusterRole k8s-admin@vega"), "{made:#?}");
    let second = function.whole();
    assert_eq!((&second["counts"]["changed"], &second["unread"]), (&json!(0), &json!({})), "{second:#}");
    let calls = second["calls"].as_u64().unwrap();
    assert!((1..30).contains(&calls), "{calls}");

    function.scene.join("alice", "user").await;
    let third = function.whole();
    let row =
        third["changed"].as_array().unwrap().iter().find(|row| row["target"].as_str().unwrap().contains("RoleBinding"));
    assert_eq!(row.unwrap()["cause"], format!("alice is in {group}"), "{third:#}");
    assert_eq!(function.scene.bound("user"), ["alice"]);
    function.scene.leave("alice", "user").await;
    function.whole();
    assert_eq!(function.scene.bound("user"), [""; 0]);

    let events = function.events();
    let told =
        |code: &str, what: &str| events.get(code).is_some_and(|lines| lines.iter().any(|line| line.contains(what)));
    assert!(told("SK9001I", "alice joined") && told("SK9002I", "alice left"), "{events:#?}");
    assert!(told("SK9007I", "alice was given") && told("SK9008I", "was taken from alice"), "{events:#?}");
    assert!(!function.scene.path("audit.jsonl").exists(), "CloudWatch is the audit file");
}

/// An invocation that could do nothing has failed, for CloudWatch's alarms; the next one does the work.
#[tokio::test]
async fn without_iam_the_invocation_fails() {
    let mut function = Function::start("lyra");
    function.whole();
    let endpoint = function.scene.bed.identity("access")["AWS_ENDPOINT_URL"].clone();
    control(&endpoint, "POST", "iam", &json!({ "mode": "refuse" }));
    let failed = function.invoke();
    assert_eq!(failed["error"]["errorType"], "Unread", "{failed:#}");
    assert!(failed["error"]["errorMessage"].as_str().unwrap().contains("nothing is changed"), "{failed:#}");
    control(&endpoint, "POST", "iam", &json!({ "mode": "ok" }));
    function.whole();
    until("the events of the outage", || {
        let events = function.events();
        (events.contains_key("SK9013W") && events.contains_key("SK9014I")).then_some(())
    });
}

#[test]
fn elsewhere_it_says_what_it_is_for() {
    let said = Command::new(STOCKADE).arg("lambda").env_clear().output().unwrap();
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&said.stderr).contains("stockade access watch"));
}
