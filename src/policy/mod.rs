//! Who may log in: `decide` is the only place, and the only one that can make a `Permit`.
//!
//! Pure: it is handed the rules, the name, the groups and what spoke for the name. It knows no clock, no directory and
//! no socket. A user who is denied and a user who does not exist look alike to whoever asks through SSH; `explain`
//! tells them apart, and is for the audit trail and the operator only. `egress` is the law of the way out of a jail: the
//! warden picks a user's rules by it, the porter holds each connection to them. `kube` says who may use which cluster,
//! `kube_request` reads what a request asks of one, `kube_audit` says how much of it is written down. `lock` is who is out,
//! whatever the rules say. `Source` is who counts as one stranger.

mod decide;
pub mod egress;
pub mod kube;
pub mod kube_audit;
pub mod kube_request;
pub mod lock;
mod source;

pub use decide::{Decision, Denial, Evidence, Permit, Reason, Rule, decide};
pub use kube_request::{KubeObject, KubeRequest};
pub use source::Source;
