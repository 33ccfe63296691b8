//! Blocks of headers as SPDY/3 packs them: one zlib stream for all blocks of a direction, primed with a dictionary.

use flate2::{Decompress, FlushDecompress, Status};

use super::wire::Garbled;

/// The longest block, unpacked.
const LONGEST: usize = 16 << 10;

const MOST_HEADERS: u32 = 64;

/// Each with its length before it, the dictionary begins with these.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";

/// And ends with these, as they are.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
    Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,\
    publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// The dictionary's Adler-32, by which a zlib stream names it.
const ADLER: u32 = 0xe3c6_a7c2;

/// Names and values.
pub(super) type Headers = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Debug)]
pub(super) struct Inflate {
    begun: bool,
    state: Option<Decompress>,
}

impl Inflate {
    pub(super) fn new() -> Self {
        Self { begun: false, state: None }
    }

    /// The next block. It must hold its headers exactly: what is left over in a peer's decompressor would there be the
    /// beginning of the next block.
    pub(super) fn headers(&mut self, block: &[u8]) -> Result<Headers, Garbled> {
        let block = if self.begun { block } else { self.begin(block)? };
        let state = self.state.as_mut().ok_or(Garbled("headers that cannot be unpacked"))?;
        parse(&inflate(state, block)?).ok_or(Garbled("a block of headers that is none"))
    }

    /// Reads zlib's own head and primes the decompressor.
    fn begin<'b>(&mut self, block: &'b [u8]) -> Result<&'b [u8], Garbled> {
        let Some((&[method, flags, a, b, c, d], rest)) = block.split_first_chunk() else {
            return Err(Garbled("headers without zlib's head"));
        };
        let sound = method & 0x0f == 8 && method >> 4 <= 7 && u16::from_be_bytes([method, flags]) % 31 == 0;
        if !sound || flags & 0x20 == 0 || u32::from_be_bytes([a, b, c, d]) != ADLER {
            return Err(Garbled("headers packed without SPDY's dictionary"));
        }
        self.begun = true;
        self.state = Some(primed()?);
        Ok(rest)
    }
}

/// A raw decompressor whose window holds the dictionary: it has unpacked a stored block of it.
fn primed() -> Result<Decompress, Garbled> {
    let dictionary = dictionary();
    let length = u16::try_from(dictionary.len()).unwrap_or_default();
    let mut stored = vec![0];
    stored.extend(length.to_le_bytes());
    stored.extend((!length).to_le_bytes());
    stored.extend(&dictionary);
    let mut state = Decompress::new(false);
    let out = inflate(&mut state, &stored)?;
    if out == dictionary { Ok(state) } else { Err(Garbled("headers that cannot be unpacked")) }
}

fn dictionary() -> Vec<u8> {
    let mut dictionary = Vec::new();
    for word in WORDS.split(' ') {
        dictionary.extend((word.len() as u32).to_be_bytes());
        dictionary.extend(word.replace('_', " ").bytes());
    }
    dictionary.extend(TAIL.bytes());
    dictionary
}

fn inflate(state: &mut Decompress, mut packed: &[u8]) -> Result<Vec<u8>, Garbled> {
    let mut out = Vec::new();
    loop {
        out.reserve(1024);
        let (read, written) = (state.total_in(), state.total_out());
        let status = state.decompress_vec(packed, &mut out, FlushDecompress::Sync);
        let status = status.map_err(|_| Garbled("headers that cannot be unpacked"))?;
        let read = usize::try_from(state.total_in() - read).unwrap_or(usize::MAX);
        packed = packed.get(read..).unwrap_or_default();
        if status == Status::StreamEnd {
            return Err(Garbled("headers whose packing ends"));
        }
        if out.len() > LONGEST {
            return Err(Garbled("headers longer than any"));
        }
        if read == 0 && state.total_out() == written {
            return if packed.is_empty() { Ok(out) } else { Err(Garbled("headers that cannot be unpacked")) };
        }
    }
}

/// A count, then names and values, each with its length before it.
fn parse(mut block: &[u8]) -> Option<Headers> {
    let count = number(&mut block)?;
    if count > MOST_HEADERS {
        return None;
    }
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = text(&mut block)?;
        let value = text(&mut block)?;
        if name.is_empty() || name.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        headers.push((name, value));
    }
    block.is_empty().then_some(headers)
}

fn number(block: &mut &[u8]) -> Option<u32> {
    let (number, rest) = block.split_first_chunk()?;
    *block = rest;
    Some(u32::from_be_bytes(*number))
}

fn text(block: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(number(block)?).ok()?;
    let (text, rest) = block.split_at_checked(length)?;
    *block = rest;
    Some(text.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_one_of_spdy() {
        let (mut a, mut b) = (1u32, 0u32);
        for byte in dictionary() {
            a = (a + u32::from(byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((dictionary().len(), b << 16 | a), (1423, ADLER));
    }
}
