//! Issue item 5: the metadata door, with the AWS bed behind the bastion. "Clients in this issue's tests, with no
//! configuration: AWS CLI, boto3, curl."

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::aws::Bed;
use crate::yard::{Plan, Terminal, Yard, until, within};

/// A bastion with the bed as its AWS; the jail's own calls do not reach it, as they reach nothing.
pub fn yard(bed: &Bed) -> Plan {
    let role = "arn:aws:iam::123456789012:role/bastion/{user}";
    let mut plan =
        Yard::new().config(&format!("aws.region = 'us-east-1'\naws.role = '{role}'\njail.memory = '512MiB'"));
    for (name, value) in bed.bastion() {
        plan = plan.env(&name, &value);
    }
    plan.env("AWS_EC2_METADATA_DISABLED", "true").user("alice").user("bob")
}

pub const TOKEN: &str = "T=$(curl -sS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token); \
                     get() { curl -sS -H \"X-aws-ec2-metadata-token: $T\" \"http://169.254.169.254/latest/$1\"; }; \
                     md() { for n in 1 2 3 4 5 6 7 8 9; do a=$(get $1); case $a in *'not there yet'*) ;; *) break;; esac; done; echo \"$a\"; }; ";
pub const ROLE: &str = "meta-data/iam/security-credentials";

/// "IMDSv2", "role = user": each user's jail gets that user's credentials and no other's.
#[test]
fn curl_gets_the_users_own_role() {
    let bed = Bed::start();
    let yard = yard(&bed).start();
    let mut keys = Vec::new();
    for user in ["alice", "bob"] {
        // "no trailing newline after the role name"
        let name = yard.ssh(user).run(&format!("{TOKEN} md {ROLE}/ >/dev/null; get {ROLE}/"));
        assert_eq!((name.code, name.stdout.as_slice()), (Some(0), user.as_bytes()), "{}", name.stderr);
        let document = yard.ssh(user).run(&format!("{TOKEN} md {ROLE}/{user}")).ok();
        let document: Value = serde_json::from_str(&document).unwrap();
        assert_eq!((&document["Code"], &document["Type"]), (&"Success".into(), &"AWS-HMAC".into()), "{document}");
        let key = document["AccessKeyId"].as_str().unwrap().to_owned();
        assert!(key.starts_with("ASIA"));
        // "every issue is an audit event with its AccessKeyId"
        let issued = yard.audit().wait_for("SK4001I", |event| event["unmapped"]["access_key_id"] == key.as_str());
        assert_eq!(issued["user"]["name"], user);
        keys.push(key);
    }
    let other = yard.ssh("alice").run(&format!("{TOKEN} md {ROLE}/bob"));
    assert!(!other.text().contains("AccessKeyId"), "{}", other.text());
    assert_ne!(keys[0], keys[1]);
}

/// "RoleSessionName = session id, SourceIdentity = user, session tags, optional inline policy": as STS saw it.
#[test]
fn sts_sees_the_session_and_the_user() {
    let bed = Bed::start();
    let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"s3:Delete*","Resource":"*"}]}"#;
    std::fs::write(bed.path("policy.json"), format!("{policy}\n")).unwrap();
    let settings = format!(
        "aws.session_tags = {{ team = 'platform' }}\naws.session_policy = '{}'",
        bed.path("policy.json").display()
    );
    let yard = yard(&bed).config(&settings).start();
    let document = yard.ssh("alice").run(&format!("{TOKEN} md {ROLE}/alice")).ok();
    let key = serde_json::from_str::<Value>(&document).unwrap()["AccessKeyId"].as_str().unwrap().to_owned();
    let issued = yard.audit().wait_for("SK4001I", |event| event["unmapped"]["access_key_id"] == key.as_str());
    let trail = crate::aws::trail(&bed.bastion()["AWS_ENDPOINT_URL"]);
    let session = issued["session"]["uid"].as_str().unwrap();
    let asked = trail.iter().rfind(|line| line["action"] == "AssumeRole").unwrap();
    assert_eq!(asked["params"]["RoleSessionName"], session);
    assert_eq!(asked["params"]["SourceIdentity"], "alice");
    assert_eq!(asked["params"]["Policy"], policy);
    for (number, key, value) in [(1, "stockade:session", session), (2, "team", "platform")] {
        assert_eq!(asked["params"][format!("Tags.member.{number}.Key")], key);
        assert_eq!(asked["params"][format!("Tags.member.{number}.Value")], value);
    }
}

