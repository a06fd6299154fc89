//! Where everything lies in a dict's region, derived from the declared size alone.
//!
//! ```text
//! shards | lines (hash index) | touched bits | page descriptors | free-page hints | pages
//! ```
//! The declared size counts the pages only; the index lies beside them (about 8 % more address
//! space, real memory only where it is used, as a memfd is sparse).

use crate::region::{PAGE, Plan};

/// Code of a dict in the region's header.
pub(super) const KIND: u32 = u32::from_le_bytes(*b"dict");
/// Words in a page.
pub(super) const PAGE_WORDS: usize = PAGE / 8;
/// Fewest pages of a dict, whatever size is declared.
const PAGES_MIN: usize = 4;
/// Slots are named by 32 bits counting 16-byte granules, which ends at 64 GiB.
const PAGES_MAX: usize = (1 << 24) - 1;
/// Pages per shard, as long as there are fewer than [`SHARDS_MAX`] of them.
const PAGES_PER_SHARD: usize = 64;
const SHARDS_MAX: usize = 256;
/// Index lines per page: seven chains each, so 64 smallest entries share 28 chains.
const LINES_PER_PAGE: usize = 4;

/// Words of a shard's own state: three per class, and the counters.
pub(super) const SHARD_WORDS: usize = 64;
/// Words of an index line: the retire counter and the heads of the chains.
pub(super) const LINE_WORDS: usize = 8;
/// Chains in a line.
pub(super) const HEADS: usize = LINE_WORDS - 1;
/// Words of a page descriptor.
pub(super) const DESC_WORDS: usize = 4;

/// Sizes of slots, bytes; the last stands for whole pages. Every size is a multiple of 16 and at
/// least 64, so a page has at most 64 slots and no two start within the same 64 bytes.
pub(super) const CLASSES: [usize; 18] =
    [64, 80, 96, 112, 128, 144, 176, 208, 256, 336, 448, 576, 816, 1024, 1360, 2048, PAGE, 0];
/// The class of entries that fill one page or more.
pub(super) const WHOLE: usize = 16;
/// Not a class of entries: a further page of a large entry.
pub(super) const MORE: usize = 17;
/// Largest entry that shares its page with others, bytes.
pub(super) const SMALL_MAX: usize = 2048;

/// Offsets of the parts, in words, and their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub pages: usize,
    pub shards: usize,
    pub lines: usize,
    pub at_lines: usize,
    pub at_touched: usize,
    pub at_descs: usize,
    pub at_hints: usize,
    /// Words of hints; each stands for 64 pages.
    pub hints: usize,
    pub at_summary: usize,
    /// Words of the summary; each stands for 64 words of hints.
    pub summary: usize,
    pub at_pages: usize,
    pub words: usize,
}

impl Layout {
    /// The layout of a dict declared with `size` bytes, if that is not too large.
    pub fn of(size: u64) -> Option<Layout> {
        let pages = usize::try_from(size / PAGE as u64).ok()?.max(PAGES_MIN);
        if pages > PAGES_MAX {
            return None;
        }
        let shards = prev_power_of_two((pages / PAGES_PER_SHARD).clamp(1, SHARDS_MAX));
        let lines = (pages * LINES_PER_PAGE).next_multiple_of(shards);
        let hints = pages.div_ceil(64);
        let summary = hints.div_ceil(64);
        let at_lines = shards * SHARD_WORDS;
        let at_touched = at_lines + lines * LINE_WORDS;
        let at_descs = (at_touched + pages).next_multiple_of(8);
        let at_hints = at_descs + pages * DESC_WORDS;
        let at_summary = (at_hints + hints).next_multiple_of(8);
        let at_pages = (at_summary + summary).next_multiple_of(PAGE_WORDS);
        let words = at_pages + pages * PAGE_WORDS;
        Some(Layout {
            pages,
            shards,
            lines,
            at_lines,
            at_touched,
            at_descs,
            at_hints,
            hints,
            at_summary,
            summary,
            at_pages,
            words,
        })
    }

    /// The region to ask for: one lock per shard, and one for reclaiming.
    pub fn plan(&self, name: &str, size: u64) -> Plan {
        let locks = self.shards + 1;
        Plan { kind: KIND, name: name.into(), param: size, locks, words: self.words }
    }
}

/// The class of an entry of `bytes`.
pub(super) fn class_of(bytes: usize) -> usize {
    if bytes > SMALL_MAX { WHOLE } else { usize::from(CLASS_BY_GRANULES[bytes.div_ceil(16)]) }
}

/// The bits of a page's bitmaps at which slots of `class` start. A slot's bit is the number of the
/// 64 bytes in which it starts: known from its address alone, whatever its class.
pub(super) const fn slot_bits(class: usize) -> u64 {
    SLOT_BITS[class]
}

/// The byte within its page at which the slot of `class` with bit `bit` starts.
pub(super) fn slot_start(class: usize, bit: u32) -> usize {
    let size = CLASSES[class].max(64);
    (bit as usize * 64).div_ceil(size) * size
}

const SLOT_BITS: [u64; CLASSES.len()] = {
    let mut all = [0; CLASSES.len()];
    let mut class = 0;
    while class < MORE {
        let size = CLASSES[class];
        let mut at = 0;
        while at + size <= PAGE {
            all[class] |= 1 << (at / 64);
            at += size;
        }
        class += 1;
    }
    all
};

const CLASS_BY_GRANULES: [u8; SMALL_MAX / 16 + 1] = {
    let mut table = [0; SMALL_MAX / 16 + 1];
    let mut n = 0;
    while n < table.len() {
        let mut class = 0;
        while CLASSES[class] < n * 16 {
            class += 1;
        }
        table[n] = class as u8;
        n += 1;
    }
    table
};

fn prev_power_of_two(n: usize) -> usize {
    1 << n.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_a_bit_of_its_own_and_is_found_by_it() {
        for (class, size) in CLASSES.into_iter().enumerate().take(MORE) {
            let bits = slot_bits(class);
            assert_eq!(bits.count_ones() as usize, PAGE / size);
            for bit in (0..64).filter(|b| bits >> b & 1 == 1) {
                let start = slot_start(class, bit);
                assert_eq!((start / 64, start % size), (bit as usize, 0));
                assert!(start + size <= PAGE);
            }
        }
    }

    #[test]
    fn an_entry_gets_the_smallest_class_that_holds_it() {
        for bytes in 1..=SMALL_MAX {
            let class = class_of(bytes);
            assert!(CLASSES[class] >= bytes && (class == 0 || CLASSES[class - 1] < bytes));
        }
        assert_eq!(class_of(SMALL_MAX + 1), WHOLE);
    }

    #[test]
    fn sizes_from_nothing_to_the_largest() {
        assert_eq!(Layout::of(0).unwrap().pages, 4);
        let big = Layout::of(1 << 30).unwrap();
        assert_eq!((big.pages, big.shards), (262_144, 256));
        assert!(big.at_pages * 100 < big.words * 10, "the index is under a tenth");
        assert!(Layout::of(1 << 37).is_none());
    }
}
