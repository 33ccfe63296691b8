//! What access asks of EKS and of its queue, against the bed's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use stockade::access::change::{Object, Target};
use stockade::access::eks::Entries;
use stockade::access::queue::{Queue, Service};
use stockade::access::world::{Entry, MARK, Mode};
use stockade::warden::clusters::Place;

use crate::access_aws::{ACCOUNT, ROLE, Scene, change, erin, map, policy, trust};
use crate::aws::{control, trail};

/// Two clusters: `hyades`, and `merope`, which knows the ConfigMap alone.
struct Sky {
    scene: Scene,
    entries: Entries,
    _files: tempfile::TempDir,
}

fn here() -> Place {
    Place { role: None, region: "us-east-1".into() }
}

fn arn(name: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/stockade/kube/{name}")
}

impl Sky {
    async fn new() -> Self {
        Self::with("1").await
    }

    /// With so many of anything on a page.
    async fn with(page: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let at = |name: &str| -> PathBuf { files.path().join(name) };
        std::fs::write(at("ca"), "a certificate").unwrap();
        let one = |name: &str, mode: &str| {
            json!({ "name": name, "region": "us-east-1", "endpoint": "https://127.0.0.1:1", "ca": at("ca"),
                    "tags": { "env": "prod" }, "mode": mode })
        };
        let clusters = json!([one("hyades", "API"), one("merope", "CONFIG_MAP")]);
        std::fs::write(at("clusters"), clusters.to_string()).unwrap();
        let scene = Scene::with(&["--page", page, "--clusters", at("clusters").to_str().unwrap()]).await;
        let entries = Entries::new(scene.aws.clone());
        Self { scene, entries, _files: files }
    }

    async fn see(&self) -> BTreeMap<String, Entry> {
        self.entries.read(&here(), "hyades").await.unwrap()
    }

    /// One cycle: what there is becomes what there shall be.
    async fn bring(&self, goal: &Option<Entry>) {
        let was = self.see().await.remove(&arn(ROLE));
        if was.as_ref().map(bare) != *goal {
            self.carry_out(was.as_ref(), goal.as_ref()).await.unwrap();
        }
        assert_eq!(self.see().await.get(&arn(ROLE)).map(bare), *goal);
    }

    async fn carry_out(&self, was: Option<&Entry>, shall_be: Option<&Entry>) -> Result<(), String> {
        let object = |entry: Option<&Entry>| entry.cloned().map(Object::Entry);
        let target = Target::Entry { cluster: "hyades".into(), role: arn(ROLE) };
        let done = self.entries.carry_out(&here(), "hyades", &change(target, object(was), object(shall_be))).await;
        done.map_err(|fault| fault.code)
    }

    fn hand(&self) -> aws_sdk_eks::Client {
        aws_sdk_eks::Client::new(&self.scene.root)
    }

    /// How often entries were described so far.
    fn looks(&self) -> u64 {
        self.asked("DescribeAccessEntry")
    }

    fn asked(&self, operation: &str) -> u64 {
        self.scene.aws.calls().all().get(&format!("eks:{operation}")).copied().unwrap_or_default()
    }

    /// As many entries more, of others' roles.
    async fn fill(&self, count: usize) {
        let (hand, iam) = (self.hand(), self.scene.hand());
        for n in 0..count {
            let name = format!("node-{n:02}");
            let made = iam.create_role().role_name(&name).path("/stockade/kube/");
            made.assume_role_policy_document(trust("x").to_string()).send().await.unwrap();
            hand.create_access_entry().cluster_name("hyades").principal_arn(arn(&name)).send().await.unwrap();
        }
    }

    async fn associate(&self, name: &str, policy: &str) {
        let scope = aws_sdk_eks::types::AccessScope::builder().r#type("cluster".into()).build();
        let asked = self.hand().associate_access_policy().cluster_name("hyades").principal_arn(arn(name));
        asked.policy_arn(policy).access_scope(scope).send().await.unwrap();
    }
}

fn entry() -> Entry {
    Entry {
        username: "stockade:erin".into(),
        groups: ["stockade:k8s-user@hyades".to_owned()].into(),
        tags: map(&[(MARK, "erin"), ("team", "a")]),
        kind: "STANDARD".into(),
        ..Entry::default()
    }
}

fn bare(entry: &Entry) -> Entry {
    assert!(entry.created > 1_700_000_000, "{}", entry.created);
    Entry { created: 0, ..entry.clone() }
}

