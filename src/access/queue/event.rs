use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::access::rows::without_path;

/// What changes the plan's ground: people, groups, and the roles that are ours.
const IAM: [&str; 22] = [
    "AddUserToGroup",
    "AttachRolePolicy",
    "CreateGroup",
    "CreateRole",
    "CreateUser",
    "DeleteGroup",
    "DeleteRole",
    "DeleteRolePermissionsBoundary",
    "DeleteRolePolicy",
    "DeleteUser",
    "DetachRolePolicy",
    "PutRolePermissionsBoundary",
    "PutRolePolicy",
    "RemoveUserFromGroup",
    "TagRole",
    "TagUser",
    "UntagRole",
    "UntagUser",
    "UpdateAssumeRolePolicy",
    "UpdateGroup",
    "UpdateRole",
    "UpdateUser",
];
const EKS: [&str; 10] = [
    "AssociateAccessPolicy",
    "CreateAccessEntry",
    "CreateCluster",
    "DeleteAccessEntry",
    "DeleteCluster",
    "DisassociateAccessPolicy",
    "TagResource",
    "UntagResource",
    "UpdateAccessEntry",
    "UpdateClusterConfig",
];
/// Names in IAM are shorter; what is longer is not shown whole.
const LONGEST: usize = 256;
/// Paths of roles are long, and each letter may be three.
const LONGEST_ARN: usize = 6 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Iam,
    Eks,
}

/// A call that somebody made and that AWS granted. Not proved: it is a reason to look, not something to go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub service: Service,
    /// `AddUserToGroup`
    pub name: String,
    /// RFC 3339.
    pub time: String,
    pub region: String,
    /// The caller's ARN.
    pub by: Option<String>,
    pub user: Option<String>,
    pub group: Option<String>,
    pub role: Option<String>,
    /// In EKS's words.
    pub cluster: Option<String>,
    /// Whose access entry it is about, an ARN without the path of a role; `None`: it may be about any.
    pub principal: Option<String>,
}

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Event(Event),
    /// An event that changes nothing here, or a call that AWS refused.
    Nothing,
    Malformed(String),
}

/// Of a message's body: an event of EventBridge, as it is or in an envelope of SNS.
pub(super) fn heard(body: &str) -> Heard {
    let read = |text: &str| serde_json::from_str::<Value>(text);
    let inner = |outer: Value| outer.get("Message").and_then(Value::as_str).map_or(Ok(outer.clone()), read);
    match read(body).and_then(inner) {
        Ok(event) => of(&event),
        Err(error) => Heard::Malformed(error.to_string()),
    }
}

fn of(event: &Value) -> Heard {
    let Some(detail) = event.get("detail").filter(|detail| detail.is_object()) else {
        return Heard::Malformed("it has no detail".into());
    };
    let (Some(source), Some(name)) = (text(detail, "eventSource"), text(detail, "eventName")) else {
        // EventBridge has other events, and a rule may let them through.
        return Heard::Nothing;
    };
    let service = match source.as_str() {
        "iam.amazonaws.com" if IAM.contains(&name.as_str()) => Service::Iam,
        "eks.amazonaws.com" if EKS.contains(&name.as_str()) => Service::Eks,
        _ => return Heard::Nothing,
    };
    if detail.get("errorCode").is_some_and(|code| !code.is_null()) {
        return Heard::Nothing;
    }
    let asked = detail.get("requestParameters").unwrap_or(&Value::Null);
    let (cluster, principal) = match service {
        Service::Iam => (None, None),
        Service::Eks => match about(asked) {
            Some(about) => about,
            None => return Heard::Nothing,
        },
    };
    Heard::Event(Event {
        service,
        name,
        time: text(detail, "eventTime").or_else(|| text(event, "time")).unwrap_or_default(),
        region: text(detail, "awsRegion").or_else(|| text(event, "region")).unwrap_or_default(),
        by: detail.get("userIdentity").and_then(|who| text(who, "arn")),
        user: text(asked, "userName"),
        group: text(asked, "groupName"),
        role: text(asked, "roleName"),
        cluster,
        principal,
    })
}

