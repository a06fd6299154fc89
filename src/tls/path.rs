//! Path validation: whether a peer's certificate leads to one that is trusted.
//!
//! Our own, because webpki refuses what operators of nginx use daily (X.509 v1, common names
//! without subjectAltName) and knows no depth. The order of the checks, their leniency and their
//! wording are OpenSSL's, as nginx drives it: checking goes on after a fault, and the last fault is
//! the result. So a lone unknown certificate ends as `unable to verify the first certificate`.
//!
//! Deliberately absent: policies, proxy certificates, fetching of anything.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::crl::{Crl, Finding};
use super::dn;
use super::x509::{Cert, Name, key_usage};

/// A fault of a chain, with OpenSSL's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum PathFault {
    Unspecified = 1,
    NoIssuer = 2,
    NoCrl = 3,
    BadSignature = 7,
    BadCrlSignature = 8,
    NotYetValid = 9,
    Expired = 10,
    CrlNotYetValid = 11,
    CrlExpired = 12,
    SelfSignedLeaf = 18,
    SelfSignedInChain = 19,
    NoLocalIssuer = 20,
    UnverifiedLeaf = 21,
    ChainTooLong = 22,
    Revoked = 23,
    PathLength = 25,
    Purpose = 26,
    UnhandledCritical = 34,
    NoCrlSign = 35,
    UnhandledCrlCritical = 36,
    InvalidExtension = 41,
    NotPermitted = 47,
    Excluded = 48,
    UnsupportedConstraint = 51,
    InvalidCa = 79,
}

impl PathFault {
    /// OpenSSL's `X509_V_ERR_…` number.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The fault of a number that was kept with a session.
    pub fn numbered(number: u16) -> Option<Self> {
        TEXTS.iter().find(|(fault, _)| fault.number() == number).map(|(fault, _)| *fault)
    }

    /// OpenSSL 3's text.
    pub fn text(self) -> &'static str {
        TEXTS.iter().find(|(fault, _)| *fault == self).map_or("", |(_, text)| text)
    }

    /// What `ssl_verify_client optional_no_ca` lets pass: the issuer is not known here.
    pub fn is_about_trust(self) -> bool {
        matches!(
            self,
            Self::SelfSignedLeaf
                | Self::SelfSignedInChain
                | Self::NoLocalIssuer
                | Self::UnverifiedLeaf
        )
    }
}

#[rustfmt::skip]
const TEXTS: &[(PathFault, &str)] = &[
    (PathFault::Unspecified, "unspecified certificate verification error"),
    (PathFault::NoIssuer, "unable to get issuer certificate"),
    (PathFault::NoCrl, "unable to get certificate CRL"),
    (PathFault::BadSignature, "certificate signature failure"),
    (PathFault::BadCrlSignature, "CRL signature failure"),
    (PathFault::NotYetValid, "certificate is not yet valid"),
    (PathFault::Expired, "certificate has expired"),
    (PathFault::CrlNotYetValid, "CRL is not yet valid"),
    (PathFault::CrlExpired, "CRL has expired"),
    (PathFault::SelfSignedLeaf, "self-signed certificate"),
    (PathFault::SelfSignedInChain, "self-signed certificate in certificate chain"),
    (PathFault::NoLocalIssuer, "unable to get local issuer certificate"),
    (PathFault::UnverifiedLeaf, "unable to verify the first certificate"),
    (PathFault::ChainTooLong, "certificate chain too long"),
    (PathFault::Revoked, "certificate revoked"),
    (PathFault::PathLength, "path length constraint exceeded"),
    (PathFault::Purpose, "unsuitable certificate purpose"),
    (PathFault::UnhandledCritical, "unhandled critical extension"),
    (PathFault::NoCrlSign, "key usage does not include CRL signing"),
    (PathFault::UnhandledCrlCritical, "unhandled critical CRL extension"),
    (PathFault::InvalidExtension, "invalid or inconsistent certificate extension"),
    (PathFault::NotPermitted, "permitted subtree violation"),
    (PathFault::Excluded, "excluded subtree violation"),
    (PathFault::UnsupportedConstraint, "unsupported name constraint type"),
    (PathFault::InvalidCa, "invalid CA certificate"),
];

