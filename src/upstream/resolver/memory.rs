//! What a resolver knows, and what it is asking for: one slot a name, and not too many.
//!
//! A name that nobody asked for during [`KEEP_UNUSED`] is forgotten when others come; a full memory
//! forgets the names that were not asked for of late first.

use super::inquiry::Found;
use super::{Kind, Unresolved};
use crate::event::Notify;
use std::cell::{Cell, OnceCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a name is kept that nobody asks for.
const KEEP_UNUSED: Duration = Duration::from_secs(30);
/// Names that are remembered or asked for.
const NAMES_MAX: usize = 8192;
/// Slots that are looked at for one that may go.
const GLANCES: usize = 64;

/// A name and what is asked about it.
pub type Key = (Kind, Rc<str>);

/// What is known of a name.
#[derive(Debug)]
pub struct Known {
    pub found: Found,
    pub valid_until: Instant,
    used: Cell<Instant>,
}

/// A name that is being asked for, and who waits for it.
#[derive(Default)]
pub struct Lookup {
    pub result: OnceCell<Result<Rc<Known>, Unresolved>>,
    pub bell: Notify,
    pub waiters: Cell<usize>,
}

/// What there is of a name.
pub enum Slot {
    Asking(Rc<Lookup>),
    Known(Rc<Known>),
    /// The lookup failed: the slot is the first to go.
    Gone,
}

/// All names of a resolver.
#[derive(Default)]
pub struct Memory {
    slots: HashMap<Key, Slot>,
    /// Every key of `slots` once, in the order of looking at them.
    order: VecDeque<Key>,
}

impl Known {
    pub fn new(found: Found, valid_until: Instant, now: Instant) -> Known {
        Known { found, valid_until, used: Cell::new(now) }
    }
}

impl Memory {
    /// What is known or being asked; what is out of date is nothing.
    pub fn find(&self, key: &Key, now: Instant) -> Option<Slot> {
        match self.slots.get(key)? {
            Slot::Asking(lookup) => Some(Slot::Asking(lookup.clone())),
            Slot::Known(known) if now < known.valid_until => {
                known.used.set(now);
                Some(Slot::Known(known.clone()))
            }
            Slot::Known(_) | Slot::Gone => None,
        }
    }

    /// Makes a slot for a lookup.
    ///
    /// Errors: there is no room because too many names are being asked for.
    pub fn begin(&mut self, key: Key, now: Instant) -> Result<Rc<Lookup>, Unresolved> {
        self.sweep(now);
        let lookup = Rc::new(Lookup::default());
        if let Some(slot) = self.slots.get_mut(&key) {
            *slot = Slot::Asking(lookup.clone());
            return Ok(lookup);
        }
        if self.slots.len() >= NAMES_MAX && !self.make_room(now) {
            return Err(Unresolved::Busy);
        }
        self.slots.insert(key.clone(), Slot::Asking(lookup.clone()));
        self.order.push_back(key);
        Ok(lookup)
    }

    /// The lookup is over: remembers what was found, or forgets the name.
    pub fn end(&mut self, key: &Key, lookup: &Rc<Lookup>, known: Option<Rc<Known>>) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let is_own = matches!(&*slot, Slot::Asking(own) if Rc::ptr_eq(own, lookup));
        if is_own {
            *slot = known.map_or(Slot::Gone, Slot::Known);
        }
    }

    /// Looks at the two slots whose turn it is, and forgets them if nobody asked for long.
    fn sweep(&mut self, now: Instant) {
        for _ in 0..2 {
            self.glance(|known| now.duration_since(known.used.get()) > KEEP_UNUSED);
        }
    }

    fn make_room(&mut self, now: Instant) -> bool {
        let of_late = Duration::from_secs(1);
        (0..GLANCES).any(|_| self.glance(|known| now.duration_since(known.used.get()) > of_late))
            || (0..GLANCES).any(|_| self.glance(|_| true))
    }

    /// Looks at the first slot: it goes if `may_go`, else to the end. Says whether it went.
    fn glance(&mut self, may_go: impl Fn(&Known) -> bool) -> bool {
        let Some(key) = self.order.pop_front() else { return false };
        let goes = match self.slots.get(&key) {
            Some(Slot::Known(known)) => may_go(known),
            Some(Slot::Asking(_)) => false,
            Some(Slot::Gone) | None => true,
        };
        match goes {
            true => drop(self.slots.remove(&key)),
            false => self.order.push_back(key),
        }
        goes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        (Kind::Hosts, n.to_string().into())
    }

    fn known(now: Instant, seconds: u64) -> Option<Rc<Known>> {
        let found = Found::Alias("x".into());
        Some(Rc::new(Known::new(found, now + Duration::from_secs(seconds), now)))
    }

    #[test]
    fn what_is_known_gets_out_of_date() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let lookup = memory.begin(key(1), now).unwrap();
        assert!(matches!(memory.find(&key(1), now), Some(Slot::Asking(_))));
        memory.end(&key(1), &lookup, known(now, 5));
        let after = |seconds| now + Duration::from_secs(seconds);
        assert!(matches!(memory.find(&key(1), after(4)), Some(Slot::Known(_))));
        assert!(memory.find(&key(1), after(5)).is_none());
        // A new lookup takes its place; the old one cannot end it.
        let next = memory.begin(key(1), after(5)).unwrap();
        memory.end(&key(1), &lookup, None);
        assert!(matches!(memory.find(&key(1), after(5)), Some(Slot::Asking(_))));
        memory.end(&key(1), &next, None);
        assert!(memory.find(&key(1), after(5)).is_none());
        memory.sweep(after(5));
        assert_eq!((memory.slots.len(), memory.order.len()), (0, 0));
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        for n in 0..NAMES_MAX + 100 {
            let lookup = memory.begin(key(n), now).unwrap();
            memory.end(&key(n), &lookup, known(now, 1000));
        }
        assert_eq!((memory.slots.len(), memory.order.len()), (NAMES_MAX, NAMES_MAX));
        let later = now + KEEP_UNUSED + Duration::from_secs(1);
        for n in 0..10 {
            let lookup = memory.begin(key(n), later).unwrap();
            memory.end(&key(n), &lookup, known(later, 1000));
        }
        assert!(memory.slots.len() < NAMES_MAX - 8);
    }

    #[test]
    fn names_being_asked_for_are_not_forgotten() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let all: Vec<_> = (0..NAMES_MAX).map(|n| memory.begin(key(n), now).unwrap()).collect();
        assert_eq!(memory.begin(key(NAMES_MAX), now).err(), Some(Unresolved::Busy));
        (0..2 * GLANCES).for_each(|n| memory.end(&key(n), &all[n], None));
        assert!(memory.begin(key(NAMES_MAX), now).is_ok());
    }
}
