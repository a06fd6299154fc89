//! Certificates, keys, CA lists and CRLs from files, with OpenSSL's complaints.
//!
//! A value is a path (already full) or `data:` with PEM behind it, as in nginx.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::crl::Crl;
use super::pem;
use super::private_key::{self, BadKey};
use super::refusal::Refusal;
use super::x509::{Cert, first_certificate};

/// One `ssl_certificate` with its `ssl_certificate_key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// Loads a pair, and makes sure that key and certificate belong together.
pub fn load_pair(pair: &Pair, passwords: &[Vec<u8>]) -> Result<CertifiedKey, Refusal> {
    let chain = load_chain(&pair.certificate)?;
    let key = load_key(&pair.key, passwords)?;
    match belong_together(&chain, &*key) {
        None => Err(unreadable(&pair.certificate, "")),
        Some(true) => Ok(CertifiedKey::new(chain, key)),
        Some(false) => {
            let what = format!("SSL_CTX_use_PrivateKey(\"{}\") failed", pair.key);
            Err(Refusal::ssl(&what, "key values mismatch"))
        }
    }
}

/// Whether it is the key of the chain's first certificate; `None`: that cannot be read.
pub fn belong_together(chain: &[CertificateDer<'_>], key: &dyn SigningKey) -> Option<bool> {
    let leaf = Cert::parse(chain.first()?)?;
    Some(key.public_key().is_none_or(|public| public.as_ref() == leaf.public_key_info()))
}

/// Certificates that follow one another in DER. `None`: there is none, or something else.
pub fn chain_of_der(mut bytes: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut chain = Vec::new();
    while !bytes.is_empty() {
        let der = first_certificate(bytes).filter(|der| Cert::parse(der).is_some())?;
        bytes = &bytes[der.len()..];
        chain.push(CertificateDer::from(der.to_vec()));
    }
    (!chain.is_empty()).then_some(chain)
}

/// A certificate and the intermediates that follow it in the file.
pub fn load_chain(source: &str) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    let label = "Expecting: TRUSTED CERTIFICATE";
    let chain = certificates(source, "cannot load certificate", "PEM_read_bio_X509_AUX", label)?;
    Ok(chain.into_iter().map(CertificateDer::from).collect())
}

/// A private key; passwords are tried in order.
pub fn load_key(source: &str, passwords: &[Vec<u8>]) -> Result<Arc<dyn SigningKey>, Refusal> {
    let what = format!("cannot load certificate key \"{source}\":");
    for scheme in ["engine:", "store:"] {
        if source.starts_with(scheme) {
            let why = format!("loading \"{scheme}...\" certificate keys is not supported");
            return Err(Refusal::new(format!("{what} {why}")));
        }
    }
    let text = read(source, &what)?;
    private_key::load(&text, passwords).map_err(|bad| {
        let what = format!("{what} PEM_read_bio_PrivateKey() failed");
        match bad {
            BadKey::Unsupported => Refusal::ssl(&what, "unsupported")
                .with("No supported data to decode. Input type: PEM"),
            bad => Refusal::ssl(&what, bad.reason()),
        }
    })
}

/// Trusted certificates: `ssl_client_certificate`, `ssl_trusted_certificate` and kin. What stands
/// there twice is kept once.
pub fn load_trusted(source: &str) -> Result<Vec<Cert>, Refusal> {
    let label = "Expecting: TRUSTED CERTIFICATE";
    let ders = certificates(source, "cannot load certificate", "PEM_read_bio_X509_AUX", label)?;
    let mut certs: Vec<Cert> = Vec::with_capacity(ders.len());
    for der in ders {
        let cert = Cert::parse(&der).ok_or_else(|| unreadable(source, ""))?;
        if !certs.iter().any(|known| known.der() == cert.der()) {
            certs.push(cert);
        }
    }
    Ok(certs)
}

