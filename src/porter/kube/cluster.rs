//! The clusters there are, and how each is reached: by the endpoint and the authority that the warden named.

use std::collections::HashMap;
use std::sync::Arc;

use hyper::Uri;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::privsep::message::{Cluster, Credential, Way};

/// By name.
pub type Clusters = HashMap<String, Arc<Known>>;

/// A cluster as the warden described it.
#[derive(Debug)]
pub struct Known {
    pub cluster: Cluster,
    /// Or why no connection can be made. The same one as long as nothing of it changes: tokens may.
    pub line: Result<Arc<Line>, String>,
}

/// How to connect.
#[derive(Debug)]
pub struct Line {
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    /// As the endpoint has it: what is between `https://` and the path.
    pub authority: String,
    /// Of every path, without a slash at its end.
    pub prefix: String,
    pub server: ServerName<'static>,
    /// Without ALPN.
    pub tls: ClientConfig,
}

impl Known {
    pub fn new(cluster: Cluster, former: Option<&Known>) -> Self {
        let line = match former {
            Some(former) if is_same_line(&former.cluster, &cluster) => former.line.clone(),
            _ => Line::new(&cluster).map(Arc::new),
        };
        if let Err(reason) = &line {
            tracing::error!(cluster = cluster.name, reason, "a cluster cannot be reached");
        }
        Self { cluster, line }
    }
}

fn is_same_line(one: &Cluster, other: &Cluster) -> bool {
    let of = |cluster: &Cluster| (cluster.endpoint.clone(), cluster.authority.clone(), cluster.server_name.clone());
    of(one) == of(other) && certificate(one) == certificate(other)
}

/// What is shown in TLS.
fn certificate(cluster: &Cluster) -> Option<&Credential> {
    match &cluster.way {
        Way::Impersonate(shown @ Credential::Certificate { .. })
        | Way::Shared(shown @ Credential::Certificate { .. }) => Some(shown),
        _ => None,
    }
}

impl Line {
    fn new(cluster: &Cluster) -> Result<Self, String> {
        let not = |what: &str| format!("the endpoint of cluster {} {what}", cluster.name);
        let uri: Uri = cluster.endpoint.parse().map_err(|_| not("is not a URL"))?;
        let server = uri.authority().ok_or_else(|| not("names no host"))?;
        if uri.scheme_str() != Some("https") || server.as_str().contains('@') || uri.query().is_some() {
            return Err(not("must be https://host[:port][/prefix]"));
        }
        let host = server.host();
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host).to_owned();
        let name = cluster.server_name.clone().unwrap_or_else(|| host.clone());
        Ok(Self {
            port: server.port_u16().unwrap_or(443),
            authority: server.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            server: ServerName::try_from(name).map_err(|_| not("is no name that a certificate can have"))?,
            tls: tls(cluster)?,
            host,
        })
    }
}

fn tls(cluster: &Cluster) -> Result<ClientConfig, String> {
    let bad = |what: &str| format!("the {what} of cluster {} cannot be used", cluster.name);
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(cluster.authority.as_bytes()) {
        let authority = authority.map_err(|_| bad("certificate authority"))?;
        roots.add(authority).map_err(|_| bad("certificate authority"))?;
    }
    if roots.is_empty() {
        return Err(bad("certificate authority"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| e.to_string())?.with_root_certificates(roots);
    let Some(Credential::Certificate { chain, key }) = certificate(cluster) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes());
    let (Ok(chain), Ok(key)) = (chain, key) else { return Err(bad("client certificate")) };
    builder.with_client_auth_cert(chain, key).map_err(|_| bad("client certificate"))
}