#[tokio::test]
async fn an_entry_is_made_seen_changed_and_removed() {
    let sky = Sky::new().await;
    sky.scene.done(None, Some(erin())).await;
    assert_eq!(sky.see().await.len(), 4);
    for _ in 0..2 {
        sky.carry_out(None, Some(&entry())).await.unwrap();
        assert_eq!(bare(&sky.see().await[&arn(ROLE)]), entry());
    }
    let changed = Entry {
        username: "stockade:erin:{{SessionName}}".into(),
        groups: BTreeSet::new(),
        tags: map(&[(MARK, "erin"), ("room", "1")]),
        ..entry()
    };
    for _ in 0..2 {
        sky.carry_out(Some(&entry()), Some(&changed)).await.unwrap();
        assert_eq!(bare(&sky.see().await[&arn(ROLE)]), changed);
    }
    for _ in 0..2 {
        sky.carry_out(Some(&changed), None).await.unwrap();
        assert!(!sky.see().await.contains_key(&arn(ROLE)));
    }
    // A change of what is there no more makes it again.
    sky.carry_out(Some(&changed), Some(&entry())).await.unwrap();
    assert_eq!(bare(&sky.see().await[&arn(ROLE)]), entry());
}

/// EKS dies after each number of calls; the next cycle reads what there is and ends where it should.
#[tokio::test]
async fn a_cycle_may_die_between_any_two_calls() {
    let sky = Sky::new().await;
    sky.scene.done(None, Some(erin())).await;
    let other = Entry { username: "stockade:x".into(), tags: map(&[(MARK, "erin"), ("room", "1")]), ..entry() };
    let mut deaths = 0;
    let states = [None, Some(entry()), Some(other), None];
    for (start, goal) in states.iter().zip(&states[1..]) {
        for calls in 0.. {
            sky.bring(start).await;
            let was = sky.see().await.remove(&arn(ROLE));
            control(&sky.scene.endpoint, "POST", "eks", &json!({ "mode": "refuse", "after": calls }));
            let done = sky.carry_out(was.as_ref(), goal.as_ref()).await;
            sky.scene.mood("eks", "ok");
            if done.is_ok() {
                break;
            }
            deaths += 1;
            sky.bring(goal).await;
        }
        sky.bring(goal).await;
    }
    assert!(deaths > 6, "{deaths}");
}

#[tokio::test]
async fn entries_of_others_are_left_and_hands_are_undone() {
    let sky = Sky::new().await;
    sky.scene.done(None, Some(erin())).await;
    let hand = sky.hand();
    hand.create_access_entry().cluster_name("hyades").principal_arn(arn(ROLE)).send().await.unwrap();
    for (was, shall_be) in [(None, Some(entry())), (Some(entry()), Some(entry())), (Some(entry()), None)] {
        assert_eq!(sky.carry_out(was.as_ref(), shall_be.as_ref()).await.unwrap_err(), "NotOurs");
    }
    assert_eq!(sky.see().await[&arn(ROLE)].groups, BTreeSet::new());
    hand.delete_access_entry().cluster_name("hyades").principal_arn(arn(ROLE)).send().await.unwrap();
    sky.carry_out(None, Some(&entry())).await.unwrap();
    let admin = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy";
    sky.associate(ROLE, admin).await;
    hand.update_access_entry()
        .cluster_name("hyades")
        .principal_arn(arn(ROLE))
        .username("stockade:alice")
        .send()
        .await
        .unwrap();
    let seen = sky.see().await[&arn(ROLE)].clone();
    assert_eq!((seen.username.as_str(), seen.policies.len()), ("stockade:alice", 1));
    sky.carry_out(Some(&seen), Some(&entry())).await.unwrap();
    assert_eq!(bare(&sky.see().await[&arn(ROLE)]), entry());
}

#[tokio::test]
async fn a_cluster_may_be_full_and_a_role_may_be_missing() {
    let sky = Sky::new().await;
    sky.scene.done(None, Some(erin())).await;
    control(&sky.scene.endpoint, "POST", "eks", &json!({ "limit": "hyades", "entries": 4 }));
    let target = Target::Entry { cluster: "hyades".into(), role: arn(ROLE) };
    let made = change(target, None, Some(Object::Entry(entry())));
    let fault = sky.entries.carry_out(&here(), "hyades", &made).await.unwrap_err();
    assert!(fault.code == "ResourceLimitExceededException" && !fault.transient, "{fault}");
    assert!(fault.message.contains("'hyades' has as many access entries as EKS allows"), "{fault}");
    control(&sky.scene.endpoint, "POST", "eks", &json!({ "limit": "hyades", "entries": 5 }));
    // IAM is slow to tell the world of a new role: it is waited for, and then left to the next cycle.
    sky.scene.done(Some(erin()), None).await;
    let place = here();
    let late = sky.entries.carry_out(&place, "hyades", &made);
    let make = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        sky.scene.done(None, Some(erin())).await;
    };
    let (late, ()) = tokio::join!(late, make);
    late.unwrap();
}

