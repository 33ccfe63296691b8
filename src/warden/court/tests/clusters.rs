use super::*;
use crate::config::{ClusterRule, Discover, Kube};
use crate::privsep::message::{Cluster, Credential, Pass, Way};
use crate::warden::clusters::{Found, Known};

pub(super) fn kube(group: &str, discover: bool) -> Arc<Kube> {
    let any = || vec![Pattern::new("*")];
    let rule = ClusterRule { groups: vec![Pattern::new(group)], clusters: any(), labels: Default::default() };
    let place = Discover { role: None, regions: vec!["us-east-1".into()], tags: Default::default(), trusted: true };
    Arc::new(Kube { allow: vec![rule], discover: discover.then_some(place).into_iter().collect(), ..Kube::default() })
}

pub(super) fn with(kube: Arc<Kube>, stated: &[&str]) -> Terms {
    let cluster = |name: &&str| Known {
        cluster: Cluster {
            name: (*name).to_owned(),
            endpoint: "https://s.test".into(),
            authority: "CA".into(),
            server_name: None,
            way: Way::Shared(Credential::Token(crate::identity::Secret::new("t".into()))),
        },
        labels: Default::default(),
    };
    Terms { kube, clusters: stated.iter().map(cluster).collect(), ..terms() }
}

pub(super) fn found(name: &str) -> Found {
    Found {
        name: name.into(),
        account: "123456789012".into(),
        region: "us-east-1".into(),
        endpoint: format!("https://{name}.test"),
        authority: "CA".into(),
        labels: Default::default(),
    }
}

impl Yard {
    /// Logs in and opens a session.
    pub(super) async fn session(&mut self) -> SessionId {
        self.gavel.turns.add_permits(1);
        self.prove();
        self.letter().await;
        self.court.hear_gate(self.term, GateToWarden::Open { connection: 7, channel: 1 });
        *self.court.sessions.keys().next().unwrap()
    }

