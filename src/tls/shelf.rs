//! Where sessions and ticket keys are left: one worker's memory, or a dict that all workers share.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tollbar_shm::dict::Owned;
use tollbar_shm::{Dict, Put};

use super::unix_time;

/// Where bytes can be left for other workers: a shared dict, or one worker's memory. A `ttl` of
/// zero means for ever.
pub trait Shelf: fmt::Debug + Send + Sync {
    /// Leaves a value, replacing another. Whether it was kept.
    fn set(&self, key: &[u8], value: &[u8], ttl: Duration) -> bool;
    /// Leaves a value unless there is one. Whether it was kept.
    fn add(&self, key: &[u8], value: &[u8], ttl: Duration) -> bool;
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// Takes the value away; no second caller gets it.
    fn take(&self, key: &[u8]) -> Option<Vec<u8>>;
}

/// A dict in shared memory (`ssl_session_cache shared:NAME:SIZE`, and the zone of ticket keys).
impl Shelf for Dict {
    fn set(&self, key: &[u8], value: &[u8], ttl: Duration) -> bool {
        Dict::set(self, key, put(value, ttl), unix_millis()).is_ok()
    }

    fn add(&self, key: &[u8], value: &[u8], ttl: Duration) -> bool {
        Dict::add(self, key, put(value, ttl), unix_millis()).is_ok()
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        match Dict::get(self, key, unix_millis()).ok()??.value {
            Owned::String(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Who leaves a mark under the value's key first has it.
    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        const MARK_SECS: u64 = 60;
        let value = Shelf::get(self, key)?;
        let mark = [b"taken ", key].concat();
        let is_first = Shelf::add(self, &mark, b"", Duration::from_secs(MARK_SECS));
        // Whoever reads the value after this finds the mark, for longer than any read lasts.
        let _ = self.delete(key);
        is_first.then_some(value)
    }
}

/// A zone of the configuration, from before it is opened: nothing is found or kept until then.
impl Shelf for OnceLock<Arc<Dict>> {
    fn set(&self, key: &[u8], value: &[u8], ttl: Duration) -> bool {
        OnceLock::get(self).is_some_and(|dict| Shelf::set(&**dict, key, value, ttl))
    }

    fn add(&self, key: &[u8], value: &[u8], ttl: Duration) -> bool {
        OnceLock::get(self).is_some_and(|dict| Shelf::add(&**dict, key, value, ttl))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        Shelf::get(&**OnceLock::get(self)?, key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        Shelf::take(&**OnceLock::get(self)?, key)
    }
}

fn put(value: &[u8], ttl: Duration) -> Put<'_> {
    Put::string(value).ttl(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
}

fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A shelf of one process (`ssl_session_cache builtin`), bounded, oldest out first.
#[derive(Debug)]
pub struct Memory {
    most: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    values: HashMap<Vec<u8>, (Vec<u8>, u64)>,
    /// Keys in order of arrival, taken ones included.
    order: VecDeque<Vec<u8>>,
}

/// OpenSSL's size of a builtin cache.
pub const BUILTIN_SESSIONS: usize = 20_480;

impl Memory {
    pub fn new(most: usize) -> Self {
        Self { most, kept: Mutex::default() }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf for Memory {
    fn set(&self, key: &[u8], value: &[u8], ttl: Duration) -> bool {
        let mut kept = self.kept();
        while kept.order.len() >= self.most {
            let Some(oldest) = kept.order.pop_front() else { return false };
            kept.values.remove(&oldest);
        }
        let until =
            if ttl.is_zero() { u64::MAX } else { unix_time().saturating_add(ttl.as_secs().max(1)) };
        if kept.values.insert(key.to_vec(), (value.to_vec(), until)).is_none() {
            kept.order.push_back(key.to_vec());
        }
        true
    }

    fn add(&self, key: &[u8], value: &[u8], ttl: Duration) -> bool {
        self.get(key).is_none() && self.set(key, value, ttl)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let now = unix_time();
        self.kept()
            .values
            .get(key)
            .filter(|(_, until)| now < *until)
            .map(|(value, _)| value.clone())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.get(key);
        self.kept().values.remove(key);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ZoneTable;
    use std::sync::Arc;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn both_shelves_keep_the_same_promises() {
        let dict = Dict::create("sessions", 1 << 20).unwrap();
        let shelves: [&dyn Shelf; 2] = [&Memory::new(10), &dict];
        for shelf in shelves {
            assert_eq!(shelf.get(b"k"), None);
            assert!(shelf.set(b"k", b"one", HOUR) && shelf.set(b"k", b"two", HOUR));
            assert!(!shelf.add(b"k", b"three", HOUR) && shelf.add(b"l", b"", Duration::ZERO));
            assert_eq!(shelf.get(b"k").as_deref(), Some(&b"two"[..]));
            assert_eq!(shelf.take(b"k").as_deref(), Some(&b"two"[..]));
            assert_eq!((shelf.take(b"k"), shelf.get(b"k")), (None, None));
            assert_eq!(shelf.get(b"l").as_deref(), Some(&b""[..]));
        }
    }

    #[test]
    fn a_zone_is_a_shelf_once_it_is_open() {
        let zone = ZoneTable::default().want("s", "ssl", Some(1 << 20)).unwrap();
        let shelf: Arc<dyn Shelf> = zone.handle();
        assert!(!shelf.set(b"k", b"v", HOUR) && shelf.get(b"k").is_none());
        zone.open(crate::event::Memory::Dict(Arc::new(Dict::create("s", 1 << 20).unwrap())));
        assert!(shelf.set(b"k", b"v", HOUR));
        assert_eq!(Shelf::get(zone.dict(), b"k").as_deref(), Some(&b"v"[..]));
    }

    #[test]
    fn memory_is_bounded() {
        let memory = Memory::new(2);
        for key in [b"1", b"2", b"3"] {
            assert!(memory.set(key, key, HOUR));
        }
        assert_eq!(memory.get(b"1"), None);
        assert!(memory.get(b"2").is_some() && memory.get(b"3").is_some());
        assert!(!memory.add(b"3", b"x", HOUR) && memory.add(b"4", b"x", HOUR));
    }
}
