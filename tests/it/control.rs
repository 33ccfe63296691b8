//! Issue 5, items 4 and 6: the verbs over SSH and the kubeconfig in a jail, with clusters of the configuration.

use std::os::unix::fs::PermissionsExt;

use crate::yard::{Plan, Terminal, Yard, until};

const AUTHORITY: &str = include_str!("../../src/config/tests/ca.pem");

/// A bastion that knows these clusters; no server is behind them.
fn with_clusters(names: &[&str]) -> Plan {
    let plan = Yard::new().user("alice").user("bob");
    let file = plan.path("kubeconfig");
    use base64::Engine;
    let authority = base64::engine::general_purpose::STANDARD.encode(AUTHORITY);
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: c\n  cluster:\n    \
         server: https://192.0.2.1:6443\n    certificate-authority-data: {authority}\ncontexts:\n- name: c\n  \
         context: {{cluster: c, user: u}}\nusers:\n- name: u\n  user: {{token: t}}\n"
    );
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let settings = clusters(&plan.path("kubeconfig").display().to_string(), names);
    plan.config(&settings)
}

fn clusters(kubeconfig: &str, names: &[&str]) -> String {
    let cluster = |name: &&str| format!("{{name = '{name}', way = 'kubeconfig', kubeconfig = '{kubeconfig}'}}");
    let all: Vec<String> = names.iter().map(cluster).collect();
    format!("[kube]\ncluster = [{}]\nallow = [{{groups = ['*']}}]\n[users.groups]\nops = ['alice']", all.join(", "))
}

