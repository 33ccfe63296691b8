use std::path::Path;
use std::time::Duration;

use super::*;

mod egress;
mod kube;
mod rbac;

const SAMPLE: &str = include_str!("sample.toml");
const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash
nobody:x:65534:65534::/:/usr/sbin/nologin
stockade-gate:x:991:991::/:/usr/sbin/nologin
stockade:x:992:992::/:/usr/sbin/nologin
stockade-door:x:993:993::/:/usr/sbin/nologin
stockade-keep:x:994:994::/:/usr/sbin/nologin
stockade-tally:x:995:995::/:/usr/sbin/nologin
stockade-portal:x:996:996::/:/usr/sbin/nologin
";
const LEAST: &str = "[listen]
ssh = ['127.0.0.1:2222']
[ssh]
host_keys = ['/k']
";

/// What the Debian package installs.
#[test]
fn the_packages_file_has_no_mistakes_and_listens_here_alone() {
    let config = good(include_str!("../../packaging/stockade.toml"));
    assert!(config.listen.ssh.iter().all(|address| address.ip().is_loopback()), "{:?}", config.listen);
    assert_eq!((config.aws, config.rbac), (None, None));
    assert_eq!(config.ssh.host_keys, [Path::new("/etc/stockade/host_ed25519")]);
    assert_eq!(config.users.authorized_keys, Path::new("/etc/stockade/keys"));
}

fn no_file(path: &Path) -> Result<String, String> {
    Err(format!("no '{}' in this test", path.display()))
}

fn no_secret(path: &Path) -> Result<zeroize::Zeroizing<String>, String> {
    no_file(path).map(zeroize::Zeroizing::new)
}

fn host() -> Host<'static> {
    Host { passwd: PASSWD, subuid: "alice:100000:65536\n", subgid: "", read: &no_file, secret: &no_secret }
}

fn good(source: &str) -> Config {
    check(source, &host()).unwrap_or_else(|mistakes| panic!("{}", Report::new(Path::new("t.toml"), source, mistakes)))
}

/// `what | hint` of each mistake.
fn said_by(source: &str, host: &Host<'_>) -> Vec<String> {
    let mistakes = check(source, host).expect_err("no mistake was found");
    Report::new(Path::new("t.toml"), source, mistakes)
        .mistakes()
        .iter()
        .map(|m| format!("{} | {}", m.what, m.hint))
        .collect()
}

fn said(source: &str) -> Vec<String> {
    said_by(source, &host())
}

#[track_caller]
fn says(lines: &str, wanted: &str) {
    assert_eq!(said(&format!("{LEAST}{lines}")).join("\n"), wanted);
}

#[test]
fn the_sample_has_no_mistakes_and_survives_json() {
    let config = good(SAMPLE);
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
    assert_eq!(config.ssh.login_grace, Duration::from_secs(30));
    assert_eq!(config.jail.home_size, 1 << 30);
    assert_eq!(config.roles.tally, Account { uid: 995, gid: 995 });
    assert_eq!(config.digest.len(), 64);
}

#[test]
fn the_sample_shows_the_defaults() {
    let (mut sample, least) = (good(SAMPLE), good(LEAST));
    assert_eq!(least.aws, None);
    sample.digest.clone_from(&least.digest);
    sample.listen.ssh.clone_from(&least.listen.ssh);
    sample.ssh.host_keys.clone_from(&least.ssh.host_keys);
    sample.users.groups.clear();
    sample.recording.redact.clear();
    sample.aws = None;
    sample.egress.addresses.clear();
    sample.egress.allow.clear();
    sample.kube.role = KubeRole::None;
    assert_eq!(sample, least);
    let short = "[aws]\nregion = 'us-east-1'\nrole = 'arn:aws:iam::123456789012:role/bastion/{user}'\n";
    let mut aws = good(SAMPLE).aws.unwrap();
    aws.session_tags.clear();
    assert_eq!(good(&format!("{LEAST}{short}")).aws, Some(aws));
}

