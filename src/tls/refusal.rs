//! What is wrong with a TLS configuration, in the words that nginx and OpenSSL would use.
//!
//! Operators and their tools search for these sentences. The caller adds file and line.

use std::fmt;
use std::io;
use std::path::Path;

/// One sentence, without file and line of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(String);

impl Refusal {
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    /// `WHAT (SSL: error:0A0000B9:SSL routines::no cipher match)`: OpenSSL's reason in brackets.
    pub fn ssl(what: &str, reason: &str) -> Self {
        let (number, library) = OPENSSL_REASONS
            .iter()
            .find(|(_, _, r)| *r == reason)
            .map_or(("0A000000", "SSL routines"), |(number, library, _)| (*number, *library));
        Self(format!("{what} (SSL: error:{number}:{library}::{reason})"))
    }

    /// Adds OpenSSL's detail inside the brackets.
    pub fn with(mut self, detail: &str) -> Self {
        let end = self.0.len() - usize::from(self.0.ends_with(')'));
        self.0.truncate(end);
        Self(format!("{}:{detail})", self.0))
    }

    /// A file that cannot be opened: `WHAT BIO_new_file() failed (SSL: …)`.
    pub fn file(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::file_named(&format!("{what} BIO_new_file() failed"), path, error)
    }

    /// The same after a text that names the function already.
    pub fn file_named(what: &str, path: &Path, error: &io::Error) -> Self {
        let (code, text) = (error.raw_os_error().unwrap_or(0), plain(error));
        let mut sentence = format!(
            "{what} (SSL: error:{:08X}:system library::{text}:\
             calling fopen({}, r)",
            0x8000_0000_u32 | code.unsigned_abs(),
            path.display(),
        );
        if error.kind() == io::ErrorKind::NotFound {
            sentence.push_str(" error:10000080:BIO routines::no such file");
        } else {
            sentence.push_str(" error:10080002:BIO routines::system lib");
        }
        Self(sentence + ")")
    }

    /// A file that cannot be opened by nginx itself: `open() "F" failed (2: No such file …)`.
    pub fn open(path: &Path, error: &io::Error) -> Self {
        let code = error.raw_os_error().unwrap_or(0);
        Self(format!("open() \"{}\" failed ({code}: {})", path.display(), plain(error)))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

/// The C library's text of an error, without the number that Rust adds.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Reason texts of OpenSSL 3 with the number and library printed beside them.
const OPENSSL_REASONS: &[(&str, &str, &str)] = &[
    ("0A0000B9", "SSL routines", "no cipher match"),
    ("0A000106", "SSL routines", "no suitable groups"),
    ("0480006C", "PEM routines", "no start line"),
    ("04800065", "PEM routines", "bad decrypt"),
    ("04800064", "PEM routines", "bad base64 decode"),
    ("04800066", "PEM routines", "bad end line"),
    ("04800068", "PEM routines", "bad password read"),
    ("05800074", "x509 certificate routines", "key values mismatch"),
    ("0580007C", "x509 certificate routines", "unknown key type"),
    ("1E08010C", "DECODER routines", "unsupported"),
    ("0488000D", "PEM routines", "ASN1 lib"),
    ("068000A8", "asn1 encoding routines", "wrong tag"),
    ("0680009B", "asn1 encoding routines", "too long"),
    ("0A000139", "SSL routines", "ee key too small"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_sounds_like_openssl() {
        let error = io::Error::from_raw_os_error(2);
        let refusal = Refusal::file("cannot load certificate \"/x\":", Path::new("/x"), &error);
        assert_eq!(
            refusal.to_string(),
            "cannot load certificate \"/x\": BIO_new_file() failed (SSL: error:80000002:system \
             library::No such file or directory:calling fopen(/x, r) error:10000080:BIO \
             routines::no such file)"
        );
        assert_eq!(
            Refusal::open(Path::new("/y"), &error).to_string(),
            "open() \"/y\" failed (2: No such file or directory)"
        );
    }
}
