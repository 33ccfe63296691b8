//! An access review: a file in which somebody signs for every right that it stays or goes, and what has changed since.
//!
//! One line is one right. Whoever reviews fills `decision` (`keep` or `revoke`), `reviewer` and `note`; the digest is
//! over everything else, so that what was signed for is what was written. It proves no identity: that is for a signature
//! of the whole file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::rights::Right;
use super::sheet::{Sheet, time};
use crate::config::rbac::Level;

/// Why a file is no review.
#[derive(Debug, thiserror::Error)]
pub enum NotAReview {
    #[error("it is no access review: {0}")]
    Form(String),
    #[error(
        "the part that is not for signing was changed after it was written (it says {said}, and is {is}): write a new \
         review, or undo the change"
    )]
    Changed { said: String, is: String },
    #[error("{user} has {what} twice in it")]
    Twice { user: String, what: String },
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Review {
    /// RFC 3339.
    pub taken: String,
    /// `sha256:` and 64 figures.
    pub digest: String,
    /// What each level meant: a digest of its configuration.
    #[serde(default)]
    pub levels: BTreeMap<String, String>,
    #[serde(default)]
    pub rights: Vec<Line>,
}

/// One right and what is decided about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    pub user: String,
    pub cluster: String,
    #[serde(default)]
    pub namespace: String,
    pub level: String,
    /// The IAM group, or the object that a hand made.
    pub by: String,
    #[serde(default)]
    pub since: String,
    #[serde(default)]
    pub last_used: String,
    #[serde(default)]
    pub granted_by: String,
    #[serde(default)]
    pub marks: String,
    /// `keep` or `revoke`.
    #[serde(default)]
    pub decision: String,
    #[serde(default)]
    pub reviewer: String,
    #[serde(default)]
    pub note: String,
}

type Key<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str);

impl Line {
    fn of(right: &Right) -> Self {
        Self {
            user: right.user.clone(),
            cluster: right.cluster.clone(),
            namespace: right.namespace.clone().unwrap_or_default(),
            level: right.level.clone(),
            by: right.group.clone().or_else(|| right.object.clone()).unwrap_or_default(),
            since: time(right.since.map(|since| since.at)),
            last_used: time(right.last_used),
            granted_by: right.granted.as_ref().map(|granted| granted.by.clone()).unwrap_or_default(),
            marks: right.marks().join(", "),
            ..Self::default()
        }
    }

    fn key(&self) -> Key<'_> {
        (&self.user, &self.cluster, &self.namespace, &self.level, &self.by)
    }

    fn what(&self) -> String {
        let place = if self.namespace.is_empty() { String::new() } else { format!("/{}", self.namespace) };
        format!("{} of {}{place} by {}", self.level, self.cluster, self.by)
    }

    /// `None`: not decided by anybody who may.
    fn decided(&self) -> Result<Decision, &'static str> {
        let reviewer = self.reviewer.trim();
        match self.decision.trim() {
            "" => Err("nobody has decided"),
            "keep" | "revoke" if reviewer.is_empty() => Err("it is decided, and no reviewer is named"),
            "keep" if reviewer == self.user => Err("nobody keeps a right by their own word"),
            "keep" => Ok(Decision::Keep),
            "revoke" => Ok(Decision::Revoke),
            _ => Err("the decision is neither keep nor revoke"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Keep,
    Revoke,
}

impl Review {
    /// Nothing is decided in it yet.
    pub fn of(rights: &[Right], levels: &[Level], now: i64) -> Self {
        let rights = rights.iter().map(Line::of).collect();
        let levels = meanings(levels);
        let mut review = Self { taken: time(Some(now)), digest: String::new(), levels, rights };
        review.digest = review.computed();
        review
    }

    /// A file that was written by `text`, and signed since.
    pub fn parse(text: &str) -> Result<Self, NotAReview> {
        let review: Self = toml::from_str(text).map_err(|error| NotAReview::Form(error.to_string()))?;
        let is = review.computed();
        if is != review.digest {
            return Err(NotAReview::Changed { said: review.digest, is });
        }
        let mut seen = BTreeSet::new();
        match review.rights.iter().find(|line| !seen.insert(line.key())) {
            Some(line) => Err(NotAReview::Twice { user: line.user.clone(), what: line.what() }),
            None => Ok(review),
        }
    }

    /// TOML: one line for each right.
    pub fn text(&self) -> String {
        let mut text = String::from(HEAD);
        let _ = writeln!(text, "taken = {}\ndigest = {}", quoted(&self.taken), quoted(&self.digest));
        let levels: Vec<String> =
            self.levels.iter().map(|(name, digest)| format!("{} = {}", quoted(name), quoted(digest))).collect();
        let _ = writeln!(text, "levels = {{ {} }}\nrights = [", levels.join(", "));
        for line in &self.rights {
            let fields: Vec<String> =
                line.fields().iter().map(|(name, value)| format!("{name} = {}", quoted(value))).collect();
            let _ = writeln!(text, "  {{ {} }},", fields.join(", "));
        }
        text.push_str("]\n");
        text
    }

    /// Over all that is not for signing.
    fn computed(&self) -> String {
        let rights: Vec<Vec<&str>> = self
            .rights
            .iter()
            .map(|line| line.fields().iter().take(FIXED).map(|(_, value)| *value).collect())
            .collect();
        sha256(&serde_json::json!([self.taken, self.levels, rights]).to_string())
    }
}

/// How many of a line's fields are not for signing.
const FIXED: usize = 9;

impl Line {
    fn fields(&self) -> [(&'static str, &str); 12] {
        [
            ("user", &self.user),
            ("cluster", &self.cluster),
            ("namespace", &self.namespace),
            ("level", &self.level),
            ("by", &self.by),
            ("since", &self.since),
            ("last_used", &self.last_used),
            ("granted_by", &self.granted_by),
            ("marks", &self.marks),
            ("decision", &self.decision),
            ("reviewer", &self.reviewer),
            ("note", &self.note),
        ]
    }
}

const HEAD: &str = "\
# Who has what, for signing. Each line below is one right of one user. Fill in, on every line:
#   decision = \"keep\" or \"revoke\"      reviewer = your name, which is not the user's      note = why, if it needs saying
# Change nothing else: the digest is over the rest, and `stockade access report --against` refuses a file that was
# changed. When all is decided, sign the whole file, and keep the signature beside it:
#   ssh-keygen -Y sign -n stockade-access-review -f ~/.ssh/id_ed25519 FILE
#   ssh-keygen -Y verify -n stockade-access-review -f ALLOWED_SIGNERS -I REVIEWER -s FILE.sig < FILE
# Nothing is revoked by this file: take the user out of the IAM group, or remove the object that was made by hand.
";

fn meanings(levels: &[Level]) -> BTreeMap<String, String> {
    let digest = |level: &Level| sha256(&serde_json::to_string(level).unwrap_or_default());
    levels.iter().map(|level| (level.name.clone(), digest(level))).collect()
}

fn sha256(text: &str) -> String {
    let figures = Sha256::digest(text.as_bytes());
    figures.iter().fold("sha256:".to_owned(), |mut all, byte| {
        let _ = write!(all, "{byte:02x}");
        all
    })
}

/// A basic string of TOML, without what an editor would obey.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() || ('\u{200b}'..='\u{206f}').contains(&c) || c == '\u{feff}' => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// What is not as it was signed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Difference {
    pub kind: Kind,
    pub user: String,
    pub what: String,
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Decided to be revoked, and still there.
    StillThere,
    /// There, and not in the file.
    New,
    /// In the file, and not there.
    Gone,
    /// In the file, there, and not signed.
    Unsigned,
    /// A level allows other things than it did.
    Level,
    /// Its cluster cannot be read.
    Unknown,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Self::StillThere => "revoked, still there",
            Self::New => "new",
            Self::Gone => "gone",
            Self::Unsigned => "unsigned",
            Self::Level => "level changed",
            Self::Unknown => "unknown",
        }
    }
}

