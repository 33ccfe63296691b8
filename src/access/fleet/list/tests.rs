use super::*;
use crate::config::KubeconfigEntry;
use crate::identity::Pattern;

const KUBECONFIG: &str =
    "clusters: [{name: c, cluster: {server: 'https://c.test', certificate-authority-data: LS0tLS1CRUdJTiBYLS0tLS0=}}]
contexts: [{name: taurus, context: {cluster: c, user: u}}, {name: exec, context: {cluster: c, user: x}}]
users: [{name: u, user: {token: the-secret}}, {name: x, user: {exec: {command: aws}}}]
";

fn place(region: &str) -> Place {
    Place { role: None, region: region.into() }
}

fn described(name: &str, account: &str, region: &str) -> Described {
    Described {
        name: name.into(),
        arn: format!("arn:aws:eks:{region}:{account}:cluster/{name}"),
        account: account.into(),
        region: region.into(),
        is_up: true,
        endpoint: format!("https://{name}.{account}.{region}.test/"),
        authority: STANDARD.encode("-----BEGIN X-----"),
        tags: [("team".to_owned(), "platform".to_owned())].into(),
        mode: Mode::Entries,
    }
}

fn discover(tags: &[(&str, &str)]) -> Discover {
    let pattern = |text: &str| Pattern::new(text);
    Discover {
        role: None,
        regions: vec!["us-east-1".into(), "eu-west-1".into()],
        tags: tags.iter().map(|(name, value)| ((*name).to_owned(), pattern(value))).collect(),
        trusted: false,
    }
}

fn stated_cluster(name: &str, way: StaticWay) -> StaticCluster {
    StaticCluster {
        name: name.into(),
        labels: BTreeMap::new(),
        endpoint: None,
        authority: None,
        server_name: None,
        way,
    }
}

fn file() -> KubeconfigEntry {
    KubeconfigEntry { file: "/the/wardens".into(), context: None }
}

fn listing(kube: &Kube, seen: &[(&str, Result<Described, Fault>)]) -> Listing {
    let mut answers: BTreeMap<Place, Answer> = BTreeMap::new();
    for (region, is) in seen {
        let name = is.as_ref().map_or("broken".to_owned(), |is| is.name.clone());
        answers.entry(place(region)).or_default().push((name, is.clone()));
    }
    let mut listing = Listing::new();
    add(&mut listing, kube, &answers);
    listing
}

/// The place of each, or why it has none.
fn codes(listing: &Listing) -> Vec<(&str, &str)> {
    let mut codes = Vec::new();
    for (name, is) in listing {
        codes.push((name.as_str(), is.as_ref().map_or_else(|fault| fault.code.as_str(), Known::place)));
    }
    codes
}

#[test]
fn what_cannot_be_used_is_listed_all_the_same() {
    let kube = Kube { discover: vec![discover(&[("team", "plat*")])], ..Kube::default() };
    let other = Described { tags: BTreeMap::new(), ..described("other", "1", "us-east-1") };
    let starting = Described { is_up: false, ..described("starting", "1", "us-east-1") };
    let odd = Described { authority: "!".into(), ..described("odd", "1", "us-east-1") };
    let seen = [
        ("us-east-1", Ok(described("hyades", "1", "us-east-1"))),
        ("us-east-1", Ok(other)),
        ("us-east-1", Ok(starting)),
        ("us-east-1", Ok(odd)),
        ("us-east-1", Err(Fault::new("Throttling", "later", true))),
        // Nobody asks for what is there.
        ("ap-south-1", Ok(described("far", "1", "ap-south-1"))),
    ];
    assert_eq!(
        codes(&listing(&kube, &seen)),
        [("broken", "Throttling"), ("hyades", "1 us-east-1"), ("odd", "Unusable"), ("starting", "NotActive")]
    );
}

#[test]
fn one_name_is_one_cluster() {
    let kube = Kube { discover: vec![discover(&[]), discover(&[])], ..Kube::default() };
    let east = ("us-east-1", Ok(described("hyades", "1", "us-east-1")));
    assert_eq!(codes(&listing(&kube, std::slice::from_ref(&east))), [("hyades", "1 us-east-1")], "found twice");
    let twice = listing(&kube, &[east.clone(), ("eu-west-1", Ok(described("hyades", "2", "eu-west-1")))]);
    let said = twice["hyades"].as_ref().unwrap_err().to_string();
    assert!(said.starts_with("NameTwice: 1 us-east-1 (https://") && said.contains("2 eu-west-1"), "{said}");

    let token = StaticWay::Eks { region: "eu-west-1".into(), cluster: "hyades".into() };
    let endpoint = Some("https://else.test".to_owned());
    let taurus = StaticCluster { endpoint, ..stated_cluster("taurus", token) };
    let kube = Kube { clusters: vec![taurus], ..kube };
    assert_eq!(codes(&listing(&kube, &[east])), [("hyades", "NameTaken")], "a token for one would open the other");
}

#[tokio::test]
async fn the_file_says_where_and_a_context_says_who() {
    let kube = Kube {
        clusters: vec![
            stated_cluster("exec", StaticWay::Impersonate(file())),
            stated_cluster("gemini", StaticWay::Kubeconfig(file())),
            stated_cluster("hyades", StaticWay::Eks { region: "us-east-1".into(), cluster: "hyades".into() }),
            stated_cluster("leo", StaticWay::Impersonate(file())),
            stated_cluster("taurus", StaticWay::Impersonate(file())),
        ],
        ..Kube::default()
    };
    let listing = stated(&kube, Ok(Some(KUBECONFIG)), None).await;
    let refused = |name: &str| listing[name].as_ref().unwrap_err().to_string();
    assert!(!listing.contains_key("gemini"), "everybody is one there, and access has no key");
    assert!(refused("exec").contains("user 'x' runs a program for its credential (exec)"), "{}", refused("exec"));
    assert!(refused("leo").contains("there is no context 'leo' in it"), "{}", refused("leo"));
    assert!(refused("hyades").contains("there is no [aws]"), "{}", refused("hyades"));
    let taurus = listing["taurus"].as_ref().unwrap();
    assert_eq!((taurus.site.endpoint.as_str(), taurus.mode()), ("https://c.test", Mode::Impersonated));
    assert!(!format!("{listing:?}").contains("the-secret"));
    let none = stated(&kube, Ok(None), None).await;
    assert!(none["taurus"].as_ref().unwrap_err().message.contains("[rbac] has no `kubeconfig`"));
    let lost = Fault::new("Unreadable", "it is not there", false);
    let lost = stated(&kube, Err(&lost), None).await;
    assert_eq!(lost["gemini"].as_ref().unwrap_err().code, "Unreadable", "what was there must not look gone");
}
