//! Distinguished names, printed as OpenSSL prints them, and compared as it compares them.
//!
//! - [`oneline`] gives `/C=US/O=Acme/CN=name` (`X509_NAME_oneline`; `$ssl_client_s_dn_legacy`)
//! - [`rfc2253`] gives `CN=name,O=Acme,C=US` (`XN_FLAG_RFC2253`; `$ssl_client_s_dn`)

use std::fmt::Write;

use super::der::{Der, Element, OID, SEQUENCE, SET};

/// `/C=US/O=Acme/CN=name`; empty for what is not a name.
pub fn oneline(name: &[u8]) -> String {
    let mut out = String::new();
    for set in sets(name).unwrap_or_default() {
        for (i, attribute) in set.iter().enumerate() {
            out.push(if i == 0 { '/' } else { '+' });
            out.push_str(&attribute.label());
            out.push('=');
            for byte in attribute.value.value {
                match byte {
                    b'/' | b'+' => write!(out, "\\{}", char::from(*byte)),
                    b' '..=b'~' => write!(out, "{}", char::from(*byte)),
                    _ => write!(out, "\\x{byte:02X}"),
                }
                .expect("writing to a string");
            }
        }
    }
    out
}

/// `CN=name,O=Acme,C=US`.
pub fn rfc2253(name: &[u8]) -> String {
    let mut out = String::new();
    for set in sets(name).unwrap_or_default().iter().rev() {
        for (i, attribute) in set.iter().rev().enumerate() {
            if !out.is_empty() {
                out.push(if i == 0 { ',' } else { '+' });
            }
            out.push_str(&attribute.label());
            out.push('=');
            attribute.write_rfc2253(&mut out);
        }
    }
    out
}

/// The form in which OpenSSL compares names: letter case, runs of spaces and the string type do
/// not matter. `None` for what is not a name.
pub fn canonical(name: &[u8]) -> Option<Box<[u8]>> {
    let mut out = Vec::with_capacity(name.len());
    for set in sets(name)? {
        out.push(u8::try_from(set.len()).ok()?);
        for attribute in set {
            out.push(u8::try_from(attribute.oid.len()).ok()?);
            out.extend_from_slice(attribute.oid);
            let value = attribute.canonical_value();
            out.extend(u32::try_from(value.len()).ok()?.to_be_bytes());
            out.extend(value);
        }
    }
    Some(out.into())
}

/// The values of all commonName attributes, as UTF-8.
pub fn common_names(name: &[u8]) -> Vec<String> {
    let all = sets(name).unwrap_or_default().into_iter().flatten();
    all.filter(|a| a.oid == COMMON_NAME).filter_map(|a| a.text()).collect()
}

const COMMON_NAME: &[u8] = &[0x55, 4, 3];

const UTF8: u8 = 0x0c;
const T61: u8 = 0x14;
const UNIVERSAL: u8 = 0x1c;
const BMP: u8 = 0x1e;

/// One `type=value` of a name.
#[derive(Clone, Copy, Debug)]
struct Attribute<'a> {
    oid: &'a [u8],
    value: Element<'a>,
}

/// Most attributes of one name; nobody has more than a dozen.
const ATTRIBUTES_MAX: usize = 255;

fn sets(name: &[u8]) -> Option<Vec<Vec<Attribute<'_>>>> {
    let (mut whole, mut sets, mut count) = (Der(name).sequence()?, Vec::new(), 0);
    while !whole.is_empty() {
        let (mut set, mut attributes) = (Der(whole.value(SET)?), Vec::new());
        while !set.is_empty() {
            let mut pair = Der(set.value(SEQUENCE)?);
            attributes.push(Attribute { oid: pair.value(OID)?, value: pair.any()? });
            count += 1;
            if count > ATTRIBUTES_MAX {
                return None;
            }
        }
        sets.push(attributes);
    }
    Some(sets)
}

