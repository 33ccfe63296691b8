//! IAM of one account: who is there, and the groups and roles that access makes.
//!
//! Everything is read with GetAccountAuthorizationDetails, a thousand items a call, and ListRoles, which alone tells how
//! long a role's sessions may be. Each change is a few calls of which any may be the last: what is left over is what the
//! next plan finds, and doing something twice is doing it once.

mod groups;
mod read;
mod roles;

use aws_sdk_iam::Client;

use super::aws::Aws;
use super::change::{Change, Target};
use super::seam::{Fault, People};
use super::world::Directory;

/// The IAM of the account that access's identity is in.
#[derive(Clone, Debug)]
pub struct Iam {
    client: Client,
    account: String,
    group_path: String,
}

impl Iam {
    /// `account`: the one of the configuration; any other is refused. `group_path`: where groups are made.
    pub fn new(aws: &Aws, account: &str, group_path: &str) -> Self {
        Self { client: aws.iam(), account: account.to_owned(), group_path: group_path.to_owned() }
    }
}

impl People for Iam {
    async fn read(&self) -> Result<Directory, Fault> {
        read::directory(&self.client, &self.account).await
    }

    async fn carry_out(&self, change: &Change) -> Result<(), Fault> {
        match &change.target {
            Target::Group(grant) => groups::carry_out(&self.client, &self.group_path, &grant.to_string(), change).await,
            Target::IamRole(name) => roles::carry_out(&self.client, name, change).await,
            other => Err(lasting("NotOfIam", format!("{other} is not in IAM"))),
        }
    }
}

fn lasting(code: &str, message: String) -> Fault {
    Fault { code: code.into(), message, transient: false }
}

/// What IAM says when there is no room, with what can be done.
fn with_advice(mut fault: Fault) -> Fault {
    if fault.code == "LimitExceeded" {
        fault
            .message
            .push_str("; ask AWS for a higher quota, or grant less: fewer namespaces with groups, fewer users");
    }
    fault
}
