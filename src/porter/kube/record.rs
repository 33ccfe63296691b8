//! What the audit is told of a request: once, when it ends, however it ends.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use uuid::Uuid;

use super::Asker;
use super::body::Count;
use super::content;
use super::route::Route;
use crate::audit::{Event, KubeRecord, KubeStage, KubeUser};
use crate::config::{AuditRule, Level};
use crate::policy::{kube_audit, kube_request};

/// With a body, all of an event must fit into a packet.
const LONGEST_URI: usize = 16 * 1024;
const LONGEST_COMMAND: usize = 16 * 1024;
const LONGEST_TEXT: usize = 512;

/// How a request ends.
#[derive(Debug)]
pub enum End {
    Done,
    /// Who asked, or the bastion, wanted no more of it.
    Left(&'static str),
    /// It broke.
    Cut(String),
}

/// A request that is under way; dropped, it says that it was cut off.
pub struct Record {
    asker: Arc<Asker>,
    /// `None`: nobody wants to know of it, or it is told.
    event: Option<Box<KubeRecord>>,
    content: String,
    pub audit_id: String,
    pub count: Arc<Count>,
}

impl Record {
    /// `received`: microseconds since the epoch.
    pub fn begin(
        asker: &Arc<Asker>,
        rules: &[AuditRule],
        route: &Route,
        headers: &HeaderMap,
        wanted: Option<KubeUser>,
        received: i64,
    ) -> Self {
        let text = |name| headers.get(name).map(|value| cut(&String::from_utf8_lossy(value.as_bytes()), LONGEST_TEXT));
        let audit_id = Uuid::now_v7().to_string();
        // Whoever is somebody else is told of, whatever they ask; and so is what becomes a stream.
        let streams = ["exec", "attach", "portforward"];
        let turns = route.request.object.as_ref().is_some_and(|o| streams.contains(&o.subresource.as_str()));
        let least = if wanted.is_some() || turns { Level::Metadata } else { Level::None };
        let level = kube_audit::level(rules, &route.cluster, &route.request).max(least);
        let query = route.target.split_once('?').map_or("", |(_, query)| query);
        let is_stream = turns && route.request.object.as_ref().is_some_and(|o| o.subresource != "portforward");
        let event = (level > Level::None).then(|| {
            Box::new(KubeRecord {
                cluster: route.cluster.clone(),
                audit_id: audit_id.clone(),
                level,
                stage: KubeStage::ResponseComplete,
                request: route.request.clone(),
                uri: cut(&route.target, LONGEST_URI),
                impersonated: wanted,
                source: asker.source.clone(),
                user_agent: text(USER_AGENT).unwrap_or_default(),
                status: 0,
                received,
                at: received,
                sent: 0,
                got: 0,
                container: is_stream.then(|| container(query)).flatten(),
                command: if is_stream { command(query) } else { Vec::new() },
                body: None,
                trouble: None,
            })
        });
        let content = text(CONTENT_TYPE).unwrap_or_default();
        Self { asker: Arc::clone(asker), event, content, audit_id, count: Arc::default() }
    }

    /// Whether the body's beginning is to be kept.
    pub fn keeps_body(&self) -> bool {
        self.event.as_ref().is_some_and(|event| event.level >= Level::Request) && content::is_read(&self.content)
    }

    /// Of the answer.
    pub fn status(&mut self, status: u16) {
        if let Some(event) = &mut self.event {
            event.status = status;
        }
    }

    /// The event of a stream that begins.
    pub fn begun(&self) -> Option<Event> {
        let record = KubeRecord { stage: KubeStage::ResponseStarted, at: now(), ..(**self.event.as_ref()?).clone() };
        Some(self.asker.event(Box::new(record)))
    }

    pub fn finish(mut self, end: &End) {
        self.tell(end);
    }

    fn tell(&mut self, end: &End) {
        let Some(mut event) = self.event.take() else { return };
        (event.stage, event.trouble) = match end {
            End::Done => (KubeStage::ResponseComplete, None),
            End::Left(why) => (KubeStage::ResponseComplete, Some((*why).to_owned())),
            End::Cut(why) => (KubeStage::Panic, Some(cut(why, LONGEST_TEXT))),
        };
        event.at = now();
        event.sent = self.count.sent.load(Ordering::Relaxed);
        event.got = self.count.got.load(Ordering::Relaxed);
        if event.level >= Level::Request && event.sent > 0 {
            let kept = std::mem::take(&mut *self.count.kept.lock().unwrap_or_else(PoisonError::into_inner));
            event.body = Some(content::told(&self.content, kept, event.sent));
        }
        self.asker.around.notices.tell_in_the_end(self.asker.event(event));
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        const WHY: &str = "the client or the session ended first";
        let is_answered = self.event.as_ref().is_some_and(|event| event.status > 0);
        // So end watches and logs that somebody was tired of.
        self.tell(&if is_answered { End::Left(WHY) } else { End::Cut(WHY.into()) });
    }
}

/// Microseconds since the epoch.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

pub fn container(query: &str) -> Option<String> {
    kube_request::values(query, "container").next().filter(|name| !name.is_empty()).map(|name| cut(&name, LONGEST_TEXT))
}

/// A very long one is cut, and says so.
pub fn command(query: &str) -> Vec<String> {
    let mut room = LONGEST_COMMAND;
    let mut words = Vec::new();
    for word in kube_request::values(query, "command") {
        let word = cut(&word, room);
        room = room.saturating_sub(word.len() + 8);
        words.push(word);
        if room == 0 {
            break;
        }
    }
    words
}

fn cut(text: &str, longest: usize) -> String {
    match text.len() {
        length if length <= longest => text.to_owned(),
        _ => format!("{}…", text.get(..text.floor_char_boundary(longest)).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_never_fills_an_event() {
        let word = format!("command={}&", "a".repeat(5_000));
        let words = command(&word.repeat(20));
        assert!(words.iter().map(String::len).sum::<usize>() < LONGEST_COMMAND + 64, "{}", words.len());
        assert!(words.last().unwrap().ends_with('…'));
        assert_eq!(command("command=sh&command=-c&container=x"), ["sh", "-c"]);
    }
}
