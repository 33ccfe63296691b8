//! Issue item "Clients": every AWS SDK finds a user's credentials in a jail with nothing configured, from the instance's
//! addresses and from the container's. One row an SDK; jails have the limits that are shipped, but for the home.

use std::process::Command;

use crate::aws::Bed;
use crate::clients::built;
use crate::doors;
use crate::yard::Yard;

struct Sdk {
    name: &'static str,
    /// What is brought into the home, of `tests/clients/build`'s.
    brought: Option<&'static str>,
    /// Prints key id, region and expiry.
    line: &'static str,
    /// It asks the instance for its region.
    asks_region: bool,
    /// It knows the address of EKS pod identity, as versions of 2024 and later do.
    pods: bool,
}

const SDKS: &[Sdk] = &[
    // It has no export-credentials, so the library inside it is asked, too.
    Sdk {
        name: "AWS CLI v1",
        brought: Some("awscli"),
        line: "~/awscli/run configure list >&2; PYTHONPATH=~/awscli python3 -c \
               'from awscli.botocore.session import Session; s = Session(); c = s.get_credentials(); \
               print(c.access_key, s.get_config_variable(\"region\"), c._expiry_time.isoformat())'",
        asks_region: false,
        pods: true,
    },
    Sdk { name: "AWS CLI v2", brought: None, line: "AWS=aws; CLI", asks_region: true, pods: false },
    Sdk {
        name: "boto3",
        brought: None,
        line: "PYTHONPATH=~/boto3 python3 -c 'import boto3; s = boto3.Session(); c = s.get_credentials(); \
               print(c.access_key, s.region_name, c._expiry_time.isoformat())'",
        asks_region: false,
        pods: true,
    },
    Sdk { name: "aws-sdk-go-v2", brought: Some("go"), line: "~/go/run", asks_region: true, pods: true },
    Sdk {
        name: "AWS SDK for JavaScript v3",
        brought: Some("node"),
        line: "~/node/run",
        asks_region: false,
        pods: true,
    },
    Sdk { name: "aws-sdk-rust", brought: Some("rust"), line: "~/rust/run", asks_region: true, pods: true },
    Sdk { name: "AWS SDK for Java v2", brought: Some("java"), line: "~/java/run", asks_region: true, pods: true },
];

const CLI: &str = "echo $($AWS configure export-credentials --format process | jq -r .AccessKeyId) \
                   $($AWS configure list | awk '$1 == \"region\" { print $2 }') \
                   $($AWS configure export-credentials --format process | jq -r .Expiration)";

/// Where an SDK is made to look, by taking the other ways from it.
const WAYS: &[(&str, &str)] = &[
    ("as a jail is", "true"),
    ("ECS", "export AWS_EC2_METADATA_DISABLED=true"),
    (
        "EKS pod identity",
        "export AWS_EC2_METADATA_DISABLED=true AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.23/v1/credentials; \
         unset AWS_CONTAINER_CREDENTIALS_RELATIVE_URI AWS_CONTAINER_AUTHORIZATION_TOKEN",
    ),
    ("IMDSv2", "unset ${!AWS_CONTAINER_*}"),
    ("IMDSv2 by IPv6", "unset ${!AWS_CONTAINER_*}; export AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE=IPv6"),
];

/// Programs and their runtimes go in as everything does: through SSH.
fn bring(yard: &Yard, sdk: &Sdk) {
    let (packed, into) = match sdk.brought {
        Some(name) => {
            let packed = Command::new("tar").arg("-C").arg(built().join("jail")).args(["-c", name]).output().unwrap();
            assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
            (packed.stdout, ".")
        }
        None if sdk.name == "boto3" => (doors::boto3(), "boto3"),
        None => return,
    };
    let unpack = format!("mkdir -p {into} && tar -x --no-same-owner -C {into}");
    yard.ssh("alice").input(packed).run(&unpack).ok();
}

/// "credentials with no configuration by IMDSv2 and by the container addresses"
#[test]
fn every_sdk_finds_credentials_by_itself() {
    let bed = Bed::start();
    let yard = doors::yard(&bed).config("jail = { home_size = '512MiB', memory = '1GiB' }").start();
    let mut wrong = Vec::new();
    for sdk in SDKS {
        bring(&yard, sdk);
        for (way, prepare) in WAYS.iter().filter(|(way, _)| sdk.pods || *way != "EKS pod identity") {
            let region = if sdk.asks_region { "unset AWS_REGION AWS_DEFAULT_REGION; " } else { "" };
            let region = if way.starts_with("IMDS") { region } else { "" };
            let line = sdk.line.replace("CLI", CLI);
            let ran = yard.ssh("alice").run(&format!("{prepare}; {region}{line}"));
            println!("{}, {way}: {:?} {} {}", sdk.name, ran.code, ran.text(), ran.stderr);
            if let Err(what) = judge(&yard, &ran.text()) {
                wrong.push(format!("{}, {way}: {what}: {:?} {}", sdk.name, ran.text(), ran.stderr));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The key is one that was issued to alice, the region the bastion's, the end not yet come.
fn judge(yard: &Yard, said: &str) -> Result<(), String> {
    let [key, region, expiry] = said.split_whitespace().collect::<Vec<_>>()[..] else {
        return Err("not three words".into());
    };
    let issued = yard.audit().of("SK4001I");
    if !issued.iter().any(|event| event["unmapped"]["access_key_id"] == key && event["user"]["name"] == "alice") {
        return Err("a key that was not issued".into());
    }
    if region != "us-east-1" {
        return Err("another region".into());
    }
    match expiry.parse::<jiff::Timestamp>() {
        Ok(end) if end > jiff::Timestamp::now() => Ok(()),
        Ok(_) => Err("expired".into()),
        Err(error) => Err(error.to_string()),
    }
}