/// Revocation lists: `ssl_crl` and kin.
pub fn load_crls(source: &str) -> Result<Vec<Crl>, Refusal> {
    let what = format!("cannot load CRL \"{source}\":");
    let failed = format!("{what} PEM_read_bio_X509_CRL() failed");
    let text = read(source, &what)?;
    let blocks = pem::blocks(&text).map_err(|bad| Refusal::ssl(&failed, bad.reason()))?;
    let lists: Option<Vec<Crl>> =
        blocks.iter().filter(|b| b.label == "X509 CRL").map(|b| Crl::parse(&b.der)).collect();
    match lists {
        Some(lists) if lists.is_empty() => {
            Err(Refusal::ssl(&failed, "no start line").with("Expecting: X509 CRL"))
        }
        Some(lists) => Ok(lists),
        None => Err(Refusal::ssl(&failed, "ASN1 lib")),
    }
}

/// `ssl_stapling_file`: an OCSP response in DER.
pub fn load_ocsp_response(path: &str) -> Result<Vec<u8>, Refusal> {
    let what = format!("BIO_new_file(\"{path}\") failed");
    let bytes = std::fs::read(path).map_err(|e| Refusal::file_named(&what, Path::new(path), &e))?;
    let whole = first_certificate(&bytes).is_some_and(|element| element.len() == bytes.len());
    if whole {
        return Ok(bytes);
    }
    Err(Refusal::ssl(&format!("d2i_OCSP_RESPONSE_bio(\"{path}\") failed"), "wrong tag"))
}

/// `ssl_dhparam`: read as nginx reads it, so that a bad file is told; rustls has no use for it.
pub fn check_dh_parameters(path: &str) -> Result<(), Refusal> {
    let what = format!("BIO_new_file(\"{path}\") failed");
    let text = std::fs::read(path).map_err(|e| Refusal::file_named(&what, Path::new(path), &e))?;
    let failed = format!("PEM_read_bio_Parameters(\"{path}\") failed");
    let blocks = pem::blocks(&text).map_err(|bad| Refusal::ssl(&failed, bad.reason()))?;
    let labels = ["DH PARAMETERS", "X9.42 DH PARAMETERS", "PARAMETERS"];
    if blocks.iter().any(|block| labels.contains(&block.label.as_str())) {
        return Ok(());
    }
    Err(Refusal::ssl(&failed, "no start line").with("Expecting: DH PARAMETERS"))
}

/// `ssl_password_file`.
pub fn load_passwords(path: &str) -> Result<Vec<Vec<u8>>, Refusal> {
    let text = std::fs::read(path).map_err(|e| Refusal::open(Path::new(path), &e))?;
    Ok(private_key::passwords(&text))
}

fn certificates(
    source: &str,
    what: &str,
    function: &str,
    expecting: &str,
) -> Result<Vec<Vec<u8>>, Refusal> {
    let what = format!("{what} \"{source}\":");
    let failed = format!("{what} {function}() failed");
    let text = read(source, &what)?;
    let blocks = pem::blocks(&text).map_err(|bad| Refusal::ssl(&failed, bad.reason()))?;
    let mut ders = Vec::new();
    for block in blocks {
        let der = match block.label.as_str() {
            "CERTIFICATE" | "X509 CERTIFICATE" => Some(&block.der[..]),
            "TRUSTED CERTIFICATE" => first_certificate(&block.der),
            _ => continue,
        };
        let der = der.filter(|der| Cert::parse(der).is_some());
        ders.push(der.ok_or_else(|| Refusal::ssl(&failed, "ASN1 lib"))?.to_vec());
    }
    if ders.is_empty() {
        return Err(Refusal::ssl(&failed, "no start line").with(expecting));
    }
    Ok(ders)
}

fn read(source: &str, what: &str) -> Result<Vec<u8>, Refusal> {
    match source.strip_prefix("data:") {
        Some(text) => Ok(text.as_bytes().to_vec()),
        None => {
            let path = Path::new(source);
            match std::fs::read(path) {
                Err(e) if e.kind() == std::io::ErrorKind::IsADirectory => Ok(Vec::new()),
                other => other.map_err(|e| Refusal::file(what, path, &e)),
            }
        }
    }
}

