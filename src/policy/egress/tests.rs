use super::*;
use crate::config::{EgressLimits, Preset};
use crate::identity::Pattern;

fn rule(hosts: &[&str], cidrs: &[&str]) -> EgressRule {
    EgressRule {
        hosts: hosts.iter().copied().map(Pattern::new).collect(),
        preset: None,
        regions: vec![],
        ports: vec![443],
        cidrs: cidrs.iter().map(|net| net.parse().unwrap()).collect(),
        tls: true,
    }
}

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

#[test]
fn rules_are_of_groups() {
    let allow = |groups: &[&str], host: &str| Allow {
        groups: groups.iter().copied().map(Pattern::new).collect(),
        rule: rule(&[host], &[]),
    };
    let egress = Egress {
        limits: EgressLimits::default(),
        addresses: Default::default(),
        allow: vec![allow(&["*"], "a.test"), allow(&["ops-*"], "b.test"), allow(&["dba", "dev"], "c.test")],
    };
    let hosts = |groups: &[&str]| -> Vec<String> {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        granted(&egress, &groups).iter().map(|rule| rule.hosts[0].to_string()).collect()
    };
    assert_eq!(hosts(&[]), ["a.test"]);
    assert_eq!(hosts(&["ops-night", "dev"]), ["a.test", "b.test", "c.test"]);
    assert_eq!(hosts(&["ops"]), ["a.test"]);
}

#[test]
fn hosts_and_ports_match_as_they_are_written() {
    let rules = [rule(&["*.example.test", "one.test", "192.0.2.1", "2001:db8::1"], &[])];
    for good in ["a.example.test:443", "A.b.Example.TEST.:443", "one.test:443", "192.0.2.1:443", "[2001:DB8:0::1]:443"]
    {
        assert_eq!(matching(&rules, &target(good)).len(), 1, "{good}");
    }
    for bad in ["example.test:443", "a.example.test:80", "aone.test:443", "one.test.evil.test:443", "192.0.2.2:443"] {
        assert!(matching(&rules, &target(bad)).is_empty(), "{bad}");
    }
    assert!(matching(&[rule(&["*"], &[])], &target("192.0.2.1:443")).is_empty(), "a star is no address");
}

#[test]
fn what_is_no_host_and_port_is_refused() {
    for bad in [
        "",
        ":443",
        "a.test",
        "a.test:",
        "a.test:0",
        "a.test:65536",
        "a.test:+80",
        "a.test:80x",
        "a..test:1",
        "[::1:1",
        "127.1:443",
        "0x7f000001:443",
        "2130706433:443",
        "0177.0.0.1:443",
        "a\0.test:443",
        "user@a.test:443",
        "a/b.test:443",
        "::1:443",
        "a test:443",
        "ä.test:443",
        "..:443",
        ".:443",
    ] {
        assert_eq!(bad.parse::<Target>(), Err(NotATarget), "{bad:?}");
    }
    assert!(format!("{}.test:443", "a".repeat(64)).parse::<Target>().is_err());
    assert_eq!(target("[::1]:1").to_string(), "[::1]:1");
}

#[test]
fn some_addresses_are_reached_by_no_rule() {
    let open = rule(&["*"], &["0.0.0.0/0", "::/0"]);
    for never in [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "169.254.170.2",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2001::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "::ffff:0:127.0.0.1",
        "100::1",
        "5f00::1",
    ] {
        assert!(matches!(class(never.parse().unwrap()), Class::Never(_)), "{never}");
        assert!(reaches(&open, never.parse().unwrap()).is_err(), "{never}");
    }
}

#[test]
fn private_addresses_need_their_network_in_the_rule() {
    let (bare, ten) = (rule(&["*"], &[]), rule(&["*"], &["10.1.0.0/16", "fd12::/32"]));
    for private in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd12::1"] {
        let private = private.parse().unwrap();
        assert_eq!(class(private), Class::Private);
        assert!(reaches(&bare, private).is_err() && reaches(&ten, private).is_ok(), "{private}");
    }
    for elsewhere in ["10.2.0.1", "192.168.0.1", "172.16.0.1", "100.64.0.1", "198.18.0.1", "fd13::1", "192.0.2.1"] {
        let elsewhere = elsewhere.parse().unwrap();
        assert!(reaches(&bare, elsewhere).is_err() && reaches(&ten, elsewhere).is_err(), "{elsewhere}");
    }
    for public in ["198.51.99.1", "172.32.0.1", "100.128.0.1", "2600::1"] {
        let public = public.parse().unwrap();
        assert_eq!(class(public), Class::Public);
        assert!(reaches(&bare, public).is_ok() && reaches(&ten, public).is_err(), "{public}");
    }
}

