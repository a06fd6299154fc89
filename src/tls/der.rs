//! Cutting DER: just enough to slice certificates and keys into the pieces that others parse.
//!
//! Lengths are claims of whoever wrote the file or sent the certificate; what does not fit is
//! `None`, never a panic. ITU-T X.690 section 8.1; only the low tag form and definite lengths.

pub const BOOLEAN: u8 = 0x01;
pub const INTEGER: u8 = 0x02;
pub const BIT_STRING: u8 = 0x03;
pub const OCTET_STRING: u8 = 0x04;
pub const OID: u8 = 0x06;
pub const SEQUENCE: u8 = 0x30;
pub const SET: u8 = 0x31;

/// Takes elements off the front of a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Der<'a>(pub &'a [u8]);

/// One element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    pub tag: u8,
    /// Contents, without tag and length.
    pub value: &'a [u8],
    /// The whole encoding.
    pub raw: &'a [u8],
}

impl<'a> Der<'a> {
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The next element, whatever it is.
    pub fn any(&mut self) -> Option<Element<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (digits.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (value, after) = rest.split_at_checked(len)?;
        let raw = &self.0[..self.0.len() - after.len()];
        self.0 = after;
        (tag & 0x1f != 0x1f).then_some(Element { tag, value, raw })
    }

    /// The next element, if it has this tag; otherwise nothing is taken.
    pub fn maybe(&mut self, tag: u8) -> Option<Element<'a>> {
        let before = *self;
        let element = self.any().filter(|e| e.tag == tag);
        if element.is_none() {
            *self = before;
        }
        element
    }

    /// The contents of the next element, which must have this tag.
    pub fn value(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.maybe(tag).map(|e| e.value)
    }

    /// The elements of the next sequence.
    pub fn sequence(&mut self) -> Option<Der<'a>> {
        self.value(SEQUENCE).map(Der)
    }

    /// A non-negative integer that fits 32 bits.
    pub fn small_integer(&mut self) -> Option<u32> {
        let bytes = self.value(INTEGER)?;
        if bytes.is_empty() || bytes[0] & 0x80 != 0 || bytes.len() > 5 {
            return None;
        }
        let value = bytes.iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
        u32::try_from(value).ok()
    }

    /// A bit string of whole bytes.
    pub fn bits(&mut self) -> Option<&'a [u8]> {
        let (&unused, bytes) = self.value(BIT_STRING)?.split_first()?;
        (unused == 0).then_some(bytes)
    }
}

/// Object identifiers, contents only.
pub mod oid {
    pub const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
    pub const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];
    pub const HMAC_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x07];
    pub const HMAC_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x09];
    pub const HMAC_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x0a];
    pub const HMAC_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x0b];
    pub const AES_128_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x02];
    pub const AES_192_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x16];
    pub const AES_256_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn elements_are_cut_in_order() {
        let bytes = [0x30, 6, 2, 1, 5, 4, 1, 9, 0x0c, 0x81, 1, b'x'];
        let mut der = Der(&bytes);
        let mut inner = der.sequence().unwrap();
        assert_eq!(inner.value(OCTET_STRING), None, "nothing is taken on a mismatch");
        assert_eq!(inner.small_integer(), Some(5));
        assert_eq!(inner.value(OCTET_STRING), Some(&[9][..]));
        assert!(inner.is_empty());
        let text = der.any().unwrap();
        assert_eq!((text.tag, text.value, text.raw.len()), (0x0c, &b"x"[..], 4));
    }

    #[test]
    fn lengths_are_claims() {
        for bytes in [
            &[][..],
            &[0x30],
            &[0x30, 5, 1],
            &[0x30, 0x80],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x85, 0, 0, 0, 0, 1, 0],
            &[0x1f, 0],
        ] {
            assert_eq!(Der(bytes).any(), None, "{bytes:x?}");
        }
        assert_eq!(Der(&[2, 1, 0x80]).small_integer(), None);
        assert_eq!(Der(&[2, 5, 1, 0, 0, 0, 0]).small_integer(), None);
        assert_eq!(Der(&[2, 5, 0, 255, 255, 255, 255]).small_integer(), Some(u32::MAX));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut der = Der(&bytes);
            while der.any().is_some() {}
            let _ = Der(&bytes).bits();
            let _ = Der(&bytes).small_integer();
        }
    }
}
