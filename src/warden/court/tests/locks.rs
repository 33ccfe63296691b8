use super::*;
use crate::policy::lock::{Lock, Target};
use crate::warden::locks::Change;

pub(super) fn locked(name: &str) -> Change {
    let lock = Lock { reason: "lost\nlaptop".into(), by: "root".into(), at: 1, until: None };
    Change { locks: Ok([(name.parse::<Target>().unwrap(), lock)].into()), gone: vec![] }
}

fn released(name: &str) -> Change {
    let why = Lock { reason: "found".into(), by: "root".into(), at: 2, until: None };
    Change { locks: Ok(Locks::new()), gone: vec![(name.parse().unwrap(), why)] }
}

impl Yard {
    async fn may_log_in(&mut self, connection: Connection) -> bool {
        self.gavel.turns.add_permits(1);
        self.prove_over(connection);
        self.letter().await;
        match self.heard().await {
            WardenToGate::Login { accepted, .. } => accepted,
            other => panic!("{other:?}"),
        }
    }

    async fn event(&self, right: impl Fn(&Event) -> bool) -> Event {
        self.told_keeper(|told| match told {
            WardenToKeeper::Event(event) if right(&event) => Some(event),
            _ => None,
        })
        .await
    }
}

#[tokio::test]
async fn who_is_locked_is_out_until_released() {
    let mut yard = Yard::new();
    let session = yard.running().await;
    yard.court.heed(locked("user-bob"));
    assert!(yard.court.sessions[&session].ending.is_none());
    yard.court.heed(locked("user-alice"));
    let WardenToGate::Drop { connection: 7, sentence } = yard.heard().await else { panic!() };
    assert_eq!(sentence, "locked: lost laptop");
    assert!(matches!(yard.asked_of_jailer().await, WardenToJailer::End { .. }));
    yard.event(|event| matches!(event, Event::LockAdded { target, .. } if target == "user-alice")).await;
    yard.court.hear_jailer(JailerToWarden::Gone { session });
    let closed = yard.event(|event| matches!(event, Event::SessionClosed { .. })).await;
    assert!(matches!(closed, Event::SessionClosed { reason, .. } if reason == "locked: lost laptop"));
    // A gate that does not let go of it opens nothing with it.
    yard.open(2);
    assert!(matches!(yard.heard().await, WardenToGate::Refused { .. }));
    assert!(!yard.may_log_in(9).await);
    let refused = yard.event(|event| matches!(event, Event::LoginRefused { .. })).await;
    assert!(matches!(refused, Event::LoginRefused { why, .. } if why == "locked: lost laptop"));
    yard.court.heed(released("user-alice"));
    assert!(yard.may_log_in(10).await);
    let back = yard.event(|event| matches!(event, Event::LockReleased { .. })).await;
    assert!(matches!(back, Event::LockReleased { reason, .. } if reason == "found"));
}

#[tokio::test]
async fn a_locked_session_ends_and_its_user_may_come_again() {
    let mut yard = Yard::new();
    let session = yard.running().await;
    yard.court.heed(locked(&format!("session-{session}")));
    assert!(matches!(yard.heard().await, WardenToGate::Drop { connection: 7, .. }));
    assert!(matches!(yard.asked_of_jailer().await, WardenToJailer::End { .. }));
    assert!(yard.may_log_in(8).await);
}

/// "an unreadable directory refuses everybody"
#[tokio::test]
async fn while_nobody_can_say_nobody_comes_in() {
    let mut yard = Yard::new();
    let session = yard.running().await;
    yard.court.heed(Change { locks: Err("gone".into()), gone: vec![] });
    assert!(!yard.may_log_in(8).await);
    assert!(yard.court.sessions[&session].ending.is_none(), "who is in is not put out by a disk");
    yard.court.heed(Change { locks: Ok(Locks::new()), gone: vec![] });
    assert!(yard.may_log_in(9).await);
}

/// "Locks stand across restarts of warden and bastion"
#[tokio::test]
async fn a_session_that_was_locked_while_no_warden_looked_ends() {
    let mut yard = Yard::new();
    yard.court.heed(locked("user-alice"));
    let note = minicbor::to_vec(Note { key: "SHA256:abc".into(), connection: 7 }).unwrap();
    let session = SessionId::mint();
    let running = JailerToWarden::Running { session, user: "alice".parse().unwrap(), note, numbers: vec![1] };
    yard.court.hear_jailer(running);
    assert!(matches!(yard.asked_of_jailer().await, WardenToJailer::End { .. }));
}
