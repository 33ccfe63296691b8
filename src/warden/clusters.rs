//! Which clusters there are: those of the file, and those that EKS has.
//!
//! `Finder` asks EKS in the background and keeps the last good answer of each place; `Book` joins both lists, says what
//! changed, and picks what a user may use. A cluster is an account, a region, a name and an endpoint with its
//! authority: where one name leads to two of these, nobody can say which is meant, and neither is offered.

mod book;
mod eks;
mod finder;
mod stated;

use std::collections::BTreeMap;

use crate::policy::kube::Subject;
use crate::privsep::message::{Cluster, Way};

pub use self::book::{Book, Change};
pub use self::eks::Eks;
pub use self::finder::{Cloud, Described, Finder, Page, Place, places};
pub use self::stated::{Unusable, stated};

/// A cluster of the file.
#[derive(Clone, Debug)]
pub struct Known {
    pub cluster: Cluster,
    pub labels: BTreeMap<String, String>,
}

impl Known {
    fn subject(&self) -> Subject<'_> {
        let shared = matches!(self.cluster.way, Way::Shared(_));
        Subject { name: &self.cluster.name, labels: &self.labels, shared }
    }
}

/// A cluster that EKS has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    pub name: String,
    pub account: String,
    pub region: String,
    pub endpoint: String,
    /// PEM.
    pub authority: String,
    /// Its tags, where they are trusted.
    pub labels: BTreeMap<String, String>,
}

impl Found {
    /// The same cluster, whatever its tags.
    fn is(&self, other: &Self) -> bool {
        let all = |found: &Self| {
            let Self { name, account, region, endpoint, authority, labels: _ } = found.clone();
            [name, account, region, endpoint, authority]
        };
        all(self) == all(other)
    }

    fn subject(&self) -> Subject<'_> {
        Subject { name: &self.name, labels: &self.labels, shared: false }
    }

    fn place(&self) -> String {
        format!("{} {}", self.account, self.region)
    }

    fn cluster(&self) -> Cluster {
        Cluster {
            name: self.name.clone(),
            endpoint: self.endpoint.clone(),
            authority: self.authority.clone(),
            server_name: None,
            way: Way::Eks { region: self.region.clone(), cluster: self.name.clone() },
        }
    }
}
