//! Issue 5, "`kubectl get pods`, `k9s`, `kubectx`, `kubens` just work", and helm: the jail's other tools on real clusters.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::kube::{bastion, pod};
use crate::yard::{Clusters, until};

/// "kubectx/kubens ... namespace remembered per user across sessions"
#[test]
fn kubectx_and_kubens_are_remembered() {
    let clusters = Clusters::start();
    let yard = bastion(clusters);
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    assert_eq!(alice.shell("kubectx -c; kubectx | cat"), "hyades\nhyades\npleiades");
    alice.shell("kubectx pleiades; kubens team-b");
    alice.wait_for(r"\(pleiades:team-b\) alice@stockade");
    assert_eq!(alice.shell("kubectl get pods -o name"), "pod/web");
    // What other sessions see, and the next.
    assert_eq!(yard.ssh("alice").run("kubectx -c; kubens -c").ok(), "pleiades\nteam-b");
    alice.shell("kubectx hyades");
    alice.shell("kubens team-a");
    alice.enter("exit");
    alice.end();
    assert_eq!(yard.ssh("alice").run("kubectx -c; kubens -c").ok(), "hyades\nteam-a");
    assert_eq!(yard.ssh("alice").run("kubectx - && kubens -c").ok().lines().last(), Some("team-b"));
    assert_eq!(yard.ssh("bob").run("kubectx; kubectx -c; kubens -c").ok(), "hyades\nhyades\ndefault");
}

const CHART: &str = r#"mkdir -p chart/templates && cd chart
printf 'apiVersion: v2\nname: tiny\nversion: 0.1.0\n' > Chart.yaml
echo 'colour: red' > values.yaml
cat > templates/pod.yaml <<'END'
apiVersion: v1
kind: Pod
metadata: {name: "{{ .Release.Name }}-{{ .Values.colour }}"}
spec: {nodeName: node-0, containers: [{name: app, image: none.invalid/app, command: [sleep, "1000"]}]}
END
"#;

/// "helm install/upgrade/rollback"
#[test]
fn helm_installs_upgrades_and_rolls_back() {
    let clusters = Clusters::start();
    let cluster = clusters.hyades();
    let namespace = cluster.namespace("helm");
    let yard = bastion(clusters);
    let pods = || cluster.as_admin(&["-n", &namespace, "get", "pods", "-o", "name"]);
    let helm = |line: &str| yard.ssh("alice").run(&format!("helm -n {namespace} {line}")).ok();
    yard.ssh("alice").run(CHART).ok();
    assert!(helm("install one chart --wait --timeout 50s").contains("STATUS: deployed"));
    assert_eq!(pods(), "pod/one-red\npod/web");
    assert!(helm("upgrade one chart --set colour=blue --wait --timeout 50s").contains("REVISION: 2"));
    until("the pod of the second", || (pods() == "pod/one-blue\npod/web").then_some(()));
    assert!(helm("rollback one 1 --wait --timeout 50s").contains("success"));
    until("the pod of the first", || (pods() == "pod/one-red\npod/web").then_some(()));
    assert_eq!(helm("history one -o json | jq -r '.[].status'"), "superseded\nsuperseded\ndeployed");
    helm("uninstall one --wait --timeout 50s");
    // What helm keeps lies in Secrets, whose bodies nobody notes.
    let noted = yard.audit().of("SK5201I");
    let of_secrets = noted.iter().filter(|e| e["unmapped"]["kubernetes"]["objectRef"]["resource"] == "secrets");
    let bodies = of_secrets.filter(|event| !event["unmapped"]["kubernetes"]["requestObject"].is_null());
    assert_eq!(bodies.count(), 0);
}

