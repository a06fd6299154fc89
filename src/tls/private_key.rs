//! Private keys: PKCS#8, PKCS#1 and SEC 1, plain or encrypted with a password.
//!
//! Encrypted keys come in two forms: PKCS#8 with PBES2 (RFC 8018; what OpenSSL 3 writes) and the
//! traditional form with a `DEK-Info` header. Both are read for AES in CBC mode. DES and RC2 are
//! left out: aws-lc does not offer them, and such a key should be converted.

use std::sync::Arc;

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2;
use md5::{Digest, Md5};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;

use super::der::{Der, OCTET_STRING, OID, oid};
use super::pem::{self, Block};

/// Most PBKDF2 rounds that a key file may ask for; OpenSSL's default is 2,048.
const ROUNDS_MAX: u32 = 10_000_000;

/// Why a key cannot be used; the text is OpenSSL's reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadKey {
    /// No key in the file, or of a kind that is not known.
    Unsupported,
    Pem(pem::BadPem),
    NoPassword,
    WrongPassword,
}

impl BadKey {
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported",
            Self::Pem(bad) => bad.reason(),
            Self::NoPassword => "bad password read",
            Self::WrongPassword => "bad decrypt",
        }
    }
}

/// Reads the first private key of a PEM file. Passwords are tried in order.
pub fn load(text: &[u8], passwords: &[Vec<u8>]) -> Result<Arc<dyn SigningKey>, BadKey> {
    open(text, passwords).map(|(key, _)| key)
}

/// The same as DER: PKCS#8, PKCS#1 or SEC 1, as it was in the file.
pub fn to_der(text: &[u8], passwords: &[Vec<u8>]) -> Result<Vec<u8>, BadKey> {
    open(text, passwords).map(|(_, der)| der)
}

/// Reads a private key from DER of any form that PEM may have inside.
pub fn from_der(der: &[u8]) -> Option<Arc<dyn SigningKey>> {
    [Kind::Pkcs8, Kind::Pkcs1, Kind::Sec1].into_iter().find_map(|kind| usable(kind, der))
}

type Opened = (Arc<dyn SigningKey>, Vec<u8>);

fn open(text: &[u8], passwords: &[Vec<u8>]) -> Result<Opened, BadKey> {
    let blocks = pem::blocks(text).map_err(BadKey::Pem)?;
    let block = blocks.iter().find(|b| kind_of(&b.label).is_some()).ok_or(BadKey::Unsupported)?;
    let kind = kind_of(&block.label).ok_or(BadKey::Unsupported)?;
    if kind != Kind::Encrypted && block.dek_info.is_none() {
        let key = usable(kind, &block.der).ok_or(BadKey::Unsupported)?;
        return Ok((key, block.der.clone()));
    }
    if passwords.is_empty() {
        return Err(BadKey::NoPassword);
    }
    let opened = passwords.iter().find_map(|password| {
        let (kind, der) = decrypt(kind, block, password)?;
        usable(kind, &der).map(|key| (key, der))
    });
    opened.ok_or(BadKey::WrongPassword)
}

/// `ssl_password_file`: one password per line; an empty file means one empty password.
pub fn passwords(text: &[u8]) -> Vec<Vec<u8>> {
    let lines = text.split(|byte| *byte == b'\n');
    let trimmed = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec());
    let passwords: Vec<Vec<u8>> = trimmed.filter(|line| !line.is_empty()).collect();
    if passwords.is_empty() { vec![Vec::new()] } else { passwords }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pkcs8,
    Pkcs1,
    Sec1,
    Encrypted,
}

fn kind_of(label: &str) -> Option<Kind> {
    match label {
        "PRIVATE KEY" => Some(Kind::Pkcs8),
        "RSA PRIVATE KEY" => Some(Kind::Pkcs1),
        "EC PRIVATE KEY" => Some(Kind::Sec1),
        "ENCRYPTED PRIVATE KEY" => Some(Kind::Encrypted),
        _ => None,
    }
}

fn usable(kind: Kind, der: &[u8]) -> Option<Arc<dyn SigningKey>> {
    let der = der.to_vec();
    let key = match kind {
        Kind::Pkcs8 => PrivateKeyDer::Pkcs8(der.into()),
        Kind::Pkcs1 => PrivateKeyDer::Pkcs1(der.into()),
        Kind::Sec1 => PrivateKeyDer::Sec1(der.into()),
        Kind::Encrypted => return None,
    };
    rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).ok()
}

fn decrypt(kind: Kind, block: &Block, password: &[u8]) -> Option<(Kind, Vec<u8>)> {
    match &block.dek_info {
        Some(info) => Some((kind, decrypt_traditional(info, &block.der, password)?)),
        None => Some((Kind::Pkcs8, decrypt_pbes2(&block.der, password)?)),
    }
}