/// "16 simultaneous misses are one STS call": all who ask before the first answer is there get that one.
#[test]
fn sixteen_who_ask_before_the_first_answer_share_it() {
    let bed = Bed::start();
    let yard = yard(&bed).start();
    sts(&bed, &json!({ "mode": "slow", "seconds": 0.5 }));
    let key = format!("md {ROLE}/alice | sed -n 's/.*\"AccessKeyId\" *: *\"\\([A-Z0-9]*\\)\".*/\\1/p'");
    let told = yard.ssh("alice").run(&format!("{TOKEN} for n in {{1..16}}; do {key} & done | sort | uniq -c")).ok();
    assert!(matches!(told.split_whitespace().collect::<Vec<_>>()[..], ["16", _]), "{told}");
    let sessions = yard.sessions();
    let trail = crate::aws::trail(&bed.bastion()["AWS_ENDPOINT_URL"]);
    let of_session = |line: &&Value| line["params"]["RoleSessionName"] == sessions[0]["session"];
    assert_eq!(trail.iter().filter(of_session).count(), 1, "{trail:?}");
}

/// boto3 and what it needs, from the bed's own environment, without the descriptions of hundreds of services.
pub fn boto3() -> Vec<u8> {
    let python = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bed/venv")).output().unwrap();
    let packed = Command::new("sh")
        .args([
            "-c",
            "cd \"$(\"$1\" -c 'import boto3, os; print(os.path.dirname(os.path.dirname(boto3.__file__)))')\" && \
               tar -c --exclude='*.pyc' --exclude='botocore/data/*/*' --exclude='boto3/data/*' \
               boto3 botocore jmespath s3transfer dateutil urllib3 six.py",
            "sh",
        ])
        .arg(String::from_utf8(python.stdout).unwrap().trim())
        .output()
        .unwrap();
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    packed.stdout
}

/// "AWS CLI, boto3": with no configuration, from the instance and from the container address.
#[test]
fn the_aws_cli_and_boto3_find_credentials_by_themselves() {
    let bed = Bed::start();
    let yard = yard(&bed).config("jail.home_size = '64MiB'").start();
    let boto = "PYTHONPATH=~/lib python3 -c 'import boto3; s = boto3.Session(); c = s.get_credentials(); \
                f = c.get_frozen_credentials(); print(c.method, s.region_name, f.access_key[:4], bool(f.token))'";
    yard.ssh("alice").input(boto3()).run("mkdir ~/lib && tar -x -C ~/lib").ok();
    assert_eq!(yard.ssh("alice").run(boto).ok(), "container-role us-east-1 ASIA True");
    let instance = format!("unset ${{!AWS_CONTAINER_*}}; {boto}");
    assert_eq!(yard.ssh("alice").run(&instance).ok(), "iam-role us-east-1 ASIA True");
    let v6 = format!("export AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE=IPv6; {instance}");
    assert_eq!(yard.ssh("alice").run(&v6).ok(), "iam-role us-east-1 ASIA True");
    let listed = yard.ssh("alice").run("aws configure list").ok();
    assert!(listed.contains("container-role"), "{listed}");
    let listed = yard.ssh("bob").run("unset ${!AWS_CONTAINER_*}; aws configure list").ok();
    assert!(listed.contains("iam-role"), "{listed}");
}

/// The credentials are good: outside, STS knows them as the user's role in this session.
#[test]
fn the_credentials_are_the_users_role() {
    let bed = Bed::start();
    let yard = yard(&bed).start();
    let document: Value =
        serde_json::from_str(&yard.ssh("alice").run(&format!("{TOKEN} md {ROLE}/alice")).ok()).unwrap();
    let python = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bed/venv")).output().unwrap();
    let text = |name: &str| document[name].as_str().unwrap().to_owned();
    let caller = Command::new(String::from_utf8(python.stdout).unwrap().trim())
        .args(["-c", "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'])"])
        .env("AWS_ACCESS_KEY_ID", text("AccessKeyId"))
        .env("AWS_SECRET_ACCESS_KEY", text("SecretAccessKey"))
        .env("AWS_SESSION_TOKEN", text("Token"))
        .env("AWS_ENDPOINT_URL", &bed.bastion()["AWS_ENDPOINT_URL"])
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .output()
        .unwrap();
    let arn = String::from_utf8_lossy(&caller.stdout).trim().to_owned();
    let session =
        yard.audit().wait_for("SK4001I", |event| event["unmapped"]["access_key_id"] == text("AccessKeyId").as_str());
    let session = session["session"]["uid"].as_str().unwrap();
    assert_eq!(arn, format!("arn:aws:sts::123456789012:assumed-role/alice/{session}"), "{caller:?}");
}

