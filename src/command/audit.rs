//! `stockade audit`.

use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::Value;

use crate::audit::{self, Event};
use crate::config;

/// See `stockade audit --help`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Print every event's code, name, OCSF class and meaning
    Codes,
    /// Print the requests to clusters as Kubernetes audit events, one JSON object a line, for tools that read the logs
    /// of API servers
    Kube(Wanted),
}

/// Which requests.
#[derive(Debug, clap::Args)]
struct Wanted {
    /// The configuration, which says where the audit file is
    #[arg(long, value_name = "FILE", default_value = super::CONFIGURATION)]
    config: PathBuf,
    /// The audit file, or `-`; no configuration is read then
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Of this session: its id, or a beginning of it
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Of this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// To this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let written = match args.verb {
        Verb::Codes => io::stdout().write_all(codes().as_bytes()),
        Verb::Kube(wanted) => {
            let file = match &wanted.file {
                Some(file) => file.clone(),
                None => config::load(&wanted.config)?.audit.file,
            };
            let mut out = BufWriter::new(io::stdout().lock());
            let done = if file.as_os_str() == "-" {
                wanted.print(io::stdin().lock(), &mut out)
            } else {
                let lines = BufReader::new(fs_err::File::open(file).context("cannot read the audit file")?);
                wanted.print(lines, &mut out)
            };
            done.and_then(|()| out.flush())
        }
    };
    match written {
        // `stockade audit codes | head` has read enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        done => Ok(done.map(|()| ExitCode::SUCCESS)?),
    }
}

impl Wanted {
    fn print(&self, mut lines: impl BufRead, out: &mut impl Write) -> io::Result<()> {
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            // A line that a crash tore is none; the next one is whole.
            if let Some(event) = serde_json::from_slice(&line).ok().and_then(|line| self.event(line)) {
                out.write_all(&audit::plain(&event))?;
            }
            line.clear();
        }
        Ok(())
    }

    /// The Kubernetes event in a line, if it is one that was asked for.
    fn event(&self, mut line: Value) -> Option<Value> {
        let event = line.pointer_mut("/unmapped/kubernetes")?.take();
        let says = |name: &str| event["annotations"][name].as_str().unwrap_or_default();
        let is = |name: &str, wanted: &Option<String>| wanted.as_ref().is_none_or(|wanted| says(name) == wanted);
        let session = self.session.as_ref().is_none_or(|wanted| says("stockade.dev/session").starts_with(wanted));
        let wanted = session && is("stockade.dev/user", &self.user) && is("stockade.dev/cluster", &self.cluster);
        wanted.then_some(event)
    }
}

fn codes() -> String {
    let mut table = format!("{:<8} {:<21} {:<5} {}\n", "CODE", "NAME", "CLASS", "MEANING");
    let mut rows: Vec<_> = Event::CODES.iter().collect();
    rows.sort_by_key(|row| row.code);
    for row in rows {
        let meaning: Vec<_> = row.meaning.iter().map(|line| line.trim()).collect();
        let (code, name, class) = (row.code, row.name, row.class as u32);
        table.push_str(&format!("{code:<8} {name:<21} {class:<5} {}\n", meaning.join(" ")));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_events_come_out_as_they_are() {
        let line = |session: &str, user: &str, cluster: &str| {
            let annotations = serde_json::json!({
                "stockade.dev/session": session, "stockade.dev/user": user, "stockade.dev/cluster": cluster,
            });
            let event = serde_json::json!({ "kind": "Event", "annotations": annotations });
            format!("{}\n", serde_json::json!({ "class_uid": 6003, "unmapped": { "kubernetes": event } }))
        };
        let trail = [
            line("0193a", "alice", "hyades"),
            "{\"class_uid\":3002,\"unmapped\":{}}\n{\"torn\":\n".to_owned(),
            line("0193b", "bob", "hyades"),
            line("0193b", "bob", "pleiades\u{9b}"),
        ]
        .concat();
        let printed = |session: Option<&str>, user: Option<&str>, cluster: Option<&str>| {
            let [session, user, cluster] = [session, user, cluster].map(|text| text.map(str::to_owned));
            let wanted = Wanted { config: PathBuf::new(), file: None, session, user, cluster };
            let mut out = Vec::new();
            wanted.print(trail.as_bytes(), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(printed(None, None, None).lines().count(), 3);
        assert_eq!(printed(Some("0193"), Some("bob"), None).lines().count(), 2);
        assert_eq!(printed(Some("0193a"), Some("bob"), None), "");
        let one = printed(None, None, Some("hyades"));
        assert!(one.lines().all(|line| line.starts_with("{\"") && line.contains("\"kind\":\"Event\"")), "{one}");
        assert!(!printed(None, None, None).contains('\u{9b}'), "nothing that a terminal obeys");
    }

    #[test]
    fn the_table_comes_from_the_doc_comments() {
        let table = codes();
        assert!(table.contains("SK1003I  LoginAccepted         3002  A user was let in.\n"), "{table}");
        assert_eq!(table.lines().count(), Event::CODES.len() + 1);
    }
}
