use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::AuthorityError;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
/// Debian and Alpine, Red Hat, SUSE.
const ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];
/// A server that does not answer must leave time for the next within the connect timeout.
const QUERY: Duration = Duration::from_millis(1200);

/// What a locked process cannot read any more: how names become addresses, and whom TLS trusts.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The text of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// The text of `/etc/hosts`.
    pub hosts: String,
    /// Root certificates in PEM.
    pub roots: Vec<u8>,
}

impl Surroundings {
    /// Reads them where this host has them; `AWS_CA_BUNDLE` or `SSL_CERT_FILE` name other roots.
    pub fn read() -> Result<Self, AuthorityError> {
        Ok(Self { resolv_conf: text(RESOLV_CONF)?, hosts: text(HOSTS)?, roots: roots()? })
    }

    /// The SDK's HTTP client over these. It follows no redirect: the SDK has no code to.
    pub fn http_client(&self) -> Result<SharedHttpClient, AuthorityError> {
        let trust = TrustStore::empty().with_pem_certificate(self.usable_roots());
        let context =
            TlsContext::builder().with_trust_store(trust).build().map_err(|e| AuthorityError::Tls(e.to_string()))?;
        Ok(aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::rustls(CryptoMode::AwsLc))
            .tls_context(context)
            .build_with_resolver(self.resolver()?))
    }

    /// The SDK panics on a certificate that it cannot read, and a host's bundle may hold a curious one.
    fn usable_roots(&self) -> String {
        let mut store = RootCertStore::empty();
        let mut pem = String::new();
        let mut left_out = 0;
        for certificate in CertificateDer::pem_slice_iter(&self.roots) {
            match certificate.ok().filter(|der| store.add(der.clone()).is_ok()) {
                Some(der) => pem.push_str(&format!(
                    "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                    STANDARD.encode(&der)
                )),
                None => left_out += 1,
            }
        }
        if store.is_empty() {
            tracing::warn!("no root certificates: AWS can be reached by plain HTTP endpoints only");
        } else if left_out > 0 {
            tracing::warn!(left_out, "some root certificates cannot be read and are left out");
        }
        pem
    }

    fn resolver(&self) -> Result<Names, AuthorityError> {
        let (config, mut options) = parse_resolv_conf(&self.resolv_conf).unwrap_or_else(|error| {
            tracing::warn!(%error, "no name server: names come from the hosts file only");
            (ResolverConfig::from_parts(None, vec![], vec![]), ResolverOpts::default())
        });
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = options.timeout.min(QUERY);
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(self.hosts.as_bytes()).map_err(|e| AuthorityError::Resolver(e.to_string()))?;
        let mut resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(|e| AuthorityError::Resolver(e.to_string()))?;
        resolver.set_hosts(Arc::new(hosts));
        Ok(Names(Arc::new(resolver)))
    }
}

/// Names resolved in this process: getaddrinfo would open nsswitch.conf and load libraries.
#[derive(Clone, Debug)]
struct Names(Arc<TokioResolver>);

impl ResolveDns for Names {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move {
            let found = self.0.lookup_ip(name).await.map_err(ResolveDnsError::new)?;
            Ok(found.iter().collect::<Vec<IpAddr>>())
        })
    }
}

fn text(path: &str) -> Result<String, AuthorityError> {
    match fs_err::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(AuthorityError::Names { path: path.into(), source }),
    }
}

fn roots() -> Result<Vec<u8>, AuthorityError> {
    let named = ["AWS_CA_BUNDLE", "SSL_CERT_FILE"].into_iter().find_map(std::env::var_os).map(PathBuf::from);
    let path = named.or_else(|| ROOTS.into_iter().map(PathBuf::from).find(|path| path.exists()));
    let Some(path) = path else { return Ok(Vec::new()) };
    read(&path)
}

fn read(path: &Path) -> Result<Vec<u8>, AuthorityError> {
    fs_err::read(path).map_err(|source| AuthorityError::Roots { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hosts_file_is_heard_without_a_name_server() {
        let surroundings = Surroundings { hosts: "192.0.2.7 sts.example.test\n".into(), ..Surroundings::default() };
        let names = surroundings.resolver().unwrap();
        assert_eq!(names.resolve_dns("sts.example.test").await.unwrap(), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert!(names.resolve_dns("other.example.test").await.is_err());
    }

    #[test]
    fn a_bad_root_certificate_is_left_out_and_does_not_panic() {
        let bad = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n\
            -----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\njunk";
        let surroundings = Surroundings { roots: bad.to_vec(), ..Surroundings::default() };
        assert_eq!(surroundings.usable_roots(), "");
        surroundings.http_client().unwrap();
    }
}
