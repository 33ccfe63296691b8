//! Whole cycles over a simulated AWS and clusters that fail, come late and are changed by others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::worlds::{NOW, PATH, cluster, hyades, join, leave, planned, read, read_mut, terms, user};
use crate::access::apply::Crew;
use crate::access::cycle::{Course, CycleError};
use crate::access::health::Board;
use crate::access::seam::{Fault, Turn, Turns};
use crate::access::simulated::{Simulated, When};
use crate::access::standing::Names;
use crate::access::trail::Trail;
use crate::access::world::{Mode, Seen, World};
use crate::audit::Event;
use crate::config::Terms;

const ADMINS: &str = "k8s-admin@hyades";
const USERS: &str = "k8s-user@hyades@taurus";

/// Whoever counts turns up as often as they are taken.
const RESTLESS: &str = "restless";

/// Leases in memory.
#[derive(Clone, Default)]
pub(super) struct Leases(Arc<Mutex<BTreeMap<String, (Option<&'static str>, &'static str)>>>);

pub(super) struct Lessee {
    pub(super) leases: Leases,
    pub(super) name: &'static str,
}

impl Turns for Lessee {
    async fn take(&self, cluster: &str) -> Result<Turn, Fault> {
        let mut leases = self.leases.0.lock().unwrap();
        let (holder, last) = leases.entry(cluster.to_owned()).or_insert((None, self.name));
        match holder {
            Some(other) if *other != self.name => Ok(Turn::Theirs((*other).to_owned())),
            _ => {
                *holder = Some(self.name);
                let before = *last;
                if before != RESTLESS {
                    *last = self.name;
                }
                Ok(if before == self.name { Turn::Ours } else { Turn::After })
            }
        }
    }

    async fn end(&self, cluster: &str) {
        if let Some((holder, _)) = self.leases.0.lock().unwrap().get_mut(cluster) {
            *holder = None;
        }
    }
}

struct Daemon {
    course: Course<Simulated, Simulated, Lessee>,
    trail: Arc<Trail>,
    stop: watch::Sender<bool>,
}

impl Daemon {
    fn new(simulated: &Simulated, state: &Path, leases: &Leases, name: &'static str) -> Self {
        let mut terms = terms("");
        terms.rbac.state = state.join(name);
        Self::with(terms, simulated, leases, name)
    }

    fn with(terms: Terms, simulated: &Simulated, leases: &Leases, name: &'static str) -> Self {
        let clouds = Arc::new(simulated.clone());
        let turns = Arc::new(Lessee { leases: leases.clone(), name });
        let trail = Arc::new(Trail::Kept(Mutex::default()));
        let (stop, stopped) = watch::channel(false);
        let crew = Crew::new((clouds.clone(), clouds, turns), trail.clone(), Names::of(&terms), stopped);
        Self { course: Course::new(crew, terms).unwrap(), trail, stop }
    }

    fn told(&self) -> Vec<Event> {
        match &*self.trail {
            Trail::Kept(events) => std::mem::take(&mut *events.lock().unwrap()),
            _ => unreachable!(),
        }
    }
}

/// hyades and pleiades, alice and bob, and the groups of an earlier cycle with these in them.
async fn settled(state: &Path, admins: &[&str]) -> (Simulated, Daemon) {
    let mut world = hyades();
    let pleiades = cluster(Mode::AwsAuth, ["default"]);
    world.clusters.insert("pleiades".into(), Seen::Read(pleiades.into()));
    join(&mut world, ADMINS, admins);
    let simulated = Simulated::new(world, PATH);
    let mut daemon = Daemon::new(&simulated, state, &Leases::default(), "one");
    daemon.course.cycle(NOW).await.unwrap();
    let again = daemon.course.cycle(NOW).await.unwrap();
    assert!(again.is_whole() && again.plan.changes.is_empty(), "{:#?}", again.plan.changes);
    daemon.told();
    (simulated, daemon)
}

fn admins(world: &World) -> BTreeSet<String> {
    let bindings = &read(world, "hyades").cluster_bindings;
    let subjects = bindings.get(ADMINS).map(|binding| binding.is.subjects.clone()).unwrap_or_default();
    ["alice", "bob"].into_iter().filter(|name| subjects.contains(&user(name))).map(str::to_owned).collect()
}

