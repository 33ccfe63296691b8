use sha2::{Digest, Sha256};

use super::clusters::{found, kube, with};
use super::locks::locked;
use super::*;
use crate::config::{Kube, PublicDoor};

fn public(life: u64) -> Terms {
    let door = PublicDoor {
        listen: vec![],
        url: "https://bastion.example.com:6443".into(),
        certificate: "/c".into(),
        key: "/k".into(),
        authority: Some("PEM".into()),
        tls12: false,
        life: Duration::from_secs(life),
    };
    let kube = Kube { public: Some(door), ..Kube::clone(&kube("*", false)) };
    Terms { ssh_port: 2222, ..with(Arc::new(kube), &["hyades", "taurus"]) }
}

impl Yard {
    /// The porter's next word on a laptop's grant.
    async fn laptop(&self) -> WardenToPorter {
        loop {
            let told = timeout(PATIENCE, self.porter.recv()).await.expect("a word to the porter").unwrap().0;
            if matches!(told, WardenToPorter::Laptop { .. } | WardenToPorter::LaptopGone { .. }) {
                return told;
            }
        }
    }

    /// Asks for a token, and hears whether the user still may.
    async fn ask(&mut self, channel: u32, cluster: &str) {
        self.ask_as(channel, cluster, Review::Stays(Box::new(permit(&[])))).await;
    }

    async fn ask_as(&mut self, channel: u32, cluster: &str, review: Review) {
        *self.gavel.review.lock().unwrap() = review;
        self.run(channel, &format!("stockade token {cluster}"));
        self.token_decided().await;
    }

    async fn token_decided(&mut self) {
        loop {
            let letter = timeout(PATIENCE, self.letters.recv()).await.expect("a letter").unwrap();
            let last = matches!(letter, Post::TokenReviewed(..));
            self.read(letter);
            if last {
                return;
            }
        }
    }

    /// The keeper has begun the recording of the grant.
    async fn recorded(&mut self) -> SessionId {
        let session = self
            .told_keeper(|told| match told {
                WardenToKeeper::Open { session, header } if header.client == "laptop" => Some(session),
                _ => None,
            })
            .await;
        self.court.hear_keeper(self.court.reign, KeeperToWarden::Opened { session });
        session
    }
}