/// The key is MD5 over password and the first eight bytes of the IV, repeated to its length.
fn decrypt_traditional(info: &str, der: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    let (name, iv) = info.split_once(',')?;
    let (algorithm, key_len) = match name {
        "AES-128-CBC" => (&AES_128, 16),
        "AES-192-CBC" => (&AES_192, 24),
        "AES-256-CBC" => (&AES_256, 32),
        _ => return None,
    };
    let iv = unhex(iv)?;
    let (mut key, mut round) = (Vec::new(), Vec::new());
    while key.len() < key_len {
        let mut hash = Md5::new();
        hash.update(&round);
        hash.update(password);
        hash.update(iv.get(..8)?);
        round = hash.finalize().to_vec();
        key.extend_from_slice(&round);
    }
    aes_cbc(algorithm, &key[..key_len], &iv, der)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits?;
    (digits.len() % 2 == 0).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// `EncryptedPrivateKeyInfo` with PBES2, PBKDF2 and AES-CBC.
fn decrypt_pbes2(der: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    let mut info = Der(der).sequence()?;
    let mut scheme = info.sequence()?;
    let ciphertext = info.value(OCTET_STRING)?;
    if scheme.value(OID)? != oid::PBES2 {
        return None;
    }
    let mut parameters = scheme.sequence()?;
    let (mut kdf, mut cipher) = (parameters.sequence()?, parameters.sequence()?);
    let (algorithm, key_len) = match cipher.value(OID)? {
        oid::AES_128_CBC => (&AES_128, 16),
        oid::AES_192_CBC => (&AES_192, 24),
        oid::AES_256_CBC => (&AES_256, 32),
        _ => return None,
    };
    let iv = cipher.value(OCTET_STRING)?;
    if kdf.value(OID)? != oid::PBKDF2 {
        return None;
    }
    let key = pbkdf2_key(kdf.sequence()?, password, key_len)?;
    aes_cbc(algorithm, &key, iv, ciphertext)
}

fn pbkdf2_key(mut parameters: Der<'_>, password: &[u8], key_len: usize) -> Option<Vec<u8>> {
    let salt = parameters.value(OCTET_STRING)?;
    let rounds = parameters.small_integer().filter(|rounds| *rounds <= ROUNDS_MAX)?;
    let _stated_key_len = parameters.small_integer();
    let prf = match parameters.sequence() {
        Some(mut prf) => prf.value(OID)?,
        None => oid::HMAC_SHA1,
    };
    let algorithm = match prf {
        oid::HMAC_SHA1 => pbkdf2::PBKDF2_HMAC_SHA1,
        oid::HMAC_SHA256 => pbkdf2::PBKDF2_HMAC_SHA256,
        oid::HMAC_SHA384 => pbkdf2::PBKDF2_HMAC_SHA384,
        oid::HMAC_SHA512 => pbkdf2::PBKDF2_HMAC_SHA512,
        _ => return None,
    };
    let mut key = vec![0; key_len];
    pbkdf2::derive(algorithm, rounds.try_into().ok()?, salt, password, &mut key);
    Some(key)
}

fn aes_cbc(algorithm: &'static Algorithm, key: &[u8], iv: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let key = UnboundCipherKey::new(algorithm, key).ok()?;
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).ok()?;
    let iv: [u8; 16] = iv.try_into().ok()?;
    let mut data = data.to_vec();
    let plain = key.decrypt(&mut data, DecryptionContext::Iv128(FixedLength::from(iv))).ok()?;
    Some(plain.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Runs openssl; `None` where it is not installed.
    fn openssl(args: &[&str]) -> Option<Vec<u8>> {
        let out = Command::new("openssl").args(args).output().ok()?;
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        Some(out.stdout)
    }

    fn refused(text: &[u8], passwords: &[Vec<u8>]) -> &'static str {
        load(text, passwords).err().unwrap().reason()
    }

    #[test]
    fn plain_keys_of_three_forms() {
        let key = rcgen::KeyPair::generate().unwrap();
        load(key.serialize_pem().as_bytes(), &[]).unwrap();
        let der = to_der(key.serialize_pem().as_bytes(), &[]).unwrap();
        assert!(der == key.serialize_der() && from_der(&der).is_some());
        assert!(from_der(&der[1..]).is_none());
        let Some(sec1) = openssl(&["ecparam", "-genkey", "-name", "prime256v1"]) else { return };
        load(&sec1, &[]).unwrap();
        let rsa = openssl(&["genrsa", "-traditional", "2048"]).unwrap();
        assert!(rsa.starts_with(b"-----BEGIN RSA PRIVATE KEY"));
        load(&rsa, &[]).unwrap();
    }

    #[test]
    fn encrypted_keys_open_with_the_right_password_only() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain.key");
        let Some(key) = openssl(&["genrsa", "2048"]) else { return };
        std::fs::write(&plain, key).unwrap();
        let plain = plain.to_str().unwrap();
        for cipher in ["-aes128", "-aes192", "-aes256"] {
            for form in [&[][..], &["-traditional"]] {
                let args = [&["rsa", "-in", plain, cipher, "-passout", "pass:foo"], form].concat();
                let text = openssl(&args).unwrap();
                load(&text, &[b"wrong".to_vec(), b"foo".to_vec()]).unwrap();
                assert_eq!(refused(&text, &[b"wrong".to_vec()]), "bad decrypt");
                assert_eq!(refused(&text, &[]), "bad password read");
            }
        }
        for prf in ["hmacWithSHA1", "hmacWithSHA384", "hmacWithSHA512"] {
            let args = [
                "pkcs8",
                "-topk8",
                "-in",
                plain,
                "-v2",
                "aes-256-cbc",
                "-v2prf",
                prf,
                "-passout",
                "pass:foo",
            ];
            load(&openssl(&args).unwrap(), &[b"foo".to_vec()]).unwrap();
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(refused(b"", &[]), "unsupported");
        assert_eq!(refused(pem::encode("CERTIFICATE", b"x").as_bytes(), &[]), "unsupported");
        assert_eq!(refused(pem::encode("PRIVATE KEY", b"x").as_bytes(), &[]), "unsupported");
        let encrypted = pem::encode("ENCRYPTED PRIVATE KEY", b"x");
        assert_eq!(refused(encrypted.as_bytes(), &[b"a".to_vec()]), "bad decrypt");
    }

    #[test]
    fn password_files_as_nginx_reads_them() {
        assert_eq!(passwords(b"one\r\n\ntwo"), [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(passwords(b""), [Vec::<u8>::new()]);
    }
}
