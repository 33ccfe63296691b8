//! Descriptors, many and few.

use crate::roles::ROLES;
use crate::yard::{Yard, descriptors, until};

/// A service manager may hand over any number of descriptors: nothing goes by their numbers, and nobody inherits them.
#[test]
fn thousands_of_descriptors_are_no_hindrance_and_are_inherited_by_nobody() {
    let yard = Yard::new()
        .user("alice")
        .before("ulimit -n 4096; for i in {1..1500}; do exec {held}</etc/hostname; done")
        .start();
    assert_eq!(yard.ssh("alice").input("in").run("cat; ls /proc/self/fd | wc -l").ok(), "in4");
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    assert_eq!(terminal.shell("stty size; stockade whoami | grep -c alice"), "24 80\n1");
    let held = descriptors(yard.jailer());
    assert!(held.len() > 1500 && held.iter().any(|(fd, target)| *fd > 1500 && target != "/etc/hostname"), "{held:?}");
    for role in ROLES {
        let held = descriptors(yard.role(role));
        assert!(held.iter().all(|(_, target)| target != "/etc/hostname"), "{role}: {held:?}");
    }
    for role in ROLES {
        if role != "keeper" {
            yard.kill(role);
        }
    }
    until("logins again", || (yard.ssh("alice").run("true").code == Some(0)).then_some(()));
}

/// Where no more descriptors can be had, sessions are refused and the audit says why; what runs runs on, nothing is held
/// for what was refused, and later ones are served. The limits end the making of a jail at different steps.
#[test]
fn a_bastion_short_of_descriptors_refuses_and_lives_on() {
    for limit in [60, 63, 66, 70] {
        let yard = Yard::new().user("alice").user("bob").before(&format!("ulimit -n {limit}")).start();
        let roles = ROLES.map(|role| yard.role(role));
        let mut first = yard.ssh("alice").terminal();
        first.prompt();
        let held = descriptors(yard.jailer()).len();
        let clients: Vec<_> = (0..4).map(|_| yard.ssh("bob").begin("sleep 1")).collect();
        for client in clients {
            let ran = client.wait();
            // Root with CAP_SYS_RESOURCE raises the limit, and has enough.
            let said = ["no jail could be made", "as many sessions as one user", "could not be started"];
            let refused = ran.code == Some(253) && said.iter().any(|said| ran.stderr.contains(said));
            assert!(refused || ran.code == Some(0), "{limit}: {ran:?}");
        }
        // But the user namespaces of the four slots, which are made once.
        until("all is given back", || (descriptors(yard.jailer()).len() <= held + 4).then_some(()));
        for event in yard.audit().of("SK2002I") {
            assert_ne!(event["unmapped"]["reason"], "the jail ended", "{limit}: it never stood");
        }
        assert_eq!(first.shell("echo runs on"), "runs on");
        first.enter("exit");
        assert_eq!(first.end(), 0);
        until("later ones", || (yard.ssh("bob").terminal_of("true").end() == 0).then_some(()));
        assert_eq!(ROLES.map(|role| yard.role(role)), roles, "{limit}: nobody died of it: {}", yard.log());
    }
}
