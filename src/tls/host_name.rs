//! Whether a certificate is for a host: the rules of OpenSSL's `X509_check_host`.
//!
//! subjectAltName decides where it has DNS names; the common names are asked only otherwise. A `*`
//! stands in the leftmost label only, for one label or a part of it, and needs two more labels.
//! One thing goes beyond nginx: an address is also looked up among the certificate's addresses.

use std::net::IpAddr;

use super::dn;
use super::x509::{Cert, Name};

/// Whether `cert` names `host`: a DNS name, or an address in text form.
pub fn matches(cert: &Cert, host: &str) -> bool {
    if host.is_empty() || host.contains('\0') {
        return false;
    }
    let names = &cert.extensions.names;
    if names.iter().any(|name| matches!(name, Name::Dns(pattern) if is_match(pattern, host))) {
        return true;
    }
    if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        let bytes = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        if names.iter().any(|name| matches!(name, Name::Ip(address) if **address == *bytes)) {
            return true;
        }
    }
    if names.iter().any(|name| matches!(name, Name::Dns(_))) {
        return false;
    }
    dn::common_names(cert.subject_der()).iter().any(|pattern| is_match(pattern, host))
}

fn is_match(pattern: &str, host: &str) -> bool {
    match wildcard(pattern) {
        Some((before, after)) => wildcard_matches(before, after, host),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

/// What stands before and after the star, if the pattern has one where it may be.
fn wildcard(pattern: &str) -> Option<(&str, &str)> {
    let (before, after) = pattern.split_once('*')?;
    let (label_rest, domain) = after.split_once('.')?;
    let label = &pattern[..before.len() + 1 + label_rest.len()];
    let is_label = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let idna = label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--"));
    // OpenSSL takes a star at either end of the label, not within it.
    let placed = before.is_empty() || label_rest.is_empty();
    let labels_are_fine = domain.split('.').all(|part| {
        !part.is_empty() && is_label(part) && !part.starts_with('-') && !part.ends_with('-')
    });
    let fine = placed
        && !idna
        && is_label(before)
        && is_label(label_rest)
        && domain.contains('.')
        && labels_are_fine;
    fine.then_some((before, after))
}

fn wildcard_matches(before: &str, after: &str, host: &str) -> bool {
    let (Some(start), Some(end)) = (
        host.get(..before.len()),
        host.len().checked_sub(after.len()).and_then(|at| host.get(at..)),
    ) else {
        return false;
    };
    let Some(star) = host.get(before.len()..host.len() - after.len()) else { return false };
    if !start.eq_ignore_ascii_case(before) || !end.eq_ignore_ascii_case(after) {
        return false;
    }
    let whole_label = before.is_empty() && after.starts_with('.');
    if whole_label && star.is_empty() {
        return false;
    }
    // A star alone may stand for an IDNA label, but not for a part of one.
    if !whole_label && host.get(..4).is_some_and(|s| s.eq_ignore_ascii_case("xn--")) {
        return false;
    }
    star.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let yes = [
            ("example.com", "EXAMPLE.com"),
            ("*.example.com", "foo.example.com"),
            ("*.example.com", "xn--caf-dma.example.com"),
            ("f*.example.com", "foo.example.com"),
            ("*o.example.com", "foo.example.com"),
            ("127.0.0.1", "127.0.0.1"),
        ];
        for (pattern, host) in yes {
            assert!(is_match(pattern, host), "{pattern} {host}");
        }
        let no = [
            ("*.example.com", "no.match.example.com"),
            ("*.example.com", "example.com"),
            ("*.example.com", ".example.com"),
            ("*.com", "example.com"),
            ("*", "localhost"),
            ("foo.*.com", "foo.example.com"),
            ("*.*.com", "a.b.com"),
            ("xn--*.example.com", "xn--foo.example.com"),
            ("f*.example.com", "xn--foo.example.com"),
            ("f*o.example.com", "foo.example.com"),
            ("*.example..com", "a.example..com"),
            ("example.com", "example.com."),
        ];
        for (pattern, host) in no {
            assert!(!is_match(pattern, host), "{pattern} {host}");
        }
    }

    fn cert(alternative_names: &[&str], common_name: &str) -> Cert {
        let names: Vec<String> = alternative_names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        let key = rcgen::KeyPair::generate().unwrap();
        Cert::parse(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn common_names_count_only_without_dns_names() {
        let san = cert(&["a.example"], "b.example");
        assert!(matches(&san, "a.example"));
        assert!(!matches(&san, "b.example"));
        assert!(matches(&cert(&[], "b.example"), "b.example"));
        let address = cert(&["192.0.2.1", "2001:db8::1"], "b.example");
        assert!(matches(&address, "192.0.2.1") && matches(&address, "[2001:db8::1]"));
        assert!(!matches(&address, "192.0.2.2"));
        assert!(matches(&address, "b.example"), "addresses leave the common name in force");
        assert!(!matches(&address, ""));
    }
}
