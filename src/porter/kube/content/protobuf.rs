//! Kubernetes' protobuf, as far as the audit asks for it: which object, and what its containers run. An unknown field is
//! passed over, what is no protobuf is nothing at all.

use serde_json::{Map, Value, json};

/// Before each message of Kubernetes'.
const MAGIC: &[u8] = b"k8s\0";

/// Where a kind has the spec of its pods, by the numbers of generated.proto: each a field of the one before.
const PODS: [(&str, &str, &[u64]); 9] = [
    ("v1", "Pod", &[2]),
    ("v1", "PodTemplate", &[2, 2]),
    ("v1", "ReplicationController", &[2, 3, 2]),
    ("apps/v1", "ReplicaSet", &[2, 3, 2]),
    ("apps/v1", "Deployment", &[2, 3, 2]),
    ("apps/v1", "StatefulSet", &[2, 3, 2]),
    ("apps/v1", "DaemonSet", &[2, 2, 2]),
    ("batch/v1", "Job", &[2, 6, 2]),
    ("batch/v1", "CronJob", &[2, 5, 2, 6, 2]),
];

/// The lists of containers in the spec of a pod.
const CONTAINERS: [(u64, &str); 3] = [(2, "containers"), (20, "initContainers"), (34, "ephemeralContainers")];

/// The fields of a message that have a length: texts and messages.
struct Message<'b>(Vec<(u64, &'b [u8])>);

impl<'b> Message<'b> {
    fn read(mut bytes: &'b [u8]) -> Option<Self> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            match tag & 7 {
                0 => {
                    varint(&mut bytes)?;
                }
                1 => {
                    split(&mut bytes, 8)?;
                }
                2 => {
                    let length = usize::try_from(varint(&mut bytes)?).ok()?;
                    fields.push((tag >> 3, split(&mut bytes, length)?));
                }
                5 => {
                    split(&mut bytes, 4)?;
                }
                _ => return None,
            }
        }
        Some(Self(fields))
    }

    fn all(&self, number: u64) -> impl Iterator<Item = &'b [u8]> {
        self.0.iter().filter(move |(own, _)| *own == number).map(|(_, bytes)| *bytes)
    }

    /// Of a text that is there twice the last counts.
    fn text(&self, number: u64) -> String {
        String::from_utf8_lossy(self.all(number).last().unwrap_or_default()).into_owned()
    }

    /// A message that is there twice is both together.
    fn part(&self, number: u64) -> Vec<u8> {
        self.all(number).collect::<Vec<_>>().concat()
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn split<'b>(bytes: &mut &'b [u8], at: usize) -> Option<&'b [u8]> {
    let (first, rest) = bytes.split_at_checked(at)?;
    *bytes = rest;
    Some(first)
}

/// `runtime.Unknown` and what is in it.
pub fn read(bytes: &[u8]) -> Option<Value> {
    let unknown = Message::read(bytes.strip_prefix(MAGIC)?)?;
    let about = unknown.part(1);
    let about = Message::read(&about)?;
    let (version, kind) = (about.text(1), about.text(2));
    let mut object = Map::new();
    if let Some((.., way)) = PODS.iter().find(|(own, name, _)| *own == version && *name == kind) {
        let raw = unknown.all(2).last().unwrap_or_default();
        let metadata = Message::read(raw)?.part(1);
        let metadata = Message::read(&metadata)?;
        let name = if metadata.text(1).is_empty() { "generateName" } else { "name" };
        let value = metadata.text(if name == "name" { 1 } else { 2 });
        object.insert("metadata".into(), json!({ name: value, "namespace": metadata.text(3) }));
        let mut spec = raw.to_vec();
        for number in *way {
            spec = Message::read(&spec)?.part(*number);
        }
        object.insert(place(way).into(), containers(&Message::read(&spec)?)?);
    }
    object.insert("apiVersion".into(), version.into());
    object.insert("kind".into(), kind.into());
    Some(object.into())
}

/// A template's pods are not the object itself.
fn place(way: &[u64]) -> &'static str {
    if way.len() == 1 { "spec" } else { "template" }
}