fn names(users: &[&str]) -> BTreeSet<String> {
    users.iter().map(|user| (*user).to_owned()).collect()
}

fn joined(user: &str, group: &str) -> Event {
    Event::MemberJoined { user: user.into(), group: group.into() }
}

fn given(events: &[Event], who: &str, what: &str) -> usize {
    let about = |event: &&Event| matches!(event, Event::AccessGiven { user, target, .. } if user == who && target.contains(what));
    events.iter().filter(about).count()
}

fn taken(events: &[Event], who: &str, what: &str) -> usize {
    let about = |event: &&Event| matches!(event, Event::AccessTaken { user, target, .. } if user == who && target.contains(what));
    events.iter().filter(about).count()
}

#[tokio::test]
async fn who_joins_is_bound_and_who_leaves_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (simulated, mut daemon) = settled(folder.path(), &[]).await;
    simulated.by_hand(|world| join(world, ADMINS, &["alice"]));
    simulated.by_hand(|world| join(world, USERS, &["bob"]));
    assert!(daemon.course.cycle(NOW + 1).await.unwrap().is_whole());
    assert_eq!(admins(&simulated.world()), names(&["alice"]));
    let told = daemon.told();
    assert!(told.contains(&joined("alice", ADMINS)) && told.contains(&joined("bob", USERS)), "{told:#?}");
    let cause = "alice is in k8s-admin@hyades";
    let binding = |event: &&Event| matches!(event, Event::AccessGiven { user, cause: why, .. } if user == "alice" && why == cause);
    assert!(told.iter().any(|event| binding(&event)), "{told:#?}");
    for what in ["IAM role", "access entry", "ClusterRoleBinding"] {
        assert_eq!(given(&told, "alice", what).min(1), 1, "{what}: {told:#?}");
    }
    assert_eq!(given(&told, "bob", "RoleBinding taurus/"), 1);

    simulated.by_hand(|world| leave(world, ADMINS, "alice"));
    assert!(daemon.course.cycle(NOW + 2).await.unwrap().is_whole());
    assert_eq!(admins(&simulated.world()), names(&[]));
    let told = daemon.told();
    assert!(told.contains(&Event::MemberLeft { user: "alice".into(), group: ADMINS.into() }), "{told:#?}");
    assert_eq!((taken(&told, "alice", "ClusterRoleBinding"), taken(&told, "alice", "access entry")), (1, 1));
}

/// "API server or IAM dies between any two calls; the next cycle converges."
#[tokio::test]
async fn whichever_call_fails_the_next_cycles_end_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: String, fail: Box<dyn Fn(&Simulated, usize)>| {
        let state = folder.path().join(name);
        async move {
            let (simulated, mut daemon) = settled(&state, &["bob"]).await;
            simulated.by_hand(|world| join(world, ADMINS, &["alice"]));
            simulated.by_hand(|world| leave(world, ADMINS, "bob"));
            simulated.by_hand(|world| join(world, USERS, &["alice"]));
            let before = simulated.calls();
            fail(&simulated, before);
            let _ = daemon.course.cycle(NOW + 1).await;
            let calls = simulated.calls() - before;
            simulated.heal();
            for cycle in 0..3 {
                daemon.course.cycle(NOW + 2 + cycle).await.unwrap();
            }
            let world = simulated.world();
            assert_eq!(planned(&world, &terms("")).changes, []);
            assert_eq!(admins(&world), names(&["alice"]));
            (calls, daemon.told())
        }
    };
    let (calls, _) = run("none".into(), Box::new(|_, _| {})).await;
    assert!(calls > 10, "{calls}");
    for n in 1..=calls {
        for when in [When::Before, When::After] {
            let (_, told) = run(format!("{n}-{when:?}"), Box::new(move |s, from| s.fail_at(from + n, when))).await;
            // What was done though nobody heard of it is told all the same, once.
            for (count, what) in [
                (given(&told, "alice", "ClusterRoleBinding"), "alice's binding"),
                (given(&told, "alice", "access entry"), "alice's entry"),
                (taken(&told, "bob", "ClusterRoleBinding"), "bob's binding"),
                (taken(&told, "bob", "access entry"), "bob's entry"),
            ] {
                assert_eq!(count, 1, "{what}, call {n} failed {when:?}: {told:#?}");
            }
        }
        run(format!("{n}-dead"), Box::new(move |s, from| s.die_at(from + n))).await;
    }
}

