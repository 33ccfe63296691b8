//! The floor: every unsafe line of stockade. errno in, `io::Error` out, no policy.
//!
//! `rustix` has most system calls as safe functions and callers use it directly; what it has not is here.
//! `init.rs` is not a module but a program of its own: process 1 of each jail, built by `build.rs`.

pub mod allow;
pub mod attempt;
pub mod clone;
pub mod exec;
pub mod loop_device;
pub mod memory;
pub mod mount;
pub mod notify;
pub mod seccomp;
pub mod signal;
pub mod watched;

/// Process 1 of a jail, a static program of a few hundred bytes of code.
pub const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));
