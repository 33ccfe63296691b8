//! Connections out of jails.

use serde_json::json;

use super::{Told, cut};
use crate::audit::Event;

pub(super) fn tell(event: &Event) -> Told {
    let to = |host: &str, port: u16, address: &str| json!({ "hostname": cut(host), "port": port, "ip": cut(address) });
    match event {
        Event::EgressOpened { session, user, host, port, address } => {
            Told::new(format!("{user} is connected to {host}:{port} ({address})"))
                .session(session)
                .user(user)
                .attribute("dst_endpoint", to(host, *port, address))
        }
        Event::EgressClosed { session, user, host, port, address, sent, received, milliseconds, reason } => {
            let bytes = format!("{sent} bytes out, {received} in");
            let traffic = json!({ "bytes_out": sent, "bytes_in": received, "bytes": sent.saturating_add(*received) });
            Told::new(format!("the connection of {user} to {host}:{port} ended: {reason}; {bytes}"))
                .session(session)
                .user(user)
                .attribute("dst_endpoint", to(host, *port, address))
                .attribute("traffic", traffic)
                .attribute("duration", json!(milliseconds))
                .and("reason", reason.as_str())
        }
        Event::EgressRefused { session, user, target, address, reason } => {
            let told = Told::new(format!("{user} was not let through to {target}: {reason}")).failed();
            let told = told.session(session).user(user).and("target", target.as_str()).and("reason", reason.as_str());
            match address {
                Some(address) => told.attribute("dst_endpoint", json!({ "ip": cut(address) })),
                None => told,
            }
        }
        _ => Told::new(event.code().name),
    }
}
