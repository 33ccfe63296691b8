//! Requests to clusters: OCSF's API Activity, and beside it the Kubernetes audit event itself, for whatever reads the
//! API servers' own logs.

use serde_json::{Map, Value, json};

use super::{MOST_MEMBERS, Told, cut};
use crate::audit::{Event, KubeBody, KubeRecord, KubeStage};
use crate::config::Level;
use crate::session::{SessionId, channel_name};

/// The longest body that a line holds whole.
const LONGEST_BODY: usize = 64 << 10;

pub(super) fn tell(event: &Event) -> Told {
    match event {
        Event::KubeRequest { session, user, record } => request(session, user, record),
        Event::KubeRefused { session, user, cluster, request, status, reason } => {
            Told::new(format!("the kube door answered {user} {status} to {request}: {reason}"))
                .failed()
                .session(session)
                .user(user)
                .attribute("api", json!({ "operation": cut(request), "response": { "code": status } }))
                .and("cluster", cluster.as_str())
                .and("reason", reason.as_str())
        }
        Event::KubeStreamOpened { .. } | Event::KubeStreamClosed { .. } => stream(event),
        _ => Told::new(event.code().name),
    }
}

fn stream(event: &Event) -> Told {
    match event {
        Event::KubeStreamOpened {
            session,
            user,
            number,
            audit_id,
            cluster,
            namespace,
            pod,
            container,
            subresource,
            command,
            terminal,
        } => {
            let name = channel_name(*number);
            let place = format!("{cluster}/{namespace}/{pod}");
            Told::new(format!("{name} of {user}: {subresource} in {place}: {}", command.join(" ")))
                .session(session)
                .user(user)
                .attribute("api", api(subresource, cluster, audit_id))
                .attribute("resources", json!([{ "type": "pods", "name": cut(pod), "namespace": cut(namespace) }]))
                .and("stream", name)
                .and("cluster", cluster.as_str())
                .and("namespace", namespace.as_str())
                .and("pod", pod.as_str())
                .and("container", container.as_deref().map(cut))
                .list("command", command)
                .and("terminal", *terminal)
        }
        Event::KubeStreamClosed {
            session,
            user,
            number,
            audit_id,
            cluster,
            sent,
            received,
            milliseconds,
            exit,
            reason,
            cut: was_cut,
        } => {
            let name = channel_name(*number);
            let told =
                Told::new(format!("{name} of {user} to {cluster} ended: {reason}; {sent} bytes out, {received} in"))
                    .session(session)
                    .user(user)
                    .attribute("api", api("stream", cluster, audit_id))
                    .attribute("traffic", traffic(*sent, *received))
                    .attribute("duration", json!(milliseconds))
                    .and("stream", name)
                    .and("cluster", cluster.as_str())
                    .and("exit", *exit)
                    .and("reason", reason.as_str());
            if *was_cut { told.failed() } else { told }
        }
        _ => Told::new(event.code().name),
    }
}

fn api(operation: &str, cluster: &str, audit_id: &str) -> Value {
    json!({ "operation": cut(operation), "service": { "name": cut(cluster) }, "request": { "uid": cut(audit_id) } })
}

fn traffic(sent: u64, received: u64) -> Value {
    json!({ "bytes_out": sent, "bytes_in": received, "bytes": sent.saturating_add(received) })
}

