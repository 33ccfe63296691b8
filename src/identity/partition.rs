/// The partition and DNS domain of an AWS region.
pub fn partition(region: &str) -> (&'static str, &'static str) {
    const PREFIXES: [(&str, (&str, &str)); 5] = [
        ("cn-", ("aws-cn", "amazonaws.com.cn")),
        ("us-gov-", ("aws-us-gov", "amazonaws.com")),
        ("us-isob-", ("aws-iso-b", "sc2s.sgov.gov")),
        ("us-iso-", ("aws-iso", "c2s.ic.gov")),
        ("eusc-", ("aws-eusc", "amazonaws.eu")),
    ];
    let found = PREFIXES.into_iter().find(|(prefix, _)| region.starts_with(prefix));
    found.map_or(("aws", "amazonaws.com"), |(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_follow_the_region() {
        assert_eq!(partition("eu-central-1"), ("aws", "amazonaws.com"));
        assert_eq!(partition("cn-north-1").1, "amazonaws.com.cn");
        assert_eq!(partition("us-gov-west-1").0, "aws-us-gov");
    }
}
