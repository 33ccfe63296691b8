//! Who put whom into a group, and when: CloudTrail's files, as AWS delivers them to a bucket or as
//! `aws cloudtrail lookup-events` prints them.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most of one file, unpacked: CloudTrail's own have a few megabytes.
const LONGEST: u64 = 1024 * 1024 * 1024;

/// Why a file is no use.
#[derive(Debug, thiserror::Error)]
pub enum NotCloudTrail {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not JSON of CloudTrail", path.display())]
    Form { path: PathBuf, source: serde_json::Error },
    #[error("{} has no files that end in .json or .json.gz", .0.display())]
    Empty(PathBuf),
}

/// A membership that was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Granted {
    /// Seconds since the epoch.
    pub at: i64,
    /// ARN of who did it, with the name of the person behind an assumed role where AWS knows one.
    pub by: String,
}

/// What CloudTrail knows of memberships: who gave each of those that still stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudTrail {
    /// By user and group; `None`: taken away again.
    last: BTreeMap<(String, String), (i64, Option<Granted>)>,
    /// By user: whoever wrote a user's tag of groups last, with its value.
    tagged: BTreeMap<String, (Granted, String)>,
}

/// Only what is needed: an unknown field is none of our business.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    event_time: String,
    event_source: String,
    event_name: String,
    error_code: Option<String>,
    #[serde(default)]
    user_identity: Value,
    #[serde(default)]
    request_parameters: Value,
}

impl CloudTrail {
    /// Reads a file, or every file beneath a directory; `tag` is the key of users' tags that name groups.
    pub fn read(path: &Path, tag: Option<&str>) -> Result<Self, NotCloudTrail> {
        let mut trail = Self::default();
        let mut files = files(path)?;
        files.sort();
        if files.is_empty() {
            return Err(NotCloudTrail::Empty(path.to_owned()));
        }
        for file in files {
            for record in records(&file)? {
                trail.add(&record, tag);
            }
        }
        Ok(trail)
    }

    /// Who put `user` into `group`, if they are in it by what CloudTrail says.
    pub fn granted(&self, user: &str, group: &str) -> Option<Granted> {
        let joined = self.last.get(&(user.to_owned(), group.to_owned())).and_then(|(_, granted)| granted.clone());
        let tagged = || {
            let (granted, value) = self.tagged.get(user)?;
            value.split(['+', ' ']).any(|word| word == group).then(|| granted.clone())
        };
        joined.or_else(tagged)
    }

    fn add(&mut self, record: &Record, tag: Option<&str>) {
        if record.event_source != "iam.amazonaws.com" || record.error_code.is_some() {
            return;
        }
        let Some(at) = record.event_time.parse::<Timestamp>().ok().map(Timestamp::as_second) else { return };
        let said = |name: &str| record.request_parameters[name].as_str().map(str::to_owned);
        let Some(user) = said("userName") else { return };
        let granted = Granted { at, by: who(&record.user_identity) };
        match record.event_name.as_str() {
            "AddUserToGroup" => self.member(user, said("groupName"), at, Some(granted)),
            "RemoveUserFromGroup" => self.member(user, said("groupName"), at, None),
            "TagUser" => {
                let tags = record.request_parameters["tags"].as_array().into_iter().flatten();
                let mut ours = tags.filter(|each| tag.is_some() && each["key"].as_str() == tag);
                if let Some(value) = ours.find_map(|each| each["value"].as_str())
                    && self.tagged.get(&user).is_none_or(|(before, _)| before.at <= at)
                {
                    self.tagged.insert(user, (granted, value.to_owned()));
                }
            }
            _ => {}
        }
    }

    /// Files come in any order, and some twice.
    fn member(&mut self, user: String, group: Option<String>, at: i64, granted: Option<Granted>) {
        let Some(group) = group else { return };
        let last = self.last.entry((user, group)).or_insert((i64::MIN, None));
        if last.0 <= at {
            *last = (at, granted);
        }
    }
}

/// A session of a role says who is behind it only by its source identity.
fn who(identity: &Value) -> String {
    let text = |path: &str| identity.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty());
    let names = ["/arn", "/invokedBy", "/principalId", "/type"];
    let name = names.iter().find_map(|path| text(path)).unwrap_or("unknown");
    match text("/sessionContext/sourceIdentity") {
        Some(behind) => format!("{name} ({behind})"),
        None => name.to_owned(),
    }
}

fn files(path: &Path) -> Result<Vec<PathBuf>, NotCloudTrail> {
    let read = |source| NotCloudTrail::Read { path: path.to_owned(), source };
    if !fs_err::metadata(path).map_err(read)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs_err::read_dir(path).map_err(read)? {
        let entry = entry.map_err(read)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(read)?);
        let name = entry.file_name().to_string_lossy().into_owned();
        // A link could lead round in a circle.
        if kind.is_dir() {
            found.extend(files(&path)?);
        } else if kind.is_file() && (name.ends_with(".json") || name.ends_with(".json.gz")) {
            found.push(path);
        }
    }
    Ok(found)
}

fn records(path: &Path) -> Result<Vec<Record>, NotCloudTrail> {
    let read = |source| NotCloudTrail::Read { path: path.to_owned(), source };
    let form = |source: serde_json::Error| match source.io_error_kind() {
        Some(kind) => NotCloudTrail::Read { path: path.to_owned(), source: kind.into() },
        None => NotCloudTrail::Form { path: path.to_owned(), source },
    };
    let file = fs_err::File::open(path).map_err(read)?;
    let gzip = path.extension().is_some_and(|extension| extension == "gz");
    let bytes: Box<dyn Read> = if gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut found = Vec::new();
    // One document, or one a line.
    for document in serde_json::Deserializer::from_reader(BufReader::new(bytes.take(LONGEST))).into_iter::<Value>() {
        collect(document.map_err(form)?, &mut found);
    }
    Ok(found)
}

