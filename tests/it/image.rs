//! Issue 5, item "Image": the tools for Kubernetes in a jail, a prompt that knows the cluster, and what all is made of.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::yard::{Terminal, Yard, layout, spawn_with};

const TOOLS: [&str; 4] = ["aws-iam-authenticator", "helm", "k9s", "kubectl"];
/// Two clusters, as kubectl writes them; the third context is described as people do.
const KUBECONFIG: &str = "\
apiVersion: v1
clusters:
- cluster:
    server: http://127.0.0.1:6443/clusters/hyades
  name: hyades
contexts:
- context:
    cluster: hyades
    extensions:
    - extension:
        namespace: not-this
      name: not-this
    namespace: web
    user: alice
  name: hyades
- context:
    cluster: pleiades
    user: alice
  name: pleiades
- name: 'on the way'
  context: {cluster: hyades}
current-context: hyades
kind: Config
users: []
";

/// What `images/tools` pins.
fn version_of(tool: &str) -> String {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/tools").join(tool).join("go.mod");
    let text = std::fs::read_to_string(module).unwrap();
    let require = text.lines().find(|line| line.starts_with("require ") && !line.ends_with('(')).unwrap();
    require.rsplit(' ').next().unwrap().to_owned()
}

/// "kubectl, k9s, aws-iam-authenticator and helm as pinned Go modules", "kubectx and kubens from Debian", "fzf": all of
/// them start in a jail, below its filters and limits.
#[test]
fn the_tools_start_and_are_the_pinned_ones() {
    let yard = Yard::new().user("alice").start();
    for (tool, command) in [
        ("kubectl", "kubectl version --client"),
        ("k9s", "k9s version --short"),
        ("helm", "helm version --short"),
        ("aws-iam-authenticator", "aws-iam-authenticator version"),
    ] {
        let said = yard.ssh("alice").run(command).ok();
        assert!(said.contains(&version_of(tool)), "{command}: {said}");
    }
    for command in ["kubectx --help", "kubens --help", "fzf --version"] {
        assert!(!yard.ssh("alice").run(command).ok().is_empty(), "{command}");
    }
    let written = yard
        .ssh("alice")
        .run("kubectl config set-context hyades >/dev/null; kubectx hyades; kubectx -c; echo hyades | fzf -f hya")
        .ok();
    assert!(written.ends_with("hyades\nhyades"), "kubectx works by our kubectl: {written}");
}

/// "k9s driven in a terminal": without a cluster it draws its screen, and ends when told.
#[test]
fn k9s_draws_in_a_jail() {
    let yard = Yard::new().user("alice").start();
    write_kubeconfig(&yard);
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    terminal.enter("k9s --context hyades");
    terminal.wait_for(r"K9s Rev:");
    // A cluster that does not answer ends it after a while, or the key does: whichever comes first.
    terminal.type_text("\u{3}");
    terminal.wait_for("alice@");
    terminal.prompt();
    assert_eq!(terminal.shell("echo back"), "back");
}

/// "bash completion for all": read at the first TAB, and for every tool.
#[test]
fn a_tab_completes_each_tool() {
    let yard = Yard::new().user("alice").start();
    write_kubeconfig(&yard);
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    assert_eq!(terminal.shell("declare -F _init_completion || echo none"), "none", "nobody pays for it at login");
    for (typed, completed) in [
        ("kubectl ge", "kubectl get "),
        ("kubectl --context=pl", "kubectl --context=pleiades "),
        ("helm hist", "helm history "),
        ("k9s comp", "k9s completion "),
        ("aws-iam-authenticator serv", "aws-iam-authenticator server "),
        ("kubectx pl", "kubectx pleiades "),
        ("aws s3ap", "aws s3api "),
        ("git cherry-p", "git cherry-pick "),
    ] {
        terminal.type_text(&format!("{typed}\t"));
        terminal.wait_for(&regex::escape(completed));
        // Away with the line, whatever it would do.
        terminal.type_text("\u{3}");
        terminal.prompt();
    }
    // Its words come from a cluster, and there is none.
    assert!(terminal.shell("__load_completion kubens; complete -p kubens").contains("_kube_namespaces"));
}