/// "An IAM outage or an empty answer never strips everybody."
#[tokio::test]
async fn an_empty_answer_strips_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (simulated, mut daemon) = settled(folder.path(), &["alice", "bob"]).await;
    let before = simulated.world();
    simulated.by_hand(|world| {
        world.directory.users.clear();
        world.directory.groups.values_mut().for_each(|group| group.members.clear());
    });
    for cycle in 0..3 {
        let outcome = daemon.course.cycle(NOW + cycle).await.unwrap();
        assert!(outcome.stopped.is_some() && outcome.done.made.is_empty(), "{outcome:?}");
    }
    assert_eq!(admins(&simulated.world()), names(&["alice", "bob"]));
    let told = daemon.told();
    assert!(matches!(told[..], [Event::MassRemovalStopped { .. }]), "once, and nobody is said to have left: {told:?}");
    simulated.by_hand(|world| *world = before);
    assert!(daemon.course.cycle(NOW + 5).await.unwrap().is_whole());
    assert_eq!(daemon.told(), []);
}

#[tokio::test]
async fn many_may_go_when_somebody_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = hyades();
    let crowd: Vec<String> = (0..10).map(|n| format!("user{n}")).collect();
    crowd.iter().for_each(|name| drop(world.directory.users.insert(name.clone(), Default::default())));
    let all: Vec<&str> = crowd.iter().map(String::as_str).collect();
    join(&mut world, ADMINS, &all);
    let simulated = Simulated::new(world, PATH);
    let mut daemon = Daemon::new(&simulated, folder.path(), &Leases::default(), "one");
    daemon.course.cycle(NOW).await.unwrap();
    simulated.by_hand(|world| all[1..].iter().for_each(|name| leave(world, ADMINS, name)));
    let outcome = daemon.course.cycle(NOW).await.unwrap();
    assert!(outcome.stopped.is_some_and(|reason| reason.contains("--allow-mass-removal")));
    daemon.course.allow_mass_removal = true;
    assert!(daemon.course.cycle(NOW).await.unwrap().is_whole());
    assert_eq!(read(&simulated.world(), "hyades").cluster_bindings[ADMINS].is.subjects.len(), 1);
}

#[tokio::test]
async fn without_an_answer_of_iam_nothing_happens_and_that_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let (simulated, mut daemon) = settled(folder.path(), &["alice"]).await;
    simulated.die_at(1);
    for _ in 0..3 {
        let error = daemon.course.cycle(NOW).await.unwrap_err();
        assert!(matches!(error, CycleError::People(_) | CycleError::Clusters(_)), "{error}");
    }
    simulated.heal();
    daemon.course.cycle(NOW).await.unwrap();
    let told = daemon.told();
    assert!(matches!(told[..], [Event::AccessUnread { .. }, Event::AccessRead { .. }]), "{told:?}");
}

#[tokio::test]
async fn a_cluster_that_is_away_keeps_its_users() {
    let folder = tempfile::tempdir().unwrap();
    let (simulated, mut daemon) = settled(folder.path(), &["alice"]).await;
    let held = simulated.world().clusters["hyades"].clone();
    simulated.by_hand(|world| {
        world.clusters.insert("hyades".into(), Seen::Away("no route".into()));
        join(world, "k8s-user@pleiades", &["bob"]);
    });
    let outcome = daemon.course.cycle(NOW).await.unwrap();
    assert!(outcome.away["hyades"].contains("no route"), "{:?}", outcome.away);
    assert!(outcome.done.made.iter().all(|change| change.target.cluster() != Some("hyades")));
    assert!(
        read(&simulated.world(), "pleiades").cluster_bindings["k8s-user@pleiades"].is.subjects.contains(&user("bob"))
    );
    let roles = |world: &World| world.directory.roles.keys().filter(|name| name.contains("alice")).count();
    assert!(roles(&simulated.world()) > 0);
    let told = daemon.told();
    assert!(!told.iter().any(|event| matches!(event, Event::MemberLeft { .. })), "{told:#?}");
    simulated.by_hand(|world| drop(world.clusters.insert("hyades".into(), held)));
    assert!(daemon.course.cycle(NOW).await.unwrap().is_whole());
    assert_eq!(admins(&simulated.world()), names(&["alice"]));
}

