//! `[[kube.cluster]]`: a cluster of the file, and what its files say.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::read::Ground;
use super::{Entry, KubeconfigEntry, Proof, StaticCluster, StaticWay};
use crate::config::aws::region;
use crate::config::check::Host;
use crate::config::value::{Fields, Parsed, Value, choice, map, path, text, wrong};
use crate::policy::egress::is_host_name;
use crate::policy::kube::{is_cluster_name, is_endpoint};

/// Each is a descriptor of the warden's; one file may have many contexts.
const MOST_FILES: usize = 8;
const LONGEST_AUTHORITY: usize = 32 * 1024;
/// A certificate chain, a key, a token: it travels in a packet.
const LONGEST_PROOF: usize = 16 * 1024;
const CLUSTER: &str = "a [[kube.cluster]]";
const ENDPOINT: &str = "write https://host[:port]: \"https://10.1.2.3:6443\"";

/// The clusters read so far: names are for one, and so is what a token says.
#[derive(Default)]
pub(super) struct Known {
    names: RefCell<Vec<String>>,
    /// EKS's names with their endpoints.
    tokens: RefCell<Vec<(String, String)>>,
    files: RefCell<Vec<PathBuf>>,
}

impl Known {
    pub(super) fn cluster(&self, value: &Value<'_>, ground: &Ground<'_>) -> Parsed<StaticCluster> {
        let cluster = cluster(value, ground)?;
        let mut names = self.names.borrow_mut();
        if names.contains(&cluster.name) {
            let what = format!("two clusters are called '{}'", cluster.name);
            return wrong(value, what, "give one of them another name: it is what users choose by");
        }
        names.push(cluster.name.clone());
        match &cluster.way {
            StaticWay::Eks { cluster: token, .. } => self.token(value, token, cluster.endpoint.as_deref())?,
            StaticWay::Impersonate(entry) | StaticWay::Kubeconfig(entry) => self.file(value, &entry.file)?,
        }
        Ok(cluster)
    }

    fn token(&self, value: &Value<'_>, token: &str, endpoint: Option<&str>) -> Parsed<()> {
        let mut tokens = self.tokens.borrow_mut();
        let endpoint = endpoint.unwrap_or_default();
        if tokens.iter().any(|(name, at)| name == token && at != endpoint) {
            let hint = "a token for one would open the other; rename one in EKS, or leave one out";
            return wrong(value, format!("two endpoints for '{token}' of EKS"), hint);
        }
        tokens.push((token.to_owned(), endpoint.to_owned()));
        Ok(())
    }

    fn file(&self, value: &Value<'_>, file: &Path) -> Parsed<()> {
        let mut files = self.files.borrow_mut();
        if !files.iter().any(|known| known == file) {
            files.push(file.to_owned());
        }
        match files.len() {
            0..=MOST_FILES => Ok(()),
            _ => wrong(value, format!("more than {MOST_FILES} kubeconfig files"), "put several contexts into one file"),
        }
    }
}

/// As it is written, before it is known whether it goes together.
struct Written {
    endpoint: Option<String>,
    authority: Option<String>,
    server_name: Option<String>,
    region: Option<String>,
    eks_name: Option<String>,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
}

#[derive(Clone, Copy)]
enum Way {
    Eks,
    Impersonate,
    Kubeconfig,
}

fn cluster(value: &Value<'_>, ground: &Ground<'_>) -> Parsed<StaticCluster> {
    const WAYS: &[(&str, Way)] =
        &[("eks", Way::Eks), ("impersonate", Way::Impersonate), ("kubeconfig", Way::Kubeconfig)];
    let mut f = Fields::of(value, CLUSTER)?;
    let name = f.must("name", "\"hyades\"", cluster_name);
    let labels = f.or("labels", BTreeMap::new(), map(label));
    let way = f.must("way", "\"eks\"", choice(WAYS));
    let written = Written {
        endpoint: f.maybe("endpoint", endpoint),
        authority: f.maybe("ca", |value| authority(value, ground.host)),
        server_name: f.maybe("server_name", server_name),
        region: f.maybe("region", region),
        eks_name: f.maybe("eks_name", cluster_name),
        kubeconfig: f.maybe("kubeconfig", path),
        context: f.maybe("context", text),
    };
    f.close()?;
    let (Some(name), Some(way)) = (name, way) else { return wrong(value, "a name and a way are missing", "add them") };
    let way = match way {
        Way::Eks => eks(value, &name, &written, ground)?,
        Way::Impersonate => StaticWay::Impersonate(entry(value, &written, ground.host)?),
        Way::Kubeconfig => StaticWay::Kubeconfig(entry(value, &written, ground.host)?),
    };
    let Written { endpoint, authority, server_name, .. } = written;
    Ok(StaticCluster { name, labels, endpoint, authority, server_name, way })
}

fn eks(value: &Value<'_>, name: &str, written: &Written, ground: &Ground<'_>) -> Parsed<StaticWay> {
    if !ground.has_aws {
        let hint = "add [aws], whose identity makes users' tokens, or use way = \"impersonate\" or \"kubeconfig\"";
        return wrong(value, "way = \"eks\" without [aws]", hint);
    }
    if written.kubeconfig.is_some() || written.context.is_some() {
        let hint = "a token of the user's own is all that way = \"eks\" shows: take `kubeconfig` and `context` out";
        return wrong(value, "a kubeconfig beside way = \"eks\"", hint);
    }
    if written.endpoint.is_none() || written.authority.is_none() {
        let hint = "add endpoint = \"https://…\" and ca = \"/etc/stockade/hyades-ca.pem\", as `aws eks describe-cluster` \
                    has them, or let [[kube.discover]] find the cluster";
        return wrong(value, "way = \"eks\" wants `endpoint` and `ca`", hint);
    }
    let region = written.region.clone().or_else(|| ground.aws.map(|aws| aws.region.clone()));
    let cluster = written.eks_name.clone().unwrap_or_else(|| name.to_owned());
    Ok(StaticWay::Eks { region: region.unwrap_or_default(), cluster })
}

