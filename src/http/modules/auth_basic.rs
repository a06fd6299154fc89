//! `auth_basic`: a user name and a password, checked against a file (RFC 7617).
//!
//! Runs in: access. Passwords may be stored as bcrypt, apr1, `{SHA}`, `{SSHA}`, `{PLAIN}` and what
//! crypt(3) makes (DES, MD5, SHA-256, SHA-512). Slow hashes are computed off the loop.

use crate::conf::*;
use crate::event;
use crate::http::{HttpModule, Merging, Phase, Pipeline, Request, Template, Verdict};
use crate::log;
use crate::proto::header::HeaderId;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::Digest;
use std::path::PathBuf;
use std::rc::Rc;

/// The module.
pub struct AuthBasic;

impl HttpModule for AuthBasic {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    const LOC: &'static [Directive<RawLoc>] = &[
        d("auth_basic", ANY_HTTP | LMT, call(exactly(1), RawLoc::realm)),
        d("auth_basic_user_file", ANY_HTTP | LMT, call(exactly(1), RawLoc::user_file)),
    ];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        Ok(Loc {
            realm: raw.realm.or_else(|| up.realm.clone()),
            user_file: raw.user_file.or_else(|| up.user_file.clone()),
        })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        let is_off = |t: &Template| t.constant() == Some(b"off");
        if loc.realm.as_ref().is_some_and(|realm| !is_off(realm)) && loc.user_file.is_some() {
            let loc = loc.clone();
            p.on_async(Phase::Access, move |r| {
                let loc = loc.clone();
                Box::pin(async move { auth_basic(r, &loc).await })
            });
        }
    }
}

/// What was written.
#[derive(Default)]
pub struct RawLoc {
    realm: Option<Template>,
    user_file: Option<UserFile>,
}

/// What is in force.
#[derive(Default)]
pub struct Loc {
    realm: Option<Template>,
    user_file: Option<UserFile>,
}

#[derive(Clone)]
struct UserFile {
    name: Template,
    folder: PathBuf,
}

impl RawLoc {
    fn realm(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.realm.is_some() {
            return Err(Reason::Duplicate);
        }
        let text = r.arg(0).to_owned();
        self.realm = Some(Template::parse(&text, r)?);
        Ok(())
    }

    fn user_file(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.user_file.is_some() {
            return Err(Reason::Duplicate);
        }
        let (text, folder) = (r.arg(0).to_owned(), r.paths.conf_prefix.clone());
        self.user_file = Some(UserFile { name: Template::parse(&text, r)?, folder });
        Ok(())
    }
}

/// Bytes of a user file that are read; more than that is no user file.
const USER_FILE_MAX_BYTES: u64 = 64 << 20;

async fn auth_basic(r: &mut Request, loc: &Loc) -> Verdict {
    let realm = loc.realm.as_ref().expect("installed with a realm").value(r).into_owned();
    if realm == b"off" {
        return Verdict::Decline;
    }
    let Some((user, password)) = credentials(r) else {
        log::info!(&*r, "no user/password was provided for basic authentication");
        return challenge(r, &realm);
    };
    let file = loc.user_file.as_ref().expect("installed with a user file");
    let path = file.folder.join(file.name.text(r));
    let text = match read_limited(&path) {
        Ok(text) => text,
        Err(error) => {
            let known = error.kind() == std::io::ErrorKind::NotFound;
            log::error!(&*r, "open() \"{}\" failed{}", path.display(), log::Os(&error));
            return Verdict::Finish(if known { 403 } else { 500 });
        }
    };
    let Some(hash) = find_user(&text, &user) else {
        let name = log::Raw(&user);
        log::error!(&*r, "user \"{name}\" was not found in \"{}\"", path.display());
        return challenge(r, &realm);
    };
    match check_off_loop(hash, password).await {
        Some(true) => Verdict::Settle,
        Some(false) => {
            log::error!(&*r, "user \"{}\": password mismatch", log::Raw(&user));
            challenge(r, &realm)
        }
        None => {
            log::error!(&*r, "too many passwords are being checked");
            Verdict::Finish(503)
        }
    }
}