#[tokio::test]
async fn two_daemons_do_the_work_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = hyades();
    join(&mut world, ADMINS, &["alice"]);
    let simulated = Simulated::new(world, PATH);
    let leases = Leases::default();
    let mut one = Daemon::new(&simulated, folder.path(), &leases, "one");
    let mut two = Daemon::new(&simulated, folder.path(), &leases, "two");
    for cycle in 0..3 {
        let (first, second) = tokio::join!(one.course.cycle(NOW + cycle), two.course.cycle(NOW + cycle));
        for outcome in [first.unwrap(), second.unwrap()] {
            assert_eq!(outcome.done.failed, [], "they met");
        }
    }
    assert_eq!(planned(&simulated.world(), &terms("")).changes, []);
    let told = [one.told(), two.told()].concat();
    assert_eq!(given(&told, "alice", "ClusterRoleBinding"), 1, "{told:#?}");
}

/// A turn that another had in between: what was read before it is not gone by.
#[tokio::test]
async fn after_anothers_turn_all_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (simulated, _) = settled(folder.path(), &[]).await;
    let leases = Leases::default();
    leases.0.lock().unwrap().insert("hyades".into(), (None, "another"));
    let mut daemon = Daemon::new(&simulated, folder.path(), &leases, "two");
    let reads =
        |daemon: &Simulated, before: usize, changes: usize| daemon.calls() - before - (daemon.changes() - changes);
    simulated.by_hand(|world| join(world, ADMINS, &["alice"]));
    let (calls, changes) = (simulated.calls(), simulated.changes());
    assert!(daemon.course.cycle(NOW).await.unwrap().is_whole());
    assert_eq!(reads(&simulated, calls, changes), 8, "people, the list and two clusters, twice");
    simulated.by_hand(|world| leave(world, ADMINS, "alice"));
    let (calls, changes) = (simulated.calls(), simulated.changes());
    assert!(daemon.course.cycle(NOW).await.unwrap().is_whole());
    assert_eq!(reads(&simulated, calls, changes), 4, "the turn was ours last");
    leases.0.lock().unwrap().insert("hyades".into(), (Some("another"), "another"));
    simulated.by_hand(|world| join(world, ADMINS, &["bob"]));
    let outcome = daemon.course.cycle(NOW).await.unwrap();
    assert!(outcome.done.left.iter().all(|(_, why)| why.contains("another")) && !outcome.is_whole());
    assert_eq!(admins(&simulated.world()), names(&[]));
}

/// Whoever may write Leases in one cluster holds up that cluster for a while, and no other for a moment.
#[tokio::test]
async fn whoever_keeps_a_turn_for_ever_stops_nobody() {
    for claim in [(Some("another"), "another"), (None, RESTLESS)] {
        let folder = tempfile::tempdir().unwrap();
        let (simulated, daemon) = settled(folder.path(), &["bob"]).await;
        drop(daemon);
        let leases = Leases::default();
        leases.0.lock().unwrap().insert("hyades".into(), claim);
        simulated.by_hand(|world| leave(world, ADMINS, "bob"));
        simulated.by_hand(|world| join(world, "k8s-user@pleiades", &["alice"]));
        for (minutes, alone) in [(0, false), (14, false), (15, true)] {
            // Started again each time: what it waits for is remembered.
            let mut daemon = Daemon::new(&simulated, folder.path(), &leases, "one");
            let outcome = daemon.course.cycle(NOW + minutes * 60).await.unwrap();
            let world = simulated.world();
            assert!(
                read(&world, "pleiades").cluster_bindings["k8s-user@pleiades"].is.subjects.contains(&user("alice"))
            );
            assert_eq!(outcome.alone.contains("hyades"), alone, "after {minutes} minutes");
            assert_eq!(outcome.is_whole(), alone, "{:?}", outcome.done);
            assert!(outcome.done.left.iter().all(|(change, _)| change.target.cluster() != Some("pleiades")));
            assert_eq!(admins(&world), if alone { names(&[]) } else { names(&["bob"]) });
            let told = daemon.told();
            let loud =
                |event: &Event| matches!(event, Event::AccessProblem { what } if what.starts_with("hyades: lease"));
            assert_eq!(told.iter().any(loud), alone, "{told:#?}");
        }
        leases.0.lock().unwrap().insert("hyades".into(), (None, "one"));
        let mut daemon = Daemon::new(&simulated, folder.path(), &leases, "one");
        simulated.by_hand(|world| join(world, ADMINS, &["alice"]));
        let outcome = daemon.course.cycle(NOW + 16 * 60).await.unwrap();
        assert!(outcome.is_whole() && outcome.alone.is_empty());
        let told = daemon.told();
        assert!(told.iter().any(|event| matches!(event, Event::AccessProblemOver { .. })), "{told:#?}");
    }
}

