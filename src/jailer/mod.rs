//! The jailer: root, one thread, one loop. It makes jails, holds every descriptor that must outlive another process, and
//! starts the other roles and starts them again.
//!
//! It reads bytes from the warden alone, and only typed messages; what its own children report comes from our code before
//! it gives up control. It speaks to no network, parses no configuration and never follows a path that a user could have
//! made. Everything it knows of the configuration is the loader's `Plan`.

mod build;
mod cgroup;
mod doors;
mod enter;
mod fault;
mod filter;
pub mod home;
mod jail;
mod jails;
mod modes;
mod notice;
mod plan;
mod program;
mod reports;
mod rights;
mod roles;
mod rootfs;
mod signals;
mod start;
mod supervise;
mod userns;
mod watch;

pub use enter::{CLUSTERS, LOGIN};
pub use fault::{Fault, Step};
pub use filter::allows;
pub use jail::instance_directory;
pub use plan::{Account, Held, Limits, Plan};
pub use rootfs::USER;
pub use start::{LOADER, run, sealed};