#[tokio::test]
async fn clusters_tell_how_they_let_people_in() {
    let sky = Sky::new().await;
    assert_eq!(sky.entries.clusters(&here()).await.unwrap(), ["hyades", "merope"]);
    let hyades = sky.entries.describe(&here(), "hyades").await.unwrap().unwrap();
    assert_eq!((hyades.mode, hyades.account.as_str(), hyades.is_up), (Mode::Entries, ACCOUNT, true));
    assert_eq!((hyades.endpoint.as_str(), &hyades.tags), ("https://127.0.0.1:1", &map(&[("env", "prod")])));
    assert_eq!(sky.entries.describe(&here(), "merope").await.unwrap().unwrap().mode, Mode::AwsAuth);
    assert_eq!(sky.entries.describe(&here(), "electra").await.unwrap(), None);
    let fault = sky.entries.read(&here(), "merope").await.unwrap_err();
    assert!(fault.message.contains("authentication mode"), "{fault}");
    let fault = sky.entries.read(&here(), "electra").await.unwrap_err();
    assert_eq!((fault.code.as_str(), fault.transient), ("ResourceNotFoundException", false));
    let token = sky.entries.token(&here(), "hyades").await.unwrap();
    let url = URL_SAFE_NO_PAD.decode(token.expose().strip_prefix("k8s-aws-v1.").unwrap()).unwrap();
    let url = String::from_utf8(url).unwrap();
    assert!(url.contains(&sky.scene.bed.identity("access")["AWS_ACCESS_KEY_ID"]), "{url}");
    assert!(!url.contains("X-Amz-Security-Token"), "a user's key has no session: {url}");
}

#[tokio::test]
async fn another_account_is_looked_into_by_a_role() {
    let sky = Sky::new().await;
    let hand = sky.scene.hand();
    let trust = json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": { "AWS": "arn:aws:iam::123456789012:user/stockade-access" },
    }] });
    hand.create_role().role_name("look").assume_role_policy_document(trust.to_string()).send().await.unwrap();
    let place = Place { role: Some(format!("arn:aws:iam::{ACCOUNT}:role/look")), region: "us-east-1".into() };
    let fault = sky.entries.clusters(&place).await.unwrap_err();
    assert!(fault.code == "AccessDenied" && fault.message.contains("assumed-role/look/stockade-access"), "{fault}");
    let put = hand.put_role_policy().role_name("look").policy_name("look");
    put.policy_document(policy("eks:*").to_string()).send().await.unwrap();
    assert_eq!(sky.entries.clusters(&place).await.unwrap(), ["hyades", "merope"]);
    assert_eq!(sky.entries.read(&place, "hyades").await.unwrap().len(), 4);
    for _ in 0..3 {
        let token = sky.entries.token(&place, "hyades").await.unwrap();
        let url = URL_SAFE_NO_PAD.decode(token.expose().strip_prefix("k8s-aws-v1.").unwrap()).unwrap();
        assert!(String::from_utf8(url).unwrap().contains("X-Amz-Security-Token"));
    }
    let assumed = trail(&sky.scene.endpoint).iter().filter(|line| line["action"] == "AssumeRole").count();
    assert_eq!(assumed, 2, "once for the client, once for all tokens");
    let nobody = Place { role: Some(format!("arn:aws:iam::{ACCOUNT}:role/nobody")), ..place };
    assert_eq!(sky.entries.token(&nobody, "hyades").await.unwrap_err().code, "NoIdentity");
}

/// With enough entries a cycle asks about a few of them; what hands changed meanwhile is seen when its turn comes, or at
/// once when an event casts doubt.
#[tokio::test]
async fn what_is_known_is_not_asked_for_again() {
    let sky = Sky::new().await;
    let hand = sky.hand();
    sky.fill(12).await;
    assert_eq!((sky.see().await.len(), sky.looks()), (16, 16));
    sky.see().await;
    assert_eq!(sky.looks(), 20, "four at least have their turn");
    let rename = |name: &str, to: &str| {
        hand.update_access_entry().cluster_name("hyades").principal_arn(arn(name)).username(to).send()
    };
    rename("node-11", "mallory").await.unwrap();
    let mut cycles = 0;
    while sky.see().await[&arn("node-11")].username != "mallory" {
        cycles += 1;
        assert!(cycles <= 4, "its turn does not come");
    }
    rename("node-11", "trent").await.unwrap();
    sky.entries.doubt(&here(), "hyades");
    assert_eq!(sky.see().await[&arn("node-11")].username, "trent");
    // Of one alone, as the event says it: without the path of the role.
    rename("node-05", "victor").await.unwrap();
    let looks = sky.looks();
    let principal = format!("arn:aws:iam::{ACCOUNT}:role/node-05");
    sky.entries.doubt_named("us-east-1", "hyades", Some(&principal));
    assert_eq!(sky.see().await[&arn("node-05")].username, "victor");
    assert!(sky.looks() <= looks + 5, "four whose turn it is, and that one");
    control(&sky.scene.endpoint, "POST", "eks", &json!({ "mode": "third" }));
    assert_eq!(sky.see().await.len(), 16);
}

