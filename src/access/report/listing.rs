//! Rights as rows.

use super::rights::{Right, Source};
use super::sheet::{Sheet, day, time};

/// For people: days, and only what they look for first.
pub fn table(rights: &[Right]) -> Sheet {
    let row = |right: &Right| {
        let since = right.since.map(|since| match since.by {
            Source::Objects => format!("after {}", day(Some(since.at))),
            Source::History | Source::CloudTrail => day(Some(since.at)),
        });
        let by =
            right.granted.as_ref().map(|granted| granted.by.rsplit_once(':').map_or(&*granted.by, |(_, name)| name));
        vec![
            right.user.clone(),
            right.place(),
            right.level.clone(),
            right.group.clone().or_else(|| right.object.clone()).unwrap_or_default(),
            since.unwrap_or_default(),
            right.last_used.map_or_else(String::new, |at| day(Some(at))),
            by.unwrap_or_default().to_owned(),
            right.marks().join(", "),
        ]
    };
    Sheet {
        head: vec!["user", "where", "level", "by", "since", "last used", "granted by", "marks"],
        rows: rights.iter().map(row).collect(),
    }
}

/// For spreadsheets: everything, a cell each.
pub fn sheet(rights: &[Right]) -> Sheet {
    let source = |right: &Right| match right.since?.by {
        Source::History => Some("history"),
        Source::CloudTrail => Some("cloudtrail"),
        Source::Objects => Some("objects"),
    };
    let row = |right: &Right| {
        vec![
            right.user.clone(),
            right.cluster.clone(),
            right.namespace.clone().unwrap_or_default(),
            right.level.clone(),
            right.group.clone().unwrap_or_default(),
            right.object.clone().unwrap_or_default(),
            right.state.word().to_owned(),
            time(right.since.map(|since| since.at)),
            source(right).unwrap_or_default().to_owned(),
            time(right.last_used),
            if right.dormant { "yes" } else { "no" }.to_owned(),
            right.granted.as_ref().map(|granted| granted.by.clone()).unwrap_or_default(),
            time(right.granted.as_ref().map(|granted| granted.at)),
            right.drift.join("; "),
        ]
    };
    Sheet {
        head: vec![
            "user",
            "cluster",
            "namespace",
            "level",
            "group",
            "object",
            "state",
            "since",
            "since by",
            "last used",
            "dormant",
            "granted by",
            "granted at",
            "drift",
        ],
        rows: rights.iter().map(row).collect(),
    }
}
