//! Fingerprints of clients, from what their ClientHello offers and in which order.
//!
//! - JA3: legacy version, ciphers, extensions, groups and point formats as decimal numbers; the
//!   hash is MD5 (github.com/salesforce/ja3).
//! - JA4: a readable head, then truncated SHA-256 of the sorted ciphers and of the sorted
//!   extensions with the signature algorithms (github.com/FoxIO-LLC/ja4, the TLS client part).
//!
//! GREASE values are left out of both, as both definitions say.

use std::fmt::Write;

use md5::Md5;
use sha2::{Digest, Sha256};

use super::client_hello::{ClientHello, extension, is_grease};

/// What a fingerprint needs of a hello, in a tenth of its size: kept for the connection's life,
/// so that fingerprints cost nothing unless a variable asks for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traits {
    version: u16,
    /// Ciphers, extensions, groups, signature algorithms, versions: one list after the other.
    codes: Box<[u16]>,
    /// Where each list of `codes` but the last ends.
    ends: [u16; 4],
    point_formats: Box<[u8]>,
    /// The client's first ALPN protocol.
    first_alpn: Box<[u8]>,
}

impl Traits {
    pub fn of(hello: &ClientHello<'_>) -> Self {
        let mut codes: Vec<u16> = Vec::with_capacity(96);
        let end = |codes: &Vec<u16>| u16::try_from(codes.len()).unwrap_or(u16::MAX);
        codes.extend(hello.ciphers.iter());
        let ciphers = end(&codes);
        codes.extend(hello.extensions().map(|(kind, _)| kind));
        let extensions = end(&codes);
        codes.extend(hello.groups.iter());
        let groups = end(&codes);
        codes.extend(hello.signature_algorithms.iter());
        let ends = [ciphers, extensions, groups, end(&codes)];
        codes.extend(hello.versions.iter());
        Self {
            version: hello.version,
            codes: codes.into_boxed_slice(),
            ends,
            point_formats: hello.point_formats.into(),
            first_alpn: hello.alpn.iter().next().unwrap_or_default().into(),
        }
    }

    /// Cipher suites in the client's order, GREASE included.
    pub fn ciphers(&self) -> &[u16] {
        &self.codes[..self.end(0)]
    }

    /// Extension numbers in wire order, GREASE included.
    pub fn extensions(&self) -> &[u16] {
        &self.codes[self.end(0)..self.end(1)]
    }

    /// Groups (curves) in the client's order, GREASE included.
    pub fn groups(&self) -> &[u16] {
        &self.codes[self.end(1)..self.end(2)]
    }

    /// Signature algorithms in the client's order.
    pub fn signature_algorithms(&self) -> &[u16] {
        &self.codes[self.end(2)..self.end(3)]
    }

    /// The versions of `supported_versions`.
    pub fn versions(&self) -> &[u16] {
        &self.codes[self.end(3)..]
    }

    fn end(&self, list: usize) -> usize {
        usize::from(self.ends[list])
    }

    /// `771,4865-4866,0-23-65281,29-23,0`.
    pub fn ja3(&self) -> String {
        let mut out = self.version.to_string();
        for list in [self.ciphers(), self.extensions(), self.groups()] {
            out.push(',');
            join_decimal(&mut out, without_grease(list));
        }
        out.push(',');
        join_decimal(&mut out, self.point_formats.iter().map(|f| u16::from(*f)));
        out
    }

    /// MD5 of [`Traits::ja3`], 32 hexadecimal digits.
    pub fn ja3_hash(&self) -> String {
        hex(&Md5::digest(self.ja3().as_bytes()))
    }

    /// `t13d1516h2_8daaf6152771_e5627efa2ab1`.
    pub fn ja4(&self) -> String {
        let (ciphers, extensions) = (self.ja4_ciphers(), self.ja4_extensions());
        format!("{}_{}_{}", self.ja4_head(), hash12(&ciphers), hash12(&extensions))
    }

    /// JA4 before hashing (`JA4_r`).
    pub fn ja4_raw(&self) -> String {
        format!("{}_{}_{}", self.ja4_head(), self.ja4_ciphers(), self.ja4_extensions())
    }