fn request(session: &SessionId, user: &str, record: &KubeRecord) -> Told {
    let KubeRecord { cluster, audit_id, request, uri, status, sent, got, received, at, .. } = record;
    let what = match &request.object {
        None => request.path.clone(),
        Some(object) => {
            let place = [&object.namespace, &object.name].map(String::as_str);
            let place: Vec<&str> = place.into_iter().filter(|part| !part.is_empty()).collect();
            format!("{} {}", joined(&object.resource, &object.subresource), place.join("/"))
        }
    };
    let mut api = api(&request.verb, cluster, audit_id);
    api["response"] = json!({ "code": status });
    let milliseconds = at.saturating_sub(*received).max(0) / 1000;
    let mut told = Told::new(format!("{user} on {cluster}: {} {}: {status}", request.verb, what.trim_end()))
        .session(session)
        .user(user)
        .attribute("activity_name", json!(cut(&request.verb)))
        .attribute("api", api)
        .attribute("http_request", json!({ "url": { "path": cut(uri) }, "user_agent": cut(&record.user_agent) }))
        .attribute("traffic", traffic(*sent, *got))
        .attribute("duration", json!(milliseconds))
        .and("cluster", cluster.as_str());
    if let Some(object) = &request.object {
        let resource = json!({
            "type": cut(&joined(&object.resource, &object.group)),
            "name": cut(&object.name),
            "namespace": cut(&object.namespace),
        });
        told = told.attribute("resources", json!([resource]));
    }
    if let Some(source) = &record.source {
        told = told.from(source);
    }
    if let Some(trouble) = &record.trouble {
        told = told.and("trouble", trouble.as_str());
    }
    if let Some(KubeBody::Cut { begins, .. }) = &record.body {
        told = told.and("request_body_begins", begins.as_str());
    }
    if !(100..400).contains(status) || record.trouble.is_some() {
        told = told.failed();
    }
    told.unmapped.insert("kubernetes".into(), kubernetes(session, user, record));
    told
}

/// `pods/exec`, `deployments/apps`.
fn joined(resource: &str, part: &str) -> String {
    if part.is_empty() { resource.to_owned() } else { format!("{resource}/{part}") }
}

/// audit.k8s.io/v1, as the API server would have written it.
fn kubernetes(session: &SessionId, user: &str, record: &KubeRecord) -> Value {
    let stage = match record.stage {
        KubeStage::ResponseStarted => "ResponseStarted",
        KubeStage::ResponseComplete => "ResponseComplete",
        KubeStage::Panic => "Panic",
    };
    let mut event = json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": level(record.level),
        "auditID": cut(&record.audit_id),
        "stage": stage,
        "requestURI": cut(&record.uri),
        "verb": cut(&record.request.verb),
        "user": { "username": cut(user) },
        "userAgent": cut(&record.user_agent),
        "requestReceivedTimestamp": time(record.received),
        "stageTimestamp": time(record.at),
    });
    let mut notes = annotations(session, user, record);
    if let Some(whom) = &record.impersonated {
        let groups: Vec<String> = whom.groups.iter().take(MOST_MEMBERS).map(|group| cut(group)).collect();
        event["impersonatedUser"] = json!({ "username": cut(&whom.name), "groups": groups });
    }
    if let Some(source) = &record.source {
        event["sourceIPs"] = json!([cut(&address(source))]);
    }
    if let Some(object) = &record.request.object {
        event["objectRef"] = object_ref(object);
    }
    if record.status != 0 {
        event["responseStatus"] = json!({ "metadata": {}, "code": record.status });
    }
    if let Some(body) = &record.body {
        let (object, note) = tell_body(body);
        if let Some(note) = note {
            notes.insert("stockade.dev/body".into(), json!(cut(&note)));
        }
        match object {
            Some(object) => event["requestObject"] = object,
            // As the API server marks an event that was too long.
            None => drop(notes.insert("audit.k8s.io/truncated".into(), json!("true"))),
        }
    }
    event["annotations"] = Value::Object(notes);
    event
}

/// The object, where there is one, and what must be said of it.
fn tell_body(body: &KubeBody) -> (Option<Value>, Option<String>) {
    let parsed = |json: &str| serde_json::from_str(json).ok().filter(|_| json.len() <= LONGEST_BODY);
    match body {
        KubeBody::Whole(json) => match parsed(json) {
            Some(object) => (Some(object), None),
            None => (None, Some(format!("no JSON: {} bytes, not read", json.len()))),
        },
        KubeBody::Read { json, of } => (parsed(json), Some(of.clone())),
        KubeBody::Cut { begins, length } => {
            (None, Some(format!("JSON of {length} bytes, of which {} are kept", begins.len())))
        }
        KubeBody::Unread(why) => (None, Some(why.clone())),
    }
}