/// Cluster and principal of a call to EKS; `None`: it is about something else, a node group's tags.
fn about(asked: &Value) -> Option<(Option<String>, Option<String>)> {
    let Some(tagged) = arn(asked, "resourceArn") else {
        // What is in the path of a call CloudTrail calls `name`.
        let cluster = text(asked, "clusterName").or_else(|| text(asked, "name"));
        return Some((cluster, arn(asked, "principalArn").map(|arn| without_path(&arn))));
    };
    let parts: Vec<&str> = tagged.splitn(6, ':').collect();
    let ["arn", partition, "eks", _, _, resource] = parts.as_slice() else { return None };
    match resource.split('/').collect::<Vec<&str>>().as_slice() {
        ["cluster", cluster] => Some((Some((*cluster).to_owned()), None)),
        ["access-entry", cluster, kind, account, name, _] => {
            let principal = format!("arn:{partition}:iam::{account}:{kind}/{name}");
            Some((Some((*cluster).to_owned()), Some(without_path(&principal))))
        }
        _ => None,
    }
}

/// Whole or not at all. CloudTrail has it as it stood in the call: in a path, percent-encoded.
fn arn(within: &Value, name: &str) -> Option<String> {
    let found = within.get(name)?.as_str().filter(|found| found.len() <= LONGEST_ARN)?;
    let plain = percent_decode_str(found).decode_utf8().ok()?;
    (plain.starts_with("arn:") && plain.bytes().all(|b| b.is_ascii_graphic())).then(|| plain.into_owned())
}

