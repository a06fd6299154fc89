//! What is known about a TLS connection once its handshake is over: the `$ssl_…` variables.
//!
//! Little is kept per connection; texts are made when a variable asks for them.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{CommonState, HandshakeKind, ProtocolVersion};
use sha1::{Digest, Sha1};

use super::dn;
use super::fingerprint::{Traits, hex};
use super::names;
use super::path::PathFault;
use super::pem;
use super::server::VerifyClient;
use super::session::Carried;
use super::x509::Cert;

/// The facts of one connection.
#[derive(Clone, Debug)]
pub struct TlsInfo {
    version: ProtocolVersion,
    cipher: u16,
    group: Option<u16>,
    reused: bool,
    session_id: [u8; 32],
    server_name: Option<Box<[u8]>>,
    alpn: Option<Box<[u8]>>,
    peer: Option<Arc<Peer>>,
    hello: Option<Box<Traits>>,
}

/// The peer's certificate and the verdict on its chain.
#[derive(Debug)]
struct Peer {
    leaf: CertificateDer<'static>,
    verdict: Result<(), PathFault>,
}

/// Why a request of a client is refused for its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertProblem {
    /// Status 496 (sent as 400): nginx logs `client sent no required SSL certificate`.
    Missing,
    /// Status 495 (sent as 400): `client SSL certificate verify error: (18:self-signed …)`.
    Invalid(PathFault),
}

impl TlsInfo {
    /// Gathers the facts after a handshake.
    pub(super) fn of(
        state: &CommonState,
        carried: &Carried,
        server_name: Option<&[u8]>,
        hello: Option<Traits>,
    ) -> Self {
        let verdict = match carried.verdict {
            0 => Ok(()),
            number => Err(PathFault::numbered(number).unwrap_or(PathFault::Unspecified)),
        };
        let leaf = state.peer_certificates().and_then(|chain| chain.first());
        Self {
            version: state.protocol_version().unwrap_or(ProtocolVersion::Unknown(0)),
            cipher: state.negotiated_cipher_suite().map_or(0, |suite| suite.suite().into()),
            group: state.negotiated_key_exchange_group().map(|group| group.name().into()),
            reused: state.handshake_kind() == Some(HandshakeKind::Resumed),
            session_id: carried.id,
            server_name: server_name.map(Into::into),
            alpn: state.alpn_protocol().map(Into::into),
            peer: leaf.map(|leaf| Arc::new(Peer { leaf: leaf.clone(), verdict })),
            hello: hello.map(Box::new),
        }
    }

    /// As on the wire: 0x0304.
    pub fn version(&self) -> u16 {
        self.version.into()
    }

    /// `TLSv1.3`.
    pub fn protocol(&self) -> &'static str {
        match self.version {
            ProtocolVersion::TLSv1_3 => "TLSv1.3",
            ProtocolVersion::TLSv1_2 => "TLSv1.2",
            _ => "unknown",
        }
    }

    /// OpenSSL's name of the cipher suite.
    pub fn cipher(&self) -> &'static str {
        names::cipher(self.cipher).unwrap_or("(NONE)")
    }

    /// The cipher suites that the client offered.
    pub fn ciphers(&self) -> String {
        self.offered(Traits::ciphers, names::cipher)
    }

    /// The group of the key exchange; empty where none took place.
    pub fn curve(&self) -> &'static str {
        self.group.and_then(names::group).unwrap_or("")
    }

    /// The groups that the client offered.
    pub fn curves(&self) -> String {
        self.offered(Traits::groups, names::group)
    }

    /// The signature algorithms that the client offered.
    pub fn signature_algorithms(&self) -> String {
        self.offered(Traits::signature_algorithms, names::signature_algorithm)
    }

    fn offered(
        &self,
        list: fn(&Traits) -> &[u16],
        name: fn(u16) -> Option<&'static str>,
    ) -> String {
        self.hello.as_ref().map_or_else(String::new, |hello| names::join(list(hello), name))
    }

    /// The name in the client's SNI, as sent.
    pub fn server_name(&self) -> Option<&[u8]> {
        self.server_name.as_deref()
    }

    /// The protocol chosen by ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    pub fn is_h2(&self) -> bool {
        self.alpn() == Some(b"h2")
    }

    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// 64 hexadecimal digits; empty for a session that cannot be resumed.
    pub fn session_id(&self) -> String {
        if self.session_id == [0; 32] { String::new() } else { hex(&self.session_id) }
    }

    /// Whether a request came as early data. Early data is always refused, so never.
    pub fn is_early(&self) -> bool {
        false
    }

    /// What the client offered, for fingerprints.
    pub fn hello(&self) -> Option<&Traits> {
        self.hello.as_deref()
    }

    /// The peer's own certificate, in DER.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.peer.as_ref().map(|peer| peer.leaf.as_ref())
    }

    /// The peer's certificate, parsed for its details.
    pub fn details(&self) -> Option<CertDetails> {
        Cert::parse(self.certificate()?).map(CertDetails)
    }

    /// `NONE`, `SUCCESS` or `FAILED:reason`.
    pub fn client_verify(&self) -> String {
        match self.peer.as_ref().map(|peer| peer.verdict) {
            None => "NONE".into(),
            Some(Ok(())) => "SUCCESS".into(),
            Some(Err(fault)) => format!("FAILED:{}", fault.text()),
        }
    }

    /// Whether a server with this `ssl_verify_client` must refuse requests of this connection.
    pub fn client_problem(&self, mode: VerifyClient) -> Option<ClientCertProblem> {
        match (mode, self.peer.as_ref().map(|peer| peer.verdict)) {
            (VerifyClient::Off, _) | (_, Some(Ok(()))) => None,
            (VerifyClient::OptionalNoCa, Some(Err(fault))) if fault.is_about_trust() => None,
            (_, Some(Err(fault))) => Some(ClientCertProblem::Invalid(fault)),
            (VerifyClient::On, None) => Some(ClientCertProblem::Missing),
            (VerifyClient::Optional | VerifyClient::OptionalNoCa, None) => None,
        }
    }
}

