//! Resumption: tickets and session caches that are valid in every worker.
//!
//! rustls hands over sealed session values and takes them back. This file decides where they live:
//! in the client (tickets, [`Tickets`]), in memory shared by all workers, or in one worker
//! ([`Sessions`] over a [`Shelf`]).
//!
//! Each value travels behind a small head of ours ([`Carried`]): when the peer was last
//! authenticated in full, a session id, the verdict on its certificate. So a session dies
//! `ssl_session_timeout` after its *first* handshake, however often it is resumed meanwhile.
//! rustls gives its hooks no connection, and a worker is one thread: the head of the connection
//! being processed stands in a thread-local while rustls runs ([`carrying`]).
//!
//! A session made under one [`Context`] is worthless under another: a different certificate, other
//! client CAs, another server's settings.

use std::cell::Cell;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::server::{ProducesTickets, StoresServerSessions};
use sha2::{Digest, Sha256};

use super::refusal::Refusal;
use super::shelf::Shelf;
use super::unix_time;

/// What a resumed session brings along besides rustls's secrets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// When the full handshake was, in seconds since 1970; 0 before it is over.
    pub authenticated_secs: u64,
    /// `$ssl_session_id`; zero while there is none.
    pub id: [u8; 32],
    /// OpenSSL's number of what is wrong with the peer's certificate; 0: nothing.
    pub verdict: u16,
}

const CARRIED_LEN: usize = 8 + 32 + 2;

impl Carried {
    fn seal(&self, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(CARRIED_LEN + value.len() + SEAL_ROOM);
        out.extend(self.authenticated_secs.to_be_bytes());
        out.extend(self.id);
        out.extend(self.verdict.to_be_bytes());
        out.extend(value);
        out
    }

    fn open(sealed: &[u8]) -> Option<(Self, &[u8])> {
        let (head, value) = sealed.split_first_chunk::<CARRIED_LEN>()?;
        let (secs, rest) = head.split_first_chunk::<8>()?;
        let (id, verdict) = rest.split_first_chunk::<32>()?;
        let verdict = u16::from_be_bytes(verdict.try_into().ok()?);
        Some((Self { authenticated_secs: u64::from_be_bytes(*secs), id: *id, verdict }, value))
    }
}

thread_local! {
    static CURRENT: Cell<Carried> = const { Cell::new(Carried {
        authenticated_secs: 0,
        id: [0; 32],
        verdict: 0,
    }) };
}

/// Runs `work` (a step of rustls) with what this connection carries, and keeps what comes of it.
pub fn carrying<T>(carried: &mut Carried, work: impl FnOnce() -> T) -> T {
    let outer = CURRENT.replace(*carried);
    let result = work();
    *carried = CURRENT.replace(outer);
    result
}

/// Notes the verdict on the certificate of the connection being processed.
pub fn note_verdict(verdict: u16) {
    CURRENT.set(Carried { verdict, ..CURRENT.get() });
}

/// Completes what a connection without resumption carries, once its handshake is over.
pub(super) fn note_origin(carried: &mut Carried) {
    if carried.authenticated_secs == 0 {
        carried.authenticated_secs = unix_time();
    }
}

/// What the connection being processed gives to a session that is being made.
fn give(id: Option<&[u8]>) -> Carried {
    let mut carried = CURRENT.get();
    if carried.authenticated_secs == 0 {
        carried.authenticated_secs = unix_time();
    }
    if carried.id == [0; 32] {
        match id.and_then(|id| id.try_into().ok()) {
            Some(id) => carried.id = id,
            None => fill_random(&mut carried.id),
        }
    }
    CURRENT.set(carried);
    carried
}

/// Takes over what a session brings, unless it has grown too old.
fn take_over(sealed: &[u8], timeout: Duration) -> Option<Vec<u8>> {
    let (carried, value) = Carried::open(sealed)?;
    let age = unix_time().checked_sub(carried.authenticated_secs)?;
    if age >= timeout.as_secs() {
        return None;
    }
    CURRENT.set(carried);
    Some(value.to_vec())
}

fn fill_random(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("the system's randomness");
}

/// Whom a session is for: a digest of all that must be the same when it is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context([u8; 32]);

