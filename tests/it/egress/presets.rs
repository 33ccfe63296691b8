//! Presets in a whole bastion: names that are the owners', led to a server of the test's.

use super::{OURS, echo, name_server, python, world};
use crate::yard::Yard;

#[test]
fn a_preset_is_its_names_and_ssh_only_where_it_is_spoken() {
    world("egress::presets::child_of_presets");
}

#[test]
#[ignore = "run by its parent"]
fn child_of_presets() {
    name_server(|_| Some(OURS.parse().unwrap()));
    let (_ssh, https) = (echo(&format!("{OURS}:22")), echo(&format!("{OURS}:443")));
    let allow = |preset: &str, more: &str| {
        format!("[[egress.allow]]\npreset = '{preset}'\ncidrs = ['10.213.0.0/24']\n{more}\n")
    };
    let rules = allow("git", "ports = [22, 443]") + &allow("packages", "") + &allow("registries", "");
    let yard = Yard::new().config(&rules).user("alice").start();
    let variables = yard.ssh("alice").run("echo ${HTTPS_PROXY-none} ${ALL_PROXY-none}").ok();
    assert_eq!(variables, "http://127.0.0.1:3128 none", "all that is let out goes by the first");
    let say = |target: &str| python(&yard, "alice", &format!("print(say('{target}', b'SSH-2.0-x'))"));
    for ssh in ["github.com:22", "ssh.github.com:443"] {
        assert_eq!(say(ssh), "200 OK b'SSH-2.0-x'", "{ssh}");
        until_closed(&yard, ssh);
    }
    let passed = https.lock().unwrap().iter().map(Vec::len).sum::<usize>();
    for tls in ["github.com:443", "pypi.org:443", "ghcr.io:443"] {
        let said = say(tls);
        assert!(said.starts_with("200 OK ") && !said.contains("SSH"), "{tls}: {said}");
        let event = yard.audit().wait_for("SK5103W", |event| event["unmapped"]["target"] == tls);
        assert_eq!(event["unmapped"]["reason"], "it is not TLS");
    }
    assert_eq!(https.lock().unwrap().iter().map(Vec::len).sum::<usize>(), passed, "something was passed on");
    for denied in ["pypi.org:22", "ghcr.io:22", "alice.github.io:443", "upload.pypi.org:443", "ssh.github.com:22"] {
        let said = python(&yard, "alice", &format!("print(door('{denied}')[1])"));
        assert!(said.starts_with("403 no rule lets you through"), "{denied}: {said}");
    }
}

fn until_closed(yard: &Yard, target: &str) {
    let host = target.split(':').next().unwrap();
    let closed = yard.audit().wait_for("SK5102I", |event| event["dst_endpoint"]["hostname"] == host);
    assert_eq!(closed["traffic"]["bytes_out"], 9, "{closed}");
}
