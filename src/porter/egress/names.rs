//! Names become addresses out here, in process: the porter opens no file and loads no library once it is locked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use tokio::time::timeout;

/// A server that does not answer must leave time for the next.
const QUERY: Duration = Duration::from_millis(1500);
const WITHIN: Duration = Duration::from_secs(6);

/// The most addresses of one name that are tried.
const MOST: usize = 8;

/// What the host and the configuration say about names.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The text of /etc/resolv.conf.
    pub resolv_conf: String,
    /// The text of /etc/hosts.
    pub hosts: String,
    /// Before both.
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
}

/// Finds addresses.
#[derive(Debug)]
pub struct Names {
    addresses: BTreeMap<String, Vec<IpAddr>>,
    resolver: Option<TokioResolver>,
}

impl Names {
    /// Must be called inside the runtime. What cannot be used is left out; a name that is not found is refused in a sentence.
    pub fn new(sources: Sources) -> Self {
        let (config, mut options) = parse_resolv_conf(&sources.resolv_conf).unwrap_or_else(|error| {
            tracing::debug!(%error, "no name server: names of the egress door come from `addresses` and /etc/hosts only");
            (ResolverConfig::from_parts(None, vec![], vec![]), ResolverOpts::default())
        });
        // A name means itself: a search list would send `aws` to whoever owns aws.example.com.
        let config = ResolverConfig::from_parts(None, vec![], config.name_servers().to_vec());
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = options.timeout.min(QUERY);
        let mut hosts = Hosts::default();
        if let Err(error) = hosts.read_hosts_conf(sources.hosts.as_bytes()) {
            tracing::warn!(%error, "/etc/hosts cannot be understood");
        }
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options);
        let resolver = match builder.build() {
            Ok(mut resolver) => {
                resolver.set_hosts(Arc::new(hosts));
                Some(resolver)
            }
            Err(error) => {
                tracing::error!(%error, "names cannot be resolved; the egress door knows `addresses` only");
                None
            }
        };
        Self { addresses: sources.addresses, resolver }
    }

    /// The addresses of a name; none where it has none or nobody knows.
    pub async fn find(&self, name: &str) -> Vec<IpAddr> {
        if let Some(known) = self.addresses.get(name) {
            return known.clone();
        }
        let Some(resolver) = &self.resolver else { return Vec::new() };
        match timeout(WITHIN, resolver.lookup_ip(name)).await {
            Ok(Ok(found)) => {
                let mut found: Vec<IpAddr> = found.iter().collect();
                // Many hosts resolve IPv6 and have no way there.
                found.sort_by_key(IpAddr::is_ipv6);
                found.truncate(MOST);
                found
            }
            Ok(Err(error)) => {
                tracing::debug!(name, %error, "no address");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }
}
