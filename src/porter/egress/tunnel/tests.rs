use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

/// The two ends of a tunnel, and the tunnel.
struct Yard {
    jail: TcpStream,
    outside: TcpStream,
    run: JoinHandle<(End, u64, u64)>,
    used: Arc<AtomicU64>,
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (a, b) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (a.unwrap(), b.unwrap().0)
}

async fn yard(first: &'static [u8], bytes: u64, idle: Duration) -> Yard {
    let ((jail, mut inner), (mut outer, outside)) = (pair().await, pair().await);
    let used = Arc::new(AtomicU64::new(0));
    let share = Arc::clone(&used);
    let run = tokio::spawn(async move {
        let meter = Meter::new(&share);
        let end = super::run(&mut inner, &mut outer, first, Bounds { bytes, idle }, &meter).await;
        (end, meter.sent.load(Ordering::Relaxed), meter.received.load(Ordering::Relaxed))
    });
    Yard { jail, outside, run, used }
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let mut yard = yard(b"hello ", 1 << 20, LONG).await;
    yard.jail.write_all(b"world").await.unwrap();
    yard.jail.shutdown().await.unwrap();
    let mut heard = Vec::new();
    yard.outside.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"hello world");
    // The other direction is open still.
    yard.outside.write_all(b"answer").await.unwrap();
    yard.outside.shutdown().await.unwrap();
    let mut answer = Vec::new();
    yard.jail.read_to_end(&mut answer).await.unwrap();
    assert_eq!((answer.as_slice(), yard.run.await.unwrap()), (&b"answer"[..], (End::Done, 11, 6)));
    assert_eq!(yard.used.load(Ordering::Relaxed), 17);
}

#[tokio::test]
async fn the_share_of_bytes_has_an_end() {
    let mut yard = yard(b"", 100_000, LONG).await;
    let writer = tokio::spawn(async move { while yard.outside.write_all(&[0; 1000]).await.is_ok() {} });
    let mut heard = Vec::new();
    let _ = yard.jail.read_to_end(&mut heard).await;
    let (end, sent, received) = yard.run.await.unwrap();
    assert!(end == End::Spent && sent == 0 && received <= 100_000 && received >= heard.len() as u64, "{received}");
    writer.await.unwrap();
}

#[tokio::test]
async fn who_does_not_read_holds_the_other_back() {
    let mut yard = yard(b"", 1 << 40, LONG).await;
    let part = [0; 65536];
    let mut put = 0;
    // Kernel buffers fill, then nothing more is taken.
    while let Ok(wrote) = timeout(Duration::from_millis(500), yard.outside.write(&part)).await {
        put += wrote.unwrap();
        assert!(put < 64 << 20, "nothing holds the sender back");
    }
    let mut heard = vec![0; put];
    yard.jail.read_exact(&mut heard).await.unwrap();
    drop(yard.jail);
    drop(yard.outside);
    assert_eq!(yard.run.await.unwrap().2, put as u64);
}

#[tokio::test]
async fn an_idle_tunnel_ends_and_a_busy_one_does_not() {
    let mut yard = yard(b"", 1 << 20, Duration::from_millis(400)).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        yard.jail.write_all(b"x").await.unwrap();
    }
    assert!(!yard.run.is_finished());
    assert_eq!(yard.run.await.unwrap(), (End::Idle, 10, 0));
}
