//! The warden's AWS against the bed: what is asked of STS and IAM, what their refusals become, and that nothing is
//! opened once the warden is locked.
//!
//! The SDK takes its settings from the environment, which a test may not change under its siblings: each test starts
//! this binary again as a child with an environment of its own and runs one of the `child_` tests in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetStatus};
use serde_json::{Value, json};
use stockade::config::rbac::{MembersFrom, Rbac};
use stockade::privsep::message::{Grant, Refusal};
use stockade::session::SessionId;
use stockade::warden::authority::{AssumeRequest, Authority, AuthorityError, Surroundings};
use stockade::warden::directory::{Cache, Directory, Iam, Lives, Need, Origin, Record, Use};

/// A bed of its own, filled; it ends with this value.
pub struct Bed {
    process: Child,
    _alive: ChildStdin,
    directory: tempfile::TempDir,
    ready: Value,
}

impl Bed {
    pub fn start() -> Self {
        Self::with(&[])
    }

    pub fn with(arguments: &[&str]) -> Self {
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bed");
        let made = Command::new(files.join("venv")).stderr(Stdio::inherit()).output().unwrap();
        assert!(made.status.success(), "tests/bed/venv failed");
        let python = String::from_utf8(made.stdout).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let mut process = Command::new(python.trim())
            .arg(files.join("bed_aws.py"))
            .args(["--page", "2", "--end-with-stdin"])
            .args([Path::new("--seed"), directory.path(), Path::new("--tls"), &at("ca.pem")])
            .args([Path::new("--ready-file"), &at("ready")])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let alive = process.stdin.take().unwrap();
        let ready = wait_for(&at("ready"));
        Self { process, _alive: alive, directory, ready }
    }

    /// The bastion's environment: its keys, its region, the endpoint.
    pub fn bastion(&self) -> BTreeMap<String, String> {
        self.identity("bastion")
    }