fn annotations(session: &SessionId, user: &str, record: &KubeRecord) -> Map<String, Value> {
    let mut notes = Map::new();
    let mut note = |name: &str, value: String| drop(notes.insert(format!("stockade.dev/{name}"), json!(cut(&value))));
    note("session", session.to_string());
    note("user", user.to_owned());
    note("cluster", record.cluster.clone());
    note("bytes-out", record.sent.to_string());
    note("bytes-in", record.got.to_string());
    if let Some(container) = &record.container {
        note("container", container.clone());
    }
    if !record.command.is_empty() {
        note("command", json!(record.command).to_string());
    }
    if let Some(trouble) = &record.trouble {
        note("trouble", trouble.clone());
    }
    notes
}

fn object_ref(object: &crate::policy::KubeObject) -> Value {
    let fields = [
        ("resource", &object.resource),
        ("namespace", &object.namespace),
        ("name", &object.name),
        ("apiGroup", &object.group),
        ("apiVersion", &object.version),
        ("subresource", &object.subresource),
    ];
    fields
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| (name.to_owned(), json!(cut(text))))
        .collect()
}

fn level(level: Level) -> &'static str {
    match level {
        Level::None => "None",
        Level::Metadata => "Metadata",
        Level::Request => "Request",
    }
}

/// RFC 3339 with microseconds.
fn time(microseconds: i64) -> String {
    jiff::Timestamp::from_microsecond(microseconds).map_or_else(|_| String::new(), |time| format!("{time:.6}"))
}

fn address(source: &str) -> String {
    source.parse::<std::net::SocketAddr>().map_or_else(|_| source.to_owned(), |source| source.ip().to_string())
}

#[cfg(test)]
mod tests {
    use super::super::{LONGEST_TEXT, Stamp, line};
    use super::*;
    use crate::audit::KubeUser;
    use crate::policy::KubeRequest;

