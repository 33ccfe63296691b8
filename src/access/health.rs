//! How access fares, over HTTP: `/healthz` for whoever starts it again, `/metrics` for Prometheus. Reads nothing but
//! the first line of a request.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::cycle::Outcome;

/// Connections at one time; more wait.
const MOST: usize = 16;
/// For one connection and its requests.
const LONGEST: Duration = Duration::from_secs(10);
/// Cycles that may fail before something is wrong with the machine rather than with the world.
const PATIENCE: u32 = 3;

/// What is shown.
pub struct Board {
    figures: Mutex<Figures>,
    /// Between two cycles.
    cycle: Duration,
    /// Requests to AWS and API servers so far.
    calls: Box<dyn Fn() -> u64 + Send + Sync>,
}

#[derive(Debug)]
struct Figures {
    begun: Instant,
    cycles: u64,
    failed_cycles: u64,
    took: Duration,
    /// Of the last cycle.
    calls: u64,
    calls_before: u64,
    made: u64,
    failed: u64,
    waiting: usize,
    problems: usize,
    /// Since when, in seconds since the epoch.
    away: BTreeMap<String, i64>,
    alone: BTreeSet<String>,
    stopped: bool,
    /// The last cycle that read everything it needed, and when by the clock on the wall.
    success: Option<(Instant, u64)>,
}

impl Board {
    pub fn new(cycle: Duration, calls: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let figures = Figures {
            begun: Instant::now(),
            cycles: 0,
            failed_cycles: 0,
            took: Duration::ZERO,
            calls: 0,
            calls_before: 0,
            made: 0,
            failed: 0,
            waiting: 0,
            problems: 0,
            away: BTreeMap::new(),
            alone: BTreeSet::new(),
            stopped: false,
            success: None,
        };
        Self { figures: Mutex::new(figures), cycle, calls: Box::new(calls) }
    }

    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that the last cycle cost.
    pub fn calls(&self) -> u64 {
        self.figures().calls
    }

    /// A cycle came to an end.
    pub fn tell(&self, outcome: Option<&Outcome>) {
        let calls = (self.calls)();
        let mut figures = self.figures();
        figures.cycles += 1;
        figures.calls = calls.saturating_sub(figures.calls_before);
        figures.calls_before = calls;
        let Some(outcome) = outcome else {
            figures.failed_cycles += 1;
            return;
        };
        figures.took = outcome.took;
        figures.made += outcome.done.made.len() as u64;
        figures.failed += outcome.done.failed.len() as u64;
        figures.waiting = match outcome.stopped {
            Some(_) => outcome.plan.changes.len(),
            None => outcome.done.failed.len() + outcome.done.left.len(),
        };
        figures.problems = outcome.plan.problems.len();
        let since = |name: &String| outcome.away_since.get(name).copied().unwrap_or_default();
        figures.away = outcome.away.keys().map(|name| (name.clone(), since(name))).collect();
        figures.alone.clone_from(&outcome.alone);
        figures.stopped = outcome.stopped.is_some();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        figures.success = Some((Instant::now(), wall));
    }

    /// The sentence, and whether it is good.
    fn health(&self) -> (bool, String) {
        let figures = self.figures();
        let last = figures.success.map_or(figures.begun, |(when, _)| when);
        let limit = self.cycle * PATIENCE + Duration::from_secs(60);
        match last.elapsed() {
            age if age > limit => (false, format!("no cycle has succeeded for {} seconds\n", age.as_secs())),
            _ => (true, figures.buts().fold("ok".to_owned(), |text, but| text + ", but " + &but) + "\n"),
        }
    }

    /// What `/healthz` says.
    #[cfg(test)]
    pub fn sentence(&self) -> String {
        self.health().1
    }