fn unreadable(source: &str, detail: &str) -> Refusal {
    let what =
        format!("cannot load certificate \"{source}\": PEM_read_bio_X509_AUX() failed{detail}");
    Refusal::ssl(&what, "ASN1 lib")
}

/// The certificates of one server, one per kind of key; the client's signature schemes choose.
///
/// They may be replaced while the server runs (OCSP responses grow old), hence the lock.
#[derive(Debug)]
pub struct Certificates {
    slots: RwLock<Vec<Arc<CertifiedKey>>>,
    /// `ssl_prefer_server_ciphers`: the order of the configuration decides, not the client's.
    ours_first: bool,
}

impl Certificates {
    /// As in OpenSSL a later certificate replaces an earlier one with the same kind of key.
    pub fn new(list: Vec<CertifiedKey>, ours_first: bool) -> Self {
        let mut slots: Vec<Arc<CertifiedKey>> = Vec::new();
        for certified in list {
            let kind = kind(&certified);
            match slots.iter_mut().find(|slot| self::kind(slot) == kind) {
                Some(slot) => *slot = Arc::new(certified),
                None => slots.push(Arc::new(certified)),
            }
        }
        Self { slots: RwLock::new(slots), ours_first }
    }

    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// The certificates in force.
    pub fn all(&self) -> Vec<Arc<CertifiedKey>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Staples another OCSP response to the certificate that is `leaf`.
    pub fn staple(&self, leaf: &CertificateDer<'_>, response: Option<Vec<u8>>) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.iter_mut().find(|slot| slot.cert.first() == Some(leaf)) {
            let mut renewed = CertifiedKey::clone(slot);
            renewed.ocsp = response;
            *slot = Arc::new(renewed);
        }
    }

    fn choose(&self, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        if slots.len() == 1 {
            return slots.first().cloned();
        }
        let can =
            |slot: &&Arc<CertifiedKey>, s: SignatureScheme| slot.key.choose_scheme(&[s]).is_some();
        if self.ours_first {
            return slots.iter().find(|slot| slot.key.choose_scheme(schemes).is_some()).cloned();
        }
        schemes.iter().find_map(|s| slots.iter().find(|slot| can(slot, *s))).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.signature_schemes())
    }
}

