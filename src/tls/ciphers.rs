//! What may be negotiated: `ssl_protocols`, `ssl_ciphers` (OpenSSL's cipher strings), the TLS 1.3
//! suites, `ssl_ecdh_curve`, mapped to what rustls has.
//!
//! rustls has ECDHE with AES-GCM or ChaCha20 and nothing older. What a configuration names beyond
//! that is left out, with a warning where an operator would otherwise be misled (protocols,
//! curves); a choice that leaves nothing is an error in OpenSSL's words. As with OpenSSL, a cipher
//! string does not touch the TLS 1.3 suites.

use rustls::crypto::aws_lc_rs::{ALL_KX_GROUPS, cipher_suite as suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion, version};

use super::names;
use super::p521::SECP521R1;
use super::refusal::Refusal;
use crate::conf::{Reading, Reason};

/// A protocol that `ssl_protocols` may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Sslv2,
    Sslv3,
    Tls1,
    Tls11,
    Tls12,
    Tls13,
}

impl Protocol {
    /// In nginx's spelling.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("SSLv2", Self::Sslv2),
        ("SSLv3", Self::Sslv3),
        ("TLSv1", Self::Tls1),
        ("TLSv1.1", Self::Tls11),
        ("TLSv1.2", Self::Tls12),
        ("TLSv1.3", Self::Tls13),
    ];

    /// nginx's default for `ssl_protocols`.
    pub const DEFAULT: [Self; 2] = [Self::Tls12, Self::Tls13];

    /// Reads `…_protocols name …`.
    pub fn read(set: &mut Option<Vec<Self>>, r: &mut Reading) -> Result<(), Reason> {
        if set.is_some() {
            return Err(Reason::Duplicate);
        }
        let named = |word: &String| {
            Self::named(word).ok_or_else(|| Reason::says(format!("invalid value \"{word}\"")))
        };
        *set = Some(r.args().iter().map(named).collect::<Result<_, _>>()?);
        Ok(())
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, protocol)| *protocol)
    }

    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, p)| *p == self).expect("all are listed").0
    }

    fn version(self) -> Option<&'static SupportedProtocolVersion> {
        match self {
            Self::Tls12 => Some(&version::TLS12),
            Self::Tls13 => Some(&version::TLS13),
            _ => None,
        }
    }
}

/// The outcome of the four directives: what rustls is to be built with.
#[derive(Debug)]
pub struct Offer {
    pub provider: CryptoProvider,
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// Sentences for the log, at level warn.
    pub warnings: Vec<String>,
}

/// What a configuration says; empty lists and `None` mean the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    pub protocols: &'a [Protocol],
    /// `ssl_ciphers`; nginx's default is `HIGH:!aNULL:!MD5`.
    pub ciphers: &'a str,
    /// `ssl_conf_command Ciphersuites …`: the TLS 1.3 suites, in order.
    pub ciphersuites: Option<&'a str>,
    /// `ssl_ecdh_curve`, `auto` or a list joined by colons.
    pub curves: &'a str,
}

impl Offer {
    pub fn of(wish: Wish<'_>) -> Result<Self, Refusal> {
        let mut warnings = Vec::new();
        let versions = versions(wish.protocols, &mut warnings)?;
        let mut cipher_suites = ciphersuites(wish.ciphersuites)?;
        cipher_suites.extend(cipher_list(wish.ciphers)?);
        let kx_groups = groups(wish.curves, &mut warnings)?;
        let provider = CryptoProvider {
            cipher_suites,
            kx_groups,
            ..rustls::crypto::aws_lc_rs::default_provider()
        };
        Ok(Self { provider, versions, warnings })
    }
}

