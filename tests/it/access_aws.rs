//! What access asks of IAM, against the bed's: everything that it makes is seen again as it was meant, whatever the size
//! of a page and however often it is throttled; what is not ours stays.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use serde_json::{Value, json};
use stockade::access::aws::Aws;
use stockade::access::change::{Cause, Change, Object, Target};
use stockade::access::iam::Iam;
use stockade::access::names::Grant;
use stockade::access::seam::People;
use stockade::access::world::{Directory, MARK, Role};
use stockade::warden::authority::Surroundings;

use crate::aws::{Bed, child, control};

pub const ACCOUNT: &str = "123456789012";
const PATH: &str = "/stockade/";
pub const ROLE: &str = "erin-kube";

/// A bed, access's AWS on it, and the owner of the account, who does by hand what people do.
pub struct Scene {
    pub bed: Bed,
    pub endpoint: String,
    pub aws: Aws,
    iam: Iam,
    pub root: SdkConfig,
}

impl Scene {
    pub async fn with(arguments: &[&str]) -> Self {
        let bed = Bed::with(arguments);
        let aws = identity(&bed.path("access.env")).await;
        let endpoint = bed.identity("access")["AWS_ENDPOINT_URL"].clone();
        let root = config(&endpoint, "AKIAROOTOFTHEBED0000", "root-secret-of-the-bed").await;
        let iam = Iam::new(&aws, ACCOUNT, PATH);
        Self { bed, endpoint, aws, iam, root }
    }

    /// By hand.
    pub fn hand(&self) -> aws_sdk_iam::Client {
        aws_sdk_iam::Client::new(&self.root)
    }

    pub fn mood(&self, of: &str, mood: &str) {
        control(&self.endpoint, "POST", of, &json!({ "mode": mood }));
    }

    async fn see(&self) -> Directory {
        self.iam.read().await.unwrap()
    }

    async fn role(&self) -> Option<Role> {
        self.see().await.roles.get(ROLE).cloned()
    }

    pub async fn done(&self, was: Option<Role>, shall_be: Option<Role>) {
        self.iam.carry_out(&of_role(was, shall_be)).await.unwrap();
    }

    /// One cycle: what there is becomes what there shall be.
    async fn bring(&self, goal: &Option<Role>) {
        let was = self.role().await;
        if was.clone().map(plain) != *goal {
            self.done(was, goal.clone()).await;
        }
        assert_eq!(self.role().await.map(plain), *goal);
    }

    /// The code of the fault.
    async fn refused(&self, was: Option<Role>, shall_be: Option<Role>) -> String {
        self.iam.carry_out(&of_role(was, shall_be)).await.unwrap_err().code
    }
}

/// The AWS of whoever such a file of the bed's is about.
pub async fn identity(file: &Path) -> Aws {
    let text = std::fs::read_to_string(file).unwrap();
    let lines: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let [endpoint, key, secret] =
        ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| lines[name]);
    Aws::new(config(endpoint, key, secret).await)
}

async fn config(endpoint: &str, key: &str, secret: &str) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new(key, secret, None, None, "bed"))
        .http_client(Surroundings::default().http_client().unwrap())
        .retry_config(RetryConfig::standard().with_max_attempts(6).with_initial_backoff(Duration::from_millis(20)))
        .load()
        .await
}

pub fn change(target: Target, was: Option<Object>, shall_be: Option<Object>) -> Change {
    Change { target, was, shall_be, version: String::new(), user: Some("erin".into()), cause: Cause::Configured }
}

fn of_role(was: Option<Role>, shall_be: Option<Role>) -> Change {
    let object = |role: Option<Role>| role.map(|role| Object::IamRole(Box::new(role)));
    change(Target::IamRole(ROLE.into()), object(was), object(shall_be))
}

fn of_group(namespace: Option<&str>, was: bool) -> Change {
    let grant = Grant { level: "user".into(), cluster: "hyades".into(), namespace: namespace.map(str::to_owned) };
    let object = |there: bool| there.then_some(Object::Group);
    change(Target::Group(grant), object(was), object(!was))
}

pub fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub fn trust(user: &str) -> Value {
    json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Principal": { "AWS": "arn:aws:iam::123456789012:user/stockade-bastion" },
        "Action": ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"],
        "Condition": {
            "StringEquals": { "sts:SourceIdentity": user },
            "Null": { "aws:RequestTag/stockade:session": "false" },
        },
    }] })
}

