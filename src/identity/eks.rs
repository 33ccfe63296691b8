//! Tokens for EKS: a question to STS, signed and not sent, that whoever holds the token may ask in its maker's name.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Credentials, Secret, partition};

/// How long a cluster takes a token, whatever it says itself: the authenticator counts from its date.
pub const LIFE: i64 = 15 * 60;

/// RFC 3986's unreserved letters stand for themselves.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const SIGNED: &str = "host;x-k8s-aws-id";

/// A token for this cluster, as `aws eks get-token` makes it; `now` in seconds since the epoch.
pub fn token(credentials: &Credentials, region: &str, cluster: &str, now: i64) -> Secret {
    let url = Zeroizing::new(presigned(credentials, region, cluster, now));
    Secret::new(format!("k8s-aws-v1.{}", URL_SAFE_NO_PAD.encode(url.as_bytes())))
}

/// AWS Signature Version 4 in the query, of GetCallerIdentity and of the cluster's name beside it.
fn presigned(credentials: &Credentials, region: &str, cluster: &str, now: i64) -> String {
    let host = format!("sts.{region}.{}", partition(region).1);
    let time = Timestamp::from_second(now).unwrap_or_default().strftime("%Y%m%dT%H%M%SZ").to_string();
    let day = time.get(..8).unwrap_or_default();
    let scope = format!("{day}/{region}/sts/aws4_request");
    let encoded = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
    // An access key of a user has none.
    let session = Zeroizing::new(match credentials.session_token.expose() {
        "" => String::new(),
        token => format!("&X-Amz-Security-Token={}", encoded(token)),
    });
    let query = Zeroizing::new(format!(
        "Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}\
         &X-Amz-Date={time}&X-Amz-Expires=60{}&X-Amz-SignedHeaders={}",
        encoded(&format!("{}/{scope}", credentials.access_key_id)),
        *session,
        encoded(SIGNED),
    ));
    let body = hexadecimal(&Sha256::digest(b""));
    let asked = format!("GET\n/\n{}\nhost:{host}\nx-k8s-aws-id:{cluster}\n\n{SIGNED}\n{body}", *query);
    let asked = hexadecimal(&Sha256::digest(Zeroizing::new(asked).as_bytes()));
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{asked}");
    let secret = Zeroizing::new(format!("AWS4{}", credentials.secret_access_key.expose()));
    let key = [day, region, "sts", "aws4_request"]
        .iter()
        .fold(Zeroizing::new(secret.as_bytes().to_vec()), |key, part| sign(&key, part));
    format!("https://{host}/?{}&X-Amz-Signature={}", *query, hexadecimal(&sign(&key, &to_sign)))
}

fn sign(key: &[u8], text: &str) -> Zeroizing<Vec<u8>> {
    // HMAC takes a key of any length: the error cannot happen, and an empty key signs nothing.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Zeroizing::default() };
    mac.update(text.as_bytes());
    Zeroizing::new(mac.finalize().into_bytes().to_vec())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        Credentials {
            access_key_id: "ASIAEXAMPLE".into(),
            secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG".into()),
            session_token: Secret::new("FwoG/session+token==".into()),
            issued: 0,
            expires: 3600,
        }
    }

    /// What botocore's `RequestSigner.generate_presigned_url` says for the same credentials, names and clock.
    #[test]
    fn a_token_is_what_the_aws_cli_makes() {
        for (region, signature) in GOLDEN {
            let url = presigned(&credentials(), region, "hyades", 1_700_000_000);
            let (rest, made) = url.rsplit_once("&X-Amz-Signature=").unwrap();
            assert_eq!(made, signature, "{rest}");
        }
        let token = token(&credentials(), "eu-central-1", "hyades", 1_700_000_000);
        let bare = token.expose().strip_prefix("k8s-aws-v1.").unwrap();
        let url = String::from_utf8(URL_SAFE_NO_PAD.decode(bare).unwrap()).unwrap();
        assert!(url.starts_with("https://sts.eu-central-1.amazonaws.com/?Action=GetCallerIdentity&"), "{url}");
        assert!(url.contains("&X-Amz-Expires=60&") && url.contains("&X-Amz-Date=20231114T221320Z&"), "{url}");
    }

    #[test]
    fn a_token_is_for_one_cluster() {
        let token = |cluster| token(&credentials(), "eu-central-1", cluster, 0).expose().to_owned();
        assert_ne!(token("hyades"), token("pleiades"));
    }

    /// `cargo test --lib eks -- --ignored --nocapture`
    #[test]
    #[ignore = "it measures"]
    fn how_long_a_token_takes() {
        const TOKENS: u32 = 1000;
        let credentials = Credentials { session_token: Secret::new("FwoGZXIvYXdz/+==".repeat(64)), ..credentials() };
        let began = std::time::Instant::now();
        for now in 0..TOKENS {
            std::hint::black_box(token(&credentials, "eu-central-1", "hyades", now.into()));
        }
        println!("a token takes {:?}", began.elapsed() / TOKENS);
    }

    const GOLDEN: [(&str, &str); 2] = [
        ("eu-central-1", "d980b538ccc97165ae1b120c8399463e62815b8752c8261da7aba680296ce807"),
        ("cn-north-1", "536642ee386d90a832528cf489a98bd67d4e58118e558d3d44b97e6606619a1e"),
    ];
}
