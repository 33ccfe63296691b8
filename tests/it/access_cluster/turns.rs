//! The lease: two that would change the same do so one after the other.

use std::sync::atomic::AtomicU64;

use stockade::access::cluster::{Api, Key, Site};
use stockade::access::lease::{Lease, NAME, holder};
use stockade::access::seam::{Turn, Turns};

use super::*;

/// Long enough for a busy machine, short enough to be waited for.
const LIFE: Duration = Duration::from_secs(2);

fn lease(space: &Space, holder: &str) -> Lease {
    let text = std::fs::read_to_string(kubeconfig(space.cluster)).unwrap();
    let said = stockade::config::entry(&text, Some(TAURUS)).unwrap();
    let site = Site { endpoint: said.endpoint.unwrap(), authority: said.authority.unwrap(), server_name: None };
    let api = Api::new(&site, Key::Proof(said.proof), Arc::new(AtomicU64::new(0))).unwrap();
    Lease::new(Arc::new(api), &space.name, holder).with_life(LIFE)
}

fn names<const N: usize>(hosts: [&str; N]) -> [String; N] {
    hosts.map(|host| holder(host, 7))
}

fn theirs(holder: &str) -> Turn {
    Turn::Theirs(holder.into())
}

/// Waits for a turn that another will not give back.
async fn outlive(lease: &Lease) -> Turn {
    for _ in 0..300 {
        match lease.take().await.unwrap() {
            Turn::Theirs(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            turn => return turn,
        }
    }
    panic!("it is still somebody else's")
}

#[tokio::test]
async fn a_turn_is_taken_given_back_and_outlived() {
    let space = Space::new(Clusters::start().hyades(), "access-turns");
    let [first, second] = names(["one", "two"]);
    let (one, two) = (lease(&space, &first), lease(&space, &second));
    assert_eq!(one.take().await.unwrap(), Turn::Ours);
    assert_eq!(two.take().await.unwrap(), theirs(&first));
    one.end().await.unwrap();
    assert_eq!(one.take().await.unwrap(), Turn::Ours, "nobody had it meanwhile");
    one.end().await.unwrap();
    assert_eq!(two.take().await.unwrap(), Turn::After, "somebody had it before");
    assert_eq!(one.take().await.unwrap(), theirs(&second));
    one.end().await.unwrap();
    assert_eq!(one.take().await.unwrap(), theirs(&second), "only its own is given back");

    // It died, and comes back when it is too late.
    assert_eq!(outlive(&one).await, Turn::After);
    assert_eq!(two.take().await.unwrap(), theirs(&first));
    two.end().await.unwrap();
    assert_eq!(two.take().await.unwrap(), theirs(&first));
}

#[tokio::test]
async fn a_turn_that_is_renewed_is_nobody_elses() {
    let space = Space::new(Clusters::start().hyades(), "access-renewed");
    let [first, second] = names(["one", "two"]);
    let (one, two) = (lease(&space, &first), lease(&space, &second));
    assert_eq!(one.take().await.unwrap(), Turn::Ours);
    let began = std::time::Instant::now();
    while began.elapsed() < LIFE * 3 {
        assert_eq!(one.take().await.unwrap(), Turn::Ours);
        assert_eq!(two.take().await.unwrap(), theirs(&first));
        tokio::time::sleep(LIFE / 8).await;
    }
}

#[tokio::test]
async fn one_of_many_has_it() {
    let space = Space::new(Clusters::start().hyades(), "access-many");
    for round in 0..3 {
        let named = |number: u32| Arc::new(lease(&space, &holder(&format!("round-{round}"), number)));
        let all: Vec<Arc<Lease>> = (0..8).map(named).collect();
        let mut takes = tokio::task::JoinSet::new();
        for lease in all.iter().cloned() {
            takes.spawn(async move { lease.take().await.unwrap() });
        }
        let turns = takes.join_all().await;
        assert_eq!(turns.iter().filter(|turn| !matches!(turn, Turn::Theirs(_))).count(), 1, "{turns:?}");
        for lease in &all {
            lease.end().await.unwrap();
        }
    }
}

/// Who is started for one cycle alone does not live long enough to see that nobody renews.
#[tokio::test]
async fn a_turn_of_yesterday_is_over() {
    let space = Space::new(Clusters::start().hyades(), "access-yesterday");
    let [first, second] = names(["one", "two"]);
    let (one, two) = (lease(&space, &first), lease(&space, &second));
    assert_eq!(one.take().await.unwrap(), Turn::Ours);
    let old = r#"{"spec": {"renewTime": "2020-01-01T00:00:00.000000Z"}}"#;
    space.cluster.as_admin(&["-n", &space.name, "patch", "lease", NAME, "--type=merge", "-p", old]);
    assert_eq!(two.take().await.unwrap(), Turn::After);
}

/// Whoever may write Leases can write this one, but not hold it in another's name.
#[tokio::test]
async fn a_claim_that_no_access_makes_is_not_honoured() {
    let space = Space::new(Clusters::start().hyades(), "access-claims");
    let [first, second] = names(["one", "two"]);
    let one = lease(&space, &first);
    let claim = |holder: &str, life: Value| {
        let now = format!("{:.6}", jiff::Timestamp::now());
        let spec = json!({ "holderIdentity": holder, "leaseDurationSeconds": life, "renewTime": now });
        let patch = json!({ "spec": spec }).to_string();
        space.cluster.as_admin(&["-n", &space.name, "patch", "lease", NAME, "--type=merge", "-p", &patch]);
    };
    assert_eq!(one.take().await.unwrap(), Turn::Ours);
    one.end().await.unwrap();
    for (holder, life, why) in [
        ("x\u{1b}[31m".repeat(4000), json!(2), "which no access calls itself"),
        (second.clone(), json!(3600), "held for 3600 s"),
        (second.clone(), Value::Null, "held for 0 s"),
    ] {
        claim(&holder, life);
        assert!(one.whose().await.unwrap().unwrap().contains(why));
        match one.take().await.unwrap() {
            Turn::Overruled(said) => assert!(said.contains(why) && said.len() < 600, "{said}"),
            turn => panic!("{turn:?}"),
        }
        assert_eq!(one.take().await.unwrap(), Turn::Ours);
        one.end().await.unwrap();
        assert_eq!(one.whose().await.unwrap(), None);
    }
    claim(&second, json!(2));
    assert_eq!(one.take().await.unwrap(), theirs(&second), "one that looks like ours is");
}

/// As the daemon takes it: by a cluster's name, with access's own identity on EKS.
#[tokio::test]
async fn a_fleet_takes_turns() {
    let clusters = Clusters::start();
    let space = Space::new(clusters.hyades(), "access-fleet");
    let discover = Discover { role: None, regions: vec!["us-east-1".into()], tags: Default::default(), trusted: false };
    let kube = Kube { discover: vec![discover], ..Kube::default() };
    let entries = entries(clusters).await;
    let fleet = |holder: &str| Fleet::new(&kube, &terms(None, &space.name), Some(entries.clone()), holder);
    let [first, second] = names(["one", "two"]);
    let (one, two) = (fleet(&first), fleet(&second));
    for fleet in [&one, &two] {
        assert_eq!(fleet.clusters().await.unwrap(), ["hyades"]);
    }
    assert_eq!(one.take("hyades").await.unwrap(), Turn::Ours);
    assert_eq!(two.take("hyades").await.unwrap(), theirs(&first));
    one.end("hyades").await;
    assert_eq!(two.take("hyades").await.unwrap(), Turn::After);
    two.end("hyades").await;
    assert_eq!(one.take("nowhere").await.unwrap_err().code, "NotFound");
}
