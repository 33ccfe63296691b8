//! The documents in AWS's shapes. What is not known of a jail (it is no instance) is made from its session's id.

use jiff::Timestamp;
use serde::Serialize;

use crate::privsep::message::{Grant, Refusal};
use crate::session::SessionId;

/// botocore parses exactly this: no fractions, no offset.
pub fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// JSON of a value that cannot fail to be JSON.
pub fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct InstanceCredentials<'a> {
    code: &'a str,
    last_updated: String,
    r#type: &'a str,
    access_key_id: &'a str,
    secret_access_key: &'a str,
    token: &'a str,
    expiration: String,
}

/// `iam/security-credentials/ROLE`.
pub fn instance_credentials(grant: &Grant) -> String {
    let credentials = &grant.credentials;
    json(&InstanceCredentials {
        code: "Success",
        last_updated: time(credentials.issued),
        r#type: "AWS-HMAC",
        access_key_id: &credentials.access_key_id,
        secret_access_key: credentials.secret_access_key.expose(),
        token: credentials.session_token.expose(),
        expiration: time(credentials.expires),
    })
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct InstanceProblem<'a> {
    code: &'a str,
    message: &'a str,
    last_updated: String,
}

/// The same place when there are no credentials. EC2's own word for a role that may not be assumed is the one that
/// the SDKs explain; every other code is STS's.
pub fn instance_problem(code: &str, message: &str, now: i64) -> String {
    json(&InstanceProblem { code, message, last_updated: time(now) })
}

/// See `instance_problem`.
pub fn instance_code(refusal: &Refusal) -> &str {
    match refusal.code.as_str() {
        "AccessDenied" | "AccessDeniedException" if !refusal.transient => "AssumeRoleUnauthorizedAccess",
        code => code,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerCredentials<'a> {
    access_key_id: &'a str,
    secret_access_key: &'a str,
    token: &'a str,
    account_id: &'a str,
    expiration: String,
    role_arn: &'a str,
}

/// The container addresses' only document.
pub fn container_credentials(grant: &Grant) -> String {
    let credentials = &grant.credentials;
    json(&ContainerCredentials {
        access_key_id: &credentials.access_key_id,
        secret_access_key: credentials.secret_access_key.expose(),
        token: credentials.session_token.expose(),
        account_id: &grant.account,
        expiration: time(credentials.expires),
        role_arn: &grant.role_arn,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Profile<'a> {
    code: &'a str,
    last_updated: String,
    instance_profile_arn: String,
    instance_profile_id: String,
}

/// `iam/info`.
pub fn profile(grant: &Grant, session: &SessionId) -> String {
    json(&Profile {
        code: "Success",
        last_updated: time(grant.credentials.issued),
        instance_profile_arn: grant.role_arn.replacen(":role/", ":instance-profile/", 1),
        instance_profile_id: format!("AIPA{}", tail(session).to_uppercase()),
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    account_id: Option<&'a str>,
    architecture: &'a str,
    availability_zone: String,
    instance_id: String,
    pending_time: String,
    region: &'a str,
    version: &'a str,
}

/// `dynamic/instance-identity/document`; the account is not known before the first credentials.
pub fn identity(region: &str, account: Option<&str>, session: &SessionId) -> String {
    json(&Identity {
        account_id: account,
        architecture: if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" },
        availability_zone: zone(region),
        instance_id: instance(session),
        pending_time: time(begun(session)),
        region,
        version: "2017-09-30",
    })
}

/// When the session began: a UUIDv7 opens with 48 bits of milliseconds.
fn begun(session: &SessionId) -> i64 {
    let bytes = session.as_bytes().iter().take(6);
    bytes.fold(0, |milliseconds, byte| milliseconds << 8 | i64::from(*byte)) / 1000
}

/// A zone that exists in every region; SDKs cut its last letter to find the region.
pub fn zone(region: &str) -> String {
    format!("{region}a")
}

/// `i-` and 17 hexadecimal digits.
pub fn instance(session: &SessionId) -> String {
    format!("i-{}", tail(session))
}

/// The last 17 digits of the id: its random part.
fn tail(session: &SessionId) -> String {
    let id = session.to_string().replace('-', "");
    id.chars().skip(id.len().saturating_sub(17)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_what_botocore_parses() {
        assert_eq!(time(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(time(i64::MAX), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn an_instance_id_has_the_shape_of_ec2s() {
        let session = SessionId::from_bytes(*b"\x01\x98\0\0\0\0\x7f\xff\x80\0\0\0\0\0\0\x2a");
        assert_eq!(instance(&session), "i-f800000000000002a");
    }
}