/// A context of a kubeconfig file, looked into so that its mistakes are found now and not by a user.
fn entry(value: &Value<'_>, written: &Written, host: &Host<'_>) -> Parsed<KubeconfigEntry> {
    if written.region.is_some() || written.eks_name.is_some() {
        return wrong(value, "`region` or `eks_name` without way = \"eks\"", "take them out, or change `way`");
    }
    let Some(file) = written.kubeconfig.clone() else {
        let hint = "add kubeconfig = \"/etc/stockade/kubeconfig\", which has the credential that the bastion shows";
        return wrong(value, "this way wants a `kubeconfig`", hint);
    };
    let text = (host.secret)(&file);
    let text =
        text.or_else(|error| wrong(value, format!("`kubeconfig`: {error}"), "it holds secrets: root's, mode 0600"))?;
    let found = super::entry(&text, written.context.as_deref());
    let found = found
        .or_else(|refused| wrong(value, format!("`kubeconfig`: '{}': {refused}", file.display()), refused.hint()))?;
    let within = |what: &str| format!("`kubeconfig`: '{}': {what}", file.display());
    match &found.endpoint {
        _ if written.endpoint.is_some() => {}
        Some(endpoint) if is_endpoint(endpoint) => {}
        Some(endpoint) => return wrong(value, within(&format!("'{endpoint}' is no https address")), ENDPOINT),
        None => return wrong(value, within("no `server`"), "add endpoint = \"https://…\""),
    }
    match &found.authority {
        _ if written.authority.is_some() => {}
        Some(pem) => certificates(pem).or_else(|error| wrong(value, within(&error), "kubectl would refuse it too"))?,
        None => {
            return wrong(value, within("no certificate-authority-data"), "add ca = \"/etc/stockade/hyades-ca.pem\"");
        }
    }
    proof(&found)
        .or_else(|error| wrong(value, within(&error), "`kubectl config view --raw --flatten` writes it right"))?;
    Ok(KubeconfigEntry { file, context: written.context.clone() })
}

fn proof(entry: &Entry) -> Result<(), String> {
    match &entry.proof {
        Proof::Token(token) if token.expose().len() > LONGEST_PROOF => Err("the token is longer than 16 KiB".into()),
        Proof::Token(token) if token.expose().bytes().all(|b| b.is_ascii_graphic()) => Ok(()),
        Proof::Token(_) => Err("the token has letters that no token has".into()),
        Proof::Certificate { chain, key } => {
            let readable = CertificateDer::from_pem_slice(chain.as_bytes()).is_ok()
                && PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).is_ok();
            match readable && chain.len().max(key.expose().len()) <= LONGEST_PROOF {
                true => Ok(()),
                false => Err("the client certificate or its key is not PEM, or longer than 16 KiB".into()),
            }
        }
    }
}

fn cluster_name(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    if is_cluster_name(&found) {
        return Ok(found);
    }
    let hint = "1 to 100 of the letters A-Z a-z 0-9 - _ . that begin with a letter or a digit";
    wrong(value, format!("'{}' is not the name of a cluster", found.escape_debug()), hint)
}

pub(super) fn label(name: &str, value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    let clean = |text: &str, most: usize| text.chars().count() <= most && !text.contains(char::is_control);
    if name.is_empty() || !clean(name, 128) || !clean(&found, 256) {
        return wrong(value, "this is not a label", "names have 1 to 128 letters, values up to 256");
    }
    Ok(found)
}

pub(super) fn endpoint(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    let found = found.trim_end_matches('/');
    if found.starts_with("http://") {
        return wrong(value, format!("'{found}' is plain HTTP"), "users' credentials go there: it must be https");
    }
    if is_endpoint(found) {
        return Ok(found.to_owned());
    }
    wrong(value, format!("'{}' is not the address of an API server", found.escape_debug()), ENDPOINT)
}

fn server_name(value: &Value<'_>) -> Parsed<String> {
    let found = text(value)?;
    if is_host_name(&found) || found.parse::<IpAddr>().is_ok() {
        return Ok(found);
    }
    wrong(value, format!("'{}' is not a name in a certificate", found.escape_debug()), "write a host's name")
}

/// A file of certificates, read and inlined.
pub(super) fn authority(value: &Value<'_>, host: &Host<'_>) -> Parsed<String> {
    let file = path(value)?;
    let pem = (host.read)(&file);
    let pem = pem.or_else(|error| wrong(value, error, "the loader reads it as root; make it a plain file"))?;
    certificates(&pem)
        .or_else(|error| wrong(value, format!("'{}': {error}", file.display()), "it must be certificates in PEM"))?;
    Ok(pem)
}

/// Whether TLS can trust these, and there are any.
fn certificates(pem: &str) -> Result<(), String> {
    let mut store = RootCertStore::empty();
    for found in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let found = found.map_err(|_| "not PEM")?;
        store.add(found).map_err(|_| "a certificate that TLS cannot trust")?;
    }
    match pem.len() {
        _ if store.is_empty() => Err("no certificate".into()),
        0..=LONGEST_AUTHORITY => Ok(()),
        _ => Err("more certificates than one cluster needs".into()),
    }
}