pub fn policy(action: &str) -> Value {
    json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action": action, "Resource": "*" }] })
}

pub fn erin() -> Role {
    Role {
        path: "/stockade/kube/".into(),
        trust: trust("erin"),
        inline: [("clusters".to_owned(), policy("eks:DescribeCluster"))].into(),
        tags: map(&[(MARK, "erin"), ("team", "a + b/c=d")]),
        longest_session: 7200,
        ..Role::default()
    }
}

/// What IAM adds by itself is left out.
fn plain(role: Role) -> Role {
    assert!(role.created > 1_700_000_000, "{}", role.created);
    Role { created: 0, ..role }
}

/// A managed policy, which nobody but an owner makes.
async fn managed(hand: &aws_sdk_iam::Client, name: &str) -> String {
    let made = hand.create_policy().policy_name(name).policy_document(policy("*").to_string()).send().await.unwrap();
    made.policy.unwrap().arn.unwrap()
}

#[tokio::test]
async fn what_is_made_is_seen_again_changed_and_removed() {
    let scene = Scene::with(&["--page", "1"]).await;
    let (limit, other) = (managed(&scene.hand(), "limit").await, managed(&scene.hand(), "other").await);
    let mut wanted = erin();
    let versions = [
        erin(),
        Role { boundary: Some(limit.clone()), attached: [other.clone()].into(), ..erin() },
        Role {
            trust: trust("somebody-else"),
            inline: [("more".to_owned(), policy("s3:ListBucket")), ("clusters".to_owned(), policy("eks:*"))].into(),
            tags: map(&[(MARK, "erin"), ("room", "1")]),
            longest_session: 3600,
            ..erin()
        },
        Role { path: "/bastion/".into(), ..erin() },
    ];
    let mut was = None;
    for version in versions {
        // Twice: the answer to the first may have been lost.
        scene.done(was.clone(), Some(version.clone())).await;
        let seen = scene.role().await.unwrap();
        scene.done(was, Some(version.clone())).await;
        assert_eq!(plain(scene.role().await.unwrap()), version);
        was = Some(seen);
        wanted = version;
    }
    scene.done(Some(wanted.clone()), None).await;
    assert_eq!(scene.role().await, None);
    scene.done(Some(wanted), None).await;
}

#[tokio::test]
async fn people_groups_and_quotas_come_from_pages_of_one() {
    let scene = Scene::with(&["--page", "1"]).await;
    scene.iam.carry_out(&of_group(None, false)).await.unwrap();
    scene.iam.carry_out(&of_group(Some("taurus"), false)).await.unwrap();
    scene.iam.carry_out(&of_group(Some("taurus"), false)).await.unwrap();
    let hand = scene.hand();
    for (user, group) in [("alice", "k8s-user@hyades"), ("bob", "k8s-user@hyades"), ("bob", "k8s-user@hyades@taurus")] {
        hand.add_user_to_group().user_name(user).group_name(group).send().await.unwrap();
    }
    let tag = aws_sdk_iam::types::Tag::builder().key("stockade:groups").value("k8s-user@hyades").build().unwrap();
    hand.tag_user().user_name("dave").tags(tag).send().await.unwrap();
    let seen = scene.see().await;
    assert_eq!(seen.account, ACCOUNT);
    let members = |group: &str| seen.groups[group].members.iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(members("k8s-user@hyades"), ["alice", "bob"]);
    assert_eq!(members("k8s-user@hyades@taurus"), ["bob"]);
    assert_eq!(members("compliance"), ["carol"]);
    assert_eq!(seen.groups["k8s-user@hyades"].path, PATH);
    assert_eq!(seen.groups["compliance"].path, "/bastion/");
    assert_eq!(seen.users["dave"].tags, map(&[("stockade:groups", "k8s-user@hyades")]));
    assert_eq!(seen.users["dave"].path, "/bastion/");
    assert!(seen.users.len() == 6 && seen.roles.len() == 8, "{seen:#?}");
    assert_eq!((seen.quotas.groups, seen.quotas.roles, seen.quotas.groups_per_user), (Some(300), Some(1000), Some(10)));
}

/// A thousand people are a call or two, not thousands.
#[tokio::test]
async fn a_whole_account_is_three_calls() {
    let scene = Scene::with(&["--page", "1000"]).await;
    scene.see().await;
    let calls = scene.aws.calls().all();
    let expected = ["iam:GetAccountAuthorizationDetails", "iam:GetAccountSummary", "iam:ListRoles"];
    assert_eq!(calls, expected.map(|name| (name.to_owned(), 1)).into());
}

