use std::collections::HashMap;

use tokio::time::Instant;

use super::*;
use crate::identity::Pattern;

const CA: &str = include_str!("../../../config/tests/ca.pem");

type Names = Vec<Result<Page, Refusal>>;

/// Answers of each place: pages in turn, then one that ends; descriptions by name.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Played>>);

#[derive(Default)]
struct Played {
    pages: HashMap<String, Names>,
    clusters: HashMap<(String, String), Described>,
    asked: Vec<(Instant, String)>,
    throttled: Vec<String>,
}

impl Script {
    fn played(&self) -> MutexGuard<'_, Played> {
        self.0.lock().unwrap()
    }

    /// A place has these clusters, on pages of two.
    fn has(&self, place: &str, clusters: &[(&str, Described)]) {
        let mut played = self.played();
        let pages: Vec<&[(&str, Described)]> = clusters.chunks(2).collect();
        let last = pages.len().saturating_sub(1);
        let page = |(n, page): (usize, &&[(&str, Described)])| {
            let names = page.iter().map(|(name, _)| (*name).to_owned()).collect();
            Ok(Page { names, next: (n < last).then(|| (n + 1).to_string()) })
        };
        let mut pages: Names = pages.iter().enumerate().map(page).collect();
        if pages.is_empty() {
            pages.push(Ok(Page::default()));
        }
        played.pages.insert(place.into(), pages);
        for (name, described) in clusters {
            played.clusters.insert((place.into(), (*name).to_owned()), described.clone());
        }
    }

    fn refuses(&self, place: &str, code: &str) {
        let refusal = Refusal { code: code.into(), message: "because".into(), transient: true };
        self.played().pages.insert(place.into(), vec![Err(refusal)]);
    }
}

impl Cloud for Script {
    async fn names(&self, place: &Place, after: Option<String>) -> Result<Page, Refusal> {
        let mut played = self.played();
        played.asked.push((Instant::now(), place.to_string()));
        let number: usize = after.map_or(0, |after| after.parse().unwrap());
        played.pages.get(&place.to_string()).map_or(Ok(Page::default()), |pages| pages[number].clone())
    }

    async fn describe(&self, place: &Place, name: &str) -> Result<Option<Described>, Refusal> {
        let played = self.played();
        if played.throttled.iter().any(|throttled| throttled == name) {
            return Err(Refusal { code: "Throttling".into(), message: "slow down".into(), transient: true });
        }
        Ok(played.clusters.get(&(place.to_string(), name.to_owned())).cloned())
    }
}

fn described(name: &str, account: &str, region: &str) -> Described {
    Described {
        arn: format!("arn:aws:eks:{region}:{account}:cluster/{name}"),
        is_up: true,
        endpoint: format!("https://{name}-{account}.test"),
        authority: STANDARD.encode(CA),
        tags: [("stage".to_owned(), "prod".to_owned())].into(),
    }
}

fn kube(discover: Vec<Discover>) -> Kube {
    Kube { discover, refresh: Duration::from_secs(300), ..Kube::default() }
}

fn own(regions: &[&str]) -> Discover {
    let regions = regions.iter().map(|region| (*region).to_owned()).collect();
    Discover { role: None, regions, tags: BTreeMap::new(), trusted: true }
}

struct Yard {
    script: Script,
    finder: Arc<Finder<Script>>,
    found: mpsc::Receiver<Vec<Found>>,
    events: mpsc::Receiver<Event>,
}

impl Yard {
    fn new(script: &Script, discover: Vec<Discover>) -> Self {
        let (to_audit, events) = mpsc::channel(64);
        let (to_court, found) = mpsc::channel(1);
        let finder = Arc::new(Finder::new(script.clone(), &kube(discover), to_audit));
        tokio::spawn(finder.clone().run(to_court));
        Self { script: script.clone(), finder, found, events }
    }

    async fn found(&mut self) -> Vec<String> {
        let found = self.found.recv().await.unwrap();
        found.into_iter().map(|found| format!("{} {} {}", found.name, found.account, found.endpoint)).collect()
    }

    fn events(&mut self) -> Vec<String> {
        let told = |event| match event {
            Event::DiscoveryFailed { place, code, .. } => format!("{place}: {code}"),
            Event::DiscoveryWorks { place } => format!("{place} works"),
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| self.events.try_recv().ok()).map(told).collect()
    }
}

const EAST: &str = "us-east-1";

#[tokio::test(start_paused = true)]
async fn all_pages_are_read_and_asked_for_again() {
    let script = Script::default();
    let of = |name: &'static str| (name, described(name, "1", EAST));
    script.has(EAST, &[of("a"), of("b"), of("c"), of("d"), of("e")]);
    let mut yard = Yard::new(&script, vec![own(&[EAST])]);
    assert_eq!(yard.found().await.len(), 5);
    let begun = Instant::now();
    script.has(EAST, &[of("a")]);
    assert_eq!(yard.found().await, ["a 1 https://a-1.test"], "the others are gone");
    let pause = begun.elapsed().as_secs();
    assert!((150..=300).contains(&pause), "{pause}");
    assert!(yard.events().is_empty());
}

