//! Bytes written as letters and digits: hexadecimal, base64 and base32, and the way back.

use base64::Engine;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

/// The alphabet of base64; both forms are read leniently, as nginx does.
const BASE64: GeneralPurpose = lenient(&STANDARD);
const BASE64_URL: GeneralPurpose = lenient(&URL_SAFE);

const fn lenient(alphabet: &Alphabet) -> GeneralPurpose {
    GeneralPurpose::new(
        alphabet,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::Indifferent),
    )
}

/// Two lower-case digits a byte.
pub fn hex(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |b: &u8| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]];
    bytes.iter().flat_map(digits).collect()
}

/// The bytes of two digits each; `None` if it is anything else.
pub fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some(super::uri::hex(*high)? << 4 | super::uri::hex(*low)?);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

/// What base64 says, with or without padding: what stands behind a `=` is not read.
pub fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    BASE64.decode(before_padding(text)).ok()
}

/// As [`from_base64`], in the alphabet for URLs.
pub fn from_base64_url(text: &[u8]) -> Option<Vec<u8>> {
    BASE64_URL.decode(before_padding(text)).ok()
}

/// Base64 in the alphabet for URLs, without padding.
pub fn to_base64_url(bytes: &[u8]) -> String {
    BASE64_URL.encode(bytes).trim_end_matches('=').to_owned()
}

fn before_padding(text: &[u8]) -> &[u8] {
    text.split(|b| *b == b'=').next().unwrap_or(text)
}

/// Base32 in an alphabet of the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base32(pub [u8; 32]);

impl Base32 {
    /// The letters of `bytes`, filled up to a multiple of eight with `=` if `pads`.
    pub fn encode(&self, bytes: &[u8], pads: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len().div_ceil(5) * 8);
        for five in bytes.chunks(5) {
            let number = five
                .iter()
                .enumerate()
                .fold(0, |sum, (at, b)| sum | u64::from(*b) << (32 - 8 * at));
            let letters = (five.len() * 8).div_ceil(5);
            let letter = |at: usize| self.0[(number >> (35 - 5 * at)) as usize & 31];
            out.extend((0..letters).map(letter));
            if pads {
                out.resize(out.len().next_multiple_of(8), b'=');
            }
        }
        out
    }

    /// What the letters before any `=` say; `None` if one is not of the alphabet, or one is over.
    pub fn decode(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(text.len() / 8 * 5 + 5);
        for eight in before_padding(text).chunks(8) {
            if matches!(eight.len(), 1 | 3 | 6) {
                return None;
            }
            let mut number = 0;
            for (at, letter) in eight.iter().enumerate() {
                let digit = self.0.iter().rposition(|known| known == letter)?;
                number |= (digit as u64) << (35 - 5 * at);
            }
            out.extend_from_slice(&number.to_be_bytes()[3..3 + eight.len() * 5 / 8]);
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX32: Base32 = Base32(*b"0123456789abcdefghijklmnopqrstuv");

    #[test]
    fn digits_are_written_and_read() {
        assert_eq!(hex(b"\x00az\xff"), b"00617aff");
        assert_eq!(from_hex(b"00617AfF").unwrap(), b"\x00az\xff");
        assert!(from_hex(b"0").is_none() && from_hex(b"0g").is_none());
        for (text, says) in [("YWI=", "ab"), ("YWI", "ab"), ("YWI=!", "ab"), ("YWJ=", "ab")] {
            assert_eq!(from_base64(text.as_bytes()).unwrap(), says.as_bytes());
        }
        assert!(from_base64(b"Y").is_none() && from_base64(b"Y W").is_none());
        assert_eq!(from_base64_url(b"P2I-PGQ_").unwrap(), b"?b><d?");
        assert!(from_base64_url(b"P2I+").is_none());
    }

    #[test]
    fn base32_is_written_and_read() {
        for (bytes, padded) in [
            ("", ""),
            ("!", "44======"),
            ("abcde", "c5h66p35"),
            ("ab", "c5h0===="),
            ("abc", "c5h66==="),
            ("abcd", "c5h66p0="),
        ] {
            assert_eq!(HEX32.encode(bytes.as_bytes(), true), padded.as_bytes());
            let bare = HEX32.encode(bytes.as_bytes(), false);
            assert_eq!(bare, padded.trim_end_matches('=').as_bytes());
        }
        assert!(
            ["4", "444", "444444", "4w", "W4"]
                .iter()
                .all(|bad| HEX32.decode(bad.as_bytes()).is_none())
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_can_be_read(bytes: Vec<u8>, pads: bool) {
            prop_assert_eq!(HEX32.decode(&HEX32.encode(&bytes, pads)).unwrap(), bytes.clone());
            prop_assert_eq!(from_hex(&hex(&bytes)).unwrap(), bytes.clone());
            let _ = (HEX32.decode(&bytes), from_base64(&bytes), from_hex(&bytes));
        }
    }
}
