//! Parts of the kernel that no shell needs, most of them once the way of an exploit; and settings of the whole host.

use libc::{
    SYS_acct, SYS_add_key, SYS_adjtimex, SYS_bpf, SYS_clock_adjtime, SYS_clock_settime, SYS_delete_module,
    SYS_fanotify_init, SYS_finit_module, SYS_init_module, SYS_io_uring_enter, SYS_io_uring_register,
    SYS_io_uring_setup, SYS_ioctl, SYS_ioperm, SYS_iopl, SYS_kexec_file_load, SYS_kexec_load, SYS_keyctl,
    SYS_modify_ldt, SYS_name_to_handle_at, SYS_open_by_handle_at, SYS_perf_event_open, SYS_personality, SYS_quotactl,
    SYS_reboot, SYS_request_key, SYS_setdomainname, SYS_sethostname, SYS_settimeofday, SYS_swapoff, SYS_swapon,
    SYS_sync, SYS_syncfs, SYS_syslog, SYS_userfaultfd, SYS_vhangup,
};

use super::attempt::Arg::{self, N, Room, Text, Words};
use super::attempt::Attempt::{Call, Run};
use super::attempt::{Found, Row, all, tried};
use crate::jailer::allows;
use crate::sys::attempt::{Ended, call, call_i386};
use crate::sys::clone::Alone;
use crate::sys::seccomp::{ALLOW, FIRST_UNKNOWN, Instruction, RETURN, X32, step};

const NO_DESCRIPTOR: u64 = u64::MAX;
const HERE: u64 = libc::AT_FDCWD as u64;
const HIGH: u64 = 1 << 32;
/// An address at which there is nothing.
const NOWHERE: u64 = 1;

const fn row(name: &'static str, what: &'static str, number: i64, arguments: &'static [Arg]) -> Row {
    Row { name, what, attempt: Call(number, arguments) }
}

/// On no descriptor: what the filter lets through the kernel answers with EBADF.
const fn ioctl(name: &'static str, what: &'static str, arguments: &'static [Arg]) -> Row {
    row(name, what, SYS_ioctl, arguments)
}

