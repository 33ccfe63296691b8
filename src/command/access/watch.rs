//! `stockade access watch`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch as told};

use super::Begun;
use crate::access::trail::Trail;
use crate::access::{health, watch};
use crate::config;

/// Those that wait for a cycle.
const NOTICES: usize = 16;

/// Do what `apply` does, every `rbac.cycle` and as soon as `rbac.queue` tells of a change, until SIGTERM
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = crate::command::CONFIGURATION)]
    config: PathBuf,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let terms = config::load_access(&args.config)?;
    super::log();
    super::block_on(async {
        let listen = terms.rbac.listen;
        let trail = Arc::new(Trail::open(&terms.rbac.audit)?);
        let Begun { course, board, stop, queue } = super::begin(terms, trail, Duration::ZERO).await?;
        if let Some(address) = listen {
            let listener = health::listen(address).await.with_context(|| format!("cannot listen on {address}"))?;
            tokio::spawn(health::serve(listener, board.clone()));
        }
        let (tell, notices) = mpsc::channel(NOTICES);
        if let Some(queue) = queue {
            tokio::spawn(queue.listen(tell));
        }
        until_told(stop)?;
        watch::watch(course, board, notices).await;
        Ok(ExitCode::SUCCESS)
    })
}

/// SIGTERM and SIGINT let what has begun come to its end.
fn until_told(stop: told::Sender<bool>) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending");
        stop.send_replace(true);
        // Held until the end: who waits for it must not be told that nobody will ever ask.
        std::future::pending::<()>().await;
    });
    Ok(())
}
