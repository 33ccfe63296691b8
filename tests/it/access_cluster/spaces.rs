//! A namespace that its admin fills.

use std::sync::atomic::AtomicU64;

use stockade::access::cluster::{Api, Key, Names, Site};

use super::*;

/// So little that the bed has more.
const LIST: usize = 64 << 10;
const LEVELS: [&str; 2] = ["admin", "user"];

fn api(cluster: Cluster, list: usize) -> Api {
    let text = std::fs::read_to_string(kubeconfig(cluster)).unwrap();
    let said = stockade::config::entry(&text, Some(TAURUS)).unwrap();
    let site = Site { endpoint: said.endpoint.unwrap(), authority: said.authority.unwrap(), server_name: None };
    let api = Api::new(&site, Key::Proof(said.proof), Arc::new(AtomicU64::new(0))).unwrap();
    api.with_longest_list(list)
}

async fn see(api: &Api) -> World {
    let levels = LEVELS.map(str::to_owned);
    let names = Names { cluster: TAURUS, levels: &levels };
    api.read(Mode::Impersonated, "here".into(), names).await.unwrap()
}

/// Roles of a quarter of a megabyte.
fn fill(space: &Space, count: usize) {
    let names: Vec<String> = (0..25_000).map(|n| format!("name-{n}")).collect();
    for number in 0..count {
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": { "name": format!("fat-{number}"), "namespace": space.name },
            "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": names }],
        });
        // `apply` would write it into an annotation, which has a limit.
        let create = space.cluster.kubectl(&space.cluster.admin(), &["create", "-f", "-"]);
        crate::yard::spawn_with(create, Some(role.to_string().into_bytes())).wait().ok();
    }
}

/// Others are read whole; of the full one, what is ours is still seen, so that it can be taken away.
#[tokio::test]
async fn a_full_namespace_is_left_out_and_what_is_ours_in_it_is_not() {
    let hyades = Clusters::start().hyades();
    let (full, other) = (Space::new(hyades, "access-full"), Space::new(hyades, "access-beside"));
    fill(&full, 3);
    for space in [&full, &other] {
        let make = |kind: &str, name: &str, what: &[&str]| {
            hyades.as_admin(&[&["-n", &space.name, "create", kind, name], what].concat());
        };
        let own = format!("k8s-user@{TAURUS}@{}", space.name);
        make("role", &own, &["--verb=get", "--resource=pods"]);
        make("rolebinding", &own, &["--role", &own, "--user=stockade:alice"]);
        make("rolebinding", &format!("k8s-admin@{TAURUS}"), &["--clusterrole=view", "--user=stockade:bob"]);
        make("role", "theirs", &["--verb=get", "--resource=secrets"]);
    }
    let world = see(&api(hyades, LIST)).await;
    assert!(world.crowded.contains(&full.name) && !world.crowded.contains(&other.name), "{:?}", world.crowded);
    for space in [&full, &other] {
        let at = |name: &str| (space.name.clone(), name.to_owned());
        let own = format!("k8s-user@{TAURUS}@{}", space.name);
        assert!(world.roles.contains_key(&at(&own)) && world.bindings.contains_key(&at(&own)));
        assert!(world.bindings[&at(&format!("k8s-admin@{TAURUS}"))].is.subjects.len() == 1);
        assert_eq!(world.roles.contains_key(&at("theirs")), space.name == other.name);
    }
    assert!(!world.roles.contains_key(&(full.name.clone(), "fat-0".into())));
    assert!(world.namespaces.contains_key(&full.name), "its groups stay");
    let whole = see(&api(hyades, 96 << 20)).await;
    assert!(whole.crowded.is_empty() && whole.roles.contains_key(&(full.name.clone(), "fat-0".into())));
}
