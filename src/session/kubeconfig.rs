//! How kubectl finds its clusters: in a jail by the kube door, from a laptop by the public one. What a user has in theirs
//! beside that is theirs.

use std::fmt::Write;

use serde_json::{Map, Value, json};

/// The kube door inside a jail; before the cluster's name.
pub const DOOR: &str = "http://127.0.0.1:6443/clusters/";

/// The entry of a user who shows nothing: the door knows who asks.
const NOBODY: &str = "stockade";

/// A file as it would be, or why it is left alone.
pub type Merged = Result<Option<String>, NotAKubeconfig>;

/// The file is not what kubectl could read, so nothing in it is touched.
#[derive(Debug, thiserror::Error)]
pub enum NotAKubeconfig {
    #[error("it is not YAML: {0}")]
    Yaml(String),
    #[error("its `{0}` are not a list of named entries")]
    Shape(&'static str),
    #[error("it cannot be written as YAML: {0}")]
    Unwritten(String),
}

/// Brings a kubeconfig in step with the clusters that a session may use, in their order; `None`: it is.
pub fn merge(text: &str, clusters: &[String]) -> Merged {
    let before = parse(text)?;
    let mut file = File::of(before.clone())?;
    file.forget(clusters);
    file.learn(clusters);
    file.choose(clusters);
    let mut after = file.whole();
    if after == before {
        return Ok(None);
    }
    for (key, value) in [("apiVersion", "v1"), ("kind", "Config")] {
        after.entry(key).or_insert_with(|| value.into());
    }
    print(&Value::Object(after)).map(Some)
}

/// A jail's whole kubeconfig, where there is no other.
pub fn of_jail(clusters: &[String]) -> String {
    let merged = merge("", clusters).ok().flatten();
    merged.unwrap_or_else(|| "apiVersion: v1\nkind: Config\n".to_owned())
}

/// What a laptop's kubeconfig is made of.
#[derive(Clone, Copy, Debug)]
pub struct Laptop<'a> {
    /// The public kube door, `https://host[:port]`.
    pub url: &'a str,
    /// PEM; `None`: one that the laptop knows.
    pub authority: Option<&'a str>,
    pub clusters: &'a [String],
    /// The words after `ssh`, up to the bastion's name.
    pub ssh: &'a [String],
}

/// kubectl there runs `ssh BASTION stockade token CLUSTER`: there is nothing to install.
pub fn of_laptop(laptop: Laptop<'_>) -> Result<String, NotAKubeconfig> {
    let Laptop { url, authority, clusters, ssh } = laptop;
    let cluster = |name: &String| {
        let mut about = json!({ "server": format!("{}/clusters/{name}", url.trim_end_matches('/')) });
        if let (Some(pem), Some(about)) = (authority, about.as_object_mut()) {
            about.insert("certificate-authority-data".into(), base64(pem).into());
        }
        json!({ "name": name, "cluster": about })
    };
    let user = |name: &String| {
        let words = ssh.iter().map(String::as_str).chain(["stockade", "token", name]);
        let arguments: Vec<&str> = words.collect();
        json!({ "name": format!("stockade-{name}"), "user": { "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "ssh",
            "args": arguments,
            // ssh asks for what it needs on the terminal itself; kubectl's own input is not for it.
            "interactiveMode": "Never",
            "provideClusterInfo": false,
        }}})
    };
    let context =
        |name: &String| json!({ "name": name, "context": { "cluster": name, "user": format!("stockade-{name}") } });
    let file = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": clusters.iter().map(cluster).collect::<Vec<_>>(),
        "contexts": clusters.iter().map(context).collect::<Vec<_>>(),
        "users": clusters.iter().map(user).collect::<Vec<_>>(),
        "current-context": clusters.first().map_or("", String::as_str),
    });
    Ok(hint(ssh) + &print(&file)?)
}

