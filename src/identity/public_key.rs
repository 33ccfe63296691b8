use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};

use super::options::shorten;

/// A kind of key that may prove a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    Ed25519,
    EcdsaP256,
    EcdsaP384,
    EcdsaP521,
    /// At least 2048 bits.
    Rsa,
    SkEd25519,
    SkEcdsaP256,
}

/// Why bytes are not a public key that may prove a user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    #[error("the key is not base64")]
    NotBase64,
    #[error("keys of type '{0}' are not accepted")]
    Type(String),
    #[error("the line says '{said}', but the key is of type '{found}'")]
    OtherType { said: &'static str, found: String },
    #[error("the key is cut short or damaged")]
    Damaged,
    #[error("the RSA key has {0} bits; 2048 to 16384 are accepted")]
    Bits(usize),
}

impl KeyKind {
    const ALL: [Self; 7] = [
        Self::Ed25519,
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::EcdsaP521,
        Self::Rsa,
        Self::SkEd25519,
        Self::SkEcdsaP256,
    ];

    /// As it stands in authorized_keys and in the key itself.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ssh-ed25519",
            Self::EcdsaP256 => "ecdsa-sha2-nistp256",
            Self::EcdsaP384 => "ecdsa-sha2-nistp384",
            Self::EcdsaP521 => "ecdsa-sha2-nistp521",
            Self::Rsa => "ssh-rsa",
            Self::SkEd25519 => "sk-ssh-ed25519@openssh.com",
            Self::SkEcdsaP256 => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The kind of a key in wire form (RFC 4253 section 6.6), which must be whole, and in the one form it is compared in.
    pub fn of_blob(blob: &[u8]) -> Result<Self, BadKey> {
        let mut wire = Wire(blob);
        let name = String::from_utf8_lossy(wire.string()?).into_owned();
        let kind = Self::of_name(&name).ok_or_else(|| BadKey::Type(shorten(&name)))?;
        match kind {
            Self::Ed25519 => wire.exactly(32)?,
            Self::EcdsaP256 => wire.point(b"nistp256", 32)?,
            Self::EcdsaP384 => wire.point(b"nistp384", 48)?,
            Self::EcdsaP521 => wire.point(b"nistp521", 66)?,
            Self::Rsa => wire.rsa()?,
            Self::SkEd25519 => {
                wire.exactly(32)?;
                wire.application()?;
            }
            Self::SkEcdsaP256 => {
                wire.point(b"nistp256", 32)?;
                wire.application()?;
            }
        }
        if wire.0.is_empty() { Ok(kind) } else { Err(BadKey::Damaged) }
    }