/// "prompt shows context and namespace cheaply": it follows kubectl, and starts nothing at all to do so.
#[test]
fn the_prompt_knows_the_cluster_and_starts_no_process() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal();
    assert_eq!(shown(&mut terminal), "", "no kubeconfig");
    terminal.enter("kubectl config set-context hyades --namespace=web; kubectl config set-context pleiades");
    assert_eq!(shown(&mut terminal), "", "none is chosen");
    for (line, expected) in [
        ("kubectl config use-context hyades", "(hyades:web) "),
        ("kubectx pleiades", "(pleiades:default) "),
        ("kubectl config set-context --current --namespace=dev", "(pleiades:dev) "),
        // In an instant, with a file that is older than the last one.
        ("sed 's/dev/old/' ~/.kube/config >x; touch -d 2001-01-01 x; mv x ~/.kube/config", "(pleiades:old) "),
        ("export KUBECONFIG=/nowhere:$HOME/.kube/config", "(pleiades:old) "),
        ("unset KUBECONFIG HOME", ""),
        ("HOME=/home/alice; set -u", "(pleiades:old) "),
    ] {
        terminal.enter(line);
        assert_eq!(shown(&mut terminal), expected, "{line}");
    }
    // Process numbers are the jail's own: who is next tells whether anybody was between.
    let mut next = || terminal.shell("/bin/sh -c 'echo $$'").parse::<u32>().unwrap();
    let before = next();
    let after = next();
    assert_eq!(after, before + 1);
}

/// Files that nobody's kubectl wrote, or that are on their way: the prompt is quick, says nothing that is wrong, and
/// writes nothing of theirs to the terminal.
#[test]
fn no_kubeconfig_breaks_the_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let huge = "x".repeat(3 << 20);
    for (text, expected) in [
        (KUBECONFIG, "(hyades:web) "),
        (&KUBECONFIG.replace("current-context: hyades", "current-context: pleiades"), "(pleiades:default) "),
        (&KUBECONFIG.replace("current-context: hyades", "current-context: \"on the way\""), "(on the way:default) "),
        (&KUBECONFIG.replace("current-context: hyades", "current-context: gone # but named"), "(gone:?) "),
        (&KUBECONFIG.replace("current-context: hyades", "current-context: \"\""), ""),
        (&KUBECONFIG.replace('\n', "\r\n"), "(hyades:web) "),
        (&deeper(KUBECONFIG), "(hyades:web) "),
        ("current-context: a\u{1b}]0;b\u{7}$(id)`id`\\u\n", "(a?]0;b?$(id)`id`\\u:?) "),
        (&format!("current-context: {}end\n", "n".repeat(200)), &format!("(...{}end:?) ", "n".repeat(72))),
        ("", ""),
        ("current-context", ""),
        ("contexts: [", ""),
        ("- - - -\n  - -\n- name:\n:\n", ""),
        (&huge, "(?:?) "),
        (&huge.replace('x', "\n"), "(?:?) "),
    ] {
        std::fs::write(&file, text).unwrap();
        assert_eq!(prompt_of(&file), expected, "{:.300}", text);
    }
    std::fs::write(&file, [b"current-context: x\0y\n\xff\xfe".as_slice(), &[0x80; 5000]].concat()).unwrap();
    assert_eq!(prompt_of(&file), "(xy:?) ", "not text");
    assert_eq!(prompt_of(folder.path()), "", "a directory");
    assert_eq!(prompt_of(Path::new("/dev/zero")), "", "no end");
}

/// "each tool's licence kept"
#[test]
fn licences_are_kept() {
    let yard = Yard::new().user("alice").start();
    for tool in TOOLS {
        let text = yard.ssh("alice").run(&format!("cat /usr/share/doc/{tool}/copyright")).ok();
        assert!(text.contains("Apache License") && text.contains(&version_of(tool)), "{tool}: {text:.300}");
        assert!(text.contains("the Go standard library") && text.contains("golang.org/x/sys"), "{tool}: {text:.300}");
    }
    let kept = yard.ssh("alice").run("cd /usr/share/doc && ls kubectx/copyright fzf/copyright bash/copyright").ok();
    assert_eq!(kept.lines().count(), 3, "{kept}");
}