fn read_limited(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(USER_FILE_MAX_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

/// User and password of the request; `None` if there are none, or not of this scheme.
fn credentials(r: &Request) -> Option<(Vec<u8>, Vec<u8>)> {
    let value = r.header(HeaderId::Authorization)?;
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let plain = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = memchr::memchr(b':', &plain)?;
    (colon > 0).then(|| (plain[..colon].to_vec(), plain[colon + 1..].to_vec()))
}

/// Lines are `user:hash[:comment]`; `#` begins a comment line.
fn find_user(text: &[u8], user: &[u8]) -> Option<String> {
    let line = text.split(|b| *b == b'\n').find(|line| {
        line.first() != Some(&b'#') && line.starts_with(user) && line.get(user.len()) == Some(&b':')
    })?;
    let hash = line[user.len() + 1..].split(|b| matches!(b, b':' | b'\r')).next()?;
    String::from_utf8(hash.to_vec()).ok()
}

fn challenge(r: &mut Request, realm: &[u8]) -> Verdict {
    let mut value = b"Basic realm=\"".to_vec();
    value.extend_from_slice(realm);
    value.push(b'"');
    r.reply.fields.set(HeaderId::WwwAuthenticate, &value);
    Verdict::Finish(401)
}

/// Checks a password; `None` if the threads for slow hashes are all busy.
async fn check_off_loop(hash: String, password: Vec<u8>) -> Option<bool> {
    if hash.starts_with('{') {
        return Some(check(&hash, &password));
    }
    match event::offload(move || check(&hash, &password)) {
        Ok(job) => job.await.ok(),
        Err(_) => None,
    }
}

/// Whether `password` is the one that `hash` was made of.
fn check(hash: &str, password: &[u8]) -> bool {
    if let Some(plain) = hash.strip_prefix("{PLAIN}") {
        return same(plain.as_bytes(), password);
    }
    if let Some(digest) = hash.strip_prefix("{SHA}") {
        return same(digest.as_bytes(), STANDARD.encode(sha1::Sha1::digest(password)).as_bytes());
    }
    if let Some(salted) = hash.strip_prefix("{SSHA}") {
        return check_salted(salted, password);
    }
    if let Some(rest) = hash.strip_prefix("$apr1$") {
        let salt = rest.split('$').next().unwrap_or_default();
        return same(hash.as_bytes(), apr1(password, salt.as_bytes()).as_bytes());
    }
    pwhash::unix::verify(password, hash)
}

/// Apache's variant of the MD5-based crypt: the same 1,000 rounds under another name.
fn apr1(password: &[u8], salt: &[u8]) -> String {
    let salt = &salt[..salt.len().min(8)];
    let md5 = |parts: &[&[u8]]| -> [u8; 16] {
        let mut hasher = md5::Md5::new();
        parts.iter().for_each(|part| hasher.update(part));
        hasher.finalize().into()
    };
    let inner = md5(&[password, salt, password]);
    let mut seed = [password, b"$apr1$", salt].concat();
    seed.extend(inner.iter().cycle().take(password.len()));
    let mut bits = password.len();
    while bits > 0 {
        seed.push(if bits & 1 == 1 { 0 } else { password.first().copied().unwrap_or(0) });
        bits >>= 1;
    }
    let mut sum = md5(&[&seed]);
    for round in 0..1000 {
        let odd = round & 1 == 1;
        let first: &[u8] = if odd { password } else { &sum };
        let last: &[u8] = if odd { &sum } else { password };
        let salted: &[u8] = if round % 3 == 0 { b"" } else { salt };
        let twice: &[u8] = if round % 7 == 0 { b"" } else { password };
        sum = md5(&[first, salted, twice, last]);
    }
    let mut out = format!("$apr1${}$", String::from_utf8_lossy(salt));
    for (a, b, c) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
        let bits = u32::from(sum[a]) << 16 | u32::from(sum[b]) << 8 | u32::from(sum[c]);
        push_base64(&mut out, bits, 4);
    }
    push_base64(&mut out, u32::from(sum[11]), 2);
    out
}

/// crypt's own alphabet, low bits first.
fn push_base64(out: &mut String, mut bits: u32, digits: usize) {
    const ALPHABET: &[u8] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for _ in 0..digits {
        out.push(ALPHABET[(bits & 63) as usize] as char);
        bits >>= 6;
    }
}

/// `{SSHA}`: the digest of password and salt, then the salt.
fn check_salted(text: &str, password: &[u8]) -> bool {
    let Ok(bytes) = STANDARD.decode(text) else { return false };
    let Some((digest, salt)) = bytes.split_at_checked(20) else { return false };
    let mut hasher = sha1::Sha1::new();
    hasher.update(password);
    hasher.update(salt);
    same(digest, &hasher.finalize())
}

/// Compares in a time that depends on the lengths only.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_hash() {
        let mut hashes = vec!["{PLAIN}secret".into(), "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=".into()];
        let mut salted = sha1::Sha1::digest(b"secretsalt").to_vec();
        salted.extend_from_slice(b"salt");
        hashes.push(format!("{{SSHA}}{}", STANDARD.encode(salted)));
        let setup = pwhash::bcrypt::BcryptSetup { cost: Some(4), ..Default::default() };
        hashes.push(pwhash::bcrypt::hash_with(setup, "secret").unwrap());
        // Made by `openssl passwd -apr1 -salt saltsalt secret` and `-1`.
        hashes.push("$apr1$saltsalt$LrttParrLPdxvgutaSXWJ0".into());
        hashes.push("$1$saltsalt$9xy1btjgzLYfb7hivXtC//".into());
        hashes.push(pwhash::sha512_crypt::hash_with("$6$rounds=1000$salt", "secret").unwrap());
        // Made by `perl -e 'print crypt("secret", "ab")'`.
        hashes.push("abNANd1rDfiNc".into());
        for hash in hashes {
            assert!(check(&hash, b"secret"), "{hash}");
            assert!(!check(&hash, b"wrong"), "{hash}");
        }
    }

    #[test]
    fn users_are_found_by_whole_name() {
        let file = b"#a:x\nab:y\na:z:comment\r\n";
        assert_eq!(find_user(file, b"a"), Some("z".into()));
        assert_eq!(find_user(file, b"ab"), Some("y".into()));
        assert_eq!(find_user(file, b"b"), None);
    }
}