#[test]
fn all_mistakes_are_reported_at_once_with_place_and_caret() {
    let source = r#"[listen]
ssh = ["127.0.0.1:2222", "localhost"]

[ssh]
host_keys = ["host_ed25519"]
login_grace = "30 parsecs"
max_sesions = 10

[jail]
cpu = "two"
linger = "1s"

[jails]
pids = 1
"#;
    let mistakes = check(source, &host()).unwrap_err();
    let report = Report::new(Path::new("stockade.toml"), source, mistakes);
    let wanted = include_str!("golden.txt");
    assert_eq!(report.to_string(), wanted.trim_end(), "\n{report}");
    assert!(report.line().starts_with("stockade.toml:2:26: `ssh`: 'localhost': "), "{}", report.line());
    assert!(report.line().contains("; stockade.toml:6:15: `login_grace`: not a duration; "), "{}", report.line());
}

#[test]
fn what_is_required_is_asked_for() {
    assert_eq!(
        said("").join("\n"),
        "`ssh` is missing from [listen] | add [listen] and under it ssh = [\"0.0.0.0:22\"]\n\
         `host_keys` is missing from [ssh] | add [ssh] and under it host_keys = [\"/etc/stockade/host_ed25519\"]"
    );
    says(
        "[aws]\n",
        "`region` is missing from [aws] | add region = \"us-east-1\"\n\
         `role` is missing from [aws] | add role = \"arn:aws:iam::123456789012:role/bastion/{user}\"",
    );
    let empty = "[listen]\nssh = []\n[ssh]\nhost_keys = []\n";
    assert_eq!(
        said(empty).join("\n"),
        "`ssh`: nothing to listen on | write at least one address and port\n\
         `host_keys`: no host key | name at least one; `ssh-keygen -t ed25519 -N '' -f FILE` makes one"
    );
}

#[test]
fn a_file_that_is_not_toml_says_where() {
    let said = said("[listen]\nssh\n[ssh]\nhost_keys = [\n");
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.iter().all(|s| s.starts_with("not TOML: ")), "{said:?}");
}

#[test]
fn nothing_in_the_file_is_obeyed_by_a_terminal() {
    let source = "\u{9b}2J\u{80} = 1\nb = \"\u{1b}[2J";
    let report = Report::new(Path::new("t.toml"), source, check(source, &host()).unwrap_err());
    let harmful = |c: char| c.is_control() && c != '\n';
    assert!(!report.to_string().contains(harmful) && !report.line().contains(char::is_control), "{report:?}");
}

#[test]
fn kinds_and_bounds() {
    says(
        "[recording]\nreserve = 5\n",
        "`reserve`: not a size | write a whole number and KiB, MiB, GiB or TiB: \"64MiB\", \"1GiB\"",
    );
    says("[jail]\npids = 1\n", "`pids`: 1 is out of bounds | write a number from 8 to 4194304, no quotes");
    says(
        "[jail]\nexec_audit = 'yes'\n",
        "`exec_audit`: expected true or false, found text | write true or false, no quotes",
    );
    says("[jail]\nhome = 'none'\n", "`home`: 'none' is not one of the choices | write \"persistent\" or \"ephemeral\"");
    says("[audit]\nfile = 'a/../b'\n", "`file`: 'a/../b' is not an absolute path | begin it with /");
    says("[state]\ndirectory = '/a/../b'\n", "`directory`: `..` is in the path | write the path without it");
    says("[jail]\nmemory = '1MiB'\n", "`memory`: the size is out of bounds | write one from 16MiB to 16384GiB");
    says(
        "jail = 3\n",
        "there is no setting `jail` in [ssh] | [ssh] knows host_keys, algorithms, login_grace, max_startups, max_startups_per_source, source_netblock, exempt, penalties, max_auth_tries, max_sessions, keepalive, env, banner, linger",
    );
}

#[test]
fn percentages_are_in_order() {
    says(
        "[recording]\nwarn_at = 95\nend_at = 90\n",
        "`refuse_at` (90) is not above `warn_at` (95) | warn first, then refuse new sessions, then end the running ones: 80, 90, 98\n\
         `end_at` (90) is not above `refuse_at` (90) | warn first, then refuse new sessions, then end the running ones: 80, 90, 98",
    );
}