#[tokio::test]
async fn a_group_with_members_or_of_somebody_else_stays() {
    let scene = Scene::with(&[]).await;
    let hand = scene.hand();
    hand.create_group().group_name("k8s-user@hyades").path("/other/").send().await.unwrap();
    let fault = scene.iam.carry_out(&of_group(None, false)).await.unwrap_err();
    assert!(fault.code == "EntityAlreadyExists" && fault.message.contains("not under /stockade/"), "{fault}");
    scene.iam.carry_out(&of_group(Some("taurus"), false)).await.unwrap();
    let add = hand.add_user_to_group().user_name("alice").group_name("k8s-user@hyades@taurus");
    add.send().await.unwrap();
    let fault = scene.iam.carry_out(&of_group(Some("taurus"), true)).await.unwrap_err();
    assert!(fault.code == "DeleteConflict" && fault.message.contains("has members"), "{fault}");
    let leave = hand.remove_user_from_group().user_name("alice").group_name("k8s-user@hyades@taurus");
    leave.send().await.unwrap();
    for _ in 0..2 {
        scene.iam.carry_out(&of_group(Some("taurus"), true)).await.unwrap();
    }
    assert!(!scene.see().await.groups.contains_key("k8s-user@hyades@taurus"));
}

#[tokio::test]
async fn every_third_call_may_be_throttled() {
    let scene = Scene::with(&["--page", "1"]).await;
    scene.mood("iam", "third");
    scene.done(None, Some(erin())).await;
    assert_eq!(plain(scene.role().await.unwrap()), erin());
    scene.done(Some(erin()), None).await;
    assert_eq!(scene.role().await, None);
    scene.mood("iam", "throttle");
    let fault = scene.iam.read().await.unwrap_err();
    assert_eq!((fault.code.as_str(), fault.transient), ("Throttling", true), "{fault}");
    for mood in ["down", "empty", "html", "cut", "nonsense", "redirect"] {
        scene.mood("iam", mood);
        let fault = scene.iam.read().await.expect_err(mood);
        assert!(fault.transient, "{mood}: {fault}");
    }
    scene.mood("iam", "ok");
    scene.see().await;
}

#[tokio::test]
async fn what_hands_change_is_seen_and_put_back() {
    let scene = Scene::with(&[]).await;
    scene.done(None, Some(erin())).await;
    let (hand, other) = (scene.hand(), managed(&scene.hand(), "other").await);
    let open = trust("erin").to_string().replace("stockade-bastion", "bob");
    hand.update_assume_role_policy().role_name(ROLE).policy_document(open).send().await.unwrap();
    hand.attach_role_policy().role_name(ROLE).policy_arn(&other).send().await.unwrap();
    let put = hand.put_role_policy().role_name(ROLE).policy_name("back-door");
    put.policy_document(policy("*").to_string()).send().await.unwrap();
    let seen = scene.role().await.unwrap();
    assert_ne!(seen.trust, erin().trust);
    assert!(seen.attached.contains(&other) && seen.inline.contains_key("back-door"), "{seen:?}");
    scene.done(Some(seen), Some(erin())).await;
    assert_eq!(plain(scene.role().await.unwrap()), erin());
    // Between the plan and its carrying out.
    hand.attach_role_policy().role_name(ROLE).policy_arn(&other).send().await.unwrap();
    scene.done(Some(erin()), None).await;
    assert_eq!(scene.role().await, None);
}

/// IAM dies after each number of calls; the next cycle reads what there is and ends where it should.
#[tokio::test]
async fn a_cycle_may_die_between_any_two_calls() {
    let scene = Scene::with(&["--page", "100"]).await;
    let limit = managed(&scene.hand(), "limit").await;
    let rich = Role {
        boundary: Some(limit.clone()),
        attached: [limit].into(),
        inline: [("more".to_owned(), policy("s3:ListBucket")), ("again".to_owned(), policy("s3:Get*"))].into(),
        tags: map(&[(MARK, "erin"), ("room", "1")]),
        trust: trust("somebody-else"),
        longest_session: 3600,
        ..erin()
    };
    let moved = Role { path: "/bastion/".into(), ..erin() };
    let mut deaths = 0;
    let states = [None, Some(erin()), Some(rich), Some(moved), None];
    for (start, goal) in states.iter().zip(&states[1..]) {
        for calls in 0.. {
            scene.bring(start).await;
            let was = scene.role().await;
            control(&scene.endpoint, "POST", "iam", &json!({ "mode": "refuse", "after": calls }));
            let done = scene.iam.carry_out(&of_role(was, goal.clone())).await;
            scene.mood("iam", "ok");
            if done.is_ok() {
                break;
            }
            deaths += 1;
            scene.bring(goal).await;
        }
        scene.bring(goal).await;
    }
    assert!(deaths > 20, "{deaths}");
}

