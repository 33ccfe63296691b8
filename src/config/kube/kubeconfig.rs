//! A context of a kubeconfig file: where a cluster is and what the bastion shows it. Nothing is fetched, nothing is run.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use crate::identity::Secret;

/// What a context says. Endpoint and authority may be said elsewhere.
#[derive(Clone, Debug)]
pub struct Entry {
    pub endpoint: Option<String>,
    /// PEM.
    pub authority: Option<String>,
    pub server_name: Option<String>,
    pub proof: Proof,
}

/// What is shown to the API server.
#[derive(Clone, Debug)]
pub enum Proof {
    Token(Secret),
    /// Chain and private key, PEM.
    Certificate {
        chain: String,
        key: Secret,
    },
}

/// Why an entry is no use here. No word of the file's values is in it, for they may be secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUsable {
    #[error("not a kubeconfig, by its line {line}")]
    Form { line: u64 },
    #[error("no current-context, and `context` names none")]
    NoContext,
    #[error("there is no {kind} '{name}' in it")]
    Missing { kind: &'static str, name: String },
    #[error("user '{user}' runs a program for its credential ({how})")]
    Program { user: String, how: &'static str },
    #[error("cluster '{0}' has insecure-skip-tls-verify")]
    Unverified(String),
    #[error("'{name}' has `{setting}`, a file")]
    File { name: String, setting: &'static str },
    #[error("'{name}' has `{setting}`")]
    Setting { name: String, setting: &'static str },
    #[error("user '{0}' has no token and no client certificate")]
    NoProof(String),
    #[error("user '{0}' has a token and a client certificate")]
    TwoProofs(String),
    #[error("`{setting}` of '{name}' is not base64 of PEM")]
    Data { name: String, setting: &'static str },
}

impl NotUsable {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Form { .. } => "`kubectl config view --raw --flatten` writes one",
            Self::NoContext | Self::Missing { .. } => {
                "add context = \"NAME\", one that `kubectl config get-contexts` shows"
            }
            Self::Program { .. } => {
                "the warden may not exec; use way = \"eks\", or way = \"impersonate\" with a token or client certificate \
                 of the bastion's own"
            }
            Self::Unverified(_) => "name the certificates it comes from instead: anybody could be this server",
            Self::File { .. } => {
                "the warden opens no files; put it inline: kubectl config view --raw --flatten --minify"
            }
            Self::Setting { .. } => "take it out: the bastion goes to the API server itself, as itself",
            Self::NoProof(_) | Self::TwoProofs(_) => {
                "a user needs one of `token` and client-certificate-data with its key"
            }
            Self::Data { .. } => "`kubectl config view --raw --flatten` writes it right",
        }
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "current-context")]
    current: Option<String>,
    clusters: Option<Vec<NamedCluster>>,
    contexts: Option<Vec<NamedContext>>,
    users: Option<Vec<NamedUser>>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: Option<String>,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    tls_server_name: Option<String>,
    insecure_skip_tls_verify: Option<bool>,
    proxy_url: Option<String>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: Option<User>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    exec: Option<IgnoredAny>,
    auth_provider: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "hidden")]
    token: Option<Secret>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    #[serde(default, deserialize_with = "hidden")]
    client_key_data: Option<Secret>,
    username: Option<String>,
    #[serde(rename = "as")]
    other: Option<String>,
    #[serde(rename = "as-groups")]
    groups: Option<IgnoredAny>,
}

fn hidden<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(Secret::new))
}

/// Reads a context, or the current one, of a file's text.
pub fn entry(text: &str, context: Option<&str>) -> Result<Entry, NotUsable> {
    let file = parse(text)?;
    let named = context.map(str::to_owned).or(file.current).filter(|name| !name.is_empty());
    let named = named.ok_or(NotUsable::NoContext)?;
    let missing = |kind, name: &str| NotUsable::Missing { kind, name: name.to_owned() };
    let contexts = file.contexts.unwrap_or_default();
    let context = &contexts.iter().find(|c| c.name == named).ok_or_else(|| missing("context", &named))?.context;
    let clusters = file.clusters.unwrap_or_default();
    let cluster = clusters.iter().find(|c| c.name == context.cluster);
    let cluster = &cluster.ok_or_else(|| missing("cluster", &context.cluster))?.cluster;
    let users = file.users.unwrap_or_default();
    let user = users.into_iter().find(|u| u.name == context.user).ok_or_else(|| missing("user", &context.user))?;
    let proof = user.user.unwrap_or_default().proof(&context.user)?;
    Ok(Entry {
        endpoint: cluster.server.as_ref().map(|server| server.trim_end_matches('/').to_owned()),
        authority: cluster.authority(&context.cluster)?,
        server_name: cluster.tls_server_name.clone(),
        proof,
    })
}

