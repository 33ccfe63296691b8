//! `stockade access watch` from a message in a real queue to a real API server's yes, without waiting for a cycle.

use std::time::Instant;

use serde_json::json;

use super::Scene;
use crate::access_static::Watch;
use crate::yard::{Clusters, until};

/// What EventBridge makes of CloudTrail's record of a call to IAM.
fn event(name: &str, user: &str, group: &str) -> String {
    let by = json!({
        "type": "IAMUser", "principalId": "AIDACKCEVSQ6C2EXAMPLE", "arn": "arn:aws:iam::123456789012:user/admin",
        "accountId": "123456789012", "accessKeyId": "AKIAIOSFODNN7EXAMPLE", "userName": "admin",
    });
    let detail = json!({
        "eventVersion": "1.11", "userIdentity": by, "eventTime": "2026-11-22T03:04:05Z",
        "eventSource": "iam.amazonaws.com", "eventName": name, "awsRegion": "us-east-1",
        "sourceIPAddress": "192.0.2.7", "userAgent": "aws-cli/2", "responseElements": null,
        "requestParameters": { "userName": user, "groupName": group },
        "requestID": "5ca1ab1e", "eventID": "0b5e55ed", "readOnly": false, "eventType": "AwsApiCall",
        "managementEvent": true, "recipientAccountId": "123456789012", "eventCategory": "Management",
    });
    json!({
        "version": "0", "id": "c0ffee", "detail-type": "AWS API Call via CloudTrail", "source": "aws.iam",
        "account": "123456789012", "time": "2026-11-22T03:04:05Z", "region": "us-east-1", "resources": [],
        "detail": detail,
    })
    .to_string()
}

/// "at once on IAM change events from an SQS queue": the next cycle would be in ten minutes.
#[test]
fn a_message_of_iams_is_a_yes_and_then_a_no() {
    let clusters = Clusters::start();
    let sqs = |lines: &str| clusters.as_root(&format!("import boto3; sqs = boto3.client('sqs')\n{lines}"));
    let url = sqs("print(sqs.create_queue(QueueName='stockade-watch')['QueueUrl'])");
    let (scene, _plan) = Scene::with(&format!("queue = '{url}'\n"));
    let space = scene.namespace("watched");
    let group = format!("k8s-user@pleiades@{space}");
    scene.iam("iam.create_user(UserName='watched', Path='/bastion/')");
    let watch = Watch::start(scene.command(&["watch"]), scene.config.with_file_name("watch.log"));
    until("a first cycle", || watch.log().contains("a cycle ended").then_some(()));

    let may = || {
        let line = ["auth", "can-i", "list", "pods", "-n", &space, "--as", "stockade:watched"];
        scene.cluster.run(&scene.cluster.admin(), &line).text()
    };
    let told = |name: &str, answer: &str| {
        let body = event(name, "watched", &group);
        let began = Instant::now();
        sqs(&format!("sqs.send_message(QueueUrl='{url}', MessageBody=r'''{body}''')"));
        until(answer, || (may() == answer).then_some(()));
        println!("{name}: {answer} after {:?}", began.elapsed());
    };
    assert_eq!(may(), "no");
    scene.joins("watched", &group);
    told("AddUserToGroup", "yes");
    let line = ["-n", &space, "get", "pods", "-o", "name", "--as", "stockade:watched"];
    assert_eq!(scene.cluster.run(&scene.cluster.admin(), &line).ok(), "pod/web");
    scene.leaves("watched", &group);
    told("RemoveUserFromGroup", "no");
    let refused = scene.cluster.run(&scene.cluster.admin(), &line);
    assert!(refused.code == Some(1) && refused.stderr.contains("Forbidden"), "{}", refused.stderr);
    assert_eq!((scene.told("SK9001I", "watched"), scene.told("SK9002I", "watched")), (1, 1));

    let waiting = format!(
        "told = sqs.get_queue_attributes(QueueUrl='{url}', AttributeNames=['All'])['Attributes']\n\
         print(int(told['ApproximateNumberOfMessages']) + int(told['ApproximateNumberOfMessagesNotVisible']))"
    );
    until("a queue without what was acted on", || (sqs(&waiting) == "0").then_some(()));
    assert!(watch.end().success());
    scene.iam("iam.delete_user(UserName='watched')");
    scene.apply();
}
