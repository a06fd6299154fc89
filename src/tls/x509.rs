//! A certificate, with the facts that path validation asks for.
//!
//! x509-parser reads it; the facts are kept owned, so that certificates can live in trust stores
//! and in connections. Unlike webpki it takes what OpenSSL takes: X.509 v1, no subjectAltName.
//! Peers' certificates are hostile input: what cannot be parsed is `None`.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use rustls::SignatureScheme;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::AlgorithmIdentifier;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer;

use super::der::{self, Der, INTEGER, SEQUENCE};
use super::dn;

/// Key usage bits (RFC 5280 section 4.2.1.3), numbered as x509-parser does.
pub mod key_usage {
    pub const DIGITAL_SIGNATURE: u16 = 1;
    pub const KEY_ENCIPHERMENT: u16 = 1 << 2;
    pub const KEY_AGREEMENT: u16 = 1 << 4;
    pub const KEY_CERT_SIGN: u16 = 1 << 5;
    pub const CRL_SIGN: u16 = 1 << 6;
}

#[derive(Debug)]
pub struct Cert {
    der: Arc<[u8]>,
    pieces: Pieces,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    pub is_v1: bool,
    /// Names brought to OpenSSL's canonical form: case, spaces and string types do not matter.
    pub subject: Box<[u8]>,
    pub issuer: Box<[u8]>,
    pub extensions: Extensions,
}

/// What the extensions say.
#[derive(Debug, Default)]
pub struct Extensions {
    pub basic_constraints: Option<BasicConstraints>,
    pub key_usage: Option<u16>,
    pub purposes: Option<Purposes>,
    pub subject_key_id: Option<Box<[u8]>>,
    pub authority_key_id: Option<Box<[u8]>>,
    pub authority_serial: Option<Box<[u8]>>,
    pub names: Vec<Name>,
    pub has_alternative_names: bool,
    pub permitted: Vec<Name>,
    pub excluded: Vec<Name>,
    /// Encoded names of the CRL distribution points.
    pub crl_points: Vec<Box<[u8]>>,
    /// A critical extension that is not understood.
    pub unhandled_critical: bool,
    /// An extension that is broken or stands there twice.
    pub invalid: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct BasicConstraints {
    pub is_ca: bool,
    pub path_len: Option<u32>,
}

/// Extended key usage.
#[derive(Clone, Copy, Debug)]
pub struct Purposes {
    pub client: bool,
    pub server: bool,
}

/// A name of subjectAltName or of the name constraints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    Dns(Box<str>),
    Email(Box<str>),
    Uri(Box<str>),
    /// An address; with its mask behind it in constraints.
    Ip(Box<[u8]>),
    /// Canonical form.
    Directory(Box<[u8]>),
    Other,
}

impl Cert {
    pub fn parse(der: &[u8]) -> Option<Self> {
        let pieces = Pieces::cut(der)?;
        let (rest, parsed) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        Some(Self {
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            is_v1: parsed.version().0 == 0,
            subject: dn::canonical(&der[pieces.subject.clone()])?,
            issuer: dn::canonical(&der[pieces.issuer.clone()])?,
            extensions: Extensions::of(parsed.extensions()),
            pieces,
            der: der.into(),
        })
    }

    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The distinguished name as encoded.
    pub fn subject_der(&self) -> &[u8] {
        &self.der[self.pieces.subject.clone()]
    }

    pub fn issuer_der(&self) -> &[u8] {
        &self.der[self.pieces.issuer.clone()]
    }

    /// Contents of the serial number's INTEGER.
    pub fn serial(&self) -> &[u8] {
        &self.der[self.pieces.serial.clone()]
    }

    /// The whole SubjectPublicKeyInfo.
    pub fn public_key_info(&self) -> &[u8] {
        &self.der[self.pieces.key_info.clone()]
    }

    /// OpenSSL's `EXFLAG_SS`: the names agree, and the key identifiers do not contradict.
    pub fn is_self_signed(&self) -> bool {
        self.subject == self.issuer && self.key_ids_allow(self)
    }

