use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

/// What a real client says first.
fn hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

/// The handshake message without its record.
fn message(name: &str) -> Vec<u8> {
    hello(name).split_off(5)
}

/// In records of at most so many bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[0x16, 3, 1], &u16::try_from(part.len()).unwrap().to_be_bytes()[..], part].concat();
    message.chunks(size).flat_map(record).collect()
}

/// What a client says first that hides its name, or pretends to.
fn encrypted(name: &str) -> Vec<u8> {
    use rustls::client::{EchGreaseConfig, EchMode};
    let suite = rustls::crypto::aws_lc_rs::hpke::ALL_SUPPORTED_SUITES[0];
    let (key, _) = suite.generate_key_pair().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mode = EchMode::Grease(EchGreaseConfig::new(suite, key));
    let config = ClientConfig::builder_with_provider(provider).with_ech(mode).unwrap();
    let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut bytes = Vec::new();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

async fn told(mut bytes: &[u8]) -> Result<Vec<u8>, NoHello> {
    read(&mut bytes, Vec::new(), "s3.example.test").await
}

#[tokio::test]
async fn the_name_in_tls_is_the_name_that_was_asked_for() {
    let bytes = hello("s3.example.test");
    assert_eq!(told(&bytes).await.unwrap(), bytes);
    assert_eq!(told(&hello("S3.Example.TEST")).await.unwrap().len(), bytes.len());
    assert_eq!(told(&hello("evil.test")).await, Err(NoHello::Another("evil.test".into())));
    assert_eq!(told(&hello("192.0.2.1")).await, Err(NoHello::Nameless));
}

#[tokio::test]
async fn a_hello_may_come_in_pieces_and_is_passed_on_whole() {
    let message = message("s3.example.test");
    for size in [1, 3, 4, 38, 100, 16_000] {
        let mut bytes = records(&message, size);
        // What follows in the same packet goes on too, and is not looked at.
        bytes.extend(b"\x17\x03\x03\x00\x01x");
        assert_eq!(told(&bytes).await.unwrap(), bytes, "{size}");
    }
    let whole = hello("s3.example.test");
    for cut in 0..whole.len() {
        let (first, mut rest) = whole.split_at(cut);
        assert_eq!(read(&mut rest, first.to_vec(), "s3.example.test").await.unwrap(), whole);
        assert_eq!(told(first).await, Err(NoHello::Closed), "{cut}");
    }
}

#[tokio::test]
async fn an_encrypted_name_is_no_name() {
    let bytes = encrypted("s3.example.test");
    assert_eq!(told(&bytes).await, Err(NoHello::Encrypted));
    for size in [1, 50, 300] {
        assert_eq!(told(&records(&bytes[5..], size)).await, Err(NoHello::Encrypted), "{size}");
    }
}

#[tokio::test]
async fn what_is_not_tls_is_cut_off() {
    for bytes in [
        &b"SSH-2.0-x\r\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x15\x03\x03\0\x02\x02\x28",
        b"\x80\x2e\x01\x03\x01",
        &[0; 64],
    ] {
        assert!(matches!(told(bytes).await, Err(NoHello::NotTls | NoHello::Closed)), "{bytes:?}");
    }
    // A message that says it is 16 MiB long, and one that never ends.
    assert!(told(&records(&[&[1, 0xff, 0xff, 0xff][..], &[0; 60_000]].concat(), 16_000)).await.is_err());
    assert!(told(&[0x16, 3, 1, 0, 0].repeat(20_000)).await.is_err());
    let mut twice = message("s3.example.test");
    twice[0] = 2;
    assert_eq!(told(&records(&twice, 16_000)).await, Err(NoHello::NotTls));
}

proptest::proptest! {
    #[test]
    fn hostile_bytes_end_and_never_panic(noise in proptest::collection::vec(proptest::num::u8::ANY, 0..600), at in 0usize..250) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _ = runtime.block_on(told(&noise));
        let mut broken = hello("s3.example.test");
        let end = (at + noise.len().min(8)).min(broken.len());
        if at < end {
            broken.splice(at..end, noise.iter().copied().take(8));
        }
        if let Ok(bytes) = runtime.block_on(told(&broken)) {
            proptest::prop_assert!(bytes.windows(15).any(|part| part.eq_ignore_ascii_case(b"s3.example.test")));
        }
        let _ = is_encrypted(&noise);
    }
}
