//! Who a request is, and that nobody is somebody else.

use std::collections::HashSet;

use super::api::{Api, Seen};
use super::yard::{Material, SOON, TOKEN, Yard, cluster, credentials};
use crate::audit::{Event, KubeBody, KubeStage, KubeUser};
use crate::config::Clocks;
use crate::identity::{Pattern, Secret};
use crate::privsep::message::{Cluster, Credential, MayBe, Pass, Refusal, WardenToPorter, Way};

const HOSTILE: &str = "Authorization: Bearer mine\r\nCookie: a=b\r\nX-Forwarded-For: 10.0.0.1\r\nX-Remote-User: root\r\n\
                       Accept: application/json\r\nUser-Agent: kubectl/v1.36\r\nKubectl-Command: kubectl get\r\n\
                       Audit-ID: mine\r\nTE: trailers\r\nConnection: Accept\r\n";

#[tokio::test]
async fn a_request_goes_on_as_the_door_writes_it_and_is_told() {
    for protocol in ["h2", "http/1.1"] {
        let (api, yard) = (Api::new(&[protocol]).await, Yard::new());
        let door = yard.to(&api);
        let said = door.ask("GET /clusters/hyades/api/v1/namespaces/default/pods?limit=5", HOSTILE).await;
        assert_eq!((said.status, said.body.as_str()), (200, "{\"kind\":\"APIVersions\"}"), "{said:?}");
        assert!(!said.headers.contains_key("set-cookie") && !said.headers.contains_key("alt-svc"), "{said:?}");
        let seen = api.last();
        assert_eq!((seen.target.as_str(), seen.http2), ("/api/v1/namespaces/default/pods?limit=5", protocol == "h2"));
        assert_eq!(seen.header("authorization"), [format!("Bearer {TOKEN}")]);
        let mut names: Vec<_> = seen.headers.keys().map(|name| name.as_str()).filter(|name| *name != "host").collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "audit-id", "authorization", "kubectl-command", "user-agent"]);
        let told = yard.told().await;
        assert_eq!(told.audit_id, seen.header("audit-id")[0]);
        assert_eq!(said.headers["audit-id"], told.audit_id);
        let object = told.request.object.unwrap();
        assert_eq!((told.request.verb.as_str(), object.resource.as_str(), told.status), ("list", "pods", 200));
        assert_eq!(
            (told.stage, told.got, told.user_agent.as_str()),
            (KubeStage::ResponseComplete, 22, "kubectl/v1.36")
        );
        assert!(told.received <= told.at && told.trouble.is_none());
    }
}

pub fn impersonating(api: &Api) -> Cluster {
    let way = Way::Impersonate(Credential::Token(Secret::new(TOKEN.into())));
    Cluster { way, ..cluster("hyades", &api.endpoint(), Material::get().authority.clone()) }
}

#[tokio::test]
async fn users_of_other_clusters_are_named_by_the_bastion() {
    let (api, yard) = (Api::new(&["h2"]).await, Yard::new());
    let door = yard.to_cluster(impersonating(&api));
    assert_eq!(door.ask("GET /clusters/hyades/api", "").await.status, 200);
    let seen = api.last();
    assert_eq!(seen.header("authorization"), [format!("Bearer {TOKEN}")]);
    assert_eq!((seen.header("impersonate-user"), seen.header("impersonate-group")), (vec!["alice"], vec!["ops"]));
    assert_eq!(seen.header("impersonate-extra-stockade.dev%2fsession"), [door.session.to_string()]);
}

#[tokio::test]
async fn somebody_else_only_by_a_rule_and_never_the_system() {
    let (api, yard) = (Api::new(&["h2"]).await, Yard::new());
    let door = yard.to_cluster(impersonating(&api));
    let bob = "Impersonate-User: bob\r\n";
    for headers in [
        bob,
        "Impersonate-User: bob\r\nImpersonate-Group: dev\r\n",
        "Impersonate-Group: dev\r\n",
        "Impersonate-Uid: 0\r\n",
        "Impersonate-Extra-Scopes: all\r\n",
        "Impersonate_User: root\r\n",
    ] {
        let said = door.ask("GET /clusters/hyades/api", headers).await;
        assert!([400, 403].contains(&said.status), "{headers}: {said:?}");
        said.message();
    }
    let all = || vec![Pattern::new("*")];
    let may_be = vec![
        MayBe {
            clusters: vec![Pattern::new("hy*")],
            users: vec![Pattern::new("bob")],
            groups: vec![Pattern::new("dev")],
        },
        MayBe { clusters: vec![Pattern::new("pleiades")], users: all(), groups: all() },
    ];
    yard.push_pass(&door, Pass { clusters: vec!["hyades".into()], groups: vec!["ops".into()], may_be });
    while door.ask("GET /clusters/hyades/api", bob).await.status == 403 {}
    let seen = api.last();
    assert_eq!((seen.header("impersonate-user"), seen.header("impersonate-group")), (vec!["bob"], vec![]));
    assert_eq!(yard.told().await.impersonated, Some(KubeUser { name: "bob".into(), groups: vec![] }));
    for (user, group, allowed) in [("bob", "dev", true), ("bob", "ops", false), ("carol", "dev", false)] {
        let headers = format!("Impersonate-User: {user}\r\nImpersonate-Group: {group}\r\n");
        assert_eq!(door.ask("GET /clusters/hyades/api", &headers).await.status == 200, allowed, "{user} {group}");
    }
    let may_be = vec![MayBe { clusters: all(), users: all(), groups: all() }];
    yard.push_pass(&door, Pass { clusters: vec!["hyades".into()], groups: vec![], may_be });
    while door.ask("GET /clusters/hyades/api", "Impersonate-User: carol\r\n").await.status == 403 {}
    for headers in [
        "Impersonate-User: system:admin\r\n",
        "Impersonate-User: System:admin\r\n",
        "Impersonate-User: bob\r\nImpersonate-Group: system:masters\r\n",
    ] {
        assert_eq!(door.ask("GET /clusters/hyades/api", headers).await.status, 403, "{headers}");
    }
    assert!(!api.seen().iter().any(|seen| format!("{:?}", seen.headers).to_lowercase().contains("system:")));
}

