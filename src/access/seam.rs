//! Who is read, and who is told to change: AWS and API servers, or a test's simulation.

use super::change::Change;
use super::world::{Cluster, Directory};

/// Where people, groups and roles are.
pub trait People: Send + Sync + 'static {
    fn read(&self) -> impl Future<Output = Result<Directory, Fault>> + Send;
    /// Of a group or an IAM role.
    fn carry_out(&self, change: &Change) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// The clusters, each with its RBAC and with who EKS lets in.
pub trait Fleet: Send + Sync + 'static {
    /// Names as the bastion offers them; one that cannot even be asked for is told by `read`.
    fn clusters(&self) -> impl Future<Output = Result<Vec<String>, Fault>> + Send;
    fn read(&self, cluster: &str) -> impl Future<Output = Result<Cluster, Fault>> + Send;
    fn carry_out(&self, cluster: &str, change: &Change) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// Why something could not be read or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Fault {
    /// AWS's or Kubernetes' word for it.
    pub code: String,
    pub message: String,
    /// Worth another try in a while.
    pub transient: bool,
}

/// Whose turn it is to change a cluster: two daemons should not do the same work twice. A courtesy, no lock: what keeps
/// them from harm is that everything is changed as it was planned with, or not at all. Of IAM, where nothing can be held,
/// there is no turn: what is done there twice is done once, and no cluster's lease may hold up all the others.
pub trait Turns: Send + Sync + 'static {
    /// Asked again while the work lasts, well before the turn is over by itself.
    fn take(&self, cluster: &str) -> impl Future<Output = Result<Turn, Fault>> + Send;
    /// The work is done.
    fn end(&self, cluster: &str) -> impl Future<Output = ()> + Send;
}

/// Who may change a cluster now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// We may, and nobody else has since we did last.
    Ours,
    /// We may, and another did: what was read before may be old.
    After,
    /// We may, and took it from a claim that nobody of ours makes: the sentence says which.
    Overruled(String),
    /// They do.
    Theirs(String),
}

impl Fault {
    pub fn new(code: &str, message: impl Into<String>, transient: bool) -> Self {
        Self { code: code.to_owned(), message: message.into(), transient }
    }
}