/// `{"Records": [..]}` of a bucket, `{"Events": [{"CloudTrailEvent": ".."}]}` of the API, a list, or one record alone.
/// Anything else, such as the digest files that lie beside, has no records.
fn collect(document: Value, found: &mut Vec<Record>) {
    match document {
        Value::Array(list) => list.into_iter().for_each(|each| collect(each, found)),
        Value::Object(mut map) => {
            let inside = ["Records", "Events"].into_iter().find_map(|name| map.remove(name));
            match (inside, map.get("CloudTrailEvent").and_then(Value::as_str)) {
                (Some(list @ Value::Array(_)), _) => collect(list, found),
                (None, Some(text)) => found.extend(serde_json::from_str::<Record>(text)),
                _ => found.extend(serde_json::from_value::<Record>(Value::Object(map))),
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;

    use super::*;

    const GROUP: &str = "k8s-admin@hyades";

    fn event(name: &str, at: &str, by: Value) -> Value {
        json!({
            "eventVersion": "1.10", "eventTime": at, "eventSource": "iam.amazonaws.com", "eventName": name,
            "userIdentity": by, "requestParameters": { "userName": "alice", "groupName": GROUP },
        })
    }

    fn bob() -> Value {
        json!({ "type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/bob", "userName": "bob" })
    }

    fn read(files: &[(&str, Vec<u8>)]) -> Result<CloudTrail, NotCloudTrail> {
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        CloudTrail::read(directory.path(), Some("stockade:groups"))
    }

    fn packed(value: &Value) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(value.to_string().as_bytes()).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn the_newest_addition_counts_whatever_the_order_of_files() {
        let role = json!({
            "type": "AssumedRole", "arn": "arn:aws:sts::111122223333:assumed-role/ops/s",
            "sessionContext": { "sourceIdentity": "carol" },
        });
        let newest = json!({ "Records": [event("AddUserToGroup", "2026-11-03T10:00:00Z", role)] });
        let older = json!({ "Records": [
            event("RemoveUserFromGroup", "2026-11-02T10:00:00Z", bob()),
            event("AddUserToGroup", "2026-11-01T10:00:00Z", bob()),
        ]});
        let trail = read(&[
            ("AWSLogs/1/CloudTrail/a.json.gz", packed(&newest)),
            ("AWSLogs/1/CloudTrail/b.json", older.to_string().into_bytes()),
            ("AWSLogs/1/CloudTrail-Digest/d.json.gz", packed(&json!({ "awsAccountId": "1", "logFiles": [] }))),
            ("readme.txt", b"no JSON".to_vec()),
        ])
        .unwrap();
        let granted = trail.granted("alice", GROUP).unwrap();
        assert_eq!(granted.by, "arn:aws:sts::111122223333:assumed-role/ops/s (carol)");
        assert_eq!(granted.at, "2026-11-03T10:00:00Z".parse::<Timestamp>().unwrap().as_second());
        assert_eq!(trail.granted("bob", GROUP), None);
    }

    #[test]
    fn who_was_taken_out_was_not_granted_and_what_failed_did_not_happen() {
        let mut failed = event("AddUserToGroup", "2026-11-05T10:00:00Z", bob());
        failed["errorCode"] = json!("AccessDenied");
        let lines = [
            event("AddUserToGroup", "2026-11-01T10:00:00Z", bob()),
            event("RemoveUserFromGroup", "2026-11-02T10:00:00Z", bob()),
            failed,
        ];
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(read(&[("lines.json", lines.into_bytes())]).unwrap().granted("alice", GROUP), None);
    }

    #[test]
    fn what_the_command_line_prints_is_read_too() {
        let inner = event("AddUserToGroup", "2026-11-01T10:00:00Z", bob()).to_string();
        let printed = json!({ "Events": [{ "EventName": "AddUserToGroup", "CloudTrailEvent": inner }] });
        let trail = read(&[("events.json", printed.to_string().into_bytes())]).unwrap();
        assert_eq!(trail.granted("alice", GROUP).unwrap().by, "arn:aws:iam::111122223333:user/bob");
    }

    #[test]
    fn tags_may_be_what_grants() {
        let mut tagged = event("TagUser", "2026-11-01T10:00:00Z", bob());
        tagged["requestParameters"] =
            json!({ "userName": "alice", "tags": [{ "key": "stockade:groups", "value": "ops+k8s-admin@hyades" }] });
        let trail = read(&[("t.json", json!([tagged]).to_string().into_bytes())]).unwrap();
        assert_eq!(trail.granted("alice", GROUP).unwrap().by, "arn:aws:iam::111122223333:user/bob");
        assert_eq!(trail.granted("alice", "k8s-admin@other"), None);
    }

    #[test]
    fn bad_files_are_named() {
        assert!(matches!(read(&[]), Err(NotCloudTrail::Empty(_))));
        let error = read(&[("bad.json", b"{\"Records\": [".to_vec())]).unwrap_err().to_string();
        assert!(error.ends_with("bad.json is not JSON of CloudTrail"), "{error}");
        let error = read(&[("bad.json.gz", b"no gzip".to_vec())]).unwrap_err().to_string();
        assert!(error.contains("cannot read") && error.ends_with("bad.json.gz"), "{error}");
        assert!(matches!(CloudTrail::read(Path::new("/nosuch"), None), Err(NotCloudTrail::Read { .. })));
        let odd = json!({ "Records": [1, null, { "eventName": 7 }, event("AddUserToGroup", "not a time", bob())] });
        assert_eq!(read(&[("odd.json", odd.to_string().into_bytes())]).unwrap(), CloudTrail::default());
    }
}
