//! The law of the first bytes of a connection.

use super::hello::read_whole;

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