/// A kubeconfig has no anchors, and seldom more than a few hundred nodes; a hostile one must not cost more than its size.
fn parse(text: &str) -> Result<File, NotUsable> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: 32, max_aliases: 0, max_anchors: 0, max_nodes: 50_000 },
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| NotUsable::Form { line: error.location().map_or(1, |place| place.line()) })
}

impl Cluster {
    fn authority(&self, name: &str) -> Result<Option<String>, NotUsable> {
        let name = || name.to_owned();
        if self.insecure_skip_tls_verify == Some(true) {
            return Err(NotUsable::Unverified(name()));
        }
        if self.proxy_url.is_some() {
            return Err(NotUsable::Setting { name: name(), setting: "proxy-url" });
        }
        match &self.certificate_authority_data {
            Some(data) => pem(data)
                .map(|pem| Some(pem.to_string()))
                .ok_or_else(|| NotUsable::Data { name: name(), setting: "certificate-authority-data" }),
            None if self.certificate_authority.is_some() => {
                Err(NotUsable::File { name: name(), setting: "certificate-authority" })
            }
            None => Ok(None),
        }
    }
}

impl User {
    fn proof(self, name: &str) -> Result<Proof, NotUsable> {
        self.plain(name)?;
        let broken = |setting| NotUsable::Data { name: name.to_owned(), setting };
        let certificate = self.client_certificate_data.zip(self.client_key_data);
        match (self.token.filter(|token| !token.expose().is_empty()), certificate) {
            (Some(_), Some(_)) => Err(NotUsable::TwoProofs(name.to_owned())),
            (None, None) => Err(NotUsable::NoProof(name.to_owned())),
            (Some(token), None) => Ok(Proof::Token(Secret::new(token.expose().trim().to_owned()))),
            (None, Some((chain, key))) => Ok(Proof::Certificate {
                chain: pem(&chain).ok_or_else(|| broken("client-certificate-data"))?.to_string(),
                key: Secret::new(pem(key.expose()).ok_or_else(|| broken("client-key-data"))?.to_string()),
            }),
        }
    }

    /// Refuses what is no credential of its own in the file.
    fn plain(&self, name: &str) -> Result<(), NotUsable> {
        let name = || name.to_owned();
        for (has, how) in [(self.exec.is_some(), "exec"), (self.auth_provider.is_some(), "auth-provider")] {
            if has {
                return Err(NotUsable::Program { user: name(), how });
            }
        }
        // An inline one goes before a file, as kubectl has it.
        for (has, setting) in [
            (self.token_file.is_some() && self.token.is_none(), "tokenFile"),
            (self.client_certificate.is_some() && self.client_certificate_data.is_none(), "client-certificate"),
            (self.client_key.is_some() && self.client_key_data.is_none(), "client-key"),
        ] {
            if has {
                return Err(NotUsable::File { name: name(), setting });
            }
        }
        for (has, setting) in
            [(self.username.is_some(), "username"), (self.other.is_some(), "as"), (self.groups.is_some(), "as-groups")]
        {
            if has {
                return Err(NotUsable::Setting { name: name(), setting });
            }
        }
        Ok(())
    }
}

