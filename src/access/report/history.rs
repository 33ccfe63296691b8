//! How somebody's rights changed: the audit file of `stockade access`, read back.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use serde::Serialize;
use serde_json::Value;

/// OCSF's classes: User Access Management and Group Management.
const CLASSES: [u64; 2] = [3005, 3006];
/// Their codes for who is in a group; see `stockade audit codes`.
const JOINED: &str = "SK9001I";
const LEFT: &str = "SK9002I";

/// The longest line that an audit file has, many times over.
const LONGEST: u64 = 4 * 1024 * 1024;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Milliseconds since the epoch.
    pub time: i64,
    /// `SK9001I`
    pub code: String,
    pub user: Option<String>,
    /// The IAM group that it is about.
    pub group: Option<String>,
    pub cluster: Option<String>,
    /// The objects that were changed.
    pub objects: Vec<String>,
    pub cause: Option<String>,
    pub message: String,
}

/// What to look for; all of it must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub user: Option<String>,
    pub group: Option<String>,
    pub cluster: Option<String>,
    /// Milliseconds since the epoch.
    pub since: Option<i64>,
}

impl Wanted {
    fn fits(&self, step: &Step) -> bool {
        let is = |wanted: &Option<String>, has: &Option<String>| wanted.is_none() || wanted == has;
        let cluster = self.cluster.as_deref().is_none_or(|cluster| step.concerns(cluster));
        is(&self.user, &step.user)
            && is(&self.group, &step.group)
            && cluster
            && self.since.is_none_or(|since| step.time >= since)
    }
}

impl Step {
    fn of(line: &Value) -> Option<Self> {
        let text = |path: &str| line.pointer(path).and_then(Value::as_str).map(str::to_owned);
        if !CLASSES.contains(&line["class_uid"].as_u64()?) {
            return None;
        }
        let several = line["resources"].as_array().into_iter().flatten();
        let objects = several.chain(line.get("resource")).filter_map(|each| each["name"].as_str());
        Some(Self {
            time: line["time"].as_i64()?,
            code: text("/metadata/event_code")?,
            user: text("/user/name"),
            group: text("/group/name").or_else(|| text("/unmapped/group")),
            cluster: text("/unmapped/cluster"),
            objects: objects.map(str::to_owned).collect(),
            cause: text("/unmapped/cause"),
            message: text("/message").unwrap_or_default(),
        })
    }

    /// An event of a group names its cluster only in the group's name.
    fn concerns(&self, cluster: &str) -> bool {
        let named = self.group.as_deref().and_then(|group| group.split('@').nth(1));
        self.cluster.as_deref().or(named) == Some(cluster)
    }
}

/// The steps in an audit file, in its order. A line that a crash tore is none; the next one is whole.
pub fn read(mut lines: impl BufRead, wanted: &Wanted) -> io::Result<Vec<Step>> {
    let (mut found, mut line) = (Vec::new(), Vec::new());
    while io::Read::take(&mut lines, LONGEST).read_until(b'\n', &mut line)? > 0 {
        let step = serde_json::from_slice(&line).ok().and_then(|line| Step::of(&line));
        found.extend(step.filter(|step| wanted.fits(step)));
        line.clear();
    }
    Ok(found)
}

/// Since when users have been in groups: seconds, by user and group, of those who have not left since.
pub fn joined(steps: &[Step]) -> BTreeMap<(String, String), i64> {
    let mut since = BTreeMap::new();
    for step in steps {
        let (Some(user), Some(group)) = (&step.user, &step.group) else { continue };
        let key = (user.clone(), group.clone());
        match step.code.as_str() {
            // Seen again after the watcher lost its memory: in it all the while.
            JOINED => _ = since.entry(key).or_insert(step.time / 1000),
            LEFT => _ = since.remove(&key),
            _ => {}
        }
    }
    since
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(time: i64, code: &str, user: &str, group: &str) -> String {
        let event = json!({
            "class_uid": 3006, "time": time, "metadata": { "event_code": code }, "user": { "name": user },
            "group": { "name": group }, "message": format!("{user} {code} {group}"),
        });
        format!("{event}\n")
    }

    fn given(time: i64, cluster: &str) -> String {
        let event = json!({
            "class_uid": 3005, "time": time, "metadata": { "event_code": "SK9007I" }, "user": { "name": "alice" },
            "resources": [{ "name": "hyades: ClusterRoleBinding k8s-admin@hyades" }], "message": "alice was given it",
            "unmapped": { "cluster": cluster, "group": "k8s-admin@hyades", "cause": "alice joined k8s-admin@hyades" },
        });
        format!("{event}\n")
    }

    #[test]
    fn only_what_is_asked_for_is_found() {
        let file = [
            line(1_000, JOINED, "alice", "k8s-admin@hyades"),
            given(2_000, "hyades"),
            "{\"class_uid\":3005,\"torn".to_owned(),
            "\n{\"class_uid\":3002}\n\u{fffd}\n\n".to_owned(),
            line(3_000, JOINED, "bob", "k8s-user@taurus"),
            line(4_000, LEFT, "alice", "k8s-admin@hyades"),
        ]
        .concat();
        let times = |wanted: Wanted| -> Vec<i64> {
            read(file.as_bytes(), &wanted).unwrap().iter().map(|step| step.time).collect()
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(times(Wanted::default()), [1_000, 2_000, 3_000, 4_000]);
        assert_eq!(times(Wanted { user: text("alice"), ..Wanted::default() }), [1_000, 2_000, 4_000]);
        assert_eq!(times(Wanted { cluster: text("taurus"), ..Wanted::default() }), [3_000]);
        assert_eq!(times(Wanted { cluster: text("hyades"), ..Wanted::default() }), [1_000, 2_000, 4_000]);
        let late = Wanted { group: text("k8s-admin@hyades"), since: Some(2_000), ..Wanted::default() };
        assert_eq!(times(late), [2_000, 4_000]);
        let step = read(given(2_000, "hyades").as_bytes(), &Wanted::default()).unwrap().remove(0);
        assert_eq!(step.cause.as_deref(), Some("alice joined k8s-admin@hyades"));
        assert_eq!(step.objects, ["hyades: ClusterRoleBinding k8s-admin@hyades"]);
    }

    #[test]
    fn since_when_somebody_is_in_a_group() {
        let file = [
            line(1_000, JOINED, "alice", "a"),
            line(2_000, LEFT, "alice", "a"),
            line(3_000, JOINED, "alice", "a"),
            line(4_000, JOINED, "alice", "a"),
            line(5_000, JOINED, "bob", "a"),
            line(6_000, LEFT, "bob", "a"),
        ]
        .concat();
        let since = joined(&read(file.as_bytes(), &Wanted::default()).unwrap());
        assert_eq!(since.into_iter().collect::<Vec<_>>(), [(("alice".to_owned(), "a".to_owned()), 3)]);
    }
}
