use super::*;
use crate::identity::Pattern;

#[test]
fn egress_is_closed_by_default_and_reads_its_rules() {
    let closed = good(LEAST).egress;
    assert_eq!((closed.allow.len(), closed.limits.connections, closed.limits.idle), (0, 32, 600));
    let rules = "[[egress.allow]]\nhosts = ['*.Example.com']\n[[egress.allow]]\nhosts = ['[2001:DB8::1]', '10.0.0.1']\n\
                 tls = false\ncidrs = ['10.1.2.3/8']\n[[egress.allow]]\npreset = 'aws'\nregions = ['us-east-1']\n";
    let egress = good(&format!("{LEAST}{rules}")).egress;
    let [pattern, addresses, aws] = egress.allow.as_slice() else { panic!("{egress:?}") };
    assert_eq!(pattern.groups, [Pattern::new("*")]);
    assert_eq!((pattern.rule.hosts[0].as_str(), &pattern.rule.ports[..]), ("*.example.com", &[443][..]));
    assert!(pattern.rule.tls && !addresses.rule.tls);
    assert_eq!(addresses.rule.hosts[0].as_str(), "2001:db8::1");
    assert_eq!(addresses.rule.cidrs, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(aws.rule.preset, Some(Preset::Aws));
}

#[test]
fn mistakes_in_egress() {
    for (rule, wanted) in [
        (
            "port = [22]\nhosts = ['a.b']",
            "`allow`: there is no setting `port` in a rule of [egress] | did you mean `ports`?",
        ),
        (
            "ports = [22]",
            "`allow`: the rule names no host | add hosts = [\"*.example.com\"] or preset = \"aws\"; \"*\" is any host",
        ),
        (
            "hosts = ['*example.com']",
            "`allow`: `hosts`: '*example.com' matches domains of strangers | the last two parts of a pattern stand as \
             they are: \"*.example.com\"; \"*\" alone is any host",
        ),
        (
            "hosts = ['https://a.b']",
            "`allow`: `hosts`: 'https://a.b' is not a host | write a name or a pattern of names: \"github.com\", \
             \"*.example.com\"",
        ),
        ("hosts = ['127.0.0.1']", "`allow`: `hosts`: '127.0.0.1': it is loopback | no rule opens this address"),
        (
            "hosts = ['10.0.0.1']",
            "`allow`: an address among the hosts of a rule that wants TLS | TLS names no address, so nothing could \
             pass: write the host's name, or tls = false",
        ),
        (
            "hosts = ['a.b']\ncidrs = ['127.0.0.0/8']",
            "`allow`: `cidrs`: '127.0.0.0/8': it is loopback | no rule opens these addresses",
        ),
        (
            "hosts = ['a.b']\nregions = ['us-east-1']",
            "`allow`: `regions` of a rule whose hosts have none | regions narrow preset = \"aws\" and preset = \
             \"registries\"",
        ),
        (
            "preset = 'git'\nregions = ['us-east-1']",
            "`allow`: `regions` of a rule whose hosts have none | regions narrow preset = \"aws\" and preset = \
             \"registries\"",
        ),
        ("hosts = ['a.b']\ngroups = []", "`allow`: `groups`: the list is empty | leave `groups` out for its default"),
        (
            "hosts = ['a.b']\nports = [0]",
            "`allow`: `ports`: 0 is out of bounds | write a number from 1 to 65535, no quotes",
        ),
    ] {
        says(&format!("[[egress.allow]]\n{rule}\n"), wanted);
    }
    says(
        "[egress]\naddresses = { 'a.b' = ['169.254.169.254'] }\n",
        "`addresses`: '169.254.169.254': it is link-local, where metadata is | the egress door never goes there",
    );
}
