use super::*;
use crate::privsep::message::Refusal;

struct Town(bool);

impl People for Town {
    async fn find(&self, principal: &Principal) -> Result<Record, Refusal> {
        if self.0 {
            return Err(Refusal { code: "Throttling".into(), message: "Rate exceeded".into(), transient: true });
        }
        let keys = vec![Keys { origin: Origin::Iam("APKA1".into()), text: format!("ssh-rsa {principal}") }];
        Ok(Record { keys, groups: ["developers".to_owned()].into(), ..Record::default() })
    }
}

fn directory(down: bool, wanted: Use) -> Directory<Town> {
    let held = tempfile::tempdir().unwrap();
    let files = Files::new(std::fs::File::open(held.path()).unwrap().into(), |_, principal| match principal.as_str() {
        "alice" => Ok(Some("ssh-ed25519 AAAA alice\n".into())),
        "mallory" => Err("'mallory' may be written by everybody".into()),
        _ => Ok(None),
    });
    let groups = BTreeMap::from([("ops".to_owned(), vec!["alice".parse().unwrap()])]);
    Directory::new(Some(files), &groups, Some((Arc::new(Cache::new(Town(down), Lives::default())), wanted)))
}

async fn look_up(directory: &Directory<Town>, name: &str) -> Result<(usize, Vec<String>), Unknown> {
    let record = directory.look_up(&name.parse().unwrap(), Need::Login).await?;
    Ok((record.keys.len(), record.groups.into_iter().collect()))
}

const BOTH: Use = Use { keys: true, groups: true };
const KEYS_ONLY: Use = Use { keys: true, groups: false };

#[tokio::test]
async fn files_and_iam_add_up() {
    let both = directory(false, BOTH);
    assert_eq!(look_up(&both, "alice").await, Ok((2, vec!["developers".into(), "ops".into()])));
    assert_eq!(look_up(&both, "bob").await, Ok((1, vec!["developers".into()])));
    assert_eq!(look_up(&both, "mallory").await, Ok((1, vec!["developers".into()])), "a bad file gives no keys");
    let groups_only = directory(false, Use { keys: false, groups: true });
    assert_eq!(look_up(&groups_only, "bob").await, Ok((0, vec!["developers".into()])));
}

#[tokio::test]
async fn without_iams_groups_nobody_is_judged_but_without_its_keys_files_stand() {
    assert!(matches!(look_up(&directory(true, BOTH), "alice").await, Err(Unknown::Iam(_))));
    assert_eq!(look_up(&directory(true, KEYS_ONLY), "alice").await, Ok((1, vec!["ops".into()])));
}

#[tokio::test]
async fn the_unknown_are_people_without_keys() {
    let directory: Directory<Iam> = Directory::new(None, &BTreeMap::new(), None);
    assert_eq!(directory.look_up(&"nobody".parse().unwrap(), Need::Login).await, Ok(Record::default()));
}
