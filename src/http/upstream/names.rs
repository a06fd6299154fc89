//! Sets of header names, for fields that are hidden or replaced.

use crate::proto::header::{HeaderId, HeaderSet};

/// A set of header names.
#[derive(Clone, Debug, Default)]
pub struct NameSet {
    known: HeaderSet,
    other: Vec<Box<[u8]>>,
}

impl NameSet {
    /// The set of `names`, in any letter case.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> NameSet {
        let mut set = NameSet::default();
        for name in names {
            match HeaderId::of(name.as_bytes()) {
                HeaderId::Other => set.other.push(name.to_ascii_lowercase().into_bytes().into()),
                id => set.known.insert(id),
            }
        }
        set
    }

    /// Whether the name, which was recognised as `id`, is in it.
    #[inline]
    pub fn contains(&self, id: HeaderId, name: &[u8]) -> bool {
        match id {
            HeaderId::Other => {
                !self.other.is_empty() && self.other.iter().any(|n| n.eq_ignore_ascii_case(name))
            }
            id => self.known.contains(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_case() {
        let set = NameSet::of(["server", "X-Own"]);
        assert!(set.contains(HeaderId::Server, b"Server"));
        assert!(set.contains(HeaderId::Other, b"x-OWN"));
        assert!(!set.contains(HeaderId::Date, b"Date"));
        assert!(!set.contains(HeaderId::Other, b"X-Other"));
    }
}
