use super::*;
use crate::config::rbac::{MembersFrom, Namespaces, Rbac, System, built_in};

const AWS: &str = "[aws]\nregion = 'us-east-1'\nrole = 'arn:aws:iam::123456789012:role/bastion/{user}'\n";
const BASTION: &str = "bastion = ['arn:aws:iam::123456789012:role/stockade']\n\
                       boundary = 'arn:aws:iam::123456789012:policy/stockade-boundary'";

fn with(kube: &str, lines: &str) -> String {
    format!("{LEAST}{AWS}[kube]\n{kube}\n[rbac]\n{lines}\n")
}

fn rbac(lines: &str) -> Rbac {
    good(&with("", &format!("{BASTION}\n{lines}"))).rbac.unwrap()
}

#[track_caller]
fn refuses(lines: &str, wanted: &str) {
    assert_eq!(said(&with("", &format!("{BASTION}\n{lines}"))).join("\n"), wanted);
}

/// What the sample has behind `#`, without it.
fn sample() -> String {
    let from = SAMPLE.find("# [rbac]").unwrap();
    let to = SAMPLE[from..].find("\n[jail]").unwrap() + from;
    SAMPLE[from..to].lines().map(|line| format!("{}\n", line.strip_prefix("# ").unwrap_or(line))).collect()
}

#[test]
fn the_sample_shows_the_defaults() {
    let source = format!("{LEAST}{AWS}{}", sample());
    let mut shown = good(&source).rbac.unwrap();
    assert!(shown.queue.is_some() && shown.listen.is_some() && shown.kubeconfig.is_some());
    (shown.queue, shown.listen, shown.kubeconfig) = (None, None, None);
    shown.role_tags.clear();
    assert_eq!(shown, rbac(""));
    assert_eq!(good(LEAST).rbac, None);
}

#[test]
fn three_levels_are_built_in_and_others_take_their_place() {
    let names = |rbac: &Rbac| rbac.levels.iter().map(|level| level.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&rbac("")), ["admin", "poweruser", "user"]);
    assert_eq!(built_in(), rbac("").levels);
    let level = "[[rbac.level]]\nname = 'user'\nallow = [{ resources = ['pods'], verbs = ['get'] }]\n";
    let own = rbac(level);
    assert_eq!(names(&own), ["admin", "poweruser", "user"]);
    assert_eq!((own.levels[2].allow.len(), own.levels[2].system), (1, System::Read));
    assert_eq!(names(&rbac(&format!("default_levels = false\n{level}"))), ["user"]);
}

#[test]
fn settings_are_read() {
    let read = rbac("members = 'tags'\nnamespaces = 'labelled'\nusername = '{user}'\ncycle = '1s'\nmost_removed = 0");
    assert_eq!(read.members, MembersFrom::Tag("stockade:groups".into()));
    assert_eq!(read.namespaces, Namespaces::Labelled("stockade/access=yes".into()));
    assert_eq!((read.username_of("alice").as_str(), read.user_of("alice")), ("alice", Some("alice")));
    assert_eq!(rbac("").user_of("stockade:alice"), Some("alice"));
    assert_eq!((rbac("").user_of("alice"), rbac("").user_of("stockade:")), (None, None));
    assert!(rbac("").is_skipped("kube-system") && !rbac("").is_skipped("default"));
    let without = good(&format!("{LEAST}[rbac]\n")).rbac.unwrap();
    assert_eq!((without.members, without.bastion.len()), (MembersFrom::File, 0));
}

#[test]
fn what_iam_or_a_cluster_would_refuse_is_refused() {
    refuses(
        "group_path = '/'",
        "`group_path`: '/' is not a path of IAM for groups of our own | begin and end it with /: \"/stockade/\"; groups below it are ours to make and to remove",
    );
    refuses("username = 'system:{user}'", "`username`: 'system:' is the cluster's own | write \"stockade:{user}\"");
    refuses("username = 'bastion'", "`username`: `{user}` belongs in it once | write \"stockade:{user}\"");
    let edge = BASTION.replace("arn:aws:iam::123456789012:policy/stockade-boundary", "edge");
    assert_eq!(
        said(&with("", &edge)).join("\n"),
        "`boundary`: 'edge' is not the ARN of a policy | write it like \"arn:aws:iam::123456789012:policy/stockade-boundary\"",
    );
    refuses(
        "role_policy = '{}'",
        "`role_policy`: the policy has no Statement | write an IAM policy, or the path of its file: {\"Version\": \"2012-10-17\", \"Statement\": [...]}",
    );
    refuses("members = 'ldap'", "`members`: 'ldap' is not one of the choices | write \"iam\" or \"tags\" or \"file\"");
    refuses(
        "skip_namespaces = ['Kube']",
        "`skip_namespaces`: 'Kube' cannot match any namespace | names are of the letters a-z 0-9 - and * stands for any run of them",
    );
    refuses(
        "queue = 'stockade'",
        "`queue`: 'stockade' is not the URL of a queue | write it as SQS does: \"https://sqs.us-east-1.amazonaws.com/123456789012/stockade-access\"",
    );
    refuses(
        "audit = '/var/lib/stockade/homes/x'",
        "`audit`: '/var/lib/stockade/homes/x' lies in /var/lib/stockade/homes | homes/ and images/ of the state directory are the jails'",
    );
    refuses(
        "audit = '/var/lib/stockade/audit.jsonl'",
        "`audit` of [rbac] is the `file` of [audit] | give it a file of its own: two processes would break the chain",
    );
    refuses("levels = 3", "there is no setting `levels` in [rbac] | did you mean `level`?");
    let missing = "`bastion` is missing from [rbac] | add bastion = [\"arn:aws:iam::123456789012:role/stockade\"]";
    let boundary = "boundary = 'arn:aws:iam::123456789012:policy/stockade-boundary'";
    assert_eq!(said(&with("", boundary)).join("\n"), missing);
    let unbounded = said(&with("", BASTION.split('\n').next().unwrap())).join("\n");
    assert!(unbounded.starts_with("`boundary` is missing from [rbac] | add boundary = "), "{unbounded}");
    let session = "`bastion`: 'arn:aws:sts::123456789012:assumed-role/stockade/x' is not the ARN of a role or a user | write the ARN of the bastion's role: \"arn:aws:iam::123456789012:role/stockade\"";
    let bastion = format!("bastion = ['arn:aws:sts::123456789012:assumed-role/stockade/x']\n{boundary}");
    assert_eq!(said(&with("", &bastion)).join("\n"), session);
    let tags =
        "`members` of IAM without [aws] | add [aws], or write members = \"file\": then [users] groups says who is in";
    assert_eq!(said(&format!("{LEAST}[rbac]\nmembers = 'tags'\n")).join("\n"), tags);
}

