//! One verb a file. This is the only room that may use `anyhow` and print.

pub mod audit;
pub mod check;
pub mod demo;
pub mod doctor;
pub mod image;
pub mod probe;
pub mod role;
pub mod serve;
pub mod session;
mod settings;
mod warden;
pub mod whoami;
