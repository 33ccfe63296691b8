//! What a cycle costs where there is much: printed by `tests/bench`, asserted by nobody.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

use super::cycles::{Leases, Lessee};
use super::worlds::{NOW, PATH, cluster, directory, join, terms};
use crate::access::apply::Crew;
use crate::access::cycle::Course;
use crate::access::health::Board;
use crate::access::simulated::Simulated;
use crate::access::standing::Names;
use crate::access::trail::Trail;
use crate::access::world::{Group, Mode, Namespace, Seen, User, World};

const PEOPLE: usize = 1000;
const CLUSTERS: usize = 20;
const NAMESPACES: usize = 100;

fn world() -> World {
    let mut world = World { directory: directory([]), ..World::default() };
    for n in 0..PEOPLE {
        world.directory.users.insert(format!("user{n}"), User::default());
    }
    world.directory.quotas = Default::default();
    for c in 0..CLUSTERS {
        let mut read = cluster(Mode::Entries, ["kube-system"]);
        for n in 0..NAMESPACES {
            read.namespaces.insert(format!("space{n}"), Namespace::default());
        }
        world.clusters.insert(format!("cluster{c}"), Seen::Read(read.into()));
        let all: Vec<String> =
            (0..PEOPLE).filter(|n| n % CLUSTERS == c || n % 7 == 0).map(|n| format!("user{n}")).collect();
        let names =
            |from: usize, step: usize| all.iter().skip(from).step_by(step).map(String::as_str).collect::<Vec<_>>();
        join(&mut world, &format!("k8s-user@cluster{c}"), &names(0, 3));
        join(&mut world, &format!("k8s-poweruser@cluster{c}"), &names(1, 9));
        for n in 0..NAMESPACES {
            join(&mut world, &format!("k8s-poweruser@cluster{c}@space{n}"), &names(n % 50, 40));
        }
    }
    world.directory.groups.retain(|_, group: &mut Group| !group.path.is_empty());
    world
}

/// The most that this process ever held, in MiB.
fn peak() -> f64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap() / 1024.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a figure, for tests/bench"]
async fn figures_of_a_thousand_people_on_twenty_clusters() {
    let folder = tempfile::tempdir().unwrap();
    let simulated = Simulated::new(world(), PATH);
    let clouds = Arc::new(simulated.clone());
    let mut terms = terms("");
    terms.rbac.state = folder.path().join("state");
    let turns = Arc::new(Lessee { leases: Leases::default(), name: "one" });
    let (stop, stopped) = watch::channel(false);
    let trail = Arc::new(Trail::Kept(Mutex::default()));
    let names = Names::of(&terms);
    let mut course =
        Course::new(Crew::new((clouds.clone(), clouds, turns), trail.clone(), names, stopped), terms).unwrap();
    course.allow_mass_removal = true;
    let begun = Instant::now();
    let first = course.cycle(NOW).await.unwrap();
    let (first, made) = (begun.elapsed(), first.done.made.len());
    // What the first cycle took is not what a quiet one takes.
    if let Trail::Kept(events) = &*trail {
        drop(std::mem::take(&mut *events.lock().unwrap()));
    }
    let _ = fs_err::write("/proc/self/clear_refs", "5");
    let (mut quiet, mut calls) = (Vec::new(), 0);
    for _ in 0..5 {
        let (begun, before) = (Instant::now(), simulated.calls());
        let outcome = course.cycle(NOW).await.unwrap();
        assert_eq!(outcome.done.made.len() + outcome.done.failed.len(), 0);
        quiet.push(begun.elapsed());
        calls = simulated.calls() - before;
    }
    quiet.sort();
    let held = peak();
    let board = Arc::new(Board::new(Duration::from_secs(300), || 0));
    let (tell, told) = mpsc::channel(1);
    let watching = tokio::spawn(crate::access::watch::watch(course, board, told));
    let look = async || {
        let (done, is_done) = oneshot::channel();
        tell.send(done).await.unwrap();
        is_done.await.unwrap();
    };
    look().await;
    simulated.by_hand(|world| join(world, "k8s-admin@cluster7", &["user3"]));
    let begun = Instant::now();
    look().await;
    let told = begun.elapsed();
    stop.send_replace(true);
    watching.await.unwrap();
    let seconds = |time: Duration| (time.as_secs_f64() * 1000.0).round() / 1000.0;
    let figures = json!({
        "first_cycle_changes": made,
        "first_cycle_seconds": seconds(first),
        "quiet_cycle_seconds": quiet.iter().map(|time| seconds(*time)).collect::<Vec<_>>(),
        "quiet_cycle_calls": calls,
        "peak_mib": held.round(),
        "told_seconds": seconds(told),
    });
    println!("figures: {figures}");
}