#[test]
fn the_aws_preset_is_awss_own_endpoints() {
    let east = ["us-east-1".to_owned()];
    for everywhere in ["iam.amazonaws.com", "sts.amazonaws.com", "iam.global.api.aws", "global.health.amazonaws.com"] {
        assert!(aws::is_endpoint(everywhere, &[]) && aws::is_endpoint(everywhere, &east), "{everywhere}");
    }
    for in_east in [
        "s3.us-east-1.amazonaws.com",
        "my.bucket.s3.us-east-1.amazonaws.com",
        "bucket.s3.dualstack.us-east-1.amazonaws.com",
        "bucket.s3.amazonaws.com",
        "api.ecr.us-east-1.amazonaws.com",
        "123456789012.dkr.ecr.us-east-1.amazonaws.com",
        "eks.us-east-1.amazonaws.com",
        "secretsmanager.us-east-1-fips.amazonaws.com",
        "lambda.us-east-1.api.aws",
        "s3-fips-us-east-1.amazonaws.com",
    ] {
        assert!(aws::is_endpoint(in_east, &[]) && aws::is_endpoint(in_east, &east), "{in_east}");
    }
    for other in [
        "us-east-1.s3.eu-west-1.amazonaws.com",
        "s3.cn-north-1.amazonaws.com.cn",
        "sts.eusc-de-east-1.amazonaws.eu",
        "s3-us-west-2.amazonaws.com",
    ] {
        assert!(aws::is_endpoint(other, &[]) && !aws::is_endpoint(other, &east), "{other}");
    }
    for never in [
        "amazonaws.com",
        "evilamazonaws.com",
        "s3.us-east-1.amazonaws.com.evil.test",
        "ec2-192-0-2-1.compute-1.amazonaws.com",
        "ec2-192-0-2-1.us-west-2.compute.amazonaws.com",
        "lb-1.us-east-1.elb.amazonaws.com",
        "lb-1.elb.us-east-1.amazonaws.com",
        "x.execute-api.us-east-1.amazonaws.com",
        "X.gr7.us-east-1.eks.amazonaws.com",
        "x.eks.us-east-1.amazonaws.com",
        "x.vpce.us-east-1.amazonaws.com",
        "x.s3.us-east-1.vpce.amazonaws.com",
        "search-x.us-east-1.es.amazonaws.com",
        "us-east-1.amazonaws.com",
    ] {
        assert!(!aws::is_endpoint(never, &[]), "{never}");
    }
}

fn of(preset: Preset, ports: &[u16], regions: &[&str]) -> [EgressRule; 1] {
    let regions = regions.iter().map(|region| (*region).to_owned()).collect();
    [EgressRule { preset: Some(preset), ports: ports.to_vec(), regions, ..rule(&[], &[]) }]
}

#[test]
fn git_is_tls_and_where_22_is_named_ssh_where_its_hosts_speak_it() {
    let (https, both) = (of(Preset::Git, &[443], &[]), of(Preset::Git, &[443, 22], &[]));
    for name in ["github.com", "gitlab.com", "bitbucket.org", "raw.githubusercontent.com"] {
        let target = target(&format!("{name}:443"));
        for rules in [&https, &both] {
            assert!(matching(rules, &target).iter().all(|rule| wants_tls(rule, &target)), "{name}");
            assert_eq!(matching(rules, &target).len(), 1, "{name}");
        }
    }
    for ssh in ["github.com:22", "gitlab.com:22", "ssh.github.com:443", "altssh.gitlab.com:443"] {
        let target = target(ssh);
        assert!(matching(&https, &target).is_empty(), "{ssh}: 22 is not named");
        assert_eq!(matching(&both, &target).len(), 1, "{ssh}");
        assert!(!wants_tls(&both[0], &target), "{ssh}");
    }
    for other in ["api.github.com:22", "ssh.github.com:22"] {
        let target = target(other);
        assert!(matching(&both, &target).iter().all(|rule| wants_tls(rule, &target)), "{other}: no SSH is waived");
    }
    // What the rule lists beside the preset is as it would be without it.
    let [git] = &both;
    let listed = EgressRule { hosts: vec![Pattern::new("*.example.test")], ..git.clone() };
    assert!(wants_tls(&listed, &target("git.example.test:22")));
    assert!(!wants_tls(&listed, &target("github.com:22")));
    for never in ["alice.github.io:443", "evilgithub.com:443", "github.com.evil.test:443", "github.com:80"] {
        assert!(matching(&both, &target(never)).is_empty(), "{never}");
    }
}

