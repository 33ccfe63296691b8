//! Whole bastions under real clients. One test binary; `tests/run --it FILTER` runs a part of it.
//!
//! A comment at a test says which line of the first issues it proves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod admission;
mod aws;
mod clients;
mod configuration;
mod crosstalk;
mod demo;
mod doors;
mod egress;
mod evidence;
mod exec;
mod fences;
mod jail;
mod limits;
mod paramiko;
mod probe;
mod refused;
mod roles;
mod rooms;
mod sdks;
mod shell;
mod storm;
mod trouble;
mod verbs;
mod yard;