    fn ja4_head(&self) -> String {
        let sni = if self.extensions().contains(&extension::SERVER_NAME) { 'd' } else { 'i' };
        let count = |list: &[u16]| without_grease(list).count().min(99);
        let (first, last) = alpn_ends(&self.first_alpn);
        format!(
            "t{}{sni}{:02}{:02}{first}{last}",
            self.ja4_version(),
            count(self.ciphers()),
            count(self.extensions()),
        )
    }

    fn ja4_version(&self) -> &'static str {
        match without_grease(self.versions()).max().unwrap_or(self.version) {
            0x0304 => "13",
            0x0303 => "12",
            0x0302 => "11",
            0x0301 => "10",
            0x0300 => "s3",
            0x0002 => "s2",
            _ => "00",
        }
    }

    fn ja4_ciphers(&self) -> String {
        let mut ciphers: Vec<u16> = without_grease(self.ciphers()).collect();
        ciphers.sort_unstable();
        join_hex(&ciphers)
    }

    /// SNI and ALPN are in the head already, so they are left out here.
    fn ja4_extensions(&self) -> String {
        let mut extensions: Vec<u16> = without_grease(self.extensions())
            .filter(|kind| ![extension::SERVER_NAME, extension::ALPN].contains(kind))
            .collect();
        extensions.sort_unstable();
        let mut out = join_hex(&extensions);
        let schemes: Vec<u16> = without_grease(self.signature_algorithms()).collect();
        if !schemes.is_empty() {
            out.push('_');
            out.push_str(&join_hex(&schemes));
        }
        out
    }
}

/// First and last character of the first ALPN protocol; of its hexadecimal form where either is
/// not a letter or digit; `00` without ALPN.
fn alpn_ends(protocol: &[u8]) -> (char, char) {
    let (Some(&first), Some(&last)) = (protocol.first(), protocol.last()) else {
        return ('0', '0');
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return (char::from(first), char::from(last));
    }
    (hex_digit(first >> 4), hex_digit(last & 15))
}

fn without_grease(list: &[u16]) -> impl Iterator<Item = u16> + '_ {
    list.iter().copied().filter(|code| !is_grease(*code))
}

fn join_decimal(out: &mut String, codes: impl Iterator<Item = u16>) {
    for (i, code) in codes.enumerate() {
        let dash = if i == 0 { "" } else { "-" };
        write!(out, "{dash}{code}").expect("writing to a string");
    }
}

fn join_hex(codes: &[u16]) -> String {
    let mut out = String::with_capacity(codes.len() * 5);
    for (i, code) in codes.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(out, "{comma}{code:04x}").expect("writing to a string");
    }
    out
}

fn hash12(text: &str) -> String {
    if text.is_empty() {
        return "000000000000".into();
    }
    hex(&Sha256::digest(text.as_bytes())[..6])
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|b| [hex_digit(b >> 4), hex_digit(b & 15)]).collect()
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).expect("a nibble")
}

#[cfg(test)]
mod tests {
    use super::super::client_hello::HelloReader;
    use super::super::client_hello::tests::{list16, message, sni};
    use super::*;

    fn traits(version: u16, ciphers: &[u16], extensions: &[(u16, Vec<u8>)]) -> Traits {
        Traits::of(&ClientHello::parse(&message(version, ciphers, extensions)).unwrap())
    }

    /// The two examples of the JA3 page.
    #[test]
    fn ja3_of_the_published_examples() {
        let ciphers = [47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4];
        let extensions = [sni("a.example"), (10, list16(&[23, 24, 25])), (11, vec![1, 0])];
        let t = traits(769, &ciphers, &extensions);
        let text = "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0";
        assert_eq!(t.ja3(), text);
        assert_eq!(t.ja3_hash(), "ada70206e40642a3e4461f35503241d5");
        let t = traits(769, &[4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99], &[]);
        assert_eq!(t.ja3(), "769,4-5-10-9-100-98-3-6-19-18-99,,,");
        assert_eq!(t.ja3_hash(), "de350869b8c85de67a350c8d186f11e6");
    }

