//! Issue item 2: "Shell with PTY (TERM, modes, resize, UTF-8, job control, `tty` works)", in real terminals.

use crate::yard::Yard;

/// "TERM", "`tty` works", and the size is the client's from the start.
#[test]
fn a_shell_has_a_terminal() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    assert_eq!(terminal.shell("echo $TERM"), "xterm-256color");
    assert_eq!(terminal.shell("tty"), "/dev/pts/0");
    assert_eq!(terminal.shell("stty size"), "24 80");
    assert_eq!(terminal.shell("test -t 0 && test -t 1 && test -t 2 && echo all"), "all");
    assert_eq!(terminal.shell("id -un; pwd"), "alice\n/home/alice");
    assert_eq!(terminal.shell("shopt -q login_shell && echo login"), "login");
    terminal.enter("exit 7");
    assert_eq!(terminal.end(), 7);
}

/// "resize": seen by `stty size`, and told by SIGWINCH.
#[test]
fn a_resize_is_seen_in_the_jail() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    terminal.enter("trap 'echo now $(stty size)' WINCH; echo set");
    terminal.wait_for("\nset\r\n");
    terminal.prompt();
    terminal.resize(132, 50);
    // bash runs a trap when the next command has ended.
    terminal.enter("sleep 0.3");
    terminal.wait_for("now 50 132");
    terminal.prompt();
    assert_eq!(terminal.shell("stty size"), "50 132");
}

/// "UTF-8": what is typed and shown is not cut inside a character, and the line editor erases whole ones.
#[test]
fn characters_stay_whole() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    assert_eq!(terminal.shell("echo 'äöü — 日本語 🦀'"), "äöü — 日本語 🦀");
    terminal.enter("cat >/tmp/typed");
    terminal.wait_for("typed\r\n");
    // In the terminal's own line discipline: IUTF8 came with the client's modes.
    terminal.type_text("aä\u{7f}b\r");
    terminal.type_text("\u{4}");
    terminal.prompt();
    assert_eq!(terminal.shell("cat /tmp/typed"), "ab");
}

/// "job control": ^Z stops, fg goes on, ^C interrupts, and the shell outlives it all.
#[test]
fn jobs_stop_go_on_and_are_interrupted() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    terminal.enter("sleep 500");
    terminal.wait_for("sleep 500\r\n");
    // The shell must have given the terminal away before the key is one of the job's.
    yard.foreground("sleep 500");
    terminal.type_text("\u{1a}");
    terminal.wait_for("Stopped");
    terminal.prompt();
    assert!(terminal.shell("jobs").contains("Stopped"));
    terminal.enter("fg");
    terminal.wait_for("\nsleep 500\r\n");
    yard.foreground("sleep 500");
    terminal.type_text("\u{3}");
    terminal.prompt();
    assert_eq!(terminal.shell("echo $?"), "130");
    terminal.enter("(sleep 0.2; echo from behind) & wait");
    terminal.wait_for("from behind\r\n");
}

/// Whoever starts a bastion in the background of a script has it ignore SIGINT, and what is ignored is inherited: even
/// signal 32, which the C library keeps to itself.
#[test]
fn a_jail_has_all_signals_whatever_the_bastion_ignores() {
    let rt_sigaction = r#"$a = pack("Q4", 1, 0, 0, 0); syscall(13, 32, $a, 0, 8) == 0 or die $!; exec @ARGV"#;
    let before = format!("trap '' INT QUIT TSTP USR1\nexec perl -e '{rt_sigaction}' \"$@\"");
    let yard = Yard::new().user("alice").before(&before).start();
    let ignored = yard.ssh("alice").run("grep SigIgn /proc/self/status");
    assert_eq!(ignored.ok(), "SigIgn:\t0000000000000000");
}

/// "modes": the client's terminal modes are the jail's; RFC 4254 section 8.
#[test]
fn modes_are_passed_on() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    let modes = terminal.shell("stty -a");
    assert!(modes.contains("intr = ^C") && modes.contains("susp = ^Z") && modes.contains(" echo "), "{modes}");
    assert!(modes.contains(" iutf8"), "{modes}");
}

/// `ssh -t HOST CMD`: a command with a terminal, and its exit status.
#[test]
fn a_command_may_have_a_terminal() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal_of("tty; exit 9");
    terminal.wait_for("/dev/pts/0\r\n");
    assert_eq!(terminal.end(), 9);
}

/// A session ends with its shell even while something in the jail still holds the terminal.
#[test]
fn logging_out_ends_what_was_left_running() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    terminal.shell("nohup sleep 1000 >/dev/null 2>&1 & disown");
    terminal.enter("exit");
    assert_eq!(terminal.end(), 0);
    yard.audit().wait_for("SK2002I", |_| true);
}

/// "keep-alive": a client that no longer answers is cut, though its kernel does; one that is only idle stays.
#[test]
fn a_client_that_no_longer_answers_is_cut() {
    let yard = Yard::new().user("alice").user("bob").config("ssh.keepalive = '1s'").start();
    let (mut alice, mut bob) = (yard.ssh("alice").terminal(), yard.ssh("bob").terminal());
    alice.prompt();
    bob.prompt();
    alice.stop();
    let closed = yard.audit().wait_for("SK2002I", |_| true);
    assert_eq!(closed["user"]["name"], "alice");
    assert_eq!(closed["unmapped"]["reason"], "the connection closed");
    let recording = yard.recording(closed["session"]["uid"].as_str().unwrap()).closed();
    assert!(recording.show().contains("whole and closed"), "{}", recording.show());
    assert_eq!(bob.shell("echo still here"), "still here");
    bob.enter("exit");
    assert_eq!(bob.end(), 0);
}

/// "0s: none": nobody is asked, and nobody is cut for not answering.
#[test]
fn without_keep_alive_an_idle_client_stays() {
    let yard = Yard::new().user("alice").config("ssh.keepalive = '0s'").start();
    assert_eq!(yard.ssh("alice").run("sleep 0.5; echo still here").ok(), "still here");
}