#[test]
fn registries_are_reached_with_what_they_redirect_to() {
    let (all, east) = (of(Preset::Registries, &[443], &[]), of(Preset::Registries, &[443], &["us-east-1"]));
    let through = |rules: &[EgressRule], name: &str| !matching(rules, &target(&format!("{name}:443"))).is_empty();
    for anywhere in [
        "registry-1.docker.io",
        "production.cloudflare.docker.com",
        "quay.io",
        "cdn03.quay.io",
        "ghcr.io",
        "pkg-containers.githubusercontent.com",
        "eu.gcr.io",
        "europe-west1-docker.pkg.dev",
        "registry.k8s.io",
        "public.ecr.aws",
        "123456789012.dkr.ecr.us-east-1.amazonaws.com",
        "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
        "api.ecr.us-east-1.amazonaws.com",
        "api.ecr-public.us-east-1.amazonaws.com",
        "prod-us-east-1-starport-layer-bucket.s3.us-east-1.amazonaws.com",
        "prod-registry-k8s-io-us-east-1.s3.dualstack.us-east-1.amazonaws.com",
    ] {
        assert!(through(&all, anywhere) && through(&east, anywhere), "{anywhere}");
    }
    for west in [
        "123456789012.dkr.ecr.us-west-2.amazonaws.com",
        "prod-us-west-2-starport-layer-bucket.s3.us-west-2.amazonaws.com",
    ] {
        assert!(through(&all, west) && !through(&east, west), "{west}");
    }
    for never in [
        "s3.us-east-1.amazonaws.com",
        "x.ecr.s3.us-east-1.amazonaws.com",
        "evil.dkr.ecr.us-east-1.amazonaws.com",
        "evil.123456789012.dkr.ecr.us-east-1.amazonaws.com",
        "prod-evil-starport-layer-bucket.s3.us-east-1.amazonaws.com",
        "prod-us-east-1-starport-layer-bucket.s3.us-west-2.amazonaws.com",
        "prod-registry-k8s-io-evil.s3.dualstack.us-east-1.amazonaws.com",
        "prod-us-east-1-starport-layer-bucket.s3.us-east-1.amazonaws.com.evil.test",
        "evil.cloudfront.net",
        "storage.googleapis.com",
        "evil.r2.cloudflarestorage.com",
        "evil-docker.pkg.dev.evil.test",
        "pypi.org",
    ] {
        assert!(!through(&all, never), "{never}");
    }
}

#[test]
fn packages_are_the_indices_alone() {
    let rules = of(Preset::Packages, &[443], &[]);
    for name in ["pypi.org", "files.pythonhosted.org", "index.crates.io", "registry.npmjs.org", "proxy.golang.org"] {
        let target = target(&format!("{name}:443"));
        assert!(matching(&rules, &target).iter().any(|rule| wants_tls(rule, &target)), "{name}");
    }
    for never in ["test.pypi.org", "upload.pypi.org", "github.com", "npmjs.org"] {
        assert!(matching(&rules, &target(&format!("{never}:443"))).is_empty(), "{never}");
    }
}

#[test]
fn a_rule_survives_the_boundary() {
    let rule = EgressRule {
        preset: Some(Preset::Aws),
        regions: vec!["us-east-1".into()],
        ..rule(&["a*.b.c"], &["10.0.0.0/8"])
    };
    let bytes = minicbor::to_vec(&rule).unwrap();
    assert_eq!(minicbor::decode::<EgressRule>(&bytes).unwrap(), rule);
}

proptest::proptest! {
    #[test]
    fn whatever_is_asked_for_is_a_target_or_nothing(text in ".{0,40}(:[0-9]{1,6})?") {
        if let Ok(target) = text.parse::<Target>() {
            proptest::prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target.clone()));
            if let Host::Name(name) = target.host {
                proptest::prop_assert!(is_host_name(&name) && name.parse::<IpAddr>().is_err());
            }
        }
    }
}