/// How a token takes one round trip instead of a login.
fn hint(ssh: &[String]) -> String {
    let mut hint = String::from(
        "# kubectl fetches its tokens by ssh. With these lines in ~/.ssh/config that is one round trip, not a login each:\n",
    );
    let host = ssh.last().map_or("", |name| name.rsplit('@').next().unwrap_or(name));
    for line in
        [&format!("Host {host}"), "  ControlMaster auto", "  ControlPath ~/.ssh/stockade-%C", "  ControlPersist 1h"]
    {
        let _ = writeln!(hint, "#   {line}");
    }
    hint
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A kubeconfig with its lists taken out of it.
struct File {
    rest: Map<String, Value>,
    clusters: Vec<Value>,
    contexts: Vec<Value>,
    users: Vec<Value>,
}

impl File {
    fn of(mut rest: Map<String, Value>) -> Result<Self, NotAKubeconfig> {
        let mut list = |key: &'static str| {
            let entries = match rest.get_mut(key) {
                None | Some(Value::Null) => Vec::new(),
                Some(Value::Array(entries)) => std::mem::take(entries),
                Some(_) => return Err(NotAKubeconfig::Shape(key)),
            };
            let named = entries.iter().all(|entry| entry.get("name").is_some_and(Value::is_string));
            if named { Ok(entries) } else { Err(NotAKubeconfig::Shape(key)) }
        };
        let (clusters, contexts, users) = (list("clusters")?, list("contexts")?, list("users")?);
        Ok(Self { clusters, contexts, users, rest })
    }

    fn whole(self) -> Map<String, Value> {
        let mut rest = self.rest;
        for (key, entries) in [("clusters", self.clusters), ("contexts", self.contexts), ("users", self.users)] {
            // A list that was not there and is empty is not there.
            match rest.get_mut(key) {
                Some(place) if !entries.is_empty() || !place.is_null() => *place = entries.into(),
                None if !entries.is_empty() => drop(rest.insert(key.into(), entries.into())),
                _ => {}
            }
        }
        rest
    }

    /// Clusters of ours that are no longer there, and the contexts that lead to them as nobody.
    fn forget(&mut self, allowed: &[String]) {
        let gone = |entry: &Value| door_of(entry).is_some_and(|name| !allowed.iter().any(|allowed| allowed == name));
        let gone: Vec<Value> = self.clusters.extract_if(.., |entry| gone(entry)).collect();
        let gone: Vec<&str> = gone.iter().map(name).collect();
        let nobodies: Vec<String> = self.users.iter().filter(|user| is_nobody(user)).map(|u| name(u).into()).collect();
        self.contexts.retain(|context| {
            let leads = gone.contains(&within(context, "context", "cluster"));
            let user = within(context, "context", "user");
            !(leads && nobodies.iter().any(|nobody| nobody == user))
        });
        if allowed.is_empty() {
            let used = |user: &str| self.contexts.iter().any(|context| within(context, "context", "user") == user);
            self.users.retain(|user| !is_nobody(user) || used(name(user)));
        }
    }

    /// A context for each cluster that has none. One that the user has renamed is one.
    fn learn(&mut self, allowed: &[String]) {
        for wanted in allowed {
            let entry = self.cluster(wanted).unwrap_or_else(|| {
                let entry = free(&self.clusters, wanted);
                self.clusters.push(json!({ "name": entry, "cluster": { "server": format!("{DOOR}{wanted}") } }));
                entry
            });
            if self.context(&entry).is_none() {
                let user = self.nobody();
                let context = free(&self.contexts, wanted);
                self.contexts.push(json!({ "name": context, "context": { "cluster": entry, "user": user } }));
            }
        }
    }

    /// The current context stays if it is still there.
    fn choose(&mut self, allowed: &[String]) {
        let current = self.rest.get("current-context").and_then(Value::as_str).unwrap_or_default();
        if !current.is_empty() && self.contexts.iter().any(|context| name(context) == current) {
            return;
        }
        let first = allowed.first().and_then(|wanted| self.context(&self.cluster(wanted)?));
        if let Some(first) = first {
            self.rest.insert("current-context".into(), first.into());
        } else if !current.is_empty() {
            self.rest.insert("current-context".into(), "".into());
        }
    }

    /// The entry of a cluster of ours.
    fn cluster(&self, wanted: &str) -> Option<String> {
        self.clusters.iter().find(|entry| door_of(entry) == Some(wanted)).map(|entry| name(entry).to_owned())
    }

    /// A context that leads to a cluster's entry.
    fn context(&self, entry: &str) -> Option<String> {
        self.contexts.iter().find(|one| within(one, "context", "cluster") == entry).map(|one| name(one).to_owned())
    }

    /// The entry of a user who shows nothing.
    fn nobody(&mut self) -> String {
        if let Some(user) = self.users.iter().find(|user| is_nobody(user)) {
            return name(user).to_owned();
        }
        let free = free(&self.users, NOBODY);
        self.users.push(json!({ "name": free, "user": {} }));
        free
    }
}

/// The name itself, unless the user has something else by it.
fn free(entries: &[Value], wanted: &str) -> String {
    let taken = |candidate: &str| entries.iter().any(|entry| name(entry) == candidate);
    let more = (2..).map(|number| format!("{wanted}@stockade-{number}"));
    let mut candidates = [wanted.to_owned(), format!("{wanted}@stockade")].into_iter().chain(more);
    candidates.find(|candidate| !taken(candidate)).unwrap_or_default()
}

fn name(entry: &Value) -> &str {
    entry.get("name").and_then(Value::as_str).unwrap_or_default()
}

fn within<'a>(entry: &'a Value, kind: &str, key: &str) -> &'a str {
    entry.get(kind).and_then(|about| about.get(key)).and_then(Value::as_str).unwrap_or_default()
}

/// The cluster that an entry of ours leads to.
fn door_of(entry: &Value) -> Option<&str> {
    within(entry, "cluster", "server").strip_prefix(DOOR)
}

fn is_nobody(user: &Value) -> bool {
    let about = user.get("user");
    let empty = about.is_none_or(|about| about.is_null() || about.as_object().is_some_and(Map::is_empty));
    empty && name(user).starts_with(NOBODY)
}

fn parse(text: &str) -> Result<Map<String, Value>, NotAKubeconfig> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    // What only looks like a number stays what it is.
    let options = serde_saphyr::options! {
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        strict_booleans: true,
    };
    match serde_saphyr::from_str_with_options(text, options) {
        Ok(Value::Object(file)) => Ok(file),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(NotAKubeconfig::Yaml("it has no fields".into())),
        // The first line says what; the others show the place.
        Err(error) => {
            let error = error.to_string();
            Err(NotAKubeconfig::Yaml(error.lines().next().unwrap_or_default().to_owned()))
        }
    }
}

fn print(value: &Value) -> Result<String, NotAKubeconfig> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(value, options).map_err(|error| NotAKubeconfig::Unwritten(error.to_string()))
}

#[cfg(test)]
mod tests;
