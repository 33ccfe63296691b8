//! Names that go together, so that nobody has to collect them: whose they are, and where their owners list them.
//!
//! What customers run under the same domains is left out where names tell it apart, as for AWS.

use super::aws;
use crate::config::{EgressRule, Preset};
use crate::identity::Pattern;

/// How one speaks to a name of a preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    Tls,
    /// git's other way: whether it leads to the same host, only the client can tell, by the host's key.
    Ssh,
}

/// Hosts of repositories, with what git itself fetches elsewhere: large files, archives, releases.
/// <https://docs.github.com/actions/hosting-your-own-runners/managing-self-hosted-runners/communicating-with-self-hosted-runners>,
/// <https://learn.microsoft.com/azure/devops/organizations/security/allow-list-ip-url>.
const GIT: &[&str] = &[
    "github.com",
    "api.github.com",
    "codeload.github.com",
    "gist.github.com",
    "lfs.github.com",
    "uploads.github.com",
    "github-cloud.githubusercontent.com",
    "github-cloud.s3.amazonaws.com",
    "gist.githubusercontent.com",
    "media.githubusercontent.com",
    "objects.githubusercontent.com",
    "raw.githubusercontent.com",
    "release-assets.githubusercontent.com",
    "gitlab.com",
    "bitbucket.org",
    "api.bitbucket.org",
    "dev.azure.com",
];

/// Where the same hosts speak SSH; port 443 is for networks that close 22.
/// <https://docs.github.com/authentication/troubleshooting-ssh/using-ssh-over-the-https-port>,
/// <https://about.gitlab.com/blog/2016/02/18/gitlab-dot-com-now-supports-an-alternate-git-plus-ssh-port/>;
/// Bitbucket's is altssh, too.
const GIT_SSH: &[(&str, u16)] = &[
    ("github.com", SSH),
    ("gitlab.com", SSH),
    ("bitbucket.org", SSH),
    ("ssh.dev.azure.com", SSH),
    ("ssh.github.com", 443),
    ("altssh.gitlab.com", 443),
    ("altssh.bitbucket.org", 443),
];
const SSH: u16 = 22;

/// Registries of images and charts, and where they have the layers fetched from.
const REGISTRIES: &[&str] = &[
    // Docker Hub: <https://docs.docker.com/desktop/setup/allow-list/>; cloudfront is where it redirects to since 2026.
    "registry-1.docker.io",
    "auth.docker.io",
    "index.docker.io",
    "hub.docker.com",
    "production.cloudflare.docker.com",
    "production.cloudfront.docker.com",
    "docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com",
    // Red Hat: <https://access.redhat.com/node/7001746>, layers come from cdn01.quay.io and its like.
    "quay.io",
    "*.quay.io",
    "registry.redhat.io",
    "registry.access.redhat.com",
    // GitHub: the list of the preset above.
    "ghcr.io",
    "pkg-containers.githubusercontent.com",
    // GitLab: <https://docs.gitlab.com/user/gitlab_com/>.
    "registry.gitlab.com",
    "cdn.registry.gitlab-static.net",
    // Google: <https://cloud.google.com/artifact-registry/docs/transition/transition-from-gcr>.
    "gcr.io",
    "*.gcr.io",
    "*-docker.pkg.dev",
    // Microsoft: <https://github.com/microsoft/containerregistry/blob/main/docs/mcr-endpoints-guidance.md>.
    "mcr.microsoft.com",
    "*.data.mcr.microsoft.com",
    // Kubernetes: it redirects to Google's, above, and to BUCKETS.
    "registry.k8s.io",
    // ECR Public: <https://anywhere.eks.amazonaws.com/docs/getting-started/nutanix/domains/>.
    "public.ecr.aws",
    "d2glxqk2uabbnd.cloudfront.net",
    "d5l0dvt14r5h8.cloudfront.net",
];

/// Buckets with layers, one in each region; a `*` is the region, both times the same. A bucket with the name of any
/// other place could be anybody's.
const BUCKETS: [&str; 2] = [
    // <https://docs.aws.amazon.com/AmazonECR/latest/userguide/vpc-endpoints.html#ecr-minimum-s3-perms>
    "prod-*-starport-layer-bucket.s3.*.amazonaws.com",
    // <https://github.com/kubernetes/registry.k8s.io/blob/main/cmd/archeio/internal/app/buckets.go>
    "prod-registry-k8s-io-*.s3.dualstack.*.amazonaws.com",
];

/// Indices of packages that tools read by default: of pip, cargo, npm and yarn, go, gem, maven, terraform, and what
/// comes for clusters.
const PACKAGES: &[&str] = &[
    // <https://docs.pypi.org/api/>: the index, and the files it links to.
    "pypi.org",
    "files.pythonhosted.org",
    // <https://doc.rust-lang.org/cargo/reference/registries.html>; the second is index.crates.io's `dl`.
    "index.crates.io",
    "static.crates.io",
    "crates.io",
    "static.rust-lang.org",
    // <https://docs.npmjs.com/cli/using-npm/registry>, <https://yarnpkg.com/configuration/yarnrc#npmRegistryServer>
    "registry.npmjs.org",
    "registry.yarnpkg.com",
    // <https://go.dev/ref/mod#environment-variables>: the defaults of GOPROXY and GOSUMDB.
    "proxy.golang.org",
    "sum.golang.org",
    // <https://guides.rubygems.org/rubygems-org-compact-index-api/>
    "rubygems.org",
    "index.rubygems.org",
    // <https://maven.apache.org/repository/>
    "repo.maven.apache.org",
    "repo1.maven.org",
    // <https://developer.hashicorp.com/terraform/internals/provider-registry-protocol>, and OpenTofu's.
    "registry.terraform.io",
    "releases.hashicorp.com",
    "checkpoint-api.hashicorp.com",
    "registry.opentofu.org",
    // <https://kubernetes.io/releases/download/>, <https://helm.sh/docs/intro/install/>
    "dl.k8s.io",
    "cdn.dl.k8s.io",
    "pkgs.k8s.io",
    "get.helm.sh",
];

/// Whether a name in lower case is one of the rule's preset at this port, which is one of the rule's, and what is
/// spoken there.
pub fn speech(rule: &EgressRule, name: &str, port: u16) -> Option<Speech> {
    let tls = |named: bool| named.then_some(Speech::Tls);
    match rule.preset? {
        Preset::Aws => tls(aws::is_endpoint(name, &rule.regions)),
        Preset::Git if GIT_SSH.contains(&(name, port)) => rule.ports.contains(&SSH).then_some(Speech::Ssh),
        Preset::Git => tls(GIT.contains(&name)),
        Preset::Registries => tls(is_registry(name, &rule.regions)),
        Preset::Packages => tls(PACKAGES.contains(&name)),
    }
}

fn is_registry(name: &str, regions: &[String]) -> bool {
    REGISTRIES.iter().any(|host| *host == name || host.contains('*') && Pattern::new(*host).matches(name))
        || aws::is_ecr(name, regions)
        || BUCKETS.iter().filter_map(|bucket| region_of(name, bucket)).any(|region| aws::is_among(region, regions))
}

/// The region in a bucket's name.
fn region_of<'n>(name: &'n str, bucket: &str) -> Option<&'n str> {
    let mut parts = bucket.split('*');
    let (head, middle, tail) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, again) = name.strip_prefix(head)?.strip_suffix(tail)?.split_once(middle)?;
    (region == again && aws::is_region(region)).then_some(region)
}
