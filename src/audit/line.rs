//! An event as its line: OCSF's attributes where OCSF has one, the rest under `unmapped`.

mod access;
mod clusters;
mod egress;
mod escape;
mod kube;
mod rbac;

use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value, json};

pub use escape::plain;

use super::{Class, Event};
use crate::session::SessionId;

/// The longest text of one attribute; what is cut off is counted in its place.
const LONGEST_TEXT: usize = 4096;

/// The most members of a list, and the most arguments of a program.
const MOST_MEMBERS: usize = 64;

/// What only the writer knows of an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    /// Milliseconds since the epoch.
    pub(super) time: u64,
    pub(super) sequence: u64,
}

/// The line of an event, for who writes no file; `time` in milliseconds since the epoch.
pub fn written(event: &Event, time: u64, sequence: u64) -> Vec<u8> {
    line(event, Stamp { time, sequence })
}

/// The line with its newline.
pub(super) fn line(event: &Event, stamp: Stamp) -> Vec<u8> {
    plain(&object(event, stamp))
}

fn object(event: &Event, stamp: Stamp) -> Value {
    let code = event.code();
    let class = code.class as u32;
    let told = tell(event);
    let mut object = json!({
        "activity_id": code.activity,
        "category_uid": class / 1000,
        "class_uid": class,
        "type_uid": u64::from(class) * 100 + u64::from(code.activity),
        "severity_id": severity(code.code),
        "status_id": if told.failed { 2 } else { 1 },
        "time": stamp.time,
        "metadata": {
            "version": "1.8.0",
            "product": { "name": "stockade", "vendor_name": "stockade", "version": env!("CARGO_PKG_VERSION") },
            "event_code": code.code,
            "sequence": stamp.sequence,
            "uid": uuid::Uuid::now_v7().to_string(),
        },
        "message": told.message,
    });
    if let Some(map) = object.as_object_mut() {
        if code.class == Class::ApplicationLifecycle {
            map.insert("app".into(), json!({ "name": "stockade" }));
        }
        map.extend(told.attributes);
        if !told.unmapped.is_empty() {
            map.insert("unmapped".into(), Value::Object(told.unmapped));
        }
    }
    object
}

/// OCSF: 1 informational, 3 medium, 4 high.
fn severity(code: &str) -> u8 {
    match code.as_bytes().last() {
        Some(b'E') => 4,
        Some(b'W') => 3,
        _ => 1,
    }
}

/// What an event says, in OCSF's words.
struct Told {
    message: String,
    failed: bool,
    attributes: Map<String, Value>,
    unmapped: Map<String, Value>,
}

impl Told {
    fn new(message: impl Into<String>) -> Self {
        Self { message: cut(&message.into()), failed: false, attributes: Map::new(), unmapped: Map::new() }
    }

    fn failed(mut self) -> Self {
        self.failed = true;
        self
    }

    fn attribute(mut self, name: &str, value: Value) -> Self {
        self.attributes.insert(name.into(), value);
        self
    }

    fn user(self, name: &str) -> Self {
        let user = json!({ "name": cut(name) });
        self.attribute("actor", json!({ "user": user })).attribute("user", user)
    }

    fn session(self, id: &SessionId) -> Self {
        self.attribute("session", json!({ "uid": id.to_string() }))
    }

    fn from(self, from: &str) -> Self {
        match from.parse::<SocketAddr>() {
            Ok(from) => self.attribute("src_endpoint", json!({ "ip": from.ip().to_string(), "port": from.port() })),
            Err(_) if from.parse::<IpAddr>().is_ok() => self.attribute("src_endpoint", json!({ "ip": from })),
            Err(_) => self.attribute("src_endpoint", json!({ "name": cut(from) })),
        }
    }

    fn and(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = match value.into() {
            Value::String(text) => Value::String(cut(&text)),
            other => other,
        };
        self.unmapped.insert(name.into(), value);
        self
    }

    fn list(self, name: &str, members: &[String]) -> Self {
        let mut kept: Vec<String> = members.iter().take(MOST_MEMBERS).map(|m| cut(m)).collect();
        if members.len() > MOST_MEMBERS {
            kept.push(format!("… and {} more", members.len() - MOST_MEMBERS));
        }
        self.and(name, kept)
    }
}

