//! Clients as they come with the image, through the door: told by their environment where it is, and nothing else.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{OURS, example, name_server, plan, world};
use crate::yard::{Yard, until};

#[test]
fn tools_find_their_way() {
    world("egress::clients::child_of_tools");
}

#[test]
fn git_goes_by_ssh_where_a_rule_says_so() {
    world("egress::clients::child_of_ssh");
}

/// Ends with the test, whatever becomes of it.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    fn start(command: &mut Command, port: u16) -> Self {
        let server = Self(command.stdin(Stdio::null()).spawn().unwrap());
        until("a server", || std::net::TcpStream::connect((OURS, port)).ok());
        server
    }
}

fn make(script: &str, at: &Path) {
    let made = Command::new("sh").args(["-ec", script]).current_dir(at).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
    assert!(made.status.success(), "{out}{err}");
}

/// A repository with one file, as plain files that any web server may serve.
const REPOSITORY: &str = r#"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
mkdir www
git init -q tree && cd tree && echo hello >greeting && git add greeting
git -c user.name=alice -c user.email=alice@example.test commit -qm 'Greet'
cd .. && git clone -q --bare tree www/greeting.git && git -C www/greeting.git update-server-info
"#;

/// A certificate for the server, an index of one Python package, and a repository of one chart.
const WEB: &str = r#"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ok \
  -addext subjectAltName=DNS:ok.example.test -keyout key.pem -out ca.pem 2>openssl.log || { cat openssl.log; exit 1; }
