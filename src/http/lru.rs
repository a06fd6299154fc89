//! A map by bytes that knows which entry was not used for the longest time.

use slab::Slab;
use std::collections::HashMap;
use std::rc::Rc;

/// Entries in the order of their last use.
pub struct Lru<V> {
    by_key: HashMap<Rc<[u8]>, usize>,
    nodes: Slab<Node<V>>,
    newest: usize,
    oldest: usize,
}

struct Node<V> {
    key: Rc<[u8]>,
    value: V,
    newer: usize,
    older: usize,
}

/// No node.
const NONE: usize = usize::MAX;

impl<V> Default for Lru<V> {
    fn default() -> Lru<V> {
        Lru { by_key: HashMap::new(), nodes: Slab::new(), newest: NONE, oldest: NONE }
    }
}

impl<V> Lru<V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The entry, which becomes the newest.
    pub fn get(&mut self, key: &[u8]) -> Option<&mut V> {
        let at = *self.by_key.get(key)?;
        if at != self.newest {
            self.unlink(at);
            self.link(at);
        }
        Some(&mut self.nodes[at].value)
    }

    /// Adds or replaces the entry, which becomes the newest.
    pub fn put(&mut self, key: &[u8], value: V) {
        if let Some(known) = self.get(key) {
            *known = value;
            return;
        }
        let key: Rc<[u8]> = key.into();
        let at = self.nodes.insert(Node { key: key.clone(), value, newer: NONE, older: NONE });
        self.by_key.insert(key, at);
        self.link(at);
    }

    /// The entry that was not used for the longest time.
    pub fn oldest(&self) -> Option<&V> {
        self.nodes.get(self.oldest).map(|node| &node.value)
    }

    /// Takes it out.
    pub fn pop_oldest(&mut self) -> Option<V> {
        let at = self.oldest;
        self.nodes.get(at)?;
        Some(self.take(at))
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        let at = *self.by_key.get(key)?;
        Some(self.take(at))
    }

    fn take(&mut self, at: usize) -> V {
        self.unlink(at);
        let node = self.nodes.remove(at);
        self.by_key.remove(&node.key);
        debug_assert_eq!(self.by_key.len(), self.nodes.len(), "each node has one key");
        node.value
    }

    fn link(&mut self, at: usize) {
        (self.nodes[at].older, self.nodes[at].newer) = (self.newest, NONE);
        match self.newest {
            NONE => self.oldest = at,
            newest => self.nodes[newest].newer = at,
        }
        self.newest = at;
    }

    fn unlink(&mut self, at: usize) {
        let (newer, older) = (self.nodes[at].newer, self.nodes[at].older);
        match newer {
            NONE => self.newest = older,
            newer => self.nodes[newer].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.nodes[older].newer = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let mut lru = Lru::default();
        for key in ["a", "b", "c"] {
            lru.put(key.as_bytes(), key);
        }
        assert_eq!(lru.get(b"a"), Some(&mut "a"));
        lru.put(b"b", "B");
        assert_eq!(lru.remove(b"x"), None);
        assert_eq!(lru.oldest(), Some(&"c"));
        assert_eq!(lru.pop_oldest(), Some("c"));
        assert_eq!(lru.remove(b"b"), Some("B"));
        assert_eq!(lru.pop_oldest(), Some("a"));
        assert_eq!(lru.pop_oldest(), None);
        assert!(lru.is_empty());
        lru.put(b"d", "d");
        assert_eq!((lru.oldest(), lru.len()), (Some(&"d"), 1));
    }

    #[test]
    fn a_single_entry_can_be_used_and_replaced() {
        let mut lru = Lru::default();
        lru.put(b"a", 1);
        lru.put(b"a", 2);
        assert_eq!(lru.get(b"a"), Some(&mut 2));
        assert_eq!(lru.pop_oldest(), Some(2));
        assert_eq!(lru.get(b"a"), None);
    }
}
