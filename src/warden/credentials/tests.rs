use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::identity::{Credentials, Secret};

/// Gives what the script says, then an hour's credentials for ever; notes every request.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Played>>, Arc<AtomicUsize>);

#[derive(Default)]
struct Played {
    answers: VecDeque<Result<u64, Refusal>>,
    asked: Vec<(Instant, AssumeRequest)>,
    takes: Duration,
}

impl Script {
    fn answers(answers: impl IntoIterator<Item = Result<u64, Refusal>>) -> Self {
        let script = Self::default();
        lock(&script.0).answers = answers.into_iter().collect();
        script
    }

    fn asked(&self) -> Vec<Instant> {
        lock(&self.0).asked.iter().map(|(when, _)| *when).collect()
    }
}

impl Sts for Script {
    async fn assume(&self, request: &AssumeRequest) -> Result<Grant, Refusal> {
        let (answer, takes, number) = {
            let mut played = lock(&self.0);
            played.asked.push((Instant::now(), request.clone()));
            (played.answers.pop_front().unwrap_or(Ok(3600)), played.takes, played.asked.len())
        };
        self.1.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(takes).await;
        answer.map(|seconds| grant(request, number, seconds))
    }
}

fn grant(request: &AssumeRequest, number: usize, seconds: u64) -> Grant {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    Grant {
        credentials: Credentials {
            access_key_id: format!("ASIA{}{number}", request.principal),
            secret_access_key: Secret::new("secret".into()),
            session_token: Secret::new("token".into()),
            issued: now as i64,
            expires: (now + seconds) as i64,
        },
        role: request.principal.to_string(),
        role_arn: request.role_arn.clone(),
        account: "123456789012".into(),
        region: "us-east-1".into(),
    }
}

fn refusal(code: &str, transient: bool) -> Refusal {
    Refusal { code: code.into(), message: "because".into(), transient }
}

struct Bench {
    issuer: Issuer<Script>,
    porter: mpsc::Receiver<WardenToPorter>,
    audit: mpsc::Receiver<Event>,
    script: Script,
}

fn bench(script: Script) -> Bench {
    bench_for(Purpose::Jail, script)
}

fn bench_for(purpose: Purpose, script: Script) -> Bench {
    let (to_porter, porter) = mpsc::channel(64);
    let (to_audit, audit) = mpsc::channel(64);
    let terms = Terms {
        role: "arn:aws:iam::123456789012:role/bastion/{user}".into(),
        tags: vec![("team".into(), "x".into())],
        policy: None,
        duration: Duration::from_secs(3600),
    };
    Bench { issuer: Issuer::new(script.clone(), purpose, terms, to_porter, to_audit), porter, audit, script }
}

impl Bench {
    async fn key(&mut self) -> (SessionId, String) {
        match self.porter.recv().await.unwrap() {
            WardenToPorter::Issued { session, grant } => (session, grant.credentials.access_key_id),
            other => panic!("{other:?}"),
        }
    }

    async fn code(&mut self) -> String {
        match self.porter.recv().await.unwrap() {
            WardenToPorter::Refused { refusal, .. } => refusal.code,
            other => panic!("{other:?}"),
        }
    }
}