/// What a cycle that died left over is gone on with; what has no mark is left.
#[tokio::test]
async fn half_a_role_is_made_whole_and_a_foreign_one_is_left() {
    let scene = Scene::with(&[]).await;
    let hand = scene.hand();
    let make = || {
        let make = hand.create_role().role_name(ROLE).path("/stockade/kube/");
        make.assume_role_policy_document(trust("mallory").to_string())
    };
    make().send().await.unwrap();
    let foreign = scene.role().await;
    assert_eq!(scene.refused(None, Some(erin())).await, "NotOurs");
    assert_eq!(scene.refused(Some(erin()), Some(erin())).await, "NotOurs");
    assert_eq!(scene.refused(Some(erin()), None).await, "NotOurs");
    assert_eq!(scene.role().await, foreign);
    hand.delete_role().role_name(ROLE).send().await.unwrap();
    let mark = aws_sdk_iam::types::Tag::builder().key(MARK).value("erin").build().unwrap();
    make().tags(mark).send().await.unwrap();
    let put = hand.put_role_policy().role_name(ROLE).policy_name("old");
    put.policy_document(policy("*").to_string()).send().await.unwrap();
    scene.done(None, Some(erin())).await;
    assert_eq!(plain(scene.role().await.unwrap()), erin());
    hand.delete_role_policy().role_name(ROLE).policy_name("clusters").send().await.unwrap();
    hand.delete_role().role_name(ROLE).send().await.unwrap();
    assert_eq!(scene.refused(Some(erin()), Some(erin())).await, "NoSuchEntity");
}

#[tokio::test]
async fn access_has_only_the_rights_that_it_needs() {
    let scene = Scene::with(&[]).await;
    let elsewhere = Role { path: "/".into(), ..erin() };
    let fault = scene.iam.carry_out(&of_role(None, Some(elsewhere))).await.unwrap_err();
    assert_eq!((fault.code.as_str(), fault.transient), ("AccessDenied", false), "{fault}");
    // As the docs propose: no role without the boundary.
    let limit = managed(&scene.hand(), "limit").await;
    let deny = json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Deny", "Action": ["iam:CreateRole", "iam:DeleteRolePermissionsBoundary", "iam:PutRolePolicy"],
        "Resource": "*", "Condition": { "StringNotEquals": { "iam:PermissionsBoundary": limit } },
    }] });
    let put = scene.hand().put_user_policy().user_name("stockade-access").policy_name("boundary");
    put.policy_document(deny.to_string()).send().await.unwrap();
    assert_eq!(scene.refused(None, Some(erin())).await, "AccessDenied");
    let bounded = Role { boundary: Some(limit), ..erin() };
    scene.done(None, Some(bounded.clone())).await;
    assert_eq!(plain(scene.role().await.unwrap()), bounded);
}

#[tokio::test]
async fn another_account_is_not_touched() {
    let scene = Scene::with(&[]).await;
    let fault = Iam::new(&scene.aws, "999999999999", PATH).read().await.unwrap_err();
    assert_eq!((fault.code.as_str(), fault.transient), ("WrongAccount", false), "{fault}");
    assert_eq!(scene.aws.whoami().await.unwrap(), "arn:aws:iam::123456789012:user/stockade-access");
}

#[test]
fn access_takes_its_identity_from_the_environment() {
    child("access_aws::child_connects", &Bed::start().identity("access"));
}

#[tokio::test]
#[ignore = "a child of access_takes_its_identity_from_the_environment"]
async fn child_connects() {
    let aws = Aws::connect("us-east-1", &Surroundings::read().unwrap()).await.unwrap();
    let seen = Iam::new(&aws, ACCOUNT, PATH).read().await.unwrap();
    assert!(seen.users.contains_key("alice"));
}
