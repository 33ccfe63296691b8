use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_sts::Client;
use aws_sdk_sts::operation::assume_role::AssumeRoleOutput;
use aws_sdk_sts::types::Tag;

use super::refusal::{refusal, refusal_of};
use crate::identity::{Credentials, Principal, Secret};
use crate::privsep::message::{Grant, Refusal};
use crate::session::SessionId;

/// Carries the session id into CloudTrail's record of every call, through roles assumed onwards too; a policy that
/// denies by it ends the session's AWS rights.
const SESSION_TAG: &str = "stockade:session";
const POLICY: usize = 2048;
const TAGS: usize = 50;

/// Who shall become whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssumeRequest {
    pub principal: Principal,
    pub session: SessionId,
    pub role_arn: String,
    /// Beside `stockade:session`; from the configuration, never from a user.
    pub tags: Vec<(String, String)>,
    /// An inline session policy: JSON, at most 2048 characters.
    pub policy: Option<String>,
    pub duration: Duration,
}

/// Who the bastion is to AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub account: String,
    pub arn: String,
    pub user_id: String,
}

pub(super) async fn whoami(sts: &Client) -> Result<Caller, Refusal> {
    let said = sts.get_caller_identity().send().await.map_err(|error| refusal_of(&error))?;
    Ok(Caller {
        account: said.account().unwrap_or_default().to_owned(),
        arn: said.arn().unwrap_or_default().to_owned(),
        user_id: said.user_id().unwrap_or_default().to_owned(),
    })
}

impl AssumeRequest {
    pub(super) async fn ask(&self, sts: &Client, region: &str) -> Result<Grant, Refusal> {
        let role = self.checked()?;
        let session = self.session.to_string();
        let tags = self.all_tags(&session)?;
        let issued = now();
        let said = sts
            .assume_role()
            .role_arn(&self.role_arn)
            .role_session_name(&session)
            .source_identity(self.principal.as_str())
            .set_transitive_tag_keys(Some(tags.iter().map(|tag| tag.key.clone()).collect()))
            .set_tags(Some(tags))
            .set_policy(self.policy.clone())
            .duration_seconds(i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX))
            .send()
            .await
            .map_err(|error| refusal_of(&error))?;
        self.is_ours(&said, role.name, &session)?;
        let Some(keys) = said.credentials else { return Err(broken("no credentials")) };
        Ok(Grant {
            credentials: Credentials {
                access_key_id: keys.access_key_id,
                secret_access_key: Secret::new(keys.secret_access_key),
                session_token: Secret::new(keys.session_token),
                issued,
                expires: keys.expiration.secs(),
            },
            role: role.name.to_owned(),
            role_arn: self.role_arn.clone(),
            account: role.account.to_owned(),
            region: region.to_owned(),
        })
    }

    /// AWS would say the same later, and less plainly.
    fn checked(&self) -> Result<Role<'_>, Refusal> {
        if !is_name(self.principal.as_str()) {
            return Err(invalid(&format!(
                "'{}' cannot be a source identity: AWS takes 2 to 64 of the letters A-Z a-z 0-9 _ + = , . @ -",
                self.principal
            )));
        }
        if self.policy.as_ref().is_some_and(|policy| policy.chars().count() > POLICY) {
            return Err(invalid("the session policy is longer than 2048 characters"));
        }
        if !(900..=43_200).contains(&self.duration.as_secs()) {
            return Err(invalid("the duration of credentials is 15 minutes to 12 hours"));
        }
        Role::of_arn(&self.role_arn).ok_or_else(|| invalid(&format!("'{}' is not the ARN of a role", self.role_arn)))
    }

    fn all_tags(&self, session: &str) -> Result<Vec<Tag>, Refusal> {
        let own = (SESSION_TAG, session);
        let configured = self.tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        if self.tags.len() >= TAGS || self.tags.iter().any(|(key, value)| !is_tag(key, value)) {
            return Err(invalid(
                "session tags are at most 49; keys 1 to 128, values up to 256 of letters, digits, spaces and \
                 _ . : / = + - @; keys do not begin with 'aws:' or 'stockade:'",
            ));
        }
        std::iter::once(own)
            .chain(configured)
            .map(|(key, value)| Tag::builder().key(key).value(value).build().map_err(|e| invalid(&e.to_string())))
            .collect()
    }

    /// An answer that speaks of another role, session or person is not passed on, whoever mixed it up.
    fn is_ours(&self, said: &AssumeRoleOutput, role: &str, session: &str) -> Result<(), Refusal> {
        let end = format!(":assumed-role/{role}/{session}");
        let who = said.assumed_role_user().map(|user| user.arn()).unwrap_or_default();
        let source = said.source_identity().unwrap_or(self.principal.as_str());
        if !who.ends_with(&end) || source != self.principal.as_str() {
            return Err(broken(&format!("credentials of '{who}', source identity '{source}'")));
        }
        Ok(())
    }
}