fn alice() -> Principal {
    "alice".parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn asked_at_login_and_renewed_at_thirty_minutes_left() {
    let mut bench = bench(Script::default());
    let (session, started) = (SessionId::mint(), Instant::now());
    assert!(bench.issuer.begin(session, &alice()));
    assert_eq!(bench.key().await, (session, "ASIAalice1".into()));
    assert!(started.elapsed() < Duration::from_secs(1), "the first is asked for at once");
    assert_eq!(bench.key().await.1, "ASIAalice2");
    let age = started.elapsed();
    assert!(age > Duration::from_secs(1795) && age < Duration::from_secs(1805), "{age:?}");
    let Event::CredentialIssued { access_key_id, user, role, .. } = bench.audit.recv().await.unwrap() else { panic!() };
    assert_eq!((access_key_id.as_str(), user.as_str()), ("ASIAalice1", "alice"));
    assert_eq!(role, "arn:aws:iam::123456789012:role/bastion/alice");
}

/// A machine whose clock was set back by six hours reads seven hours off an hour's credentials.
#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_delays_no_renewal() {
    let mut bench = bench(Script::answers([Ok(7 * 3600), Ok(3600)]));
    let started = Instant::now();
    bench.issuer.begin(SessionId::mint(), &alice());
    bench.key().await;
    bench.key().await;
    let age = started.elapsed();
    assert!(age > Duration::from_secs(1795) && age < Duration::from_secs(1805), "{age:?}");
}

#[tokio::test(start_paused = true)]
async fn an_issue_is_in_the_audit_before_the_porter_has_it() {
    let (to_porter, mut porter) = mpsc::channel(1);
    let (to_audit, mut audit) = mpsc::channel(1);
    to_audit.send(Event::Started { version: String::new() }).await.unwrap();
    let terms = Terms { role: "{user}".into(), tags: vec![], policy: None, duration: Duration::from_secs(3600) };
    let issuer = Issuer::new(Script::default(), Purpose::Jail, terms, to_porter, to_audit);
    issuer.begin(SessionId::mint(), &alice());
    let waiting = tokio::time::timeout(Duration::from_secs(600), porter.recv()).await;
    assert!(waiting.is_err(), "the audit is full: nothing may be handed out");
    audit.recv().await.unwrap();
    assert!(matches!(porter.recv().await, Some(WardenToPorter::Issued { .. })));
}