    /// Chrome's hello as the JA4 pages describe it, with GREASE in every list.
    fn chrome() -> Traits {
        let ciphers = [
            0x1a1a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013,
            0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
        ];
        let schemes = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];
        let mut extensions = vec![
            (0xfafa, vec![]),
            (16, b"\0\x0c\x02h2\x08http/1.1".to_vec()),
            sni("example.com"),
            (43, vec![6, 0xaa, 0xaa, 3, 4, 3, 3]),
            (13, list16(&schemes)),
            (10, list16(&[0xbaba, 29, 23, 24])),
            (11, vec![1, 0]),
        ];
        let plain = [0x05, 0x12, 0x15, 0x17, 0x1b, 0x23, 0x2d, 0x33, 0x4469, 0xff01, 0x3a3a];
        extensions.extend(plain.map(|kind| (kind, vec![])));
        traits(0x0303, &ciphers, &extensions)
    }

    #[test]
    fn ja4_of_the_published_example() {
        assert_eq!(chrome().ja4(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
        assert_eq!(
            chrome().ja4_raw(),
            "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9\
             _0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01\
             _0403,0804,0401,0503,0805,0501,0806,0601"
        );
        assert!(!chrome().ja3().contains("6682"), "GREASE is left out of JA3");
    }

    #[test]
    fn real_clients_as_another_implementation_sees_them() {
        let lines = include_str!("hellos.txt").lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            let [client, ja3, ja4, bytes] = line.split('|').collect::<Vec<_>>().try_into().unwrap();
            let nibble = |c: u8| u8::try_from(char::from(c).to_digit(16).unwrap()).unwrap();
            let pairs = bytes.as_bytes().chunks(2);
            let record: Vec<u8> = pairs.map(|p| nibble(p[0]) << 4 | nibble(p[1])).collect();
            let mut reader = HelloReader::default();
            assert_eq!(reader.advance(&record), Ok(true), "{client}");
            let t = Traits::of(&reader.hello(&record).unwrap());
            assert_eq!((t.ja3_hash().as_str(), t.ja4().as_str()), (ja3, ja4), "{client}");
        }
    }

    #[test]
    fn ja4_of_bare_hellos() {
        assert_eq!(traits(0x0303, &[], &[]).ja4(), "t12i000000_000000000000_000000000000");
        let only_sni = traits(0x0301, &[0x2f], &[sni("x.example")]);
        assert!(only_sni.ja4().starts_with("t10d010100_"));
        assert!(only_sni.ja4().ends_with("_000000000000"));
        assert_eq!(only_sni.ja4_raw(), "t10d010100_002f_");
    }

    #[test]
    fn alpn_characters_as_the_definition_has_them() {
        let cases: [(&[u8], (char, char)); 8] = [
            (b"", ('0', '0')),
            (b"h2", ('h', '2')),
            (b"http/1.1", ('h', '1')),
            (b"h", ('h', 'h')),
            (&[0xab], ('a', 'b')),
            (&[0xab, 0xcd], ('a', 'd')),
            (&[0x30, 0xab], ('3', 'b')),
            (&[0x30, 0xab, 0xcd, 0x31], ('0', '1')),
        ];
        for (protocol, ends) in cases {
            assert_eq!(alpn_ends(protocol), ends, "{protocol:x?}");
        }
    }

    #[test]
    fn counts_stop_at_99() {
        let ciphers: Vec<u16> = (1..=150).collect();
        assert!(traits(0x0303, &ciphers, &[]).ja4().starts_with("t12i990000_"));
    }

    #[test]
    fn the_lists_keep_their_borders() {
        let t = chrome();
        assert_eq!(t.ciphers().len(), 16);
        assert_eq!(t.extensions().len(), 18);
        assert_eq!(t.groups(), [0xbaba, 29, 23, 24]);
        assert_eq!(t.signature_algorithms().len(), 8);
        assert_eq!(t.versions(), [0xaaaa, 0x0304, 0x0303]);
    }
}