fn token_of(credential: &str) -> String {
    let credential: serde_json::Value = serde_json::from_str(credential).unwrap();
    assert_eq!(credential["apiVersion"], "client.authentication.k8s.io/v1");
    assert!(credential["status"]["expirationTimestamp"].as_str().unwrap().ends_with('Z'));
    credential["status"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_verb_has_no_jail() {
    let mut yard = Yard::new();
    yard.court.adopt(with(kube("*", false), &["hyades"]));
    yard.login().await;
    // Nobody knows yet what it is for: its jail is begun, and is not used.
    yard.open(1);
    yard.run(1, "stockade whoami");
    let (said, errors, code) = yard.answer().await;
    assert!(said.contains("user               alice\n") && said.contains("clusters           hyades\n"), "{said}");
    assert_eq!((errors.as_str(), code), ("", 0));
    let WardenToJailer::Build { session, .. } = yard.asked_of_jailer().await else { panic!() };
    assert!(matches!(yard.asked_of_jailer().await, WardenToJailer::End { .. }));
    yard.court.hear_jailer(JailerToWarden::Gone { session });
    // Whose last wish was a verb waits for the next.
    for (channel, command, expected) in [(2, "stockade clusters", 0), (3, "stockade; id", 64), (4, "stockade x", 64)] {
        yard.open(channel);
        assert!(yard.court.sessions.is_empty());
        yard.run(channel, command);
        let (said, errors, code) = yard.answer().await;
        assert_eq!((code, said.is_empty(), errors.is_empty()), (expected, expected != 0, expected == 0), "{errors}");
        yard.court.hear_gate(yard.term, GateToWarden::Closed { connection: 7, channel });
    }
    // And has a jail all the same when it was none.
    yard.open(5);
    yard.run(5, "top");
    assert!(matches!(yard.asked_of_jailer().await, WardenToJailer::Build { .. }));
    // From then on it is begun ahead again.
    yard.court.sessions.clear();
    yard.open(6);
    assert!(matches!(yard.asked_of_jailer().await, WardenToJailer::Build { .. }));
}

#[tokio::test]
async fn a_verb_beside_a_running_program_leaves_it_alone() {
    let mut yard = Yard::new();
    let session = yard.running().await;
    yard.open(2);
    yard.run(2, "stockade whoami --json");
    let said: serde_json::Value = serde_json::from_str(&yard.answer().await.0).unwrap();
    assert_eq!((&said["user"], &said["from"]), (&"alice".into(), &"192.0.2.1:5".into()));
    assert!(yard.court.sessions[&session].ending.is_none());
    yard.run(2, "stockade whoami");
    assert!(matches!(yard.heard().await, WardenToGate::Refused { channel: 2, .. }), "one verb a channel");
}

#[tokio::test]
async fn who_has_enough_jails_still_has_verbs() {
    let mut yard = Yard::new();
    yard.running().await;
    yard.gavel.turns.add_permits(1);
    yard.prove_over(8);
    yard.letter().await;
    yard.heard().await;
    for (channel, command, refused) in [(1, "stockade whoami", false), (2, "top", true)] {
        yard.court.hear_gate(yard.term, GateToWarden::Open { connection: 8, channel });
        let wish = Wish { program: Program::Exec(command.into()), terminal: None, environment: Vec::new() };
        yard.court.hear_gate(yard.term, GateToWarden::Run { connection: 8, channel, wish });
        assert_eq!(matches!(yard.heard().await, WardenToGate::Refused { .. }), refused, "{command}");
    }
}

#[tokio::test]
async fn without_a_public_door_there_is_no_token() {
    let mut yard = Yard::new();
    yard.court.adopt(with(kube("*", false), &["hyades"]));
    yard.login().await;
    for command in ["stockade token hyades", "stockade kubeconfig"] {
        yard.open(1);
        yard.run(1, command);
        let (said, errors, code) = yard.answer().await;
        assert_eq!((said.as_str(), code), ("", 69));
        assert!(errors.contains("no public kube door"), "{errors}");
    }
}

/// kubectl on a laptop asks for its next token the moment that a warden was started again.
#[tokio::test]
async fn a_verb_about_clusters_waits_for_the_first_list_of_them() {
    let mut yard = Yard::new();
    yard.court.adopt(with(kube("*", true), &["taurus"]));
    yard.login().await;
    for (channel, command) in [(1, "stockade clusters"), (2, "stockade whoami --json")] {
        yard.open(channel);
        yard.run(channel, command);
    }
    assert!(yard.answer().await.0.contains("\"user\": \"alice\""), "what needs no cluster does not wait");
    yard.court.found_clusters(vec![found("hyades")]);
    assert_eq!(yard.answer().await.0, "hyades\ntaurus\n");
    yard.court.found_clusters(vec![]);
    yard.open(3);
    yard.run(3, "stockade clusters");
    assert_eq!(yard.answer().await.0, "taurus\n");
}

#[tokio::test]
async fn a_token_is_lent_to_a_laptop_and_answered_again_until_it_is_old() {
    let mut yard = Yard::new();
    yard.court.adopt(public(3600));
    yard.login().await;
    for wrong in ["nowhere", "HYADES"] {
        yard.open(1);
        yard.ask(1, wrong).await;
        let (said, errors, code) = yard.answer().await;
        assert_eq!((said.as_str(), code), ("", 69), "{errors}");
    }
    yard.open(2);
    yard.ask(2, "hyades").await;
    // No recording, no token.
    assert!(timeout(Duration::from_millis(50), yard.gate.recv()).await.is_err());
    let session = yard.recorded().await;
    let token = token_of(&yard.answer().await.0);
    assert!(token.starts_with("stockade_") && token.len() == "stockade_".len() + 43, "{}", token.len());
    let WardenToPorter::Laptop { session: granted, digest, user, .. } = yard.laptop().await else { panic!() };
    assert_eq!((granted, user.as_str()), (session, "alice"));
    assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(&token)));
    assert_eq!(yard.patron.0.lock().unwrap().get(&session), Some(&false), "its clusters want no tokens");
    yard.open(3);
    yard.ask(3, "taurus").await;
    assert_eq!(token_of(&yard.answer().await.0), token);
    // A life that was shortened is for tokens that exist, too.
    yard.court.adopt(public(60));
    yard.open(4);
    yard.ask(4, "hyades").await;
    let other = token_of(&yard.answer().await.0);
    assert_ne!(other, token);
    let replaced = loop {
        match yard.laptop().await {
            WardenToPorter::Laptop { session, digest, .. } if digest != <[u8; 32]>::from(Sha256::digest(&token)) => {
                break (session, digest);
            }
            _ => {}
        }
    };
    assert_eq!(replaced, (session, Sha256::digest(&other).into()));
    // Nothing that is written down has it.
    assert!(!format!("{:?}", yard.court.laptops).contains(&other));
    let mut granted = 0;
    while let Ok(Ok((told, _))) = timeout(Duration::from_millis(50), yard.keeper.recv()).await {
        granted += usize::from(matches!(told, WardenToKeeper::Event(Event::LaptopGranted { .. })));
        let told = format!("{told:?}");
        assert!(!told.contains(&token) && !told.contains(&other), "{told}");
    }
    assert_eq!(granted, 2);
}