#[tokio::test(start_paused = true)]
async fn trouble_is_retried_with_growing_pauses_and_told_once() {
    let trouble = || Err(refusal("ServiceUnavailable", true));
    let mut bench = bench(Script::answers((0..9).map(|_| trouble())));
    bench.issuer.begin(SessionId::mint(), &alice());
    assert_eq!(bench.code().await, "ServiceUnavailable");
    assert_eq!(bench.key().await.1, "ASIAalice10", "the next message is the success");
    let asked = bench.script.asked();
    for (index, pair) in asked.windows(2).enumerate() {
        let pause = pair[1] - pair[0];
        let full = Duration::from_secs(1 << index).min(LONGEST_PAUSE);
        assert!(pause >= full / 2 && pause <= full + Duration::from_millis(5), "{index}: {pause:?} of {full:?}");
    }
    let mut refused = 0;
    while let Ok(event) = bench.audit.try_recv() {
        refused += usize::from(matches!(event, Event::CredentialRefused { .. }));
    }
    assert_eq!(refused, 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_asked_about_again_every_five_minutes() {
    let mut bench = bench(Script::answers([Err(refusal("AccessDenied", false)), Err(refusal("AccessDenied", false))]));
    bench.issuer.begin(SessionId::mint(), &alice());
    assert_eq!(bench.code().await, "AccessDenied");
    bench.key().await;
    for pair in bench.script.asked().windows(2) {
        let pause = pair[1] - pair[0];
        assert!(pause >= REFUSED_PAUSE / 2 && pause <= REFUSED_PAUSE + Duration::from_millis(5), "{pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_leaves_the_old_credentials_and_a_new_porter_hears_of_both() {
    let mut bench = bench(Script::answers([Ok(3600), Err(refusal("Throttling", true))]));
    let session = SessionId::mint();
    bench.issuer.begin(session, &alice());
    bench.key().await;
    assert_eq!(bench.code().await, "Throttling");
    bench.issuer.resend_all();
    assert_eq!(bench.key().await, (session, "ASIAalice1".into()));
    assert_eq!(bench.code().await, "Throttling");
    assert_eq!(bench.key().await.1, "ASIAalice3");
    bench.issuer.resend_all();
    assert_eq!(bench.key().await.1, "ASIAalice3", "a success ends the refusal");
}

#[tokio::test(start_paused = true)]
async fn each_session_has_its_own_and_an_ended_one_hears_nothing_more() {
    let mut bench = bench(Script::default());
    let (first, second) = (SessionId::mint(), SessionId::mint());
    bench.issuer.begin(first, &alice());
    assert!(!bench.issuer.begin(first, &"bob".parse().unwrap()), "a session does not change hands");
    bench.issuer.begin(second, &"bob".parse().unwrap());
    let mut got = HashMap::from([bench.key().await, bench.key().await]);
    assert!(got.remove(&first).unwrap().starts_with("ASIAalice"));
    assert!(got.remove(&second).unwrap().starts_with("ASIAbob"));
    bench.issuer.end(first);
    bench.issuer.resend_all();
    assert_eq!(bench.key().await.0, second);
    for _ in 0..3 {
        assert_eq!(bench.key().await.0, second);
    }
    assert_eq!(lock(&bench.script.0).asked.iter().filter(|(_, r)| r.session == first).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn those_for_clusters_are_no_jails() {
    let mut bench = bench_for(Purpose::Clusters, Script::answers([Ok(3600), Err(refusal("AccessDenied", false))]));
    let session = SessionId::mint();
    bench.issuer.begin(session, &alice());
    let WardenToPorter::ClusterCredentials { session: whose, credentials } = bench.porter.recv().await.unwrap() else {
        panic!()
    };
    assert_eq!((whose, credentials.access_key_id.as_str()), (session, "ASIAalice1"));
    let next = bench.porter.recv().await.unwrap();
    assert!(matches!(next, WardenToPorter::NoClusterCredentials { refusal, .. } if refusal.code == "AccessDenied"));
    assert!(matches!(bench.audit.recv().await, Some(Event::CredentialIssued { .. })));
    assert!(matches!(bench.audit.recv().await, Some(Event::CredentialRefused { .. })));
}

#[tokio::test(start_paused = true)]
async fn one_issue_serves_jail_and_clusters_where_one_role_does() {
    let mut bench = bench(Script::default());
    let session = SessionId::mint();
    bench.issuer.begin(session, &alice());
    bench.key().await;
    assert!(bench.issuer.serve_clusters(session, true));
    assert!(!bench.issuer.serve_clusters(SessionId::mint(), true));
    for _ in 0..2 {
        let said = bench.porter.recv().await.unwrap();
        let WardenToPorter::ClusterCredentials { credentials, .. } = said else { panic!("{said:?}") };
        assert_eq!(bench.key().await.1, credentials.access_key_id);
        assert!(!bench.issuer.begin(session, &alice()));
    }
    assert_eq!(bench.script.asked().len(), 2, "one issue, and one renewal");
    bench.issuer.serve_clusters(session, false);
    bench.key().await;
    bench.key().await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_sessions_do_not_ask_at_one_time() {
    let bench = bench(Script::default());
    lock(&bench.script.0).takes = Duration::from_secs(2);
    for _ in 0..1000 {
        bench.issuer.begin(SessionId::mint(), &alice());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.script.1.load(Ordering::SeqCst), IN_FLIGHT);
}

#[test]
fn short_lives_are_renewed_in_time_and_nothing_is_asked_for_without_end() {
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    assert_eq!(renewal(minutes(60)), minutes(30));
    for life in 27..60 {
        assert!(
            minutes(life) - renewal(minutes(life)) > LEAST,
            "{life}: the metadata door would have nothing to serve"
        );
    }
    assert_eq!([45, 31, 20].map(|life| renewal(minutes(life))), [minutes(15), minutes(3), minutes(10)]);
    assert_eq!(renewal(minutes(720)), minutes(690));
    assert_eq!(renewal(minutes(15)), minutes(15) / 2);
    assert_eq!(renewal(Duration::ZERO), LONGEST_PAUSE);
}
