//! Issue 5: "The EKS token made by stockade is ... equal in form to `aws eks get-token` and `aws-iam-authenticator token`
//! for the same clock." Their clock is read from their tokens, and ours made for it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use stockade::identity::{Credentials, Secret, eks};

use crate::yard::{Cluster, Clusters, Plugin};

/// The presigned question in a token.
fn url(token: &str) -> String {
    let bare = token.strip_prefix("k8s-aws-v1.").unwrap();
    String::from_utf8(URL_SAFE_NO_PAD.decode(bare).unwrap()).unwrap()
}

fn parameters(url: &str) -> BTreeMap<&str, &str> {
    url.split_once('?').unwrap().1.split('&').map(|pair| pair.split_once('=').unwrap()).collect()
}

/// Ours, of the same keys and the same second.
fn ours(theirs: &str, keys: &BTreeMap<String, String>, cluster: Cluster) -> String {
    let secret = |name: &str| Secret::new(keys[name].clone());
    let credentials = Credentials {
        access_key_id: keys["AWS_ACCESS_KEY_ID"].clone(),
        secret_access_key: secret("AWS_SECRET_ACCESS_KEY"),
        session_token: secret("AWS_SESSION_TOKEN"),
        issued: 0,
        expires: i64::MAX,
    };
    let date = parameters(theirs)["X-Amz-Date"];
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
    url(eks::token(&credentials, cluster.region(), cluster.name, time.unwrap().timestamp().as_second()).expose())
}

#[test]
fn tokens_are_those_of_the_other_makers() {
    let clusters = Clusters::start();
    for cluster in [clusters.hyades(), clusters.pleiades()] {
        let (token, keys) = cluster.minted("alice", Plugin::Authenticator);
        let theirs = url(&token);
        let own = ours(&theirs, &keys, cluster);
        // It means 60 seconds, and says 60 nanoseconds: that is 0, and another signature.
        let same = theirs.replace("&X-Amz-Expires=0&", "&X-Amz-Expires=60&");
        let unsigned = |url: &str| url.split_once("&X-Amz-Signature=").unwrap().0.to_owned();
        assert_eq!(unsigned(&own), unsigned(&same), "letter by letter");
        let (token, keys) = cluster.minted("alice", Plugin::AwsCli);
        let theirs = url(&token);
        let own = ours(&theirs, &keys, cluster);
        // botocore writes the session's token after the names of the headers; what is signed is sorted anyway.
        assert_eq!(parameters(&own), parameters(&theirs), "parameters and signature");
        assert_eq!(own.split_once('?').unwrap().0, theirs.split_once('?').unwrap().0);
    }
}