/// What rustls has of these.
pub(super) fn versions(
    protocols: &[Protocol],
    warnings: &mut Vec<String>,
) -> Result<Vec<&'static SupportedProtocolVersion>, Refusal> {
    let wanted = if protocols.is_empty() { &Protocol::DEFAULT[..] } else { protocols };
    let versions: Vec<_> = wanted.iter().filter_map(|p| p.version()).collect();
    let lacking: Vec<_> =
        wanted.iter().filter(|p| p.version().is_none()).map(|p| p.name()).collect();
    if versions.is_empty() {
        return Err(Refusal::new(format!("no supported protocol in \"{}\"", lacking.join(" "))));
    }
    if !lacking.is_empty() {
        warnings.push(format!("protocols \"{}\" are not supported, ignored", lacking.join(" ")));
    }
    Ok(versions)
}

/// The TLS 1.3 suites; OpenSSL's order unless the configuration has one.
fn ciphersuites(list: Option<&str>) -> Result<Vec<SupportedCipherSuite>, Refusal> {
    let all = [
        suite::TLS13_AES_256_GCM_SHA384,
        suite::TLS13_CHACHA20_POLY1305_SHA256,
        suite::TLS13_AES_128_GCM_SHA256,
    ];
    let Some(list) = list else { return Ok(all.into()) };
    let failed = || Refusal::ssl("SSL_CONF_cmd(\"Ciphersuites\") failed", "no cipher match");
    let mut chosen = Vec::new();
    for name in list.split(':').filter(|name| !name.is_empty()) {
        let is_it = |s: &&SupportedCipherSuite| names::cipher(s.suite().into()) == Some(name);
        chosen.push(*all.iter().find(is_it).ok_or_else(failed)?);
    }
    if chosen.is_empty() { Err(failed()) } else { Ok(chosen) }
}

/// A TLS 1.2 suite with what OpenSSL's keywords ask about.
#[derive(Clone, Copy)]
struct Known {
    suite: SupportedCipherSuite,
    name: &'static str,
    /// `AES256`, `AES128` or `CHACHA20`.
    cipher: &'static str,
    /// `ECDSA` or `RSA`.
    auth: &'static str,
    strength_bits: u16,
}

/// In OpenSSL's order of preference.
fn all_known() -> [Known; 6] {
    let known = |suite, name, cipher, auth, strength_bits| Known {
        suite,
        name,
        cipher,
        auth,
        strength_bits,
    };
    [
        known(
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "AES256",
            "ECDSA",
            256,
        ),
        known(
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            "ECDHE-RSA-AES256-GCM-SHA384",
            "AES256",
            "RSA",
            256,
        ),
        known(
            suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            "CHACHA20",
            "ECDSA",
            256,
        ),
        known(
            suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
            "ECDHE-RSA-CHACHA20-POLY1305",
            "CHACHA20",
            "RSA",
            256,
        ),
        known(
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            "AES128",
            "ECDSA",
            128,
        ),
        known(
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            "ECDHE-RSA-AES128-GCM-SHA256",
            "AES128",
            "RSA",
            128,
        ),
    ]
}

impl Known {
    /// Whether one keyword of a cipher string holds for the suite. `None`: OpenSSL does not know
    /// the word and leaves the whole element out, as it does with misspelt names.
    fn is(&self, keyword: &str) -> Option<bool> {
        Some(match keyword {
            "ALL" | "COMPLEMENTOFALL" if keyword == "ALL" => true,
            "HIGH" | "TLSv1.2" => true,
            "kECDHE" | "kEECDH" | "ECDHE" | "EECDH" | "ECDH" => true,
            "ECDSA" | "aECDSA" => self.auth == "ECDSA",
            "aRSA" => self.auth == "RSA",
            "AES" | "AESGCM" | "FIPS" => self.cipher != "CHACHA20",
            "AES128" | "AES256" | "CHACHA20" => self.cipher == keyword,
            word if NOTHING_OF_OURS.contains(&word) => false,
            word => {
                if word == self.name || Some(word) == self.suite.suite().as_str() {
                    return Some(true);
                }
                is_cipher_name(word).then_some(false)?
            }
        })
    }
}

