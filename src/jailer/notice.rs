//! What systemd is told of us, where it has started us: `sd_notify(3)` in a few lines.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// How far the bastion is.
#[derive(Clone, Copy, Debug)]
pub enum Notice {
    Ready,
    Stopping,
}

/// Says it, where somebody wants to know; nobody's not listening is no reason to end.
pub fn give(notice: Notice) {
    let Some(place) = std::env::var("NOTIFY_SOCKET").ok().filter(|place| !place.is_empty()) else { return };
    let text = match notice {
        Notice::Ready => "READY=1",
        Notice::Stopping => "STOPPING=1",
    };
    if let Err(e) = send(&place, text) {
        eprintln!("stockade: jailer: cannot tell {place} {text}: {e}");
    }
}

fn send(place: &str, text: &str) -> io::Result<()> {
    let address = match place.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(place)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("stockade-notice-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, place) in [
            (UnixDatagram::bind(&path).unwrap(), path.display().to_string()),
            (UnixDatagram::bind_addr(&abstract_name).unwrap(), format!("@{name}")),
        ] {
            send(&place, "READY=1").unwrap();
            let mut text = [0; 16];
            let length = socket.recv(&mut text).unwrap();
            assert_eq!(&text[..length], b"READY=1");
        }
    }
}