/// `arn:PARTITION:iam::ACCOUNT:role/PATH/NAME`
struct Role<'a> {
    account: &'a str,
    name: &'a str,
}

impl<'a> Role<'a> {
    fn of_arn(arn: &'a str) -> Option<Self> {
        let mut parts = arn.splitn(6, ':');
        let (scheme, _partition, service) = (parts.next()?, parts.next()?, parts.next()?);
        let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
        let name = resource.strip_prefix("role/")?.rsplit('/').next()?;
        let right = scheme == "arn" && service == "iam" && region.is_empty() && is_role_name(name);
        (right && account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit())).then_some(Self { account, name })
    }
}

fn is_name(text: &str) -> bool {
    (2..=64).contains(&text.len()) && is_role_name(text)
}

fn is_role_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
}

fn is_tag(key: &str, value: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || " _.:/=+-@".contains(c);
    let lower = key.to_ascii_lowercase();
    (1..=128).contains(&key.chars().count())
        && value.chars().count() <= 256
        && key.chars().chain(value.chars()).all(allowed)
        && !lower.starts_with("aws:")
        && !lower.starts_with("stockade:")
}

fn invalid(message: &str) -> Refusal {
    refusal("ValidationError", message, false)
}

fn broken(what: &str) -> Refusal {
    refusal("InternalFailure", &format!("STS answered with {what}; it is not passed on"), true)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(principal: &str, role_arn: &str) -> AssumeRequest {
        AssumeRequest {
            principal: principal.parse().unwrap(),
            session: SessionId::mint(),
            role_arn: role_arn.into(),
            tags: vec![],
            policy: None,
            duration: Duration::from_secs(3600),
        }
    }

    #[test]
    fn the_role_and_account_are_read_from_the_arn() {
        let request = request("alice", "arn:aws-cn:iam::123456789012:role/bastion/x/alice");
        let role = request.checked().unwrap();
        assert_eq!((role.account, role.name), ("123456789012", "alice"));
        for bad in [
            "",
            "alice",
            "arn:aws:iam::123456789012:user/alice",
            "arn:aws:iam::12345678901x:role/alice",
            "arn:aws:iam::123456789012:role/bastion/",
            "arn:aws:sts::123456789012:assumed-role/alice/x",
        ] {
            assert!(Role::of_arn(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_sts_would_not_take_is_said_before_it_is_asked() {
        let arn = "arn:aws:iam::123456789012:role/bastion/alice";
        assert_eq!(request("a", arn).checked().err().unwrap().code, "ValidationError");
        let with = |change: fn(&mut AssumeRequest)| {
            let mut request = request("alice", arn);
            change(&mut request);
            request.checked().err().or_else(|| request.all_tags("s").err()).map(|refusal| refusal.transient)
        };
        assert_eq!(with(|_| ()), None);
        assert_eq!(with(|r| r.policy = Some("x".repeat(2049))), Some(false));
        assert_eq!(with(|r| r.duration = Duration::from_secs(899)), Some(false));
        assert_eq!(with(|r| r.tags = vec![("team".into(), "a,b".into())]), Some(false));
        assert_eq!(with(|r| r.tags = vec![("Stockade:session".into(), "mine".into())]), Some(false));
        assert_eq!(with(|r| r.tags = vec![("team".into(), "platform".into())]), None);
    }

    #[test]
    fn credentials_of_somebody_else_are_not_passed_on() {
        use aws_sdk_sts::types::AssumedRoleUser;
        let request = request("alice", "arn:aws:iam::123456789012:role/bastion/alice");
        let said = |arn: &str, source: &str| {
            let user = AssumedRoleUser::builder().arn(arn).assumed_role_id("x").build().unwrap();
            AssumeRoleOutput::builder().assumed_role_user(user).source_identity(source).build()
        };
        let right = "arn:aws:sts::123456789012:assumed-role/alice/s";
        assert!(request.is_ours(&said(right, "alice"), "alice", "s").is_ok());
        assert!(request.is_ours(&said(right, "bob"), "alice", "s").is_err());
        assert!(request.is_ours(&said(&right.replace("alice", "bob"), "alice"), "alice", "s").is_err());
        assert!(request.is_ours(&said(right, "alice"), "alice", "t").is_err());
        assert!(request.is_ours(&AssumeRoleOutput::builder().build(), "alice", "s").is_err());
    }
}