    fn record() -> KubeRecord {
        KubeRecord {
            cluster: "hyades".into(),
            audit_id: "0a8cb0ee-97a3-4b3c-8a8f-b8ff7d0d1a4f".into(),
            level: Level::Request,
            stage: KubeStage::ResponseComplete,
            request: KubeRequest::read("PATCH", "/apis/apps/v1/namespaces/web/deployments/front/scale", ""),
            uri: "/apis/apps/v1/namespaces/web/deployments/front/scale?fieldManager=kubectl".into(),
            impersonated: Some(KubeUser { name: "deployer".into(), groups: vec!["ops".into()] }),
            source: Some("[2001:db8::1]:4711".into()),
            user_agent: "kubectl/v1.36.3".into(),
            status: 200,
            received: 1_731_600_000_000_001,
            at: 1_731_600_000_250_000,
            sent: 21,
            got: 400,
            container: None,
            command: vec![],
            body: Some(KubeBody::Whole(r#"{"spec":{"replicas":3}}"#.into())),
            trouble: None,
        }
    }

    fn read(record: KubeRecord) -> Value {
        let session = "01932c07-a6b1-7c3e-9d2f-0123456789ab".parse().unwrap();
        let event = Event::KubeRequest { session, user: "alice".into(), record: Box::new(record) };
        serde_json::from_slice(&line(&event, Stamp { time: 5, sequence: 7 })).unwrap()
    }

    #[test]
    fn a_request_is_told_twice_on_a_line() {
        let told = read(record());
        for (path, expected) in [
            ("/class_uid", json!(6003)),
            ("/status_id", json!(1)),
            ("/message", json!("alice on hyades: patch deployments/scale web/front: 200")),
            ("/api/operation", json!("patch")),
            ("/api/service/name", json!("hyades")),
            ("/api/request/uid", json!("0a8cb0ee-97a3-4b3c-8a8f-b8ff7d0d1a4f")),
            ("/api/response/code", json!(200)),
            ("/resources/0/type", json!("deployments/apps")),
            ("/src_endpoint/ip", json!("2001:db8::1")),
            ("/duration", json!(249)),
        ] {
            assert_eq!(told.pointer(path), Some(&expected), "{path}");
        }
        assert_eq!(
            told["unmapped"]["kubernetes"],
            json!({
                "kind": "Event",
                "apiVersion": "audit.k8s.io/v1",
                "level": "Request",
                "auditID": "0a8cb0ee-97a3-4b3c-8a8f-b8ff7d0d1a4f",
                "stage": "ResponseComplete",
                "requestURI": "/apis/apps/v1/namespaces/web/deployments/front/scale?fieldManager=kubectl",
                "verb": "patch",
                "user": { "username": "alice" },
                "impersonatedUser": { "username": "deployer", "groups": ["ops"] },
                "sourceIPs": ["2001:db8::1"],
                "userAgent": "kubectl/v1.36.3",
                "objectRef": {
                    "resource": "deployments", "namespace": "web", "name": "front",
                    "apiGroup": "apps", "apiVersion": "v1", "subresource": "scale",
                },
                "responseStatus": { "metadata": {}, "code": 200 },
                "requestObject": { "spec": { "replicas": 3 } },
                "requestReceivedTimestamp": "2024-11-14T16:00:00.000001Z",
                "stageTimestamp": "2024-11-14T16:00:00.250000Z",
                "annotations": {
                    "stockade.dev/session": "01932c07-a6b1-7c3e-9d2f-0123456789ab",
                    "stockade.dev/user": "alice",
                    "stockade.dev/cluster": "hyades",
                    "stockade.dev/bytes-out": "21",
                    "stockade.dev/bytes-in": "400",
                },
            })
        );
    }

    #[test]
    fn what_is_too_long_says_so_and_what_failed_too() {
        for (body, why) in [
            (KubeBody::Whole("{".into()), "no JSON: 1 bytes, not read"),
            (KubeBody::Cut { begins: "{\"a\":".into(), length: 70_000 }, "JSON of 70000 bytes, of which 5 are kept"),
            (KubeBody::Unread("application/cbor: 3 bytes, not read".into()), "application/cbor: 3 bytes, not read"),
        ] {
            let told = read(KubeRecord { body: Some(body), ..record() });
            let event = &told["unmapped"]["kubernetes"];
            assert_eq!(event["annotations"]["audit.k8s.io/truncated"], "true");
            assert_eq!(event["annotations"]["stockade.dev/body"], why);
            assert!(event.get("requestObject").is_none());
        }
        let longest = format!("\"{}\"", "\u{7f}".repeat(LONGEST_BODY - 2));
        let session = SessionId::mint();
        let record = Box::new(KubeRecord { body: Some(KubeBody::Whole(longest)), ..record() });
        let event = Event::KubeRequest { session, user: "a".repeat(LONGEST_TEXT), record };
        assert!(line(&event, Stamp { time: 5, sequence: 7 }).len() < 500 << 10, "two fit into the window of a tail");

        let told = read(KubeRecord { status: 0, trouble: Some("reset".into()), ..self::record() });
        assert_eq!(told["status_id"], 2);
        assert!(told["unmapped"]["kubernetes"].get("responseStatus").is_none());
        let plain = KubeRequest::read("GET", "/healthz", "");
        let told = read(KubeRecord { request: plain, status: 403, source: None, ..self::record() });
        assert_eq!((&told["status_id"], &told["message"]), (&json!(2), &json!("alice on hyades: get /healthz: 403")));
        assert!(told["unmapped"]["kubernetes"].get("objectRef").is_none());
    }

    #[test]
    fn what_was_no_json_says_what_it_was() {
        let body = KubeBody::Read { json: "{\"a\":1}".into(), of: "YAML".into() };
        let told = read(KubeRecord { body: Some(body), ..record() });
        let event = &told["unmapped"]["kubernetes"];
        assert_eq!(
            (&event["requestObject"], &event["annotations"]["stockade.dev/body"]),
            (&json!({ "a": 1 }), &json!("YAML"))
        );
    }

    #[test]
    fn an_exec_names_its_command() {
        let request = KubeRequest::read("GET", "/api/v1/namespaces/web/pods/front-0/exec", "command=sh");
        let command = vec!["sh".into(), "-c".into(), "a \"b\"".into()];
        let told = read(KubeRecord { request, status: 101, command, container: Some("app".into()), ..record() });
        let notes = &told["unmapped"]["kubernetes"]["annotations"];
        assert_eq!(notes["stockade.dev/command"], r#"["sh","-c","a \"b\""]"#);
        assert_eq!(notes["stockade.dev/container"], "app");
        assert_eq!(told["status_id"], 1);
    }
}