/// "parsed and answered by the warden: no jail, no shell, no home"
#[test]
fn a_verb_is_answered_without_a_jail() {
    let yard = with_clusters(&["hyades"]).start();
    let ran = yard.ssh("alice").run("stockade whoami --json");
    let said: serde_json::Value = serde_json::from_str(&ran.ok()).unwrap();
    assert_eq!((&said["user"], &said["clusters"]), (&"alice".into(), &serde_json::json!(["hyades"])));
    assert_eq!(yard.ssh("alice").run("stockade clusters").ok(), "hyades");
    let answered = yard.audit().wait_for("SK2007I", |event| event["unmapped"]["status"] == 0);
    assert_eq!((&answered["user"]["name"], &answered["api"]["operation"]), (&"alice".into(), &"whoami".into()));
    for hostile in ["stockade; id", "stockade $(id)", "stockade `id`", "stockade whoami\nid", "stockade whoami | id"] {
        let ran = yard.ssh("alice").run(hostile);
        assert_eq!((ran.code, ran.text().as_str()), (Some(64), ""), "{hostile:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("stockade"), "{}", ran.stderr);
    }
    let mut terminal = yard.ssh("alice").terminal_of("stockade whoami");
    assert_eq!(terminal.end(), 0);
    assert!(String::from_utf8_lossy(&terminal.all()).contains("user               alice\r\n"));
    // Nothing ran, and only for the first, of which nobody knew what it was for, a jail was begun.
    assert!(yard.audit().of("SK2003I").is_empty());
    assert_eq!(yard.audit().of("SK2001I").len(), 1);
}

/// "a planted `.bashrc` function would answer otherwise, and a laptop would run its `exec:` line"
#[test]
fn what_lies_in_a_home_answers_no_verb() {
    let yard = with_clusters(&["hyades"]).start();
    let plant = "mkdir -p ~/bin; for f in .bashrc .bash_profile .profile .bash_env; do \
                 echo 'stockade() { echo planted; }; PATH=~/bin:$PATH' > ~/$f; done; \
                 printf '#!/bin/sh\\necho planted\\n' > ~/bin/stockade; chmod +x ~/bin/stockade";
    yard.ssh("alice").run(plant).ok();
    assert_eq!(yard.ssh("alice").run("stockade clusters").ok(), "hyades");
    let ran = yard.ssh("alice").run("stockade token hyades");
    assert_eq!((ran.code, ran.text().as_str()), (Some(69), ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("no public kube door"), "{}", ran.stderr);
}

#[test]
fn the_verbs_of_a_jail_ask_its_door() {
    let yard = with_clusters(&["hyades", "taurus"]).start();
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    assert_eq!(alice.shell("stockade clusters"), "hyades\ntaurus");
    let file = alice.shell("stockade kubeconfig");
    assert!(file.contains("server: http://127.0.0.1:6443/clusters/taurus"), "{file}");
    let refused = alice.shell("stockade token hyades; echo $?");
    assert!(refused.contains("for a laptop") && refused.ends_with('1'), "{refused}");
}

/// "written into the jail at start (one context per allowed cluster, namespace remembered per user across sessions)"
#[test]
fn a_kubeconfig_is_there_at_login_and_remembers() {
    let yard = with_clusters(&["hyades", "taurus"]).start();
    let file = yard.ssh("alice").run("cat ~/.kube/config; stat -c %a ~/.kube/config >&2").ok();
    for line in ["current-context: hyades", "server: http://127.0.0.1:6443/clusters/taurus", "user: {}"] {
        assert!(file.contains(line), "{line}: {file}");
    }
    assert!(!file.contains("192.0.2.1") && !file.contains("token"), "nothing secret: {file}");
    // As kubectl, kubens and an editor change it.
    yard.ssh("alice")
        .run(
            "sed -i 's/^    user: stockade/    namespace: web\\n&/; s/^current.*/current-context: taurus/' \
                           ~/.kube/config; stat -c %i ~/.kube/config > ~/inode",
        )
        .ok();
    let again = yard.ssh("alice").run("cat ~/.kube/config; stat -c %i ~/.kube/config | diff - ~/inode").ok();
    assert!(again.contains("namespace: web") && again.contains("current-context: taurus"), "{again}");
    assert!(!yard.ssh("bob").run("cat ~/.kube/config").ok().contains("namespace"), "bob has his own");
}

/// The shell is what it is without clusters.
#[test]
fn the_shell_that_follows_is_the_users_own() {
    let yard = with_clusters(&["hyades"]).start();
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    assert_eq!(alice.shell("echo $0 ${STOCKADE_CLUSTERS-none}"), "-bash none");
    assert_eq!(alice.shell("yes | head -1; echo ${PIPESTATUS[0]}"), "y\n141");
    assert_eq!(yard.ssh("alice").run("exit 7").code, Some(7));
    let session = yard.audit().wait_for("SK2001I", |_| true)["session"]["uid"].clone();
    let execs = yard.audit().of("SK3001I");
    let of_login: Vec<&str> = execs
        .iter()
        .filter(|event| event["session"]["uid"] == session && event["unmapped"]["channel"] == 1)
        .filter_map(|event| event["process"]["file"]["path"].as_str())
        .take(2)
        .collect();
    assert_eq!(of_login, ["/usr/local/bin/stockade", "/bin/bash"]);
}

/// "Malformed: leave it alone and write one sentence on interactive terminals (never break the login)"
#[test]
fn what_cannot_be_read_is_left_alone() {
    let yard = with_clusters(&["hyades"]).start();
    yard.ssh("alice").run("echo '{' > ~/.kube/config").ok();
    let mut alice = yard.ssh("alice").terminal();
    alice.wait_for("/home/alice/.kube/config is left as it is");
    alice.prompt();
    assert_eq!(alice.shell("cat ~/.kube/config"), "{");
    let ran = yard.ssh("alice").run("rm -r ~/.kube; echo x > ~/.kube");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_eq!(yard.ssh("alice").run("cat ~/.kube").ok(), "x");
}

/// "renewed when clusters appear or vanish during a session, the user's own extra contexts kept"
#[test]
fn a_kubeconfig_follows_during_a_session() {
    let yard = with_clusters(&["hyades"]).start();
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    alice.shell("sed -i 's/^contexts:/&\\n- name: own\\n  context: {cluster: own, user: own}/' ~/.kube/config");
    let contexts =
        |alice: &mut Terminal| alice.shell("grep -o 'clusters/.*\\|name: own' ~/.kube/config | tr '\\n' ' '");
    assert_eq!(contexts(&mut alice), "clusters/hyades name: own");
    let file = yard.path("kubeconfig").display().to_string();
    for (names, expected) in [
        (&["hyades", "taurus"][..], "clusters/hyades clusters/taurus name: own"),
        (&["taurus"], "clusters/taurus name: own"),
    ] {
        yard.configure(&clusters(&file, names));
        yard.signal("HUP");
        until("the contexts of today", || (contexts(&mut alice) == expected).then_some(()));
    }
    // What followed had no client; the session ends with the user's own program.
    alice.enter("exit");
    alice.end();
    let recording = yard.only_recording();
    assert!(recording.show().contains("the kubeconfig follows"), "{}", recording.show());
}
