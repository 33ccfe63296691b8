use std::time::Instant;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::*;

/// A small filesystem of its own; needs root.
struct Disk(TempDir);

impl Disk {
    fn new(options: &std::ffi::CStr) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        mount("stockade-test", dir.path(), "tmpfs", MountFlags::NOSUID, options).ok()?;
        Some(Self(dir))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// Noise, which zstd cannot make smaller.
fn noise() -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..1 << 20).map(|_| byte()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_the_flood_with_a_sentence_and_spares_who_types() {
    let Some(disk) = Disk::new(c"size=8m") else { return };
    let thresholds = Thresholds { warn: 50, refuse: 60, end: 101 };
    let settings = Settings { space: thresholds, reserve: 512 << 10, ..settings() };
    let rig = rig_in(tempfile::tempdir().unwrap(), Some(disk.0.path()), settings).await;
    let (flood, typist) = (rig.open().await, rig.open().await);
    let (mut slave, flooded) = rig.terminal(flood, 1);
    let (_quiet, gate) = rig.terminal(typist, 1);
    slave.raw();
    std::thread::spawn(move || {
        let noise = noise();
        while slave.0.write_all(&noise).is_ok() {}
    });
    let (shown, _, last) = flooded.all().await;
    let FromKeeper::Notice(sentence) = last else { panic!("{last:?}") };
    assert!(sentence.contains("the bastion's disk is full"), "{sentence}");
    let heard = rig.heard().await;
    assert!(matches!(heard, KeeperToWarden::MustEnd { session, .. } if session == flood), "{heard:?}");
    let (events, reason) = recorded(disk.0.path(), flood);
    let events: Vec<_> = events.into_iter().map(|recorded| recorded.event).collect();
    assert_eq!(reason.as_deref(), Some(sentence.as_str()), "the closing frame has its place");
    assert!(output_of(&events).starts_with(&shown), "what was shown is recorded");

    gate.input(b"k").await;
    assert_eq!(gate.heard().await, FromKeeper::Output(Bytes::from_static(b"k")), "the typist goes on");

    let session = SessionId::mint();
    rig.warden.send(&WardenToKeeper::Open { session, header: header() }).await.unwrap();
    let heard = rig.heard().await;
    assert!(matches!(heard, KeeperToWarden::Refused { .. }), "{heard:?}");
    std::fs::remove_file(file_of(disk.0.path(), flood)).unwrap();
    // The keeper looks at the disk now and then.
    let opened = async {
        loop {
            let session = SessionId::mint();
            rig.warden.send(&WardenToKeeper::Open { session, header: header() }).await.unwrap();
            if matches!(rig.heard().await, KeeperToWarden::Opened { .. }) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, opened).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_threshold_ends_the_biggest_recent_writer_first() {
    let Some(disk) = Disk::new(c"size=32m") else { return };
    let thresholds = Thresholds { warn: 30, refuse: 40, end: 50 };
    let settings = Settings { space: thresholds, ..settings() };
    let rig = rig_in(tempfile::tempdir().unwrap(), Some(disk.0.path()), settings).await;
    let mut typists = Vec::new();
    for _ in 0..3 {
        let session = rig.open().await;
        typists.push((session, rig.terminal(session, 1)));
    }
    let flood = rig.open().await;
    let (mut slave, flooded) = rig.terminal(flood, 1);
    slave.raw();
    let begun = Instant::now();
    std::thread::spawn(move || {
        let noise = noise();
        while slave.0.write_all(&noise).is_ok() {}
    });
    let (_, _, last) = flooded.all().await;
    assert!(matches!(last, FromKeeper::Notice(_)), "{last:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    for (session, (_, gate)) in &typists[..1] {
        gate.input(b"k").await;
        let heard = gate.heard().await;
        assert_eq!(heard, FromKeeper::Output(Bytes::from_static(b"k")), "{session} goes on");
    }
    rig.serve.abort();
    assert!(codes(rig.dir.path()).contains(&"SK6001W".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_a_stream_to_a_container() {
    use tokio::io::AsyncWriteExt;

    use super::kube::{about, ended, porter};
    use crate::keeper::kube::tests::message;
    use crate::privsep::message::{FIRST_STREAM, StreamProtocol};

    let Some(disk) = Disk::new(c"size=8m") else { return };
    let settings = Settings { reserve: 512 << 10, ..settings() };
    let rig = rig_in(tempfile::tempdir().unwrap(), Some(disk.0.path()), settings).await;
    let session = rig.open().await;
    let mut far = porter(&rig).stream(session, FIRST_STREAM, about(StreamProtocol::WebSocket5, false), b"");
    let flood = async {
        let noise: Vec<u8> = noise().chunks(32 << 10).flat_map(|piece| message(1, piece)).collect();
        while far.cluster.write_all(&noise).await.is_ok() {}
    };
    let (_, shown) = tokio::join!(flood, ended(&mut far.client));
    let heard = rig.heard().await;
    assert!(matches!(heard, KeeperToWarden::MustEnd { session: ended, .. } if ended == session), "{heard:?}");
    let events: Vec<_> = recorded(disk.0.path(), session).0.into_iter().map(|recorded| recorded.event).collect();
    assert!(!shown.is_empty() && output_of(&events).len() + (64 << 10) >= shown.len(), "what was shown is recorded");
}
