//! Clients as they come with the image, through the door.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{CLIENT, OURS, echo, example, name_server, plan, world};
use crate::yard::until;

#[test]
fn git_and_ssh_find_their_way() {
    world("egress::clients::child_of_clients");
}

/// Ends with the test, whatever becomes of it.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A repository with one file, as plain files that any web server may serve, and a certificate for its server.
const REPOSITORY: &str = r#"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ok \
  -addext subjectAltName=DNS:ok.example.test -keyout key.pem -out ca.pem 2>openssl.log || { cat openssl.log; exit 1; }
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
git init -q tree && cd tree && echo hello >greeting && git add greeting
git -c user.name=alice -c user.email=alice@example.test commit -qm 'Greet'
cd .. && git clone -q --bare tree www/greeting.git && git -C www/greeting.git update-server-info
"#;

const SERVE: &str = r#"
import http.server, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("ca.pem", "key.pem")
class Quiet(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *more): super().__init__(*more, directory="www")
    def log_message(self, *more): pass
server = http.server.ThreadingHTTPServer((sys.argv[1], 443), Quiet)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

fn serve_repository(at: &Path) -> Server {
    let made = Command::new("sh").args(["-ec", REPOSITORY]).current_dir(at).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
    assert!(made.status.success(), "{out}{err}");
    let serving = Command::new("python3").args(["-c", SERVE, OURS]).current_dir(at).stdin(Stdio::null()).spawn();
    let server = Server(serving.unwrap());
    until("a server of repositories", || std::net::TcpStream::connect((OURS, 443)).ok());
    server
}

/// git by HTTPS_PROXY alone; and the words with which OpenBSD's nc asks for ssh: HTTP/1.0, no Host.
#[test]
#[ignore = "run by its parent"]
fn child_of_clients() {
    name_server(example);
    let directory = tempfile::tempdir().unwrap();
    let _server = serve_repository(directory.path());
    echo(&format!("{OURS}:2222"));
    let yard = plan().start();
    let root = std::fs::read(directory.path().join("ca.pem")).unwrap();
    let clone = "cat > ca.pem; export GIT_SSL_CAINFO=~/ca.pem; git clone -q https://ok.example.test/greeting.git && \
                 cat greeting/greeting";
    assert_eq!(yard.ssh("alice").input(root.clone()).run(clone).ok(), "hello");
    let refused = yard.ssh("bob").input(root).run(&format!("export HTTPS_PROXY=http://127.0.0.1:3128; {clone}"));
    assert_eq!(refused.code, Some(128), "{}", refused.text());
    assert!(refused.stderr.contains("403"), "{}", refused.stderr);

    let ask = "s = socket.create_connection(('127.0.0.1', 3128), timeout=30)\n\
               s.sendall(b'CONNECT plain.example.test:2222 HTTP/1.0\\r\\n\\r\\n')\n\
               f = s.makefile('rwb')\nwhile (line := f.readline().strip()): print(line.decode())\n\
               f.write(b'SSH-2.0-x'); f.flush(); s.shutdown(socket.SHUT_WR); print(f.read())";
    let said = yard.ssh("alice").input(format!("{CLIENT}{ask}\n")).run("python3 -").ok();
    assert!(said.starts_with("HTTP/1.0 200 ") || said.starts_with("HTTP/1.1 200 "), "{said}");
    assert!(said.ends_with("b'SSH-2.0-x'"), "{said}");
}
