//! Issue item "Keeper and recording": "the one fdatasync before its echo covers both; at most one on the login path".

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::roles::link;
use crate::yard::{Yard, status_of, until};

/// strace, until it is dropped.
struct Trace(Child);

impl Trace {
    fn of(pid: u32, calls: &str, into: &Path) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-y", "-e", &format!("trace={calls}"), "-p", &pid.to_string(), "-o"]).arg(into);
        let child = strace.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("strace is installed");
        let own = child.id();
        let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let traced =
            |thread: u32| status_of(thread).is_none_or(|status| status.contains(&format!("TracerPid:\t{own}\n")));
        until("strace at every thread", || {
            threads().all(|thread| traced(thread.file_name().to_str().unwrap().parse().unwrap())).then_some(())
        });
        Self(child)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // It lets go of its process.
        crate::yard::signal(self.0.id(), "INT");
        let _ = self.0.wait();
    }
}

/// What the warden waits for is the keeper's word that the recording is begun: until then one fdatasync of the recording and
/// nothing else that waits for a disk. The audit's own goes on beside it.
#[test]
fn a_login_waits_for_one_fdatasync() {
    let yard = Yard::new().user("alice").start();
    // The day's directories are made, once.
    yard.ssh("alice").run("true").ok();
    // Its recording may still be on its way to the disk when the next begins.
    let former = yard.sessions()[0]["session"].as_str().unwrap().to_owned();
    let (keeper, log) = (yard.role("keeper"), yard.path("strace"));
    let to_warden = format!("sendmsg({}<", link(&yard, "keeper", "warden"));
    let trace = Trace::of(keeper, "fdatasync,fsync,sync_file_range,sendmsg", &log);
    let mut session = yard.ssh("alice").begin("exec sleep 1000");
    yard.audit().wait_for("SK3001I", |event| event["unmapped"]["arguments"][0] == "sleep");
    drop(trace);
    session.kill();
    session.wait();
    let text = std::fs::read_to_string(&log).unwrap();
    let before: Vec<&str> = text.lines().take_while(|line| !line.contains(&to_warden)).collect();
    assert!(before.len() < text.lines().count(), "the warden was told nothing: {text}");
    let counts = |line: &&&str| line.contains("sync(") && !line.contains(&former);
    let syncs = |what: &str| before.iter().filter(counts).filter(|line| line.contains(what)).count();
    assert_eq!(syncs(".stk>"), 1, "{text}");
    assert!(syncs("") - syncs("audit.jsonl>") <= 1, "{text}");
}
