//! AWS's own endpoints. `*.amazonaws.com` would be too much: what customers run has names there too (ec2-….compute,
//! ….elb, ….eks), and a user's data would have a way to anybody's machine.
//!
//! The shapes are those of botocore's endpoints.json: SERVICE.REGION.SUFFIX with anything before it, SERVICE.SUFFIX.

/// The suffixes of all partitions, from botocore's partitions.json.
const SUFFIXES: [&str; 14] = [
    ".amazonaws.com",
    ".api.aws",
    ".amazonaws.com.cn",
    ".api.amazonwebservices.com.cn",
    ".amazonaws.eu",
    ".api.amazonwebservices.eu",
    ".c2s.ic.gov",
    ".api.aws.ic.gov",
    ".sc2s.sgov.gov",
    ".api.aws.scloud",
    ".cloud.adc-e.uk",
    ".api.cloud-aws.adc-e.uk",
    ".csp.hci.ic.gov",
    ".api.aws.hci.ic.gov",
];

/// Before the region these have something of a customer's before themselves; alone they are the service.
const CUSTOMERS: [&str; 10] =
    ["aoss", "appsync-api", "appsync-realtime-api", "eks", "elb", "es", "execute-api", "kafka", "mq", "vpce"];

/// Whether a name in lower case is an endpoint of AWS, in one of these regions if there are any.
pub fn is_endpoint(name: &str, regions: &[String]) -> bool {
    SUFFIXES.iter().filter_map(|suffix| name.strip_suffix(suffix)).any(|rest| is_service(rest, regions))
}

/// Whether a name is of AWS's own registries: an account's, or what opens them.
pub fn is_ecr(name: &str, regions: &[String]) -> bool {
    let service = |rest: &str| match rest.rsplitn(3, '.').collect::<Vec<_>>().as_slice() {
        [region, "ecr" | "ecr-public", "api"] => is_region(region) && is_among(region, regions),
        [region, "ecr" | "ecr-fips", account] => {
            let account = account.strip_suffix(".dkr").unwrap_or_default();
            let digits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
            digits && is_region(region) && is_among(region, regions)
        }
        _ => false,
    };
    SUFFIXES.iter().filter_map(|suffix| name.strip_suffix(suffix)).any(service)
}

/// Whether a rule that names these regions, or none, means this one.
pub fn is_among(region: &str, regions: &[String]) -> bool {
    regions.is_empty() || regions.iter().any(|named| named == region)
}

/// What stands before a suffix.
fn is_service(rest: &str, regions: &[String]) -> bool {
    let mut labels = rest.rsplit('.');
    let (Some(last), before) = (labels.next(), labels.next()) else { return false };
    let region = last.strip_suffix("-fips").unwrap_or(last);
    let allowed = |region: &str| is_among(region, regions);
    match before {
        // iam, sts, route53: they have no region; but s3-us-west-2 has one.
        None => !is_region(region) && old_regions(last).is_none_or(|mut own| own.any(allowed)),
        Some(service) if is_region(region) => {
            let customers = CUSTOMERS.contains(&service) && labels.next().is_some();
            !customers && allowed(region)
        }
        Some(_) if last == "global" || rest == "global.health" => true,
        // A bucket under the old global name, which is us-east-1's.
        Some(_) => last == "s3" && allowed("us-east-1"),
    }
}

/// What may be the region at the end of an old name (`fips-us-east-1` looks like one too), if anything may.
fn old_regions(label: &str) -> Option<impl Iterator<Item = &str>> {
    let ends = label.match_indices('-').filter_map(|(at, _)| label.get(at + 1..)).filter(|end| is_region(end));
    let mut ends = ends.peekable();
    ends.peek().is_some().then_some(ends)
}

/// As AWS spells regions: us-east-1, us-gov-west-1, eusc-de-east-1.
pub fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let word = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    match parts.as_slice() {
        [first, middle @ .., number] => {
            !middle.is_empty()
                && (2..=4).contains(&first.len())
                && word(first)
                && middle.iter().all(word)
                && !number.is_empty()
                && number.bytes().all(|b| b.is_ascii_digit())
        }
        _ => false,
    }
}