#[tokio::test(start_paused = true)]
async fn while_aws_is_away_the_last_list_stays() {
    let script = Script::default();
    script.has(EAST, &[("a", described("a", "1", EAST))]);
    script.has("eu-west-1", &[("b", described("b", "1", "eu-west-1"))]);
    let mut yard = Yard::new(&script, vec![own(&[EAST, "eu-west-1"])]);
    assert_eq!(yard.found().await.len(), 2);
    script.refuses(EAST, "ServiceUnavailable");
    for _ in 0..3 {
        assert_eq!(yard.found().await.len(), 2);
    }
    assert_eq!(yard.events(), ["us-east-1: ServiceUnavailable"], "told once");
    script.has(EAST, &[]);
    assert_eq!(yard.found().await, ["b 1 https://b-1.test"]);
    assert_eq!(yard.events(), ["us-east-1 works"]);
    // One description that is throttled is a look that failed, not a cluster that is gone.
    script.played().throttled.push("b".into());
    assert_eq!(yard.found().await.len(), 1);
    assert_eq!(yard.events(), ["eu-west-1: Throttling"]);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_not_up_stays_if_it_is_known() {
    let script = Script::default();
    let down = |name: &str| Described { is_up: false, endpoint: String::new(), ..described(name, "1", EAST) };
    script.has(EAST, &[("a", described("a", "1", EAST)), ("b", down("b"))]);
    let mut yard = Yard::new(&script, vec![own(&[EAST])]);
    assert_eq!(yard.found().await, ["a 1 https://a-1.test"]);
    script.has(EAST, &[("a", down("a")), ("b", described("b", "1", EAST))]);
    assert_eq!(yard.found().await.len(), 2);
    script.has(EAST, &[("a", described("a", "1", EAST))]);
    script.played().clusters.clear();
    assert!(yard.found().await.is_empty(), "listed, and deleted before it was described");
}

#[tokio::test(start_paused = true)]
async fn tags_choose_and_are_labels_only_where_they_are_trusted() {
    let script = Script::default();
    let role = "arn:aws:iam::210987654321:role/look";
    let there = format!("{role} in {EAST}");
    let plain = |name: &'static str| (name, Described { tags: BTreeMap::new(), ..described(name, "2", EAST) });
    script.has(EAST, &[("a", described("a", "1", EAST)), plain("b")]);
    script.has(&there, &[("c", described("c", "2", EAST)), plain("d")]);
    let tags: BTreeMap<String, Pattern> = [("stage".to_owned(), Pattern::new("pr*"))].into();
    let other = Discover { role: Some(role.into()), tags: tags.clone(), trusted: false, ..own(&[EAST]) };
    let mut yard = Yard::new(&script, vec![Discover { tags, ..own(&[EAST]) }, other]);
    let found = yard.found.recv().await.unwrap();
    let told: Vec<(&str, usize)> = found.iter().map(|found| (found.name.as_str(), found.labels.len())).collect();
    assert_eq!(told, [("a", 1), ("c", 0)]);
}

#[tokio::test(start_paused = true)]
async fn new_settings_are_looked_by_at_once() {
    let script = Script::default();
    script.has("eu-west-1", &[("b", described("b", "1", "eu-west-1"))]);
    let mut yard = Yard::new(&script, vec![]);
    assert!(yard.found().await.is_empty());
    assert!(yard.script.played().asked.is_empty());
    let before = Instant::now();
    yard.finder.adopt(&kube(vec![own(&["eu-west-1"])]));
    assert_eq!(yard.found().await, ["b 1 https://b-1.test"]);
    assert!(before.elapsed() < Duration::from_secs(1));
    yard.finder.adopt(&kube(vec![]));
    assert!(yard.found().await.is_empty(), "an entry that is gone takes its clusters along");
}

#[test]
fn what_no_cluster_of_the_place_could_be_is_left_out() {
    let place = Place { role: None, region: EAST.into() };
    let good = || described("a", "1", EAST);
    assert!(read(&place, "a".into(), good()).is_some());
    assert!(read(&place, "a".into(), Described { endpoint: "https://x.test/".into(), ..good() }).is_some());
    for bad in [
        Described { arn: "arn:aws:eks:eu-west-1:1:cluster/a".into(), ..good() },
        Described { arn: "arn:aws:eks:us-east-1:1:cluster/b".into(), ..good() },
        Described { arn: String::new(), ..good() },
        Described { endpoint: "http://a.test".into(), ..good() },
        Described { endpoint: String::new(), ..good() },
        Described { authority: String::new(), ..good() },
        Described { authority: "!".into(), ..good() },
        Described {
            authority: STANDARD.encode("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"),
            ..good()
        },
    ] {
        assert!(read(&place, "a".into(), bad.clone()).is_none(), "{bad:?}");
    }
    assert!(read(&place, "a/b".into(), described("a/b", "1", EAST)).is_none());
}
