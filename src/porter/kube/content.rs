//! What a request's body says, as JSON for the audit: of what is no JSON as much as can be read of it, and where nothing
//! can, that. What a cluster makes of a body is the cluster's; nothing here changes what goes on.

mod protobuf;

use serde_json::Value;

use super::body::{Kept, MOST_KEPT};
use crate::audit::KubeBody;

/// What a content type claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Yaml,
    Protobuf,
    Other,
}

impl Form {
    fn of(content: &str) -> Self {
        match media_type(content).as_str() {
            // API servers take what has no name for JSON.
            "" | "application/json" => Self::Json,
            "application/yaml" => Self::Yaml,
            "application/vnd.kubernetes.protobuf" => Self::Protobuf,
            other if other.ends_with("+json") => Self::Json,
            other if other.ends_with("+yaml") => Self::Yaml,
            _ => Self::Other,
        }
    }
}

fn media_type(content: &str) -> String {
    content.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether the beginning of such a body is worth keeping.
pub fn is_read(content: &str) -> bool {
    Form::of(content) != Form::Other
}

/// What the event has of a body of `length` bytes.
pub fn told(content: &str, kept: Kept, length: u64) -> KubeBody {
    let form = Form::of(content);
    let unread = |what: &str| KubeBody::Unread(format!("{what}: {length} bytes, not read"));
    match form {
        Form::Other => unread(&media_type(content)),
        Form::Json if kept.cut => KubeBody::Cut { begins: text(kept.bytes), length },
        Form::Yaml | Form::Protobuf if kept.cut => unread(&format!("longer than {MOST_KEPT} bytes")),
        Form::Json => KubeBody::Whole(text(kept.bytes)),
        Form::Yaml => yaml(&text(kept.bytes)).unwrap_or_else(|| unread("no YAML, or too much of it")),
        Form::Protobuf => match protobuf::read(&kept.bytes) {
            Some(object) => {
                read(&object, "protobuf: its kind, and of pods and their templates names, images, commands")
            }
            None => unread("no protobuf of Kubernetes'"),
        },
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// kubectl sends JSON under this name, too.
fn yaml(text: &str) -> Option<KubeBody> {
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        return Some(KubeBody::Whole(text.to_owned()));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: 64, max_aliases: 64, max_anchors: 64, max_nodes: 20_000 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 20_000, max_replay_stack_depth: 4 },
    };
    let object: Value = serde_saphyr::from_str_with_options(text, options).ok()?;
    Some(read(&object, "YAML"))
}

fn read(object: &Value, of: &str) -> KubeBody {
    match object.to_string() {
        json if json.len() <= MOST_KEPT => KubeBody::Read { json, of: of.to_owned() },
        json => KubeBody::Unread(format!("{of}: {} bytes as JSON, too long to be written", json.len())),
    }
}

#[cfg(any(test, fuzzing))]
pub mod fuzz {
    use super::{Kept, KubeBody, MOST_KEPT, told};

    /// Whatever is in a body, it is told as JSON that is one, or as what could not be read.
    pub fn body(bytes: &[u8]) {
        for content in ["application/apply-patch+yaml", "application/vnd.kubernetes.protobuf"] {
            let kept = Kept { bytes: bytes.iter().copied().take(MOST_KEPT).collect(), cut: bytes.len() > MOST_KEPT };
            if let KubeBody::Read { json, .. } = told(content, kept, bytes.len() as u64) {
                assert!(json.len() <= MOST_KEPT && serde_json::from_str::<serde_json::Value>(&json).is_ok());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::protobuf::tests::{envelope, message};
    use super::*;

    const APPLY: &str = "application/apply-patch+yaml";
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

    fn of(content: &str, bytes: &[u8]) -> KubeBody {
        let kept = Kept { bytes: bytes.get(..MOST_KEPT).unwrap_or(bytes).to_vec(), cut: bytes.len() > MOST_KEPT };
        told(content, kept, bytes.len() as u64)
    }

    fn object(body: KubeBody) -> Value {
        match body {
            KubeBody::Read { json, .. } => serde_json::from_str(&json).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn json_is_told_as_it_is_whatever_it_is_called() {
        for content in ["", "application/strategic-merge-patch+json; charset=utf-8", "Application/JSON", APPLY] {
            assert_eq!(of(content, b"{\"a\":1}"), KubeBody::Whole("{\"a\":1}".into()), "{content}");
        }
    }

    #[test]
    fn yaml_is_told_as_json() {
        let text =
            b"# a pod\nspec:\n  containers:\n  - {name: a, image: &i none.invalid/x, command: [sleep, '1']}\n  - \
                     {name: b, image: *i}\nstdin: yes\n";
        let containers = json!([
            { "name": "a", "image": "none.invalid/x", "command": ["sleep", "1"] },
            { "name": "b", "image": "none.invalid/x" },
        ]);
        for content in [APPLY, "application/yaml"] {
            assert_eq!(object(of(content, text)), json!({ "spec": { "containers": containers }, "stdin": true }));
        }
    }

    #[test]
    fn what_is_not_read_says_so_and_how_long_it_is() {
        let bomb = (1..30).fold("a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned(), |text, n| {
            let last = format!("*a{}", n - 1);
            text + &format!("a{n}: &a{n} [{}]\n", [last.as_str(); 8].join(", "))
        });
        let long = "x".repeat(MOST_KEPT + 1);
        let grown = format!("a: &a {}\nb: [*a, *a, *a]\n", "x".repeat(MOST_KEPT / 2));
        for (content, bytes, said) in [
            ("application/cbor", "abc", "application/cbor: 3 bytes, not read".to_owned()),
            (APPLY, &bomb, format!("no YAML, or too much of it: {} bytes, not read", bomb.len())),
            (APPLY, &"[".repeat(500), "no YAML, or too much of it: 500 bytes, not read".into()),
            (APPLY, "a: 1\n---\nb: 2\n", "no YAML, or too much of it: 14 bytes, not read".into()),
            (APPLY, &long, "longer than 65536 bytes: 65537 bytes, not read".into()),
            (APPLY, &grown, "YAML: 131095 bytes as JSON, too long to be written".into()),
            (PROTOBUF, &long, "longer than 65536 bytes: 65537 bytes, not read".into()),
            (PROTOBUF, "k8s", "no protobuf of Kubernetes': 3 bytes, not read".into()),
        ] {
            assert_eq!(of(content, bytes.as_bytes()), KubeBody::Unread(said), "{content}");
        }
        let begins = long.get(..MOST_KEPT).unwrap().to_owned();
        assert_eq!(of("", long.as_bytes()), KubeBody::Cut { begins, length: 65_537 });
    }

    #[test]
    fn a_pod_in_protobuf_shows_its_images_and_commands() {
        let container = message(&[(1, b"app"), (2, b"none.invalid/x"), (3, b"sleep"), (3, b"77"), (4, b"more")]);
        let pod = message(&[(1, &message(&[(1, b"noted"), (3, b"web")])), (2, &message(&[(2, &container)]))]);
        assert_eq!(
            object(of(PROTOBUF, &envelope("v1", "Pod", &pod))),
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "noted", "namespace": "web" },
                "spec": { "containers": [
                    { "name": "app", "image": "none.invalid/x", "command": ["sleep", "77"], "args": ["more"] },
                ] },
            })
        );
    }

    proptest! {
        #[test]
        fn any_body_is_told(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            fuzz::body(&bytes);
            fuzz::body(&[b"k8s\0", &bytes[..]].concat());
        }
    }
}