/// Of many at once each is described, since only that tells who has which name; policies are asked who has them.
#[tokio::test]
async fn a_first_look_at_many_entries_asks_once_for_each_and_once_for_each_policy() {
    let sky = Sky::with("100").await;
    sky.fill(96).await;
    let admin = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy";
    for name in ["node-07", "node-70"] {
        sky.associate(name, admin).await;
    }
    let look = async || {
        let before = ["DescribeAccessEntry", "ListAccessEntries", "ListAccessPolicies", "ListAssociatedAccessPolicies"]
            .map(|operation| (operation, sky.asked(operation)));
        let (entries, begun) = (Entries::new(sky.scene.aws.clone()), std::time::Instant::now());
        let seen = entries.read(&here(), "hyades").await.unwrap();
        let having: Vec<&str> =
            seen.iter().filter(|(_, entry)| entry.policies.contains(admin)).map(|(arn, _)| arn.as_str()).collect();
        assert_eq!((seen.len(), having), (100, vec![arn("node-07").as_str(), arn("node-70").as_str()]));
        let asked = before.map(|(operation, before)| sky.asked(operation) - before);
        println!("{asked:?} of EKS for 100 entries in {:?}", begun.elapsed());
        asked
    };
    // The bed knows five policies.
    assert_eq!(look().await, [100, 1 + 5, 1, 0]);
    // Who may not ask for them asks each entry, as for a few.
    let put = sky.scene.hand().put_user_policy().user_name("stockade-access").policy_name("former");
    let deny = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Deny", "Action": "eks:ListAccessPolicies", "Resource": "*" },
    ] });
    put.policy_document(deny.to_string()).send().await.unwrap();
    assert_eq!(look().await, [100, 1, 1, 100]);
}

#[tokio::test]
async fn events_wake_and_what_is_none_is_deleted() {
    let scene = Scene::with(&[]).await;
    let hand = aws_sdk_sqs::Client::new(&scene.root);
    let url = hand.create_queue().queue_name("stockade-access").send().await.unwrap().queue_url.unwrap();
    let own = scene.aws.whoami().await.unwrap();
    let queue = Queue::new(&scene.aws, &url, Some(own.clone()));
    let event = |name: &str, by: &str| {
        json!({ "source": "aws.iam", "detail": {
            "eventSource": "iam.amazonaws.com", "eventName": name, "eventTime": "2026-01-02T03:04:05Z",
            "userIdentity": { "arn": by }, "requestParameters": { "userName": "alice", "groupName": "k8s-user@hyades" },
        } })
        .to_string()
    };
    let send = async |body: String| drop(hand.send_message().queue_url(&url).message_body(body).send().await.unwrap());
    let waiting = async || {
        let asked = hand.get_queue_attributes().queue_url(&url).attribute_names("All".into());
        let told = asked.send().await.unwrap().attributes.unwrap();
        let number = |name: &str| told[&name.into()].parse::<u32>().unwrap();
        number("ApproximateNumberOfMessages") + number("ApproximateNumberOfMessagesNotVisible")
    };
    for body in ["not json".to_owned(), "{}".into(), event("ListUsers", "root"), event("CreateRole", &own)] {
        send(body).await;
    }
    let nothing = queue.wait().await.unwrap();
    assert!(nothing.events.is_empty());
    assert_eq!(waiting().await, 0, "what wakes nobody is deleted at once");
    for _ in 0..25 {
        send(event("AddUserToGroup", "arn:aws:iam::123456789012:user/admin")).await;
    }
    let batch = queue.wait().await.unwrap();
    assert_eq!(batch.events.len(), 25, "many are one cycle");
    let first = &batch.events[0];
    assert_eq!((first.service, first.group.as_deref()), (Service::Iam, Some("k8s-user@hyades")));
    assert_eq!(waiting().await, 25, "kept until the cycle is over");
    queue.done(batch).await;
    assert_eq!(waiting().await, 0);
    scene.mood("sqs", "refuse");
    assert_eq!(queue.wait().await.unwrap_err().code, "AccessDenied");
}
