//! Whether the bastion's own identity could make itself, or anybody, more than it is. Asked of AWS's policy simulator:
//! to try would be to do.

use aws_sdk_iam::Client;
use aws_sdk_iam::types::PolicyEvaluationDecisionType;

use super::refusal::refusal_of;
use crate::privsep::message::Refusal;

/// Whoever may do one of these may soon do all: change what roles and users may or who trusts whom, be a user, or be on a
/// cluster whoever they like.
const WRITES: [&str; 24] = [
    "iam:AddUserToGroup",
    "iam:AttachGroupPolicy",
    "iam:AttachRolePolicy",
    "iam:AttachUserPolicy",
    "iam:CreateAccessKey",
    "iam:CreateLoginProfile",
    "iam:CreatePolicyVersion",
    "iam:CreateRole",
    "iam:CreateUser",
    "iam:DeleteRolePermissionsBoundary",
    "iam:DeleteRolePolicy",
    "iam:DetachRolePolicy",
    "iam:PutGroupPolicy",
    "iam:PutRolePermissionsBoundary",
    "iam:PutRolePolicy",
    "iam:PutUserPolicy",
    "iam:SetDefaultPolicyVersion",
    "iam:TagRole",
    "iam:UpdateAssumeRolePolicy",
    "iam:UpdateLoginProfile",
    "iam:UploadSSHPublicKey",
    "eks:AssociateAccessPolicy",
    "eks:CreateAccessEntry",
    "eks:UpdateAccessEntry",
];

/// Answers that AWS may cut into pages.
const PAGES: usize = 20;

/// Those of `WRITES` that an identity may do to one of these ARNs or to whatever there is.
pub(super) async fn writes(iam: &Client, caller: &str, upon: &[String]) -> Result<Vec<String>, Refusal> {
    let source = source(iam, caller).await?;
    let asked = iam.simulate_principal_policy().policy_source_arn(source);
    let asked = WRITES.iter().fold(asked, |asked, action| asked.action_names(*action));
    let all = std::iter::once("*").chain(upon.iter().map(String::as_str));
    let mut pages = all.fold(asked, |asked, arn| asked.resource_arns(arn)).into_paginator().send();
    let mut may = Vec::new();
    for _ in 0..PAGES {
        let Some(page) = pages.next().await else { break };
        for result in page.map_err(|error| refusal_of(&error))?.evaluation_results() {
            let somewhere = result.resource_specific_results().iter();
            let mut decisions = somewhere.map(|one| one.eval_resource_decision()).chain([result.eval_decision()]);
            let name = result.eval_action_name();
            if decisions.any(|decision| *decision == PolicyEvaluationDecisionType::Allowed)
                && !may.iter().any(|m| m == name)
            {
                may.push(name.to_owned());
            }
        }
    }
    Ok(may)
}

/// Whose policies count: a session's are its role's, whose path only IAM knows.
async fn source(iam: &Client, caller: &str) -> Result<String, Refusal> {
    let Some(role) = role_of(caller) else { return Ok(caller.to_owned()) };
    let said = iam.get_role().role_name(role).send().await.map_err(|error| refusal_of(&error))?;
    Ok(said.role().map(|role| role.arn().to_owned()).unwrap_or_default())
}

/// `arn:aws:sts::ACCOUNT:assumed-role/NAME/SESSION`
fn role_of(arn: &str) -> Option<&str> {
    let (service, resource) = (arn.split(':').nth(2)?, arn.split(':').nth(5)?);
    let mut parts = resource.split('/');
    (service == "sts" && parts.next() == Some("assumed-role")).then(|| parts.next())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_its_role() {
        assert_eq!(role_of("arn:aws:sts::123456789012:assumed-role/stockade/i-0abc"), Some("stockade"));
        assert_eq!(role_of("arn:aws:iam::123456789012:user/assumed-role/x"), None);
        assert_eq!(role_of(""), None);
    }
}