/// Another had a turn and did the work: that one waits for nothing when it needs a turn the next time.
#[tokio::test]
async fn a_peer_that_did_the_work_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (simulated, _) = settled(folder.path(), &[]).await;
    let leases = Leases::default();
    let mut daemon = Daemon::new(&simulated, folder.path(), &leases, "two");
    let peer = || leases.0.lock().unwrap().insert("hyades".into(), (Some("another"), "another"));
    peer();
    simulated.by_hand(|world| join(world, ADMINS, &["alice"]));
    let before = simulated.world();
    assert!(!daemon.course.cycle(NOW).await.unwrap().is_whole());
    simulated.by_hand(|world| leave(world, ADMINS, "alice"));
    simulated.by_hand(|world| world.directory.roles = before.directory.roles.clone());
    assert!(daemon.course.cycle(NOW + 60).await.unwrap().is_whole(), "nothing to do");
    simulated.by_hand(|world| join(world, ADMINS, &["bob"]));
    let outcome = daemon.course.cycle(NOW + 3600).await.unwrap();
    assert!(outcome.alone.is_empty() && !outcome.is_whole(), "its clock begins anew");
}

#[tokio::test]
async fn whoever_left_while_nobody_watched_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (simulated, daemon) = settled(folder.path(), &["alice", "bob"]).await;
    drop(daemon);
    simulated.by_hand(|world| leave(world, ADMINS, "bob"));
    let mut daemon = Daemon::new(&simulated, folder.path(), &Leases::default(), "one");
    daemon.course.cycle(NOW + 100).await.unwrap();
    let told = daemon.told();
    assert!(told.contains(&Event::MemberLeft { user: "bob".into(), group: ADMINS.into() }), "{told:#?}");
    assert!(!told.iter().any(|event| matches!(event, Event::MemberJoined { .. })), "{told:#?}");
}

#[tokio::test]
async fn a_hand_that_meddles_is_told_and_undone() {
    let folder = tempfile::tempdir().unwrap();
    let (simulated, mut daemon) = settled(folder.path(), &["alice"]).await;
    simulated.by_hand(|world| {
        let binding = read_mut(world, "hyades").cluster_bindings.get_mut(ADMINS).unwrap();
        binding.is.subjects.insert(user("bob"));
    });
    daemon.course.cycle(NOW).await.unwrap();
    assert_eq!(admins(&simulated.world()), names(&["alice"]));
    let told = daemon.told();
    assert!(told.iter().any(|event| matches!(event, Event::DriftMended { .. })), "{told:#?}");
    assert_eq!(taken(&told, "bob", "ClusterRoleBinding"), 1);
}

#[tokio::test]
async fn told_to_stop_it_begins_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (simulated, mut daemon) = settled(folder.path(), &[]).await;
    simulated.by_hand(|world| join(world, ADMINS, &["alice"]));
    daemon.stop.send_replace(true);
    assert!(matches!(daemon.course.cycle(NOW).await, Err(CycleError::Stopped)));
    assert_eq!(admins(&simulated.world()), names(&[]));
}