impl Attribute<'_> {
    fn label(&self) -> String {
        let known = ATTRIBUTE_NAMES.iter().find(|(oid, _)| *oid == self.oid);
        known.map_or_else(|| dotted(self.oid), |(_, name)| (*name).to_owned())
    }

    /// The value as text, `None` for types that are no strings.
    fn text(&self) -> Option<String> {
        let bytes = self.value.value;
        match self.value.tag {
            UTF8 => String::from_utf8(bytes.to_vec()).ok(),
            // PrintableString, NumericString, IA5String, VisibleString are ASCII; T61String is
            // taken for Latin-1, as OpenSSL does.
            0x12 | 0x13 | T61 | 0x16 | 0x1a => Some(bytes.iter().map(|b| char::from(*b)).collect()),
            BMP => {
                let units = bytes.chunks_exact(2).map(|p| u16::from_be_bytes([p[0], p[1]]));
                char::decode_utf16(units).collect::<Result<_, _>>().ok()
            }
            UNIVERSAL => {
                let codes =
                    bytes.chunks_exact(4).map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]]));
                codes.map(char::from_u32).collect()
            }
            _ => None,
        }
    }

    fn canonical_value(&self) -> Vec<u8> {
        let Some(text) = self.text() else { return self.value.raw.to_vec() };
        let words: Vec<&str> =
            text.split([' ', '\t', '\n', '\r']).filter(|w| !w.is_empty()).collect();
        words.join(" ").to_ascii_lowercase().into_bytes()
    }

    /// Unknown attributes and values that are no strings are dumped as `#` and hexadecimal DER.
    fn write_rfc2253(&self, out: &mut String) {
        let is_known = ATTRIBUTE_NAMES.iter().any(|(oid, _)| *oid == self.oid);
        let Some(text) = self.text().filter(|_| is_known) else {
            out.push('#');
            for byte in self.value.raw {
                write!(out, "{byte:02X}").expect("writing to a string");
            }
            return;
        };
        let last = text.len().saturating_sub(1);
        for (at, c) in text.char_indices() {
            match c {
                ',' | '+' | '"' | '\\' | '<' | '>' | ';' => write!(out, "\\{c}"),
                ' ' if at == 0 || at == last => write!(out, "\\{c}"),
                '#' if at == 0 => write!(out, "\\{c}"),
                ' '..='~' => write!(out, "{c}"),
                _ => {
                    let mut buffer = [0; 4];
                    for byte in c.encode_utf8(&mut buffer).bytes() {
                        write!(out, "\\{byte:02X}").expect("writing to a string");
                    }
                    Ok(())
                }
            }
            .expect("writing to a string");
        }
    }
}

fn dotted(oid: &[u8]) -> String {
    let (mut out, mut arc, mut is_first) = (String::new(), 0_u64, true);
    for byte in oid {
        arc = arc.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if is_first {
            let top = (arc / 40).min(2);
            write!(out, "{top}.{}", arc - top * 40).expect("writing to a string");
            is_first = false;
        } else {
            write!(out, ".{arc}").expect("writing to a string");
        }
        arc = 0;
    }
    out
}

/// OpenSSL's short names of attribute types.
#[rustfmt::skip]
const ATTRIBUTE_NAMES: &[(&[u8], &str)] = &[
    (&[0x55, 4, 3], "CN"), (&[0x55, 4, 4], "SN"), (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"), (&[0x55, 4, 7], "L"), (&[0x55, 4, 8], "ST"), (&[0x55, 4, 9], "street"),
    (&[0x55, 4, 10], "O"), (&[0x55, 4, 11], "OU"), (&[0x55, 4, 12], "title"),
    (&[0x55, 4, 13], "description"), (&[0x55, 4, 15], "businessCategory"),
    (&[0x55, 4, 16], "postalAddress"), (&[0x55, 4, 17], "postalCode"),
    (&[0x55, 4, 18], "postOfficeBox"), (&[0x55, 4, 20], "telephoneNumber"),
    (&[0x55, 4, 41], "name"), (&[0x55, 4, 42], "GN"), (&[0x55, 4, 43], "initials"),
    (&[0x55, 4, 44], "generationQualifier"), (&[0x55, 4, 45], "x500UniqueIdentifier"),
    (&[0x55, 4, 46], "dnQualifier"), (&[0x55, 4, 65], "pseudonym"), (&[0x55, 4, 72], "role"),
    (&[0x55, 4, 97], "organizationIdentifier"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 3], "mail"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 2], "unstructuredName"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 8], "unstructuredAddress"),
    (&[0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x3c, 2, 1, 1], "jurisdictionL"),
    (&[0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x3c, 2, 1, 2], "jurisdictionST"),
    (&[0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x3c, 2, 1, 3], "jurisdictionC"),
];

