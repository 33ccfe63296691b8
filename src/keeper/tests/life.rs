use super::*;
use crate::privsep::Accusation;
use crate::privsep::link::LinkError;
use crate::privsep::message::{KeeperToTally, Program, TallyToKeeper, Wish};
use crate::recording::{Exec, Store, Writer};

#[tokio::test(flavor = "multi_thread")]
async fn a_warden_that_comes_back_hears_what_happened_meanwhile() {
    let mut rig = rig(settings()).await;
    let session = rig.open().await;
    let (slave, gate) = rig.terminal(session, 1);
    let (gone, _) = pair().unwrap();
    drop(std::mem::replace(&mut rig.warden, Link::new(gone).unwrap()));
    gate.0.send(&FromGate::Signal("TERM".into())).await.unwrap();
    // Its echo shows that the signal was heard before.
    gate.input(b"k").await;
    gate.heard().await;
    drop(slave);
    rig.ended(session, 1, 0);
    assert_eq!(gate.all().await.2, FromKeeper::Exit(0));
    rig.warden = new_warden(&rig.control);
    assert!(matches!(rig.heard().await, KeeperToWarden::Signal { number: 1, signal: 15, .. }));
    rig.close(session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_opened_once() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    rig.warden.send(&WardenToKeeper::Open { session, header: header() }).await.unwrap();
    assert!(matches!(timeout(PATIENCE, rig.warden.recv()).await.unwrap(), Err(LinkError::Closed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_without_a_session_is_hung_up() {
    let rig = rig(settings()).await;
    let (mut slave, gate) = rig.terminal(SessionId::mint(), 1);
    assert!(matches!(gate.heard().await, FromKeeper::Notice(_)));
    hung_up(&mut slave).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_recorded_and_audited_in_the_order_of_its_sender() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let tally = new_tally(&rig);
    let program = Program::Exec("id".into());
    let environment = vec![("LANG".into(), "C".into())];
    let channel = WardenToKeeper::Channel { session, number: 1, wish: Wish { program, terminal: None, environment } };
    rig.warden.send(&channel).await.unwrap();
    let exec = Exec { pid: 2, path: "/usr/bin/id".into(), arguments: vec!["id".into()] };
    // The warden's word of the channel comes on another way.
    let announced = async {
        while recorded(rig.dir.path(), session).0.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, announced).await.unwrap();
    tally.send(&TallyToKeeper::Exec { ticket: 7, session, number: 1, exec: exec.clone() }).await.unwrap();
    assert_eq!(noted(&tally).await, 7);
    let events = rig.close(session).await;
    assert!(events.iter().any(|e| matches!(e, Event::Channel { program: Some(p), .. } if p == "id")));
    assert!(events.contains(&Event::Exec { number: 1, exec }));
    assert_eq!(codes(rig.dir.path()), ["SK3001I"]);
}

type TallyEnd = Link<TallyToKeeper, KeeperToTally>;

fn new_tally(rig: &Rig) -> TallyEnd {
    let (tally, end) = pair().unwrap();
    tell(&rig.control, &FromJailer::Peer(Role::Tally), &[end.as_fd()]);
    Link::new(tally).unwrap()
}

async fn noted(tally: &TallyEnd) -> u64 {
    let (KeeperToTally::Noted { ticket }, _) = timeout(PATIENCE, tally.recv()).await.expect("no answer").unwrap();
    ticket
}

#[tokio::test(flavor = "multi_thread")]
async fn more_execs_than_a_tape_holds_are_all_recorded() {
    const MANY: u32 = 3000;
    let rig = rig(settings()).await;
    let (stormy, calm) = (rig.open().await, rig.open().await);
    let tally = new_tally(&rig);
    let exec = |pid| Exec { pid, path: "/bin/true".into(), arguments: vec!["x".repeat(1000)] };
    let send = async {
        for pid in 0..MANY {
            let session = if pid == MANY / 2 { calm } else { stormy };
            tally.send(&TallyToKeeper::Exec { ticket: pid.into(), session, number: 1, exec: exec(pid) }).await.unwrap();
        }
    };
    let hear = async {
        let mut tickets = Vec::new();
        while tickets.len() < MANY as usize {
            tickets.push(noted(&tally).await);
        }
        tickets
    };
    let (_, mut tickets) = tokio::join!(send, hear);
    tickets.sort_unstable();
    assert!(tickets.iter().copied().eq(0..MANY.into()), "each is answered once");
    let execs = |events: Vec<Event>| events.iter().filter(|event| matches!(event, Event::Exec { .. })).count();
    assert_eq!(execs(rig.close(stormy).await), MANY as usize - 1);
    assert_eq!(execs(rig.close(calm).await), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warden_in_breach_is_accused_and_recordings_are_closed() {
    let mut rig = rig(settings()).await;
    let session = rig.open().await;
    let (warden, theirs) = pair().unwrap();
    tell(&rig.control, &FromJailer::Peer(Role::Warden), &[theirs.as_fd()]);
    send_packet(warden.as_fd(), b"\xff", &[]).unwrap();
    let ended = timeout(PATIENCE, &mut rig.serve).await.unwrap().unwrap();
    assert!(matches!(ended, Err(KeeperError::Untrusted(Accusation { role: Role::Warden, .. }))), "{ended:?}");
    assert!(recorded(rig.dir.path(), session).1.is_some());
    assert!(codes(rig.dir.path()).is_empty(), "the event is the jailer's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breach_is_audited_and_told() {
    let rig = rig(settings()).await;
    let (porter, end) = pair().unwrap();
    tell(&rig.control, &FromJailer::Peer(Role::Porter), &[end.as_fd()]);
    send_packet(porter.as_fd(), b"\xff", &[]).unwrap();
    assert!(matches!(rig.heard().await, KeeperToWarden::Breach(Role::Porter)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_jailer_closes_every_recording() {
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let (mut slave, gate) = rig.terminal(session, 1);
    slave.write(b"x");
    gate.heard().await;
    drop(rig.control);
    timeout(PATIENCE, rig.serve).await.unwrap().unwrap().unwrap();
    assert_eq!(recorded(rig.dir.path(), session).1.as_deref(), Some("the jailer died"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_open_is_closed_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let session = SessionId::mint();
    let unopened = SessionId::mint();
    {
        let store = Store::new(File::open(dir.path()).unwrap().into());
        let mut file = store.create(session).unwrap();
        let (wall, boot) = (super::super::clock::wall(), super::super::clock::boot());
        let (mut writer, bytes) = Writer::begin(session, wall, boot, &header(), Durability::Local);
        file.write_all(&bytes).unwrap();
        writer.push(boot, &Event::Output { number: 1, data: Bytes::from_static(b"durable") });
        file.write_all(&writer.close_frame(wall, boot).unwrap()).unwrap();
        file.write_all(b"torn").unwrap();
        store.create(unopened).unwrap();
    }
    let rig = rig_in(dir, None, settings()).await;
    let recovered = async {
        while !codes(rig.dir.path()).contains(&"SK2006W".to_owned()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, recovered).await.unwrap();
    let (events, reason) = recorded(rig.dir.path(), session);
    assert_eq!((events.len(), reason.as_deref()), (1, Some("recovered")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_is_given_back() {
    use std::os::unix::fs::MetadataExt;
    let rig = rig(settings()).await;
    let session = rig.open().await;
    let blocks = || std::fs::metadata(file_of(rig.dir.path(), session)).unwrap().blocks() * 512;
    assert!(blocks() >= 1 << 20);
    rig.close(session).await;
    let given = async {
        while blocks() >= 64 << 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(PATIENCE, given).await.is_ok(), "{}", blocks());
}