/// Keywords of OpenSSL that no suite of rustls answers to.
#[rustfmt::skip]
const NOTHING_OF_OURS: &[&str] = &[
    "COMPLEMENTOFALL", "COMPLEMENTOFDEFAULT", "eNULL", "NULL", "aNULL", "kRSA", "RSA", "kEDH",
    "kDHE", "DH", "EDH", "DHE", "ADH", "AECDH", "kDHr", "kDHd", "kDH", "kECDHr", "kECDHe",
    "aDSS", "DSS", "aDH", "aECDH", "kPSK", "kRSAPSK", "kECDHEPSK", "kDHEPSK", "PSK", "aPSK",
    "kSRP", "aSRP", "SRP", "kGOST", "kGOST18", "aGOST", "aGOST01", "aGOST12", "GOST94", "GOST89",
    "GOST89MAC", "GOST2012", "3DES", "DES", "RC4", "RC2", "IDEA", "SEED", "AESCCM", "AESCCM8",
    "CAMELLIA", "CAMELLIA128", "CAMELLIA256", "CBC", "ARIA", "ARIAGCM", "ARIA128", "ARIA256",
    "MD5", "SHA1", "SHA", "SHA256", "SHA384", "SSLv3", "TLSv1", "TLSv1.0", "LOW", "MEDIUM", "EXP",
    "EXPORT", "EXP40", "EXPORT40", "EXP56", "EXPORT56", "SUITEB128", "SUITEB128ONLY", "SUITEB192",
];

fn is_cipher_name(word: &str) -> bool {
    (0..=u16::MAX).any(|code| names::cipher(code) == Some(word))
}

/// Evaluates a cipher string as OpenSSL does: `HIGH:!aNULL:kEECDH+AESGCM:-AES128:@STRENGTH`.
fn cipher_list(string: &str) -> Result<Vec<SupportedCipherSuite>, Refusal> {
    let string = if string.is_empty() { "HIGH:!aNULL:!MD5" } else { string };
    let mut list = CipherList { active: Vec::new(), idle: all_known().into() };
    let is_separator = |c: char| matches!(c, ':' | ',' | ' ' | ';');
    for (i, element) in string.split(is_separator).filter(|e| !e.is_empty()).enumerate() {
        list.apply(if i == 0 && element == "DEFAULT" { "ALL" } else { element });
    }
    if list.active.is_empty() {
        let what = format!("SSL_CTX_set_cipher_list(\"{string}\") failed");
        return Err(Refusal::ssl(&what, "no cipher match"));
    }
    Ok(list.active.into_iter().map(|known| known.suite).collect())
}

/// A cipher string half read: what is chosen, in order, and what may still be.
struct CipherList {
    active: Vec<Known>,
    idle: Vec<Known>,
}

impl CipherList {
    fn apply(&mut self, element: &str) {
        let (verb, words) = match element.as_bytes()[0] {
            b'!' | b'-' | b'+' | b'@' => element.split_at(1),
            _ => ("", element),
        };
        if verb == "@" {
            if words == "STRENGTH" {
                self.active.sort_by_key(|known| std::cmp::Reverse(known.strength_bits));
            }
            return;
        }
        let matches =
            |known: &Known| words.split('+').try_fold(true, |all, w| Some(all & known.is(w)?));
        match verb {
            "!" => {
                self.active.retain(|known| matches(known) != Some(true));
                self.idle.retain(|known| matches(known) != Some(true));
            }
            "-" => {
                let (gone, kept) = split(&mut self.active, |k| matches(k) == Some(true));
                self.active = kept;
                self.idle = [gone, std::mem::take(&mut self.idle)].concat();
            }
            "+" => {
                let (moved, kept) = split(&mut self.active, |k| matches(k) == Some(true));
                self.active = [kept, moved].concat();
            }
            _ => {
                let (chosen, rest) = split(&mut self.idle, |k| matches(k) == Some(true));
                self.idle = rest;
                self.active.extend(chosen);
            }
        }
    }
}

