use std::time::Instant;

use super::worlds::*;
use crate::access::simulated::Simulated;
use crate::access::world::{Mode, Seen, User, World};

/// 1,000 users, 20 clusters, 100 namespaces each: `cargo test --release --lib -- --ignored --nocapture a_large_fleet`.
#[test]
#[ignore = "prints how long a large plan takes"]
fn a_large_fleet() {
    let (terms, mut world) = (terms("namespaces = 'all'"), World { directory: directory([]), ..World::default() });
    world.directory.quotas = Default::default();
    for number in 0..20 {
        let mut made = cluster(Mode::Entries, ["kube-system"]);
        made.namespaces.extend((0..100).map(|number| (format!("team-{number}"), Default::default())));
        world.clusters.insert(format!("cluster-{number}"), Seen::Read(made.into()));
    }
    for number in 0..1000 {
        let user = format!("user{number:04}");
        world.directory.users.insert(user.clone(), User::default());
        for (at, level) in ["admin", "poweruser", "user"].into_iter().enumerate() {
            let cluster = (number + at) % 20;
            join(&mut world, &format!("k8s-{level}@cluster-{cluster}@team-{}", number % 100), &[&user]);
            join(&mut world, &format!("k8s-user@cluster-{}", (number * 7) % 20), &[&user]);
        }
    }
    let simulated = Simulated::new(world, PATH);
    let since = Instant::now();
    let first = planned(&simulated.world(), &terms);
    println!("the world alone: {}", resident());
    println!("first plan: {} changes, {} problems in {:?}", first.changes.len(), first.problems.len(), since.elapsed());
    let since = Instant::now();
    first.changes.iter().for_each(|change| simulated.carry_out_now(change).unwrap());
    println!("carried out in memory in {:?}, {} calls", since.elapsed(), simulated.calls());
    let world = simulated.world();
    let since = Instant::now();
    assert!(planned(&world, &terms).is_empty());
    println!("a plan without a change: {:?}, {}", since.elapsed(), resident());
    let mut world = world;
    join(&mut world, "k8s-admin@cluster-0", &["user0001"]);
    let since = Instant::now();
    println!("one user joins: {} changes in {:?}", planned(&world, &terms).changes.len(), since.elapsed());
}

fn resident() -> String {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM")).collect::<Vec<_>>().join(" ")
}
