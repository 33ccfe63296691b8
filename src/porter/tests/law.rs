use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode, Uri, Version};
use proptest::prelude::*;

use super::super::Settings;
use super::super::answer::{Answer, Ask, Kind, Reply, answer};
use super::super::jail::{Jail, Pushed, Standing};
use super::super::notice::Notices;
use super::{SECRET_KEY, TOKEN, alice, grant, refusal, session};
use crate::identity::Secret;
use crate::privsep::message::Pass;

const NOW: i64 = 1_700_000_000;
const IMDS: &str = "x-aws-ec2-metadata-token";

fn own(kind: Kind) -> Option<SocketAddr> {
    match kind {
        Kind::Metadata => "169.254.169.254:80".parse().ok(),
        Kind::Container => "[fd00:ec2::23]:80".parse().ok(),
        Kind::Control => None,
    }
}

fn host(kind: Kind) -> &'static str {
    match kind {
        Kind::Metadata => "169.254.169.254",
        Kind::Container => "[fd00:ec2::23]",
        Kind::Control => "stockade",
    }
}

fn jail(imds_v1: bool) -> Jail {
    let settings = Settings { imds_v1, region: None };
    Jail::new(session(), alice(), Secret::new(TOKEN.into()), settings, Notices::begin())
}

fn issued(minutes: i64) -> Pushed {
    let mut pushed = Pushed::default();
    pushed.issued(Box::new(grant(NOW, minutes)), NOW);
    pushed
}

fn refused(code: &str, transient: bool) -> Pushed {
    let mut pushed = Pushed::default();
    pushed.refused(refusal(code, transient));
    pushed
}

