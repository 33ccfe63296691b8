//! The exec audit, where tally dies with an attempt in its hands.

use crate::roles::{inode, link, sockets};
use crate::yard::{Yard, children, signal, until};

/// Bytes that wait in a process's socket.
fn unread(pid: u32, fd: u32) -> u64 {
    let own = inode(&std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap().to_string_lossy()).unwrap();
    sockets().into_iter().find(|(_, inode, _)| *inode == own).unwrap().0
}

/// The kernel gives an attempt to one receiver only: what a tally had taken and not answered when it was killed, the next
/// one lists and answers.
#[test]
fn an_exec_in_a_killed_tallys_hands_goes_on() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    // By a signal, for the keeper that stands still passes no key on.
    terminal.shell("trap '/bin/echo out of dead hands; told=1' USR1");
    terminal.enter("echo waits; while [ -z $told ]; do read -t 0.1; done");
    terminal.wait_for("\nwaits\r\n");
    let is_shell = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "bash\n");
    let shell = children(yard.jailer()).into_iter().find(is_shell).unwrap();
    let (tally, keeper) = (yard.role("tally"), yard.role("keeper"));
    let unheard = link(&yard, "keeper", "tally");
    signal(keeper, "STOP");
    signal(shell, "USR1");
    until("an attempt that was taken and told", || (unread(keeper, unheard) > 0).then_some(()));
    yard.kill("tally");
    assert_ne!(yard.role("tally"), tally);
    signal(keeper, "CONT");
    terminal.wait_for("out of dead hands\r\n");
    yard.audit().wait_for("SK3001I", |event| {
        event["unmapped"]["arguments"].as_array().is_some_and(|all| all.iter().any(|one| one == "hands"))
    });
    terminal.prompt();
    terminal.enter("exit 0");
    assert_eq!(terminal.end(), 0);
}
