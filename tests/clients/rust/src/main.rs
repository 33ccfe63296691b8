//! Credentials and region that the AWS SDK for Rust finds by itself.

use aws_credential_types::provider::ProvideCredentials;
use aws_smithy_types::date_time::{DateTime, Format};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // No TLS: the doors speak plain HTTP, and a TLS library would be most of the build.
    let http = aws_smithy_http_client::Builder::new().build_http();
    let settings = aws_config::from_env().http_client(http).load().await;
    let found = settings.credentials_provider().ok_or("no provider")?.provide_credentials().await?;
    let region = settings.region().ok_or("no region")?;
    let expiry = DateTime::from(found.expiry().ok_or("no expiry")?).fmt(Format::DateTime)?;
    println!("{} {region} {expiry}", found.access_key_id());
    Ok(())
}