    pub fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether the authority key identifier, where there is one, points to `issuer`.
    pub fn key_ids_allow(&self, issuer: &Cert) -> bool {
        let agree = |ours: &Option<Box<[u8]>>, theirs: Option<&[u8]>| match (ours, theirs) {
            (Some(ours), Some(theirs)) => **ours == *theirs,
            _ => true,
        };
        let ext = &self.extensions;
        agree(&ext.authority_key_id, issuer.extensions.subject_key_id.as_deref())
            && agree(&ext.authority_serial, Some(issuer.serial()))
    }

    pub fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether `issuer`'s key made this certificate's signature.
    pub fn is_signed_by(&self, issuer: &Cert) -> bool {
        issuer.key().verifies(
            &self.der[self.pieces.tbs.clone()],
            &self.der[self.pieces.signature_algorithm.clone()],
            &self.der[self.pieces.signature.clone()],
        )
    }

    pub fn key(&self) -> PublicKey<'_> {
        PublicKey {
            algorithm: &self.der[self.pieces.key_algorithm.clone()],
            bits: &self.der[self.pieces.key_bits.clone()],
        }
    }
}

impl Extensions {
    fn of(list: &[X509Extension<'_>]) -> Self {
        let mut found = Self::default();
        for (i, extension) in list.iter().enumerate() {
            found.invalid |= list[..i].iter().any(|earlier| earlier.oid == extension.oid);
            found.take(extension);
        }
        found
    }

    fn take(&mut self, extension: &X509Extension<'_>) {
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(basic) => {
                self.basic_constraints =
                    Some(BasicConstraints { is_ca: basic.ca, path_len: basic.path_len_constraint });
            }
            ParsedExtension::KeyUsage(usage) => self.key_usage = Some(usage.flags),
            ParsedExtension::ExtendedKeyUsage(usage) => {
                self.purposes =
                    Some(Purposes { client: usage.client_auth, server: usage.server_auth });
            }
            ParsedExtension::SubjectKeyIdentifier(id) => self.subject_key_id = Some(id.0.into()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.into());
                self.authority_serial = id.authority_cert_serial.map(Into::into);
            }
            ParsedExtension::SubjectAlternativeName(san) => {
                self.has_alternative_names = true;
                self.names = san.general_names.iter().map(Name::of).collect();
            }
            ParsedExtension::NameConstraints(constraints) => {
                let names = |list: &Option<Vec<x509_parser::extensions::GeneralSubtree<'_>>>| {
                    list.iter().flatten().map(|tree| Name::of(&tree.base)).collect()
                };
                self.permitted = names(&constraints.permitted_subtrees);
                self.excluded = names(&constraints.excluded_subtrees);
            }
            ParsedExtension::CRLDistributionPoints(_) => {
                self.crl_points = distribution_points(extension.value).unwrap_or_default();
            }
            ParsedExtension::CertificatePolicies(_)
            | ParsedExtension::PolicyMappings(_)
            | ParsedExtension::PolicyConstraints(_)
            | ParsedExtension::InhibitAnyPolicy(_)
            | ParsedExtension::NSCertType(_) => {}
            ParsedExtension::ParseError { .. } => self.invalid = true,
            _ => self.unhandled_critical |= extension.critical,
        }
    }
}

/// The encoded fullName of each distribution point.
fn distribution_points(value: &[u8]) -> Option<Vec<Box<[u8]>>> {
    let mut points = Der(value).sequence()?;
    let mut names = Vec::new();
    while let Some(mut point) = points.sequence() {
        if let Some(name) = point.value(0xa0) {
            names.extend(Der(name).value(0xa0).map(Box::from));
        }
    }
    Some(names)
}

impl Name {
    fn of(name: &GeneralName<'_>) -> Self {
        match name {
            GeneralName::DNSName(name) => Self::Dns((*name).into()),
            GeneralName::RFC822Name(name) => Self::Email((*name).into()),
            GeneralName::URI(name) => Self::Uri((*name).into()),
            GeneralName::IPAddress(bytes) => Self::Ip((*bytes).into()),
            GeneralName::DirectoryName(name) => {
                dn::canonical(name.as_raw()).map_or(Self::Other, Self::Directory)
            }
            _ => Self::Other,
        }
    }
}