    /// The next pass, and the clusters that were told before it.
    pub(super) async fn pass(&self, whose: SessionId) -> (Vec<String>, Pass) {
        let mut told = Vec::new();
        loop {
            match timeout(PATIENCE, self.porter.recv()).await.expect("a word to the porter").unwrap().0 {
                WardenToPorter::Cluster(cluster) => told.push(format!("+{}", cluster.name)),
                WardenToPorter::NoCluster { name } => told.push(format!("-{name}")),
                WardenToPorter::Pass { session, pass } if session == whose => return (told, *pass),
                WardenToPorter::Egress { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn wants_tokens(&self, session: SessionId) -> Option<bool> {
        self.patron.0.lock().unwrap().get(&session).copied()
    }
}

/// "when clusters appear or vanish during a session"
#[tokio::test]
async fn a_running_session_follows_its_clusters() {
    let mut yard = Yard::new();
    yard.court.adopt(with(kube("*", false), &["hyades"]));
    yard.login().await;
    yard.open(1);
    yard.run(1, "top");
    let WardenToJailer::Build { session, .. } = yard.asked_of_jailer().await else { panic!() };
    // Before anything runs there is nothing to follow: the program that starts does it.
    yard.court.adopt(with(kube("*", false), &["hyades", "taurus"]));
    yard.court.hear_keeper(yard.court.reign, KeeperToWarden::Opened { session });
    yard.court.hear_jailer(JailerToWarden::Built { session });
    let WardenToJailer::Start { number: 1, clusters: Some(clusters), .. } = yard.asked_of_jailer().await else {
        panic!()
    };
    assert_eq!(clusters, ["hyades", "taurus"]);
    yard.court.hear_jailer(JailerToWarden::Started { session, number: 1 });
    assert!(matches!(yard.heard().await, WardenToGate::Running { .. }));
    yard.court.adopt(with(kube("*", false), &["hyades", "taurus"]));
    yard.court.adopt(with(kube("*", false), &[]));
    let WardenToJailer::Start { number: 2, clusters, wish, .. } = yard.asked_of_jailer().await else { panic!() };
    // The bastion has no clusters any more, but this session had some.
    assert_eq!((clusters, wish.terminal), (None, None));
    yard.court.hear_jailer(JailerToWarden::Started { session, number: 2 });
    assert!(matches!(yard.heard().await, WardenToGate::Unattended { number: 2, .. }));
    // It keeps no jail alive.
    yard.court.hear_jailer(JailerToWarden::Exited { session, number: 1, status: 0 });
    assert!(matches!(yard.asked_of_jailer().await, WardenToJailer::End { .. }));
}

#[tokio::test]
async fn a_pass_is_pushed_at_the_beginning_and_whenever_something_changes() {
    let mut yard = Yard::new();
    yard.court.adopt(with(kube("*", true), &["taurus"]));
    let id = yard.session().await;
    let (told, pass) = yard.pass(id).await;
    assert_eq!((told, pass.clusters), (vec!["+taurus".to_owned()], vec!["taurus".to_owned()]));
    assert_eq!(yard.wants_tokens(id), Some(false), "a shared credential needs none");

    yard.court.found_clusters(vec![found("hyades")]);
    yard.letter().await;
    let (told, pass) = yard.pass(id).await;
    assert_eq!((told.join(" "), pass.clusters.join(" ")), ("+hyades".into(), "hyades taurus".into()));
    assert_eq!(yard.wants_tokens(id), Some(true));
    yard.court.found_clusters(vec![found("hyades")]);
    assert!(yard.letters.try_recv().is_err(), "nothing changed");

    // The rules are for a group that the user is found to be in at the review, and not before.
    *yard.gavel.review.lock().unwrap() = Review::Stays(Box::new(permit(&["ops"])));
    yard.court.adopt(with(kube("ops", true), &[]));
    let (told, pass) = yard.pass(id).await;
    assert_eq!((told.join(" "), pass), ("-taurus +hyades".into(), Pass::default()));
    assert_eq!(yard.wants_tokens(id), Some(false));
    yard.letter().await;
    yard.letter().await;
    let (_, pass) = yard.pass(id).await;
    assert_eq!((pass.clusters.join(" "), pass.groups.join(" ")), ("hyades".into(), "ops".into()));
    assert_eq!(yard.wants_tokens(id), Some(true));

    yard.court.found_clusters(vec![]);
    yard.letter().await;
    let (told, pass) = yard.pass(id).await;
    assert_eq!((told.join(" "), pass.clusters.len()), ("-hyades".into(), 0));
}

#[tokio::test]
async fn a_new_porter_hears_everything_again() {
    let mut yard = Yard::new();
    yard.court.adopt(with(kube("*", true), &["taurus"]));
    yard.court.found_clusters(vec![found("hyades")]);
    let id = yard.session().await;
    yard.pass(id).await;
    let (ours, theirs) = pair().unwrap();
    yard.court.met_porter(Outbox::to(Arc::new(Link::<_, Silence>::new(ours).unwrap())));
    yard.porter = Link::new(theirs).unwrap();
    yard.letter().await;
    let (told, pass) = yard.pass(id).await;
    assert_eq!((told.join(" "), pass.clusters.join(" ")), ("+taurus +hyades".into(), "hyades taurus".into()));
}

#[tokio::test]
async fn a_new_warden_takes_no_cluster_away_before_it_has_looked() {
    let mut yard = Yard::new();
    yard.court.adopt(with(kube("*", true), &["taurus"]));
    *yard.gavel.review.lock().unwrap() = Review::Stays(Box::new(permit(&[])));
    let id = SessionId::mint();
    let note = minicbor::to_vec(Note { key: "SHA256:abc".into(), connection: 7 }).unwrap();
    let user: Principal = "alice".parse().unwrap();
    yard.court.hear_jailer(JailerToWarden::Running { session: id, user, note, numbers: vec![1] });
    yard.letter().await;
    assert_eq!(yard.wants_tokens(id), None, "nothing is said of clusters yet");
    yard.court.found_clusters(vec![found("hyades")]);
    yard.letter().await;
    let (told, pass) = yard.pass(id).await;
    assert_eq!((told.join(" "), pass.clusters.join(" ")), ("+taurus +hyades".into(), "hyades taurus".into()));
}