/// A request with the door's own Host, unless one is among the headers (`-`: none at all).
fn put(kind: Kind, method: &str, uri: &str, headers: &[(&str, &str)], jail: &Jail, pushed: &Pushed) -> Answer {
    let mut map = HeaderMap::new();
    if !headers.iter().any(|(name, _)| *name == "host") {
        map.insert("host", host(kind).parse().unwrap());
    }
    for (name, value) in headers.iter().filter(|(_, value)| *value != "-") {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let (method, uri): (Method, Uri) = (method.parse().unwrap(), uri.parse().unwrap());
    let version = Version::HTTP_11;
    let ask = Ask { kind, own: own(kind), method: &method, uri: &uri, version, headers: &map };
    answer(&ask, jail, pushed, NOW)
}

fn reply(answer: Answer) -> Reply {
    match answer {
        Answer::Reply(reply) => reply,
        other => panic!("{other:?}"),
    }
}

/// A GET at the metadata door with a good session token.
fn get(path: &str, pushed: &Pushed) -> Answer {
    let jail = jail(false);
    let token = jail.tokens.issue(60, NOW).unwrap();
    put(Kind::Metadata, "GET", path, &[(IMDS, &token)], &jail, pushed)
}

#[tokio::test]
async fn session_tokens_are_given_as_ec2_gives_them() {
    let jail = jail(false);
    let ttl = "x-aws-ec2-metadata-token-ttl-seconds";
    let given = |ttl: i64| {
        put(
            Kind::Metadata,
            "PUT",
            "/latest/api/token",
            &[("x-aws-ec2-metadata-token-ttl-seconds", &ttl.to_string())],
            &jail,
            &Pushed::default(),
        )
    };
    assert!(matches!(given(1), Answer::Token(1)));
    assert!(matches!(given(21_600), Answer::Token(21_600)));
    let good = (ttl, "60");
    for (method, path, headers, status) in [
        ("PUT", "/latest/api/token", &[][..], 400),
        ("PUT", "/latest/api/token", &[(ttl, "0")], 400),
        ("PUT", "/latest/api/token", &[(ttl, "21601")], 400),
        ("PUT", "/latest/api/token", &[(ttl, "+60")], 400),
        ("PUT", "/latest/api/token", &[(ttl, "")], 400),
        ("PUT", "/latest/api/token", &[(ttl, "99999999999999999999")], 400),
        ("PUT", "/latest/api/token", &[good, good], 400),
        ("PUT", "/2021-03-23/api/token", &[good], 403),
        ("PUT", "/1.0/api/token", &[good], 403),
        ("PUT", "/latest/api/token", &[good, ("x-forwarded-for", "10.0.0.1")], 403),
        ("PUT", "/latest/api/token", &[good, ("origin", "http://169.254.169.254")], 403),
        ("PUT", "/latest/api/token", &[good, ("host", "rebound.example")], 403),
        ("PUT", "/latest/meta-data/", &[good], 405),
        ("GET", "/latest/api/token", &[], 405),
        ("POST", "/latest/api/token", &[good], 405),
        ("DELETE", "/latest/meta-data/", &[], 405),
    ] {
        let reply = reply(put(Kind::Metadata, method, path, headers, &jail, &Pushed::default()));
        assert_eq!((reply.status.as_u16(), reply.refusal), (status, true), "{method} {path} {headers:?}");
    }
}

#[tokio::test]
async fn without_a_good_token_metadata_is_closed() {
    let (v2, v1) = (jail(false), jail(true));
    let other = jail(false).tokens.issue(60, NOW).unwrap();
    let ended = v1.tokens.issue(60, NOW - 60).unwrap();
    let path = "/latest/meta-data/iam/security-credentials/alice";
    for (jail, headers, status) in [
        (&v2, &[][..], 401),
        (&v2, &[(IMDS, "")], 401),
        (&v2, &[(IMDS, other.as_str())], 401),
        (&v1, &[], 200),
        (&v1, &[(IMDS, ended.as_str())], 401),
        (&v1, &[("x-forwarded-for", "10.0.0.1")], 403),
    ] {
        let reply = reply(put(Kind::Metadata, "GET", path, headers, jail, &issued(60)));
        assert_eq!(reply.status.as_u16(), status, "{headers:?}");
    }
    // Nor can one learn without a token what is there.
    let nowhere = put(Kind::Metadata, "GET", "/latest/nothing", &[], &v2, &issued(60));
    assert_eq!(reply(nowhere).status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_tree_of_metadata() {
    for (path, body) in [
        ("/", "2021-03-23\nlatest"),
        ("/latest", "dynamic\nmeta-data"),
        ("/latest/meta-data/", "iam/\ninstance-id\nplacement/\nservices/"),
        ("/latest/meta-data/iam/", "info\nsecurity-credentials/"),
        ("/latest/meta-data/iam/security-credentials", "alice"),
        ("/latest/meta-data/iam/security-credentials/", "alice"),
        ("/2021-03-23/meta-data/iam/security-credentials/", "alice"),
        ("/latest/meta-data/placement/region", "eu-central-1"),
        ("/latest/meta-data/placement/availability-zone", "eu-central-1a"),
        ("/latest/meta-data/placement/availability-zone/", "eu-central-1a"),
        ("/latest/meta-data/services/domain", "amazonaws.com"),
        ("/latest/meta-data/services/partition", "aws"),
        ("/latest/meta-data/instance-id", "i-f800000000000002a"),
        ("/latest/dynamic/instance-identity/", "document"),
    ] {
        let reply = reply(get(path, &issued(60)));
        assert_eq!((reply.status.as_u16(), reply.body.as_str(), reply.content), (200, body, "text/plain"), "{path}");
    }
    for path in [
        "/latest/user-data",
        "/latest/meta-data/iam/security-credentials/bob",
        "/latest/meta-data/iam/security-credentials/alice/x",
        "/latest/meta-data/iam/security-credentials//",
        "/latest/meta-data/iam/security-credentials/%",
        "/latest/meta-data/iam/security-credentials/%zz",
        "/latest/meta-data/iam/security-credentials/%\u{e9}\u{e9}",
        "/latest/meta-data/../meta-data/instance-id",
        "//latest/meta-data/",
        "/newest/meta-data/",
        "/20210-3-23/meta-data/",
    ] {
        let Ok(_) = path.parse::<Uri>() else { continue };
        let reply = reply(get(path, &issued(60)));
        assert_eq!((reply.status.as_u16(), reply.refusal), (404, true), "{path}");
    }
    // Some clients escape a role's name.
    assert_eq!(reply(get("/latest/meta-data/iam/security-credentials/%61lice", &issued(60))).status, StatusCode::OK);
}

#[tokio::test]
async fn documents_have_aws_shapes() {
    let document =
        |path: &str| -> serde_json::Value { serde_json::from_str(&reply(get(path, &issued(60))).body).unwrap() };
    assert_eq!(
        document("/latest/meta-data/iam/security-credentials/alice"),
        serde_json::json!({
            "Code": "Success", "LastUpdated": "2023-11-14T22:13:20Z", "Type": "AWS-HMAC",
            "AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": SECRET_KEY, "Token": "FwoG-session-token",
            "Expiration": "2023-11-14T23:13:20Z",
        })
    );
    let info = document("/latest/meta-data/iam/info");
    assert_eq!(info["InstanceProfileArn"], "arn:aws:iam::123456789012:instance-profile/bastion/alice");
    assert_eq!((&info["Code"], &info["InstanceProfileId"]), (&"Success".into(), &"AIPAF800000000000002A".into()));
    let identity = document("/latest/dynamic/instance-identity/document");
    assert_eq!((&identity["region"], &identity["accountId"]), (&"eu-central-1".into(), &"123456789012".into()));
    assert_eq!(identity["instanceId"], "i-f800000000000002a");
    assert_eq!(identity["pendingTime"], "2025-07-12T18:57:36Z");
}

/// Path, then what the metadata document and the container document say: status and code.
#[tokio::test]
async fn when_sts_fails_the_doors_say_so_and_say_what() {
    let path = "/latest/meta-data/iam/security-credentials/alice";
    let with = |minutes, mut pushed: Pushed| {
        pushed.grant = Some(grant(NOW, minutes).into());
        pushed
    };
    let denied = || refused("AccessDenied", false);
    let throttled = || refused("Throttling", true);
    for (pushed, metadata, container) in [
        (issued(60), (200, "Success"), (200, "")),
        (issued(25), (200, "Success"), (200, "")),
        (issued(24), (503, "Unavailable"), (200, "")),
        (issued(0), (503, "Unavailable"), (503, "Unavailable")),
        (denied(), (200, "AssumeRoleUnauthorizedAccess"), (403, "AccessDenied")),
        (throttled(), (503, "Throttling"), (503, "Throttling")),
        (refused("MalformedPolicyDocument", false), (200, "MalformedPolicyDocument"), (403, "MalformedPolicyDocument")),
        (with(30, throttled()), (200, "Success"), (200, "")),
        (with(24, throttled()), (503, "Throttling"), (200, "")),
        (with(24, denied()), (200, "AssumeRoleUnauthorizedAccess"), (200, "")),
        (with(0, throttled()), (503, "Throttling"), (503, "Throttling")),
    ] {
        let told = reply(get(path, &pushed));
        let said: serde_json::Value = serde_json::from_str(&told.body).unwrap();
        assert_eq!((told.status.as_u16(), said["Code"].as_str().unwrap()), metadata, "{pushed:?}");
        assert!(said["Code"] == "Success" || !told.body.contains(SECRET_KEY));
        let told =
            reply(put(Kind::Container, "GET", "/v1/credentials", &[("authorization", TOKEN)], &jail(false), &pushed));
        let said: serde_json::Value = serde_json::from_str(&told.body).unwrap();
        assert_eq!((told.status.as_u16(), said["code"].as_str().unwrap_or_default()), container, "{pushed:?}");
        assert_eq!(told.content, "application/json");
        assert!(!told.refusal, "what STS says is the warden's event");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_makes_no_credentials_live_longer() {
    let (pushed, back) = (issued(60), NOW - 12 * 3600);
    let good = |least| matches!(pushed.standing(back, least), Standing::Good(_));
    assert!(good(3600) && !good(3601));
    tokio::time::advance(Duration::from_secs(3599)).await;
    assert!(good(1) && !good(2));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!good(1));
}

#[tokio::test]
async fn without_an_identity_there_is_no_role() {
    let pushed = refused("NoIdentity", false);
    for path in [
        "/latest/meta-data/iam/",
        "/latest/meta-data/iam/security-credentials/",
        "/latest/meta-data/iam/info",
        "/latest/meta-data/iam/security-credentials/alice",
        "/latest/dynamic/instance-identity/document",
    ] {
        assert_eq!(reply(get(path, &pushed)).status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(reply(get("/latest/meta-data/instance-id", &pushed)).status, StatusCode::OK);
    // A region in the configuration is told all the same.
    let settings = Settings { imds_v1: true, region: Some("cn-north-1".into()) };
    let jail = Jail::new(session(), alice(), Secret::new(TOKEN.into()), settings, Notices::begin());
    for path in ["/latest/meta-data/placement/region", "/latest/dynamic/instance-identity/document"] {
        assert!(reply(put(Kind::Metadata, "GET", path, &[], &jail, &pushed)).body.contains("cn-north-1"), "{path}");
    }
}

#[tokio::test]
async fn before_the_first_push_credentials_are_waited_for() {
    for path in [
        "/latest/meta-data/iam/security-credentials/",
        "/latest/meta-data/iam/security-credentials/alice",
        "/latest/meta-data/iam/info",
        "/latest/meta-data/placement/region",
    ] {
        let Answer::NotYet(reply) = get(path, &Pushed::default()) else { panic!("{path}") };
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    // Nobody waits without a right to the answer.
    let reply = reply(put(Kind::Container, "GET", "/v1/credentials", &[], &jail(false), &Pushed::default()));
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_container_addresses_want_the_jails_token() {
    let good = ("authorization", TOKEN);
    for (method, path, headers, status) in [
        ("GET", "/v1/credentials", &[good][..], 200),
        ("GET", "/v1/credentials?x=1", &[good], 200),
        ("GET", "/v1/credentials", &[], 401),
        ("GET", "/v1/credentials", &[("authorization", "the-jail's-tokem")], 401),
        ("GET", "/v1/credentials", &[("authorization", "")], 401),
        ("GET", "/v1/credentials", &[good, good], 401),
        ("GET", "/v1/credentials", &[good, ("origin", "null")], 403),
        ("GET", "/v1/credentials", &[good, ("host", "[fd00:ec2:0::0023]:80")], 200),
        ("GET", "/v1/credentials", &[good, ("host", "[fd00:ec2::23]:8080")], 403),
        ("GET", "/v1/credentials", &[good, ("host", "[fd00:ec2::24]")], 403),
        ("GET", "/v1/credentials", &[good, ("host", "x@[fd00:ec2::23]")], 403),
        ("GET", "/v1/credentials", &[good, ("host", "-")], 400),
        ("GET", "http://169.254.170.2/v1/credentials", &[good], 403),
        ("GET", "http://[fd00:ec2::23]/v1/credentials", &[good], 200),
        ("PUT", "/v1/credentials", &[good], 405),
        ("GET", "/v2/credentials", &[good], 404),
    ] {
        let reply = reply(put(Kind::Container, method, path, headers, &jail(false), &issued(5)));
        assert_eq!(reply.status.as_u16(), status, "{method} {path} {headers:?}");
        serde_json::from_str::<serde_json::Value>(&reply.body).unwrap();
    }
    let nobody = Jail::new(session(), alice(), Secret::new(String::new()), Settings::default(), Notices::begin());
    let empty = put(Kind::Container, "GET", "/v1/credentials", &[("authorization", "")], &nobody, &issued(5));
    assert_eq!(reply(empty).status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_control_door_knows_who_asks() {
    let whoami = |pushed: &Pushed| put(Kind::Control, "GET", "/whoami", &[], &jail(false), pushed);
    let said: serde_json::Value = serde_json::from_str(&reply(whoami(&issued(60))).body).unwrap();
    assert_eq!(said["user"], "alice");
    assert_eq!(said["credentials_expire"], "2023-11-14T23:13:20Z");
    assert!(said["problem"].is_null());
    let said = reply(whoami(&refused("AccessDenied", false))).body;
    assert!(said.contains("AccessDenied: STS says"), "{said}");
    assert!(matches!(whoami(&Pushed::default()), Answer::NotYet(_)));
    assert_eq!(reply(put(Kind::Control, "GET", "/", &[], &jail(false), &issued(60))).status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn nothing_prints_a_secret() {
    let (jail, pushed) = (jail(false), issued(60));
    let answer = put(Kind::Container, "GET", "/v1/credentials", &[("authorization", TOKEN)], &jail, &pushed);
    let printed = format!("{jail:?} {pushed:?} {answer:?}");
    assert!(!printed.contains(TOKEN) && !printed.contains(SECRET_KEY) && !printed.contains("FwoG"), "{printed}");
}

const NAMES: &str = "x-aws-ec2-metadata-token(-ttl-seconds)?|host|origin|authorization|[a-z-]{1,12}";

proptest! {
    #[test]
    fn no_request_is_a_panic(
        kind in prop_oneof![Just(Kind::Metadata), Just(Kind::Container), Just(Kind::Control)],
        method in "[A-Z]{1,8}|GET|PUT",
        path in "/(latest|1\\.0|[0-9-]{10})?/?(meta-data|api|dynamic)?/?(iam/security-credentials/)?\\PC{0,24}",
        headers in prop::collection::vec((NAMES, prop::collection::vec(any::<u8>(), 0..40)), 0..6),
        own_host in any::<bool>(), imds_v1 in any::<bool>(), expires in any::<i64>(), now in any::<i64>(),
        pushed in 0..4u8,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _inside = runtime.enter();
        let (Ok(uri), jail) = (path.parse::<Uri>(), jail(imds_v1)) else { return Ok(()) };
        let mut map = HeaderMap::new();
        if own_host {
            map.insert("host", host(kind).parse().unwrap());
        }
        for (name, value) in headers {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(&value)) {
                map.append(name, value);
            }
        }
        let mut known = if pushed & 1 == 1 { issued(60) } else { Pushed::default() };
        if let Some(grant) = &mut known.grant {
            std::sync::Arc::make_mut(grant).credentials.expires = expires;
        }
        if pushed & 2 == 2 {
            known.refused(refusal("Throttling", true));
        }
        let method = method.parse().unwrap();
        let ask = Ask { kind, own: own(kind), method: &method, uri: &uri, version: Version::HTTP_11, headers: &map };
        // Nothing secret without a token: the only way in is one that the generator does not find.
        if let Answer::Reply(reply) = answer(&ask, &jail, &known, now)
            && !imds_v1
        {
            prop_assert!(!reply.body.contains(SECRET_KEY));
        }
    }
}

#[tokio::test]
async fn the_control_door_knows_the_clusters() {
    let get = |path, pushed: &Pushed| put(Kind::Control, "GET", path, &[], &jail(false), pushed);
    assert!(matches!(get("/clusters", &Pushed::default()), Answer::NotYet(_)));
    let pass = Pass { clusters: vec!["hyades".into(), "taurus".into()], ..Pass::default() };
    let mut pushed = issued(60);
    pushed.kube.pass = Some(Arc::new(pass));
    let said: serde_json::Value = serde_json::from_str(&reply(get("/clusters", &pushed)).body).unwrap();
    assert_eq!((&said["clusters"][1]["name"], said["problem"].is_null()), (&"taurus".into(), true));
    assert!(reply(get("/kubeconfig", &pushed)).body.contains("http://127.0.0.1:6443/clusters/hyades"));
    let token = reply(get("/token?cluster=hyades", &pushed));
    assert!(token.status == StatusCode::FORBIDDEN && token.body.contains("for a laptop"), "{}", token.body);
}