#[cfg(test)]
mod tests {
    use super::super::x509::Cert;
    use super::*;
    use std::process::Command;

    fn attribute(oid: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
        let wrap = |tag: u8, parts: &[&[u8]]| {
            let body = parts.concat();
            [&[tag, u8::try_from(body.len()).unwrap()], &body[..]].concat()
        };
        let pair = wrap(SEQUENCE, &[&wrap(OID, &[oid]), &wrap(tag, &[value])]);
        wrap(SET, &[&pair])
    }

    fn name(sets: &[Vec<u8>]) -> Vec<u8> {
        let body = sets.concat();
        [&[SEQUENCE, u8::try_from(body.len()).unwrap()], &body[..]].concat()
    }

    #[test]
    fn the_two_printed_forms() {
        let dn =
            name(&[attribute(&[0x55, 4, 6], 0x13, b"US"), attribute(COMMON_NAME, UTF8, b"a,b/c")]);
        assert_eq!(oneline(&dn), "/C=US/CN=a,b\\/c");
        assert_eq!(rfc2253(&dn), "CN=a\\,b/c,C=US");
        let odd =
            name(&[attribute(&[0x2a, 3, 4], UTF8, b"x"), attribute(COMMON_NAME, BMP, &[0, 0xe4])]);
        assert_eq!(oneline(&odd), "/1.2.3.4=x/CN=\\x00\\xE4");
        assert_eq!(rfc2253(&odd), "CN=\\C3\\A4,1.2.3.4=#0C0178");
        assert_eq!((oneline(b"junk"), rfc2253(&[])), (String::new(), String::new()));
    }

    #[test]
    fn names_compare_as_in_openssl() {
        let a = name(&[attribute(COMMON_NAME, UTF8, b"  Acme   Co ")]);
        let b = name(&[attribute(COMMON_NAME, 0x13, b"acme co")]);
        let c = name(&[attribute(COMMON_NAME, 0x13, b"acmeco")]);
        assert_eq!(canonical(&a), canonical(&b));
        assert_ne!(canonical(&a), canonical(&c));
        assert_eq!(canonical(&[0x30, 2, 5, 0]), None);
        assert_eq!(common_names(&a), ["  Acme   Co "]);
    }

    /// Subjects made by openssl, printed by openssl and by us.
    #[test]
    fn openssl_prints_them_alike() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        let text = rcgen::KeyPair::generate().unwrap().serialize_pem();
        std::fs::write(&key, text).unwrap();
        let subjects = [
            "/C=US/ST=Some, State/O=Acme Co/OU=+first/CN=n\u{e4}me",
            "/CN=#hash/O= lead and trail /serialNumber=12/emailAddress=a@b.c",
            "/DC=com/DC=example/UID=u1+CN=multi/O=<x>;\"y\"",
        ];
        for subject in subjects {
            let mut req = Command::new("openssl");
            req.args(["req", "-x509", "-new", "-utf8", "-subj", subject, "-key"]).arg(&key);
            let Ok(cert) = req.output() else { return };
            assert!(cert.status.success(), "{}", String::from_utf8_lossy(&cert.stderr));
            let pem = dir.path().join("crt");
            std::fs::write(&pem, &cert.stdout).unwrap();
            let print = |form: &str| {
                let args = ["x509", "-noout", "-subject", "-nameopt", form, "-in"];
                let out = Command::new("openssl").args(args).arg(&pem).output().unwrap();
                let text = String::from_utf8(out.stdout).unwrap();
                text.strip_prefix("subject=").unwrap().trim_end_matches('\n').to_owned()
            };
            let der = &super::super::pem::blocks(&cert.stdout).unwrap()[0].der;
            let cert = Cert::parse(der).unwrap();
            assert_eq!(oneline(cert.subject_der()), print("compat"), "{subject}");
            assert_eq!(rfc2253(cert.subject_der()), print("RFC2253"), "{subject}");
        }
    }
}
