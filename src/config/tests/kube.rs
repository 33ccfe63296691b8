use super::*;
use crate::identity::Pattern;

const AWS: &str = "[aws]\nregion = 'us-east-1'\nrole = 'arn:aws:iam::123456789012:role/b/{user}'\n";
const KUBECONFIG: &str = "current-context: one
clusters:
- name: a
  cluster: {server: 'https://a.test:6443', certificate-authority-data: CA}
contexts:
- {name: one, context: {cluster: a, user: token}}
- {name: pleiades, context: {cluster: a, user: token}}
- {name: exec, context: {cluster: a, user: exec}}
users:
- {name: token, user: {token: the-secret}}
- {name: exec, user: {exec: {command: aws}}}
";
/// Made for this test: anybody may have it.
const CA: &str = include_str!("ca.pem");

fn read(path: &Path) -> Result<String, String> {
    match path.to_str() {
        Some(path) if path.ends_with(".pem") => Ok(CA.into()),
        Some("/empty") => Ok(String::new()),
        _ => no_file(path),
    }
}

fn secret(path: &Path) -> Result<zeroize::Zeroizing<String>, String> {
    use base64::Engine;
    let data = base64::engine::general_purpose::STANDARD.encode(CA);
    match path.to_str() {
        Some("/etc/stockade/kubeconfig") => Ok(KUBECONFIG.replace("CA", &data).into()),
        Some("/skip") => {
            Ok(KUBECONFIG.replace("certificate-authority-data: CA", "insecure-skip-tls-verify: true").into())
        }
        Some("/http") => Ok(KUBECONFIG.replace("CA", &data).replace("https://a", "http://a").into()),
        Some("/bare") => Ok(KUBECONFIG.replace(", certificate-authority-data: CA", "").into()),
        Some("/open") => Err("'/open' can be read by others (mode 0644)".into()),
        _ => no_secret(path),
    }
}

fn there() -> Host<'static> {
    Host { read: &read, secret: &secret, ..host() }
}

fn kube(lines: &str) -> Kube {
    check(&format!("{LEAST}{lines}"), &there()).unwrap_or_else(|mistakes| panic!("{mistakes:?}")).kube
}

#[track_caller]
fn wrong(lines: &str, wanted: &str) {
    assert_eq!(said_by(&format!("{LEAST}{lines}"), &there()).join("\n"), wanted);
}

#[test]
fn nothing_by_default() {
    let bare = good(LEAST).kube;
    assert!(!bare.is_used() && bare.role == KubeRole::None && bare.allow.is_empty());
    assert_eq!((bare.refresh, bare.clocks), (Duration::from_secs(300), Clocks::default()));
    let KubeRole::Separate(role) = kube(AWS).role else { panic!() };
    assert_eq!(role.as_str(), "arn:aws:iam::123456789012:role/b/{user}-kube");
    assert_eq!(kube(&format!("{AWS}[kube]\nkube_role = 'same'\n")).role, KubeRole::Same);
}

/// Every line of the sample's comments is one that can be used.
#[test]
fn the_sample_can_be_used_whole() {
    let (before, rest) = SAMPLE.split_once("# [[kube.discover]]").unwrap();
    let (own, after) = rest.split_once("\n[jail]").unwrap();
    let own = format!("# [[kube.discover]]{own}").replace("\n# ", "\n").replacen("# ", "", 1);
    let kube = check(&format!("{before}{own}\n[jail]{after}"), &there()).unwrap_or_else(|m| panic!("{m:?}")).kube;
    let [hyades, pleiades, taurus] = kube.clusters.as_slice() else { panic!("{kube:?}") };
    assert_eq!(hyades.way, StaticWay::Eks { region: "us-east-1".into(), cluster: "hyades".into() });
    assert!(matches!(&pleiades.way, StaticWay::Impersonate(entry) if entry.context.as_deref() == Some("pleiades")));
    assert_eq!(taurus.endpoint.as_deref(), Some("https://10.1.2.3:6443"));
    assert_eq!(kube.kubeconfigs(), [Path::new("/etc/stockade/kubeconfig")]);
    assert_eq!(kube.audit[0].level, Level::None);
    assert_eq!(kube.public.unwrap().life, Duration::from_secs(3600));
    assert!(!kube.discover[0].trusted && kube.discover[0].tags["stockade"].matches("yes"));
}