    /// The environment of `bastion` or `access`.
    pub fn identity(&self, of: &str) -> BTreeMap<String, String> {
        let text = std::fs::read_to_string(self.directory.path().join(format!("{of}.env"))).unwrap();
        text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    /// IAM as the owner of the account.
    pub async fn owner(&self) -> aws_sdk_iam::Client {
        let endpoint = self.identity("access")["AWS_ENDPOINT_URL"].clone();
        let (key, secret) = ("AKIAROOTOFTHEBED0000", "root-secret-of-the-bed");
        let config = aws_config::defaults(aws_config::BehaviorVersion::latest())
            .region(aws_config::Region::new("us-east-1"))
            .endpoint_url(endpoint)
            .credentials_provider(aws_credential_types::Credentials::new(key, secret, None, None, "bed"))
            .http_client(Surroundings::default().http_client().unwrap());
        aws_sdk_iam::Client::new(&config.load().await)
    }

    fn https(&self, host: &str) -> BTreeMap<String, String> {
        let mut environment = self.bastion();
        environment.insert("AWS_ENDPOINT_URL".into(), format!("https://{host}:{}", self.ready["tls_port"]));
        environment.insert("AWS_CA_BUNDLE".into(), self.path("ca.pem").display().to_string());
        environment
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn wait_for(ready: &Path) -> Value {
    let started = Instant::now();
    loop {
        if let Ok(text) = std::fs::read(ready) {
            return serde_json::from_slice(&text).unwrap();
        }
        assert!(started.elapsed() < Duration::from_secs(60), "the bed does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One request to the bed's own controls.
pub fn control(endpoint: &str, method: &str, path: &str, body: &Value) -> String {
    let host = endpoint.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let body = body.to_string();
    let length = body.len();
    write!(
        stream,
        "{method} /bed/{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

pub fn trail(endpoint: &str) -> Vec<Value> {
    control(endpoint, "GET", "trail", &json!({})).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs one of the `child_` tests in a process with this environment and no other AWS settings.
pub fn child(test: &str, environment: &BTreeMap<String, String>) {
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env_clear()
        .envs(std::env::vars().filter(|(key, _)| !key.starts_with("AWS_")))
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", "/nonexistent")
        .envs(environment)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

#[test]
fn sts_is_asked_for_one_user_and_one_session() {
    child("aws::child_assumes", &Bed::start().bastion());
}

#[test]
fn refusals_of_sts_are_told_as_what_they_are() {
    child("aws::child_is_refused", &Bed::start().bastion());
}

#[test]
fn people_come_from_all_pages_of_iam() {
    child("aws::child_looks_people_up", &Bed::start().bastion());
}

/// "membership may come from a second source behind the same seam (user tags)": whoever may tag gives no other group.
#[test]
fn access_to_clusters_can_be_in_a_users_tag() {
    let bed = Bed::start();
    let mut environment = bed.bastion();
    environment.insert("AWS_ACCESS_KEY_ID".into(), "AKIAROOTOFTHEBED0000".into());
    environment.insert("AWS_SECRET_ACCESS_KEY".into(), "root-secret-of-the-bed".into());
    child("aws::child_heeds_where_access_is_said", &environment);
}

#[test]
fn nothing_is_opened_after_lock_down() {
    let bed = Bed::start();
    let mut environment = bed.https("localhost");
    child("aws::child_is_locked", &environment);
    // The same identity from a profile instead of the environment.
    let take = |environment: &mut BTreeMap<String, String>, name: &str| environment.remove(name).unwrap();
    let profile = format!(
        "[bastion]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        take(&mut environment, "AWS_ACCESS_KEY_ID"),
        take(&mut environment, "AWS_SECRET_ACCESS_KEY"),
    );
    std::fs::write(bed.path("credentials"), profile).unwrap();
    environment.insert("AWS_SHARED_CREDENTIALS_FILE".into(), bed.path("credentials").display().to_string());
    environment.insert("AWS_PROFILE".into(), "bastion".into());
    child("aws::child_is_locked", &environment);
}

#[test]
fn tls_trusts_the_given_roots_and_no_others() {
    let bed = Bed::start();
    let mut environment = bed.https("localhost");
    environment.remove("AWS_CA_BUNDLE");
    child("aws::child_trusts_nobody", &environment);
}

#[test]
fn a_credential_process_is_refused_with_a_sentence() {
    let bed = Bed::start();
    let config = bed.path("config");
    std::fs::write(&config, "[default]\ncredential_process = /bin/true\n").unwrap();
    let environment = BTreeMap::from([("AWS_CONFIG_FILE".to_owned(), config.display().to_string())]);
    child("aws::child_has_a_credential_process", &environment);
    std::fs::write(
        &config,
        "[default]\nrole_arn = x\nsource_profile = other\n[profile other]\ncredential_process = x\n",
    )
    .unwrap();
    child("aws::child_has_a_credential_process", &environment);
}

fn request(user: &str) -> AssumeRequest {
    AssumeRequest {
        principal: user.parse().unwrap(),
        session: SessionId::mint(),
        role_arn: format!("arn:aws:iam::123456789012:role/bastion/{user}"),
        tags: vec![("team".into(), "platform".into())],
        policy: Some(r#"{"Version":"2012-10-17","Statement":[]}"#.into()),
        duration: Duration::from_secs(3600),
    }
}

/// As the warden does: connected on a runtime that ends before the lock-down.
fn connect() -> Result<Authority, AuthorityError> {
    runtime().block_on(async { Authority::connect("us-east-1", &Surroundings::read()?).await })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn assume(authority: &Authority, request: &AssumeRequest) -> Result<Grant, Refusal> {
    runtime().block_on(authority.assume(request))
}

fn endpoint() -> String {
    std::env::var("AWS_ENDPOINT_URL").unwrap()
}

#[test]
#[ignore = "run by its parent"]
fn child_assumes() {
    let authority = connect().unwrap();
    let caller = runtime().block_on(authority.whoami()).unwrap();
    assert_eq!(caller.arn, "arn:aws:iam::123456789012:user/stockade-bastion");
    assert_eq!(caller.account, "123456789012");

    let asked = request("alice");
    let grant = assume(&authority, &asked).unwrap();
    assert!(grant.credentials.access_key_id.starts_with("ASIA"));
    assert!((3590..=3601).contains(&(grant.credentials.expires - grant.credentials.issued)));
    assert_eq!(
        (grant.role.as_str(), grant.account.as_str(), grant.region.as_str()),
        ("alice", "123456789012", "us-east-1")
    );

    let trail = trail(&endpoint());
    let params = &trail.iter().rfind(|line| line["action"] == "AssumeRole").unwrap()["params"];
    let session = asked.session.to_string();
    for (name, value) in [
        ("RoleArn", asked.role_arn.as_str()),
        ("RoleSessionName", &session),
        ("SourceIdentity", "alice"),
        ("DurationSeconds", "3600"),
        ("Policy", asked.policy.as_deref().unwrap()),
        ("Tags.member.1.Key", "stockade:session"),
        ("Tags.member.1.Value", &session),
        ("TransitiveTagKeys.member.1", "stockade:session"),
        ("Tags.member.2.Key", "team"),
        ("TransitiveTagKeys.member.2", "team"),
    ] {
        assert_eq!(params[name], value, "{name}");
    }
    // The trust policy of bob's role wants bob as source identity: the warden cannot even be made to mix them up.
    let mixed = AssumeRequest { role_arn: request("bob").role_arn, ..request("alice") };
    assert_eq!(assume(&authority, &mixed).unwrap_err().code, "AccessDenied");
}

#[test]
#[ignore = "run by its parent"]
fn child_is_refused() {
    let authority = connect().unwrap();
    let refused = |user: &str| assume(&authority, &request(user)).map(|grant| grant.role).unwrap_err();
    let nobody = refused("nobody");
    assert_eq!((nobody.code.as_str(), nobody.transient), ("AccessDenied", false), "{nobody:?}");
    for (mode, code, transient) in [
        ("throttle", "Throttling", true),
        ("refuse", "AccessDenied", false),
        ("expired", "ExpiredToken", true),
        ("down", "ServiceUnavailable", true),
        ("nonsense", "ServiceUnavailable", true),
        ("redirect", "ServiceUnavailable", true),
        ("slow", "ServiceUnavailable", true),
    ] {
        control(&endpoint(), "POST", "sts", &json!({ "mode": mode, "seconds": 12 }));
        let started = Instant::now();
        let refusal = refused("alice");
        assert_eq!((refusal.code.as_str(), refusal.transient), (code, transient), "{mode}: {refusal:?}");
        let most = if mode == "slow" { 10_000 } else { 2_000 };
        assert!(started.elapsed() < Duration::from_millis(most), "{mode}: {:?}", started.elapsed());
        println!("{mode}: {:?} {}", started.elapsed(), refusal.message);
    }
    control(&endpoint(), "POST", "sts", &json!({}));
    assert!(assume(&authority, &request("alice")).is_ok());
    assert!(trail(&endpoint()).iter().all(|line| line["trap"].is_null()), "a redirect was followed");
}

#[test]
#[ignore = "run by its parent"]
fn child_looks_people_up() {
    let authority = connect().unwrap();
    let bastion = "arn:aws:iam::123456789012:user/stockade-bastion";
    let iam = std::sync::Arc::new(Cache::new(Iam::new(authority.iam()), Lives::default()));
    let both = Use { keys: true, groups: true };
    let directory = Directory::new(None, &BTreeMap::new(), Some((iam, both)));
    let runtime = runtime();
    let look_up = |name: &str| runtime.block_on(directory.look_up(&name.parse().unwrap(), Need::Login)).unwrap();
    let alice = look_up("alice");
    assert!(
        matches!(&alice.keys[..], [key] if matches!(key.origin, Origin::Iam(_)) && key.text.starts_with("ssh-rsa "))
    );
    let groups = ["developers", "on-call", "platform-admins"].map(str::to_owned);
    assert_eq!(alice.groups, BTreeSet::from(groups), "two a page");
    assert!(look_up("bob").keys.is_empty());
    assert_eq!(look_up("nobody"), Record::default());
    assert_eq!(look_up("dave"), Record::default());

    let asked = |line: &Value, name: &str| line["principal"] == bastion && line["params"]["UserName"] == name;
    let calls = |name: &str| trail(&endpoint()).iter().filter(|line| asked(line, name)).count();
    assert_eq!(calls("nobody"), calls("dave"), "the unknown cost what people without keys cost");
    let before = calls("alice");
    look_up("alice");
    assert_eq!(calls("alice"), before, "remembered");
}

#[test]
#[ignore = "run by its parent"]
fn child_heeds_where_access_is_said() {
    let (iam, runtime) = (connect().unwrap().iam(), runtime());
    let value = "k8s-user@hyades+platform-admins k8s-admin@hyades@web";
    let tag = aws_sdk_iam::types::Tag::builder().key("stockade:groups").value(value).build().unwrap();
    runtime.block_on(iam.tag_user().user_name("bob").tags(tag).send()).unwrap();
    for (path, group) in [("/other/", "k8s-user@pleiades"), ("/stockade/", "k8s-admin@merope")] {
        runtime.block_on(iam.create_group().path(path).group_name(group).send()).unwrap();
        runtime.block_on(iam.add_user_to_group().group_name(group).user_name("bob").send()).unwrap();
    }
    let people = Iam::new(iam);
    let cache = std::sync::Arc::new(Cache::new(people.clone(), Lives::default()));
    let directory = Directory::new(None, &BTreeMap::new(), Some((cache.clone(), Use { keys: false, groups: true })));
    let look_up = |name: &str| {
        let record = runtime.block_on(directory.look_up(&name.parse().unwrap(), Need::Login)).unwrap();
        record.groups.into_iter().collect::<Vec<_>>()
    };
    let heed = |members: MembersFrom| {
        people.heed(Some(Rbac { members, ..crate::access_cluster::terms(None, "none") }));
        cache.doubt(Lives::default());
    };
    assert_eq!(look_up("bob"), ["developers", "k8s-admin@merope", "k8s-user@pleiades"], "names like any other");
    heed(MembersFrom::Iam);
    assert_eq!(look_up("bob"), ["developers", "k8s-admin@merope"], "as access reads them: by their path");
    heed(MembersFrom::File);
    assert_eq!(look_up("bob"), ["developers"]);
    heed(MembersFrom::Tag("stockade:groups".into()));
    assert_eq!(look_up("bob"), ["developers", "k8s-admin@hyades@web", "k8s-user@hyades"]);
    for nobody in ["nobody", "dave"] {
        assert_eq!(look_up(nobody), [""; 0]);
    }
}

#[test]
#[ignore = "run by its parent"]
fn child_is_locked() {
    let authority = connect().unwrap();
    let locked = Ruleset::default().handle_access(AccessFs::from_all(ABI::V1)).unwrap().create().unwrap();
    let status = locked.restrict_self().unwrap();
    if status.ruleset == RulesetStatus::NotEnforced {
        println!("no landlock here: only the calls are tried");
    } else {
        assert!(std::fs::read("/etc/hosts").is_err());
    }
    let grant = assume(&authority, &request("alice")).unwrap();
    assert_eq!(grant.role, "alice");
}

#[test]
#[ignore = "run by its parent"]
fn child_trusts_nobody() {
    let refusal = assume(&connect().unwrap(), &request("alice")).unwrap_err();
    assert_eq!((refusal.code.as_str(), refusal.transient), ("ServiceUnavailable", true));
    assert!(refusal.message.contains("certificate"), "{}", refusal.message);
}

#[test]
#[ignore = "run by its parent"]
fn child_has_a_credential_process() {
    let error = connect().unwrap_err();
    assert!(matches!(error, AuthorityError::CredentialProcess), "{error}");
}