impl Context {
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

/// Sessions by id: TLS 1.2 session ids, and TLS 1.3 tickets that are but an id.
#[derive(Debug)]
pub struct Sessions {
    shelf: Arc<dyn Shelf>,
    context: Context,
    timeout: Duration,
}

impl Sessions {
    pub fn new(shelf: Arc<dyn Shelf>, context: Context, timeout: Duration) -> Self {
        Self { shelf, context, timeout }
    }

    /// Servers share a zone; a session is found by its own context only.
    fn key(&self, id: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.context.0);
        hash.update(id);
        hash.finalize().into()
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, id: Vec<u8>, value: Vec<u8>) -> bool {
        let carried = give(Some(&id));
        let age = unix_time().saturating_sub(carried.authenticated_secs);
        let Some(left) = self.timeout.checked_sub(Duration::from_secs(age)) else { return false };
        !left.is_zero() && self.shelf.set(&self.key(&id), &carried.seal(&value), left)
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        take_over(&self.shelf.get(&self.key(id))?, self.timeout)
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        take_over(&self.shelf.take(&self.key(id))?, self.timeout)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

/// Sessions that the clients keep, sealed with keys that only the workers know.
///
/// A ticket is: name of the key (16 bytes), nonce (12), sealed value. GCM-SIV is used because a
/// key from a file may seal tickets for years, with random nonces.
pub struct Tickets {
    keys: Keys,
    context: Context,
    timeout: Duration,
}

const NAME_LEN: usize = 16;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
const SEAL_ROOM: usize = NAME_LEN + NONCE_LEN + TAG_LEN;

/// RFC 8446 section 4.6.1: a ticket lives seven days at most.
const TICKET_SECS_MAX: u32 = 7 * 24 * 3600;

impl Tickets {
    pub fn new(keys: Keys, context: Context, timeout: Duration) -> Self {
        Self { keys, context, timeout }
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.timeout.as_secs()).unwrap_or(u32::MAX).min(TICKET_SECS_MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.newest()?;
        let mut sealed = give(None).seal(plain);
        let mut nonce = [0; NONCE_LEN];
        fill_random(&mut nonce);
        key.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(self.context.0),
                &mut sealed,
            )
            .ok()?;
        Some([&key.name[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.keys.named(name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = key.key.open_in_place(nonce, Aad::from(self.context.0), &mut sealed).ok()?;
        take_over(plain, self.timeout)
    }
}

/// The keys of tickets.
#[derive(Clone)]
pub enum Keys {
    /// `ssl_session_ticket_key` files: the first seals, all open.
    Fixed(Arc<[Arc<TicketKey>]>),
    /// Made by the workers themselves, changed every `period`.
    Rotating(Arc<Rotating>),
}

pub struct TicketKey {
    name: [u8; NAME_LEN],
    key: LessSafeKey,
}

impl Keys {
    /// Reads key files of 48 or 80 bytes, as nginx has them.
    pub fn from_files(paths: &[String]) -> Result<Self, Refusal> {
        let keys: Result<Vec<Arc<TicketKey>>, Refusal> = paths
            .iter()
            .map(|path| {
                let bytes = std::fs::read(path).map_err(|e| Refusal::open(Path::new(path), &e))?;
                if ![48, 80].contains(&bytes.len()) {
                    return Err(Refusal::new(format!("\"{path}\" must be 48 or 80 bytes")));
                }
                let key = TicketKey::of(&bytes).map(Arc::new);
                key.ok_or_else(|| Refusal::new(format!("bad key in \"{path}\"")))
            })
            .collect();
        Ok(Self::Fixed(keys?.into()))
    }

    /// Keys that all holders of `shelf` agree on.
    pub fn rotating(shelf: Arc<dyn Shelf>, period: Duration) -> Self {
        let period = period.max(Duration::from_secs(1));
        Self::Rotating(Arc::new(Rotating { shelf, period, held: Mutex::default() }))
    }

    fn newest(&self) -> Option<Arc<TicketKey>> {
        match self {
            Self::Fixed(keys) => keys.first().cloned(),
            Self::Rotating(rotating) => rotating.newest(),
        }
    }

    fn named(&self, name: &[u8; NAME_LEN]) -> Option<Arc<TicketKey>> {
        match self {
            Self::Fixed(keys) => keys.iter().find(|key| key.name == *name).cloned(),
            Self::Rotating(rotating) => rotating.named(name),
        }
    }
}

impl TicketKey {
    /// Sixteen bytes of name; the key is a digest of all the bytes.
    fn of(bytes: &[u8]) -> Option<Self> {
        let name = *bytes.first_chunk::<NAME_LEN>()?;
        let mut hash = Sha256::new();
        hash.update(b"tollbar session ticket 1");
        hash.update(bytes);
        let key = UnboundKey::new(&AES_256_GCM_SIV, &hash.finalize()).ok()?;
        Some(Self { name, key: LessSafeKey::new(key) })
    }
}

/// Keys by number of period, counted from a moment that all workers share. Who first needs the key
/// of a period makes it; the others find it on the shelf. A key opens tickets for one more period
/// after it stopped sealing, then it is gone from the shelf too.
pub struct Rotating {
    shelf: Arc<dyn Shelf>,
    period: Duration,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    epoch: Option<u64>,
    started_secs: Option<u64>,
    current: Option<Arc<TicketKey>>,
    previous: Option<Arc<TicketKey>>,
}

const RAW_KEY_LEN: usize = 80;

/// For ever: the moment from which periods are counted.
const ANCHOR_TTL: Duration = Duration::ZERO;

impl Rotating {
    fn newest(&self) -> Option<Arc<TicketKey>> {
        self.refreshed().current.clone()
    }

    fn named(&self, name: &[u8; NAME_LEN]) -> Option<Arc<TicketKey>> {
        let held = self.refreshed();
        let known = [&held.current, &held.previous];
        known.into_iter().flatten().find(|key| key.name == *name).cloned()
    }

    /// The keys of now.
    fn refreshed(&self) -> std::sync::MutexGuard<'_, Held> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = unix_time();
        let started = *held.started_secs.get_or_insert_with(|| self.anchor(now));
        let epoch = now.saturating_sub(started) / self.period.as_secs().max(1);
        if held.epoch != Some(epoch) {
            held.previous = match held.epoch {
                Some(before) if before + 1 == epoch => held.current.take(),
                _ => epoch.checked_sub(1).and_then(|e| self.look_up(e)),
            };
            held.current = self.make_or_find(epoch);
            held.epoch = Some(epoch);
        }
        held
    }

    /// The shared moment; whoever asks first sets it.
    fn anchor(&self, now: u64) -> u64 {
        let key = b"tollbar ticket keys";
        self.shelf.add(key, &now.to_be_bytes(), ANCHOR_TTL);
        let shared = self.shelf.get(key).and_then(|bytes| bytes.try_into().ok());
        shared.map_or(now, u64::from_be_bytes)
    }

    fn make_or_find(&self, epoch: u64) -> Option<Arc<TicketKey>> {
        if let Some(key) = self.look_up(epoch) {
            return Some(key);
        }
        let mut raw = [0; RAW_KEY_LEN];
        fill_random(&mut raw);
        if self.shelf.add(&self.shelf_key(epoch), &raw, self.period * 2) {
            return TicketKey::of(&raw).map(Arc::new);
        }
        self.look_up(epoch)
    }

    fn look_up(&self, epoch: u64) -> Option<Arc<TicketKey>> {
        TicketKey::of(&self.shelf.get(&self.shelf_key(epoch))?).map(Arc::new)
    }

    fn shelf_key(&self, epoch: u64) -> Vec<u8> {
        format!("tollbar ticket key {} {epoch}", self.period.as_secs()).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::shelf::Memory;
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn shelf() -> Arc<dyn Shelf> {
        Arc::new(Memory::new(1000))
    }

    fn context(name: &str) -> Context {
        Context::of(&[name.as_bytes()])
    }

    /// A worker's view: its own `Keys` over the shelf that all share.
    fn tickets(shelf: &Arc<dyn Shelf>, name: &str) -> Tickets {
        Tickets::new(Keys::rotating(shelf.clone(), HOUR), context(name), HOUR)
    }

    #[test]
    fn a_ticket_opens_in_every_worker_and_nowhere_else() {
        let shared = shelf();
        let ticket = tickets(&shared, "a").encrypt(b"secret").unwrap();
        assert_eq!(tickets(&shared, "a").decrypt(&ticket).as_deref(), Some(&b"secret"[..]));
        assert_eq!(tickets(&shared, "b").decrypt(&ticket), None, "another server");
        assert_eq!(tickets(&shelf(), "a").decrypt(&ticket), None, "other keys");
        for at in 0..ticket.len() {
            let mut damaged = ticket.clone();
            damaged[at] ^= 1;
            assert_eq!(tickets(&shared, "a").decrypt(&damaged), None, "{at}");
            assert_eq!(tickets(&shared, "a").decrypt(&ticket[..at]), None, "{at}");
        }
    }

    #[test]
    fn what_is_carried_comes_back() {
        let tickets = tickets(&shelf(), "a");
        let mut first = Carried { verdict: 18, ..Carried::default() };
        let ticket = carrying(&mut first, || tickets.encrypt(b"x").unwrap());
        assert!(first.authenticated_secs > 0 && first.id != [0; 32]);
        let mut second = Carried::default();
        carrying(&mut second, || tickets.decrypt(&ticket).unwrap());
        assert_eq!(second, first);
        assert_eq!(CURRENT.get(), Carried::default(), "nothing is left behind");
    }

    #[test]
    fn resuming_does_not_prolong() {
        let tickets = tickets(&shelf(), "a");
        let old = Carried { authenticated_secs: unix_time() - 3500, id: [1; 32], verdict: 0 };
        let ticket = carrying(&mut old.clone(), || tickets.encrypt(b"x").unwrap());
        let mut resumed = Carried::default();
        let again = carrying(&mut resumed, || {
            tickets.decrypt(&ticket).unwrap();
            tickets.encrypt(b"x").unwrap()
        });
        assert_eq!(resumed.authenticated_secs, old.authenticated_secs);
        let older = Carried { authenticated_secs: unix_time() - 3600, ..old };
        let dead = carrying(&mut older.clone(), || tickets.encrypt(b"x").unwrap());
        assert_eq!(tickets.decrypt(&dead), None);
        assert!(tickets.decrypt(&again).is_some());
    }

    #[test]
    fn keys_change_with_the_period_and_open_one_more() {
        let shared = shelf();
        let keys = |started_ago: u64| {
            let Keys::Rotating(keys) = Keys::rotating(shared.clone(), HOUR) else { unreachable!() };
            keys.held.lock().unwrap().started_secs = Some(unix_time() - started_ago);
            keys
        };
        let name = |keys: &Rotating| keys.newest().unwrap().name;
        let first = name(&keys(0));
        assert_eq!(name(&keys(3500)), first);
        let second = name(&keys(3600));
        assert_ne!(second, first);
        assert!(keys(3600).named(&first).is_some());
        assert!(keys(7200).named(&second).is_some());
        assert!(keys(7200).named(&first).is_none());
    }

    #[test]
    fn key_files_as_nginx_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (one, two) = (file("1", &[b'1'; 48]), file("2", &[b'2'; 80]));
        let with =
            |paths: &[String]| Tickets::new(Keys::from_files(paths).unwrap(), context("a"), HOUR);
        let old = with(std::slice::from_ref(&one)).encrypt(b"x").unwrap();
        assert_eq!(&old[..16], [b'1'; 16], "a ticket begins with its key's name");
        let both = with(&[two.clone(), one.clone()]);
        assert_eq!(both.decrypt(&old).as_deref(), Some(&b"x"[..]));
        assert_eq!(&both.encrypt(b"x").unwrap()[..16], [b'2'; 16]);
        assert_eq!(with(&[two]).decrypt(&old), None);
        let refused = |path: String| Keys::from_files(&[path]).err().unwrap().to_string();
        let odd = file("odd", b"x");
        assert_eq!(refused(odd.clone()), format!("\"{odd}\" must be 48 or 80 bytes"));
        assert_eq!(refused("/x".into()), "open() \"/x\" failed (2: No such file or directory)");
    }

    #[test]
    fn sessions_are_found_by_their_own_server() {
        let shared = shelf();
        let a = Sessions::new(shared.clone(), context("a"), HOUR);
        let b = Sessions::new(shared, context("b"), HOUR);
        let mut carried = Carried::default();
        assert!(carrying(&mut carried, || a.put(vec![7; 32], b"value".to_vec())));
        assert_eq!(carried.id, [7; 32], "a TLS 1.2 session id is the id that is shown");
        assert_eq!(b.get(&[7; 32]), None);
        assert_eq!(a.get(&[7; 32]).as_deref(), Some(&b"value"[..]));
        assert_eq!(a.take(&[7; 32]).as_deref(), Some(&b"value"[..]));
        assert_eq!(a.take(&[7; 32]), None, "taken once");
    }
}