/// What the peer's certificate is to prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A client's certificate, checked by a server.
    Client,
    /// A server's certificate, checked by a client.
    Server,
}

/// Whom one configuration trusts, and how far.
#[derive(Debug)]
pub struct Trust {
    purpose: Purpose,
    /// Most intermediates between the peer's certificate and the root.
    depth: usize,
    certs: Vec<Cert>,
    by_subject: HashMap<Box<[u8]>, Vec<usize>>,
    crls: Vec<Crl>,
    /// Chains that were judged lately, by hash: a keepalive of proofs, not of trust.
    judged: Mutex<HashMap<[u8; 32], Judged>>,
}

#[derive(Clone, Copy, Debug)]
struct Judged {
    verdict: Result<(), PathFault>,
    /// Seconds since 1970.
    until: i64,
}

/// Chains remembered per trust, and for how long.
const JUDGED_MAX: usize = 256;
const JUDGED_SECS: i64 = 60;

/// Most certificates of a peer that are looked at.
const PEER_CERTS_MAX: usize = 32;

impl Trust {
    pub fn new(purpose: Purpose, depth: usize, certs: Vec<Cert>, crls: Vec<Crl>) -> Self {
        let mut by_subject: HashMap<Box<[u8]>, Vec<usize>> = HashMap::new();
        for (i, cert) in certs.iter().enumerate() {
            by_subject.entry(cert.subject.clone()).or_default().push(i);
        }
        Self { purpose, depth, certs, by_subject, crls, judged: Mutex::default() }
    }

    /// Judges a chain as the peer sent it, its own certificate first. `now` in seconds since 1970.
    pub fn judge(&self, chain: &[impl AsRef<[u8]>], now: u64) -> Result<(), PathFault> {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let mut hash = Sha256::new();
        for cert in chain {
            hash.update(u64::try_from(cert.as_ref().len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(cert.as_ref());
        }
        let key: [u8; 32] = hash.finalize().into();
        let memory = || self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(judged) = memory().get(&key)
            && (judged.until - JUDGED_SECS..=judged.until).contains(&now)
        {
            return judged.verdict;
        }
        let verdict = self.judge_anew(chain, now);
        let mut memory = memory();
        if memory.len() >= JUDGED_MAX {
            memory.clear();
        }
        memory.insert(key, Judged { verdict, until: now + JUDGED_SECS });
        verdict
    }

    fn judge_anew(&self, chain: &[impl AsRef<[u8]>], now: i64) -> Result<(), PathFault> {
        let parse = |der: &dyn AsRef<[u8]>| Cert::parse(der.as_ref());
        let Some((leaf, others)) = chain.split_first() else { return Err(PathFault::Unspecified) };
        let leaf = parse(leaf).ok_or(PathFault::Unspecified)?;
        let others: Vec<Cert> =
            others.iter().take(PEER_CERTS_MAX).filter_map(|der| parse(der)).collect();
        let mut walk = Walk { trust: self, now, path: vec![&leaf], fault: None };
        walk.build(&others);
        walk.check_extensions();
        walk.check_revocation();
        walk.check_signatures_and_times();
        walk.check_names();
        walk.fault.map_or(Ok(()), Err)
    }

    /// A trusted issuer of `cert`; one that is valid now is preferred.
    fn issuer_of(&self, cert: &Cert, now: i64) -> Option<&Cert> {
        let candidates = self.by_subject.get(&cert.issuer)?.iter().map(|i| &self.certs[*i]);
        let fitting = candidates.filter(|issuer| may_have_issued(issuer, cert));
        fitting.max_by_key(|issuer| (issuer.is_valid_at(now), issuer.not_after))
    }
}

fn may_have_issued(issuer: &Cert, cert: &Cert) -> bool {
    let usage = issuer.extensions.key_usage;
    issuer.subject == cert.issuer
        && cert.key_ids_allow(issuer)
        && (cert.der() == issuer.der() || usage.is_none_or(|u| u & key_usage::KEY_CERT_SIGN != 0))
}

/// One validation under way.
struct Walk<'a> {
    trust: &'a Trust,
    now: i64,
    /// From the peer's certificate upward.
    path: Vec<&'a Cert>,
    /// The last fault found.
    fault: Option<PathFault>,
}

impl<'a> Walk<'a> {
    fn note(&mut self, fault: PathFault) {
        self.fault = Some(fault);
    }

