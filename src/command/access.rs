//! `stockade access`: IAM groups to Kubernetes RBAC, and why somebody may do something.

mod apply;
mod explain;
mod history;
pub mod lambda;
mod plan;
mod report;
mod view;
mod watch;
mod who_can;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch as channel;

use crate::access::apply::Crew;
use crate::access::connect::{Bell, Connected, Registry, Rota};
use crate::access::cycle::Course;
use crate::access::fleet::Fleet;
use crate::access::health::Board;
use crate::access::standing::Names;
use crate::access::trail::Trail;
use crate::config::Terms;
use crate::recording::visible;

/// How long a verb that runs once waits for another's turn to end: longer than a turn outlives its holder.
const PATIENCE: Duration = Duration::from_secs(75);

/// See `stockade access --help`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

/// Each says itself what it is for.
#[derive(Debug, clap::Subcommand)]
enum Verb {
    Plan(plan::Args),
    Apply(apply::Args),
    Watch(watch::Args),
    Report(report::Args),
    WhoCan(who_can::Args),
    Explain(explain::Args),
    History(history::Args),
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Plan(args) => plan::run(args),
        Verb::Apply(args) => apply::run(args),
        Verb::Watch(args) => watch::run(args),
        Verb::Report(args) => report::run(args),
        Verb::WhoCan(args) => who_can::run(args),
        Verb::Explain(args) => explain::run(args),
        Verb::History(args) => history::run(args),
    }
}

/// For people or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Everything that changes things needs.
struct Begun {
    course: Course<Registry, Fleet, Rota>,
    board: Arc<Board>,
    stop: channel::Sender<bool>,
    queue: Option<Bell>,
}

/// Connects, and says in the trail that access begins.
async fn begin(terms: Terms, trail: Arc<Trail>, patience: Duration) -> anyhow::Result<Begun> {
    let Connected { people, fleet, turns, queue, calls } = Connected::new(&terms, patience).await?;
    let board = Arc::new(Board::new(terms.rbac.cycle, calls));
    let (stop, stopped) = channel::channel(false);
    let crew = Crew::new((people, fleet, turns), trail, Names::of(&terms), stopped);
    let course = Course::new(crew, terms)?;
    Ok(Begun { course, board, stop, queue })
}

fn block_on(life: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(life);
    // What still waits for a name server does not hold up the end.
    runtime.shutdown_background();
    done
}

/// The operator's log.
fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("STOCKADE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,stockade=info,aws_config=error"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).try_init();
}

/// To the terminal of whoever runs the verb; names and words of clusters may be in it.
fn warn(text: &str) {
    eprintln!("stockade: {}", visible(text));
}

/// Prints; whoever has closed the pipe has read enough.
fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}