    /// The key of a line: its type's name and its base64, which must agree.
    pub(super) fn decode(self, base64: &str) -> Result<Vec<u8>, BadKey> {
        let blob = STANDARD.decode(base64).map_err(|_| BadKey::NotBase64)?;
        match Self::of_blob(&blob)? {
            found if found == self => Ok(blob),
            found => Err(BadKey::OtherType { said: self.name(), found: found.name().to_owned() }),
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `SHA256:...`, as `ssh-keygen -l` prints it.
pub fn fingerprint(blob: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(blob)))
}

/// What is left of a key in wire form.
struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    fn string(&mut self) -> Result<&'a [u8], BadKey> {
        let (length, rest) = self.0.split_first_chunk::<4>().ok_or(BadKey::Damaged)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| BadKey::Damaged)?;
        let (string, rest) = rest.split_at_checked(length).ok_or(BadKey::Damaged)?;
        self.0 = rest;
        Ok(string)
    }

    fn exactly(&mut self, length: usize) -> Result<(), BadKey> {
        if self.string()?.len() == length { Ok(()) } else { Err(BadKey::Damaged) }
    }

    /// RFC 5656 section 3.1; uncompressed.
    fn point(&mut self, curve: &[u8], width: usize) -> Result<(), BadKey> {
        let (name, point) = (self.string()?, self.string()?);
        let good = name == curve && point.len() == 1 + 2 * width && point.first() == Some(&4);
        if good { Ok(()) } else { Err(BadKey::Damaged) }
    }

    fn rsa(&mut self) -> Result<(), BadKey> {
        let (exponent, modulus) = (self.positive()?, self.positive()?);
        let bits = modulus.len() * 8 - modulus.first().map_or(0, |b| b.leading_zeros() as usize);
        let odd = |number: &[u8]| number.last().is_some_and(|b| b & 1 == 1);
        if !odd(exponent) || exponent == [1] || !odd(modulus) {
            return Err(BadKey::Damaged);
        }
        if (2048..=16384).contains(&bits) { Ok(()) } else { Err(BadKey::Bits(bits)) }
    }

    /// A positive mpint without its sign byte, written in the shortest way (RFC 4251 section 5): keys are compared by
    /// their bytes, and one key must not have two forms.
    fn positive(&mut self) -> Result<&'a [u8], BadKey> {
        match self.string()? {
            [0, rest @ ..] if rest.first().is_some_and(|high| high & 0x80 != 0) => Ok(rest),
            whole @ [high, ..] if *high != 0 && high & 0x80 == 0 => Ok(whole),
            _ => Err(BadKey::Damaged),
        }
    }

    fn application(&mut self) -> Result<(), BadKey> {
        let name = self.string()?;
        if name.is_empty() || std::str::from_utf8(name).is_err() { Err(BadKey::Damaged) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(parts: &[&[u8]]) -> Vec<u8> {
        parts.iter().flat_map(|p| [&u32::try_from(p.len()).unwrap().to_be_bytes(), *p].concat()).collect()
    }

    #[test]
    fn one_key_of_each_kind() {
        let point = |width: usize| [&[4], vec![7; 2 * width].as_slice()].concat();
        let modulus = |bytes: usize| [&[0, 0x80], vec![1; bytes - 1].as_slice()].concat();
        let good: [(&[&[u8]], KeyKind); 7] = [
            (&[b"ssh-ed25519", &[1; 32]], KeyKind::Ed25519),
            (&[b"ecdsa-sha2-nistp256", b"nistp256", &point(32)], KeyKind::EcdsaP256),
            (&[b"ecdsa-sha2-nistp384", b"nistp384", &point(48)], KeyKind::EcdsaP384),
            (&[b"ecdsa-sha2-nistp521", b"nistp521", &point(66)], KeyKind::EcdsaP521),
            (&[b"ssh-rsa", &[1, 0, 1], &modulus(256)], KeyKind::Rsa),
            (&[b"sk-ssh-ed25519@openssh.com", &[1; 32], b"ssh:"], KeyKind::SkEd25519),
            (&[b"sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", &point(32), b"ssh:"], KeyKind::SkEcdsaP256),
        ];
        for (parts, kind) in good {
            let blob = wire(parts);
            assert_eq!(KeyKind::of_blob(&blob), Ok(kind));
            assert_eq!(KeyKind::of_name(kind.name()), Some(kind));
            for end in 0..blob.len() {
                assert!(KeyKind::of_blob(&blob[..end]).is_err(), "{kind} cut at {end}");
            }
            assert_eq!(KeyKind::of_blob(&[blob.as_slice(), &[0]].concat()), Err(BadKey::Damaged), "{kind} and a byte");
        }
        assert_eq!(KeyKind::of_blob(&wire(&[b"ssh-rsa", &[1, 0, 1], &modulus(128)])), Err(BadKey::Bits(1024)));
        assert_eq!(KeyKind::of_blob(&wire(&[b"ssh-dss", &[1]])), Err(BadKey::Type("ssh-dss".into())));
        // It is shown on terminals, and the client chose it.
        assert_eq!(KeyKind::of_blob(&wire(&[b"\x1b[2J"])), Err(BadKey::Type("\\u{1b}[2J".into())));
        let other = wire(&[b"ecdsa-sha2-nistp256", b"nistp384", &point(32)]);
        assert_eq!(KeyKind::of_blob(&other), Err(BadKey::Damaged));
    }

    #[test]
    fn a_number_in_two_forms_is_one_too_many() {
        let modulus = [&[0, 0x80], vec![1; 255].as_slice()].concat();
        for exponent in [&[0, 1, 0, 1][..], &[0x81, 1][..], &[][..], &[0][..], &[1][..], &[2][..]] {
            assert_eq!(
                KeyKind::of_blob(&wire(&[b"ssh-rsa", exponent, &modulus])),
                Err(BadKey::Damaged),
                "{exponent:?}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _ = KeyKind::of_blob(&bytes);
        }
    }
}