#[tokio::test]
async fn a_grant_ends_with_its_time_its_recording_and_its_users_rights() {
    for way in 0..4 {
        let mut yard = Yard::new();
        yard.court.adopt(public(if way == 0 { 0 } else { 3600 }));
        yard.login().await;
        yard.open(1);
        yard.ask(1, "hyades").await;
        let id = yard.recorded().await;
        yard.answer().await;
        match way {
            0 => yard.court.due(Due::Lapse(id)),
            1 => yard.court.hear_keeper(
                yard.court.reign,
                KeeperToWarden::MustEnd { session: id, reason: "the disk is full".into() },
            ),
            2 => yard.court.laptop_reviewed(id, Review::Leaves("deny_users".into())),
            _ => yard.court.lost_keeper(yard.court.reign, &LinkError::Closed),
        }
        assert!(yard.court.laptops.is_empty(), "{way}");
        loop {
            if let WardenToPorter::LaptopGone { session } = yard.laptop().await {
                assert_eq!(session, id);
                break;
            }
        }
    }
}

/// A connection that stays open is no way to keep rights that were taken away.
#[tokio::test]
async fn an_old_login_is_decided_on_again_for_each_token() {
    let mut yard = Yard::new();
    yard.court.adopt(public(3600));
    yard.login().await;
    yard.open(1);
    yard.ask(1, "hyades").await;
    yard.recorded().await;
    yard.answer().await;
    for (channel, review, ends) in [(2, Review::Unknown, false), (3, Review::Leaves("deny_users".into()), true)] {
        yard.open(channel);
        yard.ask_as(channel, "hyades", review).await;
        let (said, errors, code) = yard.answer().await;
        assert_eq!((said.as_str(), code), ("", 69), "{errors}");
        assert_eq!(yard.court.laptops.is_empty(), ends);
    }
}

/// A connection that stays, as ControlMaster's do, would fetch the next token at once.
#[tokio::test]
async fn a_locked_grant_takes_the_connections_along_that_fetched_it() {
    let mut yard = Yard::new();
    yard.court.adopt(public(3600));
    for connection in [8, 7] {
        yard.gavel.turns.add_permits(1);
        yard.prove_over(connection);
        yard.letter().await;
        assert!(matches!(yard.heard().await, WardenToGate::Login { accepted: true, .. }));
    }
    yard.open(1);
    yard.ask(1, "hyades").await;
    let grant = yard.recorded().await;
    yard.answer().await;
    // One more is asked for, and is being decided on.
    yard.open(2);
    yard.run(2, "stockade token taurus");
    yard.court.heed(locked(&format!("session-{grant}")));
    let WardenToGate::Drop { connection: 7, sentence } = yard.heard().await else { panic!() };
    assert_eq!(sentence, "locked: lost laptop");
    yard.token_decided().await;
    assert!(yard.court.laptops.is_empty(), "nobody is there to whom it could be told");
    assert!(yard.court.connections.contains_key(&8), "another connection of the user's is not meant");
}

#[tokio::test]
async fn a_recording_that_is_refused_lends_nothing() {
    let mut yard = Yard::new();
    yard.court.adopt(public(3600));
    yard.login().await;
    yard.open(1);
    yard.ask(1, "hyades").await;
    let session = yard.court.laptops[0].session;
    yard.court.hear_keeper(yard.court.reign, KeeperToWarden::Refused { session, sentence: "the disk is full".into() });
    let (said, errors, code) = yard.answer().await;
    assert_eq!((said.as_str(), errors.as_str(), code), ("", "the disk is full", 254));
}

/// A later gate numbers other people's connections alike.
#[tokio::test]
async fn a_token_is_never_answered_to_another_gate() {
    let mut yard = Yard::new();
    yard.court.adopt(public(3600));
    yard.login().await;
    yard.open(1);
    yard.ask(1, "hyades").await;
    let (one, other) = pair().unwrap();
    yard.term = yard.court.met_gate(Outbox::to(Arc::new(Link::<_, GateToWarden>::new(one).unwrap())));
    yard.gate = Link::new(other).unwrap();
    yard.recorded().await;
    assert!(timeout(Duration::from_millis(50), yard.gate.recv()).await.is_err());
}

#[tokio::test]
async fn a_laptops_kubeconfig_names_the_bastion() {
    let mut yard = Yard::new();
    yard.court.adopt(public(3600));
    yard.login().await;
    for (channel, command, words) in [
        (1, "stockade kubeconfig", "- -p\n"),
        (2, "stockade kubeconfig", "- alice@bastion.example.com\n"),
        (3, "stockade kubeconfig b", "- b\n"),
    ] {
        yard.open(channel);
        yard.run(channel, command);
        let (said, _, code) = yard.answer().await;
        assert!(code == 0 && said.contains(words) && said.contains("clusters/taurus"), "{said}");
    }
}