fn tell(event: &Event) -> Told {
    match event {
        Event::Connected { .. }
        | Event::ConnectionRefused { .. }
        | Event::SourcePenalised { .. }
        | Event::PenaltyEnded { .. } => tell_connection(event),
        Event::LoginAccepted { .. } | Event::LoginRefused { .. } => tell_login(event),
        Event::CredentialIssued { .. } | Event::CredentialRefused { .. } | Event::DoorRefused { .. } => {
            tell_door(event)
        }
        Event::EgressOpened { .. } | Event::EgressClosed { .. } | Event::EgressRefused { .. } => egress::tell(event),
        Event::ClusterAppeared { .. }
        | Event::ClusterGone { .. }
        | Event::DiscoveryFailed { .. }
        | Event::DiscoveryWorks { .. } => clusters::tell(event),
        Event::KubeRequest { .. }
        | Event::KubeRefused { .. }
        | Event::KubeStreamOpened { .. }
        | Event::KubeStreamClosed { .. } => kube::tell(event),
        Event::VerbAnswered { .. }
        | Event::LaptopGranted { .. }
        | Event::LaptopEnded { .. }
        | Event::GroupsChanged { .. }
        | Event::LockAdded { .. }
        | Event::LockReleased { .. } => access::tell(event),
        _ if rbac::knows(event) => rbac::tell(event),
        Event::SessionOpened { .. }
        | Event::SessionClosed { .. }
        | Event::ChannelOpened { .. }
        | Event::ChannelClosed { .. }
        | Event::RequestRefused { .. }
        | Event::Exec { .. } => tell_session(event),
        _ => tell_bastion(event),
    }
}

fn tell_connection(event: &Event) -> Told {
    match event {
        Event::ConnectionRefused { from, why } => {
            Told::new(format!("a connection was refused: {why}")).failed().from(from).and("why", why.as_str())
        }
        Event::Connected { from } => Told::new("a client connected").from(from),
        Event::SourcePenalised { source, why, seconds } => {
            Told::new(format!("{source} is refused for {seconds} seconds or longer: {why}"))
                .failed()
                .from(source)
                .and("why", why.as_str())
                .and("seconds", *seconds)
        }
        Event::PenaltyEnded { source, refused } => {
            Told::new(format!("{source} is no longer refused; {refused} connections were turned away"))
                .from(source)
                .and("refused", *refused)
        }
        _ => Told::new(event.code().name),
    }
}

fn tell_login(event: &Event) -> Told {
    match event {
        Event::LoginAccepted { user, from, key, groups, client } => Told::new(format!("{user} logged in"))
            .user(user)
            .from(from)
            .attribute("auth_protocol", json!("SSH"))
            .and("key", key.as_str())
            .list("groups", groups)
            .and("client", client.as_str()),
        Event::LoginRefused { user, from, key, why } => Told::new(format!("{user} was not let in: {why}"))
            .failed()
            .user(user)
            .from(from)
            .and("key", key.as_str())
            .and("why", why.as_str()),
        _ => Told::new(event.code().name),
    }
}

fn tell_session(event: &Event) -> Told {
    match event {
        Event::SessionOpened { session, user, from } => {
            Told::new(format!("a jail was opened for {user}")).session(session).user(user).from(from)
        }
        Event::SessionClosed { session, user, reason } => Told::new(format!("the jail of {user} ended: {reason}"))
            .session(session)
            .user(user)
            .and("reason", reason.as_str()),
        Event::ChannelOpened { session, number, command, terminal } => Told::new(match command {
            Some(command) => format!("c{number} runs {command}"),
            None => format!("c{number} runs a login shell"),
        })
        .session(session)
        .attribute("process", json!({ "cmd_line": command.as_deref().map(cut) }))
        .and("channel", *number)
        .and("terminal", *terminal),
        Event::ChannelClosed { session, number, status } => Told::new(format!("c{number} ended with status {status}"))
            .session(session)
            .attribute("exit_code", json!(status))
            .and("channel", *number),
        Event::RequestRefused { session, user, from, what } => {
            let told = Told::new(format!("{user} asked for what is not given: {what}")).failed();
            let told = told.user(user).from(from).and("what", what.as_str());
            session.iter().fold(told, Told::session)
        }
        Event::Exec { session, number, path, arguments } => Told::new(format!("c{number} tried to execute {path}"))
            .session(session)
            .attribute("process", json!({ "file": { "path": cut(path) } }))
            .and("channel", *number)
            .list("arguments", arguments),
        _ => Told::new(event.code().name),
    }
}

fn tell_door(event: &Event) -> Told {
    match event {
        Event::CredentialIssued { session, user, role, access_key_id, expires } => {
            Told::new(format!("{user} was given credentials of {role}"))
                .session(session)
                .user(user)
                .attribute("iam_roles", json!([{ "name": cut(role) }]))
                .and("access_key_id", access_key_id.as_str())
                .and("expires", *expires)
        }
        Event::CredentialRefused { session, user, role, code, message } => {
            Told::new(format!("{user} was not given credentials of {role}: {code}: {message}"))
                .failed()
                .session(session)
                .user(user)
                .and("role", role.as_str())
                .and("code", code.as_str())
                .and("reason", message.as_str())
        }
        Event::DoorRefused { session, door, request, status } => {
            Told::new(format!("the {door} door answered {status} to {request}"))
                .failed()
                .session(session)
                .attribute("api", json!({ "operation": cut(request), "response": { "code": status } }))
                .and("door", door.as_str())
        }
        _ => Told::new(event.code().name),
    }
}