/// "a cluster whose API is down for a day": the others go on, nothing of it is taken away, and its first cycle after that
/// is enough. A day passes at once here.
#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_away_for_a_day_stops_nobody() {
    const HOUR: Duration = Duration::from_secs(3600);
    let folder = tempfile::tempdir().unwrap();
    let (simulated, daemon) = settled(folder.path(), &["alice"]).await;
    let Daemon { course, trail, stop } = daemon;
    let board = Arc::new(Board::new(course.pause(), || 0));
    let (_tell, told) = mpsc::channel(1);
    let held = simulated.world().clusters["hyades"].clone();
    simulated.by_hand(|world| drop(world.clusters.insert("hyades".into(), Seen::Away("no route".into()))));
    let (calls, roles) = (simulated.calls(), simulated.world().directory.roles);
    let watching = tokio::spawn(crate::access::watch::watch(course, board.clone(), told));
    for hour in 0..24 {
        let joins = hour % 2 == 0;
        simulated.by_hand(|world| match joins {
            true => join(world, "k8s-user@pleiades", &["bob"]),
            false => leave(world, "k8s-user@pleiades", "bob"),
        });
        // Meanwhile there, where nobody can be asked.
        simulated.by_hand(|world| match joins {
            true => join(world, ADMINS, &["bob"]),
            false => leave(world, ADMINS, "bob"),
        });
        tokio::time::sleep(HOUR).await;
        let world = simulated.world();
        let bound = read(&world, "pleiades").cluster_bindings.get("k8s-user@pleiades");
        assert_eq!(bound.is_some_and(|bound| bound.is.subjects.contains(&user("bob"))), joins, "in hour {hour}");
        assert!(roles.iter().all(|(name, role)| world.directory.roles.get(name) == Some(role)), "in hour {hour}");
        let said = board.sentence();
        assert!(said.starts_with("ok, but hyades cannot be read since 2"), "{said}");
    }
    // Four reads a cycle of five minutes, and a change of a few calls each hour.
    let calls = simulated.calls() - calls;
    assert!((700..1600).contains(&calls), "{calls} calls in a day");
    simulated.by_hand(|world| {
        world.clusters.insert("hyades".into(), held);
        leave(world, ADMINS, "alice");
        join(world, ADMINS, &["bob"]);
    });
    tokio::time::sleep(HOUR / 10).await;
    assert_eq!(admins(&simulated.world()), names(&["bob"]));
    assert_eq!(planned(&simulated.world(), &terms("")).changes, []);
    assert_eq!(board.sentence(), "ok\n");
    stop.send_replace(true);
    watching.await.unwrap();
    let Trail::Kept(events) = &*trail else { unreachable!() };
    let events = events.lock().unwrap();
    let count = |is: fn(&&Event) -> bool| events.iter().filter(is).count();
    assert_eq!(count(|event| matches!(event, Event::AccessUnread { .. })), 1, "told once");
    assert_eq!(count(|event| matches!(event, Event::AccessRead { .. })), 1);
}

/// Minutes pass at once here: a pause that is not cut short by a notice would show in the clock.
#[tokio::test(start_paused = true)]
async fn watch_looks_when_it_is_told_and_ends_when_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (simulated, daemon) = settled(folder.path(), &[]).await;
    let Daemon { course, trail, stop } = daemon;
    let board = Arc::new(Board::new(course.pause(), || 0));
    let (tell, told) = mpsc::channel(1);
    let watching = tokio::spawn(crate::access::watch::watch(course, board.clone(), told));
    let look = async || {
        let (done, is_done) = oneshot::channel();
        let begun = tokio::time::Instant::now();
        tell.send(done).await.unwrap();
        is_done.await.unwrap();
        begun.elapsed()
    };
    look().await;
    simulated.by_hand(|world| join(world, ADMINS, &["alice"]));
    let waited = look().await;
    assert!(waited.as_millis() < 2000, "{waited:?}");
    assert_eq!(admins(&simulated.world()), names(&["alice"]));
    stop.send_replace(true);
    watching.await.unwrap();
    let Trail::Kept(events) = &*trail else { unreachable!() };
    assert!(matches!(events.lock().unwrap().last(), Some(Event::AccessStopped { .. })));
}