    /// Extends the path: by trusted certificates where there are some, else by what the peer sent.
    fn build(&mut self, others: &'a [Cert]) {
        let longest = self.trust.depth.saturating_add(1);
        let mut untrusted: Vec<&Cert> = others.iter().collect();
        let mut from_store = 0;
        loop {
            let top = *self.path.last().expect("the path begins with the peer's certificate");
            let may_grow = self.path.len() <= longest;
            if let Some(issuer) = self.trust.issuer_of(top, self.now).filter(|_| may_grow) {
                if !top.is_self_signed() && self.path.iter().any(|c| c.der() == issuer.der()) {
                    break;
                }
                if top.is_self_signed() {
                    if top.der() == issuer.der() {
                        return;
                    }
                } else {
                    self.path.push(issuer);
                    from_store += 1;
                    untrusted.clear();
                    if issuer.is_self_signed() {
                        return;
                    }
                    continue;
                }
            }
            let next = untrusted.iter().position(|c| may_have_issued(c, top));
            match next.filter(|_| may_grow && !top.is_self_signed()) {
                Some(at) => self.path.push(untrusted.swap_remove(at)),
                None => break,
            }
        }
        let top = *self.path.last().expect("the path begins with the peer's certificate");
        if self.path.len() > longest {
            self.note(PathFault::ChainTooLong);
        }
        self.note(if top.is_self_signed() && self.path.len() == 1 {
            PathFault::SelfSignedLeaf
        } else if top.is_self_signed() {
            PathFault::SelfSignedInChain
        } else if from_store > 0 {
            PathFault::NoIssuer
        } else {
            PathFault::NoLocalIssuer
        });
    }

    /// CA marks, purposes, path lengths.
    fn check_extensions(&mut self) {
        let mut intermediates = 0_u32;
        for i in 0..self.path.len() {
            let cert = self.path[i];
            let ext = &cert.extensions;
            if ext.unhandled_critical {
                self.note(PathFault::UnhandledCritical);
            }
            if ext.invalid {
                self.note(PathFault::InvalidExtension);
            }
            if i > 0 {
                let standing = ca_standing(cert);
                let is_top = i + 1 == self.path.len();
                if standing == CaStanding::No || (!is_top && standing != CaStanding::Marked) {
                    self.note(PathFault::InvalidCa);
                }
            }
            if !suits(cert, self.trust.purpose, i > 0) {
                self.note(PathFault::Purpose);
            }
            let limit = ext.basic_constraints.and_then(|basic| basic.path_len);
            if i > 1 && limit.is_some_and(|limit| intermediates > limit) {
                self.note(PathFault::PathLength);
            }
            if i > 0 && !cert.is_self_issued() {
                intermediates += 1;
            }
        }
    }

    /// With any CRL configured, every certificate of the path needs one.
    fn check_revocation(&mut self) {
        if self.trust.crls.is_empty() {
            return;
        }
        for i in 0..self.path.len() {
            let cert = self.path[i];
            let covering = self.trust.crls.iter().filter(|crl| crl.covers(cert));
            let Some(crl) = covering.max_by_key(|crl| crl.is_current(self.now)) else {
                self.note(PathFault::NoCrl);
                continue;
            };
            let issuer = self.path.get(i + 1).copied().unwrap_or(cert);
            for finding in crl.findings(cert, issuer, self.now) {
                self.note(match finding {
                    Finding::NotYetValid => PathFault::CrlNotYetValid,
                    Finding::Expired => PathFault::CrlExpired,
                    Finding::NoCrlSign => PathFault::NoCrlSign,
                    Finding::BadSignature => PathFault::BadCrlSignature,
                    Finding::UnhandledCritical => PathFault::UnhandledCrlCritical,
                    Finding::Revoked => PathFault::Revoked,
                });
            }
        }
    }

