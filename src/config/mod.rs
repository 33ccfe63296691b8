//! `stockade.toml`: what it may say, and what each role gets to know of it.
//!
//! `load` reads the file once, reports every mistake in it with its place, and gives a `Config`: plain, resolved values
//! (names of accounts are already numbers, the session policy is inlined) that travel to the roles as JSON. Nothing in
//! it is secret. Everything here is pure but `load` and `keyfile`, which are handed paths or descriptors.

mod accounts;
mod admission;
mod aws;
mod check;
mod egress;
mod jail;
pub mod keyfile;
mod kube;
mod load;
pub mod rbac;
mod read;
mod reload;
mod report;
mod terms;
mod types;
mod value;

pub use admission::{MaxStartups, Netblock, Network, Overflow, Penalties};
pub use check::{Host, check, check_access};
pub use egress::{Allow, Egress, EgressLimits, EgressRule, Preset};
pub use kube::{
    AsRule, AuditRule, Clocks, ClusterRule, Discover, Entry, Kube, KubeRole, KubeconfigEntry, Level, NotUsable, Proof,
    PublicDoor, StaticCluster, StaticWay, entry,
};
pub use load::{load, load_access, open_secret};
pub use report::{Mistake, Report};
pub use terms::Terms;

pub use types::{
    Access, Account, Algorithms, Audit, Aws, Config, Durability, Home, Input, Jail, Listen, NotARole, Recording,
    RoleTemplate, Roles, Ssh, State, Users,
};

#[cfg(any(test, fuzzing))]
pub mod fuzz;

#[cfg(test)]
mod tests;