#[test]
fn regular_expressions_compile_and_match_something() {
    let said = said(&format!("{LEAST}[recording]\nredact = ['(', 'a*']\n"));
    assert_eq!(
        said[0],
        "`redact`: not a regular expression: unclosed group | see https://docs.rs/regex for the syntax; single quotes need no doubled backslashes"
    );
    assert_eq!(
        said[1],
        "`redact`: 'a*' matches the empty text | an expression must need at least one letter, or everything would be redacted"
    );
}

#[test]
fn max_startups_is_sshds() {
    let hint = "write start:rate:full, the rate in percent, start not above full: \"10:30:100\"";
    for bad in ["10", "10:30", "10:101:100", "100:30:10", "a:b:c", "10:30:100:1", "-1:2:3"] {
        assert_eq!(
            said(&format!("{LEAST}max_startups = '{bad}'\n")),
            [format!("`max_startups`: '{bad}' is not a MaxStartups | {hint}")]
        );
    }
}

#[test]
fn penalties_are_a_table_or_off() {
    let with = |lines: &str| format!("{LEAST}{lines}");
    assert_eq!(good(&with("penalties = false\n")).ssh.penalties, None);
    assert_eq!(good(&with("penalties = true\n")).ssh.penalties, Some(Penalties::default()));
    let some = good(&with("penalties = { noauth = '0s', overflow = 'deny-all' }\n")).ssh.penalties.unwrap();
    assert_eq!((some.noauth, some.overflow), (Duration::ZERO, Overflow::DenyAll));
    says(
        "[ssh.penalties]\nautfail = '5s'\n",
        "`penalties`: there is no setting `autfail` in [ssh.penalties] | did you mean `authfail`?",
    );
    says(
        "[ssh.penalties]\nmin = '10m'\n",
        "`penalties`: `min` is not below `max` | a source is refused once `min` has come together, and never for longer than `max`",
    );
    says(
        "penalties = 'off'\n",
        "`penalties`: expected a table, true or false, found text | write [ssh.penalties] on a line of its own, or penalties = false for none",
    );
}

#[test]
fn sources_are_networks_and_bits() {
    let ssh = good(&format!("{LEAST}exempt = ['10.0.0.0/8', '::ffff:192.0.2.7']\nsource_netblock = '24:48'\n")).ssh;
    let exempt: Vec<String> = ssh.exempt.into_iter().map(String::from).collect();
    assert_eq!(exempt, ["10.0.0.0/8", "192.0.2.7/32"]);
    assert_eq!(ssh.source_netblock, Netblock { v4: 24, v6: 48 });
    let hint = "write an address or a network: \"192.0.2.7\", \"10.0.0.0/8\"";
    for (bad, why) in [
        ("10.0.0.1/8", "its address is not the first of its network, 10.0.0.0/8"),
        ("office", "not an address or a network"),
    ] {
        says(&format!("exempt = ['{bad}']\n"), &format!("`exempt`: '{bad}': {why} | {hint}"));
    }
    let hint = "write how many leading bits of an address make a source, of IPv4 and of IPv6: \"32:64\"";
    for bad in ["32", "33:64", "0:0", "32:129", "a:b"] {
        says(
            &format!("source_netblock = '{bad}'\n"),
            &format!("`source_netblock`: '{bad}' is not a netblock | {hint}"),
        );
    }
}