fn eks(api: &Api) -> Cluster {
    let way = Way::Eks { region: "eu-central-1".into(), cluster: "hyades".into() };
    Cluster { way, ..cluster("hyades", &api.endpoint(), Material::get().authority.clone()) }
}

#[tokio::test]
async fn a_token_is_made_of_the_sessions_credentials_and_used_again() {
    let (api, yard) = (Api::new(&["h2"]).await, Yard::new());
    let door = yard.to_cluster(eks(&api));
    let session = door.session;
    let address = door.address;
    // The first request comes before the credentials, and waits.
    let waiting =
        tokio::spawn(async move { super::yard::Door { session, address }.ask("GET /clusters/hyades/api", "").await });
    tokio::task::yield_now().await;
    yard.push(&WardenToPorter::ClusterCredentials { session, credentials: credentials("ASIAFIRST") });
    assert_eq!(waiting.await.unwrap().status, 200);
    assert_eq!(door.ask("GET /clusters/hyades/api", "").await.status, 200);
    let tokens: Vec<String> = api.seen().iter().map(|seen| seen.header("authorization")[0].to_owned()).collect();
    assert!(tokens[0].starts_with("Bearer k8s-aws-v1.") && tokens[0] == tokens[1], "{tokens:?}");
    // What failed later takes nothing away; what was issued later is used.
    let refusal = Refusal { code: "Throttling".into(), message: "slow".into(), transient: true };
    yard.push(&WardenToPorter::NoClusterCredentials { session, refusal });
    yard.push(&WardenToPorter::ClusterCredentials { session, credentials: credentials("ASIASECOND") });
    while api.last().header("authorization") == [tokens[0].as_str()] {
        assert_eq!(door.ask("GET /clusters/hyades/api", "").await.status, 200);
    }
    // A 401 is told in our words, and the token is not used again.
    let said = door.ask("GET /clusters/hyades/unknown", "").await;
    assert_eq!(said.status, 401);
    assert!(said.message().starts_with("cluster hyades does not know you"), "{said:?}");
}

#[tokio::test]
async fn without_credentials_the_reason_is_told() {
    let (api, yard) = (Api::new(&["h2"]).await, Yard::new());
    let door = yard.to_cluster(eks(&api));
    let refusal = Refusal { code: "AccessDenied".into(), message: "not authorized".into(), transient: false };
    yard.push(&WardenToPorter::NoClusterCredentials { session: door.session, refusal });
    let said = door.ask("GET /clusters/hyades/api", "").await;
    assert_eq!(said.status, 503);
    assert_eq!(said.message(), "AWS gives you no credentials for clusters: AccessDenied: not authorized");
    assert!(api.seen().is_empty());
}

#[tokio::test]
async fn a_cluster_of_others_is_one_that_is_not_there() {
    let (api, yard) = (Api::new(&["h2"]).await, Yard::new());
    let alice = yard.to(&api);
    let bob = yard.open("bob");
    yard.pass(&bob, &[]);
    let (there, nowhere) =
        (bob.ask("GET /clusters/hyades/api", "").await, bob.ask("GET /clusters/nowhere/api", "").await);
    assert_eq!((there.status, there.body.replace("hyades", "nowhere")), (nowhere.status, nowhere.body.clone()));
    assert_eq!(there.message(), "no cluster hyades is here for you; `stockade clusters` lists yours");
    let discovery = "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json\r\n";
    let said = bob.ask("GET /clusters/hyades/api", discovery).await;
    assert_eq!((said.status, said.headers["content-type"].as_str()), (403, "text/plain"));
    assert_eq!(said.body, there.message());
    assert_eq!(alice.ask("GET /clusters/hyades/api", "").await.status, 200);
    assert_eq!(api.seen().len(), 1);
    let Event::KubeRefused { session, user, cluster, status, .. } = yard.event().await else { panic!() };
    assert_eq!((session, user.as_str(), cluster.as_str(), status), (bob.session, "bob", "hyades", 403));
}

