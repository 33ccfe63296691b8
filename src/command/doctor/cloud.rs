//! The bastion's AWS identity.

use super::Check;
use crate::config::Aws;
use crate::warden::authority::{Authority, AuthorityError, Caller, Surroundings};

const NAME: &str = "aws-identity";

/// Why nobody can be named.
#[derive(Debug, thiserror::Error)]
pub(in crate::command) enum Nobody {
    #[error("{0}")]
    Refused(#[from] AuthorityError),
    #[error("AWS says {code}: {message}")]
    Answer { code: String, message: String },
    #[error("cannot begin to ask")]
    Runtime(#[from] std::io::Error),
}

/// Who the machine's default chain is to AWS.
pub(in crate::command) fn caller(region: &str) -> Result<Caller, Nobody> {
    let surroundings = Surroundings::read()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let authority = Authority::connect(region, &surroundings).await?;
        authority.whoami().await.map_err(|refusal| Nobody::Answer { code: refusal.code, message: refusal.message })
    })
}

pub(super) fn check(aws: Option<&Aws>) -> Check {
    let Some(aws) = aws else {
        return Check::ok(NAME, "no [aws] section: jails have no AWS identity");
    };
    match caller(&aws.region) {
        Ok(caller) if caller.arn.ends_with(":root") => Check::warn(
            NAME,
            format!("{} is the account's root user; give the bastion a role that may only sts:AssumeRole", caller.arn),
        ),
        Ok(caller) if caller.account != aws.account => Check::warn(
            NAME,
            format!("{} is not of account {}: each user's role must trust it across accounts", caller.arn, aws.account),
        ),
        Ok(caller) => Check::ok(NAME, caller.arn),
        Err(why @ Nobody::Refused(AuthorityError::CredentialProcess)) => Check::warn(NAME, why.to_string()),
        Err(why) => Check::fail(
            NAME,
            format!(
                "{why}; give the bastion an instance role, a container role or access keys, in the environment of the service"
            ),
        ),
    }
}