mkdir -p www/simple/greeting www/charts chart/greeting
python3 - <<'END'
import zipfile
with zipfile.ZipFile("www/simple/greeting/greeting-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("greeting.py", "print('hello from a wheel')\n")
    about = "greeting-1.0.dist-info/"
    wheel.writestr(about + "METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
    wheel.writestr(about + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    names = ["greeting.py", about + "METADATA", about + "WHEEL", about + "RECORD"]
    wheel.writestr(about + "RECORD", "".join(f"{name},,\n" for name in names))
END
echo '<a href="greeting-1.0-py3-none-any.whl">greeting</a>' >www/simple/greeting/index.html
printf 'apiVersion: v2\nname: greeting\nversion: 1.0.0\ndescription: hello from a chart\n' >chart/greeting/Chart.yaml
tar -czf www/charts/greeting-1.0.0.tgz -C chart greeting
cat >www/charts/index.yaml <<'END'
apiVersion: v1
entries:
  greeting:
  - {apiVersion: v2, name: greeting, version: 1.0.0, urls: [greeting-1.0.0.tgz]}
END
echo hello from the web >www/hello
"#;

/// By TLS, and beside it in clear.
const SERVE: &str = r#"
import http.server, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("ca.pem", "key.pem")
class Quiet(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *more): super().__init__(*more, directory="www")
    def log_message(self, *more): pass
clear = http.server.ThreadingHTTPServer((sys.argv[1], 8080), Quiet)
threading.Thread(target=clear.serve_forever, daemon=True).start()
server = http.server.ThreadingHTTPServer((sys.argv[1], 443), Quiet)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

/// The issue: "git, helm, curl, pip work through it unchanged". Only whom to trust is said: the server is the test's.
#[test]
#[ignore = "run by its parent"]
fn child_of_tools() {
    name_server(example);
    let directory = tempfile::tempdir().unwrap();
    make(&format!("{REPOSITORY}{WEB}"), directory.path());
    let mut serve = Command::new("python3");
    let _server = Server::start(serve.args(["-c", SERVE, OURS]).current_dir(directory.path()), 443);
    let yard = plan().start();
    let root = std::fs::read(directory.path().join("ca.pem")).unwrap();
    let run = |user: &str, command: &str| {
        let trust = "export CURL_CA_BUNDLE=~/ca.pem GIT_SSL_CAINFO=~/ca.pem PIP_CERT=~/ca.pem SSL_CERT_FILE=~/ca.pem";
        yard.ssh(user).input(root.clone()).run(&format!("cat > ca.pem; {trust}; {command}"))
    };
    let clone = "git clone -q https://ok.example.test/greeting.git && cat greeting/greeting";
    assert_eq!(run("alice", clone).ok(), "hello");
    let refused = run("bob", &format!("export HTTPS_PROXY=http://127.0.0.1:3128; {clone}"));
    assert_eq!(refused.code, Some(128), "{}", refused.text());
    assert!(refused.stderr.contains("403"), "{}", refused.stderr);

    let curl = |how: &str| run("alice", &format!("{how} https://ok.example.test/hello")).ok();
    assert_eq!(curl("curl -sS"), "hello from the web", "by HTTPS_PROXY");
    assert_eq!(curl("env -u HTTPS_PROXY -u https_proxy curl -sS"), "hello from the web", "by ALL_PROXY");
    assert_eq!(curl("curl -sS --socks5-hostname 127.0.0.1:3128"), "hello from the web");
    let clear = "curl -sS http://plain.example.test:8080/hello";
    assert_eq!(run("alice", clear).ok(), "hello from the web", "in clear, where the rule waives TLS, by ALL_PROXY");

    let pip = "python3 -m venv tools && tools/bin/pip install -q --disable-pip-version-check \
               --index-url https://ok.example.test/simple greeting && tools/bin/python -m greeting";
    assert_eq!(run("alice", pip).ok(), "hello from a wheel");
    let helm = "helm repo add ours https://ok.example.test/charts >/dev/null && helm pull ours/greeting && \
                helm show chart greeting-1.0.0.tgz | grep description";
    assert_eq!(run("alice", helm).ok(), "description: hello from a chart");
    the_other_doors_are_not_asked_for_through_it(&yard);
}

/// NO_PROXY: the metadata door is the jail's own, and so is what a user runs there.
fn the_other_doors_are_not_asked_for_through_it(yard: &Yard) {
    for door in ["http://169.254.169.254/latest/api/token", "http://[fd00:ec2::254]/latest/api/token"] {
        let token = format!("curl -sS -g -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {door} | wc -c");
        assert!(yard.ssh("alice").run(&token).ok().parse::<u32>().unwrap() > 20, "{door}");
    }
    let lost = yard.ssh("alice").run("env -u NO_PROXY -u no_proxy curl -sS http://169.254.169.254/");
    assert!(lost.code != Some(0), "what is not named there goes to the proxy: {}", lost.text());
    let own = "python3 -m http.server --bind 127.0.0.1 8000 >/dev/null 2>&1 & \
               curl -sS --retry 20 --retry-connrefused -o /dev/null -w '%{http_code}' http://localhost:8000/; kill $!";
    assert_eq!(yard.ssh("alice").run(own).ok(), "200");
}

/// A user of this world's own whose home holds the key that may log in, and a server that they log in to.
fn serve_ssh(at: &Path) -> Server {
    make("ssh-keygen -q -t ed25519 -N '' -f key && mkdir .ssh && cp key.pub .ssh/authorized_keys", at);
    make("dropbearkey -t ed25519 -f host_key >/dev/null 2>&1 && cp /etc/passwd passwd", at);
    make("echo \"git:x:0:0::$PWD:/bin/sh\" >>passwd && mount --bind passwd /etc/passwd", at);
    let mut dropbear = Command::new("dropbear");
    Server::start(
        dropbear.args(["-F", "-E", "-s", "-r", "host_key", "-p"]).arg(format!("{OURS}:2222")).current_dir(at),
        2222,
    )
}

/// The image tells ssh the way out; and the same by hand, in both of the door's languages.
#[test]
#[ignore = "run by its parent"]
fn child_of_ssh() {
    name_server(example);
    let directory = tempfile::tempdir().unwrap();
    make(REPOSITORY, directory.path());
    let _server = serve_ssh(directory.path());
    let yard = plan().start();
    let key = std::fs::read(directory.path().join("key")).unwrap();
    let url = format!("ssh://git@plain.example.test:2222{}/www/greeting.git", directory.path().display());
    let ssh = "umask 077; cat > key; export GIT_SSH_COMMAND='ssh -i ~/key -o StrictHostKeyChecking=accept-new'";
    let clone =
        yard.ssh("alice").input(key.clone()).run(&format!("{ssh}; git clone -q {url} && cat greeting/greeting"));
    assert_eq!(clone.text(), "hello", "{}", clone.stderr);
    for language in ["connect", "5"] {
        let hello = format!("nc -X {language} -x 127.0.0.1:3128 plain.example.test 2222 </dev/null | head -c 16");
        assert_eq!(yard.ssh("alice").run(&hello).text(), "SSH-2.0-dropbear", "{language}");
    }
    let refused = yard.ssh("bob").input(key).run(&format!("{ssh}; git clone -q {url}"));
    assert_eq!(refused.code, Some(128));
    assert!(refused.stderr.contains("no rule lets you through"), "{}", refused.stderr);
}
