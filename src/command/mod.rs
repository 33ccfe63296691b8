//! One verb a file. This room prints, and with `cli` and `loader` it alone may use `anyhow`.

pub mod access;
pub mod audit;
pub mod check;
pub mod clusters;
pub mod demo;
pub mod doctor;
mod door;
pub mod image;
pub mod kubeconfig;
pub mod lock;
mod login;
pub mod probe;
pub mod role;
pub mod serve;
pub mod session;
mod settings;
pub mod token;
mod warden;
pub mod whoami;

use std::path::Path;
use std::process::ExitCode;

use crate::config::{self, Config};

/// Where the configuration is unless `--config` names another.
const CONFIGURATION: &str = "/etc/stockade/stockade.toml";

/// `EX_CONFIG` of sysexits.h.
const MISTAKES: u8 = 78;

/// The configuration; or, when all its mistakes are said, the exit status.
fn configuration(path: &Path) -> Result<Config, ExitCode> {
    config::load(path).map_err(|report| {
        eprintln!("{report}");
        ExitCode::from(MISTAKES)
    })
}