/// The `$ssl_client_…` variables that need the certificate parsed.
#[derive(Debug)]
pub struct CertDetails(Cert);

impl CertDetails {
    /// PEM with its trailing newline (`$ssl_client_raw_cert`).
    pub fn pem(&self) -> String {
        pem::encode("CERTIFICATE", self.0.der())
    }

    /// PEM for a header: no last newline, a tab before every line but the first
    /// (`$ssl_client_cert`).
    pub fn pem_folded(&self) -> String {
        self.pem().trim_end().replace('\n', "\n\t")
    }

    pub fn subject(&self) -> String {
        dn::rfc2253(self.0.subject_der())
    }

    pub fn issuer(&self) -> String {
        dn::rfc2253(self.0.issuer_der())
    }

    pub fn subject_legacy(&self) -> String {
        dn::oneline(self.0.subject_der())
    }

    pub fn issuer_legacy(&self) -> String {
        dn::oneline(self.0.issuer_der())
    }

    /// Upper-case hexadecimal digits.
    pub fn serial(&self) -> String {
        let bytes = self.0.serial();
        let is_negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
        let magnitude = if is_negative { negated(bytes) } else { bytes.to_vec() };
        let start = magnitude.iter().position(|b| *b != 0).unwrap_or(magnitude.len());
        let digits = hex(&magnitude[start..]).to_ascii_uppercase();
        let sign = if is_negative { "-" } else { "" };
        if digits.is_empty() { "00".into() } else { format!("{sign}{digits}") }
    }

    /// SHA-1 of the certificate, lower-case hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        hex(&Sha1::digest(self.0.der()))
    }

    /// `Feb  3 00:55:52 2015 GMT`.
    pub fn valid_from(&self) -> String {
        printed_time(self.0.not_before)
    }

    pub fn valid_until(&self) -> String {
        printed_time(self.0.not_after)
    }

    /// Whole days until the certificate expires; `now` in seconds since 1970.
    pub fn days_left(&self, now: u64) -> i64 {
        const DAY: i64 = 86_400;
        let left = self.0.not_after.saturating_sub_unsigned(now);
        if left < DAY { 0 } else { left / DAY }
    }
}

/// Two's complement, for serial numbers below zero.
fn negated(bytes: &[u8]) -> Vec<u8> {
    let mut carry = true;
    let mut out: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
    for byte in out.iter_mut().rev() {
        let (sum, overflow) = byte.overflowing_add(u8::from(carry));
        *byte = sum;
        carry = overflow;
    }
    out
}

/// A time as OpenSSL's `ASN1_TIME_print` shows it. Years may lie before 1970.
fn printed_time(secs: i64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, of_day) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    // Days are counted from 0000-03-01, so that leap days end a year (Hinnant's civil calendar).
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 2, 0) } else { (month - 10, 1) };
    let year = year_of_era + era * 400 + carry;
    let name = usize::try_from(month).ok().and_then(|m| MONTHS.get(m)).unwrap_or(&"Bad");
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{name} {day:2} {hour:02}:{minute:02}:{second:02} {year} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_openssl_prints_them() {
        assert_eq!(printed_time(1_422_924_952), "Feb  3 00:55:52 2015 GMT");
        assert_eq!(printed_time(0), "Jan  1 00:00:00 1970 GMT");
        assert_eq!(printed_time(951_782_400), "Feb 29 00:00:00 2000 GMT");
        assert_eq!(printed_time(-1), "Dec 31 23:59:59 1969 GMT");
        assert_eq!(printed_time(253_402_300_799), "Dec 31 23:59:59 9999 GMT");
    }

    /// A certificate made by openssl, described by openssl and by us.
    #[test]
    fn openssl_says_the_same() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["a.example".into()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "a");
        params.serial_number = Some(vec![0x80, 1, 2].into());
        let cert = params.self_signed(&key).unwrap();
        let details = CertDetails(Cert::parse(cert.der()).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("crt");
        std::fs::write(&path, details.pem()).unwrap();
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(["x509", "-noout", "-serial", "-fingerprint", "-dates", "-in"]).arg(&path);
        let Ok(out) = openssl.output() else { return };
        let text = String::from_utf8(out.stdout).unwrap();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.to_lowercase().starts_with(name)).unwrap();
            line.split_once('=').unwrap().1.to_owned()
        };
        assert_eq!(details.serial(), value("serial"));
        assert_eq!(details.fingerprint(), value("sha1").replace(':', "").to_lowercase());
        assert_eq!(details.valid_from(), value("notbefore"));
        assert_eq!(details.valid_until(), value("notafter"));
        assert!(details.pem_folded().starts_with("-----BEGIN CERTIFICATE-----\n\tMII"));
        assert!(details.pem_folded().ends_with("\n\t-----END CERTIFICATE-----"));
    }

    #[test]
    fn serials_below_zero() {
        assert_eq!(negated(&[0xff]), [1]);
        assert_eq!(negated(&[0xff, 0x00]), [1, 0]);
    }
}