#[test]
fn rules_and_discovery() {
    let kube = kube(&format!(
        "{AWS}[[kube.discover]]\n[[kube.discover]]\nrole = 'arn:aws:iam::123456789012:role/x/look'\nregions = ['eu-west-1']\n\
         [[kube.allow]]\ngroups = ['ops']\n[[kube.deny]]\nlabels = {{ stage = 'prod' }}\n"
    ));
    assert_eq!(kube.discover[0].regions, ["us-east-1"]);
    assert!(kube.discover.iter().all(|discover| discover.trusted));
    assert_eq!(kube.allow[0].clusters, [Pattern::new("*")]);
    assert_eq!(kube.deny[0].groups, [Pattern::new("*")]);
}

#[test]
fn whether_one_role_serves_both_and_the_public_door_are_fixed() {
    let with = |lines: &str| check(&format!("{LEAST}{AWS}[kube]\n{lines}"), &there()).unwrap();
    let (old, same) = (with(""), with("kube_role = 'same'\n"));
    let door = with("[kube.public]\nlisten = ['[::]:6443']\nurl = 'https://a.test'\ncertificate = '/c'\nkey = '/k'\n");
    assert_eq!(old.fixed_against(&same), ["kube.kube_role"]);
    assert_eq!(old.fixed_against(&door), ["kube.public"]);
    let free =
        with("role = 'arn:aws:iam::123456789012:role/k/{user}'\nrefresh = '1m'\n[[kube.allow]]\ngroups = ['ops']\n");
    assert!(old.fixed_against(&free).is_empty());
}

#[test]
fn mistakes_in_clusters() {
    let cluster = |lines: &str| format!("{AWS}[[kube.cluster]]\nname = 'a'\n{lines}");
    let eks = "way = 'eks'\nendpoint = 'https://a.test'\nca = '/a.pem'\n";
    for (lines, wanted) in [
        (
            "way = 'eks'\nendpoint = 'http://a.test'\nca = '/a.pem'\n",
            "`cluster`: `endpoint`: 'http://a.test' is plain HTTP | users' credentials go there: it must be https",
        ),
        (
            "way = 'eks'\nendpoint = 'https://a.test'\nca = '/empty'\n",
            "`cluster`: `ca`: '/empty': no certificate | it must be certificates in PEM",
        ),
        (
            "endpoint = 'https://a.test'\nca = '/a.pem'\n",
            "`cluster`: `way` is missing from a [[kube.cluster]] | add way = \"eks\"",
        ),
        (
            "way = 'exec'\n",
            "`cluster`: `way`: 'exec' is not one of the choices | write \"eks\" or \"impersonate\" or \"kubeconfig\"",
        ),
        (
            &format!("{eks}kubeconfig = '/etc/stockade/kubeconfig'\n"),
            "`cluster`: a kubeconfig beside way = \"eks\" | a token of the user's own is all that way = \"eks\" shows: \
             take `kubeconfig` and `context` out",
        ),
        (
            "way = 'kubeconfig'\nkubeconfig = '/etc/stockade/kubeconfig'\ncontext = 'exec'\n",
            "`cluster`: `kubeconfig`: '/etc/stockade/kubeconfig': user 'exec' runs a program for its credential (exec) | \
             the warden may not exec; use way = \"eks\", or way = \"impersonate\" with a token or client certificate of \
             the bastion's own",
        ),
        (
            "way = 'impersonate'\nkubeconfig = '/skip'\n",
            "`cluster`: `kubeconfig`: '/skip': cluster 'a' has insecure-skip-tls-verify | name the certificates it comes \
             from instead: anybody could be this server",
        ),
        (
            "way = 'impersonate'\nkubeconfig = '/http'\n",
            "`cluster`: `kubeconfig`: '/http': 'http://a.test:6443' is no https address | write https://host[:port]: \
             \"https://10.1.2.3:6443\"",
        ),
        (
            "way = 'impersonate'\nkubeconfig = '/bare'\n",
            "`cluster`: `kubeconfig`: '/bare': no certificate-authority-data | add ca = \"/etc/stockade/hyades-ca.pem\"",
        ),
        (
            "way = 'impersonate'\nkubeconfig = '/open'\n",
            "`cluster`: `kubeconfig`: '/open' can be read by others (mode 0644) | it holds secrets: root's, mode 0600",
        ),
        (
            "way = 'kubeconfig'\n",
            "`cluster`: this way wants a `kubeconfig` | add kubeconfig = \"/etc/stockade/kubeconfig\", which has the \
             credential that the bastion shows",
        ),
        (
            &format!("{eks}[[kube.cluster]]\nname = 'a'\n{eks}"),
            "`cluster`: two clusters are called 'a' | give one of them another name: it is what users choose by",
        ),
        (
            &format!("{eks}[[kube.cluster]]\nname = 'b'\neks_name = 'a'\n{}", eks.replace("a.test", "b.test")),
            "`cluster`: two endpoints for 'a' of EKS | a token for one would open the other; rename one in EKS, or leave \
             one out",
        ),
    ] {
        wrong(&cluster(lines), wanted);
    }
    wrong(
        &format!("[[kube.cluster]]\nname = 'a/b'\n{eks}"),
        "`cluster`: `name`: 'a/b' is not the name of a cluster | 1 to 100 of the letters A-Z a-z 0-9 - _ . that begin \
         with a letter or a digit",
    );
    wrong(
        &format!("[[kube.cluster]]\nname = 'a'\n{eks}"),
        "`cluster`: way = \"eks\" without [aws] | add [aws], whose identity makes users' tokens, or use \
         way = \"impersonate\" or \"kubeconfig\"",
    );
}