/// A laptop that connects anew is the one that it was: one grant, one meter.
#[tokio::test]
async fn a_flood_of_a_laptops_refusals_is_counted_over_all_its_connections() {
    let yard = Yard::new();
    let grant = yard.lend("its-token");
    while yard.visit("its-token", "GET /clusters/hyades/api").await.status == 401 {}
    for _ in 0..30 {
        assert_eq!(yard.visit("its-token", "GET /clusters/hyades/api").await.status, 403);
    }
    let bob = yard.open("bob");
    assert_eq!(bob.ask("GET /api", "").await.status, 404);
    let mut told = 0;
    loop {
        match yard.event().await {
            Event::KubeRefused { session, .. } if session == grant => told += 1,
            Event::KubeRefused { session, .. } if session == bob.session => break,
            _ => {}
        }
    }
    assert!((10..15).contains(&told), "{told} of 31");
}

#[tokio::test]
async fn two_sessions_never_share_a_connection() {
    for protocol in ["h2", "http/1.1"] {
        let (api, yard) = (Api::new(&[protocol]).await, Yard::new());
        let alice = yard.to_cluster(eks(&api));
        let bob = yard.open("bob");
        yard.pass(&bob, &["hyades"]);
        for (door, key) in [(&alice, "ASIAALICE"), (&bob, "ASIABOB")] {
            let (session, credentials) = (door.session, credentials(key));
            yard.push(&WardenToPorter::ClusterCredentials { session, credentials });
        }
        for _ in 0..5 {
            let (one, other) =
                tokio::join!(alice.ask("GET /clusters/hyades/api", ""), bob.ask("GET /clusters/hyades/api", ""));
            assert_eq!((one.status, other.status), (200, 200));
        }
        let seen = api.seen();
        assert_eq!(seen.len(), 10);
        let tokens: HashSet<&str> = seen.iter().map(|seen| seen.header("authorization")[0]).collect();
        assert_eq!(tokens.len(), 2);
        for seen in &seen {
            let same = |other: &&Seen| other.connection == seen.connection;
            assert!(
                api.seen()
                    .iter()
                    .filter(same)
                    .all(|other| other.headers["authorization"] == seen.headers["authorization"])
            );
        }
        let connections: HashSet<usize> = seen.iter().map(|seen| seen.connection).collect();
        assert!(connections.len() < 10, "connections are used again: {connections:?}");
    }
}

#[tokio::test]
async fn a_body_is_kept_as_json_and_only_where_it_is_asked_for() {
    let (api, yard) = (Api::new(&["h2"]).await, Yard::new());
    let door = yard.to(&api);
    let headers = "Connection: close\r\nContent-Type: application/json\r\nContent-Length: 7\r\n";
    for (what, kept) in [("pods", Some(KubeBody::Whole("{\"a\":1}".into()))), ("secrets", None)] {
        let head = door.head(&format!("POST /clusters/hyades/api/v1/namespaces/default/{what}"), headers);
        assert!(door.raw(format!("{head}{{\"a\":1}}").as_bytes()).await.starts_with("HTTP/1.1 200 "));
        let told = tokio::time::timeout(SOON, yard.told()).await.unwrap();
        assert_eq!((told.request.verb.as_str(), told.sent, told.body), ("create", 7, kept), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_waited_for_for_ever() {
    let (api, yard) = (Api::new(&["h2"]).await, Yard::without_keeper(Clocks::default()));
    let door = yard.open("alice");
    let get = "GET /clusters/hyades/api";
    assert_eq!(door.ask(get, "").await.message(), "your clusters are not known yet, try again");
    yard.pass(&door, &["hyades"]);
    assert_eq!(door.ask(get, "").await.message(), "cluster hyades cannot be found now, try again");
    yard.push(&WardenToPorter::Cluster(Box::new(eks(&api))));
    let said = door.ask(get, "").await;
    assert_eq!(
        (said.status, said.message().as_str()),
        (503, "your credentials for clusters are not there yet, try again")
    );
    let (session, credentials) = (door.session, credentials("ASIAFIRST"));
    yard.push(&WardenToPorter::ClusterCredentials { session, credentials });
    // Without a recorder nothing runs, and the cluster hears of nothing.
    let exec = "POST /clusters/hyades/api/v1/namespaces/default/pods/web/exec?command=sh";
    let spdy = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
    let (_, said) = door.begin(exec, spdy).await;
    assert_eq!(said.status, 503);
    assert!(api.seen().is_empty());
}
