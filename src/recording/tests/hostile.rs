//! What was not written by a writer is not read as if it were.

use std::time::Duration;

use proptest::prelude::*;

use super::super::*;
use super::*;

#[test]
fn every_flipped_bit_is_seen() {
    let (file, _) = sample(true);
    for byte in 0..file.len() {
        for bit in 0..8 {
            let mut bad = file.clone();
            bad[byte] ^= 1 << bit;
            assert!(!intact(&bad), "byte {byte} bit {bit}");
        }
    }
}

#[test]
fn frames_removed_swapped_repeated_or_from_elsewhere_are_seen() {
    let (file, ends) = sample(true);
    let frame = |n: usize| &file[ends[n - 1]..ends[n]];
    let rest = |n: usize| &file[ends[n]..];
    let head = |n: usize| &file[..ends[n]];
    for n in 1..ends.len() - 2 {
        assert!(!intact(&[head(n - 1), rest(n)].concat()), "removed {n}");
        assert!(!intact(&[head(n - 1), frame(n + 1), frame(n), rest(n + 1)].concat()), "swapped {n}");
        assert!(!intact(&[head(n), frame(n), rest(n)].concat()), "repeated {n}");
    }
    assert!(!intact(&[head(ends.len() - 1), frame(1)].concat()), "after the end");
    assert!(!intact(&[&file[..], b"\0"].concat()), "a zero after the end");
    // The same session recorded under another id: not one frame fits, though all else is equal.
    let (mut writer, mut other) =
        Writer::begin(SessionId::from_bytes([9; 16]), wall(0), boot(0), &header(), Durability::Local);
    writer.push(boot(10), &everything()[0]);
    let at = other.len();
    other.extend(writer.close_frame(wall(10), boot(10)).unwrap());
    assert!(!intact(&[head(0), &other[at..], rest(1)].concat()));
    assert!(!intact(&[&other[..at], rest(0)].concat()));
}

#[test]
fn a_signed_or_sealed_frame_is_a_newer_versions() {
    let (file, ends) = sample(false);
    let mut signed = file.clone();
    signed[ends[0] + 2] = 64;
    assert!(matches!(read(&signed).1, Some(ReadError::Newer { seq: 1 })));
}

#[test]
fn hostile_lengths_and_bombs_take_no_memory() {
    let (file, ends) = sample(false);
    let frame = |change: &dyn Fn(&mut FrameHeader) -> Vec<u8>| {
        let mut header = frame::next(&mut &file[ends[0]..]).unwrap().unwrap().header;
        let payload = change(&mut header);
        let broken = [&file[..ends[0]], &frame::bytes(&header, &payload).0].concat();
        read(&broken).1.unwrap().to_string()
    };
    let claims = frame(&|header| {
        header.length = u32::MAX;
        Vec::new()
    });
    assert!(claims.ends_with("a payload longer than any"), "{claims}");
    let claims = frame(&|header| {
        header.length = 600 << 10;
        Vec::new()
    });
    assert!(claims.starts_with("torn at byte"), "{claims}");
    let bomb = frame(&|header| {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
        header.length = bomb.len() as u32;
        header.sha256 = frame::digest(&bomb);
        bomb
    });
    assert!(bomb.ends_with("its events cannot be decoded"), "{bomb}");
    // A CBOR array that says it has 2^60 members.
    let long = frame(&|header| {
        let payload = pack::pack(&[0x00, 0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        header.length = payload.len() as u32;
        header.sha256 = frame::digest(&payload);
        payload
    });
    assert!(long.ends_with("its events cannot be decoded"), "{long}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        read(&bytes);
        let mut file = MAGIC.to_vec();
        file.extend(&bytes);
        read(&file);
        let (good, _) = sample(false);
        let mut file = good.clone();
        file.extend(&bytes);
        let (events, _) = read(&file);
        prop_assert_eq!(events.len(), everything().len());
        let _ = recover(&disk(&file), wall(0), boot(0));
    }

    /// A hostile length takes no memory: what is claimed is not there.
    #[test]
    fn hostile_headers_never_panic(place in 0usize..2000, with in proptest::collection::vec(any::<u8>(), 1..9)) {
        let (mut file, _) = sample(true);
        let place = place % (file.len() - with.len());
        file.splice(place..place + with.len(), with);
        read(&file);
        let _ = recover(&disk(&file), wall(0), boot(0));
    }

    #[test]
    fn whatever_is_recorded_is_read(pieces in proptest::collection::vec(
        (0u32..4, proptest::collection::vec(any::<u8>(), 0..3000), any::<bool>(), 0u64..5000), 0..40)) {
        let (mut writer, mut file) = Writer::begin(id(), wall(0), boot(0), &header(), Durability::Local);
        let mut at = 0;
        let mut sent = Vec::new();
        for (number, data, commit, later) in pieces {
            at += later;
            let event = Event::Output { number, data: data.into() };
            writer.push(boot(at), &event);
            sent.push((Duration::from_millis(at), event));
            if commit {
                file.extend(writer.close_frame(wall(at as i64), boot(at)).unwrap());
                prop_assert_eq!(writer.pending(), 0);
            }
        }
        file.extend(writer.finish(wall(at as i64), boot(at), "exit"));
        prop_assert!(intact(&file));
        let (events, _) = read(&file);
        prop_assert_eq!(events.into_iter().map(|r| (r.at, r.event)).collect::<Vec<_>>(), sent);
    }
}
