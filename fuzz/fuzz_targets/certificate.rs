//! Certificates as a peer may send them: parsed, printed, judged against themselves.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollbar::tls::crl::Crl;
use tollbar::tls::path::{Purpose, Trust};
use tollbar::tls::x509::{Cert, PublicKey};
use tollbar::tls::{dn, host_name, pem};

fuzz_target!(|data: &[u8]| {
    let _ = pem::blocks(data);
    let _ = Crl::parse(data);
    let _ = PublicKey::of(data);
    let _ = (dn::oneline(data), dn::rfc2253(data), dn::canonical(data));
    let Some(cert) = Cert::parse(data) else { return };
    let _ = dn::rfc2253(cert.subject_der());
    let _ = host_name::matches(&cert, "www.example.com");
    let trust = Trust::new(Purpose::Client, 3, vec![cert], Vec::new());
    let _ = trust.judge(&[data, data], 1_767_225_600);
});