/// Of bounded length and in one line: it goes into logs.
fn text(within: &Value, name: &str) -> Option<String> {
    let found = within.get(name)?.as_str()?;
    Some(found.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn joined() -> Value {
        json!({
            "version": "0", "detail-type": "AWS API Call via CloudTrail", "source": "aws.iam", "region": "us-east-1",
            "detail": {
                "eventSource": "iam.amazonaws.com", "eventName": "AddUserToGroup", "awsRegion": "us-east-1",
                "eventTime": "2026-01-02T03:04:05Z",
                "userIdentity": { "type": "IAMUser", "arn": "arn:aws:iam::123456789012:user/admin" },
                "requestParameters": { "groupName": "k8s-user@hyades", "userName": "alice" },
                "responseElements": null,
            },
        })
    }

    #[test]
    fn who_joined_is_heard_with_and_without_an_envelope() {
        let Heard::Event(event) = heard(&joined().to_string()) else { panic!() };
        assert_eq!((event.service, event.name.as_str()), (Service::Iam, "AddUserToGroup"));
        assert_eq!(event.user.as_deref(), Some("alice"));
        assert_eq!(event.group.as_deref(), Some("k8s-user@hyades"));
        assert_eq!(event.by.as_deref(), Some("arn:aws:iam::123456789012:user/admin"));
        assert_eq!(event.time, "2026-01-02T03:04:05Z");
        let envelope = json!({ "Type": "Notification", "Message": joined().to_string() });
        assert_eq!(heard(&envelope.to_string()), Heard::Event(event));
    }

    #[test]
    fn clusters_are_named_by_eks() {
        let mut event = joined();
        event["detail"]["eventSource"] = "eks.amazonaws.com".into();
        for (name, parameters) in [
            ("CreateCluster", json!({ "name": "hyades" })),
            ("DeleteCluster", json!({ "name": "hyades" })),
            ("UpdateAccessEntry", json!({ "name": "hyades", "principalArn": "arn:aws:iam::123456789012:role/x" })),
            ("AssociateAccessPolicy", json!({ "clusterName": "hyades" })),
        ] {
            event["detail"]["eventName"] = name.into();
            event["detail"]["requestParameters"] = parameters;
            let Heard::Event(event) = heard(&event.to_string()) else { panic!("{name}") };
            assert_eq!((event.service, event.cluster.as_deref()), (Service::Eks, Some("hyades")));
        }
    }

    #[test]
    fn the_principal_is_named_if_the_call_does() {
        let mut event = joined();
        event["detail"]["eventSource"] = "eks.amazonaws.com".into();
        let bare = Some("arn:aws:iam::123456789012:role/erin-kube");
        let entry = "arn:aws:eks:us-east-1:123456789012:access-entry/hyades/role/123456789012/erin-kube/1ec5";
        let encoded = |arn: &str| arn.replace(':', "%3A").replace('/', "%2F");
        let role = "arn:aws:iam::123456789012:role/stockade/kube/erin-kube";
        for (name, parameters, principal) in [
            ("UpdateAccessEntry", json!({ "name": "hyades", "principalArn": role }), bare),
            ("AssociateAccessPolicy", json!({ "name": "hyades", "principalArn": encoded(role) }), bare),
            ("TagResource", json!({ "resourceArn": entry }), bare),
            ("UntagResource", json!({ "resourceArn": encoded(entry) }), bare),
            ("TagResource", json!({ "resourceArn": "arn:aws:eks:us-east-1:123456789012:cluster/hyades" }), None),
            ("UpdateAccessEntry", json!({ "name": "hyades", "principalArn": "erin" }), None),
            (
                "UpdateAccessEntry",
                json!({ "name": "hyades", "principalArn": format!("{role}{}", "x".repeat(9999)) }),
                None,
            ),
            ("UpdateClusterConfig", json!({ "name": "hyades" }), None),
        ] {
            event["detail"]["eventName"] = name.into();
            event["detail"]["requestParameters"] = parameters;
            let Heard::Event(event) = heard(&event.to_string()) else { panic!("{name}") };
            assert_eq!((event.cluster.as_deref(), event.principal.as_deref()), (Some("hyades"), principal), "{name}");
        }
        event["detail"]["eventName"] = "TagResource".into();
        let group = "arn:aws:eks:us-east-1:123456789012:nodegroup/hyades/workers/1ec5";
        event["detail"]["requestParameters"] = json!({ "resourceArn": group });
        assert_eq!(heard(&event.to_string()), Heard::Nothing);
    }

    #[test]
    fn what_changes_nothing_wakes_nobody() {
        let with = |name: &str, value: Value| {
            let mut event = joined();
            event["detail"][name] = value;
            heard(&event.to_string())
        };
        assert_eq!(with("eventName", "ListUsers".into()), Heard::Nothing);
        assert_eq!(with("eventSource", "ec2.amazonaws.com".into()), Heard::Nothing);
        assert_eq!(with("errorCode", "AccessDenied".into()), Heard::Nothing);
        assert_eq!(with("eventName", Value::Null), Heard::Nothing);
        assert!(matches!(with("errorCode", Value::Null), Heard::Event(_)));
    }

    #[test]
    fn what_is_no_event_is_malformed() {
        for body in ["", "hello", "{}", "[]", "7", "{\"detail\": 7}", "{\"Message\": \"{\"}", "{\"detail\": {}"] {
            assert!(matches!(heard(body), Heard::Malformed(_)), "{body}");
        }
    }

    #[test]
    fn names_are_one_short_line() {
        let mut event = joined();
        event["detail"]["requestParameters"]["userName"] = format!("a\n\u{1b}[31m{}", "b".repeat(9999)).into();
        let Heard::Event(event) = heard(&event.to_string()) else { panic!() };
        let user = event.user.unwrap();
        assert!(user.starts_with("a  [31mb") && user.len() == LONGEST, "{user}");
    }

    proptest::proptest! {
        #[test]
        fn any_body_is_something(body in ".*") {
            heard(&body);
        }
    }
}
