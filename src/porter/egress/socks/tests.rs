use super::*;

/// A greeting that offers no authentication, and a request.
fn request(command: u8, kind: u8, host: &[u8], port: u16) -> Vec<u8> {
    [&[5, 1, 0, 5, command, 0, kind][..], host, &port.to_be_bytes()].concat()
}

fn named(name: &[u8]) -> Vec<u8> {
    request(CONNECT, NAME, &[&[u8::try_from(name.len()).unwrap()], name].concat(), 443)
}

/// What came of it, what was said, and what was left unread.
async fn heard(bytes: &[u8]) -> (Result<Target, Bad>, Vec<u8>, Vec<u8>) {
    let (mut rest, mut said) = (bytes, Vec::new());
    let wished = wish(&mut tokio::io::join(&mut rest, &mut said)).await;
    (wished, said, rest.to_vec())
}

#[tokio::test]
async fn a_wish_is_what_connect_understands_by_the_same_text() {
    let six = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
    let mapped = "::ffff:127.0.0.1".parse::<Ipv6Addr>().unwrap().octets();
    for (bytes, wanted) in [
        (named(b"Git.Example.Test."), "git.example.test:443"),
        (named(b"127.0.0.1"), "127.0.0.1:443"),
        (named(b"[::1]"), "[::1]:443"),
        (request(CONNECT, IPV4, &[10, 213, 0, 1], 22), "10.213.0.1:22"),
        (request(CONNECT, IPV6, &six, 65535), "[2001:db8::1]:65535"),
        (request(CONNECT, IPV6, &mapped, 80), "[::ffff:127.0.0.1]:80"),
        // Others may be offered, too.
        ([&[5, 3, 2, 1, 0], &named(b"a.test")[3..]].concat(), "a.test:443"),
    ] {
        let beyond = [&bytes[..], b"\x16\x03\x01"].concat();
        let (wished, said, rest) = heard(&beyond).await;
        assert_eq!((wished, said), (Ok(wanted.parse().unwrap()), vec![5, 0]), "{wanted}");
        assert_eq!(rest, b"\x16\x03\x01", "what follows is the connection's own");
        for cut in 0..bytes.len() {
            assert_eq!(heard(&bytes[..cut]).await.0, Err(Bad::Closed), "{cut} of {wanted}");
        }
    }
}

#[tokio::test]
async fn what_is_no_wish_is_answered_by_its_number() {
    let long = [b'a'; 255];
    for (bytes, said, reply, asked) in [
        (vec![5, 0], [5, 0xff], None, "SOCKS"),
        (vec![5, 2, 1, 2], [5, 0xff], None, "SOCKS"),
        ([&[5, 1, 0, 4], &named(b"a.test")[4..]].concat(), [5, 0], Some(Reply::Failure), "SOCKS"),
        (request(BIND, IPV4, &[10, 0, 0, 1], 80), [5, 0], Some(Reply::NoSuchCommand), "BIND 10.0.0.1:80"),
        (request(UDP_ASSOCIATE, IPV4, &[0; 4], 0), [5, 0], Some(Reply::NoSuchCommand), "UDP ASSOCIATE 0.0.0.0:0"),
        (request(9, NAME, b"\x01a", 1), [5, 0], Some(Reply::NoSuchCommand), "SOCKS command 9, a:1"),
        (request(CONNECT, 2, b"\x01a", 1), [5, 0], Some(Reply::NoSuchAddress), "SOCKS address type 2"),
        (named(b""), [5, 0], Some(Reply::NotAllowed), ":443"),
        (named(b"a\0.test"), [5, 0], Some(Reply::NotAllowed), "a\\x00.test:443"),
        (named(b"\xff\n"), [5, 0], Some(Reply::NotAllowed), "\\xff\\n:443"),
        (named(b"a.test:22"), [5, 0], Some(Reply::NotAllowed), "a.test:22:443"),
        (named(b"2130706433"), [5, 0], Some(Reply::NotAllowed), "2130706433:443"),
        (named(&long), [5, 0], Some(Reply::NotAllowed), &format!("{}:443", "a".repeat(255))),
        (request(CONNECT, IPV4, &[10, 0, 0, 1], 0), [5, 0], Some(Reply::NotAllowed), "10.0.0.1:0"),
    ] {
        let (wished, heard, rest) = heard(&bytes).await;
        let bad = wished.unwrap_err();
        assert_eq!((heard, bad.reply(), bad.asked().as_deref()), (said.to_vec(), reply, Some(asked)), "{bytes:?}");
        assert!(rest.is_empty() || bad.reply() != Some(Reply::NotAllowed));
    }
    assert_eq!((heard(b"\x04\x01\0\x50").await.1, Bad::Closed.asked(), Bad::Closed.reply()), (vec![], None, None));
}

/// The same number, so that nobody can tell a name that is not there from one that is not for them.
#[test]
fn a_missing_name_is_a_denied_one() {
    assert_eq!(reply(Why::Missing), reply(Why::Denied));
    assert_eq!(answer(Reply::NotAllowed), [5, 2, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_ne!(reply(Why::Unreached), Reply::Succeeded);
}