pub(super) const ROWS: &[Row] = &[
    row("bpf", "bpf", SYS_bpf, &[N(0), N(0), N(0)]),
    row("perf-event-open", "perf_event_open", SYS_perf_event_open, &[N(NOWHERE), N(0), N(0), N(NO_DESCRIPTOR), N(0)]),
    row("userfaultfd", "userfaultfd", SYS_userfaultfd, &[N(0)]),
    row("userfaultfd-user", "userfaultfd, of user mode only", SYS_userfaultfd, &[N(1)]),
    row("io-uring-setup", "io_uring_setup", SYS_io_uring_setup, &[N(1), Room]),
    row("io-uring-enter", "io_uring_enter", SYS_io_uring_enter, &[N(NO_DESCRIPTOR), N(0), N(0), N(0), N(0), N(0)]),
    row("io-uring-register", "io_uring_register", SYS_io_uring_register, &[N(NO_DESCRIPTOR), N(0), N(0), N(0)]),
    row("keyctl", "ask for the session's keyring", SYS_keyctl, &[N(0), N(-3_i64 as u64), N(0)]),
    // A thread's keyring ends with it.
    row("add-key", "add a key", SYS_add_key, &[Text(c"user"), Text(c"stockade-probe"), Text(c"x"), N(1), N(u64::MAX)]),
    row("request-key", "request a key", SYS_request_key, &[Text(c"user"), Text(c"stockade-probe"), N(0), N(0)]),
    row("fanotify-init", "fanotify_init", SYS_fanotify_init, &[N(0), N(0)]),
    // A handle of no type is nobody's file; rights are asked for first.
    row("open-by-handle-at", "open_by_handle_at (shocker)", SYS_open_by_handle_at, &[N(HERE), Words(&[8, 0]), N(0)]),
    row("name-to-handle-at", "name_to_handle_at", SYS_name_to_handle_at, &[N(HERE), Text(c"/"), Room, Room, N(0)]),
    // More segments than there may be, and flags that do not exist.
    row("kexec-load", "kexec_load", SYS_kexec_load, &[N(0), N(1_000_000), N(NOWHERE), N(0xFFFF)]),
    row(
        "kexec-file-load",
        "kexec_file_load",
        SYS_kexec_file_load,
        &[N(NO_DESCRIPTOR), N(NO_DESCRIPTOR), N(0), N(NOWHERE), N(0xFFFF_FFFF)],
    ),
    row("init-module", "load a module", SYS_init_module, &[N(NOWHERE), N(0), Text(c"")]),
    row("finit-module", "load a module's file", SYS_finit_module, &[N(NO_DESCRIPTOR), Text(c""), N(0xFF)]),
    row("delete-module", "unload a module", SYS_delete_module, &[Text(c"stockade-no-such"), N(0x800)]),
    // None of the magic numbers.
    row("reboot", "reboot", SYS_reboot, &[N(0), N(0), N(0), N(0)]),
    row("swapon", "swapon", SYS_swapon, &[Text(c"/stockade-no-such"), N(0)]),
    row("swapoff", "swapoff", SYS_swapoff, &[Text(c"/stockade-no-such")]),
    row("acct", "account processes in a file", SYS_acct, &[Text(c"/stockade-no-such")]),
    row("quotactl", "quotactl", SYS_quotactl, &[N(0xFFFF_FFFF), N(0), N(0), N(0)]),
    // Neither a time nor a zone, then a time and a step that are no times.
    row("settimeofday", "set the clock (settimeofday)", SYS_settimeofday, &[N(0), N(0)]),
    row("clock-settime", "set the clock (clock_settime)", SYS_clock_settime, &[N(0), Words(&[0, 2_000_000_000])]),
    row("adjtimex", "set the clock (adjtimex)", SYS_adjtimex, &[Words(&STEP)]),
    row("clock-adjtime", "set the clock (clock_adjtime)", SYS_clock_adjtime, &[N(0), Words(&STEP)]),
    row("sethostname", "rename the host", SYS_sethostname, &[N(NOWHERE), N(u64::MAX)]),
    row("setdomainname", "rename the host's domain", SYS_setdomainname, &[N(NOWHERE), N(u64::MAX)]),
    row("syslog", "read the kernel's log", SYS_syslog, &[N(3), Room, N(64)]),
    row("iopl", "touch I/O ports (iopl)", SYS_iopl, &[N(3)]),
    row("ioperm", "touch I/O ports (ioperm)", SYS_ioperm, &[N(0x80), N(1), N(1)]),
    row("modify-ldt", "modify_ldt", SYS_modify_ldt, &[N(0), Room, N(16)]),
    row("personality", "switch address randomisation off", SYS_personality, &[N(0x004_0000)]),
    // One jail could stall all that write.
    row("sync", "sync every file system", SYS_sync, &[]),
    row("syncfs", "sync a file system", SYS_syncfs, &[N(NO_DESCRIPTOR)]),
    Row { name: "vhangup", what: "hang up the terminal, having none", attempt: Run(hang_up) },
    // Types into, listens to, or takes over the terminal that the keeper reads.
    ioctl("tiocsti", "type into a terminal (TIOCSTI)", &[N(NO_DESCRIPTOR), N(0x5412), Text(c" ")]),
    ioctl("tiocsti-high-bits", "TIOCSTI, bit 32 set", &[N(NO_DESCRIPTOR), N(0x5412 | HIGH), Text(c" ")]),
    ioctl("tioclinux", "paste into a console (TIOCLINUX)", &[N(NO_DESCRIPTOR), N(0x541C), Text(c"\x06")]),
    ioctl("tioclinux-high-bits", "TIOCLINUX, bit 32 set", &[N(NO_DESCRIPTOR), N(0x541C | HIGH), Text(c"\x06")]),
    ioctl("tiocsetd", "change the line discipline (TIOCSETD)", &[N(NO_DESCRIPTOR), N(0x5423), Words(&[0])]),
    ioctl("tiocsetd-high-bits", "TIOCSETD, bit 32 set", &[N(NO_DESCRIPTOR), N(0x5423 | HIGH), Words(&[0])]),
    ioctl("tioccons", "take the console's output (TIOCCONS)", &[N(NO_DESCRIPTOR), N(0x541D)]),
    ioctl("tioccons-high-bits", "TIOCCONS, bit 32 set", &[N(NO_DESCRIPTOR), N(0x541D | HIGH)]),
    Row { name: "abi-x32", what: "a call of the x32 ABI", attempt: Run(x32) },
    Row { name: "abi-x32-unshare", what: "unshare by its x32 number", attempt: Run(x32_unshare) },
    Row { name: "abi-i386", what: "a call of the 32-bit ABI", attempt: Run(i386) },
    Row { name: "calls-unlisted", what: "every call that is not on the jail's list", attempt: Run(unlisted) },
    row("memfd-secret", "memfd_secret", 447, &[N(0xFFFF_FFFF)]),
    row("call-unknown", "a call newer than any list", 4000, &[]),
    Row { name: "notify-second", what: "take over the exec notifications", attempt: Run(second_listener) },
];