fn tell_bastion(event: &Event) -> Told {
    match event {
        Event::LimitHit { session, what } => {
            let told = Told::new(format!("a limit was reached: {what}")).failed().and("what", what.as_str());
            session.iter().fold(told, Told::session)
        }
        Event::ConfigurationLoaded { digest } => {
            Told::new("a configuration came into force").and("sha256", digest.as_str())
        }
        Event::ConfigurationRefused { reason } => {
            Told::new(format!("a configuration was refused: {reason}")).failed().and("reason", reason.as_str())
        }
        Event::RoleRestarted { role, reason } => Told::new(format!("the {role} was started again: {reason}"))
            .and("role", role.to_string())
            .and("reason", reason.as_str()),
        Event::RoleBreach { role, what } => Told::new(format!("the {role} broke the protocol: {what}"))
            .failed()
            .and("role", role.to_string())
            .and("what", what.as_str()),
        Event::RecordingRecovered { session, events, lost } => {
            Told::new(format!("a recording left open was closed: {events} events, {lost} bytes lost"))
                .session(session)
                .and("events", *events)
                .and("lost", *lost)
        }
        Event::Started { version } => Told::new("the bastion started").and("version", version.as_str()),
        Event::Stopped { reason } => Told::new(format!("the bastion stopped: {reason}")).and("reason", reason.as_str()),
        _ => Told::new(event.code().name),
    }
}

fn cut(text: &str) -> String {
    if text.len() <= LONGEST_TEXT {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(LONGEST_TEXT);
    let (kept, rest) = text.split_at(end);
    format!("{kept}… ({} bytes more)", rest.len())
}

#[cfg(test)]
mod tests {
    use super::escape::obeyed;
    use super::*;

    fn read(event: &Event) -> Value {
        serde_json::from_slice(&line(event, Stamp { time: 5, sequence: 7 })).unwrap()
    }

    #[test]
    fn a_login_has_the_shape_of_ocsf() {
        let value = read(&Event::LoginAccepted {
            user: "alice".into(),
            from: "[2001:db8::1]:4711".into(),
            key: "SHA256:x".into(),
            groups: vec!["ops".into()],
            client: "SSH-2.0-x".into(),
        });
        for (path, expected) in [
            ("/class_uid", json!(3002)),
            ("/category_uid", json!(3)),
            ("/type_uid", json!(300_201)),
            ("/severity_id", json!(1)),
            ("/time", json!(5)),
            ("/metadata/sequence", json!(7)),
            ("/metadata/event_code", json!("SK1003I")),
            ("/metadata/product/name", json!("stockade")),
            ("/user/name", json!("alice")),
            ("/src_endpoint/ip", json!("2001:db8::1")),
            ("/src_endpoint/port", json!(4711)),
            ("/unmapped/groups/0", json!("ops")),
        ] {
            assert_eq!(value.pointer(path), Some(&expected), "{path}");
        }
    }

    #[test]
    fn hostile_text_stays_one_line_and_moves_no_terminal() {
        let hostile = "a\"\n\r\u{1b}]0;x\u{7}\u{9b}31m\u{7f}\u{202e}\u{2028}\u{e0041}ä日";
        let event = Event::LoginRefused {
            user: hostile.into(),
            from: hostile.into(),
            key: String::new(),
            why: "no such key".into(),
        };
        let line = line(&event, Stamp { time: 0, sequence: 0 });
        let text = std::str::from_utf8(&line).unwrap();
        let (body, end) = text.split_at(text.len() - 1);
        assert_eq!(end, "\n");
        assert!(!body.chars().any(|c| c.is_control() || obeyed(c)), "{body:?}");
        assert_eq!(serde_json::from_str::<Value>(body).unwrap()["user"]["name"], json!(hostile));
    }

    #[test]
    fn long_text_is_cut_and_says_so() {
        let arguments = vec!["ä".repeat(10_000); 1000];
        let event = Event::Exec { session: SessionId::mint(), number: 1, path: "/bin/x".into(), arguments };
        let line = line(&event, Stamp { time: 0, sequence: 0 });
        assert!(line.len() < MOST_MEMBERS * (LONGEST_TEXT + 64) + 4096);
        assert!(String::from_utf8(line).unwrap().contains("… and 936 more"));
    }
}
