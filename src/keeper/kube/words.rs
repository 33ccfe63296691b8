//! The two lanes whose bytes are JSON: the sizes of a terminal, and the verdict on how a program ended.

use serde::Deserialize;
use serde_json::Value;
use serde_json::error::Category;

use super::wire::Garbled;

/// The longest unfinished size.
const LONGEST_SIZE: usize = 4 << 10;

/// What is kept of a verdict.
const LONGEST_VERDICT: usize = 32 << 10;

/// How often an unfinished verdict is looked at; at its lane's end it is looked at once more.
const LOOKS: u32 = 8;

/// Sizes, one JSON object after the other: `{"Width":80,"Height":24}`.
#[derive(Debug, Default)]
pub(super) struct Sizes(Vec<u8>);

impl Sizes {
    /// The columns and rows that are whole now.
    pub(super) fn take(&mut self, data: &[u8]) -> Result<Vec<(u16, u16)>, Garbled> {
        self.0.extend_from_slice(data);
        let mut sizes = Vec::new();
        if !data.contains(&b'}') {
            return self.bounded().map(|()| sizes);
        }
        let mut objects = serde_json::Deserializer::from_slice(&self.0).into_iter::<Value>();
        let mut end = 0;
        while let Some(object) = objects.next() {
            match object {
                Ok(object) => sizes.push(size(&object).ok_or(Garbled("a size that is none"))?),
                Err(e) if e.classify() == Category::Eof => break,
                Err(_) => return Err(Garbled("a size that is no JSON")),
            }
            end = objects.byte_offset();
        }
        self.0.drain(..end);
        self.bounded().map(|()| sizes)
    }

    fn bounded(&self) -> Result<(), Garbled> {
        if self.0.len() > LONGEST_SIZE { Err(Garbled("a size longer than any")) } else { Ok(()) }
    }
}

/// Kubernetes reads names without regard to their case; what is not said is zero.
fn size(object: &Value) -> Option<(u16, u16)> {
    let object = object.as_object()?;
    let side = |wanted: &str| {
        let mut sides = object.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        let side = sides.next().map_or(Some(0), |(_, value)| value.as_u64().and_then(|n| u16::try_from(n).ok()));
        if sides.next().is_some() { None } else { side }
    };
    Some((side("width")?, side("height")?))
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Exit(u32),
    /// It did not run, or not to its end; the cluster's words.
    Failed(String),
}

/// The lane on which the cluster says how it ended.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    text: Vec<u8>,
    looks: u32,
    told: bool,
}

impl Judgement {
    /// The verdict, as soon as it is whole.
    pub(super) fn take(&mut self, data: &[u8]) -> Option<Verdict> {
        let room = LONGEST_VERDICT.saturating_sub(self.text.len());
        self.text.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
        let perhaps = self.text.trim_ascii_end().ends_with(b"}") && self.looks < LOOKS;
        if self.told || !perhaps {
            return None;
        }
        self.looks += 1;
        self.tell(serde_json::from_slice(&self.text).ok()?)
    }

    /// What was said, at the lane's end; text that is no verdict is told as it is.
    pub(super) fn end(&mut self) -> Option<Verdict> {
        if self.told || self.text.is_empty() {
            return None;
        }
        match serde_json::from_slice(&self.text) {
            Ok(status) => self.tell(status),
            Err(_) => {
                self.told = true;
                Some(Verdict::Failed(String::from_utf8_lossy(&self.text).into_owned()))
            }
        }
    }

    fn tell(&mut self, status: Status) -> Option<Verdict> {
        self.told = true;
        Some(status.verdict())
    }
}

/// metav1.Status, as far as it says how a program ended.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    status: String,
    reason: String,
    message: String,
    details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    causes: Option<Vec<Cause>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
    message: String,
}

impl Status {
    fn verdict(self) -> Verdict {
        if self.status == "Success" {
            return Verdict::Exit(0);
        }
        let causes = self.details.and_then(|details| details.causes).unwrap_or_default();
        let code = causes.iter().find(|cause| cause.reason == "ExitCode").and_then(|cause| cause.message.parse().ok());
        match code {
            Some(code) if self.reason == "NonZeroExitCode" => Verdict::Exit(code),
            _ => Verdict::Failed(self.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_in_any_pieces() {
        let text = b"{\"Width\":80,\"Height\":24}\n {\"height\":50,\"width\":120}{}";
        for cut in 0..text.len() {
            let mut sizes = Sizes::default();
            let (a, b) = text.split_at(cut);
            let all = [sizes.take(a).unwrap(), sizes.take(b).unwrap()].concat();
            assert_eq!(all, [(80, 24), (120, 50), (0, 0)], "{cut}");
        }
    }

    #[test]
    fn what_is_no_size_is_not_passed_over() {
        for wrong in
            ["{\"Width\":80}}", "[]", "{\"Width\":70000}", "{\"Width\":\"80\"}", "{\"Width\":1,\"width\":2}", "}"]
        {
            let done = Sizes::default().take(format!("{wrong}}}").as_bytes());
            assert!(done.is_err(), "{wrong}: {done:?}");
        }
        assert!(Sizes::default().take(&[b' '; 5000]).is_err());
    }

    const THREE: &str = r#"{"metadata":{},"status":"Failure","message":"command terminated with exit code 3",
        "reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;

    #[test]
    fn verdicts() {
        let of = |text: &str| Judgement::default().take(text.as_bytes());
        assert_eq!(of(r#"{"metadata":{},"status":"Success"}"#), Some(Verdict::Exit(0)));
        assert_eq!(of(THREE), Some(Verdict::Exit(3)));
        let failed = r#"{"status":"Failure","message":"no such container","details":{"causes":null}}"#;
        assert_eq!(of(failed), Some(Verdict::Failed("no such container".into())));
        let mut judgement = Judgement::default();
        let pieces: Vec<Option<Verdict>> = THREE.as_bytes().chunks(7).map(|piece| judgement.take(piece)).collect();
        assert_eq!(pieces.iter().flatten().collect::<Vec<_>>(), [&Verdict::Exit(3)]);
        assert_eq!(judgement.end(), None);
        let mut judgement = Judgement::default();
        assert_eq!(judgement.take(b"no v4 at all"), None);
        assert_eq!(judgement.end(), Some(Verdict::Failed("no v4 at all".into())));
        assert_eq!(judgement.end(), None);
    }
}