    fn metrics(&self) -> String {
        let figures = self.figures();
        let mut text = String::new();
        let mut row = |name: &str, kind: &str, help: &str, value: f64| {
            // Writing to a String cannot fail.
            let _ = write!(text, "# HELP stockade_access_{name} {help}\n# TYPE stockade_access_{name} {kind}\n");
            let _ = writeln!(text, "stockade_access_{name} {value}");
        };
        row("cycles_total", "counter", "Cycles so far.", figures.cycles as f64);
        row("cycles_failed_total", "counter", "Cycles that could not read IAM.", figures.failed_cycles as f64);
        row("cycle_seconds", "gauge", "How long the last cycle took.", figures.took.as_secs_f64());
        row("cycle_calls", "gauge", "Requests to AWS and API servers in the last cycle.", figures.calls as f64);
        row("calls_total", "counter", "Requests to AWS and API servers.", figures.calls_before as f64);
        row("changes_total", "counter", "Changes carried out.", figures.made as f64);
        row("changes_failed_total", "counter", "Changes that failed.", figures.failed as f64);
        row("changes_waiting", "gauge", "Changes that the last cycle left to the next.", figures.waiting as f64);
        row("problems", "gauge", "What stands in the way and is for people to mend.", figures.problems as f64);
        row("clusters_away", "gauge", "Clusters that could not be read.", figures.away.len() as f64);
        let help = "Clusters that are changed without a turn, for it cannot be had.";
        row("clusters_without_turn", "gauge", help, figures.alone.len() as f64);
        let stopped = f64::from(u8::from(figures.stopped));
        row("mass_removal_stopped", "gauge", "1: a plan waits for --allow-mass-removal.", stopped);
        let success = figures.success.map_or(0.0, |(_, wall)| wall as f64);
        row("last_success_seconds", "gauge", "When a cycle last succeeded, since the epoch.", success);
        text
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, text) = match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/healthz") => match self.health() {
                (true, text) => (StatusCode::OK, text),
                (false, text) => (StatusCode::SERVICE_UNAVAILABLE, text),
            },
            (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, self.metrics()),
            (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, "only /healthz and /metrics\n".into()),
            _ => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into()),
        };
        let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}

impl Figures {
    /// What is not as it should be, though starting again would not help.
    fn buts(&self) -> impl Iterator<Item = String> {
        let stopped = self.stopped.then(|| "a plan waits for --allow-mass-removal".to_owned());
        let away = self.away.iter().map(|(name, since)| {
            let since = Timestamp::from_second(*since).map(|time| time.to_string()).unwrap_or_default();
            format!("{name} cannot be read since {since}")
        });
        let alone =
            self.alone.iter().map(|name| format!("the turn on {name} cannot be had, and it is changed without"));
        stopped.into_iter().chain(away).chain(alone)
    }
}

/// Where it listens, bound now: an address that is taken is a mistake at the start.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers as long as it is let.
pub async fn serve(listener: TcpListener, board: Arc<Board>) {
    let room = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Too many open files: they close again.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let board = board.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request: Request<Incoming>| {
                let response = board.answer(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answer);
            let _ = timeout(LONGEST, connection).await;
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(address: SocketAddr, line: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn health_and_metrics_are_told() {
        let board = Arc::new(Board::new(Duration::from_secs(300), || 42));
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, board.clone()));
        assert!(get(address, "GET /healthz").await.ends_with("\r\n\r\nok\n"));
        board.tell(None);
        board.tell(Some(&Outcome { stopped: Some("too much".into()), ..Outcome::default() }));
        let metrics = get(address, "GET /metrics").await;
        for line in ["cycles_total 2", "cycles_failed_total 1", "calls_total 42", "mass_removal_stopped 1"] {
            assert!(metrics.contains(&format!("\nstockade_access_{line}\n")), "{metrics}");
        }
        assert!(get(address, "GET /healthz").await.contains("--allow-mass-removal"));
        assert!(get(address, "GET /").await.starts_with("HTTP/1.1 404 "));
        assert!(get(address, "POST /metrics").await.starts_with("HTTP/1.1 405 "));
    }

    #[test]
    fn what_restarts_do_not_help_is_said_and_is_no_illness() {
        let board = Board::new(Duration::from_secs(300), || 0);
        let away = [("hyades".to_owned(), "no route".to_owned())].into();
        let away_since = [("hyades".to_owned(), 1_800_000_000)].into();
        let alone = BTreeSet::from(["pleiades".to_owned()]);
        board.tell(Some(&Outcome { away, away_since, alone, ..Outcome::default() }));
        let (is_well, said) = board.health();
        assert!(is_well && said.contains("hyades cannot be read since 2027-01-15T08:00:00Z"), "{said}");
        assert!(said.starts_with("ok, but ") && said.contains("the turn on pleiades cannot be had"), "{said}");
        assert!(board.metrics().contains("\nstockade_access_clusters_without_turn 1\n"));
        board.tell(Some(&Outcome::default()));
        assert_eq!(board.health(), (true, "ok\n".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_cycle_for_long_it_is_ill() {
        let board = Board::new(Duration::from_secs(300), || 0);
        board.tell(Some(&Outcome::default()));
        tokio::time::advance(Duration::from_secs(900)).await;
        assert!(board.health().0);
        tokio::time::advance(Duration::from_secs(100)).await;
        board.tell(None);
        assert_eq!(board.health(), (false, "no cycle has succeeded for 1000 seconds\n".into()));
    }
}