fn containers(spec: &Message<'_>) -> Option<Value> {
    let mut lists = Map::new();
    for (number, name) in CONTAINERS {
        let list: Option<Vec<Value>> = spec.all(number).map(|bytes| container(bytes, number)).collect();
        let list = list?;
        if !list.is_empty() {
            lists.insert(name.into(), list.into());
        }
    }
    Some(lists.into())
}

fn container(bytes: &[u8], list: u64) -> Option<Value> {
    let container = Message::read(bytes)?;
    // What an ephemeral one has in common with others is a message of its own.
    let common = container.part(1);
    let container = if list == 34 { Message::read(&common)? } else { container };
    let words = |number| container.all(number).map(|word| String::from_utf8_lossy(word).into_owned().into()).collect();
    let mut told =
        Map::from_iter([("name".into(), container.text(1).into()), ("image".into(), container.text(2).into())]);
    for (number, name) in [(3, "command"), (4, "args")] {
        let words: Vec<Value> = words(number);
        if !words.is_empty() {
            told.insert(name.into(), words.into());
        }
    }
    Some(told.into())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Fields that have a length, each shorter than 16 KiB.
    pub fn message(fields: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, value) in fields {
            let tag = u16::from(*number) << 3 | 2;
            for number in [tag, u16::try_from(value.len()).unwrap()] {
                bytes.extend([(number & 0x7f) as u8 | 0x80, (number >> 7) as u8]);
            }
            bytes.extend_from_slice(value);
        }
        bytes
    }

    pub fn envelope(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let about = message(&[(1, version.as_bytes()), (2, kind.as_bytes())]);
        [MAGIC, &message(&[(1, &about), (2, raw), (3, b""), (4, b"")])].concat()
    }

    #[test]
    fn containers_are_found_wherever_a_kind_has_them() {
        let container = message(&[(2, b"image"), (1, b"c")]);
        for (version, kind, way) in PODS {
            let ephemeral = message(&[(1, &container), (2, b"target")]);
            let mut raw = message(&[(7, b"other"), (2, &container), (20, &container), (34, &ephemeral)]);
            for number in way.iter().rev() {
                raw = message(&[(1, &message(&[(2, b"n-")])), (u8::try_from(*number).unwrap(), &raw)]);
            }
            let told = read(&envelope(version, kind, &raw)).unwrap();
            let place = if kind == "Pod" { "spec" } else { "template" };
            let one = json!([{ "name": "c", "image": "image" }]);
            let all = json!({ "containers": one, "initContainers": one, "ephemeralContainers": one });
            assert_eq!((&told[place], &told["kind"]), (&all, &kind.into()), "{kind}");
            assert_eq!(told["metadata"]["generateName"], "n-");
        }
    }

    /// As the API server merges a field that is there twice: nothing hides behind a first one.
    #[test]
    fn what_is_said_twice_is_both() {
        let container = |image: &[u8]| message(&[(1, b"c"), (2, b"first"), (2, image)]);
        let (one, other) = (container(b"one"), container(b"other"));
        let pod = message(&[(2, &message(&[(2, &one)])), (2, &message(&[(2, &other)]))]);
        let told = read(&envelope("v1", "Pod", &pod)).unwrap();
        let images: Vec<&Value> =
            told["spec"]["containers"].as_array().unwrap().iter().map(|container| &container["image"]).collect();
        assert_eq!(images, ["one", "other"]);
    }

    #[test]
    fn other_kinds_have_a_name_and_what_is_none_is_nothing() {
        let told = read(&envelope("v1", "DeleteOptions", b"\x08\x1e")).unwrap();
        assert_eq!(told, json!({ "apiVersion": "v1", "kind": "DeleteOptions" }));
        let pod = envelope("v1", "Pod", &message(&[(2, b"\xff")]));
        for wrong in [&b""[..], b"k8s", b"k8s\0\xff", b"k8s\0\x0a\x05ab", b"k8s\0\x0b", &pod] {
            assert!(read(wrong).is_none(), "{wrong:?}");
        }
        assert_eq!(varint(&mut &[0xff; 11][..]), None);
    }
}