/// "k9s driven in a terminal (list, describe, logs, shell into a pod, ... edit, delete)"
#[test]
fn k9s_lists_describes_follows_enters_edits_and_deletes() {
    let clusters = Clusters::start();
    let cluster = clusters.hyades();
    let namespace = cluster.namespace("k9s");
    let talker = pod("talker").replace(r#"["sleep", "1000"]"#, r#"["sh", "-c", "echo heard-$((6*7)); sleep 1000"]"#);
    let place = format!("\"metadata\": {{\"namespace\": \"{namespace}\", \"labels\": {{\"colour\": \"red\"}}, ");
    cluster.apply(&talker.replacen("\"metadata\": {", &place, 1));
    cluster.as_admin(&["-n", &namespace, "wait", "--for=condition=Ready", "pod/talker", "--timeout", "20s"]);
    let yard = bastion(clusters);
    let mut k9s = yard.ssh("alice").terminal();
    k9s.resize(150, 45);
    k9s.prompt();
    until("the size", || (k9s.shell("stty size") == "45 150").then_some(()));
    k9s.shell("export EDITOR='sed -i s/red/blue/' KUBE_EDITOR='sed -i s/red/blue/'");
    k9s.enter(&format!("k9s -n {namespace} -c pods; echo ended-$?"));
    // The first row, which is chosen.
    k9s.wait_for("talker");
    k9s.wait_for("web");
    k9s.type_text("d");
    k9s.wait_for("none.invalid/talker");
    k9s.type_text("\u{1b}");
    k9s.wait_for("web");
    k9s.type_text("l");
    k9s.wait_for("heard-42");
    k9s.type_text("\u{1b}");
    k9s.wait_for("web");
    k9s.type_text("s");
    k9s.wait_for(r"[$#] $");
    k9s.enter("echo inside-$((6*7))");
    k9s.wait_for("inside-42");
    k9s.enter("exit");
    k9s.wait_for("web");
    let entered = yard.audit().wait_for("SK5203I", |event| event["unmapped"]["namespace"] == *namespace);
    assert_eq!((&entered["unmapped"]["pod"], &entered["unmapped"]["terminal"]), (&"talker".into(), &true.into()));
    k9s.type_text("e");
    let blue = ["-n", &namespace, "get", "pods", "-l", "colour=blue", "-o", "name"];
    until("an edited pod", || (cluster.as_admin(&blue) == "pod/talker").then_some(()));
    k9s.wait_for("web");
    k9s.type_text("\u{4}");
    k9s.wait_for("(?i)delete.*talker|talker.*\\?");
    k9s.type_text("\t\r");
    until("the pod's end", || {
        (cluster.as_admin(&["-n", &namespace, "get", "pods", "-o", "name"]) == "pod/web").then_some(())
    });
    k9s.type_text(":q\r");
    k9s.wait_for("ended-0");
    k9s.enter("exit");
    k9s.end();
    let recording = yard.recording(entered["session"]["uid"].as_str().unwrap()).closed();
    let of_stream: Vec<_> = recording.of("output").into_iter().filter(|event| event["channel"] == "k1").collect();
    assert!(of_stream.iter().any(|event| event.to_string().contains("inside-42")), "{of_stream:#?}");
}

/// "k9s driven in a terminal (... port-forward ...)"
#[test]
fn k9s_forwards_a_port() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut heard = [0; 6];
            if stream.read_exact(&mut heard).is_ok() {
                stream.write_all(&heard).unwrap();
            }
        }
    });
    let clusters = Clusters::start();
    let cluster = clusters.hyades();
    let namespace = cluster.namespace("k9s");
    let place = format!("\"metadata\": {{\"namespace\": \"{namespace}\", ");
    let ports = format!("\"ports\": [{{\"containerPort\": {port}}}], \"command\"");
    cluster.apply(&pod("listens").replacen("\"metadata\": {", &place, 1).replace("\"command\"", &ports));
    cluster.as_admin(&["-n", &namespace, "wait", "--for=condition=Ready", "pod/listens", "--timeout", "20s"]);
    let yard = bastion(clusters);
    let mut k9s = yard.ssh("alice").terminal();
    k9s.resize(150, 45);
    k9s.prompt();
    until("the size", || (k9s.shell("stty size") == "45 150").then_some(()));
    k9s.shell(&format!(
        "(until exec 3<>/dev/tcp/127.0.0.1/{port}; do sleep 0.2; done; echo hello >&3; head -1 <&3 > heard) 2> /dev/null & echo"
    ));
    k9s.enter(&format!("k9s -n {namespace} -c pods"));
    k9s.wait_for("listens");
    k9s.type_text("F");
    k9s.wait_for("(?i)local port");
    k9s.type_text("\t\t\t\r");
    yard.audit().wait_for("SK5201I", |event| {
        let about = &event["unmapped"]["kubernetes"]["objectRef"];
        about["namespace"] == *namespace && about["subresource"] == "portforward"
    });
    // Another jail of hers, with the same home.
    until("an echo", || (yard.ssh("alice").run("cat heard").text() == "hello").then_some(()));
    k9s.kill();
}
