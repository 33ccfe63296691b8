//! The bastion's AWS identity.

use super::Check;
use crate::config::{Config, KubeRole};
use crate::privsep::message::Refusal;
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
    Ok(ask(region, None)?.0)
}

type Writes = Result<Vec<String>, Refusal>;

/// And, where things are named, what it may write in AWS's law about them.
fn ask(region: &str, upon: Option<&[String]>) -> Result<(Caller, Option<Writes>), Nobody> {
    let surroundings = Surroundings::read()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let authority = Authority::connect(region, &surroundings).await?;
        let caller = authority.whoami().await;
        let caller = caller.map_err(|refusal| Nobody::Answer { code: refusal.code, message: refusal.message })?;
        let writes = match upon.filter(|_| !is_root(&caller)) {
            Some(upon) => Some(authority.writes(&caller, upon).await),
            None => None,
        };
        Ok((caller, writes))
    })
}

fn is_root(caller: &Caller) -> bool {
    caller.arn.ends_with(":root")
}

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let Some(aws) = &config.aws else {
        return vec![Check::ok(NAME, "no [aws] section: jails have no AWS identity")];
    };
    match ask(&aws.region, Some(&at_stake(config))) {
        Ok((caller, writes)) => {
            let mut checks: Vec<Check> = writes.map(|writes| power(&caller, writes)).into_iter().collect();
            checks.insert(0, identity(&aws.account, Ok(caller)));
            checks
        }
        Err(why) => vec![identity(&aws.account, Err(why))],
    }
}

/// Of what it would be worst to write: a right may be for these alone, and AWS says so only of those it is asked about.
fn at_stake(config: &Config) -> Vec<String> {
    let Some(aws) = &config.aws else { return Vec::new() };
    let mut all = vec![aws.role.as_str().replace("{user}", "alice")];
    if let KubeRole::Separate(role) = &config.kube.role {
        all.push(role.as_str().replace("{user}", "alice"));
    }
    let partition = aws.role.as_str().split(':').nth(1).unwrap_or("aws");
    let path = config.rbac.as_ref().map_or("/", |rbac| rbac.group_path.as_str());
    all.push(format!("arn:{partition}:iam::{}:group{path}k8s-admin@cluster", aws.account));
    all.push(format!("arn:{partition}:iam::{}:user/alice", aws.account));
    all
}

/// Whoever takes the warden over has its identity: it must not be able to make users, roles or access of its own.
fn power(caller: &Caller, writes: Writes) -> Check {
    const NAME: &str = "aws-power";
    match writes {
        Ok(may) if may.is_empty() => Check::ok(NAME, "it may write nothing of IAM's, and nobody's access to clusters"),
        Ok(may) => Check::fail(
            NAME,
            format!(
                "{} may {}: whoever takes the bastion over makes themselves anybody; take that away (it needs sts:AssumeRole \
                 and to read), and give `stockade access` an identity of its own",
                caller.arn,
                may.join(", ")
            ),
        ),
        Err(refusal) => Check::warn(
            NAME,
            format!(
                "nobody can say whether it may write IAM, which it must not ({}: {}); allow it iam:SimulatePrincipalPolicy and \
                 iam:GetRole on itself to find out",
                refusal.code, refusal.message
            ),
        ),
    }
}

fn identity(account: &str, caller: Result<Caller, Nobody>) -> Check {
    match caller {
        Ok(caller) if is_root(&caller) => Check::fail(
            NAME,
            format!("{} is the account's root user; give the bastion a role that may only sts:AssumeRole", caller.arn),
        ),
        Ok(caller) if caller.account != account => Check::warn(
            NAME,
            format!("{} is not of account {account}: each user's role must trust it across accounts", caller.arn),
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

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn an_identity_that_writes_the_law_fails_and_one_that_nobody_knows_is_told() {
        let caller = |arn: &str| Caller { account: "123456789012".into(), arn: arn.into(), user_id: "x".into() };
        let bastion = caller("arn:aws:iam::123456789012:role/bastion");
        assert_eq!(power(&bastion, Ok(vec![])).state, State::Ok);
        let mighty = power(&bastion, Ok(vec!["iam:CreateRole".into(), "eks:CreateAccessEntry".into()]));
        assert_eq!(mighty.state, State::Fail);
        assert!(mighty.text.starts_with("arn:aws:iam::123456789012:role/bastion may iam:CreateRole, eks:Create"));
        let refusal = Refusal { code: "AccessDenied".into(), message: "no".into(), transient: false };
        let unknown = power(&bastion, Err(refusal));
        assert_eq!(unknown.state, State::Warn);
        assert!(unknown.text.contains("(AccessDenied: no)"), "{}", unknown.text);
        let state = |arn: &str, account: &str| identity(account, Ok(caller(arn))).state;
        assert_eq!(state("arn:aws:iam::123456789012:root", "123456789012"), State::Fail);
        assert_eq!(state("arn:aws:iam::123456789012:role/b", "210987654321"), State::Warn);
        assert_eq!(state("arn:aws:iam::123456789012:role/b", "123456789012"), State::Ok);
    }
}