fn kind(certified: &CertifiedKey) -> SignatureAlgorithm {
    certified.key.algorithm()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A self-signed certificate for `names` and its key, as PEM.
    pub(crate) fn made(
        names: &[&str],
        algorithm: &'static rcgen::SignatureAlgorithm,
    ) -> (String, String) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let cert = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    pub(crate) fn pair(made: &(String, String)) -> Pair {
        Pair { certificate: format!("data:{}", made.0), key: format!("data:{}", made.1) }
    }

    fn refused<T>(result: Result<T, Refusal>) -> String {
        result.err().unwrap().to_string()
    }

    #[test]
    fn pairs_must_match() {
        let ec = made(&["a.example"], &rcgen::PKCS_ECDSA_P256_SHA256);
        let other = made(&["b.example"], &rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(load_pair(&pair(&ec), &[]).unwrap().cert.len(), 1);
        let both = (ec.0.clone() + &other.0, ec.1.clone() + &ec.0);
        assert_eq!(load_pair(&pair(&both), &[]).unwrap().cert.len(), 2, "a chain");
        let text = refused(load_pair(&pair(&(ec.0, other.1)), &[]));
        assert!(text.starts_with("SSL_CTX_use_PrivateKey(\"data:"), "{text}");
        assert!(text.ends_with(
            "failed (SSL: error:05800074:x509 certificate routines::key values mismatch)"
        ));
    }

    #[test]
    fn complaints_are_openssls() {
        assert_eq!(
            refused(load_chain("/no/such")),
            "cannot load certificate \"/no/such\": BIO_new_file() failed (SSL: error:80000002:system \
             library::No such file or directory:calling fopen(/no/such, r) error:10000080:BIO \
             routines::no such file)"
        );
        assert_eq!(
            refused(load_chain("data:foo")),
            "cannot load certificate \"data:foo\": PEM_read_bio_X509_AUX() failed (SSL: \
             error:0480006C:PEM routines::no start line:Expecting: TRUSTED CERTIFICATE)"
        );
        assert!(
            refused(load_key("/no/such", &[])).starts_with(
                "cannot load certificate key \"/no/such\": BIO_new_file() failed (SSL: "
            )
        );
        assert_eq!(
            refused(load_key("data:foo", &[])),
            "cannot load certificate key \"data:foo\": PEM_read_bio_PrivateKey() failed (SSL: \
             error:1E08010C:DECODER routines::unsupported:No supported data to decode. Input type: PEM)"
        );
        assert_eq!(
            refused(load_key("engine:a:b", &[])),
            "cannot load certificate key \"engine:a:b\": loading \"engine:...\" certificate keys is \
             not supported"
        );
        assert_eq!(
            refused(load_crls("data:x")),
            "cannot load CRL \"data:x\": PEM_read_bio_X509_CRL() failed (SSL: error:0480006C:PEM \
             routines::no start line:Expecting: X509 CRL)"
        );
        assert!(refused(load_ocsp_response("/no/such")).starts_with(
            "BIO_new_file(\"/no/such\") failed (SSL: error:80000002:system library::No such file"
        ));
        assert_eq!(
            refused(load_passwords("/x")),
            "open() \"/x\" failed (2: No such file or directory)"
        );
        assert!(refused(check_dh_parameters("/no/such")).starts_with("BIO_new_file(\"/no/such\")"));
        let cut = pem::encode("CERTIFICATE", b"junk");
        assert!(refused(load_chain(&format!("data:{cut}"))).ends_with("PEM routines::ASN1 lib)"));
    }

    #[test]
    fn trusted_certificates_lose_their_settings_and_doubles() {
        let (cert, _) = made(&["a.example"], &rcgen::PKCS_ECDSA_P256_SHA256);
        let mut der = pem::blocks(cert.as_bytes()).unwrap()[0].der.clone();
        let plain = der.clone();
        der.extend([0x30, 2, 5, 0]);
        let trusted = pem::encode("TRUSTED CERTIFICATE", &der);
        let certs = load_trusted(&format!("data:{trusted}{cert}{cert}")).unwrap();
        assert_eq!(certs.len(), 1);
        assert_eq!(certs[0].der(), plain);
    }

    #[test]
    fn the_clients_schemes_choose() {
        let ec = load_pair(&pair(&made(&["a"], &rcgen::PKCS_ECDSA_P256_SHA256)), &[]).unwrap();
        let newer = load_pair(&pair(&made(&["b"], &rcgen::PKCS_ECDSA_P256_SHA256)), &[]).unwrap();
        let ed = load_pair(&pair(&made(&["c"], &rcgen::PKCS_ED25519)), &[]).unwrap();
        let (new_leaf, ed_leaf) = (newer.cert[0].clone(), ed.cert[0].clone());
        let list = vec![ec.clone(), newer.clone(), ed.clone()];
        let theirs = Certificates::new(list.clone(), false);
        assert_eq!(theirs.all().len(), 2, "the later of a kind replaces the earlier");
        let (ecdsa, ed25519) = (SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519);
        let leaf = |c: &Certificates, s: &[SignatureScheme]| c.choose(s).map(|c| c.cert[0].clone());
        assert_eq!(leaf(&theirs, &[ed25519, ecdsa]), Some(ed_leaf.clone()));
        assert_eq!(leaf(&theirs, &[ecdsa, ed25519]), Some(new_leaf.clone()));
        assert_eq!(leaf(&theirs, &[SignatureScheme::RSA_PSS_SHA256]), None);
        let ours = Certificates::new(list, true);
        assert_eq!(leaf(&ours, &[ed25519, ecdsa]), Some(new_leaf.clone()));
        ours.staple(&ed_leaf, Some(vec![1]));
        assert_eq!(ours.choose(&[ed25519]).unwrap().ocsp.as_deref(), Some(&[1][..]));
        assert_eq!(ours.choose(&[ecdsa]).unwrap().ocsp, None);
    }
}
