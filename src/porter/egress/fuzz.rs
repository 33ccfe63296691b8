//! The laws of a wish in SOCKS, and of the first bytes of a connection.

use std::net::IpAddr;

use tokio::io::join;

use super::hello::read_whole;
use super::socks::{Bad, wish};
use crate::policy::egress::{Host, Target};

/// What goes on is what came, whole, and however it was cut into packets.
pub async fn hello(bytes: &[u8]) {
    let name = "s3.example.test";
    let once = read_whole(&mut &*bytes, Vec::new(), name).await;
    let cut = bytes.len() / 2;
    let (first, mut rest) = bytes.split_at(cut);
    let twice = read_whole(&mut rest, first.to_vec(), name).await;
    if let Ok(passed) = &once {
        assert!(bytes.starts_with(passed), "bytes that the jail did not send");
    }
    assert_eq!(once.is_ok(), twice.is_ok(), "{once:?} {twice:?}");
}

/// Nothing is said but the method; what is read is the request and not a byte more; and it means what CONNECT would.
pub async fn socks(bytes: &[u8]) {
    let (wished, said, rest) = heard(bytes).await;
    assert!([&[][..], &[5, 0], &[5, 0xff]].contains(&said.as_slice()), "{said:?}");
    assert_eq!(said == [5, 0xff], wished == Err(Bad::Method));
    let Ok(target) = wished else { return };
    assert_eq!(said, [5, 0], "a wish of somebody who was not greeted");
    let taken = bytes.len() - rest.len();
    assert_eq!(heard(bytes.get(..taken - 1).unwrap_or_default()).await.0, Err(Bad::Closed), "more was read");
    assert_eq!(target.to_string().parse().as_ref(), Ok(&target));
    assert_eq!(heard(&request(&target)).await.0.as_ref(), Ok(&target));
}

async fn heard(bytes: &[u8]) -> (Result<Target, Bad>, Vec<u8>, &[u8]) {
    let (mut rest, mut said) = (bytes, Vec::new());
    let wished = wish(&mut join(&mut rest, &mut said)).await;
    (wished, said, rest)
}

/// As a client would write it.
fn request(target: &Target) -> Vec<u8> {
    let mut bytes = vec![5, 1, 0, 5, 1, 0];
    match &target.host {
        Host::Address(IpAddr::V4(four)) => bytes.extend([&[1][..], &four.octets()].concat()),
        Host::Address(IpAddr::V6(six)) => bytes.extend([&[4][..], &six.octets()].concat()),
        Host::Name(name) => bytes.extend([&[3, u8::try_from(name.len()).unwrap_or(0)][..], name.as_bytes()].concat()),
    }
    bytes.extend(target.port.to_be_bytes());
    bytes
}
