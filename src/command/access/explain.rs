//! `stockade access explain`.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::view::{Form, View, print};
use crate::access::report::explain::{Asked, Sentence, explain};
use crate::access::report::said;
use crate::access::report::sheet::Sheet;
use crate::config;
use crate::config::rbac::MembersFrom;
use crate::recording::visible;

/// Print why a user may do what they may: groups, roles, entries and bindings, with what is missing or was changed
#[derive(Debug, clap::Args)]
pub struct Args {
    /// As IAM spells it
    user: String,
    /// On this cluster only
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// CloudTrail's files, or a directory of them: who put the user into the groups
    #[arg(long, value_name = "PATH")]
    cloudtrail: Option<PathBuf>,
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
        let view = View::new(terms, args.cloudtrail.as_deref()).await?;
        let rbac = &view.terms.rbac;
        let asked = Asked {
            user: &args.user,
            cluster: args.cluster.as_deref(),
            group_path: (rbac.members == MembersFrom::Iam).then_some(rbac.group_path.as_str()),
            problems: &view.plan.problems,
        };
        // What counts for nothing is a part of the story.
        let members = said::said(&view.world, &view.terms);
        let story = explain(&view.facts(&members, u32::MAX), &asked);
        match args.output {
            Form::Table => super::say(&story.iter().map(line).collect::<String>())?,
            form => print(form, &sheet(&story), &json!({ "user": args.user, "story": story }))?,
        }
        let here = |name: &&str| args.cluster.as_deref().is_none_or(|wanted| wanted == *name);
        let unread = view.away().into_keys().filter(here).count();
        Ok(if unread == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

fn line(told: &Sentence) -> String {
    let indent = if told.below { "    " } else { "" };
    format!("{indent}{:<8} {}\n", told.is.word(), visible(&told.text))
}

fn sheet(story: &[Sentence]) -> Sheet {
    let row = |told: &Sentence| vec![told.is.word().to_owned(), told.text.clone()];
    Sheet { head: vec!["is", "what"], rows: story.iter().map(row).collect() }
}