/// `struct timex`: ADJ_SETOFFSET by less than no time at all.
const STEP: [u64; 26] = {
    let mut timex = [0; 26];
    timex[0] = 0x0100;
    timex[10] = u64::MAX;
    timex
};

/// In a jail the filter answers; a child without a terminal has none to lose.
fn hang_up(alone: &Alone) -> Found {
    match rustix::termios::tcgetpgrp(std::io::stdin()).is_ok() && rustix::process::getuid().is_root() {
        // Root with a terminal would lose it.
        true => Found::GaveWay("not tried: root is not refused".into()),
        false => tried(call(alone, SYS_vhangup, [0; 6])),
    }
}

fn x32(alone: &Alone) -> Found {
    tried(call(alone, libc::SYS_getpid | i64::from(X32), [0; 6]))
}

fn x32_unshare(alone: &Alone) -> Found {
    tried(call(alone, libc::SYS_unshare | i64::from(X32), [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0]))
}

/// With all arguments -1: an address at which there is nothing, a descriptor that is not open, flags that do not exist.
fn unlisted(alone: &Alone) -> Found {
    // uretprobe and uprobe: Linux asks no filter, and answers with SIGILL whoever is not sent by a probe of its own.
    const UNFILTERED: [i64; 2] = [335, 336];
    let untried = |number: i64| allows(number) || UNFILTERED.contains(&number) || number == SYS_vhangup;
    let calls = (0..i64::from(FIRST_UNKNOWN)).filter(|number| !untried(*number));
    let one = |number: i64| match tried(call(alone, number, [u64::MAX; 6])) {
        Found::GaveWay(found) => Found::GaveWay(format!("call {number}: {found}")),
        held => held,
    };
    all(calls.map(one), "refused")
}

/// A kernel without this ABI kills as well, by SIGSEGV.
fn i386(alone: &Alone) -> Found {
    const GETPID: u32 = 20;
    match call_i386(alone, GETPID) {
        Ok(Ended::Killed(libc::SIGSEGV)) => Found::Held("unknown here".into()),
        ended => tried(ended),
    }
}

/// The kernel gives a process one listener. Where execs are not reported nothing is there to be taken over.
fn second_listener(alone: &Alone) -> Found {
    const SET_MODE_FILTER: u64 = 1;
    const NEW_LISTENER: u64 = 8;
    let program: [Instruction; 1] = [step(RETURN, ALLOW)];
    // `struct sock_fprog`
    let filter = [1, program.as_ptr().addr() as u64];
    let address = filter.as_ptr().addr() as u64;
    match call(alone, libc::SYS_seccomp, [SET_MODE_FILTER, NEW_LISTENER, address, 0, 0, 0]) {
        Ok(Ended::Refused(libc::EBUSY)) => Found::Held("there is one already".into()),
        Ok(Ended::Done) if super::rights::filters() == Some(2) => Found::Held("this jail reports no execs".into()),
        ended => tried(ended),
    }
}
