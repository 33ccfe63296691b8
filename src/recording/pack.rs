use std::cell::RefCell;
use std::io;

use zstd::bulk::Compressor;

use super::frame::LONGEST_PLAIN;

/// Below this zstd only adds its own header, and a key press need not pay for a compressor.
const WORTH: usize = 64;

/// zstd level 3: on 64 KiB frames of terminal output higher levels gain little and cost much.
const LEVEL: i32 = 3;

thread_local! {
    /// To make one costs several times what a frame does. A thread's, not a recording's: it is half a megabyte, threads
    /// that write are few, and idle ones end.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

/// One zstd frame.
pub(super) fn pack(plain: &[u8]) -> Vec<u8> {
    if plain.len() < WORTH {
        return stored(plain);
    }
    // Only a lack of memory can fail here, and a recording must not lose bytes to it.
    compress(plain).unwrap_or_else(|_| stored(plain))
}

fn compress(plain: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let mut compressor = kept.take().map_or_else(|| Compressor::new(LEVEL), Ok)?;
        let packed = compressor.compress(plain)?;
        // After a fault it is not kept.
        *kept = Some(compressor);
        Ok(packed)
    })
}

/// `None` when it is not zstd or larger than any frame's events.
pub(super) fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    zstd::bulk::decompress(packed, LONGEST_PLAIN).ok()
}

/// A zstd frame of raw blocks (RFC 8878, 3.1.1): single segment, four bytes of content size from 256 bytes on.
fn stored(plain: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 128 << 10;
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd];
    match u8::try_from(plain.len()) {
        Ok(size) => out.extend_from_slice(&[0x20, size]),
        Err(_) => {
            out.push(0xa0);
            out.extend_from_slice(&(plain.len() as u32).to_le_bytes());
        }
    }
    let blocks = plain.len().div_ceil(BLOCK).max(1);
    for n in 1..=blocks {
        let block = plain.chunks(BLOCK).nth(n - 1).unwrap_or_default();
        let [a, b, c, _] = ((block.len() as u32) << 3 | u32::from(n == blocks)).to_le_bytes();
        out.extend_from_slice(&[a, b, c]);
        out.extend_from_slice(block);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back() {
        for size in [0, 1, 63, 64, 255, 256, 257, 128 << 10, (128 << 10) + 1, 500 << 10] {
            let plain: Vec<u8> = (0..size as u64).map(|n| ((n * n) >> 3) as u8).collect();
            assert_eq!(unpack(&pack(&plain)).unwrap(), plain, "{size}");
            assert_eq!(unpack(&stored(&plain)).unwrap(), plain, "{size}");
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        assert!(unpack(&zstd::bulk::compress(&vec![0; LONGEST_PLAIN + 1], 3).unwrap()).is_none());
    }
}
