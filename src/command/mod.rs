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

/// Where the configuration is unless `--config` names another.
const CONFIGURATION: &str = "/etc/stockade/stockade.toml";