/// "lists what it contains": all of it, in the image and beside it, in words that CycloneDX's own schema allows.
#[test]
fn the_image_says_what_it_contains() {
    let yard = Yard::new().user("alice").start();
    let inside = yard.ssh("alice").run("cat /usr/share/stockade/contents.cdx.json").text();
    let beside = layout().join("contents.cdx.json");
    // `text` leaves out the last line's end.
    assert!(inside.trim_end() == std::fs::read_to_string(&beside).unwrap().trim_end(), "{} bytes", inside.len());
    let told: Value = serde_json::from_str(&inside).unwrap();
    let components = told["components"].as_array().unwrap();
    let named: HashSet<(&str, &str)> = components
        .iter()
        .map(|component| (component["name"].as_str().unwrap(), component["version"].as_str().unwrap_or_default()))
        .collect();

    let packages = yard.ssh("alice").run("cat /usr/share/stockade/packages").ok();
    assert!(packages.lines().count() > 100);
    for line in packages.lines() {
        let mut words = line.split(' ');
        assert!(named.contains(&(words.next().unwrap(), words.next().unwrap())), "{line}");
    }
    for tool in TOOLS {
        let version = version_of(tool);
        assert!(named.contains(&(tool, version.as_str())), "{tool} {version}");
        let sum = yard.ssh("alice").run(&format!("sha256sum $(type -P {tool})")).ok();
        let component = components.iter().find(|one| one["bom-ref"] == format!("program:{tool}")).unwrap();
        assert_eq!(component["hashes"][0]["content"], sum.split(' ').next().unwrap());
    }
    for library in ["k8s.io/client-go", "github.com/spf13/cobra", "stdlib"] {
        assert!(named.iter().any(|(name, _)| *name == library), "{library}");
    }
    assert!(validate(&beside).status.success(), "{:?}", validate(&beside));
    let broken = yard.path("broken.json");
    std::fs::write(&broken, inside.replacen("\"library\"", "\"book\"", 1)).unwrap();
    assert!(!validate(&broken).status.success(), "the validator looks");
}

/// "Image build is reproducible (two builds, same digest)". The second one takes minutes: without `STOCKADE_SOAK` the first
/// alone is looked at, whose blobs must be what their names say.
#[test]
fn soak_two_builds_of_the_image_are_one() {
    let blobs = layout().join("blobs/sha256");
    for blob in std::fs::read_dir(blobs).unwrap().map(|entry| entry.unwrap().path()) {
        let mut sum = Command::new("sha256sum");
        sum.arg(&blob);
        let said = spawn_with(sum, None).wait().ok();
        assert_eq!(said.split(' ').next(), blob.file_name().and_then(|name| name.to_str()));
    }
    if std::env::var_os("STOCKADE_SOAK").is_some() {
        let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/check-reproducible");
        let ran = Command::new(check).stderr(Stdio::inherit()).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("two builds are one"), "{said}");
    }
}

fn validate(contents: &Path) -> std::process::Output {
    let mut go = Command::new("go");
    go.args(["run", "."]).arg(contents).env("GOFLAGS", "-buildvcs=false");
    go.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contents")).output().unwrap()
}

fn write_kubeconfig(yard: &Yard) {
    yard.ssh("alice").input(KUBECONFIG).run("mkdir -p ~/.kube && cat >~/.kube/config").text();
}

/// What stands before the prompt's usual words.
#[track_caller]
fn shown(terminal: &mut Terminal) -> String {
    // bash sends it all at once, or in parts: the end of the prompt is the end of it.
    terminal.wait_for(r"(?:^|\n)([^\n]*)alice@[^\n]*[$] $")[1].clone()
}

/// Lists indented below their keys, as people write them.
fn deeper(text: &str) -> String {
    let inside = |line: &str| line.starts_with("- ") || line.starts_with(' ');
    text.lines().map(|line| if inside(line) { format!("  {line}\n") } else { format!("{line}\n") }).collect()
}

/// By the very file that images get, outside any jail.
fn prompt_of(kubeconfig: &Path) -> String {
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/files/usr/share/stockade/prompt.bash");
    let script = "PS1=; . \"$1\"; _kube_prompt; _kube_prompt; printf %s \"$_kube_shown\"";
    let mut bash = Command::new("bash");
    bash.args(["-euc", script, "bash"]).arg(&file).env_clear().env("KUBECONFIG", kubeconfig).env("LANG", "C.UTF-8");
    let ran = bash.output().unwrap();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}