fn pem(data: &str) -> Option<Zeroizing<String>> {
    let packed: Zeroizing<String> = Zeroizing::new(data.split_ascii_whitespace().collect());
    let bytes = STANDARD.decode(packed.as_bytes()).ok()?;
    let text = Zeroizing::new(String::from_utf8(bytes).ok()?);
    text.contains("-----BEGIN ").then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "apiVersion: v1
kind: Config
current-context: one
clusters:
- name: a
  cluster: {server: 'https://a.test:6443/', certificate-authority-data: LS0tLS1CRUdJTiBYLS0tLS0=}
contexts:
- name: one
  context: {cluster: a, user: token, namespace: x}
- name: two
  context: {cluster: a, user: certificate}
- name: odd
  context: {cluster: a, user: ODD}
- name: lost
  context: {cluster: none, user: token}
users:
- name: token
  user: {token: 'the-secret'}
- name: certificate
  user: {client-certificate-data: LS0tLS1CRUdJTiBYLS0tLS0=, client-key-data: LS0tLS1CRUdJTiBZLS0tLS0=}
- name: ODD
  user: {}
";

    #[test]
    fn a_context_is_read() {
        let one = entry(BASE, None).unwrap();
        assert_eq!(one.endpoint.as_deref(), Some("https://a.test:6443"));
        assert_eq!(one.authority.as_deref(), Some("-----BEGIN X-----"));
        assert!(matches!(one.proof, Proof::Token(token) if token.expose() == "the-secret"));
        let two = entry(BASE, Some("two")).unwrap();
        assert!(matches!(two.proof, Proof::Certificate { chain, key }
            if chain == "-----BEGIN X-----" && key.expose() == "-----BEGIN Y-----"));
    }

    #[test]
    fn what_is_no_use_says_why_and_shows_no_value() {
        for (user, wanted) in [
            ("{}", "user 'odd' has no token and no client certificate"),
            ("null", "user 'odd' has no token and no client certificate"),
            ("{exec: {command: aws}}", "user 'odd' runs a program for its credential (exec)"),
            ("{auth-provider: {name: gcp}}", "user 'odd' runs a program for its credential (auth-provider)"),
            ("{tokenFile: /t}", "'odd' has `tokenFile`, a file"),
            ("{client-certificate: /c, client-key: /k}", "'odd' has `client-certificate`, a file"),
            ("{username: u, password: p}", "'odd' has `username`"),
            ("{token: t, as: admin}", "'odd' has `as`"),
            (
                "{token: t, client-certificate-data: LS0=, client-key-data: LS0=}",
                "user 'odd' has a token and a client certificate",
            ),
            (
                "{client-certificate-data: LS0=, client-key-data: LS0=}",
                "`client-certificate-data` of 'odd' is not base64 of PEM",
            ),
        ] {
            let text = BASE
                .replace("user: ODD}", "user: odd}")
                .replace("- name: ODD\n  user: {}", &format!("- name: odd\n  user: {user}"));
            let refused = entry(&text, Some("odd")).unwrap_err();
            assert_eq!(refused.to_string(), wanted);
            assert!(!refused.hint().is_empty());
        }
        for (cluster, wanted) in [
            ("insecure-skip-tls-verify: true", "cluster 'a' has insecure-skip-tls-verify"),
            ("proxy-url: 'http://p.test'", "'a' has `proxy-url`"),
            ("certificate-authority: /ca", "'a' has `certificate-authority`, a file"),
            ("certificate-authority-data: '!'", "`certificate-authority-data` of 'a' is not base64 of PEM"),
        ] {
            let text = BASE.replace("certificate-authority-data: LS0tLS1CRUdJTiBYLS0tLS0=}", &format!("{cluster}}}"));
            assert_eq!(entry(&text, None).unwrap_err().to_string(), wanted);
        }
        let said = |text: &str, context| entry(text, context).unwrap_err().to_string();
        assert_eq!(said(BASE, Some("none")), "there is no context 'none' in it");
        assert_eq!(said(BASE, Some("lost")), "there is no cluster 'none' in it");
        assert_eq!(
            said(&BASE.replace("current-context: one", ""), None),
            "no current-context, and `context` names none"
        );
        assert_eq!(said("{}", None), "no current-context, and `context` names none");
        let said = said(&BASE.replace("token: 'the-secret'", "token: {a: the-secret}"), None);
        assert!(said.starts_with("not a kubeconfig, by its line ") && !said.contains("secret"), "{said}");
    }

    #[test]
    fn a_hostile_file_costs_no_more_than_its_size() {
        let deep = format!("a: {}", "[".repeat(100_000));
        let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nclusters: [*b, *b]\n";
        let many = format!("contexts: [{}]", "{name: a, context: {cluster: b, user: c}},".repeat(20_000));
        for text in [deep.as_str(), bomb, &many, "\u{0}", "- - -", "%YAML 9.9\n---\n"] {
            assert!(entry(text, None).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\PC\\n]{0,200}") {
            let _ = entry(&text, Some("x"));
            let _ = entry(&format!("{BASE}{text}"), None);
        }
    }
}
