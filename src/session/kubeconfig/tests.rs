use proptest::prelude::*;

use super::*;

const OWN: &str = "\
apiVersion: v1
kind: Config
preferences:
  colors: true
x-own:
- 0755
- 1_000
- on
- 2026-11-21
clusters:
- name: home
  cluster:
    server: https://192.0.2.1:6443
    certificate-authority-data: QUJD
contexts:
- name: home
  context: {cluster: home, user: me, namespace: '007'}
current-context: home
users:
- name: me
  user:
    token: s3cret
";

fn names(clusters: &[&str]) -> Vec<String> {
    clusters.iter().map(|name| (*name).to_owned()).collect()
}

fn merged(text: &str, clusters: &[&str]) -> String {
    merge(text, &names(clusters)).unwrap().expect("a change")
}

fn is_in_step(text: &str, clusters: &[&str]) -> bool {
    merge(text, &names(clusters)).unwrap().is_none()
}

fn read(text: &str) -> Value {
    Value::Object(parse(text).unwrap())
}

/// A context's name, cluster, user and namespace, in the file's order.
fn contexts(text: &str) -> Vec<[String; 4]> {
    let file = read(text);
    let context = |one: &Value| {
        let about = |key| within(one, "context", key).to_owned();
        [name(one).to_owned(), about("cluster"), about("user"), about("namespace")]
    };
    file["contexts"].as_array().map(|all| all.iter().map(context).collect()).unwrap_or_default()
}

fn row(fields: [&str; 4]) -> [String; 4] {
    fields.map(str::to_owned)
}

#[test]
fn a_new_file_has_a_context_for_each_cluster() {
    let file = merged("", &["hyades", "pleiades"]);
    let expected = "\
apiVersion: v1
clusters:
- cluster:
    server: http://127.0.0.1:6443/clusters/hyades
  name: hyades
- cluster:
    server: http://127.0.0.1:6443/clusters/pleiades
  name: pleiades
contexts:
- context:
    cluster: hyades
    user: stockade
  name: hyades
- context:
    cluster: pleiades
    user: stockade
  name: pleiades
current-context: hyades
kind: Config
users:
- name: stockade
  user: {}
";
    assert_eq!(file, expected);
    assert_eq!(of_jail(&names(&["hyades", "pleiades"])), expected);
    assert!(is_in_step(&file, &["hyades", "pleiades"]));
    assert!(is_in_step("", &[]) && is_in_step("# nothing\n", &[]));
}

#[test]
fn names_that_look_like_something_else_are_quoted() {
    for odd in ["1e3", "007", "on", "null", "1.2", "2026-11-21", "~x", "-"] {
        let file = merged("", &[odd]);
        assert_eq!(read(&file)["contexts"][0]["name"], json!(odd), "{file}");
        assert!(is_in_step(&file, &[odd]));
    }
    assert!(merged("", &["on"]).contains("name: \"on\"") || merged("", &["on"]).contains("name: 'on'"));
}

