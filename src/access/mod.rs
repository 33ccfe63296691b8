//! IAM groups become Kubernetes RBAC, on every cluster.
//!
//! Data flows one way: `world` is read (IAM once, each cluster by itself), `wanted` says what should be there, `plan` is
//! the difference, `apply` carries it out, `watch` does so again and again. Everything but the reading and the carrying
//! out is pure.
//!
//! This is a process of its own with an AWS identity of its own: the warden's cannot write IAM, and nothing here
//! listens to users.

pub mod answer;
pub mod apply;
pub mod aws;
pub mod causes;
pub mod change;
pub mod cluster;
mod cluster_plan;
pub mod connect;
pub mod cycle;
pub mod eks;
pub mod entries;
pub mod evidence;
pub mod fleet;
mod groups;
pub mod guard;
pub mod health;
pub mod iam;
pub mod lambda;
pub mod lease;
pub mod level;
pub mod membership;
pub mod memory;
pub mod names;
pub mod plan;
pub mod print;
pub mod queue;
mod ranks;
pub mod report;
pub mod roles;
pub mod rows;
pub mod seam;
#[cfg(test)]
pub mod simulated;
pub mod standing;
#[cfg(test)]
mod tests;
pub mod trail;
pub mod wanted;
pub mod watch;
pub mod world;