#[test]
fn a_role_is_one_per_user_in_one_account() {
    let with = |role: &str, more: &str| {
        said(&format!("{LEAST}[aws]\nregion = 'us-east-1'\naccount = '123456789012'\nrole = '{role}'\n{more}"))
    };
    let hint = "write it like \"arn:aws:iam::123456789012:role/bastion/{user}\"";
    for (role, what) in [
        ("bastion/{user}", "not the ARN of a role"),
        ("arn:aws:iam::123456789012:user/{user}", "not the ARN of a role"),
        ("arn:aws:iam::12345:role/{user}", "not the ARN of a role"),
        (
            "arn:aws:iam::123456789012:role/bastion",
            "`{user}` is missing: every user needs a role of their own, there is no default",
        ),
        (
            "arn:aws:iam::123456789012:role/{user}/bastion",
            "`{user}` belongs once into the role's name, after the last `/`: role names are unique whatever their path",
        ),
        ("arn:aws:iam::123456789012:role/b stion/{user}", "' ' cannot be in the ARN of a role"),
    ] {
        assert_eq!(with(role, ""), [format!("`role`: {what} | {hint}")]);
    }
    assert_eq!(
        with("arn:aws-cn:iam::210987654321:role/{user}", "stale = '1m'"),
        [
            "`role` is of account 210987654321, but `account` is 123456789012 | one of the two is a slip: they must be the same account",
            "`role` is in partition aws-cn, but region us-east-1 is in aws | the role's ARN begins with arn:aws: there",
            "`stale` (1m) is shorter than `cache` (5m) | an answer is used for `cache`, and up to `stale` while IAM is away",
        ]
    );
    let aws = good(SAMPLE).aws.unwrap();
    let alice = "alice@example.test".parse().unwrap();
    assert_eq!(aws.role.arn(&alice), "arn:aws:iam::123456789012:role/bastion/alice@example.test");
    assert_eq!(aws.role.name(&alice), "alice@example.test");
}

#[test]
fn session_tags_are_what_sts_takes() {
    let many: Vec<String> = (0..41).map(|n| format!("t{n} = 'x'")).collect();
    for (tags, what) in [
        ("'aws:team' = 'x'", "tag 'aws:team' is reserved"),
        ("'stockade:user' = 'x'", "tag 'stockade:user' is reserved"),
        ("'' = 'x'", "'' is not the name of a tag"),
        ("'a*b' = 'x'", "'a*b' is not the name of a tag"),
        ("a = 'x;y'", "tag 'a' has a value that STS refuses"),
        ("team = 'x', Team = 'y'", "two tags differ only in case"),
        (many.join(", ").as_str(), "41 tags"),
    ] {
        let source = SAMPLE.replace("team = \"platform\"", tags);
        let said = said(&source);
        assert!(said.len() == 1 && said[0].starts_with(&format!("`session_tags`: {what} | ")), "{tags}: {said:?}");
    }
}

#[test]
fn the_session_policy_is_read_and_inlined() {
    let source = SAMPLE.replace("# session_policy", "session_policy");
    let with = |content: &str| {
        let content = content.to_owned();
        let read = move |_: &Path| Ok(content.clone());
        check(&source, &Host { read: &read, ..host() }).map(|config| config.aws.unwrap().session_policy.unwrap())
    };
    let policy = r#"{"Version":"2012-10-17","Statement":[]}"#;
    assert_eq!(with(&format!("{policy}\n")).unwrap(), policy);
    for (content, what) in [
        ("{", "`session_policy`: '/etc/stockade/session-policy.json' is not JSON: "),
        ("{}", "`session_policy`: '/etc/stockade/session-policy.json' has no Statement"),
        (
            &format!("{{\"Statement\":[],\"Id\":\"{}\"}}", "x".repeat(2048)),
            "`session_policy`: '/etc/stockade/session-policy.json' has 2072 characters, STS takes 2048",
        ),
        ("{\"Statement\":\"\u{263a}\"}", "`session_policy`: '\u{263a}' is in '/etc/stockade/session-policy.json'"),
    ] {
        let mistakes = with(content).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].what.starts_with(what), "{mistakes:?}");
    }
    assert!(
        check(&source, &host()).unwrap_err()[0].what.contains("no '/etc/stockade/session-policy.json' in this test")
    );
}

#[test]
fn jails_have_uids_of_their_own() {
    let hint = "the jails take 65536 uids each from `uid_base` on; the default, 1879048192, is free by custom";
    says(
        "[jail]\nuid_base = 100000\nmax_jails = 1\n",
        &format!(
            "`uid_base`: the jails' uids (100000 to 165535) meet those of 'alice' in /etc/subuid (100000 to 165535) | {hint}"
        ),
    );
    says(
        "[jail]\nuid_base = 1879048191\nmax_jails = 1\n",
        &format!(
            "`uid_base`: the jails' uids (1879048191 to 1879113726) meet those of systemd's containers (524288 to 1879048191) | {hint}"
        ),
    );
    says(
        "[jail]\nuid_base = 4294901760\nmax_jails = 1\n",
        "`uid_base`: the jails' uids (4294901760 to 4294967295) pass 2^32 | lower `uid_base` or `max_jails`: each jail takes 65536 uids",
    );
    let passwd = format!("{PASSWD}carol:x:1879048193:100::/:/bin/sh\n");
    assert_eq!(
        said_by(LEAST, &Host { passwd: &passwd, ..host() }),
        [format!(
            "`uid_base`: account 'carol' (1879048193) is among the jails' uids (1879048192 to 1944584191) | {hint}"
        )]
    );
}