/// "ECS and pod-identity addresses with the token file"
#[test]
fn the_container_addresses_want_the_token() {
    let bed = Bed::start();
    let yard = yard(&bed).start();
    for address in ["169.254.170.2/v1/credentials", "169.254.170.23/v1/credentials", "[fd00:ec2::23]/v1/credentials"] {
        let get = format!(
            "curl -gsS -o /tmp/o -w '%{{http_code}}' -H \"Authorization: $(cat $AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE)\" http://{address}; echo; cat /tmp/o"
        );
        let said = yard.ssh("alice").run(&get).ok();
        assert!(said.starts_with("200\n") && said.contains("AccessKeyId"), "{address}: {said}");
        let bare =
            yard.ssh("alice").run(&format!("curl -gsS -o /tmp/o -w '%{{http_code}}' http://{address}; cat /tmp/o"));
        assert!(bare.text().starts_with('4') && !bare.text().contains("AccessKeyId"), "{address}: {}", bare.text());
    }
    let mode = yard.ssh("alice").run(
        "stat -c '%U %a' $AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE; echo x >> $AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    );
    assert!(mode.stderr.contains("denied") || mode.stderr.contains("Read-only"), "{} {}", mode.text(), mode.stderr);
}

/// "v1 only when allowed", "401/403/404/400 as AWS does", "TTL header echoed", "X-Forwarded-For refused"
#[test]
fn refusals_are_awss_own() {
    let bed = Bed::start();
    let yard = yard(&bed).start();
    let code = |arguments: &str| {
        yard.ssh("alice").run(&format!("{TOKEN} curl -gsS -o /dev/null -w '%{{http_code}}' {arguments}")).ok()
    };
    let at = "http://169.254.169.254/latest";
    let with = "-H \"X-aws-ec2-metadata-token: $T\"";
    for (arguments, expected) in [
        (format!("{at}/meta-data/"), "401"),
        (format!("-H 'X-aws-ec2-metadata-token: wrong' {at}/meta-data/"), "401"),
        (format!("{with} {at}/meta-data/"), "200"),
        (format!("{with} {at}/meta-data/no-such-thing"), "404"),
        (format!("-X PUT {at}/api/token"), "400"),
        (format!("-X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 99999' {at}/api/token"), "400"),
        (
            format!(
                "-X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' -H 'X-Forwarded-For: 1.2.3.4' {at}/api/token"
            ),
            "403",
        ),
        (format!("{with} -H 'X-Forwarded-For: 1.2.3.4' {at}/meta-data/"), "403"),
        (format!("{with} -H 'X-Forwarded-For;' {at}/{ROLE}/alice"), "403"),
        (format!("-H 'X-Forwarded-For: 1.2.3.4' {at}/meta-data/"), "403"),
        (
            "-H \"Authorization: $(cat $AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE)\" -H 'X-Forwarded-For: 1.2.3.4' \
             http://169.254.170.2/v1/credentials"
                .into(),
            "403",
        ),
        (format!("{with} {at}/meta-data/placement/region"), "200"),
        (format!("{with} {at}/dynamic/instance-identity/document"), "200"),
        (format!("{with} http://[fd00:ec2::254]/latest/meta-data/"), "200"),
    ] {
        assert_eq!(code(&arguments), expected, "{arguments}");
    }
    let ttl = yard.ssh("alice").run(&format!(
        "curl -sS -D - -o /dev/null -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {at}/api/token"
    ));
    assert!(ttl.ok().to_lowercase().contains("x-aws-ec2-metadata-token-ttl-seconds: 60"), "{}", ttl.text());
    for code in [401, 403] {
        yard.audit().wait_for("SK5001W", |event| event["api"]["response"]["code"] == code);
    }
    let document: Value = serde_json::from_str(
        &yard.ssh("alice").run(&format!("{TOKEN} md {ROLE}/alice >&2; md dynamic/instance-identity/document")).ok(),
    )
    .unwrap();
    assert_eq!((&document["region"], &document["accountId"]), (&"us-east-1".into(), &"123456789012".into()));
}

/// A jail's token is good in that jail alone.
#[test]
fn a_token_of_one_jail_is_nothing_in_another() {
    let bed = Bed::start();
    let yard = yard(&bed).start();
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    let token = alice.shell(
        "curl -sS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 600' http://169.254.169.254/latest/api/token",
    );
    let stolen = format!(
        "curl -sS -o /dev/null -w '%{{http_code}}' -H 'X-aws-ec2-metadata-token: {token}' http://169.254.169.254/latest/meta-data/"
    );
    assert_eq!(alice.shell(&stolen), "200");
    assert_eq!(yard.ssh("bob").run(&stolen).ok(), "401");
}

/// "STS refusals become the SDK-visible error document"; "There is no default role: no identity, no answer."
#[test]
fn who_has_no_role_gets_no_credentials() {
    let bed = Bed::start();
    let yard = yard(&bed).user("erin").start();
    let said = yard.ssh("erin").run(&format!("{TOKEN} md {ROLE}/erin")).text();
    assert!(
        !said.contains("AccessKeyId") && said.contains("AccessDenied") || said.contains("AssumeRoleUnauthorizedAccess"),
        "{said}"
    );
    yard.audit().wait_for("SK4002W", |event| event["user"]["name"] == "erin");
    let alice = yard.ssh("alice").run(&format!("{TOKEN} md {ROLE}/alice")).text();
    assert!(alice.contains("Success"), "{alice}");
}

/// "STS throttling is told as throttling, never as unauthorized."
#[test]
fn throttling_is_told_as_throttling() {
    let bed = Bed::start();
    let yard = yard(&bed).start();
    let endpoint = bed.bastion()["AWS_ENDPOINT_URL"].clone();
    crate::aws::control(&endpoint, "POST", "sts", &serde_json::json!({ "mode": "throttle" }));
    let ran = yard.ssh("alice").run(&format!("{TOKEN} curl -sS -w ' %{{http_code}}' -H \"X-aws-ec2-metadata-token: $T\" http://169.254.169.254/latest/{ROLE}/alice"));
    assert!(!ran.text().contains("Unauthorized") && !ran.text().ends_with(" 404"), "{}", ran.text());
    let event = yard.audit().wait_for("SK4002W", |_| true);
    assert!(event["unmapped"]["code"].as_str().unwrap().contains("Throttl"), "{event}");
    crate::aws::control(&endpoint, "POST", "sts", &serde_json::json!({}));
    assert!(yard.ssh("alice").run(&format!("{TOKEN} md {ROLE}/alice")).text().contains("Success"));
}

/// Without `[aws]` there is no identity, and the door says so at once.
#[test]
fn without_aws_there_is_no_identity() {
    let yard = Yard::new().user("alice").start();
    let said = yard.ssh("alice").run(&format!("{TOKEN} curl -sS -o /dev/null -w '%{{http_code}}' -H \"X-aws-ec2-metadata-token: $T\" http://169.254.169.254/latest/{ROLE}/"));
    assert_eq!(said.ok(), "404", "{}", said.stderr);
}

/// "SSH public keys ... from IAM", "groups from ListGroupsForUser": alice's key is in IAM alone.
#[test]
fn keys_and_groups_come_from_iam() {
    use std::os::unix::fs::PermissionsExt;
    let bed = Bed::start();
    let yard = yard(&bed).config("access.allow_groups = ['platform-*']").start();
    std::fs::remove_file(yard.path("keys/alice")).unwrap();
    let key = bed.path("ssh_alice");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(yard.ssh("alice").key(key.clone()).run("id -un").ok(), "alice");
    let login = yard.audit().wait_for("SK1003I", |_| true);
    assert!(login["unmapped"]["groups"].as_array().unwrap().contains(&"platform-admins".into()), "{login}");
    assert_eq!(yard.ssh("bob").run("true").code, Some(255), "bob is in no such group");
    assert_eq!(yard.ssh("bob").key(key).run("true").code, Some(255));
    let inactive = bed.path("ssh_alice_inactive");
    assert_eq!(yard.ssh("alice").key(inactive).run("true").code, Some(255), "uploaded, and made inactive");
}

/// The codes of both addresses, as one jail gets them in one moment: instance, container.
pub const BOTH: &str = "T=$(curl -sS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token); \
                    printf '%s %s\\n' \
                    $(curl -sS -o /tmp/i -w '%{http_code}' -H \"X-aws-ec2-metadata-token: $T\" \
                    http://169.254.169.254/latest/meta-data/iam/security-credentials/alice) \
                    $(curl -sS -o /tmp/c -w '%{http_code}' -H \"Authorization: $(cat $AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE)\" \
                    http://169.254.170.2/v1/credentials)";

fn sts(bed: &Bed, mood: &Value) {
    crate::aws::control(&bed.bastion()["AWS_ENDPOINT_URL"], "POST", "sts", mood);
}

/// "while STS fails, the IMDS address serves down to 25 minutes left (botocore stretches less), the container addresses
/// until expiry"
#[test]
fn the_instance_address_stops_twenty_five_minutes_early() {
    let bed = Bed::start();
    let yard = yard(&bed).start();
    sts(&bed, &json!({ "lifetime": 25 * 60 + 10 }));
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    assert_eq!(alice.shell(BOTH), "200 200");
    sts(&bed, &json!({ "mode": "down" }));
    until("the instance address has stopped", || (alice.shell(BOTH) == "503 200").then_some(()));
    let said = alice.shell("cat /tmp/i");
    assert!(said.contains("\"Code\":") && !said.contains("AccessKeyId"), "{said}");
}

/// "until expiry, then an SDK-readable error"
#[test]
fn the_container_addresses_serve_until_expiry() {
    let bed = Bed::start();
    let yard = yard(&bed).start();
    sts(&bed, &json!({ "lifetime": 10 }));
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    assert_eq!(alice.shell(BOTH), "503 200");
    sts(&bed, &json!({ "mode": "down" }));
    until("the container address has stopped", || (alice.shell(BOTH) == "503 503").then_some(()));
    let said: Value = serde_json::from_str(&alice.shell("cat /tmp/c")).unwrap();
    assert!(said["code"].is_string() && said["message"].is_string(), "{said}");
}

/// "refreshed at 30 minutes left": what lives hardly longer, before the instance address would have to stop. The shortest
/// pause is a minute, and this test waits for it.
#[test]
fn credentials_are_renewed_before_the_instance_address_stops() {
    let bed = Bed::start();
    let yard = yard(&bed).start();
    sts(&bed, &json!({ "lifetime": 27 * 60 }));
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    let key = |alice: &mut Terminal| {
        until("credentials at both addresses", || (alice.shell(BOTH) == "200 200").then_some(()));
        let document: Value = serde_json::from_str(&alice.shell("cat /tmp/i")).unwrap();
        document["AccessKeyId"].as_str().unwrap().to_owned()
    };
    let first = key(&mut alice);
    sts(&bed, &json!({}));
    let renewed = within(Duration::from_secs(90), || (yard.audit().of("SK4001I").len() == 2).then_some(()));
    assert!(renewed.is_some(), "{:?}", yard.audit().of("SK4001I"));
    let issued = yard.audit().of("SK4001I").pop().unwrap();
    until("the new key in the jail", || {
        let now = key(&mut alice);
        (now != first).then(|| assert_eq!(issued["unmapped"]["access_key_id"], now.as_str()))
    });
}

/// A restarted warden and a restarted porter: the doors answer with credentials again.
#[test]
fn doors_answer_again_after_a_restart() {
    let bed = Bed::start();
    let yard = yard(&bed).start();
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    for role in ["warden", "porter"] {
        yard.kill(role);
        yard.audit().wait_for("SK8003W", |event| event["unmapped"]["role"] == role);
        until(&format!("credentials after the {role}'s death"), || {
            alice.shell(&format!("{TOKEN} md {ROLE}/alice")).contains("Success").then_some(())
        });
    }
}