/// The differences between a signed review and what there is; `away`: clusters that could not be read.
pub fn compare(signed: &Review, now: &Review, away: &BTreeSet<String>) -> Vec<Difference> {
    let there: BTreeMap<Key<'_>, &Line> = now.rights.iter().map(|line| (line.key(), line)).collect();
    let before: BTreeMap<Key<'_>, &Line> = signed.rights.iter().map(|line| (line.key(), line)).collect();
    let difference = |kind: Kind, line: &Line, why: &str| Difference {
        kind,
        user: line.user.clone(),
        what: line.what(),
        why: why.to_owned(),
    };
    let mut found = Vec::new();
    for line in before.values() {
        let unread = away.contains(&line.cluster);
        match (there.contains_key(&line.key()), line.decided()) {
            _ if unread => found.push(difference(Kind::Unknown, line, "the cluster cannot be read")),
            (true, Ok(Decision::Keep)) => {
                let drifted = |line: &Line| line.marks.contains("drifted");
                if there.get(&line.key()).is_some_and(|now| drifted(now) && !drifted(line)) {
                    found.push(difference(Kind::Level, line, "what it hangs on was changed by hand since"));
                }
            }
            (true, Ok(Decision::Revoke)) => found.push(difference(Kind::StillThere, line, &by(line))),
            (true, Err(why)) => found.push(difference(Kind::Unsigned, line, why)),
            (false, Ok(Decision::Revoke)) => {}
            (false, _) => found.push(difference(Kind::Gone, line, "nobody decided that it goes")),
        }
    }
    let new = now.rights.iter().filter(|line| !before.contains_key(&line.key()));
    found.extend(new.map(|line| difference(Kind::New, line, "it came after the review")));
    found.extend(signed.levels.iter().filter(|(name, digest)| now.levels.get(*name) != Some(digest)).map(
        |(name, _)| {
            let what = format!("level {name}");
            Difference {
                kind: Kind::Level,
                user: String::new(),
                what,
                why: "it allows other things than it did".into(),
            }
        },
    ));
    found.sort();
    found
}

fn by(line: &Line) -> String {
    let note = if line.note.is_empty() { String::new() } else { format!(": {}", line.note) };
    format!("revoked by {}{note}", line.reviewer)
}

pub fn sheet(found: &[Difference]) -> Sheet {
    let row = |one: &Difference| vec![one.kind.word().to_owned(), one.user.clone(), one.what.clone(), one.why.clone()];
    Sheet { head: vec!["difference", "user", "right", "why"], rows: found.iter().map(row).collect() }
}