#[test]
fn roles_are_five_unprivileged_accounts() {
    says(
        "[roles]\ngate = '991:991'\nwarden = '991:992'\nporter = '0:0'\nkeeper = 'nobody'\ntally = '1879048193:5'\n",
        "`warden` has the uid of `gate` (991) | each role needs a uid of its own, or one could trace the other\n\
         `porter` would be root (0:0) | give it an unprivileged account of its own\n\
         `keeper` would be nobody (65534:65534) | give it an unprivileged account of its own\n\
         `tally` (1879048193:5) is among the jails' uids | give it an unprivileged account of its own",
    );
    says(
        "[roles]\ngate = 'nosuch'\nwarden = '1:x'\n",
        "`gate`: there is no account 'nosuch' on this host | make it: useradd --system --user-group --no-create-home --shell /usr/sbin/nologin nosuch\n\
         `warden`: '1:x' is not uid:gid | write two numbers: \"991:991\", or an account's name",
    );
    assert_eq!(said_by(LEAST, &Host { passwd: "", ..host() }).len(), 5);
}

#[test]
fn names_that_could_never_match_are_refused() {
    says(
        "[access]\ndeny_users = ['al ice']\n[users]\ngroups = { 'a b' = [], ops = ['../x'] }\n",
        "`deny_users`: 'al ice' cannot match any name | names are of the letters A-Z a-z 0-9 + = , . @ _ - and * stands for any run of them\n\
         `groups`: 'a b' is not the name of a group | a group's name is 1 to 128 of the letters A-Z a-z 0-9 + = , . @ _ -\n\
         `groups`: '../x': a user name is 1 to 64 of the letters A-Z a-z 0-9 + = , . @ _ - and begins with a letter, a digit or _ | write the name as IAM spells it",
    );
}

#[test]
fn nothing_trusted_lies_where_users_write() {
    says(
        "[users]\nauthorized_keys = '/var/lib/stockade/homes/alice/.ssh'\n[recording]\ndirectory = '/var/lib/stockade'\n",
        "`authorized_keys`: '/var/lib/stockade/homes/alice/.ssh' lies in /var/lib/stockade/homes | homes/ and images/ of the state directory are the jails'\n\
         `directory`: '/var/lib/stockade' is the state directory itself | give it a path of its own",
    );
}

#[test]
fn a_reload_leaves_running_jails_alone() {
    let (old, mut new) = (good(SAMPLE), good(SAMPLE));
    new.jail.memory = 1 << 31;
    new.access.deny_users = vec![crate::identity::Pattern::new("bob")];
    new.ssh.linger += std::time::Duration::from_secs(1);
    assert_eq!(old.fixed_against(&new), Vec::<&str>::new());
    new.jail.max_jails = 5;
    new.roles.gate.uid = 5;
    new.ssh.max_sessions += 1;
    assert_eq!(old.fixed_against(&new), ["ssh.max_sessions", "roles.gate", "jail.max_jails"]);
    new.aws = None;
    assert!(old.fixed_against(&new).contains(&"[aws]".to_owned()));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(source in "\\PC*") {
        let found = check(&source, &host()).unwrap_err();
        let _ = Report::new(Path::new("t.toml"), &source, found).to_string();
    }

    #[test]
    fn nor_does_any_cut_of_the_sample(at in 0..SAMPLE.len(), junk in "[\\[\\]{}='\"\\n,#.a-z0-9é]{0,8}") {
        if let Some((head, tail)) = SAMPLE.split_at_checked(at) {
            let source = format!("{head}{junk}{tail}");
            if let Err(found) = check(&source, &host()) {
                let _ = Report::new(Path::new("t.toml"), &source, found).to_string();
            }
        }
    }
}