    /// From the top down. The signature of a root over itself proves nothing and is not checked.
    fn check_signatures_and_times(&mut self) {
        let top = self.path.len() - 1;
        if !self.path[top].is_self_signed() && top == 0 {
            self.note(PathFault::UnverifiedLeaf);
        }
        // A top without an issuer is not looked at itself: OpenSSL begins one below.
        let first = if self.path[top].is_self_signed() || top == 0 { top } else { top - 1 };
        for i in (0..=first).rev() {
            let cert = self.path[i];
            if i < top && !cert.is_signed_by(self.path[i + 1]) {
                self.note(PathFault::BadSignature);
            }
            if cert.not_before > self.now {
                self.note(PathFault::NotYetValid);
            }
            if cert.not_after < self.now {
                self.note(PathFault::Expired);
            }
        }
    }

    /// Name constraints of each CA over all certificates below it.
    fn check_names(&mut self) {
        for i in (0..self.path.len()).rev() {
            let cert = self.path[i];
            if i > 0 && cert.is_self_issued() {
                continue;
            }
            for above in i + 1..self.path.len() {
                if let Some(fault) = constrain(cert, self.path[above]) {
                    self.note(fault);
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CaStanding {
    No,
    /// basicConstraints says so.
    Marked,
    /// Only tolerated at the top: X.509 v1, or a key usage without basicConstraints.
    Tolerated,
}

fn ca_standing(cert: &Cert) -> CaStanding {
    let ext = &cert.extensions;
    if ext.key_usage.is_some_and(|usage| usage & key_usage::KEY_CERT_SIGN == 0) {
        return CaStanding::No;
    }
    match ext.basic_constraints {
        Some(basic) if basic.is_ca => CaStanding::Marked,
        Some(_) => CaStanding::No,
        None if cert.is_v1 && cert.is_self_signed() => CaStanding::Tolerated,
        None if ext.key_usage.is_some() => CaStanding::Tolerated,
        None => CaStanding::No,
    }
}

/// Extended key usage binds the whole path; key usage of the peer's own certificate is asked here,
/// that of a CA in [`ca_standing`].
fn suits(cert: &Cert, purpose: Purpose, is_ca: bool) -> bool {
    let ext = &cert.extensions;
    let purposes_allow = ext.purposes.is_none_or(|purposes| match purpose {
        Purpose::Client => purposes.client,
        Purpose::Server => purposes.server,
    });
    let wanted = match purpose {
        Purpose::Client => key_usage::DIGITAL_SIGNATURE | key_usage::KEY_AGREEMENT,
        Purpose::Server => {
            key_usage::DIGITAL_SIGNATURE | key_usage::KEY_ENCIPHERMENT | key_usage::KEY_AGREEMENT
        }
    };
    purposes_allow
        && if is_ca {
            ca_standing(cert) != CaStanding::No
        } else {
            ext.key_usage.is_none_or(|usage| usage & wanted != 0)
        }
}

/// What the constraints of `ca` have against the names of `cert`.
fn constrain(cert: &Cert, ca: &Cert) -> Option<PathFault> {
    let (permitted, excluded) = (&ca.extensions.permitted, &ca.extensions.excluded);
    if permitted.is_empty() && excluded.is_empty() {
        return None;
    }
    let mut implied = vec![Name::Directory(cert.subject.clone())];
    let is_ca = ca_standing(cert) != CaStanding::No;
    if !is_ca && !cert.extensions.names.iter().any(|name| matches!(name, Name::Dns(_))) {
        let common = dn::common_names(cert.subject_der());
        let hosts = common.into_iter().filter(|name| looks_like_host(name));
        implied.extend(hosts.map(|name| Name::Dns(name.into())));
    }
    for name in cert.extensions.names.iter().chain(&implied) {
        let of_kind = |base: &&Name| std::mem::discriminant(*base) == std::mem::discriminant(name);
        let mut bases = permitted.iter().filter(of_kind).peekable();
        if *name == Name::Other {
            if bases.peek().is_some() || excluded.iter().any(|base| of_kind(&base)) {
                return Some(PathFault::UnsupportedConstraint);
            }
            continue;
        }
        if bases.peek().is_some() && !bases.any(|base| is_within(name, base)) {
            return Some(PathFault::NotPermitted);
        }
        if excluded.iter().filter(of_kind).any(|base| is_within(name, base)) {
            return Some(PathFault::Excluded);
        }
    }
    None
}

/// Whether a common name could pass for a host name, and so must obey constraints on them.
fn looks_like_host(name: &str) -> bool {
    name.contains('.') && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._*".contains(&b))
}

/// RFC 5280 section 4.2.1.10.
fn is_within(name: &Name, base: &Name) -> bool {
    match (name, base) {
        (Name::Dns(name), Name::Dns(base)) => is_in_domain(name, base),
        (Name::Email(name), Name::Email(base)) => {
            let host = name.rsplit_once('@').map_or("", |(_, host)| host);
            match base.strip_prefix('.') {
                Some(_) => is_in_domain(host, base),
                None if base.contains('@') => name.eq_ignore_ascii_case(base),
                None => host.eq_ignore_ascii_case(base),
            }
        }
        (Name::Uri(name), Name::Uri(base)) => {
            let host = name.split_once("://").map_or("", |(_, rest)| rest);
            let host = host.split(['/', '?', '#', ':']).next().unwrap_or_default();
            if base.starts_with('.') {
                is_in_domain(host, base)
            } else {
                host.eq_ignore_ascii_case(base)
            }
        }
        (Name::Ip(address), Name::Ip(base)) => {
            let (net, mask) = base.split_at(base.len() / 2);
            address.len() == net.len()
                && address.iter().zip(net).zip(mask).all(|((a, n), m)| a & m == n & m)
        }
        // Canonical names are concatenations, so a subtree is a prefix.
        (Name::Directory(name), Name::Directory(base)) => name.starts_with(base),
        _ => false,
    }
}

fn is_in_domain(name: &str, base: &str) -> bool {
    if base.is_empty() {
        return true;
    }
    let tail = name.len().checked_sub(base.len()).and_then(|at| Some((at, name.get(at..)?)));
    tail.is_some_and(|(at, tail)| {
        tail.eq_ignore_ascii_case(base)
            && (at == 0 || base.starts_with('.') || name.as_bytes()[at - 1] == b'.')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
        Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
    };

    /// A certificate with the key that it is for.
    struct Made {
        der: Vec<u8>,
        params: CertificateParams,
        key: KeyPair,
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    fn ca(name: &str) -> CertificateParams {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    fn make(params: CertificateParams, by: Option<&Made>) -> Made {
        let key = KeyPair::generate().unwrap();
        let cert = match by {
            Some(by) => {
                let issuer = Issuer::from_params(&by.params, &by.key);
                params.signed_by(&key, &issuer).unwrap()
            }
            None => params.self_signed(&key).unwrap(),
        };
        Made { der: cert.der().to_vec(), params, key }
    }

    fn crl(by: &Made, revoked: &[&Made], until_year: i32) -> Crl {
        let entries = revoked.iter().map(|made| rcgen::RevokedCertParams {
            serial_number: Cert::parse(&made.der).unwrap().serial().to_vec().into(),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(until_year, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: entries.collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let issuer = Issuer::from_params(&by.params, &by.key);
        Crl::parse(params.signed_by(&issuer).unwrap().der()).unwrap()
    }

    /// 2026-01-01.
    const NOW: u64 = 1_767_225_600;

    /// The verdict on `chain`, by OpenSSL's number, 0 for none.
    fn judge(trusted: &[&Made], depth: usize, crls: Vec<Crl>, chain: &[&Made]) -> u16 {
        let certs = trusted.iter().map(|made| Cert::parse(&made.der).unwrap()).collect();
        let trust = Trust::new(Purpose::Client, depth, certs, crls);
        let ders: Vec<&[u8]> = chain.iter().map(|made| &made.der[..]).collect();
        let verdict = trust.judge(&ders, NOW);
        assert_eq!(trust.judge(&ders, NOW), verdict, "remembered as judged");
        verdict.err().map_or(0, PathFault::number)
    }

    struct Family {
        root: Made,
        int: Made,
        end: Made,
    }

    fn family() -> Family {
        let root = make(ca("root"), None);
        let int = make(ca("int"), Some(&root));
        let end = make(params("end"), Some(&int));
        Family { root, int, end }
    }

    #[test]
    fn trust_ends_at_a_trusted_root() {
        let Family { root, int, end } = family();
        assert_eq!(judge(&[&root], 1, vec![], &[&end, &int]), 0);
        assert_eq!(judge(&[&root, &int], 1, vec![], &[&end]), 0);
        assert_eq!(judge(&[&root], 1, vec![], &[&end, &int, &root]), 0);
        assert_eq!(judge(&[&root], 1, vec![], &[&root]), 0);
        assert_eq!(judge(&[&root], 1, vec![], &[&end]), 21, "20, and then 21");
        assert_eq!(judge(&[], 1, vec![], &[&end, &int]), 20);
        assert_eq!(judge(&[], 1, vec![], &[&end, &int, &root]), 19);
        assert_eq!(judge(&[&int], 1, vec![], &[&end]), 2, "an intermediate is no root");
        let other = make(ca("root"), None);
        assert_eq!(judge(&[], 1, vec![], &[&other]), 18);
        assert_eq!(judge(&[&root], 1, vec![], &[&other]), 18, "the name alone proves nothing");
        assert_eq!(judge(&[&other], 1, vec![], &[&end, &int]), 7, "nor does it for an issuer");
    }

    /// The cases of the public tests of ssl_verify_depth.
    #[test]
    fn depth_counts_intermediates() {
        let Family { root, int, end } = family();
        let verdicts =
            |depth| [&root, &int, &end].map(|made| judge(&[&root, &int], depth, vec![], &[made]));
        assert_eq!(verdicts(0), [0, 0, 2], "22, and then 2");
        assert_eq!(verdicts(1), [0, 0, 0]);
        assert_eq!(verdicts(usize::MAX), [0, 0, 0]);
    }

    /// The cases of the public tests of ssl_crl.
    #[test]
    fn every_certificate_needs_a_list() {
        let Family { root, int, end } = family();
        let trusted = [&int, &root];
        let empty = || crl(&root, &[], 2030);
        assert_eq!(judge(&[&root], 1, vec![empty()], &[&int]), 0);
        assert_eq!(judge(&[&root], 1, vec![crl(&root, &[&int], 2030)], &[&int]), 23);
        assert_eq!(judge(&trusted, 2, vec![crl(&root, &[&int], 2030)], &[&end]), 23);
        assert_eq!(judge(&trusted, 2, vec![empty()], &[&end]), 3);
        assert_eq!(judge(&trusted, 2, vec![empty(), crl(&int, &[], 2030)], &[&end]), 0);
        assert_eq!(judge(&[&root], 1, vec![crl(&root, &[], 2021)], &[&int]), 12);
        let mut forger = make(ca("root"), None);
        forger.params = ca("root");
        assert_eq!(judge(&[&root], 1, vec![crl(&forger, &[], 2030)], &[&int]), 8);
    }

    #[test]
    fn times() {
        let root = make(ca("root"), None);
        let mut past = params("past");
        past.not_after = rcgen::date_time_ymd(2021, 1, 1);
        assert_eq!(judge(&[&root], 1, vec![], &[&make(past, Some(&root))]), 10);
        let mut future = params("future");
        future.not_before = rcgen::date_time_ymd(2030, 1, 1);
        assert_eq!(judge(&[&root], 1, vec![], &[&make(future, Some(&root))]), 9);
    }

    #[test]
    fn marks_of_a_ca_and_purposes() {
        let root = make(ca("root"), None);
        let plain = make(params("plain"), Some(&root));
        let end = make(params("end"), Some(&plain));
        assert_eq!(judge(&[&root], 9, vec![], &[&end, &plain]), 26, "79, and then 26");
        let mut server = params("server");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        assert_eq!(judge(&[&root], 9, vec![], &[&make(server, Some(&root))]), 26);
        let mut usage = params("usage");
        usage.key_usages = vec![KeyUsagePurpose::CrlSign];
        assert_eq!(judge(&[&root], 9, vec![], &[&make(usage, Some(&root))]), 26);
        let mut short = ca("short");
        short.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let short = make(short, None);
        let int = make(ca("int"), Some(&short));
        let end = make(params("end"), Some(&int));
        assert_eq!(judge(&[&short], 9, vec![], &[&int]), 0);
        assert_eq!(judge(&[&short], 9, vec![], &[&end, &int]), 25);
    }

    #[test]
    fn name_constraints_bind_what_is_below() {
        let mut constrained = ca("root");
        constrained.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".into())],
            excluded_subtrees: vec![GeneralSubtree::DnsName("bad.example.com".into())],
        });
        let root = make(constrained, None);
        let leaf = |host: &str| {
            let mut leaf = CertificateParams::new(vec![host.to_owned()]).unwrap();
            leaf.distinguished_name = rcgen::DistinguishedName::new();
            judge(&[&root], 1, vec![], &[&make(leaf, Some(&root))])
        };
        assert_eq!(leaf("www.example.com"), 0);
        assert_eq!(leaf("www.example.org"), 47);
        assert_eq!(leaf("x.bad.example.com"), 48);
        let common = |name| judge(&[&root], 1, vec![], &[&make(params(name), Some(&root))]);
        assert_eq!(common("www.example.org"), 47, "a common name that stands in for a host name");
        assert_eq!(common("a person"), 0);
    }

    #[test]
    fn subtrees() {
        let dns = |name: &str| Name::Dns(name.into());
        assert!(is_within(&dns("a.example.com"), &dns("Example.com")));
        assert!(is_within(&dns("a.example.com"), &dns(".example.com")));
        assert!(!is_within(&dns("example.com"), &dns(".example.com")));
        assert!(!is_within(&dns("badexample.com"), &dns("example.com")));
        let ip = |bytes: &[u8]| Name::Ip(bytes.into());
        assert!(is_within(&ip(&[10, 1, 2, 3]), &ip(&[10, 0, 0, 0, 255, 0, 0, 0])));
        assert!(!is_within(&ip(&[11, 1, 2, 3]), &ip(&[10, 0, 0, 0, 255, 0, 0, 0])));
        let email = |name: &str| Name::Email(name.into());
        assert!(is_within(&email("a@example.com"), &email("example.com")));
        assert!(is_within(&email("a@x.example.com"), &email(".example.com")));
        assert!(!is_within(&email("a@x.example.com"), &email("example.com")));
    }

    #[test]
    fn junk_is_refused() {
        let trust = Trust::new(Purpose::Server, 1, Vec::new(), Vec::new());
        assert_eq!(trust.judge(&[b"junk"], NOW), Err(PathFault::Unspecified));
        assert_eq!(trust.judge(&[] as &[&[u8]], NOW), Err(PathFault::Unspecified));
        let root = make(ca("root"), None);
        let mut cut = root.der.clone();
        for at in 0..cut.len() {
            cut[at] ^= 0x55;
            let _ = trust.judge(&[&cut], NOW);
            cut[at] ^= 0x55;
            assert!(trust.judge(&[&root.der[..at]], NOW).is_err());
        }
    }

    #[test]
    fn numbers_and_texts_are_openssls() {
        for (fault, text) in TEXTS {
            assert_eq!((PathFault::numbered(fault.number()), fault.text()), (Some(*fault), *text));
        }
        assert!(PathFault::NoLocalIssuer.is_about_trust() && !PathFault::Revoked.is_about_trust());
    }
}
