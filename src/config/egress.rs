//! `[egress]`: who may reach what outside. A rule that could never match, or match more than it says, is a mistake.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::check::{HOUR, SECOND, pattern};
use super::read::Reading;
use super::value::{Fields, Parsed, Value, choice, duration, flag, list, map, read, size, text, whole, wrong};
use crate::identity::Pattern;
use crate::policy::egress::{Class, class, is_host_name};

const RULE: &str = "a rule of [egress]";
/// What goes to the porter for one user must fit into one packet with room to spare.
const LONGEST: usize = 64 * 1024;

/// What jails may reach outside: nothing without a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    pub limits: EgressLimits,
    /// Names that are not asked for, for VPC endpoints and tests; before the host's own /etc/hosts.
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
    pub allow: Vec<Allow>,
}

/// A rule and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allow {
    /// `*` alone is everybody, in a group or not.
    pub groups: Vec<Pattern>,
    pub rule: EgressRule,
}

/// Hosts, ports and networks that go together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
pub struct EgressRule {
    /// Names, patterns of names and addresses, in lower case.
    #[n(0)]
    pub hosts: Vec<Pattern>,
    #[n(1)]
    pub preset: Option<Preset>,
    /// Narrows the preset; empty: every region.
    #[n(2)]
    pub regions: Vec<String>,
    #[n(3)]
    pub ports: Vec<u16>,
    /// Where the hosts' addresses must lie; empty: anywhere in public.
    #[n(4)]
    #[cbor(with = "networks")]
    pub cidrs: Vec<IpNet>,
    /// The connection must begin with a TLS ClientHello that names the host.
    #[n(5)]
    pub tls: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Preset {
    /// The endpoints of AWS's own services.
    #[n(0)]
    Aws,
    /// Public hosts of Git repositories; by SSH too where port 22 is named.
    #[n(1)]
    Git,
    /// Public registries of images and charts, and ECR.
    #[n(2)]
    Registries,
    /// The indices that pip, cargo, npm, go and their like read.
    #[n(3)]
    Packages,
}

/// What one jail may use of the egress door.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
pub struct EgressLimits {
    /// At one time.
    #[n(0)]
    pub connections: u32,
    /// Both ways together, in the jail's whole life.
    #[n(1)]
    pub bytes: u64,
    /// Seconds without a byte after which a connection ends.
    #[n(2)]
    pub idle: u64,
}

/// Networks as the text they are written in.
mod networks {
    use ipnet::IpNet;
    use minicbor::decode::Error;
    use minicbor::encode::Write;
    use minicbor::{Decoder, Encoder};

    pub fn encode<C, W: Write>(
        nets: &[IpNet],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.encode(nets.iter().map(ToString::to_string).collect::<Vec<_>>())?.ok()
    }

    pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<IpNet>, Error> {
        d.decode::<Vec<String>>()?.iter().map(|net| net.parse().map_err(|_| Error::message("not a network"))).collect()
    }
}

pub(super) fn egress(r: &mut Reading<'_>) -> Option<Egress> {
    let mut s = r.section("egress");
    let connections = s.or("connections", 32, whole(1..=4096));
    let bytes = s.or("bytes", 64 << 30, size(1 << 20..=1 << 50));
    let idle = s.or("idle", 600 * SECOND, duration(10 * SECOND..=24 * HOUR));
    let addresses = s.or("addresses", BTreeMap::new(), map(addresses));
    let allow = s.or("allow", Vec::new(), list(allow));
    s.close();
    let rules: Vec<&EgressRule> = allow.value.iter().flatten().map(|allow| &allow.rule).collect();
    if minicbor::to_vec(rules).map_or(usize::MAX, |bytes| bytes.len()) > LONGEST {
        r.mistakes.push(allow.mistake("`allow`: the rules are longer than 64 KiB", "say it in fewer, wider patterns"));
    }
    let idle: Duration = idle.value?;
    Some(Egress {
        limits: EgressLimits { connections: connections.value?, bytes: bytes.value?, idle: idle.as_secs() },
        addresses: addresses.value?,
        allow: allow.value?,
    })
}

fn allow(value: &Value<'_>) -> Parsed<Allow> {
    const PRESETS: &[(&str, Preset)] = &[
        ("aws", Preset::Aws),
        ("git", Preset::Git),
        ("registries", Preset::Registries),
        ("packages", Preset::Packages),
    ];
    let mut f = Fields::of(value, RULE)?;
    let groups = f.or("groups", vec![Pattern::new("*")], some(pattern, "groups"));
    let hosts = f.or("hosts", Vec::new(), list(host));
    let preset = f.or("preset", None, |value| choice(PRESETS)(value).map(Some));
    let regions = f.or("regions", Vec::new(), list(region));
    let ports = f.or("ports", vec![443], some(port, "ports"));
    let cidrs = f.or("cidrs", Vec::new(), list(cidr));
    let tls = f.or("tls", true, flag);
    f.close()?;
    let rule = EgressRule { hosts, preset, regions, ports, cidrs, tls };
    if rule.hosts.is_empty() && rule.preset.is_none() {
        let hint = "add hosts = [\"*.example.com\"] or preset = \"aws\"; \"*\" is any host";
        return wrong(value, "the rule names no host", hint);
    }
    if !matches!(rule.preset, Some(Preset::Aws | Preset::Registries)) && !rule.regions.is_empty() {
        let hint = "regions narrow preset = \"aws\" and preset = \"registries\"";
        return wrong(value, "`regions` of a rule whose hosts have none", hint);
    }
    if rule.tls && rule.hosts.iter().any(|host| host.as_str().parse::<IpAddr>().is_ok()) {
        let hint = "TLS names no address, so nothing could pass: write the host's name, or tls = false";
        return wrong(value, "an address among the hosts of a rule that wants TLS", hint);
    }
    Ok(Allow { groups, rule })
}

/// A list with something in it.
fn some<T>(item: impl Fn(&Value<'_>) -> Parsed<T> + Copy, name: &'static str) -> impl Fn(&Value<'_>) -> Parsed<Vec<T>> {
    move |value| match list(item)(value)? {
        none if none.is_empty() => wrong(value, "the list is empty", format!("leave `{name}` out for its default")),
        items => Ok(items),
    }
}

/// A name, a pattern of names or an address, as the porter compares them: in lower case.
fn host(value: &Value<'_>) -> Parsed<Pattern> {
    let found = text(value)?.to_ascii_lowercase();
    let bare = found.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&found);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return match class(address) {
            Class::Never(why) => wrong(value, format!("'{found}': {why}"), "no rule opens this address"),
            _ => Ok(Pattern::new(address.to_string())),
        };
    }
    if found == "*" {
        return Ok(Pattern::new(found));
    }
    if !is_host_name(&found.replace('*', "x")) {
        let hint = "write a name or a pattern of names: \"github.com\", \"*.example.com\"";
        return wrong(value, format!("'{found}' is not a host"), hint);
    }
    // `*` also stands for dots: a star near the end would match domains of strangers.
    if found.contains('*') && found.rsplit('.').take(2).any(|label| label.contains('*')) {
        let hint = "the last two parts of a pattern stand as they are: \"*.example.com\"; \"*\" alone is any host";
        return wrong(value, format!("'{found}' matches domains of strangers"), hint);
    }
    Ok(Pattern::new(found))
}

fn region(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    if crate::policy::egress::is_region(&found) {
        return Ok(found);
    }
    wrong(value, format!("'{found}' is not a region"), "write it as AWS does: \"us-east-1\"")
}

fn port(value: &Value<'_>) -> Parsed<u16> {
    whole(1..=65535)(value).map(|port| u16::try_from(port).unwrap_or_default())
}

fn cidr(value: &Value<'_>) -> Parsed<IpNet> {
    let net: IpNet = read::<IpNet>("write a network: \"10.1.0.0/16\" or \"fd12:3456::/48\"")(value)?;
    match (class(net.trunc().addr()), class(net.broadcast())) {
        (Class::Never(why), Class::Never(_)) => {
            wrong(value, format!("'{net}': {why}"), "no rule opens these addresses")
        }
        _ => Ok(net.trunc()),
    }
}

fn addresses(name: &str, value: &Value<'_>) -> Parsed<Vec<IpAddr>> {
    if !is_host_name(name) || name != name.to_ascii_lowercase() {
        return wrong(value, format!("'{name}' is not a host's name in lower case"), "one whole name, no pattern");
    }
    some(
        |value| {
            let address = read::<IpAddr>("write an address: \"10.1.2.3\"")(value)?;
            match class(address) {
                Class::Never(why) => wrong(value, format!("'{address}': {why}"), "the egress door never goes there"),
                _ => Ok(address),
            }
        },
        "addresses",
    )(value)
}