fn split(list: &mut Vec<Known>, take: impl Fn(&Known) -> bool) -> (Vec<Known>, Vec<Known>) {
    std::mem::take(list).into_iter().partition(take)
}

/// The groups of `ssl_ecdh_curve`. `auto` prefers what modern clients send shares for; the hybrid
/// with ML-KEM is chosen only where the client puts it first.
fn groups(
    curves: &str,
    warnings: &mut Vec<String>,
) -> Result<Vec<&'static dyn SupportedKxGroup>, Refusal> {
    let auto =
        [kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    if curves.is_empty() || curves == "auto" {
        return Ok(auto.into());
    }
    let failed = || {
        Refusal::ssl(
            &format!("SSL_CTX_set1_curves_list(\"{curves}\") failed"),
            "no suitable groups",
        )
    };
    let mut chosen: Vec<&'static dyn SupportedKxGroup> = Vec::new();
    let mut lacking = Vec::new();
    for name in curves.split([':', '/']) {
        // OpenSSL 3.5: `?` tolerates an unknown name, `*` asks clients to send a key share.
        let bare = name.trim_start_matches(['?', '*']);
        let Some(code) = names::group_code(bare) else {
            if name.contains('?') {
                continue;
            }
            return Err(failed());
        };
        let known = ALL_KX_GROUPS.iter().chain([&SECP521R1]);
        match known.into_iter().find(|group| u16::from(group.name()) == code) {
            Some(group) => chosen.push(*group),
            None => lacking.push(bare),
        }
    }
    if chosen.is_empty() {
        return Err(failed());
    }
    if !lacking.is_empty() {
        warnings.push(format!("curves \"{}\" are not supported, ignored", lacking.join(":")));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ciphers(string: &str) -> Vec<&'static str> {
        let list = cipher_list(string).map_err(|e| e.to_string());
        list.unwrap().iter().map(|s| names::cipher(s.suite().into()).unwrap()).collect()
    }

    const ALL: [&str; 6] = [
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
    ];

    #[test]
    fn whole_lists() {
        for string in [
            "",
            "HIGH:!aNULL:!MD5",
            "ALL",
            "DEFAULT",
            "DEFAULT:ECCdraft",
            "kEECDH",
            "ALL:!aNULL:!EXPORT56:RC4+RSA:+HIGH:+MEDIUM:+LOW:+SSLv2:+EXP",
            "DEFAULT:@SECLEVEL=0",
        ] {
            assert_eq!(ciphers(string), ALL, "{string}");
        }
    }

    #[test]
    fn words_verbs_and_order() {
        assert_eq!(
            ciphers("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384"),
            [ALL[5], ALL[1]]
        );
        assert_eq!(ciphers("kEECDH+AESGCM+aRSA"), [ALL[1], ALL[5]]);
        assert_eq!(ciphers("HIGH:!ECDSA:!CHACHA20"), [ALL[1], ALL[5]]);
        assert_eq!(ciphers("AES128:AES256:@STRENGTH"), [ALL[0], ALL[1], ALL[4], ALL[5]]);
        assert_eq!(ciphers("AES128 AES256"), [ALL[4], ALL[5], ALL[0], ALL[1]]);
        assert_eq!(ciphers("HIGH:+AES256"), [ALL[2], ALL[3], ALL[4], ALL[5], ALL[0], ALL[1]]);
        assert_eq!(ciphers("HIGH:-AES:CHACHA20:AES128"), [ALL[2], ALL[3], ALL[4], ALL[5]]);
        assert_eq!(ciphers("HIGH:!AES:AES"), [ALL[2], ALL[3]], "what is killed never comes back");
        assert_eq!(ciphers("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"), [ALL[5]]);
        assert_eq!(ciphers("ECDHE-RSA-AES128-SHA:CHACHA20+aRSA:NoSuchCipher"), [ALL[3]]);
    }

    /// The same strings through OpenSSL, where it is installed: our order is its order.
    #[test]
    fn openssl_orders_them_alike() {
        let strings = [
            "HIGH:!aNULL:!MD5",
            "kEECDH+AESGCM",
            "EECDH+CHACHA20:EECDH+AES128:EECDH+AES256",
            "ECDHE+AESGCM:ECDHE+CHACHA20:@STRENGTH",
            "HIGH:-AES:CHACHA20:AES128",
            "HIGH:+AES256",
            "aRSA:ECDSA",
            "ALL:!RSA",
            "AES256:!aRSA",
            "ECDSA+HIGH:aRSA+HIGH:-AES128:+CHACHA20",
        ];
        for string in strings {
            let mut openssl = std::process::Command::new("openssl");
            let Ok(out) = openssl.args(["ciphers", "-s", "-tls1_2", string]).output() else {
                return;
            };
            let theirs = String::from_utf8(out.stdout).unwrap();
            let theirs: Vec<&str> =
                theirs.trim().split(':').filter(|name| ALL.contains(name)).collect();
            assert_eq!(ciphers(string), theirs, "{string}");
        }
    }

    #[test]
    fn nothing_left_is_an_error_in_openssls_words() {
        for string in ["RC4-SHA", "!ALL", "DHE-RSA-AES256-SHA", "MEDIUM", "RSA", "SHA256"] {
            let error = cipher_list(string).unwrap_err().to_string();
            let whole = format!(
                "SSL_CTX_set_cipher_list(\"{string}\") failed (SSL: error:0A0000B9:SSL routines::no cipher match)"
            );
            assert_eq!(error, whole);
        }
    }

    #[test]
    fn old_protocols_warn_and_alone_are_refused() {
        let wish = |protocols| Offer::of(Wish { protocols, ..Wish::default() });
        let offer = wish(&[Protocol::Tls1, Protocol::Tls12]).unwrap();
        assert_eq!(offer.versions, [&version::TLS12]);
        assert_eq!(offer.warnings, ["protocols \"TLSv1\" are not supported, ignored"]);
        assert_eq!(wish(&[]).unwrap().versions.len(), 2);
        let error = wish(&[Protocol::Sslv3, Protocol::Tls11]).unwrap_err();
        assert_eq!(error.to_string(), "no supported protocol in \"SSLv3 TLSv1.1\"");
        assert_eq!(Protocol::named("TLSv1.3"), Some(Protocol::Tls13));
        assert_eq!(Protocol::named("tlsv1.3"), None);
    }

    #[test]
    fn curves_by_their_openssl_names() {
        let curves = |curves| {
            let offer = Offer::of(Wish { curves, ..Wish::default() }).map_err(|e| e.to_string())?;
            let names: Vec<_> =
                offer.provider.kx_groups.iter().map(|g| u16::from(g.name())).collect();
            Ok::<_, String>((names, offer.warnings))
        };
        assert_eq!(curves("prime256v1:X25519"), Ok((vec![23, 29], vec![])));
        assert_eq!(curves("auto").unwrap().0, [4588, 29, 23, 24]);
        let (some, warnings) = curves("X448:secp521r1:P-384").unwrap();
        assert_eq!((some, warnings.len()), (vec![25, 24], 1));
        assert_eq!(curves("?nonsense:*X25519").unwrap().0, [29]);
        assert!(
            curves("nonsense:X25519")
                .unwrap_err()
                .starts_with("SSL_CTX_set1_curves_list(\"nonsense:X25519\") failed")
        );
        assert!(curves("X448").is_err());
    }

    #[test]
    fn tls13_suites_by_name() {
        let list = |list| Offer::of(Wish { ciphersuites: Some(list), ..Wish::default() });
        let offer = list("TLS_CHACHA20_POLY1305_SHA256").unwrap();
        assert_eq!(offer.provider.cipher_suites.len(), 1 + 6);
        assert!(list("TLS_NOTHING").is_err());
    }
}
