//! Certificate revocation lists, loaded once and asked per certificate.
//!
//! A list with a million serial numbers is a hash set of byte strings. Delta and indirect lists
//! are left out, as they are in OpenSSL unless asked for.

use std::collections::HashSet;

use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::ReasonCode;

use super::der::{Der, SEQUENCE};
use super::dn;
use super::x509::{Cert, key_usage};

#[derive(Debug)]
pub struct Crl {
    /// Canonical name of who signs the list.
    pub issuer: Box<[u8]>,
    this_update: i64,
    next_update: Option<i64>,
    revoked: HashSet<Box<[u8]>>,
    scope: Scope,
    unhandled_critical: bool,
    tbs: Box<[u8]>,
    signature_algorithm: Box<[u8]>,
    signature: Box<[u8]>,
}

/// What the issuing distribution point limits the list to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Scope {
    only_users: bool,
    only_cas: bool,
    /// A list for attribute certificates, other issuers' certificates, or some reasons only.
    foreign: bool,
    /// Encoded name of the distribution point.
    point: Option<Box<[u8]>>,
}

/// What a list says against a certificate; in the order in which OpenSSL would report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    NotYetValid,
    Expired,
    NoCrlSign,
    BadSignature,
    UnhandledCritical,
    Revoked,
}

impl Crl {
    pub fn parse(der: &[u8]) -> Option<Self> {
        let mut outer = Der(der).sequence()?;
        let tbs = outer.maybe(SEQUENCE)?.raw;
        let signature_algorithm = outer.value(SEQUENCE)?;
        let signature = outer.bits()?;
        let (_, list) = CertificateRevocationList::from_der(der).ok()?;
        let mut crl = Self {
            issuer: dn::canonical(list.issuer().as_raw())?,
            this_update: list.last_update().timestamp(),
            next_update: list.next_update().map(|t| t.timestamp()),
            revoked: HashSet::new(),
            scope: Scope::default(),
            unhandled_critical: false,
            tbs: tbs.into(),
            signature_algorithm: signature_algorithm.into(),
            signature: signature.into(),
        };
        for entry in list.iter_revoked_certificates() {
            let withdrawn = matches!(entry.reason_code(), Some((_, ReasonCode::RemoveFromCRL)));
            if !withdrawn {
                crl.revoked.insert(entry.raw_serial().into());
            }
        }
        for extension in list.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::IssuingDistributionPoint(point) => {
                    crl.scope = Scope {
                        only_users: point.only_contains_user_certs,
                        only_cas: point.only_contains_ca_certs,
                        foreign: point.indirect_crl
                            || point.only_contains_attribute_certs
                            || point.only_some_reasons.is_some(),
                        point: distribution_point(extension.value),
                    };
                }
                ParsedExtension::CRLNumber(_) | ParsedExtension::AuthorityKeyIdentifier(_) => {}
                _ => crl.unhandled_critical |= extension.critical,
            }
        }
        Some(crl)
    }

    /// Whether the list speaks about such a certificate at all.
    pub fn covers(&self, cert: &Cert) -> bool {
        let is_ca = cert.extensions.basic_constraints.is_some_and(|basic| basic.is_ca);
        self.issuer == cert.issuer
            && !self.scope.foreign
            && if is_ca { !self.scope.only_users } else { !self.scope.only_cas }
            && self
                .scope
                .point
                .as_ref()
                .is_none_or(|point| cert.extensions.crl_points.contains(point))
    }

    /// What the issuer signed: all of the list.
    pub fn signed_part(&self) -> &[u8] {
        &self.tbs
    }

    pub fn is_current(&self, now: i64) -> bool {
        self.this_update <= now && self.next_update.is_none_or(|next| now <= next)
    }

    /// All that is wrong with `cert` by this list, or with the list itself.
    pub fn findings(&self, cert: &Cert, issuer: &Cert, now: i64) -> Vec<Finding> {
        let mut findings = Vec::new();
        let may_sign = issuer.extensions.key_usage.is_none_or(|u| u & key_usage::CRL_SIGN != 0);
        if !may_sign {
            findings.push(Finding::NoCrlSign);
        }
        if self.this_update > now {
            findings.push(Finding::NotYetValid);
        } else if !self.is_current(now) {
            findings.push(Finding::Expired);
        }
        if !issuer.key().verifies(&self.tbs, &self.signature_algorithm, &self.signature) {
            findings.push(Finding::BadSignature);
        }
        if self.unhandled_critical {
            findings.push(Finding::UnhandledCritical);
        }
        if self.revoked.contains(cert.serial()) {
            findings.push(Finding::Revoked);
        }
        findings
    }
}

/// The encoded fullName inside an issuing distribution point.
fn distribution_point(value: &[u8]) -> Option<Box<[u8]>> {
    let mut point = Der(value).sequence()?;
    Some(Der(point.value(0xa0)?).value(0xa0)?.into())
}