#[test]
fn mistakes_in_kube() {
    for (lines, wanted) in [
        (
            "kube_role = 'same'\nrole = 'arn:aws:iam::123456789012:role/k/{user}'\n",
            "`role` of [kube] beside kube_role = \"same\" | take one of the two out: \"same\" uses the role of [aws]",
        ),
        (
            "role = 'arn:aws:iam::123456789012:role/b/{user}'\n",
            "`role` of [kube] is that of [aws] | make a second one, like \
             \"arn:aws:iam::123456789012:role/bastion/{user}-kube\"; kube_role = \"same\" says that one role is to serve both",
        ),
        ("refresh = '1s'\n", "`refresh`: the duration is out of bounds | write one from 1m to 1d"),
        (
            "[[kube.allow]]\n",
            "`allow`: the rule names no group, cluster or label | write groups = [\"*\"] if everybody on every cluster is \
             meant",
        ),
        (
            "[[kube.deny]]\ngroups = []\n",
            "`deny`: an empty list, so the rule is for nobody | leave it out for everybody, or every cluster",
        ),
        (
            "[[kube.impersonate]]\ngroups = ['ops']\nas_groups = ['system:masters']\n",
            "`impersonate`: `as_groups`: 'system:masters' is the cluster's own | system:masters and its like are above \
             every rule of the cluster; bind the user's own group instead",
        ),
        (
            "[[kube.audit]]\nlevel = 'RequestResponse'\n",
            "`audit`: `level`: 'RequestResponse' is not one of the choices | write \"None\" or \"Metadata\" or \"Request\"",
        ),
        (
            "[[kube.audit]]\nlevel = 'None'\nverbs = ['GET']\npaths = ['version']\n",
            "`audit`: `verbs`: 'GET' cannot match anything | verbs and resources are in lower case: \"pods/log\"\n\
             `audit`: `paths`: 'version' is not a path | begin it with /: \"/openapi/*\"",
        ),
        (
            "[kube.public]\nlisten = ['0.0.0.0:6443']\nurl = 'https://a.test/x'\ncertificate = '/c'\n",
            "`public`: `url`: 'https://a.test/x' has a path | write https://host[:port]\n\
             `public`: `key` is missing from [kube.public] | add key = \"/etc/stockade/kube.key\"",
        ),
        (
            "[[kube.discover]]\nrole = 'look'\nregion = 'x'\n",
            "`discover`: `role`: 'look' is not the ARN of a role | write it like \
             \"arn:aws:iam::210987654321:role/stockade-discovery\"\n\
             `discover`: there is no setting `region` in a [[kube.discover]] | did you mean `regions`?",
        ),
    ] {
        let mut found = said_by(&format!("{LEAST}{AWS}[kube]\n{lines}"), &there());
        let mut wanted: Vec<&str> = wanted.split('\n').collect();
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted);
    }
    wrong("[[kube.discover]]\n", "`discover`: [[kube.discover]] without [aws] | add [aws]: it is EKS that is asked");
    wrong(
        "[kube]\nkube_role = 'same'\n",
        "a role for clusters without [aws] | add [aws], whose identity assumes users' roles, or take this out",
    );
}