#[test]
fn what_is_the_users_own_is_kept() {
    let file = merged(OWN, &["hyades"]);
    let (before, after) = (read(OWN), read(&file));
    for key in ["preferences", "x-own", "current-context"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    for key in ["clusters", "contexts", "users"] {
        assert_eq!(after[key][0], before[key][0], "{key}");
    }
    assert_eq!(after["current-context"], "home");
    let back = merged(&file, &[]);
    assert_eq!(read(&back), before);
}

#[test]
fn a_namespace_and_the_current_context_are_remembered() {
    let file = merged("", &["hyades", "pleiades"]);
    let chosen = file
        .replace("user: stockade\n  name: pleiades", "namespace: web\n    user: stockade\n  name: pleiades")
        .replace("current-context: hyades", "current-context: pleiades");
    assert!(is_in_step(&chosen, &["hyades", "pleiades"]));
    let less = merged(&chosen, &["pleiades"]);
    assert_eq!(contexts(&less), [row(["pleiades", "pleiades", "stockade", "web"])]);
    assert_eq!(read(&less)["current-context"], "pleiades");
    let more = merged(&less, &["pleiades", "taurus"]);
    assert_eq!(contexts(&more)[0], row(["pleiades", "pleiades", "stockade", "web"]));
    let other = merged(&less, &["taurus"]);
    assert_eq!(read(&other)["current-context"], "taurus");
    let none = merged(&less, &[]);
    assert_eq!(read(&none)["current-context"], "");
    assert_eq!((contexts(&none), &read(&none)["users"]), (vec![], &json!([])));
}

#[test]
fn a_name_that_the_user_has_is_not_taken_from_them() {
    let own = OWN.replace("home", "hyades").replace("name: me", "name: stockade").replace("user: me", "user: stockade");
    let file = merged(&own, &["hyades"]);
    assert_eq!(
        contexts(&file),
        [
            row(["hyades", "hyades", "stockade", "007"]),
            row(["hyades@stockade", "hyades@stockade", "stockade@stockade", ""])
        ]
    );
    assert_eq!(read(&file)["users"][0]["user"]["token"], "s3cret");
    assert!(is_in_step(&file, &["hyades"]));
    assert_eq!(read(&merged(&file, &[])), read(&own));
}

#[test]
fn a_context_that_was_renamed_is_not_made_again_and_goes_with_its_cluster() {
    let file = merged("", &["hyades"]).replace("  name: hyades\ncurrent", "  name: hy\ncurrent");
    assert_eq!(contexts(&merged(&file, &["hyades"])), [row(["hy", "hyades", "stockade", ""])]);
    let both = file.replace("\ncurrent", "\n- name: admin\n  context: {cluster: hyades, user: me}\ncurrent");
    // One that shows something of the user's own is theirs.
    assert_eq!(contexts(&merged(&both, &["taurus"]))[0], row(["admin", "hyades", "me", ""]));
    assert_eq!(contexts(&merged(&both, &["taurus"])).len(), 2);
}

#[test]
fn what_kubectl_could_not_read_is_left_alone() {
    for bad in [
        "{",
        "a: b: c",
        "a: 1\na: 2",
        "- x",
        "clusters: {}",
        "clusters: [x]",
        "contexts: [{name: 1}]",
        "users: 3",
        "text",
        "a: 1\n---\nb: 2",
        "a: &a [*a]",
        "a: *b",
        "clusters: [{}]",
    ] {
        assert!(merge(bad, &names(&["hyades"])).is_err(), "{bad:?}");
    }
    // Nine levels of nine would be a billion.
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![before; 9].join(","));
    }
    assert!(merge(&bomb, &names(&["hyades"])).is_err());
}

#[test]
fn a_laptop_asks_ssh_for_its_tokens() {
    let ssh = names(&["-p", "2222", "alice@bastion.example.com"]);
    let clusters = names(&["hyades"]);
    let laptop =
        Laptop { url: "https://bastion.example.com:6443/", authority: Some("PEM"), clusters: &clusters, ssh: &ssh };
    let text = of_laptop(laptop).unwrap();
    assert!(
        text.starts_with("# ") && text.contains("\n#   Host bastion.example.com\n#     ControlMaster auto\n"),
        "{text}"
    );
    let file = read(&text);
    assert_eq!(file["clusters"][0]["cluster"]["server"], "https://bastion.example.com:6443/clusters/hyades");
    assert_eq!(file["clusters"][0]["cluster"]["certificate-authority-data"], "UEVN");
    let exec = &file["users"][0]["user"]["exec"];
    assert_eq!((&exec["command"], &exec["interactiveMode"]), (&json!("ssh"), &json!("Never")));
    assert_eq!(exec["args"], json!(["-p", "2222", "alice@bastion.example.com", "stockade", "token", "hyades"]));
    assert_eq!(file["current-context"], "hyades");
}

proptest! {
    #[test]
    fn any_text_is_refused_or_brought_in_step(text in "\\PC{0,80}|(clusters|contexts|users|a): *(\\[\\]|\\{\\}|~|x)?\n") {
        if let Ok(Some(after)) = merge(&text, &names(&["hyades"])) {
            prop_assert!(is_in_step(&after, &["hyades"]), "{}", after);
        }
    }
}