#[test]
fn two_roles_of_one_name_under_two_paths_are_refused() {
    let kube = "role = 'arn:aws:iam::123456789012:role/clusters/{user}'";
    assert_eq!(
        said(&with(kube, BASTION)).join("\n"),
        "`role` of [kube] has the name of that of [aws], under another path | IAM and aws-auth take two roles of one name \
         for one: write {user}-kube there"
    );
    let kube = "role = 'arn:aws:iam::210987654321:role/clusters/{user}-kube'";
    assert!(said(&with(kube, BASTION))[0].starts_with("`role` of [kube] is in account 210987654321"));
}

#[test]
fn levels_that_say_nothing_or_too_much_are_refused() {
    let level = |allow: &str| format!("[[rbac.level]]\nname = 'x'\nallow = [{allow}]");
    for (allow, wanted) in [
        ("", "a level that allows nothing"),
        ("{ resources = [], verbs = ['get'] }", "an empty list, so nothing is allowed"),
        ("{ resources = ['pods'], verbs = ['*', 'get'] }", "`verbs`: \"*\" and others"),
        ("{ resources = ['Pods'], verbs = ['get'] }", "`resources`: 'Pods' is not a resource"),
        (
            "{ resources = ['deployments.apps/scale'], verbs = ['get'] }",
            "'deployments.apps/scale' has a `/` in its group",
        ),
        ("{ resources = ['pods'], verbs = ['GET'] }", "`verbs`: 'GET' is not a verb"),
        ("{ resources = ['pods'], verb = ['get'] }", "`verbs` is missing from an `allow` of [[rbac.level]]"),
    ] {
        let all = said(&with("", &format!("{BASTION}\n{}", level(allow)))).join("\n");
        assert!(all.contains(wanted), "{allow}: {all}");
    }
    let twice = format!(
        "{}\n{}",
        level("{ resources = ['a'], verbs = ['get'] }"),
        level("{ resources = ['a'], verbs = ['get'] }")
    );
    refuses(&twice, "`level`: two levels have one name | a group's name says the level: rename one of them");
    refuses(
        "[[rbac.level]]\nname = 'a@b'\nallow = [{ resources = ['a'], verbs = ['get'] }]",
        "`level`: `name`: 'a@b' cannot be a level | 1 to 32 of the letters a-z 0-9 -",
    );
}

/// A Lambda has no accounts, no host keys and no certificates.
#[test]
fn access_needs_only_its_own_sections() {
    let nobody = Host { passwd: "", subuid: "", subgid: "", ..host() };
    let public = "[kube.public]\nlisten = ['0.0.0.0:6443']\nurl = 'https://b.example.com:6443'\ncertificate = '/nowhere'\n\
                  key = '/nowhere'\nca = '/nowhere'\n";
    let source =
        format!("{LEAST}{AWS}[users]\ngroups = {{ ops = ['alice'] }}\n{public}[rbac]\n{BASTION}\n[jail]\nimage = 3\n");
    let terms = check_access(&source, &nobody).unwrap();
    assert_eq!((terms.groups.len(), terms.kube.public.is_none()), (1, true));
    assert_eq!(terms.cluster_role().unwrap().as_str(), "arn:aws:iam::123456789012:role/bastion/{user}-kube");
    assert_eq!(terms.rbac, rbac(""));
    let config = good(&with("", BASTION));
    assert_eq!(Terms::of(&config).unwrap(), check_access(&with("", BASTION), &nobody).unwrap());
    let said = |source: &str| check_access(source, &nobody).unwrap_err()[0].what.clone();
    assert_eq!(said(LEAST), "there is no section `rbac`");
    assert_eq!(said(&with("", "bastions = 1")), "`bastion` is missing from [rbac]");
    assert_eq!(said("[rbac"), "not TOML: unclosed table, expected `]`");
    assert_eq!(said("[jails]\n[rbac]\n"), "there is no section `jails`");
}
