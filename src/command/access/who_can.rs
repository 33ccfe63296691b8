//! `stockade access who-can`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::view::{Form, print};
use crate::access::connect::Connected;
use crate::access::report::question::{Words, read};
use crate::access::report::who_can::{sheet, who_can};
use crate::access::seam::{Fleet, People};
use crate::config;

/// Print who may do something on a cluster: people with their IAM group, and whoever else its bindings name
///
/// All ClusterRoles, Roles and bindings count, whoever made them, and what EKS allows beside them. Other authorizers of
/// the API server (the node's, webhooks) are not asked. Without --namespace those who may in some namespace are told
/// too.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// get, list, watch, create, update, patch, delete, deletecollection, bind, escalate, impersonate, .. or *
    verb: String,
    /// pods, pods/exec, deployments.apps, deployments.apps/scale, * or a path like /metrics
    resource: String,
    #[arg(long, value_name = "NAME")]
    cluster: String,
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,
    /// Of the one object that is so called
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = crate::command::CONFIGURATION)]
    config: PathBuf,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let terms = config::load_access(&args.config)?;
    super::block_on(async {
        let Connected { people, fleet, .. } = Connected::new(&terms, Duration::ZERO).await?;
        let cluster = async {
            // Where they are is only known of those that were listed.
            fleet.clusters().await?;
            fleet.read(&args.cluster).await
        };
        let (directory, cluster) = tokio::try_join!(people.read(), cluster)?;
        let words = Words {
            verb: &args.verb,
            resource: &args.resource,
            namespace: args.namespace.as_deref(),
            name: args.name.as_deref(),
        };
        let (question, notes) = read(&cluster, words)?;
        notes.iter().for_each(|note| super::warn(note));
        let found = who_can(&cluster, &directory, &terms.rbac.username, &question);
        let value = json!({ "question": question.to_string(), "cluster": args.cluster, "who": found });
        print(args.output, &sheet(&found), &value)?;
        Ok(ExitCode::SUCCESS)
    })
}