/// Where the parts lie in the encoding.
#[derive(Debug)]
struct Pieces {
    tbs: Range<usize>,
    serial: Range<usize>,
    issuer: Range<usize>,
    subject: Range<usize>,
    key_info: Range<usize>,
    key_algorithm: Range<usize>,
    key_bits: Range<usize>,
    signature_algorithm: Range<usize>,
    signature: Range<usize>,
}

impl Pieces {
    fn cut(whole: &[u8]) -> Option<Self> {
        let place = |part: &[u8]| {
            let at = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
            (at + part.len() <= whole.len()).then(|| at..at + part.len())
        };
        let mut outer = Der(whole).sequence()?;
        let tbs = outer.maybe(SEQUENCE)?;
        let signature_algorithm = outer.value(SEQUENCE)?;
        let signature = outer.bits()?;
        let mut fields = Der(tbs.value);
        let _version = fields.maybe(0xa0);
        let serial = fields.value(INTEGER)?;
        let _signature_algorithm = fields.value(SEQUENCE)?;
        let issuer = fields.maybe(SEQUENCE)?.raw;
        let _validity = fields.value(SEQUENCE)?;
        let subject = fields.maybe(SEQUENCE)?.raw;
        let key_info = fields.maybe(SEQUENCE)?;
        let mut key = Der(key_info.value);
        let (key_algorithm, key_bits) = (key.value(SEQUENCE)?, key.bits()?);
        Some(Self {
            tbs: place(tbs.raw)?,
            serial: place(serial)?,
            issuer: place(issuer)?,
            subject: place(subject)?,
            key_info: place(key_info.raw)?,
            key_algorithm: place(key_algorithm)?,
            key_bits: place(key_bits)?,
            signature_algorithm: place(signature_algorithm)?,
            signature: place(signature)?,
        })
    }
}

/// A subject's public key: algorithm identifier (contents) and key.
#[derive(Clone, Copy, Debug)]
pub struct PublicKey<'a> {
    algorithm: &'a [u8],
    bits: &'a [u8],
}

impl<'a> PublicKey<'a> {
    /// Takes the key out of a certificate, and looks at nothing else of it.
    pub fn of(certificate: &'a [u8]) -> Option<Self> {
        let pieces = Pieces::cut(certificate)?;
        let (algorithm, bits) = (pieces.key_algorithm, pieces.key_bits);
        Some(Self { algorithm: &certificate[algorithm], bits: &certificate[bits] })
    }

    /// Checks a signature inside a certificate or CRL.
    pub fn verifies(self, message: &[u8], algorithm: &[u8], signature: &[u8]) -> bool {
        algorithms().all.iter().any(|candidate| {
            candidate.signature_alg_id().as_ref() == algorithm
                && self.is_for(candidate.public_key_alg_id())
                && candidate.verify_signature(self.bits, message, signature).is_ok()
        })
    }

    /// Checks the signature of a handshake. TLS 1.3 ties a scheme to one curve, TLS 1.2 does not.
    pub fn verifies_handshake(
        self,
        message: &[u8],
        scheme: SignatureScheme,
        signature: &[u8],
        is_tls13: bool,
    ) -> bool {
        let Some((_, candidates)) = algorithms().mapping.iter().find(|(s, _)| *s == scheme) else {
            return false;
        };
        let candidates = if is_tls13 { &candidates[..1] } else { candidates };
        candidates.iter().any(|candidate| {
            self.is_for(candidate.public_key_alg_id())
                && candidate.verify_signature(self.bits, message, signature).is_ok()
        })
    }

    fn is_for(self, id: AlgorithmIdentifier) -> bool {
        id.as_ref() == self.algorithm
    }
}

/// The signature algorithms of aws-lc that rustls knows.
pub fn algorithms() -> WebPkiSupportedAlgorithms {
    static ALL: LazyLock<WebPkiSupportedAlgorithms> = LazyLock::new(|| {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms
    });
    *ALL
}

/// The encoding of one certificate at the front of `bytes`: `TRUSTED CERTIFICATE` blocks have
/// OpenSSL's settings behind it.
pub fn first_certificate(bytes: &[u8]) -> Option<&[u8]> {
    Der(bytes).maybe(der::SEQUENCE).map(|element| element.raw)
}
