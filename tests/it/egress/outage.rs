//! Groups that come from IAM, while IAM does not answer.

use std::time::Duration;

use serde_json::json;

use super::CLIENT;
use crate::aws::{Bed, control};
use crate::yard::{Yard, until, within};

/// A warden and a porter that were started again during an outage know nobody's groups; they ask until they do.
#[test]
fn the_way_out_comes_back_after_an_outage_of_iam() {
    let bed = Bed::start();
    let mut plan = Yard::new().config(
        "aws.region = 'us-east-1'\naws.role = 'arn:aws:iam::123456789012:role/bastion/{user}'\naws.groups_from_iam = true\n\
         [egress]\naddresses = { 'inside.example.test' = ['10.213.0.1'] }\n\
         [[egress.allow]]\ngroups = ['platform-*']\nhosts = ['inside.example.test']",
    );
    for (name, value) in bed.bastion() {
        plan = plan.env(&name, &value);
    }
    let yard = plan.env("AWS_EC2_METADATA_DISABLED", "true").user("alice").start();
    yard.ssh("alice").input(CLIENT).run("cat > client.py").ok();
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    // A rule is for her, and where the name leads is never reached: that it is said shows that the rule is known.
    let status = "python3 -c 'from client import *; print(door(\"inside.example.test:443\")[1])'";
    assert!(alice.shell(status).contains("leads to 10.213.0.1"));

    let iam = |mode: &str| control(&bed.bastion()["AWS_ENDPOINT_URL"], "POST", "iam", &json!({ "mode": mode }));
    iam("refuse");
    // In this order: the former warden would tell a new porter what it knows.
    yard.kill("warden");
    yard.kill("porter");
    until("rules that nobody knows", || alice.shell(status).contains("not known yet").then_some(()));
    iam("ok");
    // IAM is left alone for half a minute after it failed.
    let again = || alice.shell(status).contains("leads to 10.213.0.1").then_some(());
    assert!(within(Duration::from_secs(75), again).is_some(), "the rules are not known again");
}
